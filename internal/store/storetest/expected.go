package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/store"
)

// expectedTests are of changes to what a caller expects to be there.
func expectedTests() map[string]func(*env) {
	return map[string]func(*env){
		"Expected/Account":              expectedAccount,
		"Expected/AccountChangesOnce":   expectedAccountOnce,
		"Expected/Tenant":               expectedTenant,
		"Expected/TenantChangesOnce":    expectedTenantOnce,
		"Expected/TenantThatCameAnew":   expectedTenantAnew,
		"Expected/TenantIsWhatItMayNow": expectedTenantETag,
	}
}

// limit is SetLimits for who does not ask what the tenant is then.
func (e *env) limit(ctx context.Context, name string, l store.Limits, ifMatch string) error {
	_, err := e.SetLimits(ctx, name, l, ifMatch)
	return err
}

// once has many make a change at the same time, of whom one succeeds: all expect the same to be there.
func (e *env) once(change func(i int) error) {
	e.Helper()
	var g errgroup.Group
	var changed, refused atomic.Int32
	for i := range 8 {
		g.Go(func() error {
			switch err := change(i); {
			case err == nil:
				changed.Add(1)
			case errors.Is(err, store.ErrMismatch):
				refused.Add(1)
			default:
				return err
			}
			return nil
		})
	}
	e.must(g.Wait())
	e.equal("changed and refused", []int32{changed.Load(), refused.Load()}, []int32{1, 7})
}

func expectedAccount(e *env) {
	a := store.Account{Tenant: "a", Name: "main", Provider: "desec", Settings: []byte("1"), Version: "v1"}
	put := func(version, ifMatch string) error {
		next := a
		next.Version = version
		return e.PutAccount(e.ctx(), next, ifMatch)
	}
	for _, ifMatch := range []string{"*", "v1"} { // there is none
		e.is(put("v1", ifMatch), store.ErrMismatch, `"main"`)
		e.is(e.DeleteAccount(e.ctx(), "a", "main", ifMatch), store.ErrMismatch, `"main"`)
	}
	e.must(put("v1", ""))
	e.is(put("v2", "v0"), store.ErrMismatch, `"main"`)
	e.is(e.DeleteAccount(e.ctx(), "a", "main", "v0"), store.ErrMismatch, `"main"`)
	e.equal("accounts", e.accounts(), []store.Account{a})
	e.must(put("v2", "v1")) // the settings are what they were
	e.is(put("v3", "v1"), store.ErrMismatch)
	e.must(put("v3", "*"))
	e.must(put("v4", ""))
	e.reopen()
	a.Version = "v4"
	e.equal("accounts", e.accounts(), []store.Account{a})
	other := a
	other.Tenant = "b"
	e.must(e.PutAccount(e.ctx(), other, ""))
	e.is(e.DeleteAccount(e.ctx(), "a", "main", "v3"), store.ErrMismatch)
	e.must(e.DeleteAccount(e.ctx(), "a", "main", "v4"))
	e.must(e.DeleteAccount(e.ctx(), "b", "main", "*"))
	e.equal("accounts", len(e.accounts()), 0)
}

func expectedAccountOnce(e *env) {
	a := store.Account{Tenant: "a", Name: "main", Provider: "desec", Settings: []byte("1"), Version: "v1"}
	e.must(e.PutAccount(e.ctx(), a, ""))
	e.once(func(i int) error {
		next := a
		next.Settings, next.Version = fmt.Append(nil, i), fmt.Sprint(i)
		return e.PutAccount(e.ctx(), next, "v1")
	})
	got := e.accounts()[0]
	e.equal("its settings are of its version", string(got.Settings), got.Version)
	e.once(func(i int) error {
		if i%2 == 0 {
			return e.DeleteAccount(e.ctx(), "a", "main", got.Version)
		}
		return e.PutAccount(e.ctx(), a, got.Version)
	})
}

func (e *env) tenantNow(name string) store.Tenant {
	e.Helper()
	t, err := e.Tenant(e.ctx(), name)
	e.must(err)
	return t
}

func expectedTenant(e *env) {
	for _, ifMatch := range []string{"*", "0"} { // there is none
		e.is(e.limit(e.ctx(), "a", store.Limits{}, ifMatch), store.ErrMismatch, `"a"`)
		e.is(e.DeleteTenant(e.ctx(), "a", ifMatch, at(1)), store.ErrMismatch, `"a"`)
	}
	was := e.tenant("a")
	e.is(e.limit(e.ctx(), "a", store.Limits{Orders: 7}, "0"), store.ErrMismatch, `"a"`)
	e.is(e.DeleteTenant(e.ctx(), "a", "0", at(1)), store.ErrMismatch, `"a"`)
	e.equal("tenant", e.tenantNow("a"), was)
	got, err := e.SetLimits(e.ctx(), "a", store.Limits{Orders: 7}, was.ETag())
	e.must(err)
	e.equal("tenant as it says", got, store.Tenant{Name: "a", Limits: store.Limits{Orders: 7}, Created: at(0)})
	e.equal("tenant", e.tenantNow("a"), got)
	e.is(e.limit(e.ctx(), "a", store.Limits{Orders: 8}, was.ETag()), store.ErrMismatch)
	again, err := e.SetLimits(e.ctx(), "a", store.Limits{Orders: 7}, got.ETag()) // as it is
	e.must(err)
	e.equal("tenant as it was", again, got)
	e.must(e.limit(e.ctx(), "a", store.Limits{Orders: 8}, "*"))
	e.is(e.DeleteTenant(e.ctx(), "a", got.ETag(), at(2)), store.ErrMismatch)
	e.must(e.PutAccount(e.ctx(), store.Account{Tenant: "a", Name: "main", Provider: "desec"}, ""))
	e.is(e.DeleteTenant(e.ctx(), "a", got.ETag(), at(2)), store.ErrMismatch) // before what it needs
	e.is(e.DeleteTenant(e.ctx(), "a", "*", at(2)), store.ErrInUse, `"main"`)
	e.must(e.DeleteAccount(e.ctx(), "a", "main", ""))
	e.must(e.DeleteTenant(e.ctx(), "a", e.tenantNow("a").ETag(), at(3)))
}

func expectedTenantOnce(e *env) {
	seen := e.tenant("a").ETag()
	e.once(func(i int) error { return e.limit(e.ctx(), "a", store.Limits{Domains: 100 + i}, seen) })
	seen = e.tenantNow("a").ETag()
	e.once(func(i int) error {
		if i%2 == 0 {
			return e.DeleteTenant(e.ctx(), "a", seen, at(1))
		}
		return e.limit(e.ctx(), "a", store.Limits{Writes: 100 + i}, seen)
	})
}

// expectedTenantAnew has another tenant come by the name of one that went.
func expectedTenantAnew(e *env) {
	seen := e.tenant("a")
	e.must(e.DeleteTenant(e.ctx(), "a", "", at(1)))
	next := seen
	next.Created = at(2)
	e.must(e.AddTenant(e.ctx(), next))
	e.is(e.DeleteTenant(e.ctx(), "a", seen.ETag(), at(3)), store.ErrMismatch)
}

func expectedTenantETag(e *env) {
	t := e.tenant("a")
	seen := map[string]bool{t.ETag(): true}
	for _, l := range []store.Limits{{}, {Domains: 1}, {Orders: 1}, {Writes: 1}} {
		next, err := e.SetLimits(e.ctx(), "a", l, "")
		e.must(err)
		if seen[next.ETag()] {
			e.Errorf("ETag of %+v was that of something else", next)
		}
		seen[next.ETag()] = true
		e.equal("as read", e.tenantNow("a").ETag(), next.ETag())
	}
	before := e.tenantNow("a").ETag()
	e.must(e.CountWrite(e.ctx(), "a", false, at(1)))
	e.equal("after a write to DNS", e.tenantNow("a").ETag(), before)
}
