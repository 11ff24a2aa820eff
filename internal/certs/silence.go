package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// silencePrefix is before the name of an authority in the key of its [silence] in the store.
const silencePrefix = "acme/silence/"

// silence is a time in which an authority takes no order: it does not answer, or wants none. The store keeps it, so that a
// restart does not begin it anew.
type silence struct {
	Since   time.Time `json:"since"`            // the first sign of it; zero: there is none
	Known   time.Time `json:"known"`            // the last sign, or the end that the authority named
	Stopped time.Time `json:"stopped,omitzero"` // the authority wants no orders until then
	Reason  string    `json:"reason,omitempty"` // and why
}

// note notes a sign, and the end that it named, or any time before.
func (q *silence) note(at, until time.Time) {
	if q.Since.IsZero() {
		q.Since = at
	}
	q.Known = latest(q.Known, latest(at, until))
}

// stop notes that the authority said at a time that it wants no orders until another.
func (q *silence) stop(at, until time.Time, reason string) {
	if until.After(q.Stopped) {
		q.Stopped, q.Reason = until, reason
	}
	q.note(at, until)
}

// lasts is how long it is from its first to its last sign. A last one that is longer ago than remembered says nothing of
// how it is now.
func (q *silence) lasts(now time.Time, remembered time.Duration) time.Duration {
	if q.Since.IsZero() || now.Sub(q.Known) >= remembered {
		return 0
	}
	return q.Known.Sub(q.Since)
}

// trust mends what only a clock that was ahead can have said.
func (q *silence) trust(now time.Time) {
	far := now.Add(longestRetryAfter)
	if q.Since.After(now) {
		q.Since = now
	}
	if q.Known.After(far) {
		q.Known = now
	}
	if q.Stopped.After(far) {
		q.Stopped = time.Time{}
	}
}

// loadSilences takes from the store which authorities took no orders before the start.
func (k *Keeper) loadSilences(ctx context.Context) error {
	s := &k.schedule
	now := time.Now()
	for _, l := range s.lines {
		key := silencePrefix + l.authority.Name()
		value, err := k.store.Value(ctx, key)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("load what %s waits for: %w", l.authority.Name(), err)
		}
		var q silence
		if err := json.Unmarshal(value, &q); err != nil {
			k.log.Error("did not read since when an authority takes no orders", "authority", l.authority.Name(), "err", err)
			continue
		}
		q.trust(now)
		s.mu.Lock()
		l.budget.silence, l.kept = q, string(value)
		s.mu.Unlock()
	}
	return nil
}

// keepSilence writes down whether an authority takes orders, if that is news, also while we are stopping.
func (k *Keeper) keepSilence(ctx context.Context, l *line) {
	k.keeping.Lock()
	defer k.keeping.Unlock()
	s := &k.schedule
	s.mu.Lock()
	q, kept := l.budget.silence, l.kept
	s.mu.Unlock()
	var value []byte
	if !q.Since.IsZero() {
		var err error
		if value, err = json.Marshal(q); err != nil { // a year with five digits
			k.log.Error("did not keep that an authority takes no orders", "authority", l.authority.Name(), "err", err)
			return
		}
	}
	if string(value) == kept {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	key := silencePrefix + l.authority.Name()
	var err error
	if value == nil {
		err = k.store.DeleteValue(ctx, key)
	} else {
		err = k.store.SetValue(ctx, key, value)
	}
	if err != nil {
		k.log.Error("did not keep whether an authority takes orders", "authority", l.authority.Name(), "err", err)
		return
	}
	s.mu.Lock()
	l.kept = string(value)
	s.mu.Unlock()
}
