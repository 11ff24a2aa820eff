package store

import (
	"context"
	"fmt"
	"sync"
)

// declaringAtOnce is how many of a process wait for the lock of what domains there are with a connection in hand. One has
// it; the next is ready when it is given back.
const declaringAtOnce = 3

// queue is where those wait who would wait for a lock that all of them need: before they take a connection, and one of each
// tenant only, so that many requests of one delay nobody else's.
type queue struct {
	turns   chan struct{} // capacity declaringAtOnce; taken in the order of coming
	tenants *places
}

func newQueue() *queue {
	return &queue{turns: make(chan struct{}, declaringAtOnce), tenants: newPlaces(1)}
}

// enter returns when it is a caller's turn, which ends with leave.
func (q *queue) enter(ctx context.Context, tenant string) (leave func(), err error) {
	gone, err := q.tenants.enter(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("wait for other changes of the tenant: %w", err)
	}
	select {
	case q.turns <- struct{}{}:
	case <-ctx.Done():
		gone()
		return nil, fmt.Errorf("wait for other changes: %w", ctx.Err())
	}
	return func() {
		<-q.turns
		gone()
	}, nil
}

// places are those that each tenant has by itself.
type places struct {
	each int

	mu sync.Mutex // guards of, and users of each
	of map[string]*tenantPlaces
}

type tenantPlaces struct {
	taken chan struct{} // capacity each
	users int           // who has one or waits for one
}

func newPlaces(each int) *places { return &places{each: each, of: make(map[string]*tenantPlaces)} }

// enter returns when there is a place for one more of a tenant, which is given back with leave.
func (p *places) enter(ctx context.Context, tenant string) (leave func(), err error) {
	p.mu.Lock()
	t := p.of[tenant]
	if t == nil {
		t = &tenantPlaces{taken: make(chan struct{}, p.each)}
		p.of[tenant] = t
	}
	t.users++
	p.mu.Unlock()
	gone := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(p.of, tenant)
		}
	}
	select {
	case t.taken <- struct{}{}:
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
	return func() {
		<-t.taken
		gone()
	}, nil
}

// queueUp implements database.
func (p *Postgres) queueUp(ctx context.Context, tenant string) (leave func(), err error) {
	return p.queue.enter(ctx, tenant)
}

// queueUp implements database: there is one writer, and reads go beside it.
func (*SQLite) queueUp(context.Context, string) (leave func(), err error) { return func() {}, nil }

// writeAside implements database.
func (p *Postgres) writeAside(ctx context.Context, doing string, f func(context.Context, transaction) error) error {
	return p.transact(ctx, doing, p.soon, p.vital, f)
}

// writeAside implements database: there is one writer.
func (s *SQLite) writeAside(ctx context.Context, doing string, f func(context.Context, transaction) error) error {
	return s.writeSoon(ctx, doing, f)
}
