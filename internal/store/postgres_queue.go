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
	turns chan struct{} // capacity declaringAtOnce; taken in the order of coming

	mu      sync.Mutex // guards tenants, and users of each
	tenants map[string]*tenantTurn
}

type tenantTurn struct {
	slot  chan struct{} // capacity 1
	users int           // who has it or waits for it
}

func newQueue() *queue {
	return &queue{turns: make(chan struct{}, declaringAtOnce), tenants: make(map[string]*tenantTurn)}
}

// enter returns when it is a caller's turn, which ends with leave.
func (q *queue) enter(ctx context.Context, tenant string) (leave func(), err error) {
	q.mu.Lock()
	t := q.tenants[tenant]
	if t == nil {
		t = &tenantTurn{slot: make(chan struct{}, 1)}
		q.tenants[tenant] = t
	}
	t.users++
	q.mu.Unlock()
	gone := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(q.tenants, tenant)
		}
	}
	select {
	case t.slot <- struct{}{}:
	case <-ctx.Done():
		gone()
		return nil, fmt.Errorf("wait for other changes of the tenant: %w", ctx.Err())
	}
	select {
	case q.turns <- struct{}{}:
	case <-ctx.Done():
		<-t.slot
		gone()
		return nil, fmt.Errorf("wait for other changes: %w", ctx.Err())
	}
	return func() {
		<-q.turns
		<-t.slot
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
	return p.transact(ctx, doing, p.soon, p.aside, f)
}

// writeAside implements database: there is one writer.
func (s *SQLite) writeAside(ctx context.Context, doing string, f func(context.Context, transaction) error) error {
	return s.writeSoon(ctx, doing, f)
}
