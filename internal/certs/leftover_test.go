package certs

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/store"
)

// TestOrderLeavesNothing guards what an update of autocert could break: the Manager of an order that is over becomes
// garbage once its timer for renewal has fired, and orders nothing.
func TestOrderLeavesNothing(t *testing.T) {
	a := labACME(t, 8*time.Second, "127.0.0.1")
	o, gone := func() (*order, weak.Pointer[order]) {
		o := newOrder(t.Context(), a, "mta-sts.good.test")
		if _, err := a.obtain(t.Context(), o); err != nil {
			t.Fatal(o.explain(err))
		}
		o.close()
		return &order{orders: o.orders}, weak.Make(o)
	}()
	if o.orders != 2 { // TLS-ALPN-01 fails here, HTTP-01 does not
		t.Errorf("the authority took %d orders, want 2", o.orders)
	}
	deadline := time.After(30 * time.Second)
	for gone.Value() != nil {
		runtime.GC()
		select {
		case <-deadline:
			t.Fatal("the Manager of an order that is over is still referenced after the life of its certificate")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// TestFailedOrderIsTriedTwice guards the other: without the bound a Manager sends three orders for a dead name.
func TestFailedOrderIsTriedTwice(t *testing.T) {
	a := labACME(t, time.Hour, "127.0.0.99")
	o := newOrder(t.Context(), a, "mta-sts.good.test")
	_, err := a.obtain(t.Context(), o)
	o.close()
	if err == nil {
		t.Fatal("a certificate for a name that nobody answers for")
	}
	if o.orders != 2 || len(o.problems) != 2 {
		t.Errorf("%d orders, problems: %v", o.orders, o.problems)
	}
}

// labACME returns an ACME whose authority validates mta-sts.good.test at an address.
func labACME(t *testing.T, lifetime time.Duration, address string) *ACME {
	t.Helper()
	for name, value := range lab.CAEnviron() {
		t.Setenv(name, value)
	}
	dns, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "test", Text: "*.good A " + address + "\n"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	ca, err := lab.StartCA(t.Context(), lab.CAOptions{DNS: dns.Addr, HTTPPort: port, TLSPort: port, Lifetime: lifetime})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, ca.DirectoryCAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenSQLite(t.Context(), filepath.Join(dir, "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	a, err := NewACME(config.ACME{Name: "lab", Directory: ca.DirectoryURL, CAFile: file}, s, log)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: a.HTTPHandler(nil), ReadHeaderTimeout: time.Minute}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return a
}
