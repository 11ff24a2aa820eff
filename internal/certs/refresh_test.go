package certs_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// TestRefresh has two keepers on one store: what one obtains, renews and drops, the other serves, and does not order.
func TestRefresh(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	one, two := w.startNode(t), w.startNode(t)
	w.serveTLS(t, two.Keeper)
	const name, both = "mta-sts.good.test", "mta-sts2.good.test"
	var seen int64
	refresh := func() {
		t.Helper()
		var err error
		if seen, err = two.Refresh(t.Context(), seen); err != nil {
			t.Fatal(err)
		}
	}
	one.Want(name, false)
	one.wait(t, name, certs.StateValid)
	if _, err := w.handshake(t, name); !isUnrecognized(err) {
		t.Errorf("before a refresh: %v", err)
	}
	refresh()
	if _, err := w.handshake(t, name); err != nil {
		t.Errorf("after a refresh: %v", err)
	}
	two.Want(name, true)
	two.wait(t, name, certs.StateValid)

	// Both want a name at the same time: one orders it, and the other is told long before it looks again.
	one.Want(both, false)
	two.Want(both, false)
	for one.Status(both).State != certs.StateValid && two.Status(both).State != certs.StateValid {
		select {
		case <-one.changes:
		case <-two.changes:
		case <-time.After(patience):
			t.Fatalf("nobody has it: %+v, %+v", one.Status(both), two.Status(both))
		}
	}
	refresh()
	if _, err := one.Refresh(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for i, n := range []*node{one, two} {
		if s := n.Status(both); s.State != certs.StateValid || s.Problem != "" {
			t.Errorf("keeper %d: %+v", i, s)
		}
	}

	if err := one.Drop(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	refresh()
	if s := two.Status(name); s.State != certs.StateNone {
		t.Errorf("dropped by the other: %+v", s)
	}
	if _, err := w.handshake(t, name); !isUnrecognized(err) {
		t.Errorf("handshake with a dropped name: %v", err)
	}
	if got := one.issuer.orders.Load() + two.issuer.orders.Load(); got != 2 {
		t.Errorf("%d orders for two names", got)
	}
	two.Want(name, false)
	two.wait(t, name, certs.StateValid)
}

// TestRefreshKeepsThePlan: a renewal is planned by who obtained the certificate, where few others are, and for all nodes.
func TestRefreshKeepsThePlan(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	one, two := w.startNode(t), w.startNode(t)
	const name = "mta-sts.good.test"
	one.Want(name, false)
	one.wait(t, name, certs.StateValid)
	c, err := w.store.Certificate(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	c.Renew = time.Now().Add(7 * time.Minute).Truncate(time.Second) // which no name would draw
	if err := w.store.SaveCertificate(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Refresh(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	two.Want(name, true)
	if s := two.Status(name); !s.NextTry.Equal(c.Renew) {
		t.Errorf("the other node renews at %v, want %v", s.NextTry, c.Renew)
	}
}

// TestRefreshOfAnotherStore takes the store for another one.
func TestRefreshOfAnotherStore(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	one, two := w.startNode(t), w.startNode(t)
	one.Want("mta-sts.good.test", false)
	one.wait(t, "mta-sts.good.test", certs.StateValid)
	last, err := two.Refresh(t.Context(), 1<<40)
	if want, _ := w.store.LastChange(t.Context()); err != nil || last != want {
		t.Errorf("Refresh = %d, %v, want %d", last, err, want)
	}
	if s := two.Status("mta-sts.good.test"); s.State != certs.StateValid {
		t.Errorf("it has %+v", s)
	}
}

// TestRefreshOfANodeThatComesBack has a node ask for changes from before what the others have forgotten.
func TestRefreshOfANodeThatComesBack(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	one, two := w.startNode(t), w.startNode(t)
	const gone, stays = "mta-sts.good.test", "mta-sts2.good.test"
	for _, name := range []string{gone, stays} {
		one.Want(name, false)
		one.wait(t, name, certs.StateValid)
	}
	seen, err := two.Refresh(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Drop(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	last, err := w.store.LastChange(t.Context())
	if err == nil {
		err = w.store.Beat(t.Context(), store.Node{ID: "one", Acknowledged: last})
	}
	if err == nil {
		err = w.store.PruneDropped(t.Context())
	}
	if err == nil {
		_, err = w.store.CertificatesAfter(t.Context(), seen, func(store.Certificate) error { return nil })
	}
	if !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("the store knows what was dropped, or %v", err)
	}
	if got, err := two.Refresh(t.Context(), seen); err != nil || got != last {
		t.Errorf("Refresh = %d, %v, want %d", got, err, last)
	}
	if s := two.Status(gone); s.State != certs.StateNone {
		t.Errorf("what was dropped: %+v", s)
	}
	if s := two.Status(stays); s.State != certs.StateValid {
		t.Errorf("what was not: %+v", s)
	}
}
