package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// serve puts a committed text before the senders.
func (r *Reconciler) serve(ctx context.Context, d store.Domain) error {
	r.mu.Lock()
	t := r.track(d.Name)
	t.live, t.said = time.Time{}, make(map[string]bool)
	r.mu.Unlock()
	if err := r.serveStored(ctx, &d); err != nil {
		return err
	}
	r.tell(d.Name, "serve", "the new policy is served; no sender is told yet")
	r.cfg.Log.Info("serving a new policy", "domain", d.Name)
	return nil
}

// serveStored puts before the senders what the store holds now. Another pass may have committed another text since, and
// one that ended between its commit and this is made up for at the next look.
func (r *Reconciler) serveStored(ctx context.Context, d *store.Domain) error {
	r.serving.Lock()
	defer r.serving.Unlock()
	var news bool
	var err error
	if d.Publish == store.PublishWildcard {
		news, err = r.serveShared(ctx, *d)
	} else {
		var now store.Domain
		if now, err = r.cfg.Store.Domain(ctx, d.Name); err == nil || errors.Is(err, store.ErrNotFound) {
			news, err = r.cfg.Snapshot.Set(d.Name, now.State.Served), nil
		}
	}
	if news {
		r.liveFor(d, false)
	}
	return err
}

// serveShared puts the texts of a shared record's domains before the senders, as the store has them. It says whether that
// was news. r.serving is held.
func (r *Reconciler) serveShared(ctx context.Context, record store.Domain) (bool, error) {
	news := false
	err := r.cfg.Store.EachShared(ctx, record.Tenant, record.MXSet, func(d store.Domain) error {
		if r.cfg.Snapshot.Set(d.Name, d.State.Served) {
			news = true
			r.interrupt(d.Name)
		}
		return nil
	})
	if err != nil {
		return news, fmt.Errorf("serve the policy of %s: %w", record.Name, err)
	}
	return news, nil
}
