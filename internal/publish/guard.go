package publish

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// What holds drains and deletions until an operator confirms, as kept in the store.
const (
	keyClock    = "publish/clock"  // the latest time seen, RFC 3339
	keyHold     = "publish/hold"   // why drains and deletions are held
	clockKept   = 10 * time.Minute // how often the time is kept
	clockEvery  = 30 * time.Second // how often the clock is looked at
	jumpLive    = time.Hour        // a jump that counts, running
	jumpStart   = 24 * time.Hour   // and across a restart
	startTime   = 10 * time.Minute // the comparison at start is over then, whatever is still pending
	startSample = 100              // live domains compared at start
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

// startup is the comparison of DNS with the store after a start: many ids that the store does not know mean that it is
// an old copy, whose drains and deletions must not go on. Reconciler.mu guards it.
type startup struct {
	names    map[policygen.Name]bool // still to compare
	began    time.Time
	compared int
	sampled  int // how many there were to compare
	tenants  int // whose those are
	unknown  []policygen.Name
	strange  map[string]bool // tenants of these
	old      bool            // the store was found to be an old copy
}

// sample picks live records at random to be compared, of every tenant as many: names that sort first, or are many, do not
// stand for all.
type sample struct{ of map[string]*tenantSample }

type tenantSample struct {
	seen  int
	names []policygen.Name
}

// add has a domain take part. A record that the customer writes says nothing about our store.
func (s *sample) add(d store.Domain) {
	if d.State.ID == "" || d.Publish == store.PublishManual {
		return
	}
	if s.of == nil {
		s.of = make(map[string]*tenantSample)
	}
	t := s.of[d.Tenant]
	if t == nil {
		t = new(tenantSample)
		s.of[d.Tenant] = t
	}
	t.seen++
	if room := s.each(); len(t.names) < room {
		t.names = append(t.names, d.Name)
	} else if at := rand.IntN(t.seen); at < room {
		t.names[at] = d.Name
	}
}

// each is how many records of one tenant are compared.
func (s *sample) each() int { return max(startSample/len(s.of), 2) }

// names are those that are to be compared, startSample at most.
func (s *sample) names() []policygen.Name {
	var all []policygen.Name
	for _, t := range s.of { // at random
		n := min(len(t.names), s.each(), startSample-len(all))
		all = append(all, t.names[:n]...)
	}
	return all
}

func (s *startup) done(name policygen.Name) { delete(s.names, name) }

func (s *startup) busy() bool { return len(s.names) > 0 && time.Since(s.began) < startTime }

// uncompared says that a domain is one of those that are compared after a start, and was not yet.
func (r *Reconciler) uncompared(name policygen.Name) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.start.names[name]
}

// restored says that at least two, and a tenth of those compared, carry ids that the store does not know. Where there are
// several tenants that is so at more than one, or with most of all: one may write what it likes into its zones.
func (s *startup) restored() bool {
	if len(s.unknown) < 2 || len(s.unknown)*10 < s.compared {
		return false
	}
	return s.tenants < 2 || len(s.strange) > 1 || len(s.unknown)*2 > s.sampled
}

// compared takes the first look at a record after a start into account.
func (r *Reconciler) compared(ctx context.Context, d store.Domain, t *TXT) {
	r.mu.Lock()
	first := r.start.names[d.Name]
	if t.answered() == 0 || !first && !r.start.old {
		r.mu.Unlock()
		return
	}
	r.start.done(d.Name)
	if first {
		r.start.compared++
	}
	if len(t.foreign()) > 0 && d.State.ID != "" {
		r.start.unknown = append(r.start.unknown, d.Name)
		if r.start.strange == nil {
			r.start.strange = make(map[string]bool)
		}
		r.start.strange[d.Tenant] = true
	}
	var seed []policygen.Name
	news := !r.start.old && r.start.restored()
	if r.start.old = r.start.old || news; r.start.old {
		seed, r.start.unknown = r.start.unknown, nil
	}
	r.mu.Unlock()
	for _, name := range seed {
		// Senders may hold a policy that this store does not know, for as long as RFC 8461 allows.
		if err := r.cfg.Store.AddForeign(ctx, name, "", r.now()); err != nil {
			r.cfg.Log.Error("history not seeded", "domain", name, "err", err)
		}
	}
	if !news {
		return
	}
	err := r.hold(ctx, fmt.Sprintf("DNS holds ids that the store does not know, of %d domains (%s, …): the store is an old copy, or "+
		"another server writes these records; when that is settled, confirm it: stspub plan prints the command", len(seed), seed[0]))
	if err != nil {
		r.cfg.Log.Error("deletions not held", "err", err)
	}
}

// fault keeps, or with an empty reason clears, a fault of the service as a whole.
func (r *Reconciler) fault(subject, reason string) {
	r.mu.Lock()
	before := r.faults[subject]
	if reason == "" {
		delete(r.faults, subject)
	} else {
		r.faults[subject] = reason
	}
	r.mu.Unlock()
	switch {
	case before == reason:
	case reason == "":
		r.cfg.Log.Info("fault gone", "fault", subject)
	default:
		r.cfg.Log.Warn("fault", "fault", subject, "reason", reason)
	}
}
