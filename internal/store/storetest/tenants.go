package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func tenantTests() map[string]func(*env) {
	return map[string]func(*env){
		"Tenant/DefaultIsThere":         tenantDefault,
		"Tenant/ComesBackAsAdded":       tenantAdded,
		"Tenant/LimitsChange":           tenantLimits,
		"Tenant/StaysWhileInUse":        tenantInUse,
		"Tenant/LeavesWithItsTokens":    tenantLeaves,
		"Tenant/OfADomain":              tenantOf,
		"Tenant/HasNoMoreThanItMay":     tenantLimited,
		"Tenant/SetsAndAccountsAreFew":  tenantOwns,
		"Tenant/WritesOfADayAreCounted": tenantWrites,
		"Tenant/OneOfManyTakesTheLast":  tenantRace,
		"Tenant/OrdersOfADayAreCounted": tenantOrders,
		"Tenant/CountsWhoWaitsBefore":   tenantQueue,
		"Token/ComesBackAsAdded":        tokenAdded,
		"Token/BelongsToATenant":        tokenTenant,
		"Token/UseIsNoted":              tokenUse,
		"Token/RevokedIsRevokedForGood": tokenRevoked,
		"Token/MadeWithOthers":          tokenMade,
	}
}

// tenant adds one at minute 0.
func (e *env) tenant(name string) store.Tenant {
	e.Helper()
	t := store.Tenant{Name: name, Limits: store.Limits{Domains: 10}, Created: at(0)}
	e.must(e.AddTenant(e.ctx(), t))
	return t
}

// token adds one that was made at minute i.
func (e *env) token(id, tenant string, i int) store.Token {
	e.Helper()
	t := store.Token{ID: id, Tenant: tenant, Role: store.RoleRead, Label: "panel ü", Hash: []byte("hash of " + id), Created: at(i), Expires: at(900)}
	e.must(e.AddToken(e.ctx(), t))
	return t
}

func (e *env) tokens(tenant string) []store.Token {
	e.Helper()
	all, err := e.Tokens(e.ctx(), tenant)
	e.must(err)
	return all
}

func tenantDefault(e *env) {
	all, err := e.Tenants(e.ctx())
	e.must(err)
	if len(all) != 1 || all[0].Name != store.DefaultTenant || all[0].Limits != (store.Limits{}) || all[0].Created.IsZero() {
		e.Errorf("tenants of an empty store = %+v, want the default without limits", all)
	}
	e.is(e.DeleteTenant(e.ctx(), store.DefaultTenant, "", at(0)), store.ErrInUse, `"default"`)
	e.is(e.AddTenant(e.ctx(), store.Tenant{Name: store.DefaultTenant}), store.ErrExists, `"default"`)
}

func tenantAdded(e *env) {
	want := e.tenant("a")
	other := store.Tenant{Name: "0-b", Limits: store.Limits{Domains: 1, MXSets: 4, Accounts: 5, Orders: 2, Writes: 3}, Created: at(5)}
	e.must(e.AddTenant(e.ctx(), other))
	e.is(e.AddTenant(e.ctx(), store.Tenant{Name: "a", Created: at(9)}), store.ErrExists, `"a"`)
	e.reopen()
	got, err := e.Tenant(e.ctx(), "a")
	e.must(err)
	e.equal("tenant", got, want)
	all, err := e.Tenants(e.ctx())
	e.must(err)
	e.equal("tenants but the default", []store.Tenant{all[0], all[1]}, []store.Tenant{other, want})
	_, err = e.Tenant(e.ctx(), "nobody")
	e.is(err, store.ErrNotFound, `"nobody"`)
}

func tenantLimits(e *env) {
	want := e.tenant("a")
	want.Limits = store.Limits{MXSets: 8, Accounts: 9, Orders: 7, Writes: 1_000_000_000_000}
	e.must(e.limit(e.ctx(), "a", want.Limits, ""))
	got, err := e.Tenant(e.ctx(), "a")
	e.must(err)
	e.equal("tenant", got, want)
	e.is(e.limit(e.ctx(), "nobody", store.Limits{}, ""), store.ErrNotFound, `"nobody"`)
}

// declareFor declares a domain of a tenant, with its MX set.
func (e *env) declareFor(tenant string) store.Domain {
	e.Helper()
	d := domain("a.example")
	d.Tenant = tenant
	set := sets()[0]
	set.Tenant = tenant
	e.declare(store.Declaration{Owner: store.OwnerFile, MXSets: []store.MXSet{set}, Domains: []store.Domain{d}}, at(0))
	return d
}

func tenantInUse(e *env) {
	e.tenant("a")
	d := e.declareFor("a")
	e.token("t", "a", 0)
	e.is(e.DeleteTenant(e.ctx(), "a", "", at(1)), store.ErrInUse, `"a"`, `"a.example"`)
	e.declare(store.Declaration{Owner: store.OwnerFile}, at(2)) // it drains
	e.is(e.DeleteTenant(e.ctx(), "a", "", at(3)), store.ErrInUse, `"a.example"`)
	e.must(e.Delete(e.ctx(), e.domain(d.Name)))
	set := sets()[0]
	set.Tenant = "a"
	e.declare(store.Declaration{Owner: store.OwnerFile, MXSets: []store.MXSet{set}}, at(4))
	e.is(e.DeleteTenant(e.ctx(), "a", "", at(5)), store.ErrInUse, `mx set "eu"`)
	e.equal("revoked", e.tokens("a")[0].Revoked.IsZero(), true)
	e.declare(store.Declaration{Owner: store.OwnerFile}, at(6))
	e.must(e.DeleteTenant(e.ctx(), "a", "", at(7)))
}

func tenantLeaves(e *env) {
	e.tenant("a")
	e.tenant("b")
	e.token("ta", "a", 0)
	kept := []store.Token{e.token("tb", "b", 0)}
	e.must(e.DeleteTenant(e.ctx(), "a", "", at(4)))
	_, err := e.Tenant(e.ctx(), "a")
	e.is(err, store.ErrNotFound)
	e.is(e.DeleteTenant(e.ctx(), "a", "", at(5)), store.ErrNotFound, `"a"`)
	e.equal("its token was revoked", e.tokens("a")[0].Revoked, at(4))
	e.equal("tokens of another", e.tokens("b"), kept)
	// One of the same name later is another one.
	e.tenant("a")
	e.equal("its token stays revoked", e.tokens("a")[0].Revoked, at(4))
}

func tenantOf(e *env) {
	e.tenant("a")
	e.declareFor("a")
	got, err := e.TenantOf(e.ctx(), "a.example")
	e.must(err)
	e.equal("tenant", got, "a")
	_, err = e.TenantOf(e.ctx(), "b.example")
	e.is(err, store.ErrNotFound, `"b.example"`)

	// A shared record is its MX set's.
	sharing, record := domain("c.example"), domain("*.us.s.default.sts.example")
	sharing.Publish, sharing.MXSet, record.Publish, record.MXSet = store.PublishShared, "us", store.PublishWildcard, "us"
	e.applied(1, store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{{Domain: e.inOwnSet(sharing), Shared: &record}}})
	shared, err := e.SharedOf(e.ctx(), "default")
	e.must(err)
	e.equal("shared records", names(shared), []policygen.Name{record.Name})
	shared, err = e.SharedOf(e.ctx(), "a")
	e.must(err)
	e.equal("shared records of another", len(shared), 0)
}

// inOwnSet declares the MX set of a domain by the API.
func (e *env) inOwnSet(d store.Domain) store.Domain {
	e.Helper()
	set := sets()[1]
	set.Owner = store.OwnerAPI
	_, err := e.PutMXSet(e.ctx(), set, nil, at(0))
	e.must(err)
	return d
}

func tenantLimited(e *env) {
	e.must(e.AddTenant(e.ctx(), store.Tenant{Name: "a", Limits: store.Limits{Domains: 3}, Created: at(0)}))
	set := sets()[1]
	set.Tenant, set.Owner = "a", store.OwnerAPI
	_, err := e.PutMXSet(e.ctx(), set, nil, at(0))
	e.must(err)
	add := func(name policygen.Name, claim bool) store.DomainChange {
		d := domain(name)
		d.Tenant, d.MXSet = "a", "us"
		c := store.DomainChange{Domain: d}
		if claim {
			c.Claim = &store.DomainClaim{Token: string(name), Created: at(0), Expires: at(90), Due: at(0)}
		}
		return c
	}
	remove := add("a.example", false)
	remove.Remove = true
	limit := store.ErrLimit.Error()
	e.equal("in one batch", words(e.apply(1, add("a.example", false), add("b.example", true), add("b.example", true), add("c.example", false), add("d.example", false))),
		[]string{"added", "claimed", "unchanged", "added", limit})
	e.equal("in the next", words(e.apply(2, add("d.example", true), add("c.example", false), remove)), []string{limit, "unchanged", "removed"})
	e.equal("while one drains", words(e.apply(3, add("d.example", false), add("a.example", false), remove)), []string{limit, "restored", "removed"})
	proven := add("b.example", false)
	proven.Proven = true
	e.equal("what is proven", words(e.apply(4, proven, add("d.example", false))), []string{"added", limit})
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	e.equal("after one is gone", words(e.apply(5, add("d.example", false), add("e.example", false))), []string{"added", limit})
	e.must(e.limit(e.ctx(), "a", store.Limits{Domains: 1}, ""))
	e.equal("below what is there", words(e.apply(6, add("e.example", false), add("d.example", false))), []string{limit, "unchanged"})
	e.must(e.limit(e.ctx(), "a", store.Limits{}, ""))
	e.equal("without a limit", words(e.apply(7, add("e.example", false))), []string{"added"})
}

// tenantOwns has a tenant add MX sets and accounts, several at the same time, until it may have no more.
func tenantOwns(e *env) {
	e.must(e.AddTenant(e.ctx(), store.Tenant{Name: "a", Limits: store.Limits{MXSets: 3, Accounts: 2}, Created: at(0)}))
	set := func(tenant string, i int) error {
		m := sets()[0]
		m.Tenant, m.Name, m.Owner = tenant, fmt.Sprintf("s%d", i), store.OwnerAPI
		_, err := e.PutMXSet(e.ctx(), m, nil, at(i))
		return err
	}
	account := func(tenant string, i int) error {
		return e.PutAccount(e.ctx(), store.Account{Tenant: tenant, Name: fmt.Sprintf("a%d", i), Provider: "desec", Settings: []byte{byte(i)}}, "")
	}
	for _, c := range []struct {
		what string
		most int
		put  func(tenant string, i int) error
	}{{"mx set", 3, set}, {"account", 2, account}} {
		var taken, full atomic.Int32
		var g errgroup.Group
		for i := range 6 {
			g.Go(func() error {
				err := c.put("a", i)
				if f, ok := errors.AsType[*store.FullError](err); ok && *f == (store.FullError{What: c.what, Most: c.most}) {
					full.Add(1)
					return nil
				}
				taken.Add(1)
				return err
			})
		}
		e.must(g.Wait())
		e.equal(c.what+"s that were taken and refused", []int32{taken.Load(), full.Load()}, []int32{int32(c.most), int32(6 - c.most)})
	}
	all, err := e.MXSets(e.ctx())
	e.must(err)
	e.must(set("a", int(all[0].Name[1]-'0'))) // one that is there
	e.must(account("a", int(e.accounts()[0].Name[1]-'0')))
	e.must(e.DeleteMXSet(e.ctx(), "a", all[0].Name, store.OwnerAPI, nil))
	e.must(set("a", 7))
	e.must(e.DeleteAccount(e.ctx(), "a", e.accounts()[0].Name, ""))
	e.must(account("a", 7))
	e.must(e.AddTenant(e.ctx(), store.Tenant{Name: "b", Created: at(0)}))
	for i := range store.UsualAccounts {
		e.must(account("b", i))
		e.must(account(store.DefaultTenant, i))
	}
	if _, full := errors.AsType[*store.FullError](account("b", store.UsualAccounts)); !full {
		e.Errorf("a tenant without limits has more than %d accounts", store.UsualAccounts)
	}
	e.must(account(store.DefaultTenant, store.UsualAccounts))
	e.must(e.limit(e.ctx(), "b", store.Limits{Accounts: store.UsualAccounts + 1}, ""))
	e.must(account("b", store.UsualAccounts))
	e.equal("MX sets that one may have", store.Limits{}.For("b").MXSets, store.UsualMXSets)
}

func tokenAdded(e *env) {
	has, err := e.HasTokens(e.ctx())
	e.must(err)
	e.equal("an empty store has tokens", has, false)
	e.tenant("a")
	second, first := e.token("x1", "a", 2), e.token("x2", "a", 1)
	service := store.Token{ID: "x3", Role: store.RoleAdmin, Hash: []byte{0, 1, 0xff}, Created: at(3)}
	e.must(e.AddToken(e.ctx(), service))
	e.is(e.AddToken(e.ctx(), service), store.ErrExists, `"x3"`)
	e.reopen()
	e.equal("tokens of a", e.tokens("a"), []store.Token{first, second})
	e.equal("tokens of the service", e.tokens(""), []store.Token{service})
	e.equal("tokens of nobody", len(e.tokens("b")), 0)
	got, err := e.Token(e.ctx(), "x1")
	e.must(err)
	e.equal("token", got, second)
	_, err = e.Token(e.ctx(), "x4")
	e.is(err, store.ErrNotFound, `"x4"`)
	has, err = e.HasTokens(e.ctx())
	e.must(err)
	e.equal("it has tokens", has, true)
}

func tokenTenant(e *env) {
	e.is(e.AddToken(e.ctx(), store.Token{ID: "t", Tenant: "nobody", Created: at(0)}), store.ErrNotFound, `"t"`, `"nobody"`)
	e.equal("tokens", len(e.tokens("nobody")), 0)
}

func tokenUse(e *env) {
	e.token("t", "", 0)
	for _, i := range []int{5, 4} { // of another node, whose clock is behind
		e.must(e.UseToken(e.ctx(), "t", at(i)))
	}
	e.equal("used", e.tokens("")[0].Used, at(5))
	e.must(e.UseToken(e.ctx(), "nobody", at(5)))
}

func tokenRevoked(e *env) {
	e.token("t", "", 0)
	e.must(e.RevokeToken(e.ctx(), "t", at(3)))
	e.must(e.RevokeToken(e.ctx(), "t", at(9)))
	e.reopen()
	e.equal("revoked", e.tokens("")[0].Revoked, at(3))
	e.is(e.RevokeToken(e.ctx(), "nobody", at(3)), store.ErrNotFound, `"nobody"`)
	has, err := e.HasTokens(e.ctx())
	e.must(err)
	e.equal("there was a token", has, true)
	if got := e.tokens("")[0].Expires.Sub(at(0)); got != 900*time.Minute {
		e.Errorf("it expires %v after minute 0, want 900 minutes", got)
	}
}

// tokenMade has tokens made with tokens.
func tokenMade(e *env) {
	e.tenant("a")
	made := func(id, maker string, i int) store.Token {
		return store.Token{ID: id, Tenant: "a", Role: store.RoleAdmin, Maker: maker, Hash: []byte{1}, Created: at(i)}
	}
	first, second, third := made("t1", "t0", 2), made("t2", "t1", 3), made("t3", "", 4)
	e.is(e.AddToken(e.ctx(), first), store.ErrStale, `"t0"`)
	e.token("t0", "a", 1)
	for _, k := range []store.Token{first, second, third} {
		e.must(e.AddToken(e.ctx(), k))
	}
	e.equal("made with", e.tokens("a")[2].Maker, "t1")
	e.must(e.RevokeToken(e.ctx(), "t0", at(5)))
	e.equal("made with it, before they are revoked", e.tokens("a")[1].Revoked, time.Time{})
	e.must(e.RevokeMade(e.ctx(), "t0", at(6)))
	var revoked []time.Time
	for _, k := range e.tokens("a") {
		revoked = append(revoked, k.Revoked)
	}
	e.equal("revoked", revoked, []time.Time{at(5), at(6), at(6), {}})
	var told []string
	for _, v := range e.events(store.EventFilter{Tenant: "a", Kinds: []string{store.KindTokenRevoked}}, 0) {
		told = append(told, v.Name)
	}
	e.equal("events", told, []string{"t0", "t1", "t2"})
	e.is(e.AddToken(e.ctx(), made("t4", "t1", 7)), store.ErrStale, `"t1"`)

	const month = 30 * 24 * 60
	e.must(e.AddToken(e.ctx(), made("t5", "", month+6)))
	e.equal("after a month", len(e.tokens("a")), 4) // the one revoked at minute 5 is forgotten
	for i := range store.MaxTokens - 4 {
		e.must(e.AddToken(e.ctx(), made(fmt.Sprintf("many%d", i), "", month+6)))
	}
	e.is(e.AddToken(e.ctx(), made("t6", "", month+6)), store.ErrTokens)
	e.token("t7", "", month+6) // of the service
	e.must(e.AddToken(e.ctx(), made("t8", "", month+7)))
}
