package certs_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// TestOneNodeLooksAndOrders: the gate's probe of one node would be in the way of another's order.
func TestOneNodeLooksAndOrders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const names = 40
		var mu sync.Mutex
		busy, both := make(map[string]bool), 0
		hold := func(name string, took time.Duration) {
			mu.Lock()
			if busy[name] {
				both++
			}
			busy[name] = true
			mu.Unlock()
			time.Sleep(took)
			mu.Lock()
			busy[name] = false
			mu.Unlock()
		}
		m, b := &model{}, newBooks()
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			hold(name, 3*time.Second)
			return m.good(ctx, name)
		}
		look := func(c *certs.Config) {
			c.Gate = func(_ context.Context, name string, _ certs.Authority) error {
				hold(name, time.Second)
				return nil
			}
		}
		var nodes []*certs.Keeper
		for range 2 {
			k, stop := run(t, b, m, look)
			defer stop()
			nodes = append(nodes, k)
		}
		for n := range names {
			for _, k := range nodes {
				k.Want(host(n), true)
			}
		}
		time.Sleep(2 * time.Second)
		waits := 0
		for n := range names {
			for _, k := range nodes {
				if k.Status(host(n)).Waiting == "another node orders it" {
					waits++
				}
			}
		}
		if waits == 0 {
			t.Error("no status says that another node orders it")
		}
		time.Sleep(time.Minute)
		for i, k := range nodes {
			if o := k.Overview(); o.Valid != names {
				t.Errorf("a minute later node %d: %v", i, o)
			}
		}
		if both > 0 || m.count() != names {
			t.Errorf("%d orders for %d names, %d times two nodes were at one name", m.count(), names, both)
		}
	})
}

// TestHeldOrdersUseUpNoBudgetElsewhere: an order that the gate of another node held was not sent.
func TestHeldOrdersUseUpNoBudgetElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, b := &model{}, newBooks()
		m.answer = m.good
		few := func(c *certs.Config) {
			budget := config.DefaultBudget()
			budget.Orders, budget.OrdersPeriod = 10, day
			c.Budgets = []config.Budget{budget}
		}
		var refused atomic.Int64
		first, stop := run(t, b, m, few, func(c *certs.Config) {
			c.Gate = func(_ context.Context, name string, _ certs.Authority) error {
				refused.Add(1)
				time.Sleep(time.Second)
				return &certs.Refusal{Check: certs.CheckDNS, Host: name, Proven: true}
			}
		})
		defer stop()
		second, stop := run(t, b, m, few)
		defer stop()
		for n := range 30 {
			first.Want(host(n), true)
		}
		time.Sleep(500 * time.Millisecond)
		second.Want(host(100), true) // it reads of those that are being looked at
		time.Sleep(time.Hour)
		for n := range 5 {
			second.Want(host(101+n), true)
		}
		time.Sleep(time.Minute)
		if o := second.Overview(); refused.Load() < 30 || o.Valid != 6 || o.Accounts[0].Orders != 6 {
			t.Errorf("%d orders were held, and the other node has %v, %v", refused.Load(), o, o.Accounts[0])
		}
		for n := range 30 {
			if s := first.Status(host(n)); s.State != certs.StateFailing || !strings.HasPrefix(s.Problem, "dns") {
				t.Fatalf("%+v", s)
			}
		}
	})
}

// TestTwoNodesGateAndOrder has the real gate and the real CA validate by TLS alone.
func TestTwoNodesGateAndOrder(t *testing.T) {
	w := newWorld(t, time.Hour)
	dead(w.http)
	g := &certs.Gate{
		Client: &sender.Client{Resolver: &sender.Resolver{Servers: []string{w.dns.Addr}}},
		Values: w.store, HTTPPort: port(w.http), HTTPSPort: port(w.tls),
		Home: func(context.Context) (sender.Home, error) {
			return sender.Home{Name: "sts.test", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, nil
		},
	}
	const names = 20
	var nodes []*node
	for range 2 {
		nodes = append(nodes, w.startNode(t, func(c *certs.Config) {
			c.FirstPause = time.Hour
			c.Gate = func(ctx context.Context, name string, _ certs.Authority) error { return g.Check(ctx, name, w.acme) }
		}))
	}
	w.serveTLS(t, nodes[0].Keeper)
	for i := range names {
		for _, n := range nodes {
			n.Want(fmt.Sprintf("mta-sts%d.good.test", i), false)
		}
	}
	orders := int32(0)
	for _, n := range nodes {
		for i := range names {
			n.wait(t, fmt.Sprintf("mta-sts%d.good.test", i), certs.StateValid)
		}
		orders += n.issuer.orders.Load()
	}
	if orders != names {
		t.Errorf("%d orders for %d names", orders, names)
	}
}

// lateBooks are those of a node that reads the journal late.
type lateBooks struct {
	*books

	late atomic.Bool
	on   chan struct{}
}

func (b *lateBooks) Journal(ctx context.Context, after int64) ([]store.JournalEntry, error) {
	if b.late.Load() {
		<-b.on
	}
	return b.books.Journal(ctx, after)
}

// CertificatesAfter returns them all.
func (b *lateBooks) CertificatesAfter(ctx context.Context, _ int64, f func(store.Certificate) error) (int64, error) {
	return 0, b.EachCertificate(ctx, f)
}

// TestOrderedMeanwhile: between the turn of a name at one node and its entry in the journal another node obtained the
// certificate, and the first one has taken it in. It is not ordered once more.
func TestOrderedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, b := &model{}, newBooks()
		m.answer = m.good
		late := &lateBooks{books: b, on: make(chan struct{})}
		first, stop := run(t, b, m, func(c *certs.Config) { c.Store = late })
		defer stop()
		second, stop := run(t, b, m)
		defer stop()
		time.Sleep(time.Second)
		late.late.Store(true)
		first.Want(host(0), true)
		time.Sleep(time.Second)
		second.Want(host(0), true)
		time.Sleep(time.Minute)
		if o := second.Overview(); o.Valid != 1 {
			t.Fatalf("the other node: %v", o)
		}
		if _, err := first.Refresh(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		late.late.Store(false)
		close(late.on)
		time.Sleep(time.Minute)
		if o := first.Overview(); o.Valid != 1 || m.count() != 1 {
			t.Errorf("%d orders, want one; the late node: %v", m.count(), o)
		}
	})
}
