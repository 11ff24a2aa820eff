package storetest

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func ownedTests() map[string]func(*env) {
	return map[string]func(*env){
		"OwnedMXSets/PutAsGiven":             ownedPut,
		"OwnedMXSets/ChangedMakesDomainsDue": ownedChanged,
		"OwnedMXSets/AnotherOwnersIsRefused": ownedOwner,
		"OwnedMXSets/DeletedUnlessInUse":     ownedDelete,
		"OwnedMXSets/OnlyAsExpected":         ownedExpected,
		"OwnedMXSets/DeclareKeepsRollout":    ownedRollout,
	}
}

func pageTests() map[string]func(*env) {
	return map[string]func(*env){
		"Pages/OfOneTenantByName": pagesByName,
		"Pages/Filtered":          pagesFiltered,
		"Pages/Counted":           pagesCounted,
		"Pages/OfTheReleased":     pagesReleased,
	}
}

func accountTests() map[string]func(*env) {
	return map[string]func(*env){
		"Accounts/AsPut":                 accountsAsPut,
		"Accounts/SameNameInAnother":     accountsTenants,
		"Accounts/NeededByDomains":       accountsNeeded,
		"Accounts/GoneBeforeADomainCame": accountsGone,
		"Accounts/MissingIsNotFound":     accountsMissing,
		"Accounts/SealedAnewWithNewKey":  accountsResealed,
		"Account/EventsShowNoSecret":     eventsOwned,
	}
}

// apiSet is an MX set of the API.
func apiSet(tenant, name string) store.MXSet {
	m := sets()[0]
	m.Tenant, m.Name, m.Owner = tenant, name, store.OwnerAPI
	return m
}

func (e *env) putMXSet(i int, m store.MXSet) bool {
	e.Helper()
	changed, err := e.PutMXSet(e.ctx(), m, nil, at(i))
	e.must(err)
	return changed
}

func ownedPut(e *env) {
	m := apiSet("other", "eu")
	m.Rollout = 36 * time.Hour
	e.equal("changed", e.putMXSet(0, m), true)
	e.equal("changed by the same again", e.putMXSet(1, m), false)
	got, err := e.MXSets(e.ctx())
	e.must(err)
	e.equal("mx sets", got, []store.MXSet{m})
	e.reopen()
	got, err = e.MXSets(e.ctx())
	e.must(err)
	e.equal("mx sets", got, []store.MXSet{m})
	m.Owner = ""
	if _, err := e.PutMXSet(e.ctx(), m, nil, at(2)); err == nil {
		e.Error("an mx set of nobody was taken")
	}
}

func ownedChanged(e *env) {
	for i, change := range []func(*store.MXSet){
		func(m *store.MXSet) { m.Policy.Mode = "testing" },
		func(m *store.MXSet) { m.Policy.MaxAge++ },
		func(m *store.MXSet) { m.Policy.MX = append(m.Policy.MX, "mx9.example.net") },
		func(m *store.MXSet) { m.Rollout = time.Hour },
	} {
		m, now := apiSet("default", fmt.Sprintf("own%d", i)), 100*i
		e.putMXSet(now, m)
		e.putMXSet(now, apiSet("default", "else"))
		in := func(name policygen.Name, mxset string) store.DomainChange {
			d := domain(name)
			d.MXSet = mxset
			return put(d)
		}
		e.apply(now, in("a.example", m.Name), in("b.example", m.Name), in("drains.example", m.Name), in("else.example", "else"))
		e.apply(now, gone("drains.example"))
		for _, d := range e.domains() {
			d.Due = at(now + 60)
			e.must(e.Save(e.ctx(), &d, at(now+1)))
		}
		claimed := e.claim(now+60, time.Hour, 1)
		change(&m)
		e.equal("changed", e.putMXSet(now+70, m), true)
		due := dues(e)
		e.equal("due", due["b.example"], at(now+70))
		e.equal("due, else", due["else.example"], at(now+60))
		e.equal("due, drains", due["drains.example"], at(now+60))
		e.equal("claimed", names(claimed), []policygen.Name{"a.example"})
		e.equal("due, claimed", due["a.example"], at(now+70))
		e.is(e.Save(e.ctx(), &claimed[0], at(now+71)), store.ErrStale)
	}
}

func ownedExpected(e *env) {
	m := apiSet("default", "own")
	var saw []*store.MXSet
	expect := func(so bool) func(*store.MXSet) bool {
		return func(have *store.MXSet) bool {
			saw = append(saw, have)
			return so
		}
	}
	_, err := e.PutMXSet(e.ctx(), m, expect(false), at(0))
	e.is(err, store.ErrMismatch, `"own"`)
	changed, err := e.PutMXSet(e.ctx(), m, expect(true), at(1))
	e.must(err)
	e.equal("changed", changed, true)
	next := m
	next.Rollout = time.Hour
	_, err = e.PutMXSet(e.ctx(), next, expect(false), at(2))
	e.is(err, store.ErrMismatch, `"own"`)
	e.is(e.DeleteMXSet(e.ctx(), "default", "own", store.OwnerAPI, expect(false)), store.ErrMismatch, `"own"`)
	e.equal("what was seen", saw, []*store.MXSet{nil, nil, &m, &m})
	got, err := e.MXSet(e.ctx(), "default", "own")
	e.must(err)
	e.equal("mx set", got, m)
	e.must(e.DeleteMXSet(e.ctx(), "default", "own", store.OwnerAPI, expect(true)))
}

func ownedOwner(e *env) {
	e.start("a.example")
	before := e.everything()
	_, err := e.PutMXSet(e.ctx(), apiSet("default", "eu"), nil, at(1))
	var owned *store.OwnedError
	if !errors.As(err, &owned) || owned.Owner != store.OwnerFile || owned.Name != "eu" {
		e.Errorf("put: error is %v", err)
	}
	err = e.DeleteMXSet(e.ctx(), "default", "us", store.OwnerAPI, nil)
	if !errors.As(err, &owned) || owned.Owner != store.OwnerFile || owned.Name != "us" {
		e.Errorf("delete: error is %v", err)
	}
	e.equal("store", e.everything(), before)
	e.equal("changed", e.putMXSet(2, apiSet("other", "eu")), true)
}

func ownedDelete(e *env) {
	e.putMXSet(0, apiSet("default", "own"))
	d := domain("a.example")
	d.MXSet = "own"
	e.apply(0, put(d))
	err := e.DeleteMXSet(e.ctx(), "default", "own", store.OwnerAPI, nil)
	var used *store.InUseError
	if !errors.As(err, &used) || used.By != "a.example" {
		e.Fatalf("error is %v", err)
	}
	e.names(err, `"own"`, `"a.example"`)
	e.apply(1, gone("a.example"))
	e.must(e.DeleteMXSet(e.ctx(), "default", "own", store.OwnerAPI, nil))
	e.is(e.DeleteMXSet(e.ctx(), "default", "own", store.OwnerAPI, nil), store.ErrNotFound, `"own"`)
	e.is(e.apply(2, put(d))[0].Err, store.ErrUnknownMXSet)
	got, err := e.MXSets(e.ctx())
	e.must(err)
	if len(got) != 1 || got[0].Owner != "" {
		e.Errorf("during the drain the mx sets are %v", got)
	}
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	e.putMXSet(3, apiSet("default", "own"))
	e.must(e.DeleteMXSet(e.ctx(), "default", "own", store.OwnerAPI, nil))
	e.equal("mx sets", e.mxsets(), []store.MXSet(nil))
	e.is(e.DeleteMXSet(e.ctx(), "default", "nowhere", store.OwnerAPI, nil), store.ErrNotFound)
}

func ownedRollout(e *env) {
	decl := file(domain("a.example"))
	decl.MXSets[0].Rollout = time.Hour
	e.declare(decl, at(0))
	d := e.domain("a.example")
	decl.MXSets[0].Rollout = 2 * time.Hour
	e.equal("change", e.declare(decl, at(1)), store.Change{})
	e.equal("mx sets", e.mxsets(), decl.MXSets)
	e.equal("domain", e.domain("a.example"), d)
	owners, err := e.MXSets(e.ctx())
	e.must(err)
	e.equal("owner", owners[0].Owner, store.OwnerFile)
}

// pages returns the names of a tenant's domains, page by page.
func (e *env) pages(tenant string, f store.DomainFilter, n int) (all []policygen.Name) {
	e.Helper()
	after := policygen.Name("")
	for range 100 {
		page, err := e.DomainsOf(e.ctx(), tenant, f, after, n)
		e.must(err)
		if len(page) == 0 {
			return all
		}
		if len(page) > n {
			e.Fatalf("a page of %d has %d", n, len(page))
		}
		all = append(all, names(page)...)
		after = page[len(page)-1].Name
	}
	e.Fatal("no end of pages")
	return nil
}

func pagesByName(e *env) {
	e.start("10.example", "b.example", "a.example")
	e.putMXSet(0, apiSet("other", "eu"))
	theirs := domain("theirs.example")
	theirs.Tenant = "other"
	e.apply(1, put(theirs), sharing("c.example", "eu"))
	want := []policygen.Name{"10.example", "a.example", "b.example", "c.example"}
	for n := 1; n < 6; n++ {
		e.equal("names", e.pages("default", store.DomainFilter{}, n), want)
	}
	e.equal("names of the other", e.pages("other", store.DomainFilter{}, 10), []policygen.Name{"theirs.example"})
	e.equal("names of nobody", e.pages("nobody", store.DomainFilter{}, 10), []policygen.Name(nil))
	page, err := e.DomainsOf(e.ctx(), "default", store.DomainFilter{}, "a.example", 1)
	e.must(err)
	e.equal("domain", page, []store.Domain{e.domain("b.example")})
	page, err = e.DomainsOf(e.ctx(), "default", store.DomainFilter{}, "", 0)
	e.must(err)
	e.equal("page of none", len(page), 0)
}

func pagesFiltered(e *env) {
	e.start()
	for i := range 24 {
		d := domain(policygen.Name(fmt.Sprintf("%c%02d.example", 'a'+i%2, i)))
		if i%3 == 0 {
			d.MXSet = "us"
		}
		e.apply(1, put(d))
		if i%4 != 0 {
			got := e.domain(d.Name)
			e.save(&got, 2, func(s *store.State) { s.Step, s.Fault = []string{"", "live", "dns", "drain"}[i%4], i%6 == 1 })
		}
	}
	all := e.domains()
	for _, f := range []store.DomainFilter{
		{},
		{MXSet: "us"},
		{Step: "live"},
		{Step: "dns"},
		{Step: store.StepNew},
		{Fault: true},
		{Prefix: "a"},
		{Prefix: "b1"},
		{MXSet: "us", Step: "live"},
		{MXSet: "us", Step: "dns"},
		{MXSet: "eu", Fault: true},
		{Step: "live", Fault: true, Prefix: "b"},
		{MXSet: "us", Step: store.StepNew, Prefix: "a"},
		{MXSet: "nowhere"},
		{Step: "nowhere"},
		{Prefix: "z"},
	} {
		var want []policygen.Name
		for _, d := range all {
			step := d.State.Step
			if step == "" {
				step = store.StepNew
			}
			if (f.MXSet == "" || f.MXSet == d.MXSet) && (f.Step == "" || f.Step == step) && (!f.Fault || d.State.Fault) &&
				(len(f.Prefix) == 0 || len(d.Name) >= len(f.Prefix) && string(d.Name[:len(f.Prefix)]) == f.Prefix) {
				want = append(want, d.Name)
			}
		}
		if len(want) == 0 && f.MXSet != "nowhere" && f.Step != "nowhere" && f.Prefix != "z" {
			e.Fatalf("nothing is expected of %+v", f)
		}
		e.equal(fmt.Sprintf("%+v", f), e.pages("default", f, 2), want)
	}
}

func pagesCounted(e *env) {
	e.start("file.example")
	e.apply(1, put(domain("a.example")), put(domain("b.example")), sharing("c.example", "eu"))
	e.apply(2, gone("b.example"))
	for owner, want := range map[string]int{store.OwnerAPI: 2, store.OwnerFile: 1, "nobody": 0} {
		n, err := e.CountDomains(e.ctx(), "default", owner)
		e.must(err)
		e.equal("domains of "+owner, n, want)
	}
	n, err := e.CountDomains(e.ctx(), "other", store.OwnerAPI)
	e.must(err)
	e.equal("domains of another tenant", n, 0)
}

func pagesReleased(e *env) {
	e.start("a.example")
	e.is(e.ReleaseDomain(e.ctx(), "other", "a.example", true), store.ErrNotFound, `"a.example"`)
	e.is(e.ReleaseDomain(e.ctx(), "default", "b.example", true), store.ErrNotFound)
	before := e.everything()
	e.must(e.ReleaseDomain(e.ctx(), "default", "a.example", true))
	e.must(e.ReleaseDomain(e.ctx(), "default", "a.example", true))
	e.equal("store", e.everything(), before)
}

func (e *env) accounts() []store.Account {
	e.Helper()
	all, err := e.Accounts(e.ctx())
	e.must(err)
	return all
}

func accountsAsPut(e *env) {
	a := store.Account{Tenant: "default", Name: "main", Provider: "desec", Settings: []byte(`{"token":"s3cret"}`), Version: "1"}
	b := store.Account{Tenant: "default", Name: "b", Provider: "ovh", Settings: []byte("{}")}
	e.must(e.PutAccount(e.ctx(), a, ""))
	e.must(e.PutAccount(e.ctx(), b, ""))
	e.equal("accounts", e.accounts(), []store.Account{b, a})
	got, err := e.Account(e.ctx(), "default", "main")
	e.must(err)
	e.equal("one", got, a)
	_, err = e.Account(e.ctx(), "acme", "main")
	e.is(err, store.ErrNotFound, `"main"`)
	a.Provider, a.Settings, a.Version = "ovh", []byte("other"), "2"
	e.must(e.PutAccount(e.ctx(), a, ""))
	e.reopen()
	e.equal("accounts", e.accounts(), []store.Account{b, a})
	e.must(e.DeleteAccount(e.ctx(), "default", "b", ""))
	e.equal("accounts", e.accounts(), []store.Account{a})
}

// accountsGone has domains come while their account goes. Either comes first.
func accountsGone(e *env) {
	e.start()
	account := store.Account{Tenant: "default", Name: "own", Provider: "desec"}
	d := domain("a.example")
	d.Account = "own"
	change := store.DomainChange{Domain: d, OwnAccount: true}
	err := e.apply(1, change)[0].Err
	e.is(err, store.ErrUnknownAccount, `"own"`)
	other := account
	other.Tenant = "b"
	e.must(e.PutAccount(e.ctx(), other, ""))
	e.is(e.apply(1, change)[0].Err, store.ErrUnknownAccount)
	var came, went int
	for i := range 30 {
		e.must(e.PutAccount(e.ctx(), account, ""))
		d.Name = policygen.Name(fmt.Sprintf("d%02d.example", i))
		change.Domain = d
		var g errgroup.Group
		var outcomes []store.DomainOutcome
		g.Go(func() (err error) {
			outcomes, err = e.ApplyDomains(e.ctx(), store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{change}}, at(1))
			return err
		})
		deleted := e.DeleteAccount(e.ctx(), "default", "own", "")
		e.must(g.Wait())
		var used *store.InUseError
		switch err := outcomes[0].Err; {
		case err == nil && errors.As(deleted, &used):
			came++
			d.Account = ""
			e.apply(2, put(d)) // so that the account may go the next time
			d.Account = "own"
			e.must(e.DeleteAccount(e.ctx(), "default", "own", ""))
		case errors.Is(err, store.ErrUnknownAccount) && deleted == nil:
			went++
		default:
			e.Fatalf("the domain: %v; the account: %v", err, deleted)
		}
	}
	e.Logf("the domain came first %d times, the account went first %d times", came, went)
}

func accountsTenants(e *env) {
	a := store.Account{Tenant: "a", Name: "main", Provider: "desec", Settings: []byte("1")}
	b := store.Account{Tenant: "b", Name: "main", Provider: "desec", Settings: []byte("2")}
	e.must(e.PutAccount(e.ctx(), b, ""))
	e.must(e.PutAccount(e.ctx(), a, ""))
	e.equal("accounts", e.accounts(), []store.Account{a, b})
	e.must(e.DeleteAccount(e.ctx(), "b", "main", ""))
	e.equal("accounts", e.accounts(), []store.Account{a})
}

func accountsNeeded(e *env) {
	e.start()
	e.must(e.PutAccount(e.ctx(), store.Account{Tenant: "default", Name: "own", Provider: "desec"}, ""))
	own := domain("a.example")
	own.Account = "own"
	e.apply(1, put(own))
	refused := func() *store.InUseError {
		e.Helper()
		err := e.DeleteAccount(e.ctx(), "default", "own", "")
		var used *store.InUseError
		if !errors.As(err, &used) {
			e.Fatalf("error is %v, want an InUseError", err)
		}
		e.names(err, `"own"`)
		return used
	}
	e.equal("by", refused().By, policygen.Name("a.example"))
	e.apply(2, gone("a.example"))
	used := refused()
	e.equal("by draining", []any{used.By, used.Draining, used.Until}, []any{policygen.Name(""), 1, time.Time{}})
	d := e.domain("a.example")
	e.save(&d, 3, func(s *store.State) { s.Horizon = at(5000) })
	e.equal("until", refused().Until, at(5000))
	e.must(e.Delete(e.ctx(), d))
	e.must(e.DeleteAccount(e.ctx(), "default", "own", ""))
	e.equal("accounts", len(e.accounts()), 0)
}

func accountsMissing(e *env) {
	e.is(e.DeleteAccount(e.ctx(), "default", "main", ""), store.ErrNotFound, `"main"`)
}

func accountsResealed(e *env) {
	a := store.Account{Tenant: "a", Name: "main", Provider: "desec", Settings: []byte("1")}
	b := store.Account{Tenant: "b", Name: "main", Provider: "desec", Settings: []byte("2")}
	e.reopenWith(1)
	e.must(e.PutAccount(e.ctx(), a, ""))
	e.must(e.PutAccount(e.ctx(), b, ""))
	e.reopenWith(2, 1)
	e.reseals(2)
	e.reopenWith(2)
	e.equal("accounts", e.accounts(), []store.Account{a, b})
}
