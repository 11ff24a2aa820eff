package certs

import (
	"container/heap"
	"context"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

const (
	// slowAfter is when an order stops counting against those in flight.
	slowAfter = 10 * time.Second
	// slowFactor bounds all running orders, slow ones included, as a multiple of those in flight.
	slowFactor = 8
	// longestPause lies between two orders of a name that fails.
	longestPause = 24 * time.Hour
	// longestRetryAfter bounds what we believe of a Retry-After.
	longestRetryAfter = 7 * 24 * time.Hour
	// lookAgain is how often the scheduler looks at the clock when nothing happens, since clocks jump.
	lookAgain = 5 * time.Minute
)

// urgency says which of two names is ordered first.
type urgency int

// From the most urgent on.
const (
	urgencyExpired  urgency = iota // senders look for the name, and its certificate has expired
	urgencyExpiring                // its certificate is to be renewed
	urgencyLive                    // senders look for the name, and there is no certificate
	urgencyNew                     // nobody looks for it yet
)

// item is what the scheduler knows of one name that it has something to do for. A name with a good certificate that is
// not to be renewed soon has none. The schedule's lock guards it.
type item struct {
	name, domain        string // domain: registered domain
	wanted              bool
	tenant              string    // whose limit may hold the first order; empty: nobody's
	live                bool      // senders look for the name
	dropped             bool      // being deleted: nothing may be saved any more
	since               time.Time // wanted since
	notBefore, notAfter time.Time // of the certificate; zero: none
	issuer              string    // of the certificate

	failures int
	outage   bool      // the last failure was not the name's fault
	failing  time.Time // first failure in a row
	tried    time.Time // last order
	next     time.Time // no order before
	problem  string
	advice   string
	refuser  string             // the authority that the last order failed at
	refused  uint64             // authorities that refuse the name for too long, as a set of their numbers
	patience time.Time          // until when one of those wants to be left alone by it
	unsaved  *store.Certificate // obtained, and the store did not take it
	urged    bool               // it was ordered in a pause, since its certificate is about to be revoked
	bare     bool               // its authority does not take an order as a replacement of the certificate

	due      time.Time // when it is to be ordered
	line     *line     // whose turn it waits for; nil: it waits for its time, or for nothing
	heap     *queue    // nil: not queued
	index    int       // in heap
	urgent   urgency   // when it was queued
	held     bool      // it waits for a limit of its own, until due at least
	spent    bool      // that is its tenant's
	waited   bool      // it has waited for that since its last order
	place    int       // when the queues were counted last, from 1 on; 0: it waits for no turn
	expected time.Time // and when it will be its turn then, also if it is held

	cancel context.CancelFunc // ends the running order; nil: none runs
	done   chan struct{}      // closed when the running order has ended
	again  bool               // should it fail, what was in its way may be gone since
}

func newItem(name string) *item {
	domain, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil { // it is a public suffix itself
		domain = name
	}
	return &item{name: name, domain: domain}
}

// urgency says how urgent a name is at a time.
func (i *item) urgency(now time.Time) urgency {
	switch {
	case i.notAfter.IsZero() && i.live:
		return urgencyLive
	case i.notAfter.IsZero(), !i.live && now.After(i.notAfter):
		return urgencyNew
	case now.After(i.notAfter):
		return urgencyExpired
	}
	return urgencyExpiring
}

// before says that i is ordered before o, as urgent as they were when they were queued.
func (i *item) before(o *item) bool {
	if i.urgent != o.urgent {
		return i.urgent < o.urgent
	}
	first, second := i.since, o.since
	if i.urgent <= urgencyExpiring {
		first, second = i.notAfter, o.notAfter
	}
	if !first.Equal(second) {
		return first.Before(second)
	}
	return i.name < o.name
}

// troubled says that the name failed and is itself to blame.
func (i *item) troubled() bool { return i.failures > 0 && !i.outage }

// line are the names that wait for their turn at one authority.
type line struct {
	number    int // in Config.Authorities
	authority Authority
	budget    *budget
	kept      string // what the store has of its silence; empty: nothing
	renewals  renewals
	polls     []string // names to ask the windows of

	free, counted, failing queue // those that the authority does not count, those that it does, those that failed
	saving                 queue // those whose certificates are there, and only to be saved
	// fresh are those of counted that nobody looks for yet, by tenant.
	fresh map[string]*queue
	// served is how many of fresh began.
	served uint64

	running      int // orders
	quick        int // those that run for less than slowAfter
	quickFailing int // those of them whose names failed before
}

// stagingMark ends the name of an authority in its certificates if no sender trusts them. So it is known of those too whose
// [acme.NAME] table is gone, or has another directory since.
const stagingMark = "+staging"

// issuedBy is what the store calls the authority of a certificate.
func issuedBy(a Authority) string {
	if a.Staging() {
		return a.Name() + stagingMark
	}
	return a.Name()
}

// lineOf is the line of the authority that a certificate is from; nil: it is none of ours.
func (s *schedule) lineOf(issuer string) *line {
	for _, l := range s.lines {
		if issuedBy(l.authority) == issuer {
			return l
		}
	}
	return nil
}

// provisional says that a certificate is to be replaced at once: no sender trusts it, and there is an authority now that is
// better.
func (s *schedule) provisional(issuer string) bool {
	return strings.HasSuffix(issuer, stagingMark) && len(s.lines) > 0 && !s.lines[0].authority.Staging()
}

// renewals is what is known of an authority's renewal information (RFC 9773).
type renewals struct {
	known bool      // it has some, so that an order that says what it replaces is not counted
	none  time.Time // it has none, as it said last; to be asked again a day later
	outage
}

// claim is an item as the budget sees it.
func (l *line) claim(i *item) claim {
	c := claim{
		name: i.name, domain: i.domain, exempt: l.exempts(i), failing: i.troubled(), patient: i.urgent == urgencyNew,
	}
	if i.notAfter.IsZero() {
		c.tenant = i.tenant
	}
	return c
}

// replaces says that an order for a name tells the authority which of its certificates it replaces. It does not where the
// last one went wrong on the authority's side, since that may be what it stumbles over.
func (l *line) replaces(i *item) bool {
	return !i.notAfter.IsZero() && !i.bare && i.issuer == issuedBy(l.authority) && (i.failures == 0 || !i.outage)
}

// exempts says that the authority does not count an order for a name (RFC 9773, Section 5).
func (l *line) exempts(i *item) bool { return l.renewals.known && l.replaces(i) }

// busy says that no more may run. While the authority took no order last, one goes alone.
func (l *line) busy() bool {
	if !l.budget.Since.IsZero() {
		return l.running > 0
	}
	limit, carried := l.budget.limits.InFlight, max(1, l.budget.limits.Carried())
	return l.quick >= limit || l.running >= min(limit*slowFactor, carried)
}

// take returns the next name to order, or nil and when to look again, if that is known. Names whose own limits are used
// up go to wait for those. What is only to be saved costs the authority nothing, and waits for none.
func (l *line) take(now time.Time, withhold func(*item) bool, later func(*item, time.Time)) (*item, time.Time) {
	if i := l.saving.first(); i != nil && l.running < l.budget.limits.InFlight*slowFactor {
		return i, now
	}
	turns := l.turns()
	if len(turns) == 0 || l.busy() {
		return nil, time.Time{} // who comes, and the end of an order, wakes the scheduler
	}
	again := l.budget.opens(now)
	if again = latest(again, l.budget.pace.next(now)); again.After(now) {
		return nil, again
	}
	again = time.Time{}
	for _, q := range turns {
		for i := q.first(); i != nil; i = q.first() {
			if withhold(i) {
				continue
			}
			c := l.claim(i)
			if at, _ := l.budget.own(now, c); at.After(now) {
				later(i, at)
				continue
			}
			at := l.budget.account(now, c)
			if !at.After(now) {
				return i, now
			}
			if again.IsZero() || at.Before(again) {
				again = at
			}
			if c.patient && !c.failing && !c.exempt {
				return nil, again // it is the same for all who are left
			}
			break
		}
	}
	return nil, again
}

// schedule decides which name is ordered next.
type schedule struct {
	wake chan struct{} // capacity 1: look again
	asks chan struct{} // capacity 1: there are new polls
	move time.Duration // see [Config.MoveAfter]
	// awaits, capacity 1, says that other processes have orders that run.
	awaits chan struct{}

	mu    sync.Mutex // guards what follows, every item and every line
	items map[string]*item
	later queue // items that wait for a time
	// elsewhere are the names that another process is ordering.
	elsewhere map[string]struct{}
	lines     []*line // by authority, in order of preference
	tenants   map[string]*tenant
	plans     plans
	walked    time.Time // the last walk over the memory
	swept     time.Time // when budgets and plans forgot what is past
	ranked    time.Time // when places are to be counted again
	rankNot   time.Time // not before, even for who came since
}

func (s *schedule) init(authorities []Authority, budgets []config.Budget, first, move time.Duration) {
	s.wake, s.asks, s.awaits = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	s.elsewhere, s.tenants = make(map[string]struct{}), make(map[string]*tenant)
	s.move = move
	s.items = make(map[string]*item)
	s.later.less = func(a, b *item) bool { return a.due.Before(b.due) }
	s.plans.init()
	for n, a := range authorities {
		l := &line{number: n, authority: a, budget: newBudget(budgets[n], first)}
		l.renewals.first = first / outageShare
		for _, q := range []*queue{&l.free, &l.counted, &l.failing, &l.saving} {
			q.less = (*item).before
		}
		l.fresh = make(map[string]*queue)
		s.lines = append(s.lines, l)
	}
}

// notify wakes the scheduler.
func (s *schedule) notify() { poke(s.wake) }

// poke wakes who reads from a channel of capacity 1, now or when it looks next.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// item returns the item of a name, a new one if there is none. The caller holds mu.
func (s *schedule) item(name string) *item {
	i := s.items[name]
	if i == nil {
		i = newItem(name)
		s.items[name] = i
	}
	return i
}

// put places an item where it belongs: to wait for its time, for its turn, or nowhere. The caller holds mu.
func (s *schedule) put(i *item, now time.Time) {
	s.unqueue(i)
	if !i.wanted || i.dropped || i.cancel != nil || len(s.lines) == 0 {
		return
	}
	if i.due = latest(i.due, i.next); i.due.After(now) {
		s.later.push(i)
		return
	}
	i.line, i.urgent = s.choose(i, now), i.urgency(now)
	i.line.queueOf(i).push(i)
}

// unqueue takes an item out of its queue.
func (s *schedule) unqueue(i *item) {
	if i.heap != nil {
		heap.Remove(i.heap, i.index)
	}
	if i.spent {
		s.tenants[i.tenant].held--
	}
	i.line, i.held, i.spent, i.place, i.expected = nil, false, false, 0, time.Time{}
}

// forget takes an item away. The caller holds mu.
func (s *schedule) forget(i *item) {
	s.unqueue(i)
	delete(s.items, i.name)
}

// arrange has all that wait for a turn choose again: an authority came back, went away, or turned out to have renewal
// information. The caller holds mu.
func (s *schedule) arrange(now time.Time) {
	for _, i := range s.items {
		if i.line == nil {
			continue
		}
		if l := s.choose(i, now); l != i.line || l.queueOf(i) != i.heap || i.urgency(now) != i.urgent {
			s.put(i, now)
		}
	}
}

// correct has names looked at again that wait for a time which only a clock that was ahead can have said, or whose own
// limits counted by it. The caller holds mu.
func (s *schedule) correct(now time.Time) {
	far := now.Add(longestRetryAfter)
	for _, i := range s.items {
		if i.cancel == nil && (i.next.After(far) || i.held && i.due.After(far)) {
			i.due = now
			if i.next.After(far) {
				i.next = now
			}
			s.put(i, now)
		}
	}
}

// take returns the next name to order and the line that it stood in, off its queue, or nil and how long to wait. The
// caller holds mu.
func (s *schedule) take(now time.Time) (*item, *line, time.Duration) {
	for i := s.later.first(); i != nil && !i.due.After(now); i = s.later.first() {
		s.put(i, now)
	}
	wait := lookAgain
	for _, l := range s.lines {
		withhold := func(i *item) bool { return s.withhold(i, now) }
		i, again := l.take(now, withhold, func(i *item, until time.Time) {
			i.due = until
			s.put(i, now)
			i.held = true
		})
		if i != nil {
			l.serve(i)
			s.unqueue(i)
			return i, l, 0
		}
		if !again.IsZero() {
			wait = min(wait, again.Sub(now))
		}
	}
	if i := s.later.first(); i != nil {
		wait = min(wait, i.due.Sub(now))
	}
	return nil, nil, max(wait, 0)
}

// occupy takes a place for an order and returns what frees it. The caller holds mu.
func (s *schedule) occupy(l *line, failing bool) (free func()) {
	n := 0
	if failing {
		n = 1
	}
	l.running++
	l.quick++
	l.quickFailing += n
	quick := true
	leave := func() {
		if quick {
			quick = false
			l.quick--
			l.quickFailing -= n
		}
	}
	slow := time.AfterFunc(slowAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		leave()
		s.notify()
	})
	return func() {
		slow.Stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		leave()
		l.running--
		s.notify()
	}
}
