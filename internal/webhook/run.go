package webhook

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// downAfter is how many calls in a row fail until the receiver is taken to be down: then one call at a time is tried, after
// pauses that grow. What it just does not like does not count.
const downAfter = MaxInFlight

// problemDamaged is why nothing can be sent.
const problemDamaged = "its URL and secrets are sealed with a key that is not here, or damaged: put it again"

// lane is what one name's events wait in.
type lane struct {
	of     laneKey
	events []store.Event    // that follow each other; the first may be on its way
	flying bool             // it is
	queued bool             // it is among run.ready
	held   *store.HeldEvent // what was not taken; events are read anew for it
	last   int64            // up to this Seq all events of the name are taken or lost, as far as this run knows
}

// laneKey names a lane. Two tenants may have things of one name.
type laneKey struct{ tenant, name string }

// run delivers what one webhook has to be told, until that is done or has to wait. It is one goroutine's, but for the calls.
type run struct {
	h    *Webhooks
	w    store.Webhook
	skew time.Duration // of the store's clock, by which all of Delivery is

	lanes map[laneKey]*lane
	ready []*lane // which have a next event and none on its way
	// read is up to where events were read, open are those among them that are neither taken nor behind a held one, and
	// order is a queue of these and of some that are no longer.
	read  int64
	open  map[int64]bool
	order []int64
	whole bool // there were no more events after read

	flying  int
	results chan result
	changed bool      // since it was saved
	saved   time.Time // by our clock
}

// result is what came of an event.
type result struct {
	lane    *lane
	seq     int64
	answer  answer
	stopped bool // it was cut off, and says nothing
}

func newRun(h *Webhooks, w store.Webhook, skew time.Duration) *run {
	r := &run{
		h: h, w: w, skew: skew, lanes: make(map[laneKey]*lane), read: w.Delivery.Reached, open: make(map[int64]bool),
		results: make(chan result, MaxInFlight), saved: time.Now(),
	}
	for i := range w.Delivery.Held {
		held := w.Delivery.Held[i]
		r.lane(laneKey{held.Tenant, held.Name}).held = &held
	}
	return r
}

// now is by the store's clock.
func (r *run) now() time.Time { return time.Now().Add(r.skew) }

func (r *run) lane(of laneKey) *lane {
	l := r.lanes[of]
	if l == nil {
		l = &lane{of: of}
		r.lanes[of] = l
	}
	return l
}

// run ends soon after ctx, with what was done saved.
func (r *run) run(ctx context.Context) {
	calls, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	err := r.deliver(ctx, calls)
	if ctx.Err() != nil { // those under way have a little time
		late := time.AfterFunc(drainTime, func() { cut(errStopped) })
		defer late.Stop()
	} else if err != nil {
		cut(errStopped)
	}
	for r.flying > 0 {
		r.settle(<-r.results)
	}
	if err == nil || ctx.Err() != nil && !errors.Is(err, store.ErrStale) {
		err = r.save(context.WithoutCancel(ctx), 0)
	}
	if err != nil && !errors.Is(err, store.ErrStale) && ctx.Err() == nil {
		r.h.cfg.Log.Warn("webhook put off", "tenant", r.w.Tenant, "id", r.w.Name, "err", err)
	}
}

// deliver returns when nothing is to be done now.
func (r *run) deliver(ctx, calls context.Context) error {
	if r.w.Damaged {
		r.pause(problemDamaged)
		return nil
	}
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		if err := r.fill(ctx); err != nil {
			return err
		}
		r.start(calls)
		if r.flying == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case res := <-r.results:
			r.settle(res)
		case <-tick.C:
			r.whole = false // there may be more by now
		}
		since := time.Since(r.saved)
		if r.changed && since >= saveEvery || since >= holdEvery {
			if err := r.save(ctx, Lease); err != nil {
				return err
			}
		}
	}
}

// resting says that nothing may be sent now.
func (r *run) resting() bool { return r.w.Delivery.Paused || r.now().Before(r.w.Delivery.Rest) }

func (r *run) down() bool { return r.w.Delivery.Failures >= downAfter }

// fill has lanes for what is to be sent.
func (r *run) fill(ctx context.Context) error {
	if r.resting() {
		return nil
	}
	held := 0
	for _, l := range r.lanes {
		if l.held == nil {
			continue
		}
		held++
		if l.flying || l.queued || l.held.Due.After(r.now()) {
			continue
		}
		if err := r.page(ctx, l); err != nil {
			return err
		}
	}
	if r.whole || len(r.open) >= pageSize || held >= maxHeld {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	last, err := r.h.cfg.Store.LastChange(ctx)
	if err != nil {
		return err
	}
	filter := store.EventFilter{Tenant: r.w.Tenant, All: r.w.Tenant == "", Kinds: kindsOf(r.w)}
	events, err := r.h.cfg.Store.Events(ctx, filter, r.read, pageSize)
	if err != nil {
		return err
	}
	for _, e := range events {
		r.read = e.Seq
		r.take(e)
	}
	if r.whole = len(events) < pageSize; r.whole {
		r.read = max(r.read, last) // who has seen the last change has seen all events before it
	}
	r.changed = true
	return nil
}

// take puts an event into its lane, unless that reads by itself.
func (r *run) take(e store.Event) {
	l := r.lane(laneKey{e.Tenant, e.Name})
	if l.held != nil || e.Seq <= l.last {
		return
	}
	l.events = append(l.events, e)
	r.open[e.Seq] = true
	r.order = append(r.order, e.Seq)
	r.enqueue(l)
}

func (r *run) enqueue(l *lane) {
	if !l.queued && !l.flying && len(l.events) > 0 {
		l.queued = true
		r.ready = append(r.ready, l)
	}
}

// page reads the next events of a lane where one is held. When there are none, it holds nothing any more.
func (r *run) page(ctx context.Context, l *lane) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	filter := store.EventFilter{Tenant: l.of.tenant, Name: l.of.name, Kinds: kindsOf(r.w)}
	events, err := r.h.cfg.Store.Events(ctx, filter, l.held.Seq-1, heldPage)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		l.last = max(l.last, l.held.Seq-1)
		l.held = nil
		r.changed = true
		return nil
	}
	last := events[len(events)-1].Seq
	// A name that is empty stands for all in the filter.
	l.events = slices.DeleteFunc(events, func(e store.Event) bool { return e.Name != l.of.name })
	if len(l.events) == 0 {
		l.held.Seq = last + 1
		return nil
	}
	r.enqueue(l)
	return nil
}

// start has calls made for as many lanes as may be.
func (r *run) start(calls context.Context) {
	for !r.resting() {
		most := MaxInFlight
		if r.down() {
			most = 1
		}
		if r.flying >= most || len(r.ready) == 0 {
			return
		}
		l := r.next()
		l.flying = true
		r.flying++
		e, w := l.events[0], r.w
		go func() { r.results <- r.h.deliver(calls, w, l, e) }() // ends with calls
	}
}

// next takes a lane from those that are ready. A receiver that is down is asked about another event each time, for it may
// just not like one.
func (r *run) next() *lane {
	i := 0
	if r.down() {
		i = max(slices.IndexFunc(r.ready, func(l *lane) bool { return l.held == nil }), 0)
	}
	l := r.ready[i]
	r.ready = slices.Delete(r.ready, i, i+1)
	l.queued = false
	return l
}

// deliver sends an event.
func (h *Webhooks) deliver(ctx context.Context, w store.Webhook, l *lane, e store.Event) result {
	body, err := message(e)
	if err != nil {
		return result{lane: l, seq: e.Seq, answer: answer{problem: "the event is no JSON", detail: err}}
	}
	a := h.send(ctx, w, messageID(w, e), body)
	return result{lane: l, seq: e.Seq, answer: a, stopped: a.status == 0 && ctx.Err() != nil}
}

// settle notes what came of an event.
func (r *run) settle(res result) {
	l := res.lane
	l.flying = false
	r.flying--
	if res.stopped {
		return
	}
	r.changed = true
	if res.answer.problem == "" {
		r.taken(l, res.seq)
		return
	}
	r.refused(l, res)
}

// taken goes on with the next event of a lane.
func (r *run) taken(l *lane, seq int64) {
	d := &r.w.Delivery
	r.h.metrics.count("delivered")
	if d.Delivered = r.now(); r.down() {
		for _, other := range r.lanes { // it is back
			if other.held != nil {
				other.held.Due = d.Delivered
			}
		}
		d.Rest = time.Time{}
	}
	d.Failures = 0
	r.done(l, seq)
}

// done goes on behind an event.
func (r *run) done(l *lane, seq int64) {
	delete(r.open, seq)
	l.events = l.events[1:]
	l.last = seq
	if l.held != nil {
		*l.held = store.HeldEvent{Tenant: l.of.tenant, Name: l.of.name, Seq: seq + 1, Since: r.now(), Due: r.now()}
	} else if len(l.events) == 0 && l.last <= r.read {
		delete(r.lanes, l.of)
	}
	r.enqueue(l)
}

// refused has a lane wait, or gives its event up.
func (r *run) refused(l *lane, res result) {
	d, s, now := &r.w.Delivery, r.h.schedule, r.now()
	r.h.metrics.count("failed")
	if d.Problem == "" || d.Since.IsZero() {
		r.h.cfg.Log.Warn("webhook failed", "tenant", r.w.Tenant, "id", r.w.Name, "err", res.answer.problem, "detail", res.answer.detail)
	}
	d.Problem = res.answer.problem
	if !res.answer.choosy() {
		d.Failures++
		if r.down() {
			d.Rest = now.Add(s.pause(d.Failures - downAfter + 1))
		}
	}
	if res.answer.after > 0 {
		d.Rest = later(d.Rest, now.Add(min(max(res.answer.after, s.first), s.most)))
	}
	if l.held == nil {
		l.held = &store.HeldEvent{Tenant: l.of.tenant, Name: l.of.name, Seq: res.seq}
	}
	if l.held.Tries++; l.held.Tries == 1 {
		l.held.Since = now
	}
	l.held.Due = now.Add(s.pause(l.held.Tries))
	if d.Since.IsZero() {
		d.Since = l.held.Since
	}
	switch {
	case res.answer.gone():
		r.pause(res.answer.problem)
	case now.Sub(l.held.Since) >= s.giveUp:
		d.Lost++
		r.h.metrics.count("lost")
		r.h.cfg.Log.Error("event lost, a webhook did not take it", "tenant", r.w.Tenant, "id", r.w.Name, "seq", res.seq, "err", res.answer.problem)
		r.done(l, res.seq)
		return
	}
	for _, e := range l.events { // they are read again
		delete(r.open, e.Seq)
	}
	l.events = nil
}

// pause has nothing sent until an operator resumes it.
func (r *run) pause(problem string) {
	r.h.cfg.Log.Warn("webhook paused", "tenant", r.w.Tenant, "id", r.w.Name, "err", problem)
	r.w.Delivery.Paused, r.w.Delivery.Problem = true, problem
	r.changed = true
}

// save writes how far it is.
func (r *run) save(ctx context.Context, lease time.Duration) error {
	for len(r.order) > 0 && !r.open[r.order[0]] {
		r.order = r.order[1:]
	}
	d := &r.w.Delivery
	if d.Reached = r.read; len(r.order) > 0 {
		d.Reached = r.order[0] - 1
	}
	d.Held, d.Since, d.Due = nil, time.Time{}, time.Time{}
	for _, l := range r.lanes {
		if l.held == nil {
			continue
		}
		d.Held = append(d.Held, *l.held)
		d.Since, d.Due = earlier(d.Since, l.held.Since), earlier(d.Due, l.held.Due)
	}
	slices.SortFunc(d.Held, func(a, b store.HeldEvent) int { return int(a.Seq - b.Seq) })
	if len(d.Held) == 0 && !d.Paused {
		d.Problem = ""
	}
	if len(d.Held) >= maxHeld {
		d.Rest = later(d.Rest, d.Due)
	}
	if !d.Due.IsZero() {
		d.Due = later(d.Due, d.Rest)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	begun := time.Now()
	err := r.h.cfg.Store.SaveWebhook(ctx, r.w, lease)
	if err == nil {
		r.saved, r.changed = begun, false
	}
	return err
}

// pause is how long to wait after a number of tries: twice as long each time, and a little different for each who waits.
func (s schedule) pause(tries int) time.Duration {
	d := s.first << min(max(tries-1, 0), 30)
	if d <= 0 || d > s.most {
		d = s.most
	}
	return d - rand.N(d/4+1)
}

// earlier returns the earlier one of two times that are set.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// later returns the later one of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
