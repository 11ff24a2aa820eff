package certs_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// rejecting answers that a name is not issued for.
func rejecting(context.Context, string) (store.Certificate, error) {
	return store.Certificate{}, &certs.Problem{
		Status: 400, Type: "urn:ietf:params:acme:error:rejectedIdentifier", Detail: "policy forbids issuing for this name",
	}
}

// TestNameThatAllRefuseIsOrderedSeldom: whom none of the authorities takes is ordered once a day from each of them, no
// sooner than they say, and not from a second one that no sender trusts.
func TestNameThatAllRefuseIsOrderedSeldom(t *testing.T) {
	t.Parallel()
	limited := func(context.Context, string) (store.Certificate, error) {
		return store.Certificate{}, &certs.Problem{
			Status: 429, Detail: "too many certificates already issued for this exact set of identifiers", RetryAfter: 6 * day,
		}
	}
	for name, tt := range map[string]struct {
		first, second   func(context.Context, string) (store.Certificate, error)
		staging         bool
		firsts, seconds int // at most, in the 4 days after the first one
	}{
		"both":                 {rejecting, rejecting, false, 5, 5},
		"second is staging":    {rejecting, rejecting, true, 5, 0},
		"with a Retry-After":   {limited, rejecting, false, 0, 5},
		"and none but staging": {limited, rejecting, true, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				first, second := &model{called: "first", answer: tt.first}, &model{called: "second", answer: tt.second, staging: tt.staging}
				k, stop := run(t, newBooks(), first, several(first, second))
				defer stop()
				k.Want(host(1), true)
				time.Sleep(day)
				before := []int{first.count(), second.count()}
				time.Sleep(4 * day)
				if f, s := first.count()-before[0], second.count()-before[1]; f > tt.firsts || s > tt.seconds || f+s < min(4, tt.firsts) {
					t.Errorf("%d and %d orders in 4 days, want at most %d and %d", f, s, tt.firsts, tt.seconds)
				}
				if first.count() == 0 || before[0] > 7 || before[1] > 7 {
					t.Errorf("%d orders on the first day", before)
				}
				if s := k.Status(host(1)); s.State != certs.StateFailing || s.NextTry.Before(time.Now()) {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

// TestGateThatHoldsForAllIsAskedSeldom: CAA records that exclude all authorities are looked at twice a day.
func TestGateThatHoldsForAllIsAskedSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards asked
		asked := make(map[string]int)
		first, second := &model{called: "first"}, &model{called: "second"}
		k, stop := run(t, newBooks(), first, several(first, second), func(c *certs.Config) {
			c.Gate = func(_ context.Context, name string, by certs.Authority) error {
				mu.Lock()
				asked[by.Name()]++
				mu.Unlock()
				return certs.Hold(name, &certs.Refusal{Check: certs.CheckCAA, Host: name, Proven: true, Reason: "excluded"})
			}
		})
		defer stop()
		k.Want(host(1), false)
		time.Sleep(10 * day)
		mu.Lock()
		defer mu.Unlock()
		if asked["first"] > 20 || asked["second"] > 12 || asked["second"] < 8 {
			t.Errorf("in 10 days it was asked for %v", asked)
		}
	})
}

// TestRefusedOrdersLeaveTheDomainItsBudget: an order that the authority does not take gets the domain no certificate, so
// it uses up nothing of what others of that domain may have. That holds over a restart too.
func TestRefusedOrdersLeaveTheDomainItsBudget(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			of := func(n int) string { return fmt.Sprintf("mta-sts.c%d.shop.test", n) }
			var bad []string
			for n := range 60 {
				bad = append(bad, of(n))
			}
			m := &model{}
			m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
				if slices.Contains(bad, name) {
					return rejecting(ctx, name)
				}
				return m.good(ctx, name)
			}
			b := newBooks()
			k, stop := run(t, b, m)
			for _, name := range bad {
				k.Want(name, false)
			}
			time.Sleep(9 * time.Hour)
			if m.count() < 60 {
				t.Fatalf("%d orders", m.count())
			}
			if restart {
				stop()
				k, stop = run(t, b, m)
			}
			defer stop()
			k.Want(of(100), false)
			time.Sleep(3 * time.Hour)
			if s := k.Status(of(100)); s.State != certs.StateValid {
				t.Errorf("restart %v: another name of the domain: %+v", restart, s)
			}
		})
	}
}
