package certs_test

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
)

func TestTwentyNamesAtTheSameTime(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	n := w.startNode(t, func(c *certs.Config) {
		c.Budgets = []config.Budget{{Orders: 100, OrdersPeriod: time.Hour, DomainOrders: 100, DomainPeriod: time.Hour, Failures: 4, InFlight: 20, PerSecond: 20}}
	})
	w.serveTLS(t, n.Keeper)
	name := func(i int) string { return fmt.Sprintf("mta-sts%d.good.test", i) }
	for i := range 20 {
		n.Want(name(i), false)
		n.Want(name(i), false)
	}
	for i := range 20 {
		n.wait(t, name(i), certs.StateValid)
		if _, err := w.handshake(t, name(i)); err != nil {
			t.Errorf("handshake: %v", err)
		}
	}
	if got := n.issuer.orders.Load(); got != 20 {
		t.Errorf("%d orders for 20 names", got)
	}
	reg := prometheus.NewPedanticRegistry()
	for _, c := range n.Collectors() {
		reg.MustRegister(c)
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 3 {
		t.Fatalf("%d metric families, %v", len(families), err)
	}
	for _, m := range families[2].GetMetric() { // by name: days_left, names, orders_total
		if m.GetLabel()[0].GetValue() == "issued" && m.GetCounter().GetValue() != 20 {
			t.Errorf("orders: %v", m)
		}
	}
	for _, m := range families[1].GetMetric() {
		if m.GetLabel()[0].GetValue() == "valid" && m.GetGauge().GetValue() != 20 {
			t.Errorf("names: %v", m)
		}
	}
}

func TestRenewsNamesThatNobodyAsksFor(t *testing.T) {
	w := newWorld(t, 9*time.Second)
	w.serveHTTP(t)
	dead(w.tls)
	n := w.startNode(t)
	n.Want("mta-sts.good.test", false)
	first := n.wait(t, "mta-sts.good.test", certs.StateValid)
	if !first.NextTry.Before(first.NotAfter.Add(-3 * time.Second)) {
		t.Errorf("renewal at %v of a certificate that ends at %v", first.NextTry, first.NotAfter)
	}
	for last, renewals := first.NotAfter, 0; renewals < 2; {
		select {
		case <-n.changes:
		case <-time.After(patience):
			t.Fatal("no renewal")
		}
		s := n.Status("mta-sts.good.test")
		if s.State != certs.StateValid {
			t.Fatalf("while it was renewed: %+v", s)
		}
		if s.NotAfter.After(last) {
			last, renewals = s.NotAfter, renewals+1
		}
	}
}

func TestHandshakeNeverOrders(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	n := w.startNode(t)
	w.serveTLS(t, n.Keeper)
	for _, name := range []string{"", "mta-sts.good.test", "unknown.good.test", "other.example"} {
		if _, err := w.handshake(t, name); !isUnrecognized(err) {
			t.Errorf("handshake with %q: %v, want the alert unrecognized_name", name, err)
		}
	}
	challenge := &tls.Config{ServerName: "mta-sts.good.test", NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true}
	if _, err := (&tls.Dialer{Config: challenge}).DialContext(t.Context(), "tcp", w.tls.Addr().String()); !isUnrecognized(err) {
		t.Errorf("a challenge for a name that is not being validated: %v", err)
	}
	if got := n.issuer.orders.Load(); got != 0 {
		t.Errorf("handshakes caused %d orders", got)
	}
	if s := n.Status("mta-sts.good.test"); s.State != certs.StateNone {
		t.Errorf("a handshake changed the state: %+v", s)
	}
	n.Want("mta-sts.good.test", false)
	n.wait(t, "mta-sts.good.test", certs.StateValid)
	if _, err := w.handshake(t, "mta-sts.good.test"); err != nil {
		t.Errorf("handshake once it is there: %v", err)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	dead(w.tls)
	path := filepath.Join(t.TempDir(), "kept.db")
	w.store = openStore(t, path)
	w.prefer(t, "http-01")
	w.acme = w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	n := w.startNode(t, func(c *certs.Config) { c.FirstPause = time.Hour })
	n.Want("mta-sts.good.test", false)
	n.Want("mta-sts.refuse.test", false)
	good := n.wait(t, "mta-sts.good.test", certs.StateValid)
	bad := n.wait(t, "mta-sts.refuse.test", certs.StateFailing)
	n.stop()
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}

	w.store = openStore(t, path)
	w.acme = w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	w.tls = listen(t)
	n = w.startNode(t)
	w.serveTLS(t, n.Keeper)
	n.Want("mta-sts.good.test", false)
	n.Want("mta-sts.refuse.test", false)
	if got := n.Status("mta-sts.good.test"); got.State != certs.StateValid || !got.NotAfter.Equal(good.NotAfter) {
		t.Errorf("after the restart %+v, before %+v", got, good)
	}
	got := n.Status("mta-sts.refuse.test")
	if got.State != certs.StateFailing || got.Problem != bad.Problem || !got.NextTry.Equal(bad.NextTry.Round(time.Microsecond)) &&
		!got.NextTry.Equal(bad.NextTry.Truncate(time.Microsecond)) {
		t.Errorf("after the restart %+v, before %+v", got, bad)
	}
	if _, err := w.handshake(t, "mta-sts.good.test"); err != nil {
		t.Errorf("handshake: %v", err)
	}

	// The third name is ordered after the two would have been: nothing else was.
	n.Want("mta-sts3.good.test", false)
	n.wait(t, "mta-sts3.good.test", certs.StateValid, certs.StateFailing)
	if got := n.issuer.orders.Load(); got != 1 {
		t.Errorf("%d orders after the restart, want only that of the new name", got)
	}
	if n.Status("mta-sts.refuse.test").State != certs.StateFailing {
		t.Error("the failing name changed")
	}
}

func TestDropDeletesKeyAndCertificate(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	n := w.startNode(t)
	w.serveTLS(t, n.Keeper)
	n.Want("mta-sts.good.test", false)
	n.wait(t, "mta-sts.good.test", certs.StateValid)
	if got := storedNames(t, w.store); len(got) != 1 {
		t.Fatalf("stored: %q", got)
	}
	if err := n.Drop(t.Context(), "mta-sts.good.test"); err != nil {
		t.Fatal(err)
	}
	if got := storedNames(t, w.store); len(got) != 0 {
		t.Errorf("stored after Drop: %q", got)
	}
	if _, err := w.handshake(t, "mta-sts.good.test"); !isUnrecognized(err) {
		t.Errorf("handshake after Drop: %v", err)
	}
	if s := n.Status("mta-sts.good.test"); s.State != certs.StateNone {
		t.Errorf("status after Drop: %+v", s)
	}
	if err := n.Drop(t.Context(), "mta-sts.good.test"); err != nil {
		t.Errorf("Drop of what is gone: %v", err)
	}
}

// until waits for a condition.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	within(t, patience, ok)
}

// within waits for a condition that may take long.
func within(t *testing.T, limit time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not come to that")
		}
	}
}
