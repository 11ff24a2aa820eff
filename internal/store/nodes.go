package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Node is one process of several on one store.
type Node struct {
	ID           string // of its own, and the same after a restart
	Address      string // where the others reach its public listener, "ADDR:PORT"
	Acknowledged int64  // it serves all changes up to this number of LastChange

	// The store's, by its clock.
	Started      time.Time
	Heartbeat    time.Time
	Silent       time.Duration // since Heartbeat
	Deregistered time.Time     // zero: it is not
}

// forsaken is for how long the process that has a node's id may say nothing before another one of that id that lives takes
// it, in microseconds. What it had begun to write then is over.
const forsaken = int64(time.Minute / time.Microsecond)

// predecessor is the process that beat for a node before this one. What it had begun to write when it was killed may be
// committed later, so for a while each beat ends its claims.
type predecessor struct {
	holder string // "": there was none
	since  int64  // when it was noticed, in microseconds
}

// Beat implements [Store].
func (t *tables) Beat(ctx context.Context, n Node) error {
	t.mu.Lock()
	began, acked, former := t.node != n.ID, t.acked, t.former
	t.mu.Unlock()
	err := t.db.writeAside(ctx, fmt.Sprintf("say that node %q lives", n.ID), func(ctx context.Context, tx transaction) error {
		if n.ID == "" {
			return errors.New("it has no id: give each node its own")
		}
		now, err := tx.now(ctx)
		if err != nil {
			return err
		}
		old, err := holders(ctx, tx, n.ID)
		if err != nil {
			return err
		}
		if !began && acked > 0 && (len(old) == 0 || old[0].acknowledged < acked) {
			return ErrPutBack
		}
		if now-former.since > forsaken {
			former = predecessor{}
		} else if err := release(ctx, tx, former.holder); err != nil {
			return err
		}
		for _, holder := range old {
			switch {
			case holder.id == t.holder:
			case began, holder.deregistered > 0, now-holder.heartbeat > forsaken: // the process before this one is gone
				if err := release(ctx, tx, holder.id); err != nil {
					return err
				}
				former = predecessor{holder: holder.id, since: now}
			default:
				return fmt.Errorf("%w: another process took over its id; give each node its own", ErrLocked)
			}
		}
		_, err = tx.exec(ctx, `INSERT INTO nodes (id, holder, address, started, heartbeat, acknowledged, keys)
			VALUES ($1, $2, $3, $4, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET address = excluded.address, keys = excluded.keys,
			started = CASE WHEN nodes.holder = excluded.holder THEN nodes.started ELSE excluded.started END,
			holder = excluded.holder, heartbeat = excluded.heartbeat, acknowledged = excluded.acknowledged, deregistered = 0`,
			n.ID, t.holder, n.Address, now, n.Acknowledged, keysOf(t.ring))
		return err
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.node, t.acked, t.former = n.ID, n.Acknowledged, former
	case errors.Is(err, ErrPutBack):
		t.acked = 0
	}
	return err
}

// nodeHolder is the opening of the store that beats for a node, and when it did last.
type nodeHolder struct {
	id                                    string
	heartbeat, deregistered, acknowledged int64
}

// holders returns who beats for a node: one or nobody.
func holders(ctx context.Context, tx transaction, id string) ([]nodeHolder, error) {
	var all []nodeHolder
	err := tx.query(ctx, func(r row) error {
		var h nodeHolder
		err := r.Scan(&h.id, &h.heartbeat, &h.deregistered, &h.acknowledged)
		all = append(all, h)
		return err
	}, tx.locking(`SELECT holder, heartbeat, deregistered, acknowledged FROM nodes WHERE id = $1`, "FOR UPDATE"), id)
	return all, err
}

// Nodes implements [Store].
func (t *tables) Nodes(ctx context.Context) ([]Node, error) {
	const doing = "read nodes"
	var nodes []Node
	err := t.db.writeAside(ctx, doing, func(ctx context.Context, tx transaction) error { // for its clock
		nodes = nil
		now, err := tx.now(ctx)
		if err != nil {
			return err
		}
		return tx.query(ctx, func(r row) error {
			var n Node
			err := r.Scan(&n.ID, &n.Address, stamp{&n.Started}, stamp{&n.Heartbeat}, &n.Acknowledged, stamp{&n.Deregistered})
			n.Silent = max(fromMicros(now).Sub(n.Heartbeat), 0)
			nodes = append(nodes, n)
			return err
		}, `SELECT id, address, started, heartbeat, acknowledged, deregistered FROM nodes ORDER BY id`)
	})
	if err != nil {
		return nil, err
	}
	return nodes, nil
}

// Deregister implements [Store].
func (t *tables) Deregister(ctx context.Context, id string) error {
	actor := actorOf(ctx)
	t.mu.Lock()
	own := t.node == id
	t.mu.Unlock()
	return t.db.writeSoon(ctx, fmt.Sprintf("deregister node %q", id), func(ctx context.Context, tx transaction) error {
		now, err := tx.now(ctx)
		if err != nil {
			return err
		}
		old, err := holders(ctx, tx, id)
		if err != nil {
			return err
		}
		if len(old) == 0 {
			return ErrNotFound
		}
		if own && old[0].id != t.holder {
			return fmt.Errorf("%w: another process took over its id", ErrLocked)
		}
		if err := release(ctx, tx, old[0].id); err != nil {
			return err
		}
		gone, err := tx.exec(ctx, `UPDATE nodes SET deregistered = $1 WHERE id = $2 AND deregistered = 0`, now, id)
		if err != nil || gone == 0 {
			return err
		}
		told := diary{actor: actor, at: fromMicros(now)}
		told.note("", KindNodeGone, id, "nobody waits for it any more", nil, nil)
		return told.record(ctx, tx)
	})
}

// Now implements [Store].
func (t *tables) Now(ctx context.Context) (time.Time, error) {
	var now time.Time
	err := t.db.writeAside(ctx, "ask for the time", func(ctx context.Context, tx transaction) error {
		at, err := tx.now(ctx)
		now = fromMicros(at)
		return err
	})
	return now, err
}

// everybody stands for all holders.
const everybody = "*"

// queryRelease ends claims: what was claimed is due as it was then.
const queryRelease = `UPDATE domains SET due = claimed, claimed = 0, woken = FALSE
	WHERE claimed <> 0 AND (holder = $1 OR CAST($1 AS TEXT) = '*')`

const queryReleaseWebhooks = `UPDATE webhooks SET leased = 0 WHERE leased > 0 AND (holder = $1 OR CAST($1 AS TEXT) = '*')`

// release ends the claims and orders of a holder who is gone. Nobody knows how the orders went.
func release(ctx context.Context, tx transaction, holder string) error {
	for _, query := range []string{queryRelease, queryReleaseWebhooks} {
		if _, err := tx.exec(ctx, query, holder); err != nil {
			return err
		}
	}
	const running = ` FROM journal WHERE ended = 0 AND (holder = $1 OR CAST($1 AS TEXT) = '*')`
	var some bool
	if err := tx.get(ctx, `SELECT EXISTS (SELECT 1`+running+`)`, []any{holder}, &some); err != nil || !some {
		return err
	}
	change, err := tx.nextChange(ctx)
	if err == nil {
		_, err = tx.exec(ctx, `UPDATE journal SET ended = begun, failed = TRUE, changed = $2 WHERE seq IN (SELECT seq`+running+`)`,
			holder, change)
	}
	return err
}

// release is for a store that is opened or closed.
func (t *tables) release(ctx context.Context, holder string) error {
	return t.db.write(ctx, "", func(ctx context.Context, tx transaction) error { return release(ctx, tx, holder) })
}

// Ping implements [Store]. It locks what nobody else waits for: a node may be cut off in the middle of it.
func (t *tables) Ping(ctx context.Context) error {
	return t.db.write(ctx, "write to store", func(ctx context.Context, tx transaction) error {
		_, err := tx.exec(ctx, `UPDATE nodes SET heartbeat = heartbeat WHERE holder = $1`, t.holder)
		return err
	})
}
