package storetest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func domainTests() map[string]func(*env) {
	return map[string]func(*env){
		"Domain/NotFoundIsNamed":              domainNotFound,
		"EachDomain/ByNameInBytes":            eachByName,
		"EachDomain/EmptyStore":               eachEmpty,
		"EachDomain/EndsWithTheErrorOfF":      eachError,
		"EachDomain/ShowsOneMoment":           eachMoment,
		"EachDomain/FMayCallTheStore":         eachCalls,
		"EachDomain/ManyAtOnceWithCalls":      eachMany,
		"EachDomain/EndsWithItsContext":       eachContext,
		"EachServed/TextsThatAreServed":       eachServed,
		"Counts/AsManyAsThereAre":             countsAll,
		"Context/EndedIsTheErrorOfAllMethods": contextEnded,
		"Delete/HistoryAndIDsStay":            deleteKeepsBooks,
		"Delete/StaleOrGone":                  deleteStale,
		"Delete/ComesBackAsNew":               deleteComesBack,
	}
}

func domainNotFound(e *env) {
	e.start("a.example")
	_, err := e.Domain(e.ctx(), "b.example")
	e.is(err, store.ErrNotFound, `"b.example"`)
}

func eachByName(e *env) {
	want := []policygen.Name{
		"a-b.example", "a.a-b.example", "a.example", "a0.example", "aa.example", "b.example",
		"xn--bcher-kva.example", "z.example",
	}
	e.start("z.example", "aa.example", "a.example", "xn--bcher-kva.example", "a-b.example", "b.example", "a0.example",
		"a.a-b.example")
	e.equal("names", names(e.domains()), want)
	for _, d := range e.domains() {
		e.equal("domain", d, e.domain(d.Name))
	}
}

func eachEmpty(e *env) {
	e.equal("domains", e.domains(), []store.Domain(nil))
}

func eachError(e *env) {
	e.start("a.example", "b.example", "c.example")
	stop := errors.New("stop")
	var seen []policygen.Name
	err := e.EachDomain(e.ctx(), func(d store.Domain) error {
		seen = append(seen, d.Name)
		if d.Name == "b.example" {
			return stop
		}
		return nil
	})
	if err != stop { //nolint:errorlint // it is to be that error itself
		e.Errorf("error is %v, want the one of f", err)
	}
	e.equal("seen", seen, []policygen.Name{"a.example", "b.example"})
	e.equal("domains afterwards", len(e.domains()), 3)
}

// eachMoment changes, adds and deletes what the walk has not reached.
func eachMoment(e *env) {
	e.start("a.example", "b.example", "c.example")
	before := e.domains()
	var seen []store.Domain
	e.must(e.EachDomain(e.ctx(), func(d store.Domain) error {
		if len(seen) == 0 {
			b := e.domain("b.example")
			e.save(&b, 1, func(s *store.State) { s.Served = "changed" })
			e.must(e.Delete(e.ctx(), e.domain("c.example")))
			e.declare(file(domain("a.example"), domain("b.example"), domain("d.example")), at(1))
		}
		seen = append(seen, d)
		return nil
	}))
	e.equal("seen", seen, before)
	e.equal("afterwards", names(e.domains()), []policygen.Name{"a.example", "b.example", "d.example"})
}

func eachCalls(e *env) {
	e.start("a.example", "b.example")
	e.must(e.EachDomain(e.ctx(), func(d store.Domain) error {
		e.equal("domain", e.domain(d.Name), d)
		e.equal("nested walk", len(e.domains()), 2)
		e.equal("claimed", names(e.claim(1, time.Second, 1)), []policygen.Name{d.Name})
		claimed := e.domain(d.Name)
		e.save(&claimed, 1, func(s *store.State) { s.Served = "policy" })
		e.must(e.SetValue(e.ctx(), "test/"+string(d.Name), nil))
		e.must(e.SaveCertificate(e.ctx(), certificate(string(d.Name))))
		return nil
	}))
	e.equal("certificates", len(e.certificates()), 2)
	e.must(e.EachCertificate(e.ctx(), func(c store.Certificate) error {
		return e.DeleteCertificate(e.ctx(), c.Name)
	}))
	e.equal("certificates", len(e.certificates()), 0)
}

// eachMany has more walks at once than an engine has connections, all in the middle before any goes on.
func eachMany(e *env) {
	e.start("a.example", "b.example")
	const walks = 40
	ctx, cancel := context.WithTimeout(e.ctx(), time.Minute) // an engine that blocks fails rather than hangs
	defer cancel()
	var arrived atomic.Int32
	all := make(chan struct{})
	var g errgroup.Group
	for range walks {
		g.Go(func() error {
			return e.EachDomain(ctx, func(d store.Domain) error {
				if d.Name == "a.example" && arrived.Add(1) == walks {
					close(all)
				}
				select {
				case <-all:
				case <-ctx.Done():
					return ctx.Err()
				}
				if err := e.SetValue(ctx, "test/walk", nil); err != nil {
					return err
				}
				_, err := e.Domain(ctx, d.Name)
				return err
			})
		})
	}
	e.must(g.Wait())
}

func eachContext(e *env) {
	e.start("a.example", "b.example", "c.example")
	ctx, cancel := context.WithCancel(e.ctx())
	defer cancel()
	calls := 0
	err := e.EachDomain(ctx, func(store.Domain) error {
		calls++
		cancel()
		return ctx.Err()
	})
	e.is(err, context.Canceled)
	e.equal("calls", calls, 1)
}

func eachServed(e *env) {
	e.start("a.example", "b.example", "c.example")
	for _, name := range []policygen.Name{"a.example", "b.example"} {
		d := e.domain(name)
		e.save(&d, 1, func(s *store.State) { s.Served = "policy of " + string(name) })
	}
	shared := domain("*.eu.s.default.alias.example")
	shared.Publish = store.PublishWildcard
	e.declare(file(domain("a.example"), domain("b.example"), domain("c.example"), shared), at(2))
	d := e.domain(shared.Name)
	e.save(&d, 3, func(s *store.State) { s.Served = "shared policy" })
	got := make(map[string]string)
	e.must(e.EachServed(e.ctx(), func(name, text []byte) error {
		got[string(name)] = string(text)
		return nil
	}))
	e.equal("served", got, map[string]string{"a.example": "policy of a.example", "b.example": "policy of b.example"})
	stop := errors.New("stop")
	if err := e.EachServed(e.ctx(), func(_, _ []byte) error { return stop }); !errors.Is(err, stop) {
		e.Errorf("error is %v, want the one of f", err)
	}
}

// countsAll compares with what a walk finds: domains of two tenants, those that drain, and a shared record.
func countsAll(e *env) {
	none, err := e.Counts(e.ctx())
	e.must(err)
	e.equal("counts of nothing", none, store.Counts{Steps: map[string]int{}, Findings: map[string]int{}})
	e.shared("a.example", "b.example", "c.example", "d.example", "e.example")
	for i, name := range []policygen.Name{"a.example", "b.example", "c.example"} {
		d := e.domain(name)
		e.save(&d, 1, func(s *store.State) {
			s.Step, s.Fault = []string{"live", "live", "dns"}[i], i == 2
			s.Findings = []store.Finding{{Code: "one", Text: "t"}, {Code: "two", Fault: true, Since: at(i), Text: "t"}}[:i]
		})
	}
	e.tenant("acme")
	e.putMXSet(1, apiSet("acme", "eu"))
	d := domain("f.example")
	d.Tenant = "acme"
	e.results(e.apply(1, put(d)), store.ResultAdded)
	check := func(draining int) {
		e.Helper()
		want := store.Counts{Steps: make(map[string]int), Findings: make(map[string]int)}
		for _, d := range e.domains() {
			switch {
			case !d.Removed.IsZero():
				want.Draining++
			case d.State.Step == "":
				want.Steps[store.StepNew]++
			default:
				want.Steps[d.State.Step]++
			}
			if d.State.Fault {
				want.Faulty++
			}
			for _, f := range d.State.Findings {
				want.Findings[f.Code]++
			}
		}
		got, err := e.Counts(e.ctx())
		e.must(err)
		e.equal("counts", got, want)
		e.equal("draining", got.Draining, draining)
	}
	check(0)
	e.equal("findings", len(e.domain("c.example").State.Findings), 2)
	e.declare(file(domain("b.example")), at(2))
	check(6) // the shared record too
}

func contextEnded(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	before := e.everything()
	ctx, cancel := context.WithCancel(e.ctx())
	cancel()
	for name, call := range map[string]func() error{
		"Declare":           func() error { _, err := e.Declare(ctx, file(), at(1)); return err },
		"MXSets":            func() error { _, err := e.MXSets(ctx); return err },
		"Domain":            func() error { _, err := e.Domain(ctx, d.Name); return err },
		"EachDomain":        func() error { return e.EachDomain(ctx, func(store.Domain) error { return nil }) },
		"Claim":             func() error { _, err := e.Claim(ctx, at(1), time.Hour, 1); return err },
		"Counts":            func() error { _, err := e.Counts(ctx); return err },
		"NextDue":           func() error { _, err := e.NextDue(ctx); return err },
		"Wake":              func() error { return e.Wake(ctx, "", at(1)) },
		"Save":              func() error { return e.Save(ctx, &d, at(1)) },
		"Delete":            func() error { return e.Delete(ctx, d) },
		"History":           func() error { _, err := e.History(ctx, d.Name); return err },
		"AddForeign":        func() error { return e.AddForeign(ctx, d.Name, "policy", at(1)) },
		"IDs":               func() error { _, err := e.IDs(ctx, "r"); return err },
		"EachCertificate":   func() error { return e.EachCertificate(ctx, func(store.Certificate) error { return nil }) },
		"SaveCertificate":   func() error { return e.SaveCertificate(ctx, certificate("a")) },
		"DeleteCertificate": func() error { return e.DeleteCertificate(ctx, "a") },
		"Orders":            func() error { _, err := e.Orders(ctx); return err },
		"SaveOrder":         func() error { return e.SaveOrder(ctx, store.Order{Name: "a", Failures: 1}) },
		"PlanOrder":         func() error { return e.PlanOrder(ctx, "a", at(1), at(2), at(3)) },
		"Value":             func() error { _, err := e.Value(ctx, "test/a"); return err },
		"SetValue":          func() error { return e.SetValue(ctx, "test/a", nil) },
		"EnsureValue":       func() error { _, err := e.EnsureValue(ctx, "test/a", nil); return err },
		"DeleteValue":       func() error { return e.DeleteValue(ctx, "test/a") },
		"Ping":              func() error { return e.Ping(ctx) },
		"EachServed":        func() error { return e.EachServed(ctx, func(_, _ []byte) error { return nil }) },
		"LastChange":        func() error { _, err := e.LastChange(ctx); return err },
		"MarkCertificates":  func() error { return e.MarkCertificates(ctx, "mark", 0) },
		"CertificatesSince": func() error { return e.CertificatesSince(ctx, "mark", func(store.Certificate) error { return nil }) },
		"ServedSince": func() error {
			_, err := e.ServedSince(ctx, 0, func(policygen.Name, string) error { return nil })
			return err
		},
		"Wait":       func() error { return e.Wait(ctx, e.lastChange()) },
		"Beat":       func() error { return e.Beat(ctx, store.Node{ID: "a"}) },
		"Nodes":      func() error { _, err := e.Nodes(ctx); return err },
		"Deregister": func() error { return e.Deregister(ctx, "a") },
		"Reseal":     func() error { _, err := e.Reseal(ctx); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			e.Errorf("%s: error is %v, want context.Canceled", name, err)
		}
	}
	e.equal("store", e.everything(), before)
}

func deleteKeepsBooks(e *env) {
	e.start("a.example", "b.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served, s.Record, s.Intended = "policy", "r", "id1" })
	e.save(&d, 2, func(s *store.State) { s.Served = "" })
	history, ids := e.history(d.Name), e.ids("r")
	e.equal("books before", []int{len(history), len(ids)}, []int{1, 1})

	e.must(e.Delete(e.ctx(), d))
	_, err := e.Domain(e.ctx(), d.Name)
	e.is(err, store.ErrNotFound)
	e.equal("domains", names(e.domains()), []policygen.Name{"b.example"})
	e.equal("history", e.history(d.Name), history)
	e.equal("ids", e.ids("r"), ids)
}

func deleteStale(e *env) {
	e.start("a.example", "b.example")
	old := e.domain("a.example")
	now := old
	e.must(e.Save(e.ctx(), &now, at(1)))
	e.is(e.Delete(e.ctx(), old), store.ErrStale, `"a.example"`)
	e.equal("domain", e.domain("a.example"), now)

	e.must(e.Delete(e.ctx(), now))
	err := e.Delete(e.ctx(), now)
	e.is(err, store.ErrStale, `"a.example"`)
	e.is(err, store.ErrNotFound)
}

// deleteComesBack adds a domain again at the same times, so that only the store can tell the two apart.
func deleteComesBack(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	versions := []int64{d.Version}
	e.save(&d, 1, func(s *store.State) { s.Served, s.ID, s.Intended, s.Record = "policy", "x", "id1", "r" })
	versions = append(versions, d.Version)
	for range 3 {
		e.must(e.Delete(e.ctx(), d))
		e.equal("change", e.declare(file(domain("a.example")), at(0)), store.Change{Added: 1})
		back := e.domain("a.example")
		e.equal("state", back.State, store.State{})
		for _, v := range versions {
			stale := back
			stale.Version = v
			e.is(e.Save(e.ctx(), &stale, at(1)), store.ErrStale)
		}
		versions = append(versions, back.Version)
		e.save(&back, 1, func(s *store.State) { s.Served = "policy" })
		versions = append(versions, back.Version)
		d = back
	}
}
