package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

const day = 24 * 60 // in minutes, as at has it

func (e *env) spent(minute int) map[string]store.Spent {
	e.Helper()
	all, err := e.Spent(e.ctx(), at(minute))
	e.must(err)
	return all
}

func (e *env) quota(tenant string, minute int) store.WriteQuota {
	e.Helper()
	q, err := e.WriteQuota(e.ctx(), tenant, at(minute))
	e.must(err)
	return q
}

// tenantWrites has a tenant write three times a day. The test begins in a quarter of an hour at minute 0.
func tenantWrites(e *env) {
	write := func(minute int) { e.Helper(); e.must(e.CountWrite(e.ctx(), "a", false, at(minute))) }
	refused := func(minute int) {
		e.Helper()
		e.is(e.CountWrite(e.ctx(), "a", false, at(minute)), store.ErrSpent, `"a"`, "3 writes")
	}
	write(0) // is no tenant
	e.tenant("a")
	write(0) // has no limit
	e.equal("without a limit", e.spent(0), map[string]store.Spent{})
	e.equal("a quota without one", e.quota("a", 0).Full(), false)
	e.must(e.limit(e.ctx(), "a", store.Limits{Writes: 3}, ""))
	write(1)
	write(14)
	write(15)
	refused(16)
	e.reopen()
	refused(17)
	e.must(e.CountWrite(e.ctx(), "a", true, at(18)))
	e.equal("spent", e.spent(19), map[string]store.Spent{"a": {Writes: 4}})
	q := e.quota("a", 20)
	e.equal("full", q.Full(), true)
	// Minutes 1 and 14 are of a quarter that ends at 15, 15 and 18 of the next.
	quarters := func(n int) time.Time {
		return at(0).Truncate(15 * time.Minute).Add(time.Duration(n) * 15 * time.Minute)
	}
	for n, want := range []time.Time{quarters(97), quarters(98), quarters(98), quarters(97).Add(24 * time.Hour)} {
		if got := q.Next(n); !got.Equal(want) {
			e.Errorf("after %d that wait: next at %s, want %s", n, got, want)
		}
	}
	refused(day + 14)
	write(day + 15)
	refused(day + 16)
	write(day + 30)
	write(day + 30)
	refused(day + 30)
	e.equal("of the next day", e.spent(day+30), map[string]store.Spent{"a": {Writes: 3}})
	e.must(e.limit(e.ctx(), "a", store.Limits{Writes: 4}, ""))
	write(day + 31)
	e.is(e.CountWrite(e.ctx(), "a", false, at(day+31)), store.ErrSpent)
	// What a clock counted that was ahead does not count when it is right again.
	e.must(e.CountWrite(e.ctx(), "a", true, at(300*day)))
	e.equal("a year ahead", e.spent(day+32), map[string]store.Spent{})
	write(day + 32)
	e.equal("and back", e.spent(day+32), map[string]store.Spent{"a": {Writes: 1}})
	e.must(e.DeleteTenant(e.ctx(), "a", "", at(day+33)))
	e.equal("of one that is gone", e.spent(day+33), map[string]store.Spent{})
}

// tenantRace has many take what is left at the same time.
func tenantRace(e *env) {
	e.tenant("a")
	e.must(e.limit(e.ctx(), "a", store.Limits{Writes: 5}, ""))
	errs := make(chan error)
	for range 16 {
		go func() { errs <- e.CountWrite(e.ctx(), "a", false, at(0)) }()
	}
	won := 0
	for range 16 {
		switch err := <-errs; {
		case err == nil:
			won++
		case !errors.Is(err, store.ErrSpent):
			e.Error(err)
		}
	}
	e.equal("let through", won, 5)
	e.equal("spent", e.spent(1), map[string]store.Spent{"a": {Writes: 5}})
}

func tenantOrders(e *env) {
	var last int64
	add := func(tenant string, minute int) store.JournalEntry {
		e.Helper()
		j := entry(fmt.Sprintf("%s%d.example", tenant, minute), minute)
		j.Tenant = tenant
		j = e.append(last, j)
		last = j.Seq
		return j
	}
	add("a", 1)
	second := add("a", 2)
	add("b", 3)
	add("", 4)
	e.equal("tenant of an entry", e.journal(0)[1].Tenant, "a")
	e.equal("spent", e.spent(5), map[string]store.Spent{"a": {Orders: 2}, "b": {Orders: 1}})
	second.Exempt, second.Ended = true, at(5) // it was not sent
	e.must(e.EndJournal(e.ctx(), second))
	e.reopen()
	e.equal("when one was not sent", e.spent(6), map[string]store.Spent{"a": {Orders: 1}, "b": {Orders: 1}})
	e.equal("a day later", e.spent(day+1), map[string]store.Spent{"b": {Orders: 1}})
}

func tenantQueue(e *env) {
	e.declare(file(domain("a.example"), domain("b.example"), domain("c.example"), domain("d.example")), at(0))
	for _, name := range []policygen.Name{"a.example", "b.example", "d.example"} {
		d := e.domain(name)
		e.save(&d, 1, func(s *store.State) { s.Step = "txt" })
	}
	for before, want := range map[string]int{"a.example": 0, "c.example": 2, "e.example": 3} {
		n, err := e.CountStep(e.ctx(), "default", "txt", before, 10)
		e.must(err)
		e.equal("before "+before, n, want)
	}
	n, err := e.CountStep(e.ctx(), "default", "txt", "e.example", 2)
	e.must(err)
	e.equal("no further than 2", n, 2)
	n, err = e.CountStep(e.ctx(), "a", "txt", "e.example", 2)
	e.must(err)
	e.equal("of another tenant", n, 0)
}
