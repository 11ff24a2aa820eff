package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/stspub/stspub/internal/policygen"
)

// LastChange implements [Store].
func (t *tables) LastChange(ctx context.Context) (int64, error) {
	return one(ctx, t, "read the last change", scanNumber, `SELECT last FROM versions`)
}

// queryServedSince finds the texts of domains that changed after $1. Who was deleted since and came back is served by his
// row, if at all.
const queryServedSince = `SELECT name, served FROM domains WHERE change > $1 AND publish <> '` + PublishWildcard + `'
	UNION ALL SELECT name, '' FROM dropped_domains WHERE change > $1 AND NOT EXISTS (
		SELECT 1 FROM domains WHERE domains.name = dropped_domains.name AND served <> '')`

// upTo returns the last change for who asks for those after one. What is written after it is shown again the next time.
func (t *tables) upTo(ctx context.Context, after int64) (int64, error) {
	last, err := t.LastChange(ctx)
	if err == nil && after > last {
		err = fmt.Errorf("read what changed after %d: the store is at %d, so it is another one or was restored: %w", after, last, ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	return last, nil
}

// ServedSince implements [Store].
func (t *tables) ServedSince(ctx context.Context, after int64, f func(name policygen.Name, text string) error) (int64, error) {
	last, err := t.upTo(ctx, after)
	if err != nil || last == after {
		return last, err
	}
	type served struct {
		name policygen.Name
		text string
	}
	scan := func(r row) (s served, err error) {
		err = r.Scan(&s.name, &s.text)
		return s, err
	}
	err = stream(ctx, t, "read what domains are served anew", scan, func(s served) error { return f(s.name, s.text) },
		queryServedSince, after)
	if err != nil {
		return 0, err
	}
	return last, nil
}

// notice wakes those that wait for a change in this process.
type notice struct {
	mu   sync.Mutex // guards news
	news chan struct{}
}

// next is closed at the next change.
func (n *notice) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.news == nil {
		n.news = make(chan struct{})
	}
	return n.news
}

func (n *notice) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.news != nil {
		close(n.news)
		n.news = nil
	}
}

// Wait implements [Store].
func (s *SQLite) Wait(ctx context.Context, after int64) error {
	for {
		news := s.changed.next()
		if last, err := s.LastChange(ctx); err != nil || last > after {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("wait for a change: %w", ctx.Err())
		}
	}
}
