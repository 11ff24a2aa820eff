package storetest

import (
	"errors"
	"fmt"

	"github.com/stspub/stspub/internal/store"
)

func requestTests() map[string]func(*env) {
	return map[string]func(*env){
		"Request/PartsAreKeptWithWhatTheyDid": requestParts,
		"Request/PartIsDoneOnce":              requestOnce,
		"Request/IsForgottenAfterADay":        requestForgotten,
	}
}

// part makes changes as a part of a request of tenant "default" that began at minute begun.
func (e *env) part(i int, id string, line, removed, begun int, changes ...store.DomainChange) ([]store.DomainOutcome, error) {
	e.Helper()
	return e.ApplyDomains(e.ctx(), store.Batch{
		Owner: store.OwnerAPI, Changes: changes,
		Part:    &store.RequestPart{Tenant: "default", ID: id, Line: line, Lines: len(changes) + 1, Removed: removed, Begun: at(begun)},
		Answers: func(outcomes []store.DomainOutcome) ([]byte, error) { return fmt.Append(nil, words(outcomes)), nil },
	}, at(i))
}

func (e *env) noPart(tenant, id string, line, i int) {
	e.Helper()
	_, err := e.RequestPart(e.ctx(), tenant, id, line, at(i))
	e.is(err, store.ErrNotFound, fmt.Sprintf("%q", id))
}

func requestParts(e *env) {
	e.tenant("acme")
	e.start()
	e.noPart("default", "r", 0, 1)
	_, err := e.part(1, "r", 0, 0, 1, put(domain("a.example")), put(domain("b.example")), gone("nobody.example"))
	e.must(err)
	_, err = e.part(2, "r", 4, 3, 1, gone("a.example"), gone("b.example"))
	e.must(err)
	_, err = e.part(3, "r", 7, 5, 1) // lines of which none is a change
	e.must(err)
	e.reopen()
	var got []store.RequestPart
	for _, line := range []int{0, 4, 7} {
		p, err := e.RequestPart(e.ctx(), "default", "r", line, at(4))
		e.must(err)
		got = append(got, p)
	}
	e.equal("parts", got, []store.RequestPart{
		{Tenant: "default", ID: "r", Line: 0, Lines: 4, Removed: 0, Begun: at(1), Answers: []byte("[added added not found]")},
		{Tenant: "default", ID: "r", Line: 4, Lines: 3, Removed: 5, Begun: at(1), Answers: []byte("[removed removed]")},
		{Tenant: "default", ID: "r", Line: 7, Lines: 1, Removed: 5, Begun: at(1), Answers: []byte("[]")},
	})
	e.noPart("default", "r", 8, 4)
	e.noPart("acme", "r", 0, 4)
	e.noPart("default", "R", 0, 4)
}

// requestOnce has a part done that another sender of the same request has done meanwhile, and one that fails.
func requestOnce(e *env) {
	e.start()
	_, err := e.part(1, "r", 0, 0, 1, put(domain("a.example")))
	e.must(err)
	_, err = e.part(2, "r", 0, 0, 2, put(domain("b.example")))
	e.is(err, store.ErrExists)
	_, err = e.part(2, "r", 0, 0, 2)
	e.is(err, store.ErrExists)
	failed := errors.New("no answer")
	_, err = e.ApplyDomains(e.ctx(), store.Batch{
		Owner: store.OwnerAPI, Changes: []store.DomainChange{put(domain("b.example"))},
		Part:    &store.RequestPart{Tenant: "default", ID: "r", Line: 2, Lines: 1, Begun: at(1)},
		Answers: func([]store.DomainOutcome) ([]byte, error) { return nil, failed },
	}, at(3))
	e.is(err, failed)
	_, err = e.ApplyDomains(e.ctx(), store.Batch{
		Owner: store.OwnerAPI, Changes: []store.DomainChange{put(domain("b.example"))}, DryRun: true,
		Part: &store.RequestPart{Tenant: "default", ID: "r", Line: 2, Lines: 1, Begun: at(1)},
	}, at(3))
	e.must(err)
	e.noPart("default", "r", 2, 4)
	_, err = e.Domain(e.ctx(), "b.example")
	e.is(err, store.ErrNotFound)
}

func requestForgotten(e *env) {
	e.start()
	_, err := e.part(0, "old", 0, 0, 0, put(domain("a.example")))
	e.must(err)
	_, err = e.part(day-1, "old", 2, 0, 0, put(domain("b.example")))
	e.must(err)
	_, err = e.RequestPart(e.ctx(), "default", "old", 2, at(day-1))
	e.must(err)
	e.noPart("default", "old", 0, day)
	e.noPart("default", "old", 2, day)
	_, err = e.part(day, "old", 0, 0, day, put(domain("c.example"))) // is another one
	e.must(err)
	e.noPart("default", "old", 2, day)
	e.tenant("acme")
	_, err = e.ApplyDomains(e.ctx(), store.Batch{
		Owner: store.OwnerAPI, Part: &store.RequestPart{Tenant: "acme", ID: "r", Lines: 1, Begun: at(day)},
		Answers: func([]store.DomainOutcome) ([]byte, error) { return nil, nil },
	}, at(day))
	e.must(err)
	_, err = e.RequestPart(e.ctx(), "acme", "r", 0, at(day))
	e.must(err)
	e.must(e.DeleteTenant(e.ctx(), "acme", "", at(day)))
	e.noPart("acme", "r", 0, day)
}
