package certs_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

const spentWords = "tenant a has used up its 3 orders of first certificates in a day"

// ordered counts those of the names that were ordered.
func (m *model) ordered(from, to int) int {
	n := 0
	for i := from; i < to; i++ {
		n += len(m.of(host(i)))
	}
	return n
}

// TestTenantsOrderSoManyADay: the limit of one holds its own names, in their order, and nobody else's.
func TestTenantsOrderSoManyADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, m := newBooks(), &model{}
		m.answer = m.good
		b.limit("a", 3)
		k, stop := run(t, b, m)
		begun := time.Now()
		for n := range 10 {
			k.WantFirst(host(n), "a", false)
			time.Sleep(time.Second)
		}
		for n := 10; n < 15; n++ {
			k.WantFirst(host(n), "b", false)
		}
		k.Want(host(15), false)
		time.Sleep(time.Hour)
		if a, others := m.ordered(0, 10), m.ordered(10, 16); a != 3 || others != 6 {
			t.Fatalf("%d orders of a, %d of others; want 3 and 6", a, others)
		}
		for n := 3; n < 10; n++ {
			s := k.Status(host(n))
			want := begun.Add(time.Duration(n/3) * day)
			if s.Waiting != spentWords || s.State != certs.StateOrdering || s.Expected.Sub(want).Abs() > time.Hour {
				t.Errorf("name %d: %+v, want it expected at %s", n, s, want)
			}
		}
		if o := k.Overview(); o.Done.Sub(begun.Add(3*day)).Abs() > time.Hour {
			t.Errorf("all are done at %s, want three days after %s", o.Done, begun)
		}
		for days := range 3 {
			if days == 1 { // another process, which knows of them by the journal
				stop()
				k, stop = run(t, b, m)
				for n := range 10 {
					k.WantFirst(host(n), "a", false)
				}
			}
			time.Sleep(day)
			if got, want := m.ordered(0, 10), min(6+3*days, 10); got != want {
				t.Errorf("after %d days %d are ordered, want %d", days+1, got, want)
			}
		}
		stop()
		for n := range 9 {
			if !m.of(host(n))[0].Before(m.of(host(n + 1))[0]) {
				t.Errorf("name %d was ordered at %s, the next one at %s", n, m.of(host(n))[0], m.of(host(n + 1))[0])
			}
		}
		orders := 0
		for _, e := range b.journal {
			if e.Tenant == "a" {
				orders++
			}
		}
		if orders != 10 {
			t.Errorf("%d entries are of tenant a, want 10", orders)
		}
	})
}

// TestRenewalsHaveNoLimitOfATenant: what is in use is kept, and counts for nothing.
func TestRenewalsHaveNoLimitOfATenant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBooks()
		m := &model{answer: func(_ context.Context, name string) (store.Certificate, error) { return issue(6*day, name) }}
		b.limit("a", 6)
		k, stop := run(t, b, m)
		defer stop()
		for n := range 6 {
			k.WantFirst(host(n), "a", false)
		}
		time.Sleep(day + time.Hour)
		b.limit("a", 1)
		time.Sleep(2 * time.Minute)
		for n := 100; n < 110; n++ { // there is always one that waits
			k.WantFirst(host(n), "a", false)
		}
		time.Sleep(3*day + time.Hour)
		for n := range 6 {
			if got := len(m.of(host(n))); got != 2 {
				t.Errorf("name %d was ordered %d times, want also the renewal", n, got)
			}
		}
		first := 0
		for n := 100; n < 110; n++ {
			first += min(len(m.of(host(n))), 1)
		}
		if first != 4 {
			t.Errorf("%d new names were ordered, want one at once and then one a day", first)
		}
	})
}

// TestFailedOrdersCountForTenants: those that failed too, but not what was never sent.
func TestFailedOrdersCountForTenants(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		gate error
		want int
	}{
		"at the authority": {nil, 3},
		"at the gate":      {&certs.Problem{Status: 400, Detail: "not here"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, m := newBooks(), &model{answer: refused}
				b.limit("a", 3)
				k, stop := run(t, b, m, func(c *certs.Config) {
					c.Gate = func(context.Context, string, certs.Authority) error { return tt.gate }
				})
				defer stop()
				for n := range 5 {
					k.WantFirst(host(n), "a", false)
				}
				time.Sleep(20 * time.Hour)
				if got := m.ordered(0, 5); got != tt.want {
					t.Errorf("%d orders were sent, want %d", got, tt.want)
				}
				held := 0
				for n := range 5 {
					if strings.Contains(k.Status(host(n)).Waiting, "tenant a") {
						held++
					}
				}
				if held > 0 != (tt.gate == nil) {
					t.Errorf("%d names wait for the limit", held)
				}
			})
		})
	}
}

// TestLimitsOfTenantsChange: a higher limit, or none, lets those go that wait.
func TestLimitsOfTenantsChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, m := newBooks(), &model{}
		m.answer = m.good
		b.limit("a", 3)
		k, stop := run(t, b, m)
		defer stop()
		for n := range 10 {
			k.WantFirst(host(n), "a", false)
		}
		time.Sleep(time.Hour)
		for _, c := range []struct{ limit, want int }{{5, 5}, {2, 5}, {0, 10}} {
			b.limit("a", c.limit)
			time.Sleep(2 * time.Minute)
			if got := m.ordered(0, 10); got != c.want {
				t.Errorf("with a limit of %d: %d orders, want %d", c.limit, got, c.want)
			}
		}
		// A name that turns out to be announced, or another tenant's, waits no more.
		b.limit("c", 1)
		time.Sleep(2 * time.Minute)
		for n := 20; n < 24; n++ {
			k.WantFirst(host(n), "c", false)
		}
		time.Sleep(time.Hour)
		k.Want(host(22), true)
		k.WantFirst(host(23), "d", false)
		time.Sleep(time.Minute)
		if got := m.ordered(20, 24); got != 3 || len(m.of(host(21))) != 0 {
			t.Errorf("%d orders, want 3", got)
		}
	})
}

// TestTenantsOrderSoManyADayOnAllNodes has three processes on one store.
func TestTenantsOrderSoManyADayOnAllNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, m := newBooks(), &model{}
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			time.Sleep(3 * time.Second)
			return m.good(ctx, name)
		}
		b.limit("a", 7)
		var nodes []*certs.Keeper
		for range 3 {
			k, stop := run(t, b, m)
			defer stop()
			nodes = append(nodes, k)
		}
		for n := range 30 {
			nodes[n%3].WantFirst(host(n), "a", false)
		}
		for days := range 3 {
			time.Sleep(day - time.Minute)
			if got := m.ordered(0, 30); got > 7*(days+1) || got < 7*(days+1)-2 {
				t.Errorf("after %d days %d orders, want %d", days+1, got, 7*(days+1))
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestTenantsTakeTurns: one adds names for days, and those that another one adds later are ordered in turn with them. What
// senders look for is ordered before both.
func TestTenantsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &model{}
		m.answer = m.good
		k, stop := run(t, newBooks(), m)
		defer stop()
		for n := range 3000 {
			k.WantFirst(host(n), "a", false)
		}
		time.Sleep(10 * time.Hour)
		begun, before := time.Now(), m.ordered(0, 3000)
		for n := 3000; n < 3010; n++ {
			k.WantFirst(host(n), "b", false)
		}
		k.WantFirst(host(3010), "a", true)
		for n := 3011; n < 3013; n++ {
			k.WantFirst(host(n), "c", false)
		}
		time.Sleep(time.Minute)
		expected := k.Status(host(3009)).Expected
		if d := expected.Sub(begun); d <= 0 || d > time.Hour {
			t.Errorf("the last one of b is expected after %v, want within the hour", d)
		}
		if s := k.Status(host(2999)); s.Expected.Sub(begun) < 10*time.Hour {
			t.Errorf("the last one of a is expected after %v", s.Expected.Sub(begun))
		}
		time.Sleep(2 * time.Hour)
		after := func(n int) time.Duration {
			if times := m.of(host(n)); len(times) == 1 {
				return times[0].Sub(begun)
			}
			return -1
		}
		if d := after(3009); d < 0 || d > time.Hour || expected.Sub(begun.Add(d)).Abs() > 10*time.Minute {
			t.Errorf("the last one of b was ordered after %v, and expected after %v", d, expected.Sub(begun))
		}
		if live, b, c := after(3010), after(3000), after(3012); live < 0 || live > b || c < 0 || c > after(3003) {
			t.Errorf("ordered after: the one that senders look for %v, the first of b %v, the last of c %v", live, b, c)
		}
		if meanwhile := m.ordered(0, 3000) - before; meanwhile < 100 || before < 500 || before > 2000 {
			t.Errorf("%d of a were ordered before, and %d meanwhile", before, meanwhile)
		}
	})
}
