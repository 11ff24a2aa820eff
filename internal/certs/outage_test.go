package certs_test

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
)

// TestAuthorityGoesAwayInTheMiddle cuts the line to a real authority in the middle of 500 orders, and mends it. It refuses
// every tenth nonce, and validates each order anew.
//
// The pauses grow from 4 ms on where they do from 20 s on in the product, without coming to the longest one. So the line is
// cut for no hour, but for as many tries as fall into one.
func TestAuthorityGoesAwayInTheMiddle(t *testing.T) {
	t.Parallel()
	const (
		names, inFlight = 500, 40
		tries           = 7 // 20 s, 80 s, 260 s, 800 s, and then every 15 minutes
		first           = 4 * time.Millisecond
	)
	w := newWorld(t, 90*day)
	x := new(watch)
	w.ca = w.startFaultyCA(t, lab.CAOptions{Wrap: x.wrap}, map[string]string{"PEBBLE_WFE_NONCEREJECT": "10", "PEBBLE_AUTHZREUSE": "0"})
	w.serveHTTP(t)
	w.prefer(t, "http-01")
	g := newGate(t)
	up := directory(t, w.ca.DirectoryURL)
	g.to.Store(&up.Host)
	w.acme = w.newACME(t, "https://"+g.Addr().String()+"/dir", w.ca.DirectoryCAPEM)
	n := w.startNode(t, func(c *certs.Config) {
		c.FirstPause = 15 * first
		c.OnChange = nil
		c.Budgets = []config.Budget{{
			Orders: 4 * names, OrdersPeriod: time.Hour, // of which half is not used up: the rest would come at even intervals
			DomainOrders: 2 * names, DomainPeriod: time.Hour, Failures: 4,
			InFlight: inFlight, PerSecond: 1000,
		}}
	})
	begun := time.Now()
	for i := range names {
		n.Want(fmt.Sprintf("mta-sts%d.good.test", i), false)
	}
	within(t, 2*patience, func() bool { return n.Overview().Valid >= names/3 })
	underWay := n.issuer.running.Load() // on a busy machine more than inFlight, as those that are slow do not count
	g.cut(nil)
	gone := time.Now()
	underWay = max(inFlight, underWay, n.issuer.running.Load())
	// Once that is found out, no order begins before those under way have given up, and then one at a time.
	until(t, func() bool { return len(n.issuer.since(gone)) > 0 })
	under := g.refused.Load()
	until(t, func() bool { return len(n.issuer.since(gone)) >= tries && n.issuer.running.Load() == 0 })
	lone, refused := n.issuer.since(gone), g.refused.Load()
	before := n.Overview()
	g.to.Store(&up.Host)
	back := time.Now()
	within(t, 4*patience, func() bool { return n.Overview().Valid == names })

	t.Logf("%d certificates in %v, away for %v, the last of them %v after it was back", names,
		time.Since(begun).Round(time.Millisecond), back.Sub(gone).Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
	t.Logf("%d connections by orders under way, %d by tries after that, which came %v after the cut", under, refused-under, spans(gone, lone))
	if before.Valid == names {
		t.Error("nothing was left to order when the authority went away")
	}
	if len(lone) > tries || refused-under > 4*tries || int(under) > int(underWay)*4*2 {
		t.Errorf("%d orders and %d connections while nobody answered, after %d by those under way", len(lone), refused-under, under)
	}
	for i, pause := 1, 2*first; i < len(lone); i, pause = i+1, 3*pause {
		if d := lone[i].Sub(lone[i-1]); d < pause {
			t.Errorf("try %d came %v after the one before, want at least %v", i+1, d, pause)
		}
	}
	n.checkOrders(t, x, names, int(underWay))
	w.checkBooks(t, names, len(x.of(pathOrder, http.StatusCreated)), int(underWay))
	until(t, func() bool { return n.Items() == 0 }) // a name with a good certificate costs no object
}

// spans are times since another.
func spans(since time.Time, times []time.Time) []time.Duration {
	all := make([]time.Duration, len(times))
	for i, t := range times {
		all[i] = t.Sub(since).Round(time.Millisecond)
	}
	return all
}

// checkOrders compares what the authority saw with what was needed: an order a name, and another one for each that was
// under way when the line was cut.
func (n *node) checkOrders(t *testing.T, x *watch, names, underWay int) {
	t.Helper()
	ordered, issued := make(map[string]int), make(map[string]int)
	for _, r := range x.of(pathOrder, http.StatusCreated) {
		id := r.payload["identifiers"].([]any)[0].(map[string]any)
		ordered[id["value"].(string)]++
	}
	for _, r := range x.of(pathFinalize, http.StatusOK) {
		der, err := base64.RawURLEncoding.DecodeString(r.payload["csr"].(string))
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		issued[csr.DNSNames[0]]++
	}
	again, twice := 0, 0
	for name, n := range ordered {
		again += n - 1
		twice += issued[name] - 1
		if n > 2 || issued[name] == 0 {
			t.Errorf("%s was ordered %d times, issued %d times", name, n, issued[name])
		}
	}
	x.mu.Lock()
	requests := len(x.requests)
	x.mu.Unlock()
	nonces := len(x.of("", http.StatusBadRequest))
	t.Logf("the authority took %d orders, %d of them again, issued %d certificates twice, got %d requests, and refused %d nonces",
		names+again, again, twice, requests, nonces)
	if len(ordered) != names || again > underWay || nonces == 0 {
		t.Errorf("%d names were ordered, %d of them again, %d nonces were refused", len(ordered), again, nonces)
	}
	if requests > 20*(names+again) {
		t.Errorf("%d requests for %d orders", requests, names+again)
	}
	if failed := int(n.issuer.failed.Load()); failed < again {
		t.Errorf("%d names were ordered again, but %d orders failed", again, failed)
	}
}

// checkBooks sees that the journal has all orders, each with an end, and counts those that the authority took, and of those
// that were cut off some more: nobody knows whether they were.
func (w *world) checkBooks(t *testing.T, names, taken, underWay int) {
	t.Helper()
	entries, err := w.store.Journal(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	counted, named := 0, make(map[string]bool)
	for _, e := range entries {
		if e.Ended.IsZero() {
			t.Errorf("the order of %s has no end", e.Name)
		}
		if !e.Exempt {
			counted++
			named[e.Name] = true
		}
	}
	if counted < taken || counted > taken+underWay {
		t.Errorf("%d orders count, and the authority took %d", counted, taken)
	}
	if len(named) != names {
		t.Errorf("%d names in the journal, want %d", len(named), names)
	}
}
