package certs_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// TestRestartKeepsARenewalThatFails: a certificate that is to be replaced at once is so after a restart too.
func TestRestartKeepsARenewalThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		announced := time.Now().Add(10 * day)
		m, mint := &model{}, newMint(t)
		m.window = func(leaf []byte) (certs.Window, error) {
			if from, _, _ := mint.times(leaf); time.Now().After(announced) && from.Before(announced) {
				return certs.Window{Start: announced.Add(-2 * time.Hour), End: announced.Add(-time.Hour), Retry: day}, nil
			}
			return certs.Window{Start: announced.Add(50 * day), End: announced.Add(52 * day), Retry: 6 * time.Hour}, nil
		}
		refuses := true
		m.answer = func(_ context.Context, name string) (store.Certificate, error) {
			if refuses && m.count() > 1 {
				return store.Certificate{}, &certs.Problem{Status: 400, Type: "urn:ietf:params:acme:error:malformed"}
			}
			return mint.issueBy(m.Name(), name, time.Now(), time.Now().Add(90*day)), nil
		}
		b := newBooks()
		k, stop := run(t, b, m)
		k.Want(host(1), true)
		time.Sleep(10*day + 8*time.Hour)
		before := k.Status(host(1))
		stop()
		refuses = false
		k, stop = run(t, b, m)
		defer stop()
		k.Want(host(1), true)
		synctest.Wait()
		if s := k.Status(host(1)); !s.NextTry.Equal(before.NextTry) {
			t.Errorf("the next try was at %v, and is at %v after the restart", before.NextTry, s.NextTry)
		}
		time.Sleep(time.Until(before.NextTry) + time.Minute)
		if s := k.Status(host(1)); s.State != certs.StateValid || !s.NotAfter.After(before.NotAfter) {
			t.Errorf("after its time: %+v", s)
		}
	})
}

// TestDailyRestartsPutNoRenewalOff: a machine that starts every morning renews in time too.
func TestDailyRestartsPutNoRenewalOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, b := &model{}, newBooks()
		m.answer = m.good
		k, stop := run(t, b, m)
		begun := time.Now()
		for time.Since(begun) < 65*day {
			for n := range 10 {
				k.Want(host(n), true)
			}
			time.Sleep(day)
			stop()
			k, stop = run(t, b, m)
		}
		stop()
		for n := range 10 {
			times := m.of(host(n))
			if used := times[len(times)-1].Sub(begun); len(times) != 2 || used < 45*day || used > 61*day {
				t.Errorf("%s: %d orders, the last one after %v", host(n), len(times), used)
			}
		}
	})
}

// TestBlamelessNamesStayBlamelessOverARestart: they do not share the few orders that names get which fail by themselves.
func TestBlamelessNamesStayBlamelessOverARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const names = 20
		away := true
		m, b := &model{}, newBooks()
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			time.Sleep(time.Second)
			if away {
				return store.Certificate{}, errors.New("no route")
			}
			return m.good(ctx, name)
		}
		tight := func(c *certs.Config) {
			budget := config.DefaultBudget()
			budget.Orders, budget.OrdersPeriod, budget.InFlight, budget.PerSecond = 2*names, time.Hour, names, names
			c.Budgets = []config.Budget{budget}
		}
		k, stop := run(t, b, m, tight)
		for n := range names {
			k.Want(host(n), false)
		}
		time.Sleep(2 * time.Second)
		if o := k.Overview(); o.Failing != names {
			t.Fatalf("%v, want all to fail", o)
		}
		stop()
		away = false
		k, stop = run(t, b, m, tight)
		defer stop()
		for n := range names {
			k.Want(host(n), false)
		}
		time.Sleep(45 * time.Minute)
		if o := k.Overview(); o.Valid != names {
			t.Errorf("45 minutes after the restart: %v", o)
		}
	})
}

// plans are when names are renewed.
func plans(k *certs.Keeper, names int) []time.Time {
	var all []time.Time
	for n := range names {
		all = append(all, k.Status(host(n)).NextTry)
	}
	return all
}

// TestRestartsMoveNoRenewal: before and in the time in which certificates are renewed, and also where the store does not
// know what was planned, as that of an older version. What is due during a pause is spread over the time that is left.
func TestRestartsMoveNoRenewal(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]bool{"planned": false, "not planned": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const names = 2000
				m, b, mint := &model{}, newBooks(), newMint(t)
				m.answer = func(_ context.Context, name string) (store.Certificate, error) {
					return mint.issue(name, time.Now(), time.Now().Add(90*day)), nil
				}
				begun := time.Now()
				k, stop := run(t, b, m)
				for n := range names {
					k.Want(host(n), true)
				}
				time.Sleep(2 * day)
				before := plans(k, names)
				for restart := range 12 {
					stop()
					if forget && restart == 0 {
						for name, c := range b.certs {
							c.Renew = time.Time{}
							b.certs[name] = c
						}
					}
					time.Sleep(6 * time.Hour) // it was off
					began := time.Now()
					k, stop = run(t, b, m)
					for n := range names {
						k.Want(host(n), true)
					}
					after := plans(k, names)
					moved, soon := 0, 0
					for n, at := range after {
						if before[n].After(began) && !at.Equal(before[n]) {
							moved++
						}
						if at.Before(began.Add(time.Hour)) {
							soon++
						}
					}
					if moved > 0 && (restart > 0 || !forget) {
						t.Errorf("after restart %d, on day %d: %d renewals were moved", restart, time.Since(begun)/day, moved)
					}
					if most := names / 20; soon > most {
						t.Errorf("after restart %d: %d renewals within an hour, want at most %d", restart, soon, most)
					}
					time.Sleep(5*day - 6*time.Hour)
					before = plans(k, names)
				}
				stop()
				for n := range names {
					times := m.of(host(n))
					if used := times[1].Sub(times[0]); used < 45*day || used > 60*day+12*time.Hour {
						t.Errorf("%s is renewed after %v", host(n), used)
					}
				}
			})
		})
	}
}

// TestAnnouncedRevocationSurvivesARestart: the authority has said it once, and does not answer after the restart.
func TestAnnouncedRevocationSurvivesARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		announced := time.Now().Add(10 * day)
		silent := false
		m, b, mint := &model{}, newBooks(), newMint(t)
		m.window = func(leaf []byte) (certs.Window, error) {
			from, _, err := mint.times(leaf)
			switch {
			case silent:
				return certs.Window{}, errors.New("no route")
			case time.Now().After(announced) && from.Before(announced):
				return certs.Window{Start: announced.Add(-2 * time.Hour), End: announced.Add(-time.Hour), Retry: 6 * time.Hour}, nil
			}
			return certs.Window{Start: from.Add(60 * day), End: from.Add(62 * day), Retry: 6 * time.Hour}, err
		}
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			if !silent && time.Now().After(announced) { // it hangs, and the process is stopped meanwhile
				<-ctx.Done()
				return store.Certificate{}, ctx.Err()
			}
			return mint.issueBy(m.Name(), name, time.Now(), time.Now().Add(90*day)), nil
		}
		k, stop := run(t, b, m)
		k.Want(host(1), true)
		for time.Sleep(10 * day); m.count() < 2; {
			time.Sleep(time.Minute)
		}
		stop()
		silent = true
		for restart := range 3 {
			k, stop = run(t, b, m)
			k.Want(host(1), true)
			time.Sleep(10 * time.Minute)
			if s := k.Status(host(1)); s.NotAfter.Before(announced.Add(90*day)) || m.count() != 3 {
				t.Errorf("after restart %d and %d orders: %+v", restart, m.count(), s)
			}
			stop()
		}
	})
}

// TestRevocationAfterAKeptMove: a renewal that was moved once, and written down, is moved again after a restart.
func TestRevocationAfterAKeptMove(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var state atomic.Int64
		m, b, mint := &model{}, newBooks(), newMint(t)
		m.window = func(leaf []byte) (certs.Window, error) {
			from, _, err := mint.times(leaf)
			switch {
			case from.After(begun.Add(time.Hour)) || state.Load() == 0:
				return certs.Window{Start: from.Add(60 * day), End: from.Add(62 * day), Retry: time.Hour}, err
			case state.Load() == 1:
				at := begun.Add(12*day + 12*time.Hour)
				return certs.Window{Start: at, End: at.Add(time.Hour), Retry: time.Hour}, err
			}
			return certs.Window{Start: time.Now().Add(-2 * time.Hour), End: time.Now().Add(-time.Hour), Retry: time.Hour}, err
		}
		m.answer = func(_ context.Context, name string) (store.Certificate, error) {
			return mint.issueBy(m.Name(), name, time.Now(), time.Now().Add(90*day)), nil
		}
		k, stop := run(t, b, m)
		k.Want(host(1), true)
		time.Sleep(10 * day)
		state.Store(1)
		time.Sleep(7 * time.Hour)
		b.mu.Lock()
		kept := b.orders[host(1)]
		b.mu.Unlock()
		if kept.Next.IsZero() {
			t.Fatal("the move was not written down")
		}
		stop()
		k, stop = run(t, b, m)
		defer stop()
		k.Want(host(1), true)
		state.Store(2)
		announced := time.Now()
		time.Sleep(day)
		if times := m.of(host(1)); len(times) != 2 || times[1].Sub(announced) > 8*time.Hour {
			t.Errorf("announced at %v, ordered at %v", announced, times)
		}
	})
}

// TestDistantMoveIsWrittenDownWhenItIsNear: the authority said weeks before that it is to be renewed early, and is silent
// after the restart.
func TestDistantMoveIsWrittenDownWhenItIsNear(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		silent := false
		m, b, mint := &model{}, newBooks(), newMint(t)
		m.window = func(leaf []byte) (certs.Window, error) {
			from, _, err := mint.times(leaf)
			if silent {
				return certs.Window{}, errors.New("no route")
			}
			return certs.Window{Start: from.Add(20 * day), End: from.Add(20*day + time.Hour), Retry: 6 * time.Hour}, err
		}
		m.answer = func(_ context.Context, name string) (store.Certificate, error) {
			return mint.issueBy(m.Name(), name, time.Now(), time.Now().Add(90*day)), nil
		}
		k, stop := run(t, b, m)
		k.Want(host(1), true)
		time.Sleep(16 * day)
		b.mu.Lock()
		o := b.orders[host(1)]
		b.mu.Unlock()
		if !o.Next.IsZero() {
			t.Errorf("it is written down days before: %+v", o)
		}
		time.Sleep(2 * day)
		stop()
		silent = true
		k, stop = run(t, b, m)
		defer stop()
		k.Want(host(1), true)
		time.Sleep(time.Until(begun.Add(20*day + 2*time.Hour)))
		if n := m.count(); n != 2 {
			t.Errorf("%d orders after 20 days, want 2", n)
		}
	})
}

// TestRevocationEndsAPauseOnce: the name fails, and its certificate is about to be revoked.
func TestRevocationEndsAPauseOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, b, mint := &model{}, newBooks(), newMint(t)
		now := time.Now()
		b.certs[host(1)] = mint.issueBy(m.Name(), host(1), now.Add(-10*day), now.Add(80*day))
		b.orders[host(1)] = store.Order{
			Name: host(1), Failures: 9, Tried: now.Add(-time.Hour), Next: now.Add(23 * time.Hour), Since: now.Add(-5 * day), Problem: "no",
		}
		m.window = func([]byte) (certs.Window, error) {
			return certs.Window{Start: time.Now().Add(-2 * time.Hour), End: time.Now().Add(-time.Hour), Retry: time.Hour}, nil
		}
		m.answer = func(context.Context, string) (store.Certificate, error) {
			return store.Certificate{}, &certs.Problem{Status: 400, Type: "urn:ietf:params:acme:error:malformed"}
		}
		k, stop := run(t, b, m)
		defer stop()
		k.Want(host(1), true)
		time.Sleep(20 * time.Hour)
		if n := m.count(); n != 1 {
			t.Errorf("%d orders within 20 hours, want 1", n)
		}
	})
}
