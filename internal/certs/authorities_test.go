package certs_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// several are the authorities of a Keeper.
func several(all ...certs.Authority) func(*certs.Config) {
	return func(c *certs.Config) { c.Authorities = all }
}

func TestNamesMoveFromAnAuthorityThatIsAwayAndComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(40 * day)
		first, staging, second := &model{called: "first"}, &model{called: "staging", staging: true}, &model{called: "second"}
		first.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			if time.Now().Before(back) {
				return store.Certificate{}, errors.New("no route")
			}
			return first.good(ctx, name)
		}
		staging.answer, second.answer = staging.good, second.good
		k, stop := run(t, newBooks(), first, several(first, staging, second))
		defer stop()
		for n := range 50 {
			k.Want(host(n), false)
		}
		time.Sleep(5*time.Hour + 50*time.Minute)
		if second.count() > 0 {
			t.Errorf("%d names moved before 6 hours were over", second.count())
		}
		time.Sleep(75 * time.Minute) // some failed just before, and had to wait
		if got := second.count(); got != 50 || staging.count() != 0 {
			t.Errorf("after 7 hours %d names have moved to the second, %d to a staging CA, want 50 and none", got, staging.count())
		}
		if got := first.count(); got > 40 {
			t.Errorf("%d orders to an authority that is away for 7 hours", got)
		}
		if s := k.Status(host(0)); s.State != certs.StateValid || s.Authority != "second" || s.Staging {
			t.Errorf("status %+v", s)
		}
		k.Want(host(99), false) // of those that come later one now and then knocks
		time.Sleep(70 * day)
		for n := range 50 {
			if s := k.Status(host(n)); s.State != certs.StateValid {
				t.Errorf("after the renewals: %+v", s)
			}
		}
		if second.count() > 60 {
			t.Errorf("%d orders at the second authority; the renewals belong to the first, which is back", second.count())
		}
	})
}

func TestNameMovesFromAnAuthorityThatRefusesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := &model{called: "first"}, &model{called: "second"}
		first.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			if name == host(1) {
				return store.Certificate{}, &certs.Problem{
					Status: 400, Type: "urn:ietf:params:acme:error:rejectedIdentifier", Detail: "policy forbids issuing for this name",
				}
			}
			return first.good(ctx, name)
		}
		second.answer = second.good
		b := newBooks()
		k, stop := run(t, b, first, several(first, second))
		k.Want(host(1), false)
		k.Want(host(2), false)
		time.Sleep(3 * time.Hour)
		s := k.Status(host(1))
		if s.State != certs.StateFailing || !strings.Contains(s.Problem, "policy forbids") || s.Advice == "" || second.count() > 0 {
			t.Errorf("after 3 hours: %+v, %d orders at the second", s, second.count())
		}
		stop() // a restart does not begin the 6 hours anew
		k, stop = run(t, b, first, several(first, second))
		defer stop()
		k.Want(host(1), false)
		k.Want(host(2), false)
		time.Sleep(8 * time.Hour)
		if s := k.Status(host(1)); s.State != certs.StateValid || s.Authority != "second" {
			t.Errorf("after 11 hours: %+v", s)
		}
		if s := k.Status(host(2)); s.Authority != "first" || second.count() != 1 {
			t.Errorf("the other name: %+v, %d orders at the second", s, second.count())
		}
	})
}

func TestStoppedAccountAcrossRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		first := &model{called: "first"}
		first.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			if first.count() == 1 {
				return store.Certificate{}, &certs.Problem{
					Status: 429, Type: "urn:ietf:params:acme:error:rateLimited", Detail: "too many new orders", RetryAfter: 4 * time.Hour,
				}
			}
			return first.good(ctx, name)
		}
		b := newBooks()
		k, stop := run(t, b, first)
		k.Want(host(1), false)
		synctest.Wait()
		for range 3 {
			for n := range 20 {
				k.Want(host(n), false)
			}
			time.Sleep(time.Hour)
			s := k.Status(host(2))
			if s.State != certs.StateOrdering || s.Place == 0 || s.Expected.Before(begun.Add(4*time.Hour)) ||
				!strings.Contains(s.Waiting, "too many new orders") {
				t.Errorf("of another name: %+v", s)
			}
			o := k.Overview()
			if a := o.Accounts[0]; a.Stopped.Sub(begun) != 4*time.Hour || a.Closed == "" {
				t.Errorf("account %+v", a)
			}
			stop()
			k, stop = run(t, b, first)
		}
		if got := first.count(); got != 1 {
			t.Errorf("%d orders to an authority that wants none", got)
		}
		for n := range 20 {
			k.Want(host(n), false)
		}
		time.Sleep(time.Hour + 6*time.Minute)
		stop()
		if got := first.count(); got != 21 {
			t.Errorf("%d orders in the end, want 20 and the one that was refused", got)
		}
	})
}

func TestLimitOfOneNameStopsNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &model{}
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			if name == host(1) {
				return store.Certificate{}, &certs.Problem{
					Status: 429, Detail: fmt.Sprintf("too many failed authorizations (5) for %q", name), RetryAfter: 50 * time.Hour,
				}
			}
			return m.good(ctx, name)
		}
		k, stop := run(t, newBooks(), m)
		defer stop()
		k.Want(host(1), true)
		synctest.Wait()
		k.Want(host(2), false)
		time.Sleep(49 * time.Hour)
		if s := k.Status(host(2)); s.State != certs.StateValid {
			t.Errorf("the other name: %+v", s)
		}
		if got := len(m.of(host(1))); got != 1 {
			t.Errorf("%d orders of the name within 49 hours", got)
		}
	})
}

// TestTwoProcesses: whatever both want at the same time is ordered once, within one budget.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const names = 120
		m := &model{}
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			time.Sleep(10 * time.Second)
			return m.good(ctx, name)
		}
		b := newBooks()
		tight := func(c *certs.Config) {
			c.Budgets = []config.Budget{{
				Orders: 30, OrdersPeriod: time.Hour, DomainOrders: 2, DomainPeriod: day, Failures: 4, InFlight: 4, PerSecond: 10,
			}}
		}
		one, stopOne := run(t, b, m, tight)
		two, stopTwo := run(t, b, m, tight)
		for n := range names {
			one.Want(host(n), false)
			two.Want(host(names-1-n), false)
		}
		time.Sleep(6 * time.Hour)
		stopOne()
		stopTwo()
		if got := m.count(); got != names {
			t.Errorf("%d orders for %d names", got, names)
		}
		for i, a := range m.attempts[:len(m.attempts)-30] {
			if d := m.attempts[i+30].at.Sub(a.at); d < time.Hour {
				t.Errorf("31 orders within %v", d)
			}
		}
		for n := range names {
			if s, o := one.Status(host(n)), two.Status(host(n)); s.State != certs.StateValid || !s.NotAfter.Equal(o.NotAfter) {
				t.Errorf("%s: one process says %+v, the other %+v", host(n), s, o)
			}
		}
	})
}

// TestGoneForAnHour: the authority goes away in the middle of 500 orders, and comes back.
func TestGoneForAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from := time.Now().Add(20 * time.Second)
		lost := 0
		m := &model{}
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			down := func() bool { return time.Now().After(from) && time.Now().Before(from.Add(time.Hour)) }
			if !down() {
				time.Sleep(2 * time.Second)
			}
			if down() {
				m.mu.Lock()
				lost++
				m.mu.Unlock()
				return store.Certificate{}, errors.New("connection reset")
			}
			return m.good(ctx, name)
		}
		k, stop := run(t, newBooks(), m, func(c *certs.Config) {
			b := config.DefaultBudget()
			b.Orders = 1000
			c.Budgets = []config.Budget{b}
		})
		defer stop()
		for n := range 500 {
			k.Want(host(n), false)
		}
		time.Sleep(30 * time.Minute)
		o := k.Overview()
		if a := o.Accounts[0]; o.Valid == 0 || o.Valid == 500 || !strings.Contains(a.Closed, "connection reset") || a.Since.IsZero() {
			t.Errorf("in the middle: %+v", o)
		}
		time.Sleep(2 * time.Hour)
		if o := k.Overview(); o.Valid != 500 || o.Accounts[0].Closed != "" {
			t.Errorf("in the end: %+v", o)
		}
		if lost > 8+12 { // those in flight, and the tries of an hour
			t.Errorf("%d requests while it was away", lost)
		}
		if got := m.count(); got != 500+lost {
			t.Errorf("%d orders, of which %d went wrong, for 500 names", got, lost)
		}
	})
}

func TestAnnouncedRevocationIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		announced := time.Now().Add(10 * day)
		m, mint := &model{}, newMint(t)
		m.window = func(leaf []byte) (certs.Window, error) {
			from, _, err := mint.times(leaf)
			if err == nil && from.Before(announced) && time.Now().After(announced) {
				return certs.Window{Start: announced.Add(-2 * time.Hour), End: announced.Add(-time.Hour), Retry: 6 * time.Hour}, nil
			}
			return certs.Window{Start: from.Add(60 * day), End: from.Add(62 * day), Retry: 6 * time.Hour}, err
		}
		m.answer = func(_ context.Context, name string) (store.Certificate, error) {
			return mint.issueBy(m.Name(), name, time.Now(), time.Now().Add(90*day)), nil
		}
		k, stop := run(t, newBooks(), m)
		defer stop()
		for n := range 20 {
			k.Want(host(n), false)
		}
		time.Sleep(10*day - time.Hour)
		if got := m.count(); got != 20 {
			t.Fatalf("%d orders before the revocation is announced", got)
		}
		time.Sleep(9 * time.Hour) // questions are asked every 6 hours and a little
		if got := m.count(); got != 40 {
			t.Errorf("%d orders in the end, want each name replaced once", got)
		}
		time.Sleep(5 * day)
		if got := m.count(); got != 40 {
			t.Errorf("%d orders days later", got)
		}
	})
}

// TestFailingRenewalIsSaidInTime: long before the end, with what the authority said.
func TestFailingRenewalIsSaidInTime(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{90 * day, 45 * day, 6 * day} {
		synctest.Test(t, func(t *testing.T) {
			m := &model{}
			m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
				if m.count() > 1 {
					return refused(ctx, name)
				}
				return issue(life, name)
			}
			k, stop := run(t, newBooks(), m)
			defer stop()
			k.Want(host(1), true)
			synctest.Wait()
			for !k.Status(host(1)).Late {
				time.Sleep(time.Hour)
			}
			s := k.Status(host(1))
			left := time.Until(s.NotAfter)
			if s.State != certs.StateValid || s.Problem == "" || left < life/5 || left > life/2 {
				t.Errorf("life %v: said %v before the end: %+v", life, left, s)
			}
		})
	}
}

// TestPlaceAndTime: what is told of the queue comes true.
func TestPlaceAndTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mint := newMint(t)
		m := &model{answer: func(_ context.Context, name string) (store.Certificate, error) {
			return mint.issue(name, time.Now(), time.Now().Add(90*day)), nil
		}}
		k, stop := run(t, newBooks(), m)
		defer stop()
		for n := range 1000 {
			k.Want(host(n), false)
			time.Sleep(time.Microsecond)
		}
		time.Sleep(time.Minute)
		last, middle := k.Status(host(999)), k.Status(host(700))
		if middle.Place == 0 || last.Place <= middle.Place || !middle.Expected.Before(last.Expected) {
			t.Fatalf("the last %+v, one in the middle %+v", last, middle)
		}
		o := k.Overview()
		if o.Names != 1000 || o.Valid+o.Waiting != 1000 || !o.Done.Equal(last.Expected) || !strings.Contains(o.String(), "of 1000 names have a valid certificate") {
			t.Errorf("overview %+v: %v", o, o)
		}
		time.Sleep(time.Until(middle.Expected) - 40*time.Minute)
		if s := k.Status(host(700)); s.State == certs.StateValid {
			t.Errorf("it was issued more than 40 minutes before %v", middle.Expected)
		}
		time.Sleep(80 * time.Minute)
		if s := k.Status(host(700)); s.State != certs.StateValid {
			t.Errorf("40 minutes after %v it is %+v", middle.Expected, s)
		}

		k.Want(host(5000), true)
		time.Sleep(90 * time.Second)
		if s := k.Status(host(5000)); s.State != certs.StateValid {
			t.Errorf("a name that senders look for waits behind new ones: %+v", s)
		}
	})
}

// TestStagingIsReplacedAtOnce: whoever tried with a staging CA, and then names a real one, waits for no renewal; whether
// that is another table, or another directory in the same one.
func TestStagingIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"lab", "real"} {
		synctest.Test(t, func(t *testing.T) {
			staging, trusted := &model{called: "lab", staging: true}, &model{called: after}
			staging.answer, trusted.answer = staging.good, trusted.good
			b := newBooks()
			k, stop := run(t, b, staging)
			k.Want(host(1), false)
			synctest.Wait()
			if s := k.Status(host(1)); s.State != certs.StateValid || !s.Staging || s.Authority != "lab" {
				t.Errorf("of a staging CA: %+v", s)
			}
			stop()
			k, stop = run(t, b, trusted)
			if s := k.Status(host(1)); !s.Staging {
				t.Errorf("after the restart: %+v", s)
			}
			k.Want(host(1), false)
			synctest.Wait()
			if s := k.Status(host(1)); s.State != certs.StateValid || s.Staging || s.Authority != after || trusted.count() != 1 {
				t.Errorf("of a real one: %+v after %d orders", s, trusted.count())
			}
			time.Sleep(day)
			stop()
			if staging.count() != 1 || trusted.count() != 1 {
				t.Errorf("%d and %d orders in the end", staging.count(), trusted.count())
			}
		})
	}
}

// TestRenewalInformationThatIsAwayStopsNothing: renewals then go as if there were none, and so do orders.
func TestRenewalInformationThatIsAwayStopsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mint, asked := newMint(t), 0
		m := &model{answer: func(_ context.Context, name string) (store.Certificate, error) {
			return mint.issue(name, time.Now(), time.Now().Add(45*day)), nil
		}}
		m.window = func([]byte) (certs.Window, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			asked++
			return certs.Window{}, &certs.Problem{Status: 503, Detail: "busy"}
		}
		k, stop := run(t, newBooks(), m)
		defer stop()
		for n := range 50 {
			k.Want(host(n), false)
			time.Sleep(20 * time.Minute)
		}
		for n := range 50 {
			k.Want(host(100+n), true)
			synctest.Wait()
			if s := k.Status(host(100 + n)); s.State != certs.StateValid {
				t.Errorf("new name %d: %+v", n, s)
			}
			time.Sleep(7 * time.Minute)
		}
		time.Sleep(40 * day)
		stop()
		if o := k.Overview(); o.Valid != 100 || m.count() < 200 {
			t.Errorf("%d orders; %v", m.count(), o)
		}
		if asked < 100 || asked > 42*24*5 {
			t.Errorf("%d questions in 42 days", asked)
		}
	})
}

// TestWindowsThatAreAlwaysOverMakeNoCircle: an authority whose clock is wrong has each certificate replaced once a day.
func TestWindowsThatAreAlwaysOverMakeNoCircle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, mint := &model{}, newMint(t)
		m.window = func([]byte) (certs.Window, error) {
			return certs.Window{Start: time.Now().Add(-2 * time.Hour), End: time.Now().Add(-time.Hour), Retry: 6 * time.Hour}, nil
		}
		m.answer = func(_ context.Context, name string) (store.Certificate, error) {
			return mint.issueBy(m.Name(), name, time.Now(), time.Now().Add(90*day)), nil
		}
		k, stop := run(t, newBooks(), m)
		defer stop()
		for n := range 20 {
			k.Want(host(n), true)
		}
		time.Sleep(7 * day)
		if got := m.count(); got < 20*2 || got > 20*8 {
			t.Errorf("%d orders of 20 names in 7 days", got)
		}
	})
}

// TestGateFindsAnAuthorityBack: what the gate alone found ends when the gate is answered, though no order passes. What an
// order found does not.
func TestGateFindsAnAuthorityBack(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		byOrder, answered, ends bool
	}{
		"answered":              {answered: true, ends: true},
		"not asked":             {},
		"noted by an order too": {byOrder: true, answered: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &model{answer: func(context.Context, string) (store.Certificate, error) {
					return store.Certificate{}, errors.New("connection reset")
				}}
				begun := time.Now()
				gate := func(_ context.Context, name string, _ certs.Authority) error {
					switch {
					case time.Since(begun) > time.Minute:
						return &certs.Refusal{Check: certs.CheckDNS, Host: name, Reason: "elsewhere", Proven: true, Answered: tt.answered}
					case tt.byOrder && time.Since(begun) > 10*time.Second:
						return nil
					}
					return &certs.Unanswered{Err: errors.New("no route")}
				}
				k, stop := run(t, newBooks(), m, func(c *certs.Config) { c.Gate = gate })
				defer stop()
				for n := range 10 {
					k.Want(host(n), false)
				}
				synctest.Wait()
				if a := k.Overview().Accounts[0]; !strings.Contains(a.Closed, "no route") {
					t.Fatalf("with nobody there: %+v", a)
				}
				time.Sleep(3 * time.Hour)
				if a := k.Overview().Accounts[0]; a.Since.IsZero() != tt.ends || (m.count() > 0) != tt.byOrder {
					t.Errorf("after names were held for their own faults, and %d orders: %+v, want the outage to end: %v", m.count(), a, tt.ends)
				}
			})
		})
	}
}

// TestGateFindsAnAuthorityAway: where the gate is the first to ask one that does not answer, that is an outage like others.
func TestGateFindsAnAuthorityAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := &model{called: "first"}, &model{called: "second"}
		first.answer, second.answer = first.good, second.good
		asked := 0
		gate := func(_ context.Context, name string, by certs.Authority) error {
			if by != first {
				return nil
			}
			asked++ // one at a time from the second on
			return fmt.Errorf("hold the order for %q: %w", name, &certs.Unanswered{Err: errors.New("no route")})
		}
		k, stop := run(t, newBooks(), first, several(first, second), func(c *certs.Config) {
			c.Gate = gate
			c.Budgets = []config.Budget{config.DefaultBudget(), config.DefaultBudget()}
			c.Budgets[0].InFlight = 1
		})
		defer stop()
		for n := range 50 {
			k.Want(host(n), false)
		}
		time.Sleep(time.Minute)
		if s := k.Overview().Accounts[0].Closed; !strings.Contains(s, "no route") {
			t.Errorf("after a minute it is closed by %q", s)
		}
		time.Sleep(8 * time.Hour)
		if second.count() != 50 || first.count() != 0 || asked > 40 {
			t.Errorf("the first was asked %d times, %d names have moved, want 50", asked, second.count())
		}
	})
}
