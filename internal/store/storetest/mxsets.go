package storetest

import (
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func mxsetTests() map[string]func(*env) {
	return map[string]func(*env){
		"MXSets/AsDeclared":                  mxsetsAsDeclared,
		"MXSets/UnusedAndUndeclaredIsGone":   mxsetsUnused,
		"MXSets/InUseByADrainStays":          mxsetsDraining,
		"MXSets/OthersAreKept":               mxsetsOthers,
		"MXSets/LeftoverCanBeDeclaredAgain":  mxsetsAgain,
		"MXSets/SameNameInAnotherTenant":     mxsetsTenants,
		"MXSets/NoneIsNoError":               mxsetsNone,
		"MXSets/PolicyWithoutMXComesBackSo":  mxsetsNoMX,
		"MXSets/UnusedButDeclaredIsNoChange": mxsetsDeclaredUnused,
	}
}

// mxsets are all MX sets, as they are declared: without owners.
func (e *env) mxsets() []store.MXSet {
	e.Helper()
	got, err := e.MXSets(e.ctx())
	e.must(err)
	for i := range got {
		got[i].Owner = ""
	}
	return got
}

func mxsetsAsDeclared(e *env) {
	e.start()
	e.equal("mx sets", e.mxsets(), sets())
	for _, want := range sets() {
		got, err := e.MXSet(e.ctx(), want.Tenant, want.Name)
		e.must(err)
		got.Owner = ""
		e.equal("mx set "+want.Name, got, want)
	}
	_, err := e.MXSet(e.ctx(), "other", sets()[0].Name)
	e.is(err, store.ErrNotFound)
}

func mxsetsUnused(e *env) {
	e.start("a.example")
	e.declare(store.Declaration{Owner: store.OwnerFile, MXSets: sets()[:1], Domains: []store.Domain{domain("a.example")}}, at(1))
	e.equal("mx sets", e.mxsets(), sets()[:1])
}

func mxsetsDraining(e *env) {
	e.start("a.example")
	e.declare(store.Declaration{Owner: store.OwnerFile, MXSets: sets()[1:]}, at(1))
	e.equal("mx sets during the drain", e.mxsets(), sets())
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	e.declare(store.Declaration{Owner: store.OwnerFile, MXSets: sets()[1:]}, at(2))
	e.equal("mx sets after it", e.mxsets(), sets()[1:])
}

func mxsetsOthers(e *env) {
	e.start("a.example")
	e.declare(store.Declaration{Owner: store.OwnerAPI}, at(1))
	e.equal("mx sets after another's declaration", e.mxsets(), sets())
	e.declare(store.Declaration{Owner: store.OwnerAPI, Domains: []store.Domain{domain("api.example")}}, at(2))
	e.declare(store.Declaration{Owner: store.OwnerFile}, at(3))
	e.equal("mx sets in use by another", e.mxsets(), sets()[:1])
}

// mxsetsAgain takes up an MX set that only a drain uses.
func mxsetsAgain(e *env) {
	e.start("a.example")
	e.declare(store.Declaration{Owner: store.OwnerFile}, at(1))
	other := domain("b.example")
	c := e.declare(store.Declaration{Owner: store.OwnerAPI, MXSets: sets()[:1], Domains: []store.Domain{other}}, at(2))
	e.equal("change", c, store.Change{Added: 1})
	_, err := e.Declare(e.ctx(), file(), at(3))
	e.names(err, `"eu"`, `"api"`)
}

func mxsetsTenants(e *env) {
	two := []store.MXSet{sets()[0], sets()[0]}
	two[1].Tenant, two[1].Policy.MaxAge = "other", 1
	theirs := domain("b.example")
	theirs.Tenant = "other"
	e.declare(store.Declaration{Owner: store.OwnerFile, MXSets: two, Domains: []store.Domain{domain("a.example"), theirs}}, at(0))
	e.equal("mx sets", e.mxsets(), two)

	two[1].Policy.MaxAge = 2
	e.equal("change", e.declare(store.Declaration{
		Owner: store.OwnerFile, MXSets: two,
		Domains: []store.Domain{domain("a.example"), theirs},
	}, at(1)), store.Change{Changed: 1})
	e.equal("due", e.domain("b.example").Due, at(1))
}

func mxsetsNone(e *env) {
	e.equal("mx sets", e.mxsets(), []store.MXSet(nil))
}

func mxsetsNoMX(e *env) {
	want := []store.MXSet{{Tenant: "default", Name: "none", Policy: policygen.Policy{Mode: "none", MaxAge: 86400}}}
	e.declare(store.Declaration{Owner: store.OwnerFile, MXSets: want}, at(0))
	e.equal("mx sets", e.mxsets(), want)
}

func mxsetsDeclaredUnused(e *env) {
	e.start("a.example")
	decl := file(domain("a.example"))
	decl.MXSets[1].Policy.MaxAge = 1
	e.equal("change", e.declare(decl, at(1)), store.Change{})
	e.equal("mx sets", e.mxsets(), decl.MXSets)
	if due := e.domain("a.example").Due; !due.Equal(at(0)) {
		e.Errorf("domain of another mx set is due %s, want %s", due, at(0))
	}
}
