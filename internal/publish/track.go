package publish

import (
	"context"
	"log/slog"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// track is what is remembered in memory of a publication under way.
type track struct {
	text string          // the policy text
	live time.Time       // since when it is seen live without interruption; zero: it is not
	said map[string]bool // what OnStep was told; nil: nothing is to be told
	// intended is the intended id that this process committed; an earlier one's may come from an old copy of the store.
	intended string
}

// liveFor keeps since when a domain's text is seen live. The times in tracks carry the monotonic clock, so a jump of the
// wall clock does not shorten a settle time; a restart begins it anew. Where another node may make the next pass, it is
// kept in the state.
func (r *Reconciler) liveFor(d *store.Domain, live bool) time.Duration {
	if r.cfg.Node != "" {
		if !live {
			d.State.Live = time.Time{}
		} else if d.State.Live.IsZero() {
			d.State.Live = r.now()
		}
		return liveSince(d.State.Live, r.now())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.track(d.Name)
	if t.text != d.State.Served {
		t.text, t.live = d.State.Served, time.Time{}
	}
	switch {
	case !live:
		t.live = time.Time{}
	case t.live.IsZero():
		t.live = time.Now()
	default:
		return time.Since(t.live)
	}
	return 0
}

func liveSince(since, now time.Time) time.Duration {
	if since.IsZero() {
		return 0
	}
	return max(now.Sub(since), 0)
}

// interrupt ends the time that a text was seen live, if anything is remembered of it: another one is served, or was.
func (r *Reconciler) interrupt(name policygen.Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tracks[name]; t != nil {
		t.live = time.Time{}
	}
}

// intended remembers that a domain's intended id was committed by this process.
func (r *Reconciler) intended(d store.Domain) {
	if d.State.Intended == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.track(d.Name).intended = d.State.Intended
}

func (r *Reconciler) intendedHere(d store.Domain) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tracks[d.Name]
	return t != nil && t.intended == d.State.Intended
}

// stale says that an intended id is of before this process began: the store may have been put back to an old copy since. On a
// store of several nodes others intend ids too.
func (r *Reconciler) stale(d store.Domain) bool {
	return !r.intendedHere(d) && (r.cfg.Node == "" || !policygen.IDTime(d.State.Intended).After(r.began))
}

// track returns the track of a domain. r.mu is held.
func (r *Reconciler) track(name policygen.Name) *track {
	t := r.tracks[name]
	if t == nil {
		t = &track{}
		r.tracks[name] = t
	}
	return t
}

// untrack forgets a track. A map keeps the room that it once took, and after a change that is room for every domain. r.mu
// is held.
func (r *Reconciler) untrack(name policygen.Name) {
	if delete(r.tracks, name); len(r.tracks) == 0 {
		r.tracks = make(map[policygen.Name]*track)
	}
}

// open has the steps of a publication told.
func (r *Reconciler) open(name policygen.Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.track(name); t.said == nil {
		t.said = make(map[string]bool)
	}
}

// tellCommit tells of steps that are states rather than looks.
func (r *Reconciler) tellCommit(w Want, before, after store.State) {
	if after.Horizon != before.Horizon && !after.Horizon.IsZero() {
		r.tell(w.Name, StepDrain, "mode none is published; the record stays until "+after.Horizon.UTC().Format(time.DateTime+" MST"))
	}
}

// tellRest tells where a pass ended, when that is new.
func (r *Reconciler) tellRest(name policygen.Name, before, after store.State) {
	if after.Step == StepLive && !after.Fault {
		r.tell(name, StepLive, "all is right")
	}
	if after.Fault {
		r.open(name)
	}
	if after.Reason != "" && (before.Step != after.Step || before.Reason != after.Reason && !before.Fault) {
		r.tell(name, after.Step, after.Reason)
	}
	if after.Step == StepLive {
		r.mu.Lock()
		r.untrack(name)
		r.mu.Unlock()
	}
	level := slog.LevelDebug
	switch {
	case after.Step != before.Step && !after.Fault: // a fault was logged when it was found
		level = slog.LevelInfo
	case after.Step == before.Step && after.Reason == before.Reason:
		return
	}
	r.cfg.Log.Log(context.Background(), level, "domain rests", "domain", name, "step", after.Step, "reason", after.Reason, "fault", after.Fault)
}

// tell passes a step on, once in a publication.
func (r *Reconciler) tell(name policygen.Name, step, message string) {
	if r.cfg.OnStep == nil {
		return
	}
	r.mu.Lock()
	t := r.tracks[name]
	news := t != nil && t.said != nil && !t.said[message]
	if news {
		t.said[message] = true
	}
	r.mu.Unlock()
	if news {
		r.cfg.OnStep(name, step, message)
	}
}
