package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/stspub/stspub/internal/policygen"
)

// LastChange implements [Store].
func (t *tables) LastChange(ctx context.Context) (int64, error) {
	last, err := t.lastChange(ctx)
	return last.number, err
}

// lastChange is the number of the last change, and up to which one it is not known any more what was deleted.
type lastChange struct{ number, dropped int64 }

func (t *tables) lastChange(ctx context.Context) (lastChange, error) {
	scan := func(r row) (l lastChange, err error) {
		err = r.Scan(&l.number, &l.dropped)
		return l, err
	}
	return one(vital(ctx), t, "read the last change", scan, `SELECT last, dropped FROM versions`)
}

// queryServedSince finds the texts of domains that changed after $1. Who was deleted since and came back is served by his
// row, if at all.
const queryServedSince = `SELECT name, served FROM domains WHERE change > $1 AND publish <> '` + PublishWildcard + `'
	UNION ALL SELECT name, served FROM turns JOIN domains ON change = -turn WHERE number > $1
	UNION ALL SELECT name, '' FROM dropped_domains WHERE change > $1 AND NOT EXISTS (
		SELECT 1 FROM domains WHERE domains.name = dropped_domains.name AND served <> '')`

// upTo returns the last change for who asks for those after one. What is written after it is shown again the next time.
func (t *tables) upTo(ctx context.Context, after int64) (int64, error) {
	last, err := t.lastChange(ctx)
	switch {
	case err != nil:
		return 0, err
	case after > last.number:
		return 0, fmt.Errorf("read what changed after %d: the store is at %d, so it is another one or was restored: %w",
			after, last.number, ErrNotFound)
	case after < last.dropped:
		return 0, fmt.Errorf("read what changed after %d: what was deleted is known from %d on: %w", after, last.dropped, ErrNotFound)
	}
	return last.number, nil
}

// changedAfter calls read for who asks for what changed after a number, and returns the number to ask with next. What was
// deleted may be forgotten meanwhile, for the sake of nodes that count; then the answer is not whole.
func (t *tables) changedAfter(ctx context.Context, after int64, read func() error) (int64, error) {
	last, err := t.upTo(ctx, after)
	if err != nil || last == after {
		return last, err
	}
	if err := read(); err != nil {
		return 0, err
	}
	if _, err := t.upTo(ctx, after); err != nil {
		return 0, err
	}
	return last, nil
}

// PruneDropped implements [Store].
func (t *tables) PruneDropped(ctx context.Context) error {
	return t.db.write(ctx, "forget what was deleted", func(ctx context.Context, tx transaction) error {
		if _, err := tx.exec(ctx, queryPruneTurns); err != nil {
			return err
		}
		return pruneDropped(ctx, tx)
	})
}

// pruneDropped forgets the names of deleted domains and certificates that all nodes know, and those of certificates that no
// copy holds any more. It comes last in its transaction.
func pruneDropped(ctx context.Context, tx transaction) error {
	var known, copied, domains, certificates int64
	// Who begins to read everything has said so by a first beat, with the number 0.
	if err := tx.get(ctx, `SELECT coalesce((SELECT min(acknowledged) FROM nodes WHERE deregistered = 0), 0),
		coalesce((SELECT min(change) FROM certificate_marks), last) FROM versions`, nil, &known, &copied); err != nil {
		return err
	}
	copied = min(copied, known)
	if err := tx.get(ctx, `SELECT coalesce((SELECT max(change) FROM dropped_domains WHERE change <= $1), 0),
		coalesce((SELECT max(change) FROM dropped_certificates WHERE change <= $2), 0)`, []any{known, copied}, &domains, &certificates); err != nil {
		return err
	}
	dropped := max(domains, certificates)
	if dropped == 0 {
		return nil
	}
	if _, err := tx.exec(ctx, `DELETE FROM dropped_domains WHERE change <= $1`, domains); err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `DELETE FROM dropped_certificates WHERE change <= $1`, certificates); err != nil {
		return err
	}
	return tx.last(ctx, `UPDATE versions SET dropped = CAST($1 AS BIGINT) WHERE dropped < $1`, dropped)
}

// ServedSince implements [Store].
func (t *tables) ServedSince(ctx context.Context, after int64, f func(name policygen.Name, text string) error) (int64, error) {
	type served struct {
		name policygen.Name
		text string
	}
	scan := func(r row) (s served, err error) {
		err = r.Scan(&s.name, &s.text)
		return s, err
	}
	return t.changedAfter(ctx, after, func() error {
		return stream(ctx, t, "read what domains are served anew", scan, func(s served) error { return f(s.name, s.text) },
			queryServedSince, after)
	})
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
