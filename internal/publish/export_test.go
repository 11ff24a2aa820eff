package publish

import (
	"context"
	"time"
)

// ClockMoved lets a test say that the wall clock jumped, which a bubble of testing/synctest cannot.
func ClockMoved(r *Reconciler, ctx context.Context, jump time.Duration) error { //nolint:revive // the receiver is first
	return r.clockMoved(ctx, jump)
}
