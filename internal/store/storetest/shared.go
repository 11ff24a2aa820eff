package storetest

import (
	"errors"
	"slices"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func sharedTests() map[string]func(*env) {
	return map[string]func(*env){
		"Shared/TurnsAllAttached":        sharedTurns,
		"Shared/RefusesAnotherText":      sharedRefuses,
		"Shared/EndsClaimsOfTheAttached": sharedClaims,
	}
}

// shared declares a shared record with domains, attached to its text "one" where they are named so.
func (e *env) shared(names ...policygen.Name) {
	e.Helper()
	all := []store.Domain{{Name: "*.eu.s.default.sts.example", Tenant: "default", MXSet: "eu", Publish: store.PublishWildcard, Account: "main"}}
	for _, n := range names {
		d := domain(n)
		d.Publish = store.PublishShared
		all = append(all, d)
	}
	e.declare(file(append(all, domain("zone.example"))...), at(0))
	e.serve("*.eu.s.default.sts.example", "one")
	for _, n := range names {
		e.serve(n, "one")
	}
}

func (e *env) serve(name policygen.Name, text string) {
	e.Helper()
	d := e.domain(name)
	d.State.Served = text
	e.must(e.Save(e.ctx(), &d, at(1)))
}

func sharedTurns(e *env) {
	e.shared("a.example", "apart.example", "promoted.example")
	apart, promoted := e.domain("apart.example"), e.domain("promoted.example")
	apart.State.Detached, promoted.State.Promoted = at(2), at(2)
	e.must(e.Save(e.ctx(), &apart, at(2)))
	e.must(e.Save(e.ctx(), &promoted, at(2)))
	late := e.domain("a.example")

	record := e.domain("*.eu.s.default.sts.example")
	record.State.Served, record.State.Promoted = "two", at(3)
	e.must(e.Save(e.ctx(), &record, at(3)))
	for name, want := range map[policygen.Name]string{"a.example": "two", "apart.example": "one", "promoted.example": "two", "zone.example": ""} {
		e.equal("text of "+string(name), e.domain(name).State.Served, want)
	}
	e.equal("promoted with the record", e.domain("a.example").State.Promoted, at(3))
	e.equal("promoted before it", e.domain("promoted.example").State.Promoted, at(2))
	history, err := e.History(e.ctx(), "a.example")
	e.must(err)
	e.equal("history", history, []store.Served{{Text: "one", From: at(1), To: at(3)}, {Text: "two", From: at(3)}})
	e.is(e.Save(e.ctx(), &late, at(4)), store.ErrStale)

	var names []policygen.Name
	e.must(e.EachShared(e.ctx(), "default", "eu", func(d store.Domain) error {
		names = append(names, d.Name)
		return nil
	}))
	e.equal("domains of the record", names, []policygen.Name{"a.example", "apart.example", "promoted.example"})
}

func sharedRefuses(e *env) {
	e.shared("a.example")
	d := e.domain("a.example")
	d.State.Served = "two"
	e.is(e.Save(e.ctx(), &d, at(2)), store.ErrStale, "eu")
	d.State.Detached = at(2)
	e.must(e.Save(e.ctx(), &d, at(2)))
	d.State.Detached = d.State.Away
	e.is(e.Save(e.ctx(), &d, at(2)), store.ErrStale, "eu")
}

func sharedClaims(e *env) {
	e.shared("a.example")
	claimed, err := e.Claim(e.ctx(), at(5), 10*at(1).Sub(at(0)), 10)
	e.must(err)
	i := slices.IndexFunc(claimed, func(d store.Domain) bool { return d.Name == "a.example" })
	if i < 0 {
		e.Fatalf("claimed %d domains, not a.example", len(claimed))
	}
	record := e.domain("*.eu.s.default.sts.example")
	record.State.Served = "two"
	e.must(e.Save(e.ctx(), &record, at(6)))
	if err := e.Save(e.ctx(), &claimed[i], at(6)); !errors.Is(err, store.ErrStale) {
		e.Errorf("a pass that began before went on: %v", err)
	}
	e.equal("due again", e.domain("a.example").Due, at(6))
}
