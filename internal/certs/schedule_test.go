package certs_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

func refused(context.Context, string) (store.Certificate, error) {
	return store.Certificate{}, fmt.Errorf("order: %w", &certs.Problem{Detail: "no such host", Type: "urn:ietf:params:acme:error:dns"})
}

func TestPausesGrowFromMinutesToADayAndSurviveARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, m := newBooks(), &model{answer: refused}
		k, stop := run(t, b, m)
		k.Want("a.test", false)
		time.Sleep(2 * time.Hour) // tries: 0, 5 min, 20 min, 65 min
		if got := len(m.of("a.test")); got != 4 {
			t.Fatalf("%d tries in two hours: %v", got, m.of("a.test"))
		}
		before := k.Status("a.test")
		stop()

		k, stop = run(t, b, m)
		k.Want("a.test", false)
		if after := k.Status("a.test"); after != before || after.State != certs.StateFailing || after.Problem != "order: no such host (dns)" {
			t.Errorf("after the restart %+v, before %+v", after, before)
		}
		time.Sleep(10 * day)
		stop()

		want := []time.Duration{5 * time.Minute, 15 * time.Minute, 45 * time.Minute, 135 * time.Minute, 405 * time.Minute, 1215 * time.Minute}
		times := m.of("a.test")
		for i := 1; i < len(times); i++ {
			pause, longest := times[i].Sub(times[i-1]), day
			if i <= len(want) {
				longest = want[i-1]
			}
			if pause > longest || pause < longest*9/10 {
				t.Errorf("pause %d is %v, want %v less at most a tenth", i, pause, longest)
			}
		}
		if len(times) < 16 {
			t.Errorf("%d tries in ten days", len(times))
		}
	})
}

func TestOutageIsNotTheNamesFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		up := time.Now().Add(3 * day)
		m := &model{answer: func(_ context.Context, name string) (store.Certificate, error) {
			if time.Now().Before(up) {
				return store.Certificate{}, errors.New("connection refused")
			}
			return issue(90*day, name)
		}}
		k, stop := run(t, newBooks(), m)
		defer stop()
		k.Want("a.test", false)
		time.Sleep(3*day + time.Hour)
		if s := k.Status("a.test"); s.State != certs.StateValid {
			t.Errorf("an hour after an outage of three days: %+v", s)
		}
	})
}

func TestRetryAfterIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: func(context.Context, string) (store.Certificate, error) {
			return store.Certificate{}, &certs.Problem{Detail: "slow down", Status: 429, RetryAfter: 30 * time.Hour}
		}}
		k, stop := run(t, newBooks(), m)
		defer stop()
		k.Want("a.test", false)
		time.Sleep(29 * time.Hour)
		k.Want("a.test", false) // does not shorten it
		time.Sleep(59 * time.Minute)
		if got := len(m.of("a.test")); got != 1 {
			t.Errorf("%d orders before Retry-After was over", got)
		}
		time.Sleep(2 * time.Minute)
		if got := len(m.of("a.test")); got != 2 {
			t.Errorf("%d orders after it", got)
		}
	})
}

func TestHangingNamesDelayNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: func(ctx context.Context, name string) (store.Certificate, error) {
			if strings.HasPrefix(name, "hang") {
				<-ctx.Done()
				return store.Certificate{}, ctx.Err()
			}
			return issue(90*day, name)
		}}
		k, stop := run(t, newBooks(), m)
		defer stop()
		for i := range 12 {
			k.Want(fmt.Sprintf("hang%d.test", i), false)
		}
		synctest.Wait()
		k.Want("good.test", false)
		time.Sleep(31 * time.Second) // three rounds of 10 s until the hanging ones are out of the way
		if s := k.Status("good.test"); s.State != certs.StateValid {
			t.Errorf("behind hanging names: %+v", s)
		}
		time.Sleep(6 * time.Minute)
		if s := k.Status("hang0.test"); s.State != certs.StateFailing || !strings.Contains(s.Problem, "deadline") {
			t.Errorf("an order that hangs: %+v", s)
		}
	})
}

func TestCrowdOfFailingNamesDelaysNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBooks()
		for i := range 500 {
			name := fmt.Sprintf("bad%d.test", i)
			b.orders[name] = store.Order{Name: name, Failures: 3, Tried: time.Now(), Next: time.Now(), Problem: "x"}
		}
		m := &model{answer: func(ctx context.Context, name string) (store.Certificate, error) {
			if strings.HasPrefix(name, "bad") {
				select {
				case <-ctx.Done():
				case <-time.After(9 * time.Second):
				}
				return refused(ctx, name)
			}
			return issue(90*day, name)
		}}
		k, stop := run(t, b, m)
		defer stop()
		for i := range 500 {
			k.Want(fmt.Sprintf("bad%d.test", i), false)
		}
		time.Sleep(time.Second)
		k.Want("good.test", false)
		synctest.Wait()
		if s := k.Status("good.test"); s.State != certs.StateValid {
			t.Errorf("beside 500 failing names: %+v", s)
		}
	})
}

func TestRenewsInTimeForAYear(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{90 * day, 45 * day, 6 * day} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const names = 20
				m := &model{answer: func(_ context.Context, name string) (store.Certificate, error) { return issue(life, name) }}
				k, stop := run(t, newBooks(), m)
				for i := range names {
					k.Want(fmt.Sprintf("n%d.test", i), false)
				}
				for range 365 {
					time.Sleep(day)
					for i := range names {
						s := k.Status(fmt.Sprintf("n%d.test", i))
						if left := time.Until(s.NotAfter); s.State != certs.StateValid || left < life/3-day {
							t.Fatalf("%v left of %v, %+v", left, life, s)
						}
					}
				}
				stop()
				used := life * 2 / 3
				if life < 10*day {
					used = life / 2
				}
				most := int(365*day/(used*9/10)) + 2
				if got := len(m.attempts); got > names*most || got < names*int(365*day/used) {
					t.Errorf("%d orders for %d names in a year", got, names)
				}
				if first := m.of("n0.test")[1]; first.Equal(m.of("n1.test")[1]) {
					t.Error("names that were obtained together are renewed together")
				}
			})
		})
	}
}

func TestUnwantStopsOrders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBooks()
		m := &model{answer: func(_ context.Context, name string) (store.Certificate, error) { return issue(90*day, name) }}
		k, stop := run(t, b, m)
		defer stop()
		k.Want("Away.TEST.", false)
		synctest.Wait()
		k.Unwant("away.test")
		time.Sleep(89 * day)
		if c, _ := k.GetCertificate(&tls.ClientHelloInfo{ServerName: "away.test"}); c == nil {
			t.Error("what is there is not served any more")
		}
		time.Sleep(2 * day)
		if got := len(m.attempts); got != 1 {
			t.Errorf("%d orders", got)
		}
		if s := k.Status("away.test"); s.State != certs.StateExpired || !s.NextTry.IsZero() {
			t.Errorf("status %+v", s)
		}
		if c, err := k.GetCertificate(&tls.ClientHelloInfo{ServerName: "away.test"}); c != nil || err != nil {
			t.Errorf("an expired certificate is served: %v, %v", c, err)
		}
		k.Want("away.test", false)
		synctest.Wait()
		if s := k.Status("away.test"); s.State != certs.StateValid {
			t.Errorf("wanted again: %+v", s)
		}
	})
}

func TestDropDuringAnOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBooks()
		m := &model{answer: func(ctx context.Context, name string) (store.Certificate, error) {
			<-ctx.Done() // the certificate comes all the same
			return issue(90*day, name)
		}}
		k, stop := run(t, b, m)
		defer stop()
		k.Want("a.test", false)
		synctest.Wait()
		if err := k.Drop(t.Context(), "a.test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(day)
		if len(b.certs) != 0 || len(b.orders) != 0 || len(m.attempts) != 1 {
			t.Errorf("after Drop: %d certificates, %d orders kept, %d orders sent", len(b.certs), len(b.orders), len(m.attempts))
		}
		if s := k.Status("a.test"); s != (certs.Status{State: certs.StateNone}) {
			t.Errorf("status %+v", s)
		}
	})
}

func TestStoreDownCostsNoSecondOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBooks()
		b.broken = errors.New("disk full")
		m := &model{answer: func(_ context.Context, name string) (store.Certificate, error) { return issue(90*day, name) }}
		k, stop := run(t, b, m)
		defer stop()
		k.Want("a.test", false)
		time.Sleep(time.Hour)
		if s := k.Status("a.test"); s.State != certs.StateFailing || !strings.Contains(s.Problem, "disk full") {
			t.Errorf("status %+v", s)
		}
		b.setBroken(nil)
		time.Sleep(time.Hour)
		if s := k.Status("a.test"); s.State != certs.StateValid || len(m.attempts) != 1 {
			t.Errorf("status %+v after %d orders", s, len(m.attempts))
		}
	})
}

// TestWhatIsOnlyToBeSavedWaitsForNoBudget: the last order of a domain's week, and an authority that stopped us since.
func TestWhatIsOnlyToBeSavedWaitsForNoBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, b := &model{}, newBooks()
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			if name == "mta-sts.stop.test" {
				return store.Certificate{}, &certs.Problem{Status: 429, RetryAfter: 5 * day, Detail: "too many new orders"}
			}
			return m.good(ctx, name)
		}
		k, stop := run(t, b, m)
		defer stop()
		name := func(n int) string { return fmt.Sprintf("mta-sts.c%d.shop.test", n) }
		for n := range 44 {
			k.Want(name(n), true)
		}
		time.Sleep(10 * time.Minute)
		b.setBroken(errors.New("disk full"))
		k.Want(name(44), true)
		time.Sleep(10 * time.Second)
		k.Want("mta-sts.stop.test", true)
		synctest.Wait()
		b.setBroken(nil)
		time.Sleep(time.Hour)
		if s := k.Status(name(44)); s.State != certs.StateValid || len(m.of(name(44))) != 1 {
			t.Errorf("an hour after the store is back: %+v after %d orders", s, len(m.of(name(44))))
		}
	})
}

func TestWrongCertificatesAreNotTaken(t *testing.T) {
	t.Parallel()
	for reason, answer := range map[string]func(name string) (store.Certificate, error){
		"check name": func(name string) (store.Certificate, error) {
			c, err := issue(90*day, "other.test")
			c.Name = name
			return c, err
		},
		"not the certificate's": func(name string) (store.Certificate, error) {
			c, err := issue(90*day, name)
			other, _ := issue(90*day, name)
			c.Key = other.Key
			return c, err
		},
		"check the clock": func(name string) (store.Certificate, error) { return issue(-time.Hour, name) },
		"no certificate":  func(name string) (store.Certificate, error) { return store.Certificate{Name: name}, nil },
		"read certificate": func(name string) (store.Certificate, error) {
			return store.Certificate{Name: name, Chain: [][]byte{{1}}}, nil
		},
		"read key": func(name string) (store.Certificate, error) {
			c, err := issue(90*day, name)
			c.Key = c.Key[1:]
			return c, err
		},
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBooks()
				k, stop := run(t, b, &model{answer: func(_ context.Context, name string) (store.Certificate, error) { return answer(name) }})
				k.Want("a.test", false)
				synctest.Wait()
				if s := k.Status("a.test"); s.State != certs.StateFailing || !strings.Contains(s.Problem, reason) {
					t.Errorf("status %+v, want a problem with %q", s, reason)
				}
				stop()

				// The same certificate, found in the store at start.
				c, err := answer("a.test")
				if err != nil {
					t.Fatal(err)
				}
				b.certs["a.test"] = c
				k, stop = run(t, b, &model{answer: refused})
				defer stop()
				if c, err := k.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.test"}); c != nil || err != nil {
					t.Errorf("it is served: %v, %v", c, err)
				}
			})
		})
	}
}

// TestEverythingAtOnce is for the race detector, and for what must hold in the end whatever was said before.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calm atomic.Bool // the authority refuses nobody any more
		b := newBooks()
		m := &model{answer: func(ctx context.Context, name string) (store.Certificate, error) {
			if !calm.Load() && rand.N(3) == 0 {
				return refused(ctx, name)
			}
			time.Sleep(rand.N(20 * time.Second))
			return issue(6*day, name)
		}}
		k, stop := run(t, b, m)
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for range 300 {
					name := fmt.Sprintf("n%d.test", rand.N(10))
					switch rand.N(6) {
					case 0, 1:
						k.Want(name, false)
					case 2:
						k.Unwant(name)
					case 3:
						if err := k.Drop(t.Context(), name); err != nil {
							t.Error(err)
						}
					case 4:
						k.Status(name)
					case 5:
						k.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
					}
					time.Sleep(rand.N(time.Minute))
				}
			})
		}
		callers.Wait()
		calm.Store(true)
		for i := range 10 {
			name := fmt.Sprintf("n%d.test", i)
			if i < 5 {
				if err := k.Drop(t.Context(), name); err != nil {
					t.Error(err)
				}
				continue
			}
			k.Want(name, false)
		}
		time.Sleep(3 * day)
		for i := range 10 {
			name, want := fmt.Sprintf("n%d.test", i), certs.StateValid
			if i < 5 {
				want = certs.StateNone
			}
			if s := k.Status(name); s.State != want {
				t.Errorf("%s: %+v, want %s", name, s, want)
			}
		}
		stop()
		if len(b.certs) != 5 {
			t.Errorf("%d certificates in the store, want 5", len(b.certs))
		}
	})
}

// TestSlowListenersHoldNoOrder: who is told of a change may take as long as the context that it gets.
func TestSlowListenersHoldNoOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &model{}
		m.answer = m.good
		told := make(chan string, 100)
		k, stop := run(t, newBooks(), m, func(c *certs.Config) {
			budget := config.DefaultBudget()
			budget.InFlight, budget.PerSecond = 1, 100
			c.Budgets = []config.Budget{budget}
			c.OnChange = func(ctx context.Context, name string) {
				if end, ends := ctx.Deadline(); !ends || time.Until(end) > time.Minute {
					t.Errorf("the context of a change ends at %v, %v", end, ends)
				}
				<-ctx.Done()
				told <- name
			}
		})
		for n := range 20 {
			k.Want(fmt.Sprintf("n%d.test", n), true)
		}
		time.Sleep(5 * time.Second)
		if o := k.Overview(); o.Valid != 20 || o.Accounts[0].Running != 0 || len(told) != 0 {
			t.Errorf("after 5 seconds %v, %+v, %d were told", o, o.Accounts[0], len(told))
		}
		begun := time.Now()
		stop() // waits for them
		if len(told) != 20 || time.Since(begun) > time.Minute {
			t.Errorf("%d were told, and to stop took %v", len(told), time.Since(begun))
		}
	})
}
