package publish

import (
	"context"
	"time"
)

// ClockMoved lets a test say that the wall clock jumped, which a bubble of testing/synctest cannot.
func ClockMoved(r *Reconciler, ctx context.Context, jump time.Duration) error { //nolint:revive // the receiver is first
	return r.clockMoved(ctx, jump)
}

// Tracks is of how many domains something is remembered in memory.
func Tracks(r *Reconciler) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tracks)
}
