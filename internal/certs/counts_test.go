package certs_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/store"
)

// TestOrdersThatMayCountSaySo has a real CA, and what stands before it, fail before, at and after the order.
func TestOrdersThatMayCountSaySo(t *testing.T) {
	t.Parallel()
	at := func(path string, status int) func(request, http.ResponseWriter) bool {
		return func(r request, w http.ResponseWriter) bool {
			if !strings.HasPrefix(r.path, path) {
				return false
			}
			w.Header().Set("Retry-After", "3600") // or it is asked again
			return refuse(w, status, "serverInternal", "trouble")
		}
	}
	for name, tt := range map[string]struct {
		fault func(request, http.ResponseWriter) bool
		lose  func(request) bool
		taken bool
	}{
		"directory":             {fault: at("/dir", 503)},
		"account":               {fault: at(pathAccount, 503)},
		"order refused":         {fault: at(pathOrder, 503)},
		"order refused for it":  {fault: at(pathOrder, 403)},
		"answer to order lost":  {lose: nth(1, pathOrder), taken: true},
		"authorization":         {fault: at(pathAuthz, 500), taken: true},
		"completion":            {fault: at(pathFinalize, 503), taken: true},
		"completion is limited": {fault: at(pathFinalize, 429), taken: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, x, a := watched(t, lab.CAOptions{})
			x.set(tt.fault, tt.lose)
			p, err := problem(t, a, certs.Request{Name: good})
			if _, taken := errors.AsType[*certs.Taken](err); taken != tt.taken || p.Status < 400 {
				t.Errorf("%v: Taken is %v, want %v", err, taken, tt.taken)
			}
		})
	}
}

// TestOrderThatDoesNotArriveDoesNotCount: there is nobody behind the address, or it ends the connection in the middle.
func TestOrderThatDoesNotArriveDoesNotCount(t *testing.T) {
	t.Parallel()
	w, _, _ := watched(t, lab.CAOptions{})
	g := newGate(t)
	up := directory(t, w.ca.DirectoryURL)
	g.to.Store(&up.Host)
	a := w.newACME(t, "https://"+g.Addr().String()+"/dir", w.ca.DirectoryCAPEM)
	obtain(t, a, certs.Request{Name: good}) // directory and account are known from now on
	g.cut(nil)
	_, err := a.Obtain(t.Context(), certs.Request{Name: good})
	if _, taken := errors.AsType[*certs.Taken](err); err == nil || taken {
		t.Errorf("%v: Taken is %v, want an error that is none", err, taken)
	}
}

// replacing is a model that sees what is replaced.
type replacing struct {
	*model
	obtain func(r certs.Request) error // nil: it issues

	replaced []bool // by order, that it was to replace something
}

func (m *replacing) Obtain(ctx context.Context, r certs.Request) (store.Certificate, error) {
	m.mu.Lock()
	m.replaced = append(m.replaced, r.Replaces != nil)
	m.mu.Unlock()
	if err := m.obtain(r); err != nil {
		return store.Certificate{}, err
	}
	return m.model.Obtain(ctx, r)
}

// exempt says of each entry of the journal whether it counts for nothing, in the order in which they were made.
func (b *books) exempt() []bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	var seqs []int64
	for seq := range b.journal {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	var all []bool
	for _, seq := range seqs {
		all = append(all, b.journal[seq].Exempt)
	}
	return all
}

// TestRefusedReplacementIsOrderedAgainAndCounts: the order that the authority does count waits for its budget, and is in
// the journal. It is no failure.
func TestRefusedReplacementIsOrderedAgainAndCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mint := newMint(t)
		m := &replacing{model: &model{}}
		m.window = func(leaf []byte) (certs.Window, error) {
			from, _, err := mint.times(leaf)
			return certs.Window{Start: from.Add(60 * day), End: from.Add(62 * day), Retry: day}, err
		}
		m.answer = func(_ context.Context, name string) (store.Certificate, error) {
			return mint.issue(name, time.Now(), time.Now().Add(90*day)), nil
		}
		m.obtain = func(r certs.Request) error {
			if r.Replaces != nil {
				return certs.ErrNotReplaced
			}
			return nil
		}
		b := newBooks()
		var changes atomic.Int32
		k, stop := run(t, b, m, func(c *certs.Config) {
			budget := config.DefaultBudget()
			budget.Orders = 1
			c.Budgets = []config.Budget{budget}
			c.OnChange = func(context.Context, string) { changes.Add(1) }
		})
		defer stop()
		k.Want(host(1), true)
		time.Sleep(day)
		before := k.Status(host(1))
		time.Sleep(time.Until(before.NextTry) - time.Minute)
		k.Want(host(2), true) // uses the budget up
		time.Sleep(2 * time.Hour)
		if s := k.Status(host(1)); s.NotAfter != before.NotAfter || s.Problem != "" || s.Place != 1 || s.Expected.Before(time.Now()) {
			t.Errorf("with the budget used up: %+v", s)
		}
		time.Sleep(time.Hour + time.Minute)
		if s := k.Status(host(1)); !s.NotAfter.After(before.NotAfter) || s.Problem != "" {
			t.Errorf("in the end: %+v", s)
		}
		if want := []bool{false, false, true, false}; !slices.Equal(m.replaced, want) || !slices.Equal(b.exempt()[len(b.exempt())-3:], want[1:]) {
			t.Errorf("orders that replaced something: %v, entries that do not count: %v", m.replaced, b.exempt())
		}
		if o := k.Overview(); o.Accounts[0].Orders != 1 || changes.Load() != 3 {
			t.Errorf("%d orders count in the last 3 hours, %d changes; want that without a replacement, and one for each certificate", o.Accounts[0].Orders, changes.Load())
		}
	})
}

// TestOrdersThatWereTakenCount: whatever went wrong afterwards, and also after a restart.
func TestOrdersThatWereTakenCount(t *testing.T) {
	t.Parallel()
	trouble := &certs.Problem{Status: 500, Detail: "trouble"}
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"not taken": {trouble, 0},
		"taken":     {&certs.Taken{Err: trouble}, 1},
		"lost":      {&certs.Taken{Err: errors.New("connection reset")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBooks()
				m := &model{answer: func(context.Context, string) (store.Certificate, error) { return store.Certificate{}, tt.err }}
				k, stop := run(t, b, m)
				k.Want(host(1), true)
				synctest.Wait()
				for range 2 {
					a := k.Overview().Accounts[0]
					if a.Orders != tt.want || m.count() != 1 {
						t.Errorf("%d orders count of %d, want %d", a.Orders, m.count(), tt.want)
					}
					stop()
					k, stop = run(t, b, m)
				}
				stop()
			})
		})
	}
}

// TestTroubleAfterOrdersUsesNoLimitUp: an authority that takes orders and does not finish them for days finds, when it is
// well, that the registered domain may still order.
func TestTroubleAfterOrdersUsesNoLimitUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		well := time.Now().Add(4 * day)
		m := &model{}
		m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
			if time.Now().Before(well) {
				return store.Certificate{}, &certs.Taken{Err: &certs.Problem{Status: 500, Detail: "trouble"}}
			}
			return m.good(ctx, name)
		}
		k, stop := run(t, newBooks(), m)
		defer stop()
		k.Want(host(1), true)
		time.Sleep(4*day + 4*time.Hour)
		if s := k.Status(host(1)); s.State != certs.StateValid {
			t.Errorf("four hours after it is well, and %d orders: %+v", m.count(), s)
		}
	})
}
