package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// batchRemovals removes more than two of six domains, which looks like a mistake.
func batchRemovals(e *env) {
	e.start()
	e.tenant("acme")
	looksWrong := func(removed, owned int) bool { return removed > max(2, owned/2) }
	name := func(i int) policygen.Name { return policygen.Name(fmt.Sprintf("d%d.example", i)) }
	remove := func(minute, removed int, dry bool, of ...int) error {
		e.Helper()
		b := store.Batch{Owner: store.OwnerAPI, DryRun: dry, TooMany: looksWrong, Removed: removed}
		for _, i := range of {
			b.Changes = append(b.Changes, gone(name(i)))
		}
		_, err := e.ApplyDomains(e.ctx(), b, at(minute))
		return err
	}
	refused := func(err error, removed, owned int) {
		e.Helper()
		many, ok := errors.AsType[*store.MassRemovalError](err)
		if !ok || many.Removed != removed || many.Owned != owned {
			e.Errorf("error is %v, want %d of %d", err, removed, owned)
		}
	}
	left := func(want int) {
		e.Helper()
		n, err := e.CountDomains(e.ctx(), "default", store.OwnerAPI)
		e.must(err)
		e.equal("left", n, want)
	}
	for i := range 6 {
		e.apply(0, put(domain(name(i))))
	}
	refused(remove(1, 0, false, 0, 1, 2, 3), 4, 6)
	refused(remove(1, 0, true, 0, 1, 2, 3), 4, 6)
	refused(remove(1, 3, false, 0, 1), 5, 9) // the others were of the same request, and long ago
	left(6)
	e.must(remove(1, 0, true, 0, 1, 2))
	e.must(remove(1, 0, false, 0, 1))
	e.must(remove(2, 0, false, 0, 1)) // again
	e.reopen()
	refused(remove(30, 0, false, 2, 3), 4, 6)
	refused(remove(30, 1, true, 2), 4, 6+1)
	e.must(remove(30, 0, false, 2))
	refused(remove(59, 0, false, 3), 4, 6)
	left(3)
	e.apply(59, gone(name(3))) // confirmed, so it does not count
	refused(remove(60, 0, false, 4), 4, 5)
	e.must(remove(62, 0, false, 4)) // the first two were an hour ago
	left(1)

	// Others have an hour of their own, and what a clock counted that was ahead does not count.
	b := store.Batch{Owner: store.OwnerAPI, TooMany: looksWrong}
	e.putMXSet(62, apiSet("acme", "eu"))
	for i := range 2 {
		d := domain(policygen.Name(fmt.Sprintf("acme%d.example", i)))
		d.Tenant = "acme"
		e.apply(62, put(d))
		b.Changes = append(b.Changes, store.DomainChange{Domain: d, Remove: true})
	}
	e.results(e.applied(62, b), store.ResultRemoved, store.ResultRemoved)
	for i := 10; i < 20; i++ {
		e.apply(63, put(domain(name(i))))
	}
	e.must(remove(300*day, 0, false, 10, 11))
	e.must(remove(63, 0, false, 12))

	// Many at the same time are no more than one after the other.
	var g sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		g.Go(func() { errs[i] = remove(200, 0, false, 12+i) })
	}
	g.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else {
			_, ok := errors.AsType[*store.MassRemovalError](err)
			e.equal("a mass removal", ok, true)
		}
	}
	e.equal("removed at the same time, of which one is removed already", done, 1+4)
}
