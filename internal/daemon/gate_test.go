package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/lab"
)

// notes is a log that a test reads while it is written.
type notes struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.Write(b)
}

func (n *notes) count(what string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Count(n.buf.String(), what)
}

// A hopeless order is not sent; the operator reads why, mends it, and has it tried again at once.
func TestHopelessOrderIsNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var said notes
	ca, err := lab.StartCA(context.Background(), lab.CAOptions{
		DNS: w.dns.Addr, HTTPPort: 8080, TLSPort: 8443, Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	w.file("ca.pem", string(ca.RootPEM)+string(ca.DirectoryCAPEM))
	w.file("stspub.toml", w.config(w.ca.DirectoryURL, ca.DirectoryURL))
	const order = "Added order "
	set := func(values ...string) {
		t.Helper()
		if err := w.dns.Set(zoned, "CAA", values...); err != nil {
			t.Fatal(err)
		}
	}
	set(`0 issue "other.example"`)
	r := w.start(w.path("stspub.toml"))
	const why = `no certificate for mta-sts.zoned.test: hold the order for "mta-sts.zoned.test": caa: the CAA records of zoned.test exclude lab: ` +
		`CAA 0 issue "other.example" allows another authority; add there: CAA 0 issue "lab.invalid"; next try at `
	reason := func(want string) {
		t.Helper()
		until(t, "reason", func() error {
			s, err := r.admin.Domain(context.Background(), zoned)
			if err == nil && (!s.Fault || !strings.HasPrefix(s.Reason, want) || !strings.HasPrefix(s.Certificate, want)) {
				err = fmt.Errorf("step %s, fault %v: %s; certificate: %s", s.Step, s.Fault, s.Reason, s.Certificate)
			}
			return err
		})
	}
	reason(why)
	own := func() int { return said.count(order) }
	until(t, "certificate of our own name", func() error {
		if own() == 0 {
			return fmt.Errorf("not ordered")
		}
		return nil
	})
	orders := own() // which the authority has taken, so the test sees them
	asked := w.dns.Queries(zoned, "CAA")
	if err := r.admin.Retry(context.Background(), zoned); err != nil {
		t.Fatal(err)
	}
	until(t, "another look", func() error {
		if w.dns.Queries(zoned, "CAA") == asked {
			return fmt.Errorf("CAA is not asked for")
		}
		return nil
	})
	reason(why)
	if got := own(); got != orders {
		t.Errorf("%d orders after another look, %d before it", got, orders)
	}
	set(`0 issue "other.example"`, `0 issue "lab.invalid"`)
	if err := r.admin.Retry(context.Background(), zoned); err != nil {
		t.Fatal(err)
	}
	r.live(time.Time{})
	if got := own(); got != orders+1 {
		t.Errorf("%d orders in the end, want one more than %d", got, orders)
	}
	r.stop()
}

// CAA records at the target of customers' CNAMEs are a fault of the service.
func TestCAAAtTheTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.dns.Set(hostname, "CAA", `0 issue "other.example"`); err != nil {
		t.Fatal(err)
	}
	r := w.start(w.path("stspub.toml"))
	r.fault("caa", `customers' CNAMEs lead to sts.provider.test, so what holds there holds for all of them: caa: the CAA records of `+
		`sts.provider.test exclude lab: CAA 0 issue "other.example" allows another authority; add there: CAA 0 issue "lab.invalid"`)
	if err := w.dns.Set(hostname, "CAA", `0 issue "other.example"`, `0 issue "lab.invalid; validationmethods=tls-alpn-01"`); err != nil {
		t.Fatal(err)
	}
	r.reload()
	r.fault("caa", "")
	r.stop()
}

// An MX that only our network reaches is knocked at with leave, and not without.
func TestAllowPrivate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mx, err := net.Listen("tcp", loopback(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mx.Close() })
	var knocked atomic.Int32
	go func() { // ends with mx
		for {
			c, err := mx.Accept()
			if err != nil {
				return
			}
			knocked.Add(1)
			c.Close()
		}
	}()
	ip, port, _ := net.SplitHostPort(mx.Addr().String())
	if err := w.dns.Set("mx1.provider.test", "A", ip); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		leave, finding string
		knocked        bool
	}{
		{"", "MX mx1.provider.test (mx-private): the MX was not looked at: " + ip + " is no address of the public Internet", false},
		{`allow_private = ["` + ip + `"]`, "MX mx1.provider.test (mx-smtp): ", true},
	} {
		w.file("stspub.toml", w.config(`mode = "enforce"`, "mode = \"enforce\"\nrollout = \"1s\"", "[check]", "[check]\nsmtp_port = "+port+"\n"+c.leave))
		r := w.start(w.path("stspub.toml"))
		until(t, "held roll-out", func() error {
			s, err := r.admin.Domain(context.Background(), zoned)
			if err == nil && !strings.Contains(fmt.Sprint(s.Reason, s.Findings), c.finding) {
				err = fmt.Errorf("step %s: %s; %+v", s.Step, s.Reason, s.Findings)
			}
			return err
		})
		if (knocked.Load() > 0) != c.knocked {
			t.Errorf("%q: %d connections, want some: %v", c.leave, knocked.Load(), c.knocked)
		}
		r.stop()
	}
}
