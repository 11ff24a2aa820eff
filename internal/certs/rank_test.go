package certs_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// TestEndDateKnowsTheLimitsOfDomains: what is told in the first minutes of names that wait for weeks because they are all
// of one registered domain, and of others that wait for nothing but their turn, comes true.
func TestEndDateKnowsTheLimitsOfDomains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mint := newMint(t)
		m := &model{answer: func(_ context.Context, name string) (store.Certificate, error) {
			return mint.issue(name, time.Now(), time.Now().Add(90*day)), nil
		}}
		b := newBooks()
		k, stop := run(t, b, m)
		begun := time.Now()
		var names []string
		for n := range 200 {
			names = append(names, fmt.Sprintf("mta-sts.%04d.shop.te", n))
		}
		for n := range 500 {
			names = append(names, host(n))
		}
		want := func() {
			for _, name := range names {
				k.Want(name, false)
				time.Sleep(time.Microsecond)
			}
		}
		want()
		expected := make(map[string]time.Time)
		for _, after := range []time.Duration{time.Minute, 5 * time.Hour, 20 * time.Hour} {
			time.Sleep(time.Until(begun.Add(after)))
			o := k.Overview()
			if d := o.Done.Sub(begun); d < 28*day || d > 28*day+time.Hour || !strings.Contains(o.String(), "all will have had their turn by 2000-01-29 00:") {
				t.Errorf("after %v the end is in %v: %v", after, d, o)
			}
			for _, name := range names {
				s := k.Status(name)
				if s.State == certs.StateValid || s.State == certs.StateOrdering && s.Waiting == "its order is running" {
					continue
				}
				if s.Expected.Before(time.Now()) || s.Expected.After(o.Done) {
					t.Fatalf("after %v, %s: %+v", after, name, s)
				}
				if before, found := expected[name]; found && s.Expected.Sub(before).Abs() > 5*time.Minute {
					t.Errorf("%s was expected at %v, and after %v at %v", name, before, after, s.Expected)
				}
				expected[name] = s.Expected
			}
			if s := k.Status(names[199]); s.Place != 0 && after > time.Minute || s.Waiting == "" && after > time.Minute {
				t.Errorf("after %v, one that its domain holds: %+v", after, s)
			}
		}
		stop() // and it is the same after a restart
		k, stop = run(t, b, m)
		defer stop()
		want()
		time.Sleep(time.Minute)
		if d := k.Overview().Done.Sub(begun); d < 28*day || d > 28*day+time.Hour {
			t.Errorf("after a restart the end is in %v", d)
		}
		time.Sleep(29 * day)
		for _, name := range names {
			times := m.of(name)
			if len(times) != 1 {
				t.Errorf("%s: %d orders", name, len(times))
			} else if said, found := expected[name]; found && times[0].Sub(said).Abs() > 10*time.Minute {
				t.Errorf("%s was expected at %v, and ordered at %v", name, said, times[0])
			}
		}
		if o := k.Overview(); o.Valid != len(names) || !o.Done.IsZero() {
			t.Errorf("in the end: %v", o)
		}
	})
}

// TestEndDateGoesWithTheUrgent: a crowd of one domain that waits for years delays nobody, and is not told so.
func TestEndDateGoesWithTheUrgent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &model{}
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			<-ctx.Done()
			return store.Certificate{}, ctx.Err()
		}
		k, stop := run(t, newBooks(), m, func(c *certs.Config) {
			budget := config.DefaultBudget()
			budget.Orders, budget.OrdersPeriod, budget.DomainOrders, budget.DomainPeriod = 100, day, 1, 30*day
			c.Budgets = []config.Budget{budget}
		})
		defer stop()
		for n := range 1000 {
			k.Want(fmt.Sprintf("mta-sts.%04d.shop.te", n), false)
			time.Sleep(time.Microsecond)
		}
		time.Sleep(time.Second)
		k.Want(host(1), false)
		time.Sleep(time.Second)
		if s := k.Status(host(1)); time.Until(s.Expected) > 15*time.Minute && s.Waiting != "its order is running" {
			t.Errorf("behind a crowd that waits: %+v", s)
		}
		if o := k.Overview(); time.Until(o.Done) < 998*30*day || time.Until(o.Done) > 1000*30*day {
			t.Errorf("the end is in %v days: %v", time.Until(o.Done)/day, o)
		}
	})
}
