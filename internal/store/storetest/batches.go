package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func batchTests() map[string]func(*env) {
	return map[string]func(*env){
		"Batch/AddsChangesRemovesRestores":    batchLife,
		"Batch/SameAgainWritesNothing":        batchSame,
		"Batch/EachChangeHasItsOwnOutcome":    batchOutcomes,
		"Batch/IfMatchIsCheckedInOrder":       batchIfMatch,
		"Batch/ETagIsOfWhatIsDeclared":        batchETag,
		"Batch/RefusedByTheCaller":            batchRefused,
		"Batch/DryRunWritesNothing":           batchDryRun,
		"Batch/SavedAdoptStays":               batchAdopt,
		"Batch/EndsTheClaimOfWhatItChanges":   batchClaimed,
		"Batch/OwnersTakeOverWhatDrains":      batchOwners,
		"Batch/AnotherTenantsDomainIsTaken":   batchTaken,
		"Batch/SharedRecordComesAndGoes":      batchShared,
		"Batch/SharedRecordIsOfAllOwners":     batchSharedOwners,
		"Batch/SharedRecordStaysAfterOneMove": batchSharedMove,
		"Batch/RemovalsOfAnHourCountTogether": batchRemovals,
		"Batch/RemovalsOfOthersCountApart":    batchRemovalsApart,
		"Batch/RemovalsAtOnceCountTogether":   batchRemovalsAtOnce,
	}
}

// put is a change that declares a domain.
func put(d store.Domain) store.DomainChange { return store.DomainChange{Domain: d} }

// gone is a change that removes a domain of tenant "default".
func gone(name policygen.Name) store.DomainChange {
	return store.DomainChange{Domain: store.Domain{Name: name, Tenant: "default"}, Remove: true}
}

// apply makes changes by the API at minute i.
func (e *env) apply(i int, changes ...store.DomainChange) []store.DomainOutcome {
	e.Helper()
	return e.applied(i, store.Batch{Owner: store.OwnerAPI, Changes: changes})
}

func (e *env) applied(i int, b store.Batch) []store.DomainOutcome {
	e.Helper()
	outcomes, err := e.ApplyDomains(e.ctx(), b, at(i))
	e.must(err)
	if len(outcomes) != len(b.Changes) {
		e.Fatalf("%d outcomes of %d changes", len(outcomes), len(b.Changes))
	}
	return outcomes
}

// results checks the results of outcomes, of which none is an error.
func (e *env) results(got []store.DomainOutcome, want ...store.Result) {
	e.Helper()
	var results []store.Result
	for _, o := range got {
		e.must(o.Err)
		results = append(results, o.Result)
	}
	e.equal("results", results, want)
}

// taken returns outcomes as words: results, or errors.
func words(outcomes []store.DomainOutcome) (all []string) {
	for _, o := range outcomes {
		switch {
		case o.Err != nil && (o.Result != "" || o.ETag != ""):
			all = append(all, fmt.Sprintf("both %v and %v", o.Err, o))
		case o.Err != nil:
			all = append(all, o.Err.Error())
		default:
			all = append(all, string(o.Result))
		}
	}
	return all
}

func batchLife(e *env) {
	e.start()
	a := domain("a.example")
	a.TLSRPT, a.Adopt = "v=TLSRPTv1; rua=mailto:a@x.test", true
	added := e.apply(1, put(a))
	e.results(added, store.ResultAdded)
	got := e.domain("a.example")
	want := a
	want.Owner, want.Added, want.Due, want.Version = store.OwnerAPI, at(1), at(1), got.Version
	e.equal("added", got, want)
	e.equal("etag", added[0].ETag, got.ETag())

	got.Due = at(60)
	e.save(&got, 2, func(s *store.State) { s.Served, s.ID = "policy", "1" })
	a.MXSet, a.Publish, a.Account, a.TLSRPT = "us", store.PublishManual, "", ""
	e.results(e.apply(3, put(a)), store.ResultChanged)
	changed := e.domain("a.example")
	want = got
	want.MXSet, want.Publish, want.Account, want.TLSRPT, want.Due, want.Version = "us", store.PublishManual, "", "", at(3), changed.Version
	e.equal("changed", changed, want)
	if changed.Version == got.Version {
		e.Error("the version is the same after a change")
	}

	removed := e.apply(4, gone("a.example"))
	e.results(removed, store.ResultRemoved)
	want = changed
	want.Removed, want.Due = at(4), at(4)
	got = e.domain("a.example")
	want.Version = got.Version
	e.equal("removed", got, want)
	e.equal("etag", removed[0].ETag, got.ETag())
	e.results(e.apply(5, gone("a.example")), store.ResultUnchanged)
	e.equal("removed again", e.domain("a.example"), got)

	e.results(e.apply(6, put(a)), store.ResultRestored)
	want = got
	want.Removed, want.Due = time.Time{}, at(6)
	got = e.domain("a.example")
	want.Version = got.Version
	e.equal("restored", got, want)
}

func batchSame(e *env) {
	e.start()
	e.apply(1, put(domain("a.example")), put(domain("b.example")))
	d := e.domain("a.example")
	d.Due = at(60)
	e.save(&d, 2, func(s *store.State) { s.Served, s.Step = "policy", "live" })
	before := e.everything()
	again := e.apply(3, put(domain("b.example")), put(domain("a.example")))
	e.results(again, store.ResultUnchanged, store.ResultUnchanged)
	e.equal("etag", again[1].ETag, d.ETag())
	e.equal("store", e.everything(), before)
	if outcomes := e.apply(4); len(outcomes) > 0 {
		e.Errorf("no change has the outcomes %v", outcomes)
	}
}

func batchOutcomes(e *env) {
	e.start("file.example")
	theirs := domain("theirs.example")
	theirs.Tenant = "other"
	_, err := e.PutMXSet(e.ctx(), store.MXSet{Tenant: "other", Name: "eu", Owner: store.OwnerAPI, Policy: sets()[0].Policy}, nil, at(0))
	e.must(err)
	e.apply(0, put(theirs))
	theirs.Tenant = "default"
	nowhere := domain("nowhere.example")
	nowhere.MXSet = "nowhere"
	outcomes := e.apply(1, put(domain("a.example")), put(domain("file.example")), gone("file.example"), put(theirs),
		gone("theirs.example"), gone("nobody.example"), put(nowhere), put(domain("b.example")), put(domain("a.example")), gone("a.example"))
	e.equal("outcomes", words(outcomes), []string{
		"added", `domain "file.example" belongs to the configuration file: change it there`,
		`domain "file.example" belongs to the configuration file: change it there`, "taken", "not found", "not found",
		`mx set "nowhere": no such mx set`, "added", "unchanged", "removed",
	})
	var owned *store.OwnedError
	if !errors.As(outcomes[1].Err, &owned) || owned.Owner != store.OwnerFile {
		e.Errorf("error of a domain of the file is %#v", outcomes[1].Err)
	}
	e.is(outcomes[3].Err, store.ErrTaken)
	e.is(outcomes[5].Err, store.ErrNotFound)
	e.is(outcomes[6].Err, store.ErrUnknownMXSet)
	e.equal("domains", names(e.domains()), []policygen.Name{"a.example", "b.example", "file.example", "theirs.example"})
	e.equal("tenant", e.domain("theirs.example").Tenant, "other")

	if _, err := e.ApplyDomains(e.ctx(), store.Batch{Changes: []store.DomainChange{put(domain("c.example"))}}, at(2)); err == nil {
		e.Error("changes of nobody are made")
	}
}

func batchIfMatch(e *env) {
	e.start()
	match := func(c store.DomainChange, etag string) store.DomainChange {
		c.IfMatch = etag
		return c
	}
	first := e.apply(1, put(domain("a.example")))[0].ETag
	b := domain("a.example")
	b.Account = "second"
	outcomes := e.apply(2, match(put(b), "other"), match(put(b), first), match(put(domain("a.example")), first),
		match(gone("a.example"), first), match(put(domain("new.example")), "*"), match(put(domain("new.example")), first),
		match(gone("nobody.example"), "*"), match(put(b), "*"))
	e.equal("outcomes", words(outcomes), []string{
		store.ErrMismatch.Error(), "changed", store.ErrMismatch.Error(), store.ErrMismatch.Error(), store.ErrMismatch.Error(),
		store.ErrMismatch.Error(), store.ErrMismatch.Error(), "unchanged",
	})
	e.equal("account", e.domain("a.example").Account, "second")
	e.results(e.apply(3, match(gone("a.example"), outcomes[1].ETag)), store.ResultRemoved)
	e.is(e.apply(4, match(put(b), outcomes[1].ETag))[0].Err, store.ErrMismatch) // it drains
}

func batchETag(e *env) {
	e.start()
	e.apply(1, put(domain("a.example")))
	before := e.domain("a.example").ETag()
	d := e.claim(2, time.Hour, 1)[0]
	e.save(&d, 3, func(s *store.State) { s.Served, s.Step, s.Fault = "policy", "dns", true })
	e.equal("etag after a look", e.domain("a.example").ETag(), before)
	seen := map[string]bool{before: true}
	for i, change := range []func(*store.Domain){
		func(d *store.Domain) { d.MXSet = "us" },
		func(d *store.Domain) { d.Publish = store.PublishAlias },
		func(d *store.Domain) { d.Account = "second" },
		func(d *store.Domain) { d.Adopt = true },
		func(d *store.Domain) { d.TLSRPT = "v=TLSRPTv1; rua=mailto:a@x.test" },
	} {
		d := domain("a.example")
		change(&d)
		o := e.apply(4+i, put(d))
		e.results(o, store.ResultChanged)
		e.equal("etag", o[0].ETag, e.domain("a.example").ETag())
		if seen[o[0].ETag] {
			e.Errorf("etag of %+v was that of something else", d)
		}
		seen[o[0].ETag] = true
	}
}

func batchRefused(e *env) {
	e.start()
	e.apply(1, put(domain("a.example")), put(domain("b.example")))
	before := e.domain("a.example")
	why := errors.New("its record would be left behind")
	a, b := domain("a.example"), domain("b.example")
	a.Publish, b.Account = store.PublishManual, "second"
	var asked []string
	outcomes := e.applied(2, store.Batch{
		Owner: store.OwnerAPI, Changes: []store.DomainChange{put(a), put(b), put(domain("new.example")), put(domain("b.example")), gone("a.example")},
		Refuse: func(have, want store.Domain) error {
			asked = append(asked, fmt.Sprintf("%s %s %s", have.Name, have.Publish, want.Publish))
			if have.Publish != want.Publish {
				return why
			}
			return nil
		},
	})
	e.is(outcomes[0].Err, why)
	e.results(outcomes[1:], store.ResultChanged, store.ResultAdded, store.ResultChanged, store.ResultRemoved)
	e.equal("asked", asked, []string{"a.example zone manual", "b.example zone zone", "b.example zone zone"})
	e.equal("publish", e.domain("a.example").Publish, before.Publish)
}

func batchDryRun(e *env) {
	e.start()
	e.apply(1, put(domain("a.example")), put(domain("b.example")))
	before := e.everything()
	changed := domain("b.example")
	changed.MXSet = "us"
	outcomes := e.applied(2, store.Batch{Owner: store.OwnerAPI, DryRun: true, Changes: []store.DomainChange{
		gone("a.example"), put(changed), put(domain("c.example")), gone("nobody.example"),
	}})
	e.equal("outcomes", words(outcomes), []string{"removed", "changed", "added", "not found"})
	e.equal("store", e.everything(), before)
}

func batchAdopt(e *env) {
	e.start()
	e.apply(1, put(domain("a.example")))
	d := e.domain("a.example")
	d.Adopt = true
	e.must(e.Save(e.ctx(), &d, at(2)))
	e.results(e.apply(3, put(domain("a.example"))), store.ResultUnchanged)
	e.equal("adopt as saved", e.domain("a.example").Adopt, true)
	other := domain("a.example")
	other.MXSet = "us"
	o := e.apply(4, put(other))
	e.results(o, store.ResultChanged)
	e.equal("adopt after another change", e.domain("a.example").Adopt, true)
	e.equal("etag", o[0].ETag, e.domain("a.example").ETag())
	e.apply(5, gone("a.example"))
	e.results(e.apply(6, put(other)), store.ResultRestored)
	e.equal("adopt after it came back", e.domain("a.example").Adopt, false)
}

func batchClaimed(e *env) {
	e.start()
	e.apply(0, put(domain("a.example")), put(domain("b.example")), put(domain("c.example")))
	claimed := e.claim(1, time.Hour, 3)
	changed := domain("a.example")
	changed.Account = "second"
	e.apply(2, put(changed), gone("b.example"), put(domain("c.example")))
	e.equal("claimed again", names(e.claim(2, time.Hour, 3)), []policygen.Name{"a.example", "b.example"})
	for i := range claimed {
		err := e.Save(e.ctx(), &claimed[i], at(3))
		if claimed[i].Name == "c.example" {
			e.must(err)
			continue
		}
		e.is(err, store.ErrStale, string(claimed[i].Name))
	}
}

func batchOwners(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served = "policy" })
	e.declare(file(), at(2))
	e.results(e.apply(3, put(domain("a.example"))), store.ResultRestored)
	got := e.domain("a.example")
	e.equal("owner", got.Owner, store.OwnerAPI)
	e.equal("state", got.State, d.State)
	e.equal("change", e.declare(file(), at(4)), store.Change{})
	e.apply(5, gone("a.example"))
	e.equal("change", e.declare(file(domain("a.example")), at(6)), store.Change{Restored: 1})
	e.equal("owner", e.domain("a.example").Owner, store.OwnerFile)
}

func batchTaken(e *env) {
	e.start()
	other := sets()[0]
	other.Tenant, other.Owner = "other", store.OwnerAPI
	_, err := e.PutMXSet(e.ctx(), other, nil, at(0))
	e.must(err)
	theirs := domain("a.example")
	theirs.Tenant = "other"
	e.apply(1, put(theirs))
	e.is(e.apply(2, put(domain("a.example")))[0].Err, store.ErrTaken)
	e.apply(3, store.DomainChange{Domain: theirs, Remove: true}) // also while it drains: that is for a proven claim
	e.is(e.apply(4, put(domain("a.example")))[0].Err, store.ErrTaken)
	e.is(e.apply(5, gone("a.example"))[0].Err, store.ErrNotFound)
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	e.results(e.apply(6, put(domain("a.example"))), store.ResultAdded)
}

// sharing is a domain with publish shared, and the change that declares it.
func sharing(name policygen.Name, mxset string) store.DomainChange {
	d := domain(name)
	d.MXSet, d.Publish, d.Account = mxset, store.PublishShared, ""
	return store.DomainChange{Domain: d, Shared: &store.Domain{
		Name: policygen.Name("*." + mxset + ".s.default.sts.example"), Tenant: "default", MXSet: mxset,
	}}
}

// drains says which of the shared records of tenant "default" drain.
func (e *env) drains() map[policygen.Name]bool {
	e.Helper()
	all := make(map[policygen.Name]bool)
	for _, d := range e.domains() {
		if d.Publish == store.PublishWildcard {
			all[d.Name] = !d.Removed.IsZero()
		}
	}
	return all
}

const euShared, usShared = "*.eu.s.default.sts.example", "*.us.s.default.sts.example"

func batchShared(e *env) {
	e.start()
	e.results(e.apply(1, sharing("a.example", "eu"), sharing("b.example", "eu")), store.ResultAdded, store.ResultAdded)
	d := e.domain(euShared)
	e.equal("shared record", []any{d.Tenant, d.MXSet, d.Publish, d.Owner, d.Due}, []any{"default", "eu", store.PublishWildcard, store.OwnerAPI, at(1)})
	e.apply(2, gone("a.example"))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: false})
	e.apply(3, gone("b.example"))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: true})
	e.equal("due", e.domain(euShared).Due, at(3))
	e.apply(4, sharing("a.example", "eu"))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: false})
	e.equal("due", e.domain(euShared).Due, at(4))
	before := e.domain(euShared)
	e.apply(5, gone("a.example"), sharing("c.example", "eu")) // never without
	e.equal("shared record", e.domain(euShared), before)
	e.results(e.apply(6, sharing("c.example", "eu")), store.ResultUnchanged)
	e.equal("shared record", e.domain(euShared), before)
}

func batchSharedOwners(e *env) {
	shared := func(d store.DomainChange) []store.Domain {
		d.Shared.Publish, d.Shared.Account = store.PublishWildcard, "main"
		return []store.Domain{d.Domain, *d.Shared}
	}
	e.start()
	e.apply(1, sharing("api.example", "eu"))
	e.declare(file(shared(sharing("file.example", "eu"))...), at(2))
	e.apply(3, gone("api.example"))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: false}) // the file's needs it
	e.apply(4, sharing("api.example", "eu"))
	e.declare(file(), at(5))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: false}) // the API's needs it
	e.apply(6, gone("api.example"))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: true})
	e.declare(file(shared(sharing("file.example", "eu"))...), at(7))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: false})
	decl := file()
	decl.MXSets[0].Policy.MaxAge = 1
	e.declare(decl, at(8))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: true})
}

func batchSharedMove(e *env) {
	e.start()
	e.apply(1, sharing("a.example", "eu"), sharing("b.example", "eu"))
	e.apply(2, sharing("a.example", "us"))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: false, usShared: false})
	e.apply(3, sharing("b.example", "us"))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: true, usShared: false})
	alias := sharing("a.example", "us")
	alias.Domain.Publish, alias.Shared = store.PublishAlias, nil
	e.apply(4, alias, gone("b.example"))
	e.equal("drains", e.drains(), map[policygen.Name]bool{euShared: true, usShared: true})
}
