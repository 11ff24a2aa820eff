package storetest

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func claimTests() map[string]func(*env) {
	return map[string]func(*env){
		"Claim/OnlyWhatIsDueMostOverdueFirst": claimOverdue,
		"Claim/NotMoreThanAsked":              claimLimit,
		"Claim/SharedRecordsFirst":            claimShared,
		"Claim/NobodyElseUntilTheLeaseEnds":   claimLease,
		"Claim/ShutsOutWhoHadItBefore":        claimFences,
		"Claim/LastsWhileDueStays":            claimLasts,
		"Claim/AtTheSameTimeOnceEach":         claimConcurrent,
		"Claim/LeavesTenantsOut":              claimBut,
		"NextDue/TheEarliest":                 nextDue,
	}
}

// due declares domains and has each look at the given minute.
func (e *env) due(minutes map[policygen.Name]int) {
	e.Helper()
	var all []policygen.Name
	for name := range minutes {
		all = append(all, name)
	}
	e.start(all...)
	for name, i := range minutes {
		d := e.domain(name)
		d.Due = at(i)
		e.must(e.Save(e.ctx(), &d, at(0)))
	}
}

func claimOverdue(e *env) {
	e.due(map[policygen.Name]int{"a.example": 5, "b.example": 1, "c.example": 6, "d.example": 3, "e.example": -9})
	got := e.claim(5, time.Hour, 10)
	e.equal("claimed", names(got), []policygen.Name{"e.example", "b.example", "d.example", "a.example"})
	for _, d := range got {
		if !d.Due.Equal(at(65)) {
			e.Errorf("%s is due %s, want the end of the lease %s", d.Name, d.Due, at(65))
		}
		e.equal("stored", e.domain(d.Name), d)
	}
}

// claimBut claims what is due of some tenants only, shared records too, however much more overdue others' are.
func claimBut(e *env) {
	e.start()
	e.tenants("b", "bb")
	own := func(tenant string, name policygen.Name) store.DomainChange {
		d := domain(name)
		d.Tenant = tenant
		return put(d)
	}
	sharing := own("b", "s.example")
	sharing.Domain.Publish, sharing.Domain.Account = store.PublishShared, ""
	sharing.Shared = &store.Domain{Name: "*.eu.s.b.sts.example", Tenant: "b", MXSet: "eu"}
	e.apply(1, own("b", "a.example"), sharing)
	e.apply(2, own("bb", "b.example"))
	e.apply(3, own("default", "c.example"))
	next := func(want int, but ...string) {
		e.Helper()
		due, err := e.NextDue(e.ctx(), but...)
		e.must(err)
		e.equal("next due", due, at(want))
	}
	next(1)
	next(2, "b")
	next(3, "bb", "b")
	next(1, "bb", "default", "nobody")
	_, err := e.NextDue(e.ctx(), "default", "bb", "b")
	e.is(err, store.ErrNotFound)
	got, err := e.Claim(e.ctx(), at(9), time.Hour, 9, "b")
	e.must(err)
	e.equal("claimed without those of b", names(got), []policygen.Name{"b.example", "c.example"})
	got, err = e.Claim(e.ctx(), at(9), time.Hour, 9, "bb", "default")
	e.must(err)
	e.equal("claimed of b", names(got), []policygen.Name{"*.eu.s.b.sts.example", "a.example", "s.example"})
}

func claimShared(e *env) {
	e.shared("a.example", "b.example")
	for i, name := range []policygen.Name{"a.example", "b.example", "zone.example", "*.eu.s.default.sts.example"} {
		d := e.domain(name)
		d.Due = at(i + 2)
		e.must(e.Save(e.ctx(), &d, at(1)))
	}
	e.equal("before the shared record is due", names(e.claim(2, time.Hour, 9)), []policygen.Name{"a.example"})
	e.equal("the first two", names(e.claim(9, time.Hour, 2)), []policygen.Name{"*.eu.s.default.sts.example", "b.example"})
	e.equal("the rest", names(e.claim(9, time.Hour, 2)), []policygen.Name{"zone.example"})
	e.equal("nothing left", names(e.claim(9, time.Hour, 2)), []policygen.Name(nil))
}

func claimLimit(e *env) {
	e.due(map[policygen.Name]int{"a.example": 1, "b.example": 2, "c.example": 3})
	e.equal("none", names(e.claim(9, time.Hour, 0)), []policygen.Name(nil))
	e.equal("fewer than none", names(e.claim(9, time.Hour, -1)), []policygen.Name(nil))
	e.equal("first two", names(e.claim(9, time.Hour, 2)), []policygen.Name{"a.example", "b.example"})
	e.equal("the rest", names(e.claim(9, time.Hour, 2)), []policygen.Name{"c.example"})
	e.equal("nothing left", names(e.claim(9, time.Hour, 2)), []policygen.Name(nil))
}

func claimLease(e *env) {
	e.start("a.example")
	e.equal("claimed", len(e.claim(0, 10*time.Minute, 1)), 1)
	e.equal("during the lease", len(e.claim(9, time.Hour, 1)), 0)
	e.equal("at its end", len(e.claim(10, time.Hour, 1)), 1)
}

func claimFences(e *env) {
	e.start("a.example")
	first := e.claim(0, time.Minute, 1)[0]
	second := e.claim(1, time.Minute, 1)[0]
	e.is(e.Save(e.ctx(), &first, at(1)), store.ErrStale, `"a.example"`)
	e.must(e.Save(e.ctx(), &second, at(1)))
}

// claimLasts saves several times within a lease, as a pass through several steps does.
func claimLasts(e *env) {
	e.start("a.example")
	d := e.claim(0, 10*time.Minute, 1)[0]
	for i := range 3 {
		e.save(&d, i, func(s *store.State) { s.Failures++ })
		e.equal("due", d.Due, at(10))
		e.must(e.Wake(e.ctx(), "a.example", at(i)))
		e.equal("claimed by another", len(e.claim(i, time.Hour, 1)), 0)
	}
	d.Due = at(5)
	e.must(e.Save(e.ctx(), &d, at(3)))
	e.equal("claimed by another", len(e.claim(5, time.Hour, 1)), 1)
}

func claimConcurrent(e *env) {
	const domains = 100
	var all []policygen.Name
	for i := range domains {
		all = append(all, policygen.Name(fmt.Sprintf("d%d.example", i)))
	}
	e.start(all...)

	var mu sync.Mutex
	claims := make(map[policygen.Name]int)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			for {
				got, err := e.Claim(e.ctx(), at(1), time.Hour, 7)
				if err != nil || len(got) == 0 {
					return err
				}
				mu.Lock()
				for _, d := range got {
					claims[d.Name]++
				}
				mu.Unlock()
			}
		})
	}
	e.must(g.Wait())
	e.equal("claimed domains", len(claims), domains)
	for name, n := range claims {
		if n != 1 {
			e.Errorf("%s was claimed %d times", name, n)
		}
	}
}

func nextDue(e *env) {
	_, err := e.NextDue(e.ctx())
	e.is(err, store.ErrNotFound)

	e.due(map[policygen.Name]int{"a.example": 5, "b.example": 3})
	next := func(want time.Time) {
		e.Helper()
		got, err := e.NextDue(e.ctx())
		e.must(err)
		e.equal("next due", got, want)
	}
	next(at(3))
	e.claim(4, time.Hour, 1)
	next(at(5))
	e.claim(5, time.Minute, 1)
	next(at(6))
}

func wakeTests() map[string]func(*env) {
	return map[string]func(*env){
		"Wake/OneOrAll":                 wakeOneOrAll,
		"Wake/LeavesTheVersion":         wakeVersion,
		"Wake/NotFoundIsNamed":          wakeNotFound,
		"Wake/ClaimedIsKeptForItsEnd":   wakeClaimed,
		"Wake/OverdueStaysMostOverdue":  wakeOverdue,
		"Wake/AfterTheLeaseEnded":       wakeAfterLease,
		"Wake/AnsweredByTheNextClaim":   wakeAnswered,
		"Wake/OnceIsOnce":               wakeOnce,
		"Wake/AllWhileSomeAreClaimed":   wakeAllClaimed,
		"Wake/SavedByAnotherEndsItsUse": wakeSavedByAnother,
	}
}

func wakeOneOrAll(e *env) {
	e.must(e.Wake(e.ctx(), "", at(0)))
	e.due(map[policygen.Name]int{"a.example": 50, "b.example": 60, "c.example": 70})
	e.must(e.Wake(e.ctx(), "b.example", at(2)))
	e.equal("due", dues(e), map[policygen.Name]time.Time{"a.example": at(50), "b.example": at(2), "c.example": at(70)})
	e.must(e.Wake(e.ctx(), "", at(3)))
	e.equal("due", dues(e), map[policygen.Name]time.Time{"a.example": at(3), "b.example": at(2), "c.example": at(3)})
}

func wakeVersion(e *env) {
	e.due(map[policygen.Name]int{"a.example": 50})
	d := e.domain("a.example")
	e.must(e.Wake(e.ctx(), "a.example", at(2)))
	e.must(e.Wake(e.ctx(), "", at(2)))
	e.equal("version", e.domain("a.example").Version, d.Version)
	e.must(e.Save(e.ctx(), &d, at(3)))
}

func wakeNotFound(e *env) {
	e.start("a.example")
	e.is(e.Wake(e.ctx(), "b.example", at(1)), store.ErrNotFound, `"b.example"`)
}

func wakeClaimed(e *env) {
	e.start("a.example")
	d := e.claim(0, 10*time.Minute, 1)[0]
	e.must(e.Wake(e.ctx(), "a.example", at(2)))
	e.equal("claimed by another", len(e.claim(2, time.Hour, 1)), 0)

	d.Due = at(60)
	e.must(e.Save(e.ctx(), &d, at(3)))
	e.equal("due", d.Due, at(3))
	e.equal("stored", e.domain("a.example"), d)
	e.equal("claimed", len(e.claim(3, time.Hour, 1)), 1)
}

func wakeOverdue(e *env) {
	e.due(map[policygen.Name]int{"a.example": 5, "b.example": 1})
	e.must(e.Wake(e.ctx(), "b.example", at(9)))
	e.equal("claimed", names(e.claim(9, time.Hour, 1)), []policygen.Name{"b.example"})
}

func wakeAfterLease(e *env) {
	e.start("a.example")
	e.claim(0, time.Minute, 1)
	e.must(e.Wake(e.ctx(), "a.example", at(5)))
	d := e.claim(5, 10*time.Minute, 1)[0]
	d.Due = at(60)
	e.must(e.Save(e.ctx(), &d, at(6)))
	e.equal("due", d.Due, at(60))
}

// wakeAnswered has a claimed domain woken whose claimer never saves; the next claim is the answer.
func wakeAnswered(e *env) {
	e.start("a.example")
	e.claim(0, 10*time.Minute, 1)
	e.must(e.Wake(e.ctx(), "a.example", at(1)))
	d := e.claim(10, 10*time.Minute, 1)[0]
	d.Due = at(60)
	e.must(e.Save(e.ctx(), &d, at(11)))
	e.equal("due", d.Due, at(60))
}

func wakeOnce(e *env) {
	e.start("a.example")
	for i := range 3 {
		d := e.claim(10*i, 5*time.Minute, 1)[0]
		if i == 0 {
			e.must(e.Wake(e.ctx(), "a.example", at(1)))
		}
		d.Due = at(10*i + 10)
		e.must(e.Save(e.ctx(), &d, at(10*i+2)))
		want := at(10*i + 10)
		if i == 0 {
			want = at(2)
		}
		e.equal("due", d.Due, want)
	}
}

func wakeAllClaimed(e *env) {
	e.due(map[policygen.Name]int{"a.example": 0, "b.example": 50})
	d := e.claim(1, time.Hour, 1)[0]
	e.must(e.Wake(e.ctx(), "", at(2)))
	e.equal("claimed", names(e.claim(2, time.Hour, 5)), []policygen.Name{"b.example"})
	d.Due = at(60)
	e.must(e.Save(e.ctx(), &d, at(3)))
	e.equal("claimed", names(e.claim(3, time.Hour, 5)), []policygen.Name{"a.example"})
}

// wakeSavedByAnother has an operator change a claimed domain and make it due.
func wakeSavedByAnother(e *env) {
	e.start("a.example")
	claimed := e.claim(0, time.Hour, 1)[0]
	d := e.domain("a.example")
	d.Adopt, d.Due = true, at(1)
	e.must(e.Save(e.ctx(), &d, at(1)))
	e.is(e.Save(e.ctx(), &claimed, at(2)), store.ErrStale)
	e.equal("claimed", names(e.claim(2, time.Hour, 1)), []policygen.Name{"a.example"})
}
