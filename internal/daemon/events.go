package daemon

import (
	"context"
	"time"
)

const (
	// pruneStep is how many events are looked at in one transaction, and prunePause what others have in between.
	pruneStep  = 1000
	prunePause = 100 * time.Millisecond
)

// prune forgets old events now and then, until ctx ends.
func (d *daemon) prune(ctx context.Context) {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		if err := d.pruneOld(ctx); err != nil && ctx.Err() == nil {
			d.o.Log.Warn("old events not forgotten; the next hour tries again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pruneOld forgets all events that are too old, if this node is the one of all that does it.
func (d *daemon) pruneOld(ctx context.Context) error {
	first, err := d.node.first(ctx)
	if err != nil || !first {
		return err
	}
	now, err := d.store.Now(ctx)
	if err != nil {
		return err
	}
	pause := time.NewTicker(prunePause)
	defer pause.Stop()
	for {
		n, err := d.webhooks.Prune(ctx, now.Add(-d.conf.Store.KeepEvents), pruneStep)
		if err != nil || n == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// first says whether this is the first by name of the nodes that live: the one that does what one of all is to do. For a
// moment it may be two, or none.
func (n *node) first(ctx context.Context) (bool, error) {
	all, err := n.d.store.Nodes(ctx)
	if err != nil {
		return false, err
	}
	for _, other := range all { // by id
		if other.Deregistered.IsZero() && (other.Silent < lostAfter || other.ID == n.id) {
			return other.ID == n.id, nil
		}
	}
	return n.alone, nil
}
