package dnsupdate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// batches is the backend of a provider that takes several changes of one zone in one request. A call that finds its zone
// idle goes out at once, alone. The calls that come while a request is under way wait for its end, and then go together.
// So nobody waits for company, and the requests grow with the load.
type batches struct {
	guard *guard
	size  int // changes in one request, at most
	// do makes changes of one zone and of different names. It returns a result for each, and keeps to the deadline of ctx.
	do func(ctx context.Context, cs []Change) []error

	mu sync.Mutex // guards waiting, and the batch of each call
	// waiting has the zones that a request is under way for, and who waits for its end.
	waiting map[string][]*call
}

// call is a change and who waits for it.
type call struct {
	ctx    context.Context
	change Change
	batch  *batch // nil: it waits
	done   chan struct{}
	err    error // set before done is closed
}

// batch is what is under way for a zone.
type batch struct {
	cancel context.CancelFunc
	stay   int // callers that have not given up
}

func newBatches(g *guard, size int, do func(ctx context.Context, cs []Change) []error) *batches {
	g.batch = size
	return &batches{guard: g, size: size, do: do, waiting: make(map[string][]*call)}
}

// apply implements backend. The guard lets one change of a name in at a time.
func (b *batches) apply(ctx context.Context, c Change) error {
	k := &call{ctx: ctx, change: c, done: make(chan struct{})}
	b.mu.Lock()
	calls, busy := b.waiting[c.Zone]
	b.waiting[c.Zone] = append(calls, k)
	b.mu.Unlock()
	if !busy {
		go b.run(c.Zone) // ends when nobody waits for the zone
	}
	select {
	case <-k.done:
		return k.err
	case <-ctx.Done():
		return b.leave(k)
	}
}

// leave is for a caller who gives up. What is under way goes on for the others. The next change of the name comes after
// it all the same, as its zone has one request at a time.
func (b *batches) leave(k *call) error {
	b.mu.Lock()
	if k.batch == nil {
		b.waiting[k.change.Zone] = slices.DeleteFunc(b.waiting[k.change.Zone], func(other *call) bool { return other == k })
		b.mu.Unlock()
		return k.ctx.Err()
	}
	k.batch.stay--
	last := k.batch.stay == 0
	b.mu.Unlock()
	if last {
		k.batch.cancel()
		<-k.done
		return k.err
	}
	return writing(k.ctx.Err())
}

// run makes the changes of a zone, batch after batch, until nobody waits.
func (b *batches) run(zone string) {
	var took time.Duration // by the last batch
	for {
		calls, ctx := b.next(zone, took)
		if calls == nil {
			return
		}
		changes := make([]Change, len(calls))
		for i, k := range calls {
			changes[i] = k.change
		}
		start := time.Now()
		errs := b.attempt(ctx, changes)
		took = time.Since(start)
		calls[0].batch.cancel()
		for i, k := range calls {
			k.err = errs[i]
			close(k.done)
		}
	}
}

// attempt survives a provider that panics.
func (b *batches) attempt(ctx context.Context, cs []Change) (errs []error) {
	defer func() {
		if err := b.guard.survived(recover(), cs[0].Zone); err != nil {
			errs = slices.Repeat([]error{err}, len(cs))
		}
	}()
	return b.do(ctx, cs)
}

// next takes the calls of the next batch, first come, first served; nil: nobody waits. The batch ends with the first
// deadline in it, so whoever would hardly live through it is sent away and does not spoil it for the others.
func (b *batches) next(zone string, took time.Duration) ([]*call, context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.waiting[zone]
	deadline := time.Now().Add(callTimeout)
	var calls []*call
	for len(all) > 0 && len(calls) < b.size {
		k := all[0]
		all = all[1:]
		until, ok := k.ctx.Deadline()
		if ok && time.Until(until) < took {
			k.err = limited(took*time.Duration(1+len(all)/b.size), errors.New("too many changes are waiting"))
			close(k.done)
			continue
		}
		if ok && until.Before(deadline) {
			deadline = until
		}
		calls = append(calls, k)
	}
	if calls == nil {
		delete(b.waiting, zone)
		return nil, nil
	}
	b.waiting[zone] = slices.Clone(all)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	group := &batch{cancel: cancel, stay: len(calls)}
	for _, k := range calls {
		k.batch = group
	}
	return calls, ctx
}
