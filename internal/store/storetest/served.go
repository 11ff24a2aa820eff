package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func servedTests() map[string]func(*env) {
	return map[string]func(*env){
		"ServedSince/WhatChanged":              servedChanged,
		"ServedSince/OnlyTextsCount":           servedTextsOnly,
		"ServedSince/DeletedAreServedNone":     servedDeleted,
		"ServedSince/SharedRecordsTurnAll":     servedShared,
		"ServedSince/OneNumberForASharedText":  servedAtOnce,
		"ServedSince/NumbersOfTheFuture":       servedFuture,
		"ServedSince/FollowedByACopy":          servedFollowed,
		"ServedSince/LastsOverReopening":       servedReopened,
		"ServedSince/EndsWithTheErrorOfF":      servedError,
		"Wait/ReturnsWhenSomethingChanged":     waitChanged,
		"Wait/ByAnotherOpeningOfThatStore":     waitTwo,
		"Wait/EndsWithItsContext":              waitContext,
		"Wait/OfSeveralAtTheSameTimeAllReturn": waitSeveral,
	}
}

// servedSince returns what changed since a number, and the next number.
func (e *env) servedSince(after int64) (map[policygen.Name]string, int64) {
	e.Helper()
	all := make(map[policygen.Name]string)
	next, err := e.ServedSince(e.ctx(), after, func(name policygen.Name, text string) error {
		all[name] = text
		return nil
	})
	e.must(err)
	return all, next
}

func servedChanged(e *env) {
	e.start("a.example", "b.example", "c.example")
	all, next := e.servedSince(0)
	e.equal("nothing is served", all, map[policygen.Name]string{})
	e.serve("a.example", "one")
	e.serve("b.example", "one")
	all, first := e.servedSince(next)
	e.equal("two", all, map[policygen.Name]string{"a.example": "one", "b.example": "one"})
	e.serve("a.example", "two")
	e.serve("b.example", "")
	all, second := e.servedSince(first)
	e.equal("changed", all, map[policygen.Name]string{"a.example": "two", "b.example": ""})
	e.equal("number", second, e.lastChange())
	if second <= first || first <= next {
		e.Errorf("numbers are %d, %d, %d, want them to grow", next, first, second)
	}
	all, _ = e.servedSince(second)
	e.equal("nothing new", all, map[policygen.Name]string{})
	all, _ = e.servedSince(0)
	e.equal("since ever", all, map[policygen.Name]string{"a.example": "two", "b.example": ""})
}

func servedTextsOnly(e *env) {
	e.start("a.example")
	e.serve("a.example", "one")
	last := e.lastChange()
	d := e.domain("a.example")
	e.save(&d, 2, func(s *store.State) { s.Step, s.ID, s.Dirty = "live", "id1", true })
	e.claim(9, time.Hour, 1)
	e.must(e.Wake(e.ctx(), "", at(9)))
	e.declare(file(), at(9))
	e.saveCertificates(certificate("a"))
	all, _ := e.servedSince(last)
	e.equal("changed", all, map[policygen.Name]string{})
}

func servedDeleted(e *env) {
	e.start("a.example", "b.example")
	e.serve("a.example", "one")
	_, before := e.servedSince(0)
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	e.must(e.Delete(e.ctx(), e.domain("b.example")))
	all, deleted := e.servedSince(before)
	e.equal("deleted", all, map[policygen.Name]string{"a.example": "", "b.example": ""})
	e.start("a.example", "b.example")
	all, _ = e.servedSince(before)
	e.equal("back", all, map[policygen.Name]string{"a.example": "", "b.example": ""})
	e.serve("a.example", "two")
	all, _ = e.servedSince(before)
	e.equal("served again", all, map[policygen.Name]string{"a.example": "two", "b.example": ""})
	all, _ = e.servedSince(deleted)
	e.equal("since it was deleted", all, map[policygen.Name]string{"a.example": "two"})
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	all, _ = e.servedSince(deleted)
	e.equal("deleted again", all, map[policygen.Name]string{"a.example": ""})
}

func servedShared(e *env) {
	e.shared("a.example", "apart.example")
	apart := e.domain("apart.example")
	e.save(&apart, 2, func(s *store.State) { s.Detached = at(2) })
	_, last := e.servedSince(0)
	e.serve("*.eu.s.default.sts.example", "two")
	all, _ := e.servedSince(last)
	e.equal("changed", all, map[policygen.Name]string{"a.example": "two"})
}

// servedAtOnce has domains of a shared record get a text, all with the number of the record, whatever becomes of them.
func servedAtOnce(e *env) {
	e.shared("a.example", "apart.example", "b.example", "gone.example")
	_, last := e.servedSince(0)
	e.serve("*.eu.s.default.sts.example", "two")
	want := e.domain("*.eu.s.default.sts.example").Change
	if want <= last {
		e.Fatalf("the change of the shared record is %d, want one after %d", want, last)
	}
	changes := func(what string, want int64, names ...policygen.Name) {
		e.Helper()
		for _, name := range names {
			if d := e.domain(name); d.Change != want {
				e.Errorf("%s: the change of %s is %d, want %d", what, name, d.Change, want)
			}
		}
	}
	texts := func(what string, after int64, want map[policygen.Name]string) {
		e.Helper()
		all, _ := e.servedSince(after)
		e.equal(what, all, want)
	}
	all := map[policygen.Name]string{"a.example": "two", "apart.example": "two", "b.example": "two", "gone.example": "two"}
	changes("turned", want, "a.example", "apart.example", "b.example", "gone.example")
	for _, d := range e.claim(9, time.Hour, 9) {
		if d.Publish == store.PublishShared && d.Change != want {
			e.Errorf("the change of %s is %d when claimed, want %d", d.Name, d.Change, want)
		}
	}
	texts("turned", want-1, all)
	texts("known", want, map[policygen.Name]string{})

	apart := e.domain("apart.example")
	e.save(&apart, 9, func(s *store.State) { s.Detached = at(9) })
	e.equal("change of what is saved", apart.Change, want)
	e.must(e.Delete(e.ctx(), e.domain("gone.example")))
	e.must(e.PruneDropped(e.ctx()))
	e.reopen()
	changes("kept", want, "a.example", "apart.example", "b.example")
	all["gone.example"] = ""
	texts("kept", want-1, all)

	first := want
	e.serve("*.eu.s.default.sts.example", "three")
	want = e.domain("*.eu.s.default.sts.example").Change
	e.must(e.PruneDropped(e.ctx()))
	changes("turned again", want, "a.example", "b.example")
	changes("apart", first, "apart.example")
	texts("turned again", want-1, map[policygen.Name]string{"a.example": "three", "b.example": "three"})
	all["a.example"], all["b.example"] = "three", "three"
	texts("since before", first-1, all)
}

func servedFuture(e *env) {
	_, err := e.ServedSince(e.ctx(), e.lastChange()+1, func(policygen.Name, string) error { return nil })
	e.is(err, store.ErrNotFound, "restored")
}

func servedReopened(e *env) {
	e.start("a.example", "b.example")
	e.serve("a.example", "one")
	_, last := e.servedSince(0)
	e.serve("b.example", "two")
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	e.reopen()
	all, _ := e.servedSince(last)
	e.equal("changed", all, map[policygen.Name]string{"a.example": "", "b.example": "two"})
}

func servedError(e *env) {
	e.start("a.example")
	e.serve("a.example", "one")
	stop := errors.New("stop")
	if _, err := e.ServedSince(e.ctx(), 0, func(policygen.Name, string) error { return stop }); err != stop { //nolint:errorlint // it is to be that error itself
		e.Errorf("error is %v, want the one of f", err)
	}
}

// servedFollowed has a copy follow several writers: in the end it is what the store has.
func servedFollowed(e *env) {
	const writers, rounds = 6, 12
	var all []policygen.Name
	for i := range writers {
		all = append(all, policygen.Name(fmt.Sprintf("d%d.example", i)))
	}
	e.start(all...)
	served := make(map[policygen.Name]string)
	var last int64
	follow := func() error {
		var err error
		last, err = e.ServedSince(e.ctx(), last, func(name policygen.Name, text string) error {
			if served[name] = text; text == "" {
				delete(served, name)
			}
			return nil
		})
		return err
	}
	var g errgroup.Group
	done := make(chan struct{})
	for _, name := range all {
		g.Go(func() error {
			for i := range rounds {
				d, err := e.Domain(e.ctx(), name)
				if err != nil {
					return err
				}
				if d.State.Served = fmt.Sprint(name, i); i%5 == 4 {
					d.State.Served = ""
				}
				if err := e.Save(e.ctx(), &d, at(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	go func() {
		defer close(done)
		if err := g.Wait(); err != nil {
			e.Error(err)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		e.must(follow())
	}
	want := make(map[policygen.Name]string)
	e.must(e.EachServed(e.ctx(), func(name, text []byte) error {
		want[policygen.Name(name)] = string(text)
		return nil
	}))
	e.equal("copy", served, want)
}

func waitChanged(e *env) {
	e.start("a.example")
	last := e.lastChange()
	e.serve("a.example", "one")
	e.must(e.Wait(e.ctx(), last)) // it was already

	last = e.lastChange()
	returned := make(chan error)
	go func() { returned <- e.Wait(e.ctx(), last) }()
	e.serve("a.example", "two")
	e.must(<-returned)
	if now := e.lastChange(); now <= last {
		e.Errorf("it returned at number %d, want more than %d", now, last)
	}
	last = e.lastChange()
	go func() { returned <- e.Wait(e.ctx(), last) }()
	select {
	case err := <-returned:
		e.Fatalf("it returned without a change: %v", err)
	default:
	}
	e.must(e.SaveCertificate(e.ctx(), certificate("a")))
	e.must(<-returned)
}

// waitTwo is for engines that several processes may have open.
func waitTwo(e *env) {
	other, err := e.with(e.T, e.handle, e.keys)
	if errors.Is(err, store.ErrLocked) {
		return // there is no other
	}
	e.must(err)
	defer func() { e.must(other.Close()) }()
	e.start("a.example")
	last := e.lastChange()
	begun := time.Now()
	returned := make(chan error)
	go func() { returned <- other.Wait(e.ctx(), last) }()
	e.serve("a.example", "two")
	e.must(<-returned)
	if took := time.Since(begun); took > 5*time.Second {
		e.Errorf("it took %s", took)
	}
}

func waitContext(e *env) {
	ctx, cancel := context.WithCancel(e.ctx())
	returned := make(chan error)
	last := e.lastChange()
	go func() { returned <- e.Wait(ctx, last) }()
	cancel()
	e.is(<-returned, context.Canceled)
}

func waitSeveral(e *env) {
	e.start("a.example")
	last := e.lastChange()
	returned := make(chan error)
	for range 4 {
		go func() { returned <- e.Wait(e.ctx(), last) }()
	}
	e.serve("a.example", "one")
	for range 4 {
		e.must(<-returned)
	}
}
