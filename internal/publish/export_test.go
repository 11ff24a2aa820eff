package publish

import (
	"context"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// ClockMoved lets a test say that the wall clock jumped, which a bubble of testing/synctest cannot.
func ClockMoved(r *Reconciler, ctx context.Context, jump time.Duration) error { //nolint:revive // the receiver is first
	return r.clockMoved(ctx, jump)
}

// KeepReport lets a test take the steps of a TLSRPT record one by one.
func KeepReport(r *Reconciler, ctx context.Context, d *store.Domain) error { //nolint:revive // the receiver is first
	if _, err := r.keepReport(ctx, r.settings.Load(), d); err != nil {
		return err
	}
	return r.save(ctx, d)
}

// Tracks is of how many domains something is remembered in memory.
func Tracks(r *Reconciler) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tracks)
}
