package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// groupSize is how many writes share a commit at most.
const groupSize = 256

// group has small writes that come at the same time share a commit, because a commit waits for the disk and the writes
// do not. One that comes while none is under way goes at once, alone; those that come meanwhile go together afterwards.
type group struct {
	store *SQLite

	mu      sync.Mutex // guards the fields below, and begun of each write
	busy    bool       // a goroutine makes writes
	waiting []*groupWrite
}

// groupWrite is a write and who waits for it.
type groupWrite struct {
	ctx   context.Context
	doing string
	f     func(context.Context, transaction) error
	begun bool
	done  chan struct{}
	err   error // set before done is closed
}

// write is as [SQLite.write]. f is called again if something else in its group fails, and must not wait.
func (g *group) write(ctx context.Context, doing string, f func(context.Context, transaction) error) error {
	w := &groupWrite{ctx: ctx, doing: doing, f: f, done: make(chan struct{})}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	if !g.busy {
		g.busy = true
		go g.run() // ends when nobody waits
	}
	g.mu.Unlock()
	select {
	case <-w.done:
	case <-ctx.Done():
		if g.leave(w) {
			return fmt.Errorf("%s: %w", doing, ctx.Err())
		}
		<-w.done
	}
	return w.err
}

// leave takes back a write that has not begun.
func (g *group) leave(w *groupWrite) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !w.begun {
		g.waiting = slices.DeleteFunc(g.waiting, func(other *groupWrite) bool { return other == w })
	}
	return !w.begun
}

// next takes the next writes, first come, first served.
func (g *group) next() []*groupWrite {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), groupSize)
	ws := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	for _, w := range ws {
		w.begun = true
	}
	g.busy = n > 0
	return ws
}

func (g *group) run() {
	for {
		ws := g.next()
		if len(ws) == 0 {
			return
		}
		if len(ws) == 1 || g.together(ws) != nil {
			// What fails is not to take the others with it, and each error is to be told of its own write.
			for _, w := range ws {
				w.err = g.store.write(w.ctx, w.doing, w.f)
			}
		}
		for _, w := range ws {
			close(w.done)
		}
	}
}

// together makes all of the writes or none. It goes on when one of the callers gives up: SQLite would roll back them all.
func (g *group) together(ws []*groupWrite) error {
	ctx := context.Background()
	return g.store.write(ctx, "write", func(ctx context.Context, tx transaction) error {
		for _, w := range ws {
			if err := w.f(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
}
