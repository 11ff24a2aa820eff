package certs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func at(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }

func TestWindow(t *testing.T) {
	t.Parallel()
	w := &window{limit: 3, period: time.Hour}
	for n, want := range map[int]int{0: 0, 2: 0, 3: 60, 5: 60, 6: 120, 300: 6000} {
		if got := w.nth(noon, n); !got.Equal(at(want)) {
			t.Errorf("empty: number %d at %v, want %v", n, got, at(want))
		}
	}
	w.add(at(0))
	w.add(at(-50))
	w.add(at(-20)) // out of order
	for n, want := range map[int]int{0: 10, 1: 40, 2: 60, 3: 10 + 60, 4: 100, 5: 120} {
		if got := w.nth(at(5), n); !got.Equal(at(want)) {
			t.Errorf("full: number %d at %v, want %v", n, got, at(want))
		}
	}
	w.takeBack(at(0))
	w.takeBack(at(1)) // was never there
	if got := w.next(at(5)); !got.Equal(at(5)) {
		t.Errorf("after one was taken back: %v", got)
	}
	w.fresh(at(61))
	if len(w.times) != 0 {
		t.Errorf("after an hour it still holds %v", w.times)
	}
}

// TestWindowKeepsItsLimit: in no span of the length of the period are more than the limit begun, however it is used, and
// all of what it says that can be begun is.
func TestWindowKeepsItsLimit(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		w := &window{limit: 1 + r.IntN(20), period: time.Duration(1+r.IntN(100)) * time.Minute}
		now := noon
		var begun []time.Time
		for range 300 {
			at := w.next(now)
			if r.IntN(3) == 0 {
				at = w.paced(now)
			}
			if now = at.Add(time.Duration(r.ExpFloat64() * float64(w.period) / 50)).Truncate(time.Microsecond); w.next(now).After(now) {
				t.Fatal("what could be begun cannot any more")
			}
			w.add(now)
			begun = append(begun, now)
		}
		for i := w.limit; i < len(begun); i++ {
			if begun[i].Sub(begun[i-w.limit]) < w.period {
				t.Fatalf("%d within %v: %v to %v", w.limit+1, w.period, begun[i-w.limit], begun[i])
			}
		}
	}
}

func TestPacedLeavesRoomForTheUrgent(t *testing.T) {
	t.Parallel()
	b := newBudget(config.DefaultBudget(), time.Minute)
	now, last := noon, noon
	for n := range 3 * 280 {
		c := claim{name: fmt.Sprint(n), domain: fmt.Sprint(n), patient: true}
		last = now
		now = b.account(now, c)
		b.begin(now, c)
		if wait := b.account(now, claim{}).Sub(now); n > 400 && wait > time.Minute {
			t.Fatalf("behind %d patient ones an urgent one waits %v", n, wait)
		}
	}
	if took := last.Sub(noon); took > 9*time.Hour {
		t.Errorf("three budgets of 3 hours took %v", took)
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	limits := config.Budget{
		Orders: 20, OrdersPeriod: time.Hour, DomainOrders: 2, DomainPeriod: 24 * time.Hour, Failures: 2, InFlight: 4, PerSecond: 5,
	}
	b := newBudget(limits, time.Minute)
	shop := claim{name: "mta-sts.a.shop.example", domain: "shop.example"}
	own := func(c claim, want int) {
		t.Helper()
		got, why := b.own(at(1), c)
		if !got.Equal(at(want)) || (why == "") != (want == 1) {
			t.Errorf("%+v can be ordered at %v: %q; want %v", c, got, why, at(want))
		}
	}
	b.begin(noon, shop)
	own(shop, 1)
	b.begin(noon, claim{name: "other", domain: "shop.example"})
	own(shop, 24*60)
	exempt := shop
	exempt.exempt = true
	own(exempt, 1)
	b.fail(shop.name, noon)
	own(exempt, 1)
	b.fail(shop.name, noon)
	own(exempt, 60)
	own(claim{name: "mta-sts.example", domain: "other.example"}, 1)

	failing := claim{name: "f", domain: "f", failing: true}
	for n := range 2 { // a tenth
		if got := b.account(at(1), failing); !got.Equal(at(1)) {
			t.Errorf("failing name %d can be ordered at %v", n, got)
		}
		b.begin(at(1), failing)
	}
	if got := b.account(at(2), failing); !got.Equal(at(61)) {
		t.Errorf("a third failing name can be ordered at %v", got)
	}
	if got := b.account(at(2), claim{}); !got.Equal(at(2)) {
		t.Errorf("a good one can be ordered at %v", got)
	}
	for n := range 16 {
		b.begin(at(2), claim{domain: fmt.Sprint(n)})
	}
	if got := b.account(at(3), claim{}); !got.Equal(at(60)) || b.exceeded(at(3), claim{}) {
		t.Errorf("at its limit, the next is at %v; exceeded: %v", got, b.exceeded(at(3), claim{}))
	}
	b.begin(at(3), claim{})
	if !b.exceeded(at(3), claim{}) || b.exceeded(at(3), exempt) {
		t.Error("one more than the limit is not seen, or counts for those that are exempt")
	}
	b.takeBack(at(3), claim{})
	if b.exceeded(at(3), claim{}) {
		t.Error("what was taken back still counts")
	}
	b.sweep(at(24*60 + 1))
	if len(b.failures) != 0 || len(b.domains) != 16 {
		t.Errorf("a day later %d names and %d domains are remembered", len(b.failures), len(b.domains))
	}
}

func TestReplayIsWhatWasDone(t *testing.T) {
	t.Parallel()
	b := newBudget(config.DefaultBudget(), time.Minute)
	none := store.JournalEntry{}
	b.replay(store.JournalEntry{Name: "a", Domain: "d", Begun: noon, Ended: at(1), Failed: true, Stopped: at(90), Reason: "slow down"}, none, at(2))
	b.replay(store.JournalEntry{Name: "b", Domain: "d", Begun: noon, Exempt: true}, none, at(2))
	b.replay(store.JournalEntry{Name: "c", Domain: "d", Begun: noon, Ended: at(1)}, none, at(2))
	if len(b.orders.times) != 2 || len(b.domains["d"].times) != 1 || len(b.failures["a"].times) != 1 {
		t.Errorf("replayed: %+v", b)
	}
	// The gate held it after all.
	running := store.JournalEntry{Seq: 3, Name: "e", Domain: "d", Begun: at(1)}
	ended := running
	ended.Exempt, ended.Ended = true, at(2)
	b.replay(running, none, at(2))
	b.replay(ended, running, at(2))
	if len(b.orders.times) != 2 || len(b.domains["d"].times) != 1 {
		t.Errorf("after one that was not sent: %+v", b)
	}
	if until, why := b.closed(at(2)); !until.Equal(at(90)) || why != "it wants no orders until 2026-12-01 13:30 UTC: slow down" {
		t.Errorf("closed until %v: %s", until, why)
	}
	if until, why := b.closed(at(90)); !until.Equal(at(90)) || why != "" {
		t.Errorf("closed until %v: %s", until, why)
	}
}

func TestOutageIsAskedSeldom(t *testing.T) {
	t.Parallel()
	o := &outage{first: 20 * time.Second}
	for range 8 { // under way when it went away
		o.note(noon, at(1), 0, "no route")
	}
	if o.count != 1 {
		t.Errorf("%d tries were counted, want one", o.count)
	}
	now, tries := o.until, 1
	for ; now.Before(at(8 * 60)); now = o.until {
		o.note(now, now, 0, "no route")
		tries++
	}
	if tries < 30 || tries > 45 || !o.since.Equal(at(1)) {
		t.Errorf("%d tries in 8 hours since %v", tries, o.since)
	}
	o.note(now, now, 3*time.Hour, "later")
	if o.until.Sub(now) != 3*time.Hour {
		t.Errorf("next try in %v, it said 3 hours", o.until.Sub(now))
	}
	o.over()
	if *o != (outage{first: 20 * time.Second}) {
		t.Errorf("after it is over: %+v", o)
	}
}

func TestUrgency(t *testing.T) {
	t.Parallel()
	day := 24 * 60
	cert := func(name string, live bool, from, to int) *item {
		return &item{name: name, live: live, since: at(-5 * day), notBefore: at(from), notAfter: at(to)}
	}
	want := []*item{
		cert("expired long ago", true, -90*day, -2*day),
		cert("expired", true, -90*day, -1),
		cert("expires first", true, -89*day, day),
		cert("expires next", false, -89*day, 2*day),
		{name: "live, wanted first", live: true, since: at(-2)},
		{name: "live, wanted next", live: true, since: at(-1)},
		cert("expired, and nobody looks", false, -90*day, -1),
		{name: "new", since: at(-9)},
		{name: "newer a", since: at(-8)},
		{name: "newer b", since: at(-8)},
	}
	for _, i := range want {
		i.urgent = i.urgency(noon)
	}
	for range 20 {
		q := queue{less: (*item).before}
		for _, n := range rand.Perm(len(want)) {
			q.push(want[n])
		}
		var got []string
		for q.len() > 0 {
			i := q.first()
			s := schedule{}
			s.unqueue(i)
			got = append(got, i.name)
		}
		if !slices.EqualFunc(got, want, func(a string, b *item) bool { return a == b.name }) {
			t.Fatalf("order %q", got)
		}
	}
}

// TestClockThatWasAheadStopsNothing: what it counted, and until when it paused, is mended as soon as it is looked at.
func TestClockThatWasAheadStopsNothing(t *testing.T) {
	t.Parallel()
	now, ahead := noon, noon.AddDate(1, 0, 0)
	b := newBudget(config.DefaultBudget(), 5*time.Minute)
	c := claim{name: "a", domain: "d"}
	for range 280 {
		b.begin(ahead, c)
	}
	b.fail("a", ahead)
	b.outage.note(ahead, ahead, 0, "no route")
	b.stop(ahead, ahead.Add(time.Hour), "later")
	if at := b.opens(now); !at.Equal(now) {
		t.Errorf("it is closed until %v", at)
	}
	if at := b.account(now, claim{name: "x", domain: "x"}); !at.Equal(now.Add(3 * time.Hour)) {
		t.Errorf("the next order is at %v, want that in 3 hours", at)
	}
	if at, why := b.own(now, c); !at.Equal(now.Add(7 * 24 * time.Hour)) {
		t.Errorf("the next order of the domain is at %v: %s; want that in a week", at, why)
	}
	if !b.outage.note(now, now, 0, "no route") || b.outage.until.Sub(now) > longestOutage {
		t.Errorf("a try does not count, or stops for long: %+v", b.outage)
	}
	if got := b.lasts(now, 6*time.Hour); got > time.Hour {
		t.Errorf("a silence of %v", got)
	}

	s := &schedule{}
	s.init([]Authority{nil}, []config.Budget{config.DefaultBudget()}, 5*time.Minute, 6*time.Hour)
	i := s.item("a.test")
	i.wanted, i.failures, i.next = true, 1, ahead
	s.put(i, now)
	short := s.item("b.test")
	short.wanted, short.failures, short.next = true, 1, at(60)
	s.put(short, now)
	s.correct(now)
	if i.line == nil || short.line != nil || !short.due.Equal(at(60)) {
		t.Errorf("due at %v and %v", i.due, short.due)
	}
}

func TestWhatAClockWroteThatWasAhead(t *testing.T) {
	t.Parallel()
	ahead := noon.AddDate(0, 2, 0)
	got := current(store.JournalEntry{Begun: ahead, Ended: ahead.Add(time.Minute), Stopped: ahead.Add(time.Hour)}, noon)
	if want := (store.JournalEntry{Begun: at(-1), Ended: noon, Stopped: at(59)}); got != want {
		t.Errorf("entry %+v, want %+v", got, want)
	}
	if got := current(store.JournalEntry{Begun: ahead}, noon); got != (store.JournalEntry{Begun: noon}) {
		t.Errorf("running entry %+v", got)
	}
	if e := (store.JournalEntry{Begun: noon.Add(time.Second)}); current(e, noon) != e {
		t.Error("an entry is moved for a second between two nodes")
	}
	for _, tt := range []struct{ o, want store.Order }{
		{store.Order{Failures: 1, Tried: ahead, Next: ahead.Add(time.Hour), Since: ahead}, store.Order{Failures: 1, Tried: noon, Next: at(60), Since: noon}},
		{store.Order{Next: ahead}, store.Order{Next: noon}},
		{store.Order{Tried: at(-5), Next: at(5), Since: at(-9)}, store.Order{Tried: at(-5), Next: at(5), Since: at(-9)}},
	} {
		if got := timely(tt.o, noon); got != tt.want {
			t.Errorf("order %+v, want %+v", got, tt.want)
		}
	}
}
