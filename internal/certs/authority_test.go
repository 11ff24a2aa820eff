package certs_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/store"
)

// TestNamesMoveToTheNextAuthority with real ones: one that is out of reach, and one that refuses the name.
func TestNamesMoveToTheNextAuthority(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(t *testing.T, w *world) *certs.ACME{
		"out of reach": func(t *testing.T, w *world) *certs.ACME {
			cfg := config.ACME{Name: "first", Directory: "https://" + newGate(t).Addr().String() + "/dir"}
			return w.configured(t, w.store, cfg, w.ca.DirectoryCAPEM)
		},
		"refuses": func(t *testing.T, w *world) *certs.ACME {
			ca := w.startOtherCA(t, lab.CAOptions{Blocked: []string{"good.test"}})
			return w.configured(t, w.store, config.ACME{Name: "first", Directory: ca.DirectoryURL}, ca.DirectoryCAPEM)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, time.Hour)
			w.serveHTTP(t)
			a := &counting{Authority: first(t, w)}
			cfg := w.table()
			cfg.Name = "second"
			second := w.configured(t, w.store, cfg, w.ca.DirectoryCAPEM)
			n := w.startNode(t, func(c *certs.Config) {
				c.Authorities = []certs.Authority{a, second}
				c.MoveAfter = 300 * time.Millisecond
			})
			w.serveTLS(t, n.Keeper)
			n.Want(good, false)
			n.wait(t, good, certs.StateValid)
			if a.orders.Load() == 0 {
				t.Error("the first was not asked")
			}
			err := w.store.EachCertificate(t.Context(), func(c store.Certificate) error {
				if c.Authority != "second" {
					t.Errorf("the certificate is of %q", c.Authority)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.handshake(t, good); err != nil {
				t.Errorf("handshake: %v", err)
			}
		})
	}
}

// TestAuthorityGoneInTheMiddle: orders under way when it goes are finished when it is back, and none is made twice for it.
func TestAuthorityGoneInTheMiddle(t *testing.T) {
	t.Parallel()
	w, x, _ := watched(t, lab.CAOptions{})
	g := newGate(t)
	host := directory(t, w.ca.DirectoryURL).Host
	g.to.Store(&host)
	w.acme = w.newACME(t, "https://"+g.Addr().String()+"/dir", w.ca.DirectoryCAPEM)
	budget := config.DefaultBudget()
	n := w.startNode(t, func(c *certs.Config) { c.Budgets = []config.Budget{budget} })
	const names = 32
	name := func(i int) string { return fmt.Sprintf("mta-sts%d.good.test", i) }
	for i := range names {
		n.Want(name(i), false)
	}
	for range 4 {
		<-n.changes
	}
	g.cut(nil)
	begun := len(x.of(pathOrder, http.StatusCreated))
	for n.issuer.failed.Load() == 0 { // they have been patient
		select {
		case <-n.changes:
		case <-time.After(patience):
			t.Fatal("no order fails while the authority is away")
		}
	}
	g.to.Store(&host)
	for i := range names {
		n.wait(t, name(i), certs.StateValid)
	}
	// At worst, all that were under way are made again.
	orders := len(x.of(pathOrder, http.StatusCreated))
	x.mu.Lock()
	defer x.mu.Unlock()
	t.Logf("%d orders, %d of them before it went, and %d requests for %d names", orders, begun, len(x.requests), names)
	if orders < names || orders > names+budget.InFlight || len(x.requests) > 20*orders {
		t.Errorf("%d orders and %d requests for %d names", orders, len(x.requests), names)
	}
}
