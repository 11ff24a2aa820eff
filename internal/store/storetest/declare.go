package storetest

import (
	"slices"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func declareTests() map[string]func(*env) {
	return map[string]func(*env){
		"Declare/AddsDomainsDueNow":            declareAdds,
		"Declare/ReadsOnlyWhatIsDeclared":      declareReadsOnly,
		"Declare/SameAgainWritesNothing":       declareSame,
		"Declare/ChangedBecomesDue":            declareChanged,
		"Declare/PolicyChangedBecomesDue":      declarePolicy,
		"Declare/MissingIsRemovedOnce":         declareMissing,
		"Declare/RemovedComesBack":             declareRestored,
		"Declare/NothingLeft":                  declareNothing,
		"Declare/OwnersDoNotTouchEachOther":    declareOwners,
		"Declare/ErrorChangesNothing":          declareErrors,
		"Declare/SavedAdoptStays":              declareAdopt,
		"Declare/EndsTheClaimOfWhatItChanges":  declareClaimed,
		"Declare/ManyDomainsAmongManyOthers":   declareMany,
		"Declare/CountsEachDomainOnce":         declareCounts,
		"Declare/TimesAreMicrosecondsInUTC":    declareTimes,
		"Declare/ChangesOnlyVersionsOfChanged": declareVersions,
	}
}

func declareAdds(e *env) {
	a, b := domain("a.example"), domain("b.example")
	b.MXSet, b.Publish, b.Account, b.Adopt = "us", store.PublishAlias, "second", true
	b.TLSRPT = "v=TLSRPTv1; rua=mailto:b@x.test"
	e.equal("change", e.declare(file(b, a), at(0)), store.Change{Added: 2})

	for _, want := range []store.Domain{a, b} {
		got := e.domain(want.Name)
		if got.Version == 0 {
			e.Errorf("domain %s has version 0, which a zero Domain has too", got.Name)
		}
		want.Owner, want.Added, want.Due, want.Version = store.OwnerFile, at(0), at(0), got.Version
		e.equal("domain", got, want)
	}
}

func declareReadsOnly(e *env) {
	d := domain("a.example")
	d.Owner = store.OwnerFile
	d.Added, d.Removed, d.Due, d.Version = at(-5), at(-4), at(99), 77
	d.State = store.State{Served: "x", ID: "y", Intended: "z", Record: "r", Dirty: true, Failures: 3}
	e.declare(file(d), at(0))

	got := e.domain(d.Name)
	e.equal("state", got.State, store.State{})
	e.equal("times", []time.Time{got.Added, got.Removed, got.Due}, []time.Time{at(0), {}, at(0)})
	e.equal("ids", e.ids("r"), []store.WrittenID(nil))
	e.equal("history", e.history(d.Name), []store.Served(nil))
}

func declareSame(e *env) {
	e.start("a.example", "b.example", "c.example")
	d := e.domain("b.example")
	d.Due = at(60)
	e.save(&d, 1, func(s *store.State) { s.Served, s.Step = "policy", "live" })
	before := e.everything()

	e.equal("change", e.declare(file(domain("c.example"), domain("a.example"), domain("b.example")), at(5)), store.Change{})
	e.equal("store", e.everything(), before)
}

func declareChanged(e *env) {
	for i, change := range []func(*store.Domain){
		func(d *store.Domain) { d.MXSet = "us" },
		func(d *store.Domain) { d.Publish = store.PublishAlias },
		func(d *store.Domain) { d.Account = "second" },
		func(d *store.Domain) { d.Adopt = true },
		func(d *store.Domain) { d.TLSRPT = "v=TLSRPTv1; rua=mailto:a@x.test" },
	} {
		e.start("a.example", "b.example")
		for _, name := range []policygen.Name{"a.example", "b.example"} {
			d := e.domain(name)
			d.Due = at(60)
			e.save(&d, 1, func(s *store.State) { s.Served = "policy" })
		}
		before, other := e.domain("a.example"), e.domain("b.example")

		d := domain("a.example")
		change(&d)
		e.equal("change", e.declare(file(d, domain("b.example")), at(5+i)), store.Change{Changed: 1})
		want := before
		change(&want)
		want.Due = at(5 + i)
		got := e.domain("a.example")
		if got.Version == before.Version {
			e.Error("the version is the same after a change")
		}
		want.Version = got.Version
		e.equal("changed domain", got, want)
		e.equal("other domain", e.domain("b.example"), other)
	}
}

func declarePolicy(e *env) {
	for i, change := range []func(*policygen.Policy){
		func(p *policygen.Policy) { p.Mode = "testing" },
		func(p *policygen.Policy) { p.MaxAge++ },
		func(p *policygen.Policy) { p.MX = append(p.MX, "mx9.example.net") },
		func(p *policygen.Policy) { slices.Reverse(p.MX) },
	} {
		inUS := domain("us.example")
		inUS.MXSet = "us"
		e.declare(file(domain("drains.example"), domain("eu.example"), inUS), at(0))
		api := store.Declaration{Owner: store.OwnerAPI, Domains: []store.Domain{domain("api.example")}}
		e.declare(api, at(0))
		e.declare(file(domain("eu.example"), inUS), at(1)) // drains.example drains
		for _, d := range e.domains() {
			d.Due = at(60)
			e.must(e.Save(e.ctx(), &d, at(1)))
		}

		now := 5 + i
		decl := file(domain("eu.example"), inUS)
		change(&decl.MXSets[0].Policy)
		e.equal("change", e.declare(decl, at(now)), store.Change{Changed: 2})
		e.equal("due", dues(e), map[policygen.Name]time.Time{
			"api.example": at(now), "drains.example": at(60), "eu.example": at(now), "us.example": at(60),
		})
		e.equal("mx sets", e.mxsets(), decl.MXSets)
		e.declare(file(domain("drains.example"), domain("eu.example"), inUS), at(20)) // back to where it began
	}
}

func dues(e *env) map[policygen.Name]time.Time {
	due := make(map[policygen.Name]time.Time)
	for _, d := range e.domains() {
		due[d.Name] = d.Due
	}
	return due
}

func declareMissing(e *env) {
	e.start("a.example", "b.example")
	d := e.domain("a.example")
	d.Due = at(60)
	e.save(&d, 1, func(s *store.State) { s.Served = "policy" })

	e.equal("change", e.declare(file(domain("b.example")), at(5)), store.Change{Removed: 1})
	got := e.domain("a.example")
	want := d
	want.Removed, want.Due, want.Version = at(5), at(5), got.Version
	e.equal("removed domain", got, want)
	if got.Version == d.Version {
		e.Error("the version is the same after the removal")
	}

	e.equal("change", e.declare(file(domain("b.example")), at(6)), store.Change{})
	e.equal("removed domain, later", e.domain("a.example"), got)
}

func declareRestored(e *env) {
	e.start("a.example", "b.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served = "policy" })
	e.declare(file(domain("b.example")), at(5))
	removed := e.domain("a.example")
	removed.Due = at(60)
	e.must(e.Save(e.ctx(), &removed, at(6)))

	again := domain("a.example")
	again.MXSet = "us"
	e.equal("change", e.declare(file(again, domain("b.example")), at(7)), store.Change{Restored: 1})
	got := e.domain("a.example")
	want := removed
	want.Removed, want.Due, want.MXSet, want.Version = time.Time{}, at(7), "us", got.Version
	e.equal("restored domain", got, want)
	if got.Version == removed.Version {
		e.Error("the version is the same after the return")
	}
}

func declareNothing(e *env) {
	e.start("a.example", "b.example")
	e.equal("change", e.declare(store.Declaration{Owner: store.OwnerFile}, at(1)), store.Change{Removed: 2})
	e.equal("domains", names(e.domains()), []policygen.Name{"a.example", "b.example"})
}

func declareOwners(e *env) {
	e.start("a.example")
	api := store.Declaration{Owner: store.OwnerAPI, Domains: []store.Domain{domain("b.example")}}
	e.equal("change", e.declare(api, at(1)), store.Change{Added: 1})
	e.equal("owner", e.domain("b.example").Owner, store.OwnerAPI)
	e.equal("change", e.declare(file(domain("a.example")), at(2)), store.Change{})
	e.equal("change", e.declare(store.Declaration{Owner: store.OwnerAPI}, at(3)), store.Change{Removed: 1})
	if d := e.domain("a.example"); !d.Removed.IsZero() {
		e.Error("the file's domain was removed by a declaration of the API")
	}
}

func declareErrors(e *env) {
	e.start("a.example", "b.example")
	e.declare(store.Declaration{
		Owner:   store.OwnerAPI,
		MXSets:  []store.MXSet{{Tenant: "default", Name: "theirs", Policy: policygen.Policy{Mode: "none", MaxAge: 1}}},
		Domains: []store.Domain{domain("api.example")},
	}, at(0))
	before := e.everything()

	bad := func(decl store.Declaration, words ...string) {
		e.Helper()
		c, err := e.Declare(e.ctx(), decl, at(5))
		e.names(err, words...)
		e.equal("change", c, store.Change{})
		e.equal("store", e.everything(), before)
	}
	owned, elsewhere := domain("api.example"), domain("x.example")
	owned.Owner, elsewhere.MXSet = store.OwnerAPI, "nowhere"
	changed := file(domain("a.example"), domain("new.example"))
	changed.MXSets[0].Policy.MaxAge = 1
	with := func(d ...store.Domain) store.Declaration {
		decl := changed
		decl.Domains = slices.Concat(decl.Domains, d)
		return decl
	}
	sets := func(s ...store.MXSet) store.Declaration {
		decl := changed
		decl.MXSets = slices.Concat(decl.MXSets, s)
		return decl
	}
	bad(with(domain("api.example")), `"api.example"`, `"api"`)                                      // stored for another owner
	bad(with(owned), `"api.example"`, `"api"`)                                                      // declared for another owner
	bad(with(domain("new.example")), `"new.example"`, "twice")                                      // twice
	bad(with(elsewhere), `"x.example"`, `"nowhere"`)                                                // no such MX set
	bad(sets(changed.MXSets[1]), `"us"`, "twice")                                                   // MX set twice
	bad(sets(store.MXSet{Tenant: "default", Name: "theirs"}), `"theirs"`, `"api"`)                  // another owner's MX set
	bad(store.Declaration{Domains: changed.Domains}, "owner")                                       // nobody's
	bad(store.Declaration{Owner: store.OwnerFile, Domains: changed.Domains}, `"a.example"`, `"eu"`) // MX set dropped in use
}

func declareAdopt(e *env) {
	saveAdopt := func(v bool, i int) {
		e.Helper()
		d := e.domain("a.example")
		d.Adopt = v
		e.must(e.Save(e.ctx(), &d, at(i)))
	}
	e.start("a.example")
	saveAdopt(true, 1)
	e.equal("change", e.declare(file(domain("a.example")), at(2)), store.Change{})
	e.equal("adopt as saved", e.domain("a.example").Adopt, true)

	d := domain("a.example")
	d.Adopt = true
	e.equal("change", e.declare(file(d), at(3)), store.Change{Changed: 1})
	saveAdopt(false, 4)
	e.equal("change", e.declare(file(d), at(5)), store.Change{})
	e.equal("adopt as saved", e.domain("a.example").Adopt, false)

	e.declare(file(), at(6))
	e.declare(file(d), at(7))
	e.equal("adopt of a domain that came back", e.domain("a.example").Adopt, true)
}

func declareClaimed(e *env) {
	e.start("a.example", "b.example", "c.example")
	claimed := e.claim(1, time.Hour, 3)
	changed := domain("a.example")
	changed.Account = "second"
	e.declare(file(changed, domain("c.example")), at(2)) // a changed, b removed

	again := e.claim(2, time.Hour, 3)
	e.equal("claimed again", names(again), []policygen.Name{"a.example", "b.example"})
	for i := range claimed {
		err := e.Save(e.ctx(), &claimed[i], at(3))
		if claimed[i].Name == "c.example" {
			e.must(err)
			continue
		}
		e.is(err, store.ErrStale, string(claimed[i].Name))
	}
}

// declareMany compares the stored domains with the declared ones at both ends and in between.
func declareMany(e *env) {
	const n = 200
	name := func(i int) policygen.Name {
		return policygen.Name("d" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + ".example")
	}
	every := func(of int) (some []store.Domain) {
		for i := n - 1; i >= 0; i-- {
			if i%of == 0 {
				some = append(some, domain(name(i)))
			}
		}
		return some
	}
	e.equal("every third", e.declare(file(every(3)...), at(0)), store.Change{Added: 67})
	e.equal("all", e.declare(file(every(1)...), at(1)), store.Change{Added: 133})
	e.equal("every second", e.declare(file(every(2)...), at(2)), store.Change{Removed: 100})
	e.equal("every third", e.declare(file(every(3)...), at(3)), store.Change{Removed: 66, Restored: 33})
	for i, d := range e.domains() {
		if d.Name != name(i) || d.Removed.IsZero() != (i%3 == 0) {
			e.Errorf("domain %d is %s, removed %s", i, d.Name, d.Removed)
		}
	}
}

// declareCounts has a domain that changed itself and by its MX set.
func declareCounts(e *env) {
	e.start("a.example", "b.example")
	d := domain("a.example")
	d.Adopt = true
	decl := file(d, domain("b.example"))
	decl.MXSets[0].Policy.MaxAge++
	e.equal("change", e.declare(decl, at(1)), store.Change{Changed: 2})
}

func declareTimes(e *env) {
	now := at(0).Add(789).In(time.FixedZone("east", 3600))
	e.declare(file(domain("a.example")), now)
	d := e.domain("a.example")
	e.equal("times", []time.Time{d.Added, d.Due}, []time.Time{at(0), at(0)})
	if d.Added.Location() != time.UTC || d.Due.Location() != time.UTC {
		e.Errorf("times are in %s and %s, want UTC", d.Added.Location(), d.Due.Location())
	}
}

func declareVersions(e *env) {
	e.start("a.example", "b.example")
	b := e.domain("b.example")
	e.declare(file(domain("b.example"), domain("c.example")), at(1))
	e.must(e.Save(e.ctx(), &b, at(2)))
}
