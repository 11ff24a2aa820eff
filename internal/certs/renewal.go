package certs

import (
	"context"
	"errors"
	"hash/fnv"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// walkEvery is how often the memory is walked for names that are to be renewed, or whose windows are to be asked for,
	// before the next walk.
	walkEvery = time.Hour
	// askEvery is how often an authority is asked for the window of a certificate if it does not say.
	askEvery = 6 * time.Hour
	// askAgain is when it is asked again after an error.
	askAgain = time.Hour
	// askFor is how long an answer is waited for, the turn for the session with the authority included.
	askFor = time.Minute
	// askers ask at the same time.
	askers = 4
	// shortLived are certificates that are renewed at half of their lives.
	shortLived = 10 * 24 * time.Hour
	// overdueFor is what renewals that are overdue are spread over, from the end of renewBounds on.
	overdueFor = 6 * time.Hour
	// draws is how many times are drawn for a renewal, of which the one with the fewest others near it is taken.
	draws = 12
)

// plans counts the renewals that are planned, by the hour, so that they are spread whatever was obtained together: the
// schedule's lock guards it.
type plans struct{ hours map[int64]int }

func (p *plans) init() { p.hours = make(map[int64]int) }

func (p *plans) add(unix int64, n int) {
	hour := unix / 3600
	if p.hours[hour] += n; p.hours[hour] <= 0 {
		delete(p.hours, hour)
	}
}

// sweep forgets the past.
func (p *plans) sweep(now time.Time) {
	for hour := range p.hours {
		if hour < now.Unix()/3600 {
			delete(p.hours, hour)
		}
	}
}

// renewBounds is when a certificate may be renewed where its authority says nothing: from half of its life on, until a
// third of it is left; around half of it if it lives for less than 10 days.
func renewBounds(notBefore, notAfter time.Time) (from, to time.Time) {
	life := notAfter.Sub(notBefore)
	half := notBefore.Add(life / 2)
	if life < shortLived {
		return half.Add(-life / 20), half
	}
	return half, notAfter.Add(-min(life/3, 30*24*time.Hour))
}

// lateAt is when a renewal that did not happen is a fault: a quarter of the time that is left for it has passed.
func lateAt(notBefore, notAfter time.Time) time.Time {
	_, to := renewBounds(notBefore, notAfter)
	return to.Add(notAfter.Sub(to) / 4)
}

// draw returns numbers that are a name's own: the same for the same name and certificate, and spread over all names.
func draw(name string, notAfter time.Time) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	return rand.New(rand.NewPCG(h.Sum64(), uint64(notAfter.Unix())))
}

// within is a time between two.
func within(r *rand.Rand, from, to time.Time) time.Time {
	if d := to.Sub(from); d > 0 {
		return from.Add(time.Duration(r.Int64N(int64(d))))
	}
	return from
}

// plan is when a certificate is renewed: some time up to the end of renewBounds, where few others are. The time of what is
// late already is the same whenever it is asked for, so that no restart puts it off. The caller enters it.
func (p *plans) plan(name string, notBefore, notAfter, now time.Time) time.Time {
	from, to := renewBounds(notBefore, notAfter)
	r := draw(name, notAfter)
	if !now.Before(to) {
		return latest(within(r, to, to.Add(min(overdueFor, notAfter.Sub(to)/4))), now)
	}
	from = latest(from, now)
	best := within(r, from, to)
	for range draws - 1 {
		if t := within(r, from, to); p.hours[t.Unix()/3600] < p.hours[best.Unix()/3600] {
			best = t
		}
	}
	return best
}

// replan moves a planned renewal into the window that the authority gives: not later than a time drawn in it. A window
// that is over announces that the certificate is about to be revoked. One whose windows always are must not make us order
// in a circle, so a certificate is kept for a day.
func replan(name string, planned, notBefore, notAfter time.Time, w Window, now time.Time) (at time.Time, revoked bool) {
	soonest := latest(now, notBefore.Add(min(24*time.Hour, notAfter.Sub(notBefore)/4)))
	if !w.End.After(now) {
		return soonest, true
	}
	drawn := within(draw(name, notAfter), w.Start, w.End)
	if planned.Before(drawn) {
		return planned, false
	}
	return latest(drawn, soonest), false
}

// asks says that it is time to ask for the window of a certificate. After a start nobody knows when that was done last, so
// those questions are spread by name.
func (k *Keeper) asks(name []byte, i info, now time.Time) bool {
	if i.poll != 0 {
		return i.poll <= now.Unix()
	}
	return k.started.Add(time.Duration(maphash.Bytes(k.memory.seed, name) % uint64(askEvery))).Before(now)
}

// plan enters when the certificate of a name that is in memory is renewed. The schedule's lock is held.
func (k *Keeper) plan(name string, now time.Time) time.Time {
	i, found := k.memory.find(name)
	if !found {
		return now
	}
	at := now
	if s := &k.schedule; !s.provisional(k.memory.authorityName(i.authority)) {
		at = s.plans.plan(name, time.Unix(i.notBefore, 0), time.Unix(i.notAfter, 0), now)
	}
	k.replan(name, i, at)
	return at
}

// replan enters another time. The schedule's lock is held.
func (k *Keeper) replan(name string, i info, at time.Time) {
	p := &k.schedule.plans
	if i.renew != 0 {
		p.add(i.renew, -1)
	}
	p.add(at.Unix(), 1)
	k.memory.mark(name, func(i *info) { i.renew = at.Unix() })
}

// keep enters the time for which a name was planned before the start, or a new one where that is past. The schedule's
// lock is held.
func (k *Keeper) keep(name string, i info, now time.Time) time.Time {
	if i.renew <= now.Unix() || k.schedule.provisional(k.memory.authorityName(i.authority)) {
		k.memory.mark(name, func(i *info) { i.renew = 0 }) // it is in no count
		return k.plan(name, now)
	}
	k.schedule.plans.add(i.renew, 1)
	return time.Unix(i.renew, 0)
}

// unplan forgets when a name is renewed. The schedule's lock is held.
func (k *Keeper) unplan(name string) {
	if i, found := k.memory.find(name); found && i.renew != 0 {
		k.schedule.plans.add(i.renew, -1)
		k.memory.mark(name, func(i *info) { i.renew = 0 })
	}
}

// walk makes items of the names that are to be renewed before the next walk, and has the windows asked for that are due.
func (k *Keeper) walk(now time.Time) {
	s := &k.schedule
	until := now.Add(walkEvery + 2*lookAgain)
	var due, ask []string
	k.memory.each(func(name []byte, i info) bool {
		if !i.wanted {
			return true
		}
		if i.renew <= until.Unix() {
			due = append(due, string(name))
		} else if k.asks(name, i, now) {
			ask = append(ask, string(name))
		}
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range due {
		k.revive(name, now)
	}
	// No more than can be asked until the next walk: the others' turns come then.
	rand.Shuffle(len(ask), func(a, b int) { ask[a], ask[b] = ask[b], ask[a] })
	if s.polls = ask; len(ask) > 0 {
		select {
		case s.asks <- struct{}{}:
		default:
		}
	}
	if now.Sub(s.swept) >= 24*time.Hour {
		s.swept = now
		s.plans.sweep(now)
		for _, l := range s.lines {
			l.budget.sweep(now)
		}
	}
	s.arrange(now)
	s.walked = now
}

// revive makes an item of a name whose certificate is in memory, to be renewed when that is planned. The schedule's lock
// is held.
func (k *Keeper) revive(name string, now time.Time) *item {
	s := &k.schedule
	i := s.items[name]
	known, found := k.memory.find(name)
	if i != nil && (i.wanted || i.dropped) || !found {
		return i
	}
	i = s.item(name)
	i.wanted, i.live, i.since = true, true, now
	k.recall(i, known)
	i.due = time.Unix(known.renew, 0)
	s.put(i, now)
	return i
}

// recall notes in an item what the memory knows of its certificate.
func (k *Keeper) recall(i *item, known info) {
	i.notBefore, i.notAfter = time.Unix(known.notBefore, 0), time.Unix(known.notAfter, 0)
	i.issuer = k.memory.authorityName(known.authority)
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
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := k.memory.find(name)
	if !found || i.notAfter != before.notAfter || i.notBefore != before.notBefore { // it was replaced meanwhile
		return
	}
	ask := now.Add(w.Retry)
	switch {
	case errors.Is(err, ErrNoRenewalInfo):
		l.renewals.known, l.renewals.none = false, now
		return
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
		return
	}
	planned := time.Unix(i.renew, 0)
	at, revoked := replan(name, planned, time.Unix(i.notBefore, 0), time.Unix(i.notAfter, 0), w, now)
	if revoked {
		k.log.Warn("the authority wants a certificate replaced at once", "domain", name, "authority", l.authority.Name(), "see", w.Explanation)
	}
	if at.Before(planned) {
		k.replan(name, i, at)
	}
	if at.Before(planned) && at.Before(s.walked.Add(walkEvery)) {
		if i := k.revive(name, now); i != nil && i.due.After(at) && i.failures == 0 {
			i.due = at
			s.put(i, now)
		}
		s.notify()
	}
}
