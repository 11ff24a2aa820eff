package publish_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// While name servers do not say where we are, those who ask do not wait for each other's time-outs.
func TestHomeThatIsNotFound(t *testing.T) {
	t.Parallel()
	dns, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "provider.test", Text: "sts A 127.0.0.1\n"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	st, err := store.OpenSQLite(t.Context(), filepath.Join(memory(t), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	o := &publish.Outside{
		Client:   &sender.Client{Resolver: &sender.Resolver{Servers: []string{dns.Addr}, Timeout: 200 * time.Millisecond}},
		Hostname: "sts.provider.test", Values: st,
	}
	dns.SetFault(".", lab.FaultSilent)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := o.Home(t.Context()); err == nil {
				t.Error("Home without an answer = nil")
			}
		})
	}
	wg.Wait()
	if n := dns.Queries("sts.provider.test", "A"); n > 4 {
		t.Errorf("%d questions, want those of one look", n)
	}
	dns.SetFault(".", lab.FaultNone)
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; {
		home, err := o.Home(t.Context())
		if err == nil {
			if got := fmt.Sprintf("%s %v", home.Name, home.Addrs); got != "sts.provider.test [127.0.0.1]" {
				t.Errorf("Home = %s", got)
			}
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("Home is not found again: %v", err)
		}
	}
}

// TestHostOfATenant has a customer point to his tenant's target before that has an address, and to another one's.
func TestHostOfATenant(t *testing.T) {
	t.Parallel()
	dns, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{
		{Name: "provider.test", Text: "sts A 127.0.0.1\n"}, {Name: "customer.test", Text: "mta-sts CNAME b.sts.provider.test.\n"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	st, err := store.OpenSQLite(t.Context(), filepath.Join(memory(t), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	resolver := &sender.Resolver{Stub: map[string][]string{".": {dns.Addr}}}
	o := &publish.Outside{
		Client: &sender.Client{Resolver: resolver}, Observer: &dnsupdate.Observer{Resolver: resolver}, Hostname: "sts.provider.test", Values: st,
	}
	if h := o.Host(t.Context(), "customer.test", "b.sts.provider.test"); !h.Ours {
		t.Errorf("the tenant's target: %+v", h)
	}
	h := o.Host(t.Context(), "customer.test", "c.sts.provider.test")
	if want := "waiting for: CNAME mta-sts.customer.test → c.sts.provider.test, last seen CNAME b.sts.provider.test"; h.Ours || h.Reason != want {
		t.Errorf("another tenant's target: %+v, want %s", h, want)
	}
}
