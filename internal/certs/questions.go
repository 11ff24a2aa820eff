package certs

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"
)

// asks says that it is time to ask for the window of a certificate. After a start nobody knows when that was done last, so
// those questions are spread by name.
func (k *Keeper) asks(name []byte, i info, now time.Time) bool {
	if i.poll != 0 {
		return i.poll <= now.Unix()
	}
	return k.started.Add(time.Duration(maphash.Bytes(k.memory.seed, name) % uint64(askEvery))).Before(now)
}

// ask asks authorities for windows until ctx ends.
func (k *Keeper) ask(ctx context.Context) {
	var g sync.WaitGroup
	defer g.Wait()
	names := make(chan string)
	for range askers {
		g.Go(func() {
			for name := range names {
				k.window(ctx, name)
			}
		})
	}
	defer close(names)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.schedule.asks:
		case <-timer.C:
		}
		name, wait := k.nextQuestion(time.Now())
		if name != "" {
			select {
			case names <- name:
			case <-ctx.Done():
				return
			}
		}
		timer.Reset(wait)
	}
}

// nextQuestion takes the next name to ask for, and says how long to wait after that. Names whose authority is to be left
// alone for a while keep their turns.
func (k *Keeper) nextQuestion(now time.Time) (string, time.Duration) {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := walkEvery // which wakes us
	for _, l := range s.lines {
		if now.Before(l.renewals.none.Add(24 * time.Hour)) {
			l.polls = nil
		}
		for n := len(l.polls); n > 0; n = len(l.polls) {
			at, _ := l.budget.closed(now)
			at = latest(latest(at, l.renewals.outage.until), l.budget.questions.next(now))
			if at.After(now) {
				wait = min(wait, at.Sub(now))
				break
			}
			name := l.polls[n-1]
			l.polls = l.polls[:n-1]
			if k.issuerOf(name) != l { // it was replaced meanwhile
				continue
			}
			l.budget.questions.add(now)
			if l.renewals.count > 0 { // then one at a time
				l.renewals.until = now.Add(askFor)
			}
			return name, 0
		}
	}
	return "", wait
}

// issuerOf is the line of the authority that a name's certificate came from; nil: it is none of ours.
func (k *Keeper) issuerOf(name string) *line {
	i, found := k.memory.find(name)
	if !found {
		return nil
	}
	return k.schedule.lineOf(k.memory.authorityName(i.authority))
}

// window asks for the window of one certificate.
func (k *Keeper) window(ctx context.Context, name string) {
	s := &k.schedule
	s.mu.Lock()
	l := k.issuerOf(name)
	s.mu.Unlock()
	before, _ := k.memory.find(name)
	leaf := k.memory.leaf(name)
	if l == nil || leaf == nil {
		return
	}
	begun := time.Now()
	actx, cancel := context.WithTimeout(ctx, askFor)
	w, err := l.authority.Window(actx, leaf)
	cancel()
	if ctx.Err() != nil {
		return
	}
	m := k.learn(name, l, before, begun, w, err)
	if m.soon {
		k.keepMove(ctx, name, before, m.at)
	}
	if !m.at.IsZero() {
		k.move(name, before, m)
	}
}

// same says that it is the same certificate.
func (i info) same(o info) bool { return i.notAfter == o.notAfter && i.notBefore == o.notBefore }

// fail notes a question without an answer, if that is not the question's fault. Orders may go on: RFC 9773 is an offer.
func (r *renewals) fail(begun, now time.Time, err error) {
	v := judge(err, "", "")
	if !v.outage { // it answered
		r.over()
		return
	}
	r.outage.note(begun, now, v.wait, err.Error())
	if _, answered := errors.AsType[*Problem](err); !answered && r.count < lostAnswers {
		r.until = now
	}
}

// moved is when a certificate is to be renewed because its authority says so.
type moved struct {
	at     time.Time // zero: as planned
	atOnce bool      // it is about to be revoked
	soon   bool      // a restart would forget it, and not ask again in time
}

// learn notes the answer for a certificate, and returns what that changes, or what is to be written down now that it is near.
func (k *Keeper) learn(name string, l *line, before info, begun time.Time, w Window, err error) moved {
	s := &k.schedule
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := k.memory.find(name)
	if !found || !i.same(before) { // it was replaced meanwhile
		return moved{}
	}
	ask := now.Add(w.Retry)
	switch {
	case errors.Is(err, ErrNoRenewalInfo):
		l.renewals.known, l.renewals.none = false, now
		return moved{}
	case err != nil:
		l.renewals.fail(begun, now, err)
		ask = now.Add(askAgain)
	default:
		l.renewals.outage.over()
		if !l.renewals.known {
			l.renewals.known = true
			s.arrange(now)
		}
	}
	k.memory.mark(name, func(i *info) { i.poll = ask.Unix() })
	if err != nil {
		return moved{}
	}
	planned := time.Unix(i.renew, 0)
	at, revoked := replan(name, planned, time.Unix(i.notBefore, 0), time.Unix(i.notAfter, 0), w, now)
	if revoked {
		k.log.Warn("the authority wants a certificate replaced at once", "domain", name, "authority", l.authority.Name(), "see", w.Explanation)
	}
	if !at.Before(planned) {
		if drawn := within(draw(name, time.Unix(i.notAfter, 0)), w.Start, w.End); drawn.Unix() != i.renew {
			return moved{}
		}
		at = planned // the window's, as learnt when it was far away
	}
	// An order that runs or failed has its own row, and its own time.
	o := s.items[name]
	soon := at.Before(now.Add(keepMoves)) && i.wanted && (o == nil || o.cancel == nil && o.failures == 0 && !o.dropped)
	return moved{at, revoked, soon}
}

// keepMove writes down that a certificate is to be renewed soon, whatever was planned. An order that was begun meanwhile goes
// before: its certificate is another one, and its failure has a time of its own.
func (k *Keeper) keepMove(ctx context.Context, name string, of info, at time.Time) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	err := k.store.PlanOrder(ctx, name, time.Unix(of.notBefore, 0), time.Unix(of.notAfter, 0), at)
	if err != nil && ctx.Err() == nil {
		k.log.Error("did not keep when a certificate is to be renewed", "domain", name, "err", err)
	}
}

// move has a certificate renewed earlier than planned. One that is about to be revoked does not wait for the end of a pause
// either, once.
func (k *Keeper) move(name string, before info, m moved) {
	s := &k.schedule
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := k.memory.find(name)
	if !found || !i.same(before) || !i.wanted {
		return
	}
	k.replan(name, i, m.at)
	if !m.at.Before(s.walked.Add(walkEvery)) {
		return
	}
	o := k.revive(name, now)
	if o != nil && o.failures > 0 && m.atOnce && !o.urged && o.next.After(m.at) {
		o.urged, o.next, o.due = true, m.at, m.at
		s.put(o, now)
	} else if o != nil && o.failures == 0 && o.due.After(m.at) {
		o.due = m.at
		s.put(o, now)
	}
	s.notify()
}
