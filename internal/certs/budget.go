package certs

import (
	"fmt"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

const (
	// failurePeriod is that of [config.Budget.Failures].
	failurePeriod = time.Hour
	// failingShare is the part of an account's orders that names which failed before may have, as a divisor, so that a
	// crowd of broken names delays no good one.
	failingShare = 10
	// clockSlack is how far ahead of our clock a time may be that is believed: those of nodes differ a little.
	clockSlack = time.Minute
)

// window is a log of what was begun within a period. Whatever is begun when it says so is no more than limit in any span
// of that length, which also satisfies a token bucket of that size and rate.
type window struct {
	limit  int
	period time.Duration
	times  []int64 // Unix microseconds, in order; some may be older than the period
}

// fresh forgets what is older than the period. What a clock counted that was ahead counts as if it were begun now.
func (w *window) fresh(now time.Time) {
	for n := len(w.times); n > 0 && w.times[n-1] > now.Add(clockSlack).UnixMicro(); n-- {
		w.times[n-1] = now.UnixMicro()
	}
	from := now.Add(-w.period).UnixMicro()
	n, _ := slices.BinarySearch(w.times, from+1)
	w.times = w.times[n:]
}

// nth is when the n-th from now (from 0) can begin if all before it do as early as they can.
func (w *window) nth(now time.Time, n int) time.Time {
	w.fresh(now)
	limit := max(w.limit, 1)
	begin := now.Add(time.Duration(n/limit) * w.period) // so many of those that are still to come have to grow old first
	freed := len(w.times) + n%limit - limit
	if freed < 0 {
		return begin
	}
	return begin.Add(time.UnixMicro(w.times[freed]).Add(w.period).Sub(now))
}

// next is when one more can begin.
func (w *window) next(now time.Time) time.Time { return w.nth(now, 0) }

func (w *window) add(t time.Time) {
	at := t.UnixMicro()
	i := len(w.times)
	for i > 0 && w.times[i-1] > at { // another process's, or the clock went back
		i--
	}
	w.times = slices.Insert(w.times, i, at)
}

// take back what was added and not begun after all.
func (w *window) takeBack(t time.Time) {
	if i, found := slices.BinarySearch(w.times, t.UnixMicro()); found {
		w.times = slices.Delete(w.times, i, i+1)
	}
}

// paced is when one more can begin that is in no hurry: once half of the limit is used up, those come at even intervals,
// so that what is urgent need not wait until a burst has grown old.
func (w *window) paced(now time.Time) time.Time {
	at := w.next(now)
	if n := len(w.times); n > 0 && 2*n >= w.limit {
		at = latest(at, time.UnixMicro(w.times[n-1]).Add(w.period/time.Duration(max(w.limit, 1))))
	}
	return at
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// claim is an order as budgets see it.
type claim struct {
	name, domain string
	exempt       bool   // the authority counts it against no limit of orders
	failing      bool   // the name failed before
	patient      bool   // nobody waits for it more than for others
	tenant       string // whose first certificate it is for; empty: it is counted for none
}

// budget is what one account may do. It is a pure account of what was done: the schedule's lock guards it, the journal
// keeps it.
type budget struct {
	limits    config.Budget
	orders    window
	failing   window             // of the orders, those of names that failed before
	pace      window             // orders, exempt ones too, as many as PerSecond has requests for
	questions window             // for windows; half as many, so that orders have room
	domains   map[string]*window // of the orders, by registered domain
	failures  map[string]*window // by name

	silence
	outage outage
	skew   *skew // the last certificate that came shows that our clock is wrong; nil: it does not
}

func newBudget(limits config.Budget, first time.Duration) *budget {
	return &budget{
		limits:    limits,
		orders:    window{limit: limits.Orders, period: limits.OrdersPeriod},
		failing:   window{limit: max(1, limits.Orders/failingShare), period: limits.OrdersPeriod},
		pace:      window{limit: max(1, limits.PerSecond), period: config.RequestsAnOrder * time.Second},
		questions: window{limit: limits.PerSecond / 2, period: time.Second},
		domains:   make(map[string]*window),
		failures:  make(map[string]*window),
		outage:    outage{first: first / outageShare},
	}
}

// opens is until when nothing at all may be begun; not after now: now.
func (b *budget) opens(now time.Time) time.Time {
	b.trust(now)
	b.outage.trust(now)
	if b.skew != nil && !b.skew.lasts(now) {
		b.skew = nil // or it would be wrong again when that certificate ends
	}
	if b.skew != nil {
		return now.Add(lookAgain)
	}
	return latest(now, latest(b.Stopped, b.outage.until))
}

// closed is what opens is, and why.
func (b *budget) closed(now time.Time) (time.Time, string) {
	b.opens(now)
	switch {
	case b.skew != nil:
		return now.Add(lookAgain), b.skew.Error()
	case b.Stopped.After(now):
		return b.Stopped, "it wants no orders until " + clock(b.Stopped) + ": " + b.Reason
	case b.outage.until.After(now):
		return b.outage.until, fmt.Sprintf("it is out of reach since %s: %s", clock(b.outage.since), b.outage.reason)
	}
	return now, ""
}

// own is when what is counted by name and by registered domain allows an order.
func (b *budget) own(now time.Time, c claim) (time.Time, string) {
	at, why := now, ""
	if w := b.failures[c.name]; w != nil && w.next(now).After(at) {
		at, why = w.next(now), fmt.Sprintf("%d validations failed within an hour", len(w.times))
	}
	if w := b.domains[c.domain]; w != nil && !c.exempt && w.next(now).After(at) {
		at, why = w.next(now), fmt.Sprintf("%d orders for %s in %s are used up", w.limit, c.domain, span(w.period))
	}
	return at, why
}

// account is when the account as a whole allows an order that is counted.
func (b *budget) account(now time.Time, c claim) time.Time {
	switch {
	case c.exempt:
		return now
	case c.failing:
		return latest(b.failing.next(now), b.orders.next(now))
	case c.patient:
		return b.orders.paced(now)
	}
	return b.orders.next(now)
}

// exceeded says that more was counted than is allowed, an order that is counted already among it.
func (b *budget) exceeded(now time.Time, c claim) bool {
	over := func(w *window) bool {
		if w == nil {
			return false
		}
		w.fresh(now)
		return len(w.times) > max(w.limit, 1)
	}
	return !c.exempt && (over(&b.orders) || over(b.domains[c.domain]))
}

// begin counts an order.
func (b *budget) begin(at time.Time, c claim) {
	if c.exempt {
		return
	}
	b.orders.add(at)
	if c.failing {
		b.failing.add(at)
	}
	w := b.domains[c.domain]
	if w == nil {
		w = &window{limit: b.limits.DomainOrders, period: b.limits.DomainPeriod}
		b.domains[c.domain] = w
	}
	w.add(at)
}

// takeBack uncounts an order that was not sent.
func (b *budget) takeBack(at time.Time, c claim) {
	if c.exempt {
		return
	}
	b.orders.takeBack(at)
	b.failing.takeBack(at)
	if w := b.domains[c.domain]; w != nil {
		w.takeBack(at)
	}
}

// spare uncounts an order for its registered domain, which gets no certificate by it. The account has made it.
func (b *budget) spare(at time.Time, domain string) {
	if w := b.domains[domain]; w != nil {
		w.takeBack(at)
	}
}

// fail counts a failed validation.
func (b *budget) fail(name string, at time.Time) {
	w := b.failures[name]
	if w == nil {
		w = &window{limit: b.limits.Failures, period: failurePeriod}
		b.failures[name] = w
	}
	w.add(at)
}

// replay counts what the journal says of an order that this process did not make, and what it said before; Seq 0: nothing.
func (b *budget) replay(e, before store.JournalEntry, now time.Time) {
	c := claim{name: e.Name, domain: e.Domain, exempt: before.Exempt}
	switch {
	case before.Seq == 0:
		c.exempt = e.Exempt
		b.begin(e.Begun, c)
	case e.Exempt: // it was not sent after all
		b.takeBack(e.Begun, c)
	}
	if e.Reason != "" {
		b.spare(e.Begun, e.Domain)
	}
	if e.Failed {
		b.fail(e.Name, e.Ended)
	}
	if e.Stopped.After(now) {
		b.stop(e.Ended, e.Stopped, e.Reason)
	}
}

// sweep forgets what counts for nothing any more.
func (b *budget) sweep(now time.Time) {
	b.closed(now)
	for _, all := range []map[string]*window{b.domains, b.failures} {
		for key, w := range all {
			if w.fresh(now); len(w.times) == 0 {
				delete(all, key)
			}
		}
	}
}

const (
	// outageShare is the part of [Config.FirstPause], as a divisor, for which an authority is left alone after the first
	// sign that it is out of reach. That grows threefold up to longestOutage, and orders go out one at a time until one is
	// answered.
	outageShare   = 15
	longestOutage = 15 * time.Minute
)

// outage is an authority that does not answer, or answers that something is wrong with itself.
type outage struct {
	first  time.Duration // pause after the first try
	count  int           // tries in a row; 0: there is none
	since  time.Time
	tried  time.Time // last one
	until  time.Time // none before
	gated  bool      // only the gate asked in vain, no order
	reason string
}

// note counts a try that was begun at a time, and says whether it does. Those that were under way already when it was
// found out say nothing new.
func (o *outage) note(begun, now time.Time, retry time.Duration, reason string) bool {
	if o.count > 0 && !begun.After(o.tried) {
		return false
	}
	if o.count == 0 {
		o.since = now
	}
	o.count++
	o.tried, o.reason = now, reason
	o.until = now.Add(max(min(retry, longestPause), pause(o.first, longestOutage, o.count)))
	return true
}

// trust mends what only a clock that was ahead can have said.
func (o *outage) trust(now time.Time) {
	if o.until.After(now.Add(longestPause)) {
		o.until = now
	}
	if o.since.After(now.Add(clockSlack)) {
		o.since = now
	}
	if o.tried.After(now.Add(clockSlack)) {
		o.tried = time.Time{}
	}
}

// over says that the authority answered.
func (o *outage) over() { *o = outage{first: o.first} }

// skew is what a new certificate shows if our clock is wrong: a time outside of those between which it is valid. Authorities
// have theirs begin up to an hour in the past. Orders would cost, and what they bring could not be served.
type skew struct{ from, to time.Time }

// lasts says that the clock has not been mended.
func (s *skew) lasts(now time.Time) bool { return now.Before(s.from) || now.After(s.to) }

// Error says what to do.
func (s *skew) Error() string {
	return fmt.Sprintf("it issues certificates that are valid from %s to %s, which is not now: check the clock of this machine",
		clock(s.from), clock(s.to))
}

// clock is a time as operators read it.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// span is a duration without the zeros.
func span(d time.Duration) string {
	switch {
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return d.String()
}
