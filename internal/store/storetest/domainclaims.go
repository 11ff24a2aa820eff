package storetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func domainClaimTests() map[string]func(*env) {
	return map[string]func(*env){
		"DomainClaims/PutReadWithdrawn":        claimsLife,
		"DomainClaims/OfSeveralTenants":        claimsTenants,
		"DomainClaims/ProvenBecomesADomain":    claimsProven,
		"DomainClaims/TakenUntilDrainOrLeave":  claimsTaken,
		"DomainClaims/ProvenOfAnotherWish":     claimsStale,
		"DomainClaims/DueOnesAreLentOnce":      claimsDue,
		"DomainClaims/Expire":                  claimsExpire,
		"DomainClaims/SavedWhileTheyAreThere":  claimsSaved,
		"DomainClaims/TellNothingOfOthers":     claimsSilent,
		"DomainClaims/OwnDomainNeedsNone":      claimsOwn,
		"DomainClaims/MXSetMustBeThere":        claimsMXSet,
		"DomainClaims/MovedKeepsStateAndBooks": claimsMoved,
		"DomainClaims/ProvenByAllAtOnce":       claimsAtOnce,
	}
}

// wish is what a tenant wants of a domain.
func wish(tenant string, name policygen.Name) store.Domain {
	d := domain(name)
	d.Tenant, d.Account = tenant, "own"
	return d
}

// want is a change that claims a domain at minute i.
func want(i int, d store.Domain) store.DomainChange {
	return store.DomainChange{Domain: d, Claim: &store.DomainClaim{
		Token: fmt.Sprintf("token-%s-%d", d.Tenant, i), Created: at(i), Expires: at(i + 10_000), Due: at(i),
	}}
}

func proven(d store.Domain) store.DomainChange { return store.DomainChange{Domain: d, Proven: true} }

// tenants declares an MX set for each.
func (e *env) tenants(names ...string) {
	e.Helper()
	for _, name := range names {
		e.putMXSet(0, apiSet(name, "eu"))
		e.putMXSet(0, apiSet(name, "us"))
	}
}

func (e *env) claimOf(tenant string, name policygen.Name) store.DomainClaim {
	e.Helper()
	c, err := e.DomainClaim(e.ctx(), tenant, name)
	e.must(err)
	return c
}

func claimsLife(e *env) {
	e.tenants("b")
	d := wish("b", "a.example")
	d.TLSRPT, d.Adopt = "v=TLSRPTv1; rua=mailto:a@x.test", true
	outcomes := e.apply(1, want(1, d))
	e.results(outcomes, store.ResultClaimed)
	e.equal("etag", outcomes[0].ETag, "")
	first := store.DomainClaim{Domain: d, Token: "token-b-1", Created: at(1), Expires: at(10_001), Due: at(1)}
	e.equal("claim", e.claimOf("b", "a.example"), first)
	e.equal("domains", len(e.domains()), 0)
	e.results(e.apply(2, want(2, d)), store.ResultUnchanged)
	e.equal("claim again", e.claimOf("b", "a.example"), first)
	d.MXSet = "us"
	e.results(e.apply(3, want(3, d)), store.ResultClaimed)
	first.Domain.MXSet, first.Due = "us", at(3)
	e.equal("claim of something else", e.claimOf("b", "a.example"), first)
	e.reopen()
	e.equal("claim after a restart", e.claimOf("b", "a.example"), first)
	e.results(e.apply(4, store.DomainChange{Domain: d, Remove: true}), store.ResultWithdrawn)
	_, err := e.DomainClaim(e.ctx(), "b", "a.example")
	e.is(err, store.ErrNotFound, `"a.example"`)
	e.is(e.apply(5, store.DomainChange{Domain: d, Remove: true})[0].Err, store.ErrNotFound)
}

func claimsTenants(e *env) {
	e.tenants("b", "c")
	e.apply(1, want(1, wish("b", "a.example")), want(1, wish("c", "a.example")), want(1, wish("b", "b.example")), want(1, wish("b", "c.example")))
	var got []policygen.Name
	for after := policygen.Name(""); ; {
		page, err := e.ClaimsOf(e.ctx(), "b", after, 2)
		e.must(err)
		if len(page) == 0 {
			break
		}
		for _, c := range page {
			got = append(got, c.Domain.Name)
			e.equal("tenant", c.Domain.Tenant, "b")
		}
		after = got[len(got)-1]
	}
	e.equal("claims", got, []policygen.Name{"a.example", "b.example", "c.example"})
}

func claimsProven(e *env) {
	e.tenants("b", "c")
	d := wish("b", "a.example")
	e.apply(1, want(1, d), want(1, wish("c", "a.example")))
	o := e.apply(2, proven(d))
	e.results(o, store.ResultAdded)
	got := e.domain("a.example")
	d.Owner, d.Added, d.Due, d.Version = store.OwnerAPI, at(2), at(2), got.Version
	e.equal("domain", got, d)
	e.equal("etag", o[0].ETag, got.ETag())
	_, err := e.DomainClaim(e.ctx(), "b", "a.example")
	e.is(err, store.ErrNotFound)
	e.is(e.apply(3, proven(wish("b", "a.example")))[0].Err, store.ErrStale)
	e.claimOf("c", "a.example") // waits
}

func claimsTaken(e *env) {
	for i, leave := range []func(){
		func() { e.apply(3, store.DomainChange{Domain: wish("b", "a.example"), Remove: true}) },
		func() { e.must(e.ReleaseDomain(e.ctx(), "b", "a.example", true)) },
		func() { e.must(e.Delete(e.ctx(), e.domain("a.example"))) },
	} {
		e.tenants("b", "c")
		theirs, ours := wish("b", "a.example"), wish("c", "a.example")
		e.results(e.apply(1, want(1, theirs), want(1, ours), proven(theirs)), store.ResultClaimed, store.ResultClaimed, store.ResultAdded)
		e.is(e.apply(2, proven(ours))[0].Err, store.ErrTaken)
		e.claimOf("c", "a.example")
		e.must(e.ReleaseDomain(e.ctx(), "b", "a.example", true))
		e.must(e.ReleaseDomain(e.ctx(), "b", "a.example", false)) // taken back
		e.is(e.apply(2, proven(ours))[0].Err, store.ErrTaken)
		leave()
		result := store.ResultMoved
		if i == 2 {
			result = store.ResultAdded
		}
		e.results(e.apply(4, proven(ours)), result)
		got := e.domain("a.example")
		e.equal("tenant, removed", []any{got.Tenant, got.Removed}, []any{"c", time.Time{}})
		e.is(e.apply(5, store.DomainChange{Domain: theirs, Remove: true})[0].Err, store.ErrNotFound)
		// What was released once is not for ever.
		e.apply(6, want(6, theirs))
		e.is(e.apply(6, proven(theirs))[0].Err, store.ErrTaken)
		e.apply(7, store.DomainChange{Domain: ours, Remove: true})
		e.must(e.Delete(e.ctx(), e.domain("a.example")))
		e.apply(8, store.DomainChange{Domain: theirs, Remove: true})
	}
}

func claimsStale(e *env) {
	e.tenants("b")
	d := wish("b", "a.example")
	e.apply(1, want(1, d))
	d.MXSet = "us"
	e.is(e.apply(2, proven(d))[0].Err, store.ErrStale)
	e.equal("domains", len(e.domains()), 0)
	e.apply(3, want(3, d))
	e.results(e.apply(4, proven(d)), store.ResultAdded)
}

func (e *env) dueClaims(i, n int) (all []policygen.Name) {
	e.Helper()
	due, err := e.DueClaims(e.ctx(), at(i), 5*time.Minute, n)
	e.must(err)
	for _, c := range due {
		e.equal("due after it was lent", c.Due, at(i+5))
		e.equal("claim", e.claimOf(c.Domain.Tenant, c.Domain.Name), c)
		all = append(all, c.Domain.Name)
	}
	return all
}

func claimsDue(e *env) {
	e.tenants("b")
	e.apply(1, want(3, wish("b", "c.example")), want(1, wish("b", "a.example")), want(2, wish("b", "b.example")), want(9, wish("b", "d.example")))
	e.equal("due", e.dueClaims(3, 2), []policygen.Name{"a.example", "b.example"})
	e.equal("due", e.dueClaims(3, 2), []policygen.Name{"c.example"})
	e.equal("due", e.dueClaims(4, 2), []policygen.Name(nil))
	e.equal("due when the lease is over", e.dueClaims(8, 9), []policygen.Name{"a.example", "b.example", "c.example"})
	e.tenants("bb")
	e.apply(9, want(1, wish("bb", "e.example")))
	others, err := e.DueClaims(e.ctx(), at(20), 5*time.Minute, 9, "b", "a")
	e.must(err)
	if len(others) != 1 || others[0].Domain.Name != "e.example" {
		e.Errorf("without those of tenant b, %+v are due", others)
	}
}

func claimsExpire(e *env) {
	e.tenants("b")
	short := want(1, wish("b", "a.example"))
	short.Claim.Expires = at(10)
	e.apply(1, short, want(1, wish("b", "b.example")))
	e.equal("due", e.dueClaims(10, 9), []policygen.Name{"b.example"})
	n, err := e.ExpireClaims(e.ctx(), at(9))
	e.must(err)
	e.equal("expired", n, 0)
	n, err = e.ExpireClaims(e.ctx(), at(10))
	e.must(err)
	e.equal("expired", n, 1)
	_, err = e.DomainClaim(e.ctx(), "b", "a.example")
	e.is(err, store.ErrNotFound)
	e.claimOf("b", "b.example")
}

func claimsSaved(e *env) {
	e.tenants("b")
	e.apply(1, want(1, wish("b", "a.example")))
	c := e.claimOf("b", "a.example")
	c.Due, c.Looked, c.Looks, c.Reason = at(7), at(2), 3, "no such record"
	e.must(e.SaveClaim(e.ctx(), c))
	e.equal("claim", e.claimOf("b", "a.example"), c)
	other := c
	other.Token = "another"
	e.is(e.SaveClaim(e.ctx(), other), store.ErrNotFound, `"a.example"`)
	e.apply(3, store.DomainChange{Domain: wish("b", "a.example"), Remove: true})
	e.is(e.SaveClaim(e.ctx(), c), store.ErrNotFound)
}

// claimsSilent compares what a tenant is told of a name of nobody and of one that another tenant has.
func claimsSilent(e *env) {
	e.tenants("b", "c")
	theirs := wish("b", "theirs.example")
	e.apply(0, want(0, theirs), proven(theirs))
	for _, change := range []func(policygen.Name) store.DomainChange{
		func(n policygen.Name) store.DomainChange { return want(1, wish("c", n)) },
		func(n policygen.Name) store.DomainChange { return want(1, wish("c", n)) }, // again
		func(n policygen.Name) store.DomainChange {
			c := want(1, wish("c", n))
			c.IfMatch = "*"
			return c
		},
		func(n policygen.Name) store.DomainChange {
			c := want(1, wish("c", n))
			c.Domain.MXSet = "nowhere"
			return c
		},
		func(n policygen.Name) store.DomainChange {
			return store.DomainChange{Domain: wish("c", n), Remove: true}
		},
		func(n policygen.Name) store.DomainChange {
			return store.DomainChange{Domain: wish("c", n), Remove: true}
		},
	} {
		e.equal("outcome of another's name", words(e.apply(1, change("theirs.example"))), words(e.apply(1, change("nobody.example"))))
	}
}

func claimsOwn(e *env) {
	e.tenants("b")
	d := wish("b", "a.example")
	e.apply(0, want(0, d), proven(d))
	d.MXSet = "us"
	e.results(e.apply(1, want(1, d)), store.ResultChanged)
	e.results(e.apply(2, want(2, d)), store.ResultUnchanged)
	e.equal("mx set", e.domain("a.example").MXSet, "us")
	_, err := e.DomainClaim(e.ctx(), "b", "a.example")
	e.is(err, store.ErrNotFound)
}

func claimsMXSet(e *env) {
	e.tenants("b", "c")
	d := wish("b", "a.example")
	d.MXSet = "nowhere"
	e.is(e.apply(1, want(1, d))[0].Err, store.ErrUnknownMXSet)
	d.MXSet = "us"
	e.apply(2, want(2, d))
	e.must(e.DeleteMXSet(e.ctx(), "b", "us", store.OwnerAPI, nil))
	e.is(e.apply(3, proven(d))[0].Err, store.ErrUnknownMXSet)
	e.claimOf("b", "a.example")
}

func claimsMoved(e *env) {
	e.tenants("b", "c")
	theirs, ours := sharing("a.example", "eu"), sharing("a.example", "us")
	theirs.Domain.Tenant, ours.Domain.Tenant = "b", "c"
	theirs.Shared.Tenant, theirs.Shared.Name = "b", "*.eu.s.b.sts.example"
	ours.Shared.Tenant, ours.Shared.Name = "c", "*.us.s.c.sts.example"
	claims := []store.DomainChange{want(1, theirs.Domain), want(1, ours.Domain)}
	theirs.Proven, ours.Proven = true, true
	e.apply(1, append(claims, theirs)...)
	d := e.domain("a.example")
	e.save(&d, 2, func(s *store.State) {
		s.Served, s.Detached, s.Record, s.Intended = "policy", at(2), "r", "1"
		s.Staged, s.Promoted, s.Pinned, s.Expelled, s.Forced = at(2), at(2), true, true, "policy"
		s.Reason, s.Fault, s.Findings = "of the tenant before", true, []store.Finding{{Code: "mx"}}
	})
	e.must(e.ReleaseDomain(e.ctx(), "b", "a.example", true))
	e.results(e.apply(3, ours), store.ResultMoved)
	got := e.domain("a.example")
	wanted := d
	wanted.Tenant, wanted.MXSet, wanted.Added, wanted.Due, wanted.Version = "c", "us", at(3), at(3), got.Version
	st := &wanted.State
	st.Staged, st.Promoted, st.Pinned, st.Expelled, st.Forced = time.Time{}, time.Time{}, false, false, ""
	st.Reason, st.Fault, st.Findings = "", false, nil
	e.equal("moved", got, wanted)
	e.equal("history", len(e.history("a.example")), 1)
	e.equal("ids", len(e.ids("r")), 1)
	e.equal("shared records drain", e.drains(), map[policygen.Name]bool{"*.eu.s.b.sts.example": true, "*.us.s.c.sts.example": false})
}

// claimsAtOnce has many tenants prove the same domain at the same time.
func claimsAtOnce(e *env) {
	const n = 8
	var results [n]store.DomainOutcome
	var all sync.WaitGroup
	for i := range n {
		tenant := fmt.Sprint("t", i)
		e.tenants(tenant)
		e.results(e.apply(1, want(1, wish(tenant, "a.example"))), store.ResultClaimed)
	}
	for i := range n {
		all.Go(func() {
			b := store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{proven(wish(fmt.Sprint("t", i), "a.example"))}}
			outcomes, err := e.ApplyDomains(e.ctx(), b, at(2))
			if err != nil {
				e.Error(err)
				return
			}
			results[i] = outcomes[0]
		})
	}
	all.Wait()
	owner := e.domain("a.example").Tenant
	for i, o := range results {
		if won := fmt.Sprint("t", i) == owner; won != (o.Result == store.ResultAdded) || won == errors.Is(o.Err, store.ErrTaken) {
			e.Errorf("tenant t%d of %s: %+v", i, owner, o)
		}
	}
}
