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
	"github.com/stspub/stspub/internal/store"
)

// away answers nothing.
func away(context.Context, string) (store.Certificate, error) {
	return store.Certificate{}, errors.New("no route")
}

// TestNamesMoveFromAnAuthorityThatAlwaysSaysLater: none of the times that it names is long, but it takes no order. After
// each of them one order finds that out, not as many as may be in flight.
func TestNamesMoveFromAnAuthorityThatAlwaysSaysLater(t *testing.T) {
	t.Parallel()
	for _, wait := range []time.Duration{time.Hour, 5 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			first, second := &model{called: "first"}, &model{called: "second"}
			first.answer = func(context.Context, string) (store.Certificate, error) {
				time.Sleep(time.Second)
				return store.Certificate{}, &certs.Problem{
					Status: 429, Type: "urn:ietf:params:acme:error:rateLimited", Detail: "too many requests", RetryAfter: wait,
				}
			}
			second.answer = second.good
			k, stop := run(t, newBooks(), first, several(first, second))
			defer stop()
			for n := range 20 {
				k.Want(host(n), false)
			}
			time.Sleep(4 * time.Hour)
			if second.count() > 0 {
				t.Errorf("Retry-After %v: names moved within 4 hours", wait)
			}
			time.Sleep(4 * time.Hour)
			if got := k.Overview(); got.Valid != 20 || second.count() != 20 {
				t.Errorf("Retry-After %v: after 8 hours %d orders at the second; %v", wait, second.count(), got)
			}
			if most := 8 + int(8*time.Hour/wait); first.count() > most {
				t.Errorf("Retry-After %v: %d orders at the first, want at most %d", wait, first.count(), most)
			}
		})
	}
}

// TestSilenceOutlivesRestarts: an authority is away, or says later, while restarts come too often for any process to see
// the whole of it.
func TestSilenceOutlivesRestarts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		order func(context.Context, string) (store.Certificate, error)
		gate  error
		first int // orders at most
	}{
		"away": {order: away, first: 40},
		"later": {order: func(context.Context, string) (store.Certificate, error) {
			return store.Certificate{}, &certs.Problem{Status: 429, Detail: "busy", RetryAfter: 2 * time.Hour}
		}, first: 5},
		"later, at the gate": {gate: &certs.Unanswered{Err: &certs.Problem{Status: 429, Detail: "busy", RetryAfter: 2 * time.Hour}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				first, second := &model{called: "first", answer: tt.order}, &model{called: "second"}
				second.answer = second.good
				b, asked := newBooks(), 0
				gate := func(c *certs.Config) {
					c.Gate = func(_ context.Context, name string, by certs.Authority) error {
						if by == first && tt.gate != nil {
							asked++
							return fmt.Errorf("hold the order for %q: %w", name, tt.gate)
						}
						return nil
					}
				}
				for n := range 10 {
					k, stop := run(t, b, first, several(first, second), gate)
					k.Want(host(1), true)
					synctest.Wait()
					if s := k.Status(host(1)); n == 1 && tt.gate != nil && !strings.Contains(s.Waiting, "busy") {
						t.Errorf("after a restart: %+v", s)
					}
					time.Sleep(time.Hour)
					stop()
				}
				if second.count() != 1 {
					t.Errorf("after 10 hours with a restart in each: %d orders at the second", second.count())
				}
				if first.count() > tt.first || asked > 5 {
					t.Errorf("%d orders and %d questions at the first", first.count(), asked)
				}
			})
		})
	}
}

// TestSilenceEnds: what was long ago, or is over, has no name move.
func TestSilenceEnds(t *testing.T) {
	t.Parallel()
	for _, long := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			first, second := &model{called: "first", answer: away}, &model{called: "second"}
			second.answer = second.good
			b := newBooks()
			k, stop := run(t, b, first, several(first, second))
			k.Want(host(0), false)
			time.Sleep(8 * time.Hour)
			if second.count() != 1 || len(b.values) != 1 {
				t.Fatalf("after 8 hours: %d orders at the second, %d values", second.count(), len(b.values))
			}
			stop()
			if long {
				time.Sleep(3 * day)
			}
			first.answer = func(ctx context.Context, name string) (store.Certificate, error) {
				time.Sleep(time.Second)
				return first.good(ctx, name)
			}
			k, stop = run(t, b, first, several(first, second))
			defer stop()
			k.Want(host(0), false)
			for n := range 20 {
				k.Want(host(100+n), false)
			}
			time.Sleep(time.Hour)
			if o := k.Overview(); o.Valid != 21 || len(b.values) != 0 {
				t.Errorf("an hour later: %v, %d values", o, len(b.values))
			}
			if long && second.count() != 1 {
				t.Errorf("%d names moved for what was 3 days ago", second.count()-1)
			}
		})
	}
}

// TestNamesThatMovedInVainComeBackAtOnce: those that the second authority refuses are seldom ordered there, but need not wait
// for that when the first is back.
func TestNamesThatMovedInVainComeBackAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := &model{called: "first", answer: away}, &model{called: "second", answer: rejecting}
		k, stop := run(t, newBooks(), first, several(first, second))
		defer stop()
		for n := range 5 {
			k.Want(host(n), false)
		}
		time.Sleep(2*day + 30*time.Minute)
		if got := second.count(); got < 5 || got > 5*6 {
			t.Errorf("%d orders at the second in 2 days", got)
		}
		first.answer = first.good
		k.Want(host(9), false) // knocks
		time.Sleep(20 * time.Minute)
		if got := k.Overview(); got.Valid != 6 {
			t.Errorf("20 minutes after the first is back: %v", got)
		}
	})
}

// TestExpiringCertificateMovesEarlier: with hours left nobody waits for six.
func TestExpiringCertificateMovesEarlier(t *testing.T) {
	t.Parallel()
	later := func(context.Context, string) (store.Certificate, error) {
		return store.Certificate{}, &certs.Problem{Status: 429, Detail: "busy", RetryAfter: time.Hour}
	}
	for _, answer := range []func(context.Context, string) (store.Certificate, error){away, later, rejecting} {
		for _, left := range []time.Duration{45 * time.Minute, time.Hour, 2 * time.Hour, 5 * time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				first, second := &model{called: "first", answer: answer}, &model{called: "second"}
				second.answer = second.good
				b, mint := newBooks(), newMint(t)
				ends := time.Now().Add(left)
				b.certs[host(1)] = mint.issueBy("first", host(1), ends.Add(-6*day), ends)
				k, stop := run(t, b, first, several(first, second))
				defer stop()
				k.Want(host(1), true)
				time.Sleep(10 * time.Minute)
				if second.count() > 0 && left > 2*time.Hour {
					t.Errorf("with %v left it moved within 10 minutes", left)
				}
				time.Sleep(left - 15*time.Minute)
				if s := k.Status(host(1)); s.State != certs.StateValid || s.Authority != "second" {
					_, err := answer(t.Context(), "")
					t.Errorf("with %v left, 5 minutes before the end, after %q: %+v", left, err, s)
				}
			})
		}
	}
}

// TestStoreOfAClockThatWasAhead: a day's orders, their failures, stops and leases of two months from now hold nothing up for
// longer than if they were of now, and not with every restart again.
func TestStoreOfAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, last := newBooks(), int64(0)
		at := time.Now().Add(60 * day)
		for n := range 300 {
			e := store.JournalEntry{Authority: "model", Name: host(n), Domain: fmt.Sprintf("c%06d.test", n%5), Begun: at}
			if err := b.AppendJournal(t.Context(), last, &e); err != nil {
				t.Fatal(err)
			}
			last = e.Seq
			if n > 0 {
				e.Ended = at.Add(time.Minute)
				if err := b.EndJournal(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
		}
		for n := range 4 {
			b.orders[host(n)] = store.Order{Name: host(n), Failures: 3, Tried: at, Next: at.Add(time.Hour), Since: at, Problem: "no"}
		}
		b.values["acme/silence/model"] = fmt.Appendf(nil, `{"since":%q,"known":%q,"stopped":%[2]q,"reason":"later"}`,
			at.Format(time.RFC3339), at.Add(time.Hour).Format(time.RFC3339))
		m := &model{}
		m.answer = m.good
		for n := range 4 {
			k, stop := run(t, b, m)
			for n := range 4 {
				k.Want(host(n), true)
			}
			time.Sleep(2 * time.Hour)
			stop()
			if got := m.count(); n == 3 && got != 4 {
				t.Errorf("%d orders within 8 hours with a restart every 2, want 4; %+v", got, k.Status(host(0)))
			}
		}
		if len(b.journal) != 4 {
			t.Errorf("%d entries in the journal, want 4", len(b.journal))
		}
	})
}
