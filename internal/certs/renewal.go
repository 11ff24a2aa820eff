package certs

import (
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	// walkEvery is how often the memory is walked for names that are to be renewed, or whose windows are to be asked for,
	// before the next walk.
	walkEvery = time.Hour
	// askEvery is how often an authority is asked for the window of a certificate if it does not say.
	askEvery = 6 * time.Hour
	// keepMoves is how soon a renewal has to be that is moved for it to be written down: the next answer may come too late
	// after a restart, since a round of questions takes so long with a million names.
	keepMoves = 3 * 24 * time.Hour
	// lostAnswers in a row are an authority that is out of reach, and fewer are some that were lost.
	lostAnswers = 3
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

// plan is when a certificate is renewed: some time up to the end of renewBounds, where few others are. The caller enters it,
// and keeps it, since the others will have changed by the next time.
func (p *plans) plan(name string, notBefore, notAfter, now time.Time) time.Time {
	best := replanned(name, notBefore, notAfter, now)
	for _, t := range drawn(name, notBefore, notAfter) {
		if t.After(now) && p.hours[t.Unix()/3600] < p.hours[best.Unix()/3600] {
			best = t
		}
	}
	return best
}

// drawn are the times from which one is taken. They are the certificate's own, and the same whenever they are asked for.
func drawn(name string, notBefore, notAfter time.Time) [draws]time.Time {
	from, to := renewBounds(notBefore, notAfter)
	r := draw(name, notAfter)
	var times [draws]time.Time
	for n := range times {
		times[n] = within(r, from, to)
	}
	return times
}

// replanned is when a certificate is renewed whose plan is not known, or past: at the first of its times that is not, which
// spreads what was due meanwhile. It depends on nothing else, so that no restart puts it off. What is late already has
// one time too.
func replanned(name string, notBefore, notAfter, now time.Time) time.Time {
	for _, t := range drawn(name, notBefore, notAfter) {
		if t.After(now) {
			return t
		}
	}
	_, to := renewBounds(notBefore, notAfter)
	return latest(within(draw(name, notAfter), to, to.Add(min(overdueFor, notAfter.Sub(to)/4))), now)
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

// firstPlan draws when a certificate that came is renewed, unless another process has.
func (k *Keeper) firstPlan(c store.Certificate, now time.Time) time.Time {
	if c.Renew.After(now) {
		return c.Renew
	}
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	at := now
	if !s.provisional(c.Authority) {
		at = s.plans.plan(c.Name, c.NotBefore, c.NotAfter, now)
	}
	// An authority with a clock of its own must not make us order in a circle.
	return latest(at, now.Add(max(0, c.NotAfter.Sub(now)/4))).Truncate(time.Second)
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
	at := time.Unix(i.renew, 0)
	switch {
	case k.schedule.provisional(k.memory.authorityName(i.authority)):
		at = now
	case !at.After(now):
		at = replanned(name, time.Unix(i.notBefore, 0), time.Unix(i.notAfter, 0), now)
	}
	i.renew = 0 // it is in no count
	k.replan(name, i, at)
	return at
}

// unplan forgets when a name is renewed. The schedule's lock is held.
func (k *Keeper) unplan(name string) {
	if i, found := k.memory.find(name); found && i.renew != 0 {
		if i.wanted { // else it is in no count
			k.schedule.plans.add(i.renew, -1)
		}
		k.memory.mark(name, func(i *info) { i.renew = 0 })
	}
}

// walk makes items of the names that are to be renewed before the next walk, and has the windows asked for that are due.
func (k *Keeper) walk(now time.Time) {
	s := &k.schedule
	until := now.Add(walkEvery + 2*lookAgain)
	var due []string
	ask := make([][]string, len(s.lines))
	k.memory.each(func(name []byte, i info) bool {
		if !i.wanted {
			return true
		}
		if i.renew <= until.Unix() {
			due = append(due, string(name))
		} else if l := s.lineOf(k.memory.authorityName(i.authority)); l != nil && k.asks(name, i, now) {
			ask[l.number] = append(ask[l.number], string(name))
		}
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range due {
		k.revive(name, now)
	}
	// No more than can be asked until the next walk: the others' turns come then.
	for n, names := range ask {
		rand.Shuffle(len(names), func(a, b int) { names[a], names[b] = names[b], names[a] })
		if s.lines[n].polls = names; len(names) > 0 {
			poke(s.asks)
		}
	}
	if now.Sub(s.swept) >= 24*time.Hour {
		s.swept = now
		s.plans.sweep(now)
		s.sweepTenants(now)
		for _, l := range s.lines {
			l.budget.sweep(now)
		}
	}
	s.arrange(now)
	s.correct(now)
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
