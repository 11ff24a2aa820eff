package publish

import "time"

// reading is what the store's clock said.
type reading struct {
	store time.Time
	at    time.Time // by our own, with the monotonic clock
}

// SetClock makes the time that the store gave at some moment the time by which leases, due times and horizons go. Our own
// clock only says how much has passed since.
func (r *Reconciler) SetClock(store, at time.Time) { r.clockRead.Store(&reading{store, at}) }

// now is the time by which the nodes on one store agree.
func (r *Reconciler) now() time.Time {
	if c := r.clockRead.Load(); c != nil {
		return c.store.Add(time.Since(c.at))
	}
	return time.Now()
}

func (r *Reconciler) since(t time.Time) time.Duration { return r.now().Sub(t) }

func (r *Reconciler) until(t time.Time) time.Duration { return t.Sub(r.now()) }
