// Package storetest is the contract of [store.Store] as tests. Every engine passes them.
//
// An engine's own tests call [Run] and add what only it has: files, locks, servers.
package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// Open opens the store that handle stands for, empty at its first use. Handle is the path of a directory that is the
// test's own, so that an engine without files can make a name of it. Tests close what they open, and open the same
// handle again to see what lasted.
//
// Its secrets are sealed with keys; nil: they are not. An error is about these keys.
type Open func(t *testing.T, handle string, keys *store.Keyring) (store.Store, error)

// Run tests an engine. Each test has a handle of its own; they run in parallel.
func Run(t *testing.T, open Open) {
	for _, group := range []map[string]func(*env){
		declareTests(), mxsetTests(), domainTests(), claimTests(), wakeTests(), saveTests(), bookTests(),
		sharedTests(), certificateTests(), changeTests(), servedTests(), journalTests(), nodeTests(), agreeTests(), valueTests(),
		durableTests(), sealTests(), tenantTests(), eventTests(),
		batchTests(), requestTests(), ownedTests(), pageTests(), accountTests(), domainClaimTests(), webhookTests(), expectedTests(),
	} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) { run(t, open, nil, test) })
		}
	}
	for _, group := range []map[string]func(*env){certificateTests(), changeTests(), valueTests(), durableTests(), accountTests(), expectedTests()} {
		for name, test := range group {
			t.Run("Sealed/"+name, func(t *testing.T) { run(t, open, ring(t, 1), test) })
		}
	}
}

func run(t *testing.T, open Open, keys *store.Keyring, test func(*env)) {
	t.Parallel()
	e := &env{T: t, with: open, keys: keys, handle: t.TempDir()}
	e.Store = e.open(t, e.handle)
	t.Cleanup(func() { e.must(e.Store.Close()) })
	test(e)
}

// env is one test with its store.
type env struct {
	*testing.T
	store.Store
	with   Open
	keys   *store.Keyring
	handle string
}

// open opens a store with the keys of the test.
func (e *env) open(t *testing.T, handle string) store.Store {
	t.Helper()
	s, err := e.with(t, handle, e.keys)
	e.must(err)
	return s
}

// reopen closes the store and opens it again.
func (e *env) reopen() {
	e.Helper()
	e.must(e.Store.Close())
	e.Store = e.open(e.T, e.handle)
}

// ctx is the context of the test.
func (e *env) ctx() context.Context { return e.T.Context() }

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// is checks that err wraps want and names each of the words.
func (e *env) is(err, want error, words ...string) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("error is %v, want one that wraps %q", err, want)
	}
	e.names(err, words...)
}

func (e *env) names(err error, words ...string) {
	e.Helper()
	if err == nil {
		e.Fatalf("no error, want one that names %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			e.Errorf("error %q does not name %q", err, w)
		}
	}
}

func (e *env) equal(what string, got, want any) {
	e.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		e.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// at is the time i minutes into a test, to the microsecond.
func at(i int) time.Time {
	return time.Date(2026, 11, 21, 10, 0, 0, 123_456_000, time.UTC).Add(time.Duration(i) * time.Minute)
}

// The MX sets that tests declare.
func sets() []store.MXSet {
	return []store.MXSet{
		{Tenant: "default", Name: "eu", Policy: policygen.Policy{Mode: "enforce", MaxAge: 604800, MX: []string{
			"mx1.example.net", "*.eu.mx.example.net",
		}}},
		{Tenant: "default", Name: "us", Policy: policygen.Policy{Mode: "testing", MaxAge: 86400, MX: []string{
			"mx.us.example.net",
		}}},
	}
}

// domain is a declared domain in MX set "eu".
func domain(name policygen.Name) store.Domain {
	return store.Domain{Name: name, Tenant: "default", MXSet: "eu", Publish: store.PublishZone, Account: "main"}
}

// file declares domains with both MX sets for the file.
func file(domains ...store.Domain) store.Declaration {
	return store.Declaration{Owner: store.OwnerFile, MXSets: sets(), Domains: domains}
}

func (e *env) declare(d store.Declaration, now time.Time) store.Change {
	e.Helper()
	c, err := e.Declare(e.ctx(), d, now)
	e.must(err)
	return c
}

// start declares domains at minute 0.
func (e *env) start(names ...policygen.Name) {
	e.Helper()
	var domains []store.Domain
	for _, n := range names {
		domains = append(domains, domain(n))
	}
	e.declare(file(domains...), at(0))
}

func (e *env) domain(name policygen.Name) store.Domain {
	e.Helper()
	d, err := e.Domain(e.ctx(), name)
	e.must(err)
	return d
}

// save writes d with what f changes, at minute i.
func (e *env) save(d *store.Domain, i int, f func(*store.State)) {
	e.Helper()
	f(&d.State)
	e.must(e.Save(e.ctx(), d, at(i)))
}

func (e *env) claim(i int, lease time.Duration, n int) []store.Domain {
	e.Helper()
	got, err := e.Claim(e.ctx(), at(i), lease, n)
	e.must(err)
	return got
}

func (e *env) history(name policygen.Name) []store.Served {
	e.Helper()
	h, err := e.History(e.ctx(), name)
	e.must(err)
	return h
}

func (e *env) ids(record string) []store.WrittenID {
	e.Helper()
	ids, err := e.IDs(e.ctx(), record)
	e.must(err)
	return ids
}

// everything is all that a store holds of domains, MX sets, certificates and orders.
type everything struct {
	Domains []store.Domain
	MXSets  []store.MXSet
	Certs   map[string]store.Certificate
	Orders  []store.Order
}

func (e *env) everything() everything {
	e.Helper()
	all := everything{Domains: e.domains(), Certs: e.certificates()}
	var err error
	all.MXSets, err = e.MXSets(e.ctx())
	e.must(err)
	all.Orders, err = e.Orders(e.ctx())
	e.must(err)
	return all
}

func (e *env) domains() []store.Domain {
	e.Helper()
	var all []store.Domain
	e.must(e.EachDomain(e.ctx(), func(d store.Domain) error {
		all = append(all, d)
		return nil
	}))
	return all
}

func names(domains []store.Domain) []policygen.Name {
	var all []policygen.Name
	for _, d := range domains {
		all = append(all, d.Name)
	}
	return all
}

func (e *env) certificates() map[string]store.Certificate {
	e.Helper()
	all := make(map[string]store.Certificate)
	e.must(e.EachCertificate(e.ctx(), func(c store.Certificate) error {
		if _, again := all[c.Name]; again {
			e.Errorf("certificate %q came twice", c.Name)
		}
		all[c.Name] = c
		return nil
	}))
	return all
}
