package certs

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/store"
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

// nextQuestion takes the next name to ask for, and says how long to wait after that.
func (k *Keeper) nextQuestion(now time.Time) (string, time.Duration) {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.polls); n > 0; n = len(s.polls) {
		name := s.polls[n-1]
		l := k.issuerOf(name)
		if l == nil || now.Before(l.renewals.none.Add(24*time.Hour)) {
			s.polls = s.polls[:n-1]
			continue
		}
		if at, _ := l.budget.closed(now); at.After(now) || l.renewals.outage.until.After(now) {
			s.polls = s.polls[:n-1] // the next walk finds it again
			continue
		}
		if at := l.budget.questions.next(now); at.After(now) {
			return "", at.Sub(now)
		}
		s.polls = s.polls[:n-1]
		l.budget.questions.add(now)
		return name, 0
	}
	return "", walkEvery // which wakes us
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
	at, soon := k.learn(name, l, before, begun, w, err)
	if soon {
		k.keepMove(ctx, name, at)
	}
	if !at.IsZero() {
		k.move(name, before, at)
	}
}

// same says that it is the same certificate.
func (i info) same(o info) bool { return i.notAfter == o.notAfter && i.notBefore == o.notBefore }

// learn notes the answer for a certificate, and returns when it is to be renewed if that is earlier than planned, else zero.
// Soon says that this would be forgotten by a restart, and not asked for again in time.
func (k *Keeper) learn(name string, l *line, before info, begun time.Time, w Window, err error) (at time.Time, soon bool) {
	s := &k.schedule
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := k.memory.find(name)
	if !found || !i.same(before) { // it was replaced meanwhile
		return time.Time{}, false
	}
	ask := now.Add(w.Retry)
	switch {
	case errors.Is(err, ErrNoRenewalInfo):
		l.renewals.known, l.renewals.none = false, now
		return time.Time{}, false
	case err != nil:
		if v := judge(err, name, ""); v.outage { // orders may go on: RFC 9773 is an offer
			l.renewals.outage.note(begun, now, v.wait, err.Error())
		}
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
		return time.Time{}, false
	}
	planned := time.Unix(i.renew, 0)
	at, revoked := replan(name, planned, time.Unix(i.notBefore, 0), time.Unix(i.notAfter, 0), w, now)
	if revoked {
		k.log.Warn("the authority wants a certificate replaced at once", "domain", name, "authority", l.authority.Name(), "see", w.Explanation)
	}
	if !at.Before(planned) {
		return time.Time{}, false
	}
	// An order that runs or failed has its own row, and its own time.
	o := s.items[name]
	return at, at.Before(now.Add(keepMoves)) && i.wanted && (o == nil || o.cancel == nil && o.failures == 0 && !o.dropped)
}

// keepMove writes down that a certificate is to be renewed soon, whatever was planned. That is before anything is ordered,
// whose end deletes it.
func (k *Keeper) keepMove(ctx context.Context, name string, at time.Time) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := k.store.SaveOrder(ctx, store.Order{Name: name, Next: at}); err != nil && ctx.Err() == nil {
		k.log.Error("did not keep when a certificate is to be renewed", "domain", name, "err", err)
	}
}

// move has a certificate renewed earlier than planned.
func (k *Keeper) move(name string, before info, at time.Time) {
	s := &k.schedule
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := k.memory.find(name)
	if !found || !i.same(before) || !i.wanted {
		return
	}
	k.replan(name, i, at)
	if !at.Before(s.walked.Add(walkEvery)) {
		return
	}
	if o := k.revive(name, now); o != nil && o.due.After(at) && o.failures == 0 {
		o.due = at
		s.put(o, now)
	}
	s.notify()
}
