package certs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// TestTimeoutOfTheWayIsAnOutage: only the end of an order's own time is the name's fault.
func TestTimeoutOfTheWayIsAnOutage(t *testing.T) {
	t.Parallel()
	late, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-late.Done()
	d := net.Dialer{Timeout: time.Nanosecond}
	_, dialed := d.DialContext(t.Context(), "tcp", "127.0.0.1:9")
	if !errors.Is(dialed, context.DeadlineExceeded) {
		t.Fatalf("a dialer that times out says %v", dialed)
	}
	for _, err := range []error{
		dialed,
		&net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded},
		fmt.Errorf("read: %w", context.DeadlineExceeded),
	} {
		err = fmt.Errorf("ask the authority: %w", err)
		if v := judge(overdue(t.Context(), err), "a.test", "a.test"); !v.outage {
			t.Errorf("%v is the name's fault", err)
		}
		if v := judge(overdue(late, err), "a.test", "a.test"); v.outage {
			t.Errorf("at the end of the order's time %v is an outage", err)
		}
	}
	if err := overdue(late, nil); err != nil {
		t.Errorf("an order that went well at the last moment: %v", err)
	}
}

// TestLimitOfANameIsToldByItsWholeName: an authority's own pages, and longer names, are none of a customer.
func TestLimitOfANameIsToldByItsWholeName(t *testing.T) {
	t.Parallel()
	const name, domain = "mta-sts.encrypt.org", "encrypt.org"
	for detail, want := range map[string]bool{
		"too many new orders recently: see https://letsencrypt.org/docs/rate-limits": false,
		"too many new orders, see https://encrypt.org/docs":                          false,
		"too many new orders, ask help@encrypt.org":                                  false,
		"too many new orders, encrypt.org.example has used them up":                  false,
		"too many certificates (50) already issued for \"encrypt.org\"":              true,
		"too many certificates (50) for Encrypt.ORG. Retry later":                    true,
		"too many failed authorizations (5) for mta-sts.encrypt.org":                 true,
		"not letsencrypt.org, but encrypt.org: too many":                             true,
		"too many certificates (5) for this exact set of identifiers":                true,
		"": false,
	} {
		if got := about(detail, name, domain); got != want {
			t.Errorf("about(%q) = %v, want %v", detail, got, want)
		}
	}
}
