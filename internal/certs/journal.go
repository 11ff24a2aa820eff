package certs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	// leaseTime is how long an order of another process is believed to run that never ended: longer than any does.
	leaseTime = orderTimeout + saveTimeout + time.Minute
	// maxSkew is how far the clocks of two processes may be apart.
	maxSkew = 15 * time.Minute
	// keepExempt is how long orders are kept in the journal that count for failures alone.
	keepExempt = 2 * failurePeriod
)

// journal enters orders in the store before they are sent. All processes on the store see the same journal, and one
// appends only to what it has read: so none orders a name that another is ordering, and budgets hold for all together.
type journal struct {
	store Store

	mu      sync.Mutex // guards what follows; one order is entered at a time. It is taken before the schedule's.
	last    int64      // newest entry that was read or appended
	changed int64      // newest change that was read
	heard   time.Time  // when something of others was read last
	own     map[int64]bool
	others  map[int64]foreignOrder // running
}

// foreignOrder is an order of another process, which may have another clock.
type foreignOrder struct {
	store.JournalEntry
	seen time.Time // when it was read first
}

// end is when it cannot run any more.
func (f foreignOrder) end() time.Time {
	from := f.seen
	if old := f.Begun.Add(maxSkew); old.Before(from) {
		from = old
	}
	return from.Add(leaseTime)
}

func (j *journal) init(s Store) {
	j.store, j.own, j.others = s, make(map[int64]bool), make(map[int64]foreignOrder)
}

// read takes in what was written since, and calls f for what others wrote, with what was known of it; Seq 0: nothing.
func (j *journal) read(ctx context.Context, f func(e, before store.JournalEntry)) error {
	entries, err := j.store.Journal(ctx, j.changed)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, e := range entries {
		e = current(e, now)
		j.changed, j.last = max(j.changed, e.Changed), max(j.last, e.Seq)
		if j.own[e.Seq] {
			if !e.Ended.IsZero() {
				delete(j.own, e.Seq)
			}
			continue
		}
		known, ran := j.others[e.Seq]
		f(e, known.JournalEntry)
		if !ran {
			known.seen = time.Now()
		}
		if e.Ended.IsZero() {
			j.others[e.Seq] = foreignOrder{e, known.seen}
		} else {
			delete(j.others, e.Seq)
		}
	}
	return nil
}

// current returns an entry as it would be had the clock that wrote it not been ahead.
func current(e store.JournalEntry, now time.Time) store.JournalEntry {
	ahead := latest(e.Begun, e.Ended).Sub(now)
	if ahead <= clockSlack {
		return e
	}
	if e.Begun = e.Begun.Add(-ahead); !e.Ended.IsZero() {
		e.Ended = e.Ended.Add(-ahead)
	}
	if !e.Stopped.IsZero() {
		e.Stopped = e.Stopped.Add(-ahead)
	}
	return e
}

// leased is until when another process may be ordering a name; zero: none is.
func (j *journal) leased(name string, now time.Time) time.Time {
	j.forget(now)
	var until time.Time
	for _, e := range j.others {
		if e.Name == name {
			until = latest(until, e.end())
		}
	}
	return until
}

// forget takes orders for ended that cannot run any more.
func (j *journal) forget(now time.Time) {
	maps.DeleteFunc(j.others, func(_ int64, e foreignOrder) bool { return e.end().Before(now) })
}

// errLater says that an order was not sent, and when to look again. It is no failure.
type errLater struct {
	until     time.Time
	why       string
	elsewhere bool // another process orders the name
}

// Error gives the reason.
func (e *errLater) Error() string { return e.why }

// errNewer says that another process has obtained a certificate.
var errNewer = errors.New("there is a newer certificate in the store")

// enter writes an order into the journal, or says why it must not be sent: an [*errLater], errNewer with the certificate,
// or what is wrong with the store.
func (k *Keeper) enter(ctx context.Context, i *item, t turn) (store.JournalEntry, store.Certificate, error) {
	l, c, begun := t.line, t.claim, t.begun
	e := store.JournalEntry{Authority: l.authority.Name(), Name: c.name, Domain: c.domain, Begun: begun, Exempt: c.exempt, Tenant: c.tenant}
	j := &k.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		if err := k.catchUp(ctx); err != nil {
			return e, store.Certificate{}, err
		}
		if len(j.others) > 0 {
			poke(k.schedule.awaits)
		}
		now := time.Now()
		if until := j.leased(c.name, now); !until.IsZero() {
			return e, store.Certificate{}, &errLater{until: until, why: waitsElsewhere, elsewhere: true}
		}
		if !j.heard.Before(begun) && k.exceeds(l, c, now) {
			return e, store.Certificate{}, &errLater{until: now, why: "another node used the budget up"}
		}
		newer, err := k.newer(ctx, i.name, t.had, now)
		if err != nil {
			return e, newer, err
		}
		err = j.store.AppendJournal(ctx, j.last, &e)
		if err == nil {
			j.last, j.own[e.Seq] = e.Seq, true
		}
		if !errors.Is(err, store.ErrStale) {
			return e, newer, err
		}
	}
}

// catchUp counts what other processes did since it was called last. The journal's lock is held.
func (k *Keeper) catchUp(ctx context.Context) error {
	err := k.journal.read(ctx, func(e, before store.JournalEntry) {
		k.journal.heard = time.Now()
		k.schedule.mu.Lock()
		defer k.schedule.mu.Unlock()
		k.schedule.replay(e, before)
		for _, l := range k.schedule.lines {
			if l.authority.Name() == e.Authority {
				l.budget.replay(e, before, time.Now())
			}
		}
	})
	if err != nil {
		return fmt.Errorf("read the journal of orders: %w", err)
	}
	return nil
}

// exceeds says that an order which is counted already is too many.
func (k *Keeper) exceeds(l *line, c claim, now time.Time) bool {
	k.schedule.mu.Lock()
	defer k.schedule.mu.Unlock()
	return l.budget.opens(now).After(now) || l.budget.exceeded(now, c) || k.schedule.overspent(now, c)
}

// newer returns a certificate of the store that is valid and ends later than the one that was in memory when the order began,
// with errNewer. Memory may have it by now.
func (k *Keeper) newer(ctx context.Context, name string, had int64, now time.Time) (store.Certificate, error) {
	c, err := k.store.Certificate(ctx, name)
	if _, damaged := errors.AsType[*store.DamagedError](err); damaged || errors.Is(err, store.ErrNotFound) {
		return store.Certificate{}, nil
	}
	if err != nil {
		return c, err
	}
	if c.NotAfter.Unix() <= had || had == 0 && !c.NotAfter.After(now) {
		return c, nil
	}
	if _, err := k.memory.pack(c); err != nil {
		return c, nil //nolint:nilerr // it cannot be served, so another is needed
	}
	return c, errNewer
}

// end writes how an order ended, also while we are stopping.
func (k *Keeper) end(ctx context.Context, e store.JournalEntry) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if err := k.store.EndJournal(ctx, e); err != nil {
		k.log.Error("did not keep how an order ended", "domain", e.Name, "err", err)
	}
}

// prune deletes from the journal what counts for nothing any more.
func (k *Keeper) prune(ctx context.Context, now time.Time) {
	longest := tenantPeriod
	for _, l := range k.schedule.lines {
		longest = max(longest, l.budget.limits.OrdersPeriod, l.budget.limits.DomainPeriod, keepExempt)
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := k.store.PruneJournal(ctx, now.Add(-longest), now.Add(-keepExempt), now); err != nil && ctx.Err() == nil {
		k.log.Error("did not prune the journal of orders", "err", err)
	}
}
