package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// removals takes away domains d0.example and so on; more than two, and than half, look like a mistake.
type removals struct{ *env }

func (r removals) looksWrong(removed, owned int) bool { return removed > max(2, owned/2) }

func (r removals) name(i int) policygen.Name { return policygen.Name(fmt.Sprintf("d%d.example", i)) }

// add has domains be there, from the one number to before the other.
func (r removals) add(minute, from, to int) {
	r.Helper()
	for i := from; i < to; i++ {
		r.apply(minute, put(domain(r.name(i))))
	}
}

func (r removals) remove(minute, removed int, dry bool, of ...int) error {
	r.Helper()
	b := store.Batch{Owner: store.OwnerAPI, DryRun: dry, TooMany: r.looksWrong, Removed: removed}
	for _, i := range of {
		b.Changes = append(b.Changes, gone(r.name(i)))
	}
	_, err := r.ApplyDomains(r.ctx(), b, at(minute))
	return err
}

func (r removals) refused(err error, removed, owned int) {
	r.Helper()
	many, ok := errors.AsType[*store.MassRemovalError](err)
	if !ok || many.Removed != removed || many.Owned != owned {
		r.Errorf("error is %v, want %d of %d", err, removed, owned)
	}
}

func (r removals) left(want int) {
	r.Helper()
	n, err := r.CountDomains(r.ctx(), "default", store.OwnerAPI)
	r.must(err)
	r.equal("left", n, want)
}

func batchRemovals(e *env) {
	e.start()
	r := removals{e}
	r.add(0, 0, 6)
	r.refused(r.remove(1, 0, false, 0, 1, 2, 3), 4, 6)
	r.refused(r.remove(1, 0, true, 0, 1, 2, 3), 4, 6)
	r.refused(r.remove(1, 3, false, 0, 1), 5, 9) // the others were of the same request, and long ago
	r.left(6)
	r.must(r.remove(1, 0, true, 0, 1, 2))
	r.must(r.remove(1, 0, false, 0, 1))
	r.must(r.remove(2, 0, false, 0, 1)) // again
	r.reopen()
	r.refused(r.remove(30, 0, false, 2, 3), 4, 6)
	r.refused(r.remove(30, 1, true, 2), 4, 6+1)
	r.must(r.remove(30, 0, false, 2))
	r.refused(r.remove(59, 0, false, 3), 4, 6)
	r.left(3)
	r.apply(59, gone(r.name(3))) // confirmed, so it does not count
	r.refused(r.remove(60, 0, false, 4), 4, 5)
	r.must(r.remove(62, 0, false, 4)) // the first two were an hour ago
	r.left(1)
}

// batchRemovalsApart has others have an hour of their own; what a clock counted that was ahead does not count.
func batchRemovalsApart(e *env) {
	e.start()
	e.tenant("acme")
	r := removals{e}
	r.add(60, 0, 6)
	r.must(r.remove(62, 0, false, 0, 1))
	r.refused(r.remove(62, 0, false, 2, 3), 4, 6)
	b := store.Batch{Owner: store.OwnerAPI, TooMany: r.looksWrong}
	e.putMXSet(62, apiSet("acme", "eu"))
	for i := range 2 {
		d := domain(policygen.Name(fmt.Sprintf("acme%d.example", i)))
		d.Tenant = "acme"
		e.apply(62, put(d))
		b.Changes = append(b.Changes, store.DomainChange{Domain: d, Remove: true})
	}
	e.results(e.applied(62, b), store.ResultRemoved, store.ResultRemoved)
	r.add(63, 10, 20)
	r.must(r.remove(300*day, 0, false, 10, 11))
	r.must(r.remove(63, 0, false, 12))
}

// batchRemovalsAtOnce has many at the same time be no more than one after the other.
func batchRemovalsAtOnce(e *env) {
	e.start()
	r := removals{e}
	r.add(0, 0, 8)
	var g sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		g.Go(func() { errs[i] = r.remove(1, 0, false, i) })
	}
	g.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else {
			r.refused(err, 5, 8)
		}
	}
	e.equal("removed at the same time", done, 4)
}
