package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// What holds drains and deletions until an operator confirms, as kept in the store.
const (
	keyClock   = "publish/clock"  // the latest time seen, RFC 3339
	keyHold    = "publish/hold"   // why drains and deletions are held
	clockKept  = 10 * time.Minute // how often the time is kept
	clockEvery = 30 * time.Second // how often the clock is looked at
	jumpLive   = time.Hour        // a jump that counts, running
	jumpStart  = 24 * time.Hour   // and across a restart
)

// hold has drains and deletions wait for a human.
func (r *Reconciler) hold(ctx context.Context, reason string) error {
	if err := r.cfg.Store.SetValue(ctx, keyHold, []byte(reason)); err != nil {
		return fmt.Errorf("hold deletions: %w", err)
	}
	r.fault("hold", reason)
	return nil
}

// holds says why no drain may begin, and why nothing may be deleted. It looks at the clock first, so that no jump is
// believed before it is noticed.
func (r *Reconciler) holds(ctx context.Context) (start, end string) {
	if err := r.lookAtClock(ctx); err != nil {
		return err.Error(), err.Error()
	}
	reason, err := r.cfg.Store.Value(ctx, keyHold)
	switch {
	case err == nil:
		return string(reason), string(reason)
	case !errors.Is(err, store.ErrNotFound):
		why := "whether deletions are held cannot be read: " + err.Error()
		return why, why
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.start.busy() {
		return "", "comparing DNS with the store, as after every start"
	}
	return "", ""
}

// release is the confirmation of what was held for a reason. What is held for another one by now stays so.
func (r *Reconciler) release(ctx context.Context, reason string) error {
	held, err := r.cfg.Store.Value(ctx, keyHold)
	if errors.Is(err, store.ErrNotFound) || err == nil && string(held) != reason {
		return nil
	}
	if err == nil { // before, so that none goes untold
		err = r.cfg.Store.AppendEvents(ctx, []store.Event{{
			Kind: store.KindHoldConfirmed, Name: "hold", Text: "confirmed: drains and deletions go on", Before: reasonJSON(reason),
		}})
	}
	if err == nil {
		err = r.cfg.Store.DeleteValue(ctx, keyHold)
	}
	if err != nil {
		return fmt.Errorf("release what is held: %w", err)
	}
	r.fault("hold", "")
	return nil
}

// jumped says by how much the wall clock left the monotonic one.
func jumped(from, to time.Time) time.Duration {
	return to.Round(0).Sub(from.Round(0)) - to.Sub(from)
}

// checkClock compares the clock with the latest time that an earlier run saw.
func (r *Reconciler) checkClock(ctx context.Context) error {
	now := r.now().UTC()
	if reason, err := r.cfg.Store.Value(ctx, keyHold); err == nil {
		r.fault("hold", string(reason))
	}
	value, err := r.cfg.Store.Value(ctx, keyClock)
	if errors.Is(err, store.ErrNotFound) {
		return r.keepClock(ctx, now)
	}
	if err != nil {
		return fmt.Errorf("read the latest time seen: %w", err)
	}
	last, err := time.Parse(time.RFC3339, string(value))
	if err == nil {
		r.last = last
	}
	if err == nil && now.Before(last) { // it was set back: what was due in the time that comes twice is due now
		if err := r.cfg.Store.Wake(ctx, "", now); err != nil {
			return fmt.Errorf("have all domains looked at: %w", err)
		}
	}
	if err != nil || now.Sub(last).Abs() < jumpStart {
		return r.keepClock(ctx, now)
	}
	if err := r.hold(ctx, fmt.Sprintf("the clock says %s, and this server last ran at %s: if the clock is right, confirm it: "+
		"stspub plan prints the command", now.Format(time.RFC3339), last.Format(time.RFC3339))); err != nil {
		return err
	}
	return r.keepClock(ctx, now)
}

func (r *Reconciler) keepClock(ctx context.Context, now time.Time) error {
	if err := r.cfg.Store.SetValue(ctx, keyClock, []byte(now.Format(time.RFC3339))); err != nil {
		return fmt.Errorf("keep the time: %w", err)
	}
	return nil
}

// watchClock holds deletions when the clock jumps, and has everything looked at again when it was set back: what was due
// in the time that comes twice is due now.
func (r *Reconciler) watchClock(ctx context.Context) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	kept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.lookAtClock(ctx)
		if now := time.Now(); err == nil && now.Sub(kept) >= clockKept {
			err = r.keepClock(ctx, r.now().UTC())
			kept = now
		}
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("clock not kept", "err", err)
		}
	}
}

// lookAtClock compares the wall clock with the monotonic one since the last look.
func (r *Reconciler) lookAtClock(ctx context.Context) error {
	now := time.Now()
	r.mu.Lock()
	jump := time.Duration(0)
	if !r.clock.IsZero() {
		jump = jumped(r.clock, now)
	}
	r.clock = now
	r.mu.Unlock()
	return r.clockMoved(ctx, jump)
}

func (r *Reconciler) clockMoved(ctx context.Context, jump time.Duration) error {
	now := r.now().UTC()
	if jump.Abs() > jumpLive {
		if err := r.hold(ctx, fmt.Sprintf("the clock jumped by %s at %s: if it is right now, confirm it: stspub plan prints the command",
			jump.Round(time.Second), now.Format(time.RFC3339))); err != nil {
			return err
		}
	}
	if jump < -clockEvery {
		return r.Wake(ctx, "")
	}
	return nil
}
