package storetest

import (
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func agreeTests() map[string]func(*env) {
	return map[string]func(*env){
		"Nodes/TextsAreOfAChange":            agreeChange,
		"Nodes/WhatOthersMayServeIsKept":     agreeTainted,
		"Nodes/TaintedAreWoken":              agreeWake,
		"Accounts/FaultyDomainsAreWoken":     agreeWakeFaulty,
		"Nodes/CertificatesAfterAChange":     agreeCertificates,
		"Nodes/DeletedKeptForThoseWhoLack":   agreeDropped,
		"Nodes/DeletedForgottenWhenAllKnow":  agreePruned,
		"Nodes/TimeIsThatOfTheHeartbeats":    agreeTime,
		"Nodes/NumbersOfTheFutureAreUnknown": agreeFuture,
	}
}

func agreeChange(e *env) {
	e.start("a.example", "b.example")
	e.equal("before", e.domain("a.example").Change, int64(0))
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served, s.Dirty = "one", true })
	first := d.Change
	e.equal("of the write", first, e.lastChange())
	e.serve("b.example", "one")
	e.save(&d, 2, func(s *store.State) { s.Step = "body" })
	e.equal("of another write", d.Change, first)
	e.equal("as read", e.domain("a.example").Change, first)
	claimed := e.claim(900, time.Minute, 9)
	e.equal("as claimed", claimed[0].Change+claimed[1].Change, first+e.domain("b.example").Change)
	d = e.domain("a.example")
	e.save(&d, 3, func(s *store.State) { s.Served = "two" })
	e.equal("anew", d.Change, e.lastChange())
}

func agreeTainted(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Tainted, s.Live = true, at(7) })
	e.equal("kept", e.domain("a.example").State, d.State)
	e.save(&d, 2, func(s *store.State) { s.Tainted, s.Live = false, time.Time{} })
	e.equal("kept no more", e.domain("a.example").State, d.State)
}

func agreeWake(e *env) {
	e.start("a.example", "b.example", "c.example")
	for _, name := range []policygen.Name{"a.example", "b.example", "c.example"} {
		d := e.domain(name)
		d.Due = at(50)
		e.save(&d, 1, func(s *store.State) { s.Tainted = name != "b.example" })
	}
	e.must(e.WakeTainted(e.ctx(), at(5)))
	e.equal("due", names(e.claim(5, time.Hour, 9)), []policygen.Name{"a.example", "c.example"})
	// A claimed one is due when its claim ends.
	e.must(e.WakeTainted(e.ctx(), at(6)))
	d := e.domain("a.example")
	d.Due = at(80)
	e.save(&d, 7, func(*store.State) {})
	e.equal("woken while claimed", names(e.claim(7, time.Hour, 9)), []policygen.Name{"a.example"})
}

func agreeWakeFaulty(e *env) {
	other, foreign := domain("c.example"), domain("d.example")
	other.Account, foreign.Tenant = "other", "acme"
	d := file(domain("a.example"), domain("b.example"), other, foreign)
	theirs := d.MXSets[0]
	theirs.Tenant = foreign.Tenant
	d.MXSets = append(d.MXSets, theirs)
	e.declare(d, at(1))
	for _, name := range []policygen.Name{"a.example", "b.example", "c.example", "d.example"} {
		d := e.domain(name)
		d.Due = at(50)
		e.save(&d, 1, func(s *store.State) { s.Fault = name != "b.example" })
	}
	e.must(e.WakeFaulty(e.ctx(), "default", "main", at(5)))
	e.equal("due", names(e.claim(5, time.Hour, 9)), []policygen.Name{"a.example"})
}

func (e *env) certificatesAfter(after int64) (map[string]store.Certificate, int64) {
	e.Helper()
	all := make(map[string]store.Certificate)
	next, err := e.CertificatesAfter(e.ctx(), after, func(c store.Certificate) error {
		if len(c.Key) == 0 && len(c.Chain) == 0 {
			c = store.Certificate{Name: c.Name}
		}
		all[c.Name] = c
		return nil
	})
	e.must(err)
	return all, next
}

func agreeCertificates(e *env) {
	want := e.saveCertificates(certificate("a"), certificate("b"))
	all, next := e.certificatesAfter(0)
	e.equal("all", all, map[string]store.Certificate{"a": want["a"], "b": want["b"]})
	e.equal("number", next, e.lastChange())
	all, same := e.certificatesAfter(next)
	e.equal("nothing", all, map[string]store.Certificate{})
	e.equal("same number", same, next)
	want = e.saveCertificates(certificate("c"))
	e.must(e.DeleteCertificate(e.ctx(), "a"))
	all, _ = e.certificatesAfter(next)
	e.equal("since", all, map[string]store.Certificate{"c": want["c"], "a": {Name: "a"}})
}

// agreeDropped makes so many copies that nobody's copy lacks what was deleted; a node does.
func agreeDropped(e *env) {
	e.saveCertificates(certificate("a"))
	before := e.lastChange()
	e.must(e.Beat(e.ctx(), store.Node{ID: "one", Acknowledged: before}))
	e.must(e.DeleteCertificate(e.ctx(), "a"))
	e.mark("copy")
	for _, m := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"} {
		e.mark(m)
	}
	all, last := e.certificatesAfter(before)
	e.equal("for the node", all, map[string]store.Certificate{"a": {Name: "a"}})
	e.must(e.Beat(e.ctx(), store.Node{ID: "one", Acknowledged: last}))
	e.mark("17")
	_, err := e.CertificatesAfter(e.ctx(), before, func(store.Certificate) error { return nil })
	e.is(err, store.ErrNotFound) // it is forgotten when it has it
	all, _ = e.certificatesAfter(last)
	e.equal("since then", all, map[string]store.Certificate{})
}

// agreePruned forgets what was deleted when all nodes that count know it.
func agreePruned(e *env) {
	e.declare(file(domain("a.example"), domain("b.example")), at(0))
	for _, name := range []policygen.Name{"a.example", "b.example"} {
		d := e.domain(name)
		e.save(&d, 1, func(s *store.State) { s.Served = "text" })
	}
	e.saveCertificates(certificate("a"), certificate("b"))
	begun := e.lastChange()
	beat := func(id string, acknowledged int64) {
		e.Helper()
		e.must(e.Beat(e.ctx(), store.Node{ID: id, Acknowledged: acknowledged}))
	}
	since := func(after int64) []policygen.Name {
		e.Helper()
		gone := []policygen.Name{}
		_, err := e.ServedSince(e.ctx(), after, func(name policygen.Name, text string) error {
			e.equal("text", text, "")
			gone = append(gone, name)
			return nil
		})
		e.must(err)
		return gone
	}
	forgotten := func(after int64) {
		e.Helper()
		_, err := e.ServedSince(e.ctx(), after, func(policygen.Name, string) error { return nil })
		e.is(err, store.ErrNotFound)
		_, err = e.CertificatesAfter(e.ctx(), after, func(store.Certificate) error { return nil })
		e.is(err, store.ErrNotFound)
	}
	beat("one", begun)
	beat("two", begun)
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	e.must(e.DeleteCertificate(e.ctx(), "a"))
	first := e.lastChange()
	beat("one", first)
	e.must(e.PruneDropped(e.ctx()))
	e.equal("what node two lacks", since(begun), []policygen.Name{"a.example"})
	e.mark("copy")
	e.must(e.Delete(e.ctx(), e.domain("b.example")))
	e.must(e.DeleteCertificate(e.ctx(), "b"))
	beat("two", first)
	e.must(e.PruneDropped(e.ctx()))
	forgotten(begun)
	e.equal("what both lack", since(first), []policygen.Name{"b.example"})
	beat("one", e.lastChange())
	beat("two", e.lastChange())
	e.must(e.PruneDropped(e.ctx()))
	forgotten(first)
	e.equal("the copy knows", e.since("copy"), map[string]store.Certificate{"b": {Name: "b"}})
	e.must(e.PruneDropped(e.ctx())) // there is nothing to forget
	e.reopen()
	forgotten(first)
	e.equal("since", since(e.lastChange()), []policygen.Name{})

	// A node that begins to read has no number yet, and one that is gone has none to ask with.
	e.declare(file(domain("a.example")), at(2))
	last := e.lastChange()
	for _, id := range []string{"one", "two"} {
		beat(id, last)
	}
	d := e.domain("a.example")
	e.save(&d, 3, func(s *store.State) { s.Served = "text" })
	last = e.lastChange()
	beat("three", 0)
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	for _, id := range []string{"one", "two"} {
		beat(id, e.lastChange())
	}
	e.must(e.PruneDropped(e.ctx()))
	e.equal("what the third lacks", since(last), []policygen.Name{"a.example"})
	e.must(e.Deregister(e.ctx(), "three"))
	e.must(e.PruneDropped(e.ctx()))
	forgotten(last)
}

func agreeTime(e *env) {
	first, err := e.Now(e.ctx())
	e.must(err)
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	second, err := e.Now(e.ctx())
	e.must(err)
	if beat := e.nodes()[0].Heartbeat; beat.Before(first) || second.Before(beat) {
		e.Errorf("heartbeat %s is not between %s and %s", beat, first, second)
	}
}

func agreeFuture(e *env) {
	_, err := e.CertificatesAfter(e.ctx(), e.lastChange()+1, func(store.Certificate) error { return nil })
	e.is(err, store.ErrNotFound)
}
