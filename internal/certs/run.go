package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	orderTimeout = 5 * time.Minute
	// saveTimeout bounds a write that goes on after the order's context has ended: what was obtained is not thrown away.
	saveTimeout = 10 * time.Second
	// longestBlameless lies between two orders of a name that cannot help it that they fail.
	longestBlameless = time.Hour
)

// Run orders and renews until ctx ends; then it ends the running orders, waits for them, and returns nil. Errors of
// single names are kept in their [Status].
func (k *Keeper) Run(ctx context.Context) error {
	if len(k.schedule.lines) == 0 {
		<-ctx.Done()
		return nil
	}
	var orders, asking sync.WaitGroup
	defer asking.Wait()
	defer orders.Wait()
	asking.Go(func() { k.ask(ctx) })
	asking.Go(func() { k.follow(ctx) })
	asking.Go(func() { k.keepLimits(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.schedule.wake:
		case <-timer.C:
		}
		if now := time.Now(); k.walkDue(now) {
			k.walk(now)
			k.prune(ctx, now)
		}
		timer.Reset(k.start(ctx, &orders))
	}
}

// walkDue says that it is time for a walk; a clock that went back is a reason too.
func (k *Keeper) walkDue(now time.Time) bool {
	k.schedule.mu.Lock()
	defer k.schedule.mu.Unlock()
	since := now.Sub(k.schedule.walked)
	return since >= walkEvery || since < 0
}

// turn is one order as it was begun.
type turn struct {
	line     *line
	claim    claim
	begun    time.Time
	had      int64 // the end of the certificate that was in memory then, in seconds since 1970; 0: none was
	replaces []byte
	unsaved  *store.Certificate
}

// start begins all orders that are due and have a place, and returns when to look again.
func (k *Keeper) start(ctx context.Context, orders *sync.WaitGroup) time.Duration {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for {
		i, l, wait := s.take(now)
		if i == nil {
			return wait
		}
		t := turn{line: l, claim: l.claim(i), begun: now, unsaved: i.unsaved}
		if known, found := k.memory.find(i.name); found {
			t.had = known.notAfter
		}
		if l.replaces(i) {
			t.replaces = bytes.Clone(k.memory.leaf(i.name))
		}
		octx, cancel := context.WithTimeout(ctx, orderTimeout)
		i.cancel, i.done, i.waited = cancel, make(chan struct{}), false
		if t.unsaved == nil {
			l.budget.begin(now, t.claim)
			s.spend(now, t.claim)
			l.budget.pace.add(now)
		}
		free := s.occupy(l, t.claim.failing)
		orders.Go(func() {
			defer cancel()
			changed := k.order(octx, i, t)
			free()
			if changed {
				k.tellChange(ctx, i.name)
			}
		})
	}
}

// result is how an order went.
type result struct {
	entry  store.JournalEntry // Seq 0: it was not even entered
	skew   *skew              // our clock is wrong
	held   bool               // it was entered, and the gate did not let it pass
	cert   store.Certificate
	packed *packed // nil: there is no certificate
	err    error   // also of what comes after the certificate
	verdict
}

// lost says that the authority did not answer.
func (r *result) lost() bool { return r.packed == nil && r.outage && !r.stop && r.skew == nil }

// taken says that something went wrong after the authority took the order, or may have.
func (r *result) taken() bool {
	_, taken := errors.AsType[*Taken](r.err)
	return taken
}

// uncounted says that the authority has surely not counted the order.
func (r *result) uncounted() bool { return r.held || r.lost() && !r.taken() }

// reason is why the authority wants no orders; what else holds the name is left out.
func (r *result) reason() string {
	if u, ok := errors.AsType[*Unanswered](r.err); ok {
		return u.Error()
	}
	return r.err.Error()
}

// problem is what is told of the name. What the store says is in the log.
func (r *result) problem() string {
	if _, ok := errors.AsType[*store.Trouble](r.err); ok {
		return "the store does not answer"
	}
	return r.err.Error()
}

// declined says that the authority refused the order itself, so that it counts against no limit of the registered domain.
func (r *result) declined() bool {
	p, answered := errors.AsType[*Problem](r.err)
	return r.packed == nil && answered && !r.taken() && p.Status/100 == 4
}

// order obtains one certificate, or takes one that was obtained before and not saved, and saves and serves it. It returns
// whether there is a change to be told.
func (k *Keeper) order(ctx context.Context, i *item, t turn) (changed bool) {
	r := k.obtain(ctx, i, t)
	s := &k.schedule
	s.mu.Lock()
	dropped := i.dropped
	s.mu.Unlock()
	if r.err == nil && !dropped {
		r.cert.Renew = k.firstPlan(r.cert, time.Now())
		r.packed.renew = r.cert.Renew.Unix()
		r.err, r.verdict = k.save(ctx, r.cert), verdict{outage: true}
	}
	stopping := errors.Is(ctx.Err(), context.Canceled)
	if r.entry.Seq != 0 {
		r.entry.Ended, r.entry.Failed = time.Now(), r.failed
		r.entry.Exempt = r.entry.Exempt || r.uncounted()
		if r.stop && r.wait > 0 {
			r.entry.Stopped = r.entry.Ended.Add(r.wait)
		}
		switch {
		case r.held && r.stop:
			r.entry.Reason = r.reason()
		case r.declined():
			r.entry.Reason = r.err.Error()
		}
		k.end(ctx, r.entry)
	}
	failed := k.settle(i, t, r, dropped, stopping)
	k.keepSilence(ctx, t.line)
	changed = k.tell(ctx, i.name, r.err, failed, dropped || stopping)
	s.mu.Lock()
	defer s.mu.Unlock()
	i.cancel = nil
	close(i.done)
	i.resume(time.Now())
	s.put(i, time.Now())
	k.retire(i)
	return changed
}

// settle notes how an order went, and returns what is to be kept of it if it failed. What came for a name that had been
// dropped was not saved.
func (k *Keeper) settle(i *item, t turn, r result, dropped, stopping bool) *store.Order {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	b := t.line.budget
	if (r.entry.Seq == 0 || r.uncounted()) && t.unsaved == nil {
		b.takeBack(t.begun, t.claim)
		s.refund(t.begun, t.claim)
	} else if r.declined() {
		b.spare(t.begun, t.claim.domain)
	}
	if r.failed {
		b.fail(i.name, now)
	}
	found := b.outage.since
	unanswered, isUnanswered := errors.AsType[*Unanswered](r.err)
	switch {
	case stopping:
	case isUnanswered: // whatever else holds the name
		k.heard(t, result{err: unanswered, verdict: judge(unanswered, t.claim.name, t.claim.domain)}, now)
	case r.entry.Seq != 0 && !r.held:
		k.heard(t, r, now)
	case b.outage.gated && answeredGate(r.err):
		if b.outage.over(); !b.Since.Before(found) { // and no order has met it
			k.back(t.line, now)
		}
	}
	if r.entry.Seq != 0 && (r.skew != nil || r.packed != nil) {
		if b.skew = r.skew; r.skew != nil {
			k.log.Error("no more certificates are ordered until the clock is right", "authority", t.line.authority.Name(),
				"domain", i.name, "err", r.skew)
		}
	}
	later, isLater := errors.AsType[*errLater](r.err)
	switch {
	case dropped, i.dropped:
	case errors.Is(r.err, ErrNotReplaced): // it is ordered again at once, as one that counts
		i.bare, i.due = true, now
	case r.err == nil:
		k.renewed(i, r.packed)
		i.tried, i.due = now, time.Time{}
		if i.wanted {
			i.due = r.cert.Renew
			s.plans.add(r.packed.renew, 1)
		}
	case isLater:
		i.due = later.until
		if later.elsewhere {
			s.await(i)
		}
	case stopping: // that is no failure of the name
	default:
		if i.unsaved = nil; r.packed != nil {
			i.unsaved = &r.cert
		}
		k.fail(i, t, r, now)
		return &store.Order{
			Name: i.name, Failures: i.failures, Tried: i.tried, Next: i.next, Problem: i.problem, Advice: i.advice,
			Authority: i.refuser, Since: i.failing, Outage: i.outage,
		}
	}
	return nil
}

// renewed puts a certificate in the place of the one of an item, if there is one, and forgets what failed before it came. The
// schedule's lock is held.
func (k *Keeper) renewed(i *item, p *packed) {
	k.unplan(i.name)
	k.memory.set(i.name, p)
	k.memory.mark(i.name, func(known *info) { known.wanted = i.wanted })
	known, _ := k.memory.find(i.name)
	k.recall(i, known)
	i.failures, i.next, i.failing, i.patience = 0, time.Time{}, time.Time{}, time.Time{}
	i.problem, i.advice, i.refuser, i.refused, i.unsaved, i.bare, i.urged = "", "", "", 0, nil, false, false
}

// heard notes what the answer to an order says of its authority. The schedule's lock is held.
func (k *Keeper) heard(t turn, r result, now time.Time) {
	l, b := t.line, t.line.budget
	o := &b.outage
	switch {
	case r.packed == nil && r.stop && r.wait > 0:
		b.stop(now, now.Add(r.wait), r.err.Error())
		k.log.Warn("authority wants no orders for a while", "authority", l.authority.Name(), "until", b.Stopped, "err", r.err)
	case r.lost():
		known := o.count > 0
		o.gated = r.entry.Seq == 0 && (o.gated || !known)
		if !o.note(t.begun, now, r.wait, r.err.Error()) {
			return
		}
		b.note(now, now.Add(min(r.wait, longestPause)))
		if !known {
			k.log.Warn("authority is out of reach", "authority", l.authority.Name(), "err", r.err)
		}
	case b.Stopped.After(now): // it was asked before it said that
		o.over()
		return
	case !b.Since.IsZero():
		k.back(l, now)
		return
	default:
		return
	}
	if len(k.schedule.lines) > 1 {
		k.schedule.arrange(now)
	}
}

// back notes that an authority takes orders again. Names that had moved and failed elsewhere need not wait for longer. The
// schedule's lock is held.
func (k *Keeper) back(l *line, now time.Time) {
	b, s := l.budget, &k.schedule
	k.log.Info("authority is there again", "authority", l.authority.Name(), "since", b.Since)
	long := b.Known.Sub(b.Since) >= s.move
	b.outage.over()
	b.silence = silence{}
	for _, i := range s.items {
		if long && i.cancel == nil && i.next.After(now) && i.refuser != l.authority.Name() && s.takes(l, i) {
			i.next, i.due = now, now
			s.put(i, now)
		}
	}
	s.arrange(now)
}

// fail notes a failed order. The schedule's lock is held.
func (k *Keeper) fail(i *item, t turn, r result, now time.Time) {
	if i.failures++; i.failing.IsZero() {
		i.failing = now
	}
	i.tried, i.problem, i.advice, i.refuser = now, r.problem(), r.advice, t.line.authority.Name()
	i.outage = r.outage
	longest := longestPause
	if r.outage {
		longest = min(longestBlameless, k.schedule.patience(i, now))
		if b := t.line.budget.limits; r.taken() {
			longest = max(longest, b.DomainPeriod/time.Duration(max(1, b.DomainOrders))) // or it uses its domain's limit up
		}
	}
	if r.refuses && k.schedule.another(t.line, i, now) {
		longest = min(longest, k.schedule.patience(i, now)) // then it moves
	}
	wait := pause(k.first, longest, i.failures)
	if !r.stop { // what the account has to wait for is not the name's
		wait = max(wait, r.wait)
		i.patience = latest(i.patience, now.Add(r.wait))
	}
	moves := k.schedule.absent(t.line, i, now)
	if r.refuses && now.Add(r.wait).Sub(i.failing) >= k.schedule.patience(i, now) {
		i.refused |= 1 << t.line.number
		moves = true
	}
	if moves && k.schedule.another(t.line, i, now) {
		wait = k.first
	} else if moves { // around again, when those that refuse it want to hear of it
		i.refused = 0
		wait = max(wait, i.patience.Sub(now))
	}
	i.next = now.Add(wait)
	i.due = i.next
}

// tell counts how an order ended, keeps its failure in the store, says it in the log, and returns whether it is a change.
func (k *Keeper) tell(ctx context.Context, name string, err error, failed *store.Order, stopped bool) (changed bool) {
	later, isLater := errors.AsType[*errLater](err)
	switch {
	case stopped, errors.Is(err, ErrNotReplaced):
		return false
	case isLater:
		k.log.Debug("order waits", "domain", name, "reason", later.why)
		return false
	case failed != nil:
		k.failed.Add(1)
		k.log.Warn("no certificate", "domain", name, "err", err)
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		if err := k.store.SaveOrder(sctx, *failed); err != nil {
			k.log.Error("did not keep a failed order", "domain", name, "err", err)
		}
	default:
		k.issued.Add(1)
		k.log.Info("obtained a certificate", "domain", name)
	}
	return true
}

// tellChange tells of a change of a name's certificate, also while we are stopping. It may take as long as a write, so
// nobody waits for it: no order's place is held.
func (k *Keeper) tellChange(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	k.onChange(ctx, name)
}

// obtain returns a certificate that fits its name and key and has not expired.
func (k *Keeper) obtain(ctx context.Context, i *item, t turn) result {
	var r result
	if t.unsaved != nil {
		r.cert = *t.unsaved
	} else {
		if r.entry, r.cert, r.err = k.enter(ctx, i, t); r.err == nil {
			// The gate's probe lies where the answer to a challenge does, so the name has to be ours.
			if r.err = k.gate(ctx, i.name, t.line.authority); r.err != nil {
				r.held, r.verdict = true, barred(r.err, t.claim.name, t.claim.domain)
				return r
			}
			r.cert, r.err = t.line.authority.Obtain(ctx, Request{Name: i.name, Replaces: t.replaces})
			if errors.Is(r.err, ErrNotReplaced) {
				return r
			}
			if r.err = overdue(ctx, r.err); r.err != nil {
				r.verdict = judge(r.err, t.claim.name, t.claim.domain)
				return r
			}
			r.cert.Authority = issuedBy(t.line.authority)
		} else if !errors.Is(r.err, errNewer) {
			r.verdict = verdict{outage: true}
			return r
		}
		r.err = nil
	}
	p, err := k.memory.pack(r.cert)
	switch {
	case err != nil:
		r.err = fmt.Errorf("refuse the certificate that came: %w", err)
	default:
		if s := (skew{time.Unix(p.notBefore, 0), time.Unix(p.notAfter, 0)}); s.lasts(time.Now()) {
			r.skew = &s
		}
		if r.packed = p; time.Now().Unix() > p.notAfter {
			r.packed, r.err, r.verdict = nil, fmt.Errorf("refuse the certificate that came: %w", r.skew), verdict{outage: true}
		} // one that is not valid yet is kept until it is
	}
	return r
}

// save writes a certificate, also while we are stopping.
func (k *Keeper) save(ctx context.Context, c store.Certificate) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	return k.store.SaveCertificate(ctx, c)
}
