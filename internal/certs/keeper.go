package certs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// State is how it stands with the certificate of a name.
type State string

// The states.
const (
	StateNone     State = "none"     // no certificate, and nobody wants one
	StateOrdering State = "ordering" // wanted, and its first order is queued or running
	StateValid    State = "valid"    // there is one, and it is valid now
	StateFailing  State = "failing"  // wanted, there is none, and the last order failed
	StateExpired  State = "expired"  // there is one, and it is not valid now
)

// Status is what an operator is told of one name.
type Status struct {
	State    State
	NotAfter time.Time // end of the certificate; zero: there is none
	Problem  string    // why the last order failed, in the authority's words; empty: it did not. Also of a valid one.
	NextTry  time.Time // when it is ordered or renewed next, maybe in the past while it is queued; zero: not at all
}

// item is what the scheduler knows of one name. The schedule's lock guards it.
type item struct {
	name                string
	wanted              bool
	dropped             bool      // being deleted: nothing may be saved any more
	since               time.Time // wanted since
	notBefore, notAfter time.Time // of the certificate; zero: none

	failures int
	tried    time.Time // last order
	next     time.Time // no order before
	problem  string
	unsaved  *store.Certificate // obtained, and the store did not take it

	due    time.Time          // when it is ordered next, while it is queued
	queue  *queue             // nil: not queued
	index  int                // in queue
	cancel context.CancelFunc // ends the running order; nil: none runs
	done   chan struct{}      // closed when the running order has ended
}

// valid says whether the certificate is valid at a time.
func (i *item) valid(now time.Time) bool {
	return !i.notAfter.IsZero() && !now.Before(i.notBefore) && !now.After(i.notAfter)
}

func (i *item) status(now time.Time) Status {
	s := Status{State: StateNone, NotAfter: i.notAfter, Problem: i.problem}
	switch {
	case i.valid(now):
		s.State = StateValid
	case !i.notAfter.IsZero():
		s.State = StateExpired
	case !i.wanted:
	case i.failures > 0:
		s.State = StateFailing
	default:
		s.State = StateOrdering
	}
	if i.wanted {
		s.NextTry = i.dueAt()
	}
	return s
}

// Load takes all certificates, and what is known of failed orders, from the store into memory. Call it once, before
// serving. A certificate that does not match its key or name is said in the log and left out, so that it is ordered
// anew when its name is wanted.
func (k *Keeper) Load(ctx context.Context) error {
	s := &k.schedule
	m, err := k.load(ctx)
	if err != nil {
		return err
	}
	k.memory = m
	m.each(func(name []byte, c info) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		i := s.item(string(name))
		i.notBefore, i.notAfter = time.Unix(c.notBefore, 0), time.Unix(c.notAfter, 0)
		return true
	})
	orders, err := k.store.Orders(ctx)
	if err != nil {
		return fmt.Errorf("load orders: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range orders {
		i := s.item(o.Name)
		i.failures, i.tried, i.next, i.problem = o.Failures, o.Tried, o.Next, o.Problem
	}
	return nil
}

// Want has the certificate of a name ordered soon if there is no valid one, and renewed from now on. It may be called
// as often as one likes; it does not shorten the pause after a failed order.
func (k *Keeper) Want(name string) {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.item(canonical(name))
	i.dropped = false
	if i.wanted {
		return
	}
	i.wanted, i.since = true, time.Now()
	s.put(i)
	s.notify()
}

// Unwant has no more orders begun for a name. What is there stays, and is served until its end.
func (k *Keeper) Unwant(name string) {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.items[canonical(name)]; i != nil {
		i.wanted = false
		s.put(i)
	}
}

// Drop ends a running order for a name, waits for that, and deletes the certificate and its key from memory and store.
// After an error the name is neither served nor ordered; call Drop again to have it deleted.
func (k *Keeper) Drop(ctx context.Context, name string) error {
	name = canonical(name)
	s := &k.schedule
	s.mu.Lock()
	i := s.item(name)
	i.wanted, i.dropped = false, true
	i.notBefore, i.notAfter, i.unsaved = time.Time{}, time.Time{}, nil
	s.put(i)
	cancel, done := i.cancel, i.done
	s.mu.Unlock()

	k.memory.remove(name)
	if cancel != nil {
		cancel()
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("drop certificate of %q: wait for its order: %w", name, ctx.Err())
		}
	}
	if err := k.store.DeleteCertificate(ctx, name); err != nil {
		return err
	}
	s.mu.Lock()
	if i.dropped && s.items[name] == i {
		delete(s.items, name)
	}
	s.mu.Unlock()
	k.onChange(name)
	return nil
}

// Status says how it stands with a name.
func (k *Keeper) Status(name string) Status {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.items[canonical(name)]
	if i == nil {
		return Status{State: StateNone}
	}
	return i.status(time.Now())
}

// canonical is the form of a name in memory and store: lower case, no trailing dot.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
