package certs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// Load takes all certificates, what is known of failed orders, and the journal of orders from the store into memory. Call
// it once, before serving. A certificate that does not match its key or name is said in the log and left out, so that it
// is ordered anew when its name is wanted.
func (k *Keeper) Load(ctx context.Context) error {
	last, err := k.store.LastChange(ctx)
	if err != nil {
		return fmt.Errorf("load certificates: %w", err)
	}
	m, err := k.load(ctx)
	if err != nil {
		return err
	}
	k.memory = m
	k.refreshed.Store(last)
	if err := k.limits(ctx); err != nil {
		return err
	}
	orders, err := k.store.Orders(ctx)
	if err != nil {
		return fmt.Errorf("load orders: %w", err)
	}
	if err := k.loadSilences(ctx); err != nil {
		return err
	}
	k.journal.mu.Lock()
	err = k.catchUp(ctx)
	k.journal.mu.Unlock()
	if err != nil {
		return err
	}
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, o := range orders {
		o = timely(o, now)
		i := s.item(o.Name)
		i.failures, i.tried, i.next, i.failing = o.Failures, o.Tried, o.Next, o.Since
		i.problem, i.advice, i.refuser, i.outage = o.Problem, o.Advice, o.Authority, o.Outage
		if i.failures == 0 { // that is no pause: it may turn out to be earlier still
			i.due, i.next = o.Next, time.Time{}
		}
		if known, found := k.memory.find(o.Name); found {
			k.recall(i, known)
		}
	}
	return nil
}

// timely returns an order as it would be had the clock not been ahead when it was kept.
func timely(o store.Order, now time.Time) store.Order {
	if ahead := o.Tried.Sub(now); ahead > clockSlack {
		o.Tried, o.Next = now, o.Next.Add(-ahead)
	}
	if o.Since.After(now) {
		o.Since = now
	}
	if o.Next.After(now.Add(longestRetryAfter)) {
		o.Next = now
	}
	return o
}

// Want has the certificate of a name ordered if there is no valid one, and renewed from now on. Live says that senders look
// for the name already, so that it goes before others that have no certificate; once said it stays until there is one. It
// may be called as often as one likes; it does not shorten the pause after a failed order.
func (k *Keeper) Want(name string, live bool) { k.WantFirst(name, "", live) }

// WantFirst is Want for a name of a tenant, whose limit of orders in a day holds the order of its first certificate; empty:
// nobody's limit does. What was said last counts. A renewal is held by no such limit.
func (k *Keeper) WantFirst(name, tenant string, live bool) {
	name = canonical(name)
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	i := s.items[name]
	known, found := k.memory.find(name)
	if found && !known.wanted {
		k.memory.mark(name, func(i *info) { i.wanted = true })
		known.renew = k.keep(name, known, now).Unix()
	}
	if i == nil && found {
		if known.renew > s.walked.Add(walkEvery+lookAgain).Unix() {
			return // idle: the walk finds it in time
		}
		k.revive(name, now)
		s.notify()
		return
	}
	i = s.item(name)
	i.dropped = false
	moved := i.tenant != tenant
	if moved {
		if i.spent { // what held it is the old one's
			i.due = now
		}
		s.unqueue(i)
		i.tenant = tenant
	}
	if i.wanted && (i.live || !live) && !moved {
		return
	}
	if !i.wanted {
		i.wanted, i.since = true, now
		if found && i.next.IsZero() && i.due.IsZero() { // else it is its turn then, whatever was planned
			i.due = time.Unix(known.renew, 0)
		}
	}
	i.live = i.live || live
	s.put(i, now)
	s.notify()
}

// Unwant has no more orders begun for a name. What is there stays, and is served until its end.
func (k *Keeper) Unwant(name string) {
	name = canonical(name)
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	k.unplan(name)
	k.memory.mark(name, func(i *info) { i.wanted = false })
	if i := s.items[name]; i != nil {
		i.wanted, i.live = false, false
		s.put(i, time.Now())
		k.retire(i)
	}
}

// retire forgets an item that nothing is to be done for. The schedule's lock is held.
func (k *Keeper) retire(i *item) {
	if i.cancel != nil || i.dropped || i.failures > 0 || i.unsaved != nil || k.schedule.items[i.name] != i {
		return
	}
	if i.wanted && (i.notAfter.IsZero() || !i.due.After(k.schedule.walked.Add(walkEvery+lookAgain))) {
		return
	}
	k.schedule.forget(i)
}

// Drop ends a running order for a name, waits for that, and deletes the certificate and its key from memory and store.
// After an error the name is neither served nor ordered; call Drop again to have it deleted.
func (k *Keeper) Drop(ctx context.Context, name string) error {
	name = canonical(name)
	s := &k.schedule
	s.mu.Lock()
	i := s.item(name)
	i.wanted, i.live, i.dropped = false, false, true
	i.notBefore, i.notAfter, i.unsaved = time.Time{}, time.Time{}, nil
	s.put(i, time.Now())
	k.unplan(name)
	k.memory.remove(name)
	cancel, done := i.cancel, i.done
	s.mu.Unlock()

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
		s.forget(i)
	}
	s.mu.Unlock()
	k.tellChange(ctx, name)
	return nil
}

// canonical is the form of a name in memory and store: lower case, no trailing dot.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
