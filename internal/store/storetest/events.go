package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/store"
)

func eventTests() map[string]func(*env) {
	return map[string]func(*env){
		"Events/ComeBackAsAppended":        eventsAppended,
		"Events/Filtered":                  eventsFiltered,
		"Events/SinceATime":                eventsSince,
		"Events/OldOnesGo":                 eventsPruned,
		"Events/AppearInTheirOrder":        eventsOrdered,
		"Events/NewTenantOfAnOldName":      eventsNewTenant,
		"Events/OfADeclaration":            eventsDeclared,
		"Events/OfABatch":                  eventsApplied,
		"Events/OfClaims":                  eventsClaims,
		"Events/OfTenantsAndTokens":        eventsTenancy,
		"Events/OfSteps":                   eventsSteps,
		"Events/OfFaults":                  eventsFaults,
		"Events/OfCommands":                eventsCommands,
		"Events/OfCertificates":            eventsCertificates,
		"Events/OfNodesAndTheEnd":          eventsGone,
		"Events/NothingChangedTellsNone":   eventsNone,
		"Events/SharedRecordTellsForAll":   eventsShared,
		"Events/AsLargeAsADeclarationGets": eventsMany,
	}
}

// by is the context of a caller.
func (e *env) by(actor string) context.Context { return store.WithActor(e.ctx(), actor) }

func (e *env) events(f store.EventFilter, after int64) []store.Event {
	e.Helper()
	all, err := e.Events(e.ctx(), f, after, 1_000_000)
	e.must(err)
	return all
}

// all are the events of everybody.
func (e *env) all() []store.Event {
	e.Helper()
	return e.events(store.EventFilter{All: true}, 0)
}

// newest is the number of the last event.
func (e *env) newest() int64 {
	e.Helper()
	all := e.all()
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].Seq
}

// line is an event in short.
func line(v store.Event) string {
	s := fmt.Sprintf("%s/%s %s by %s", v.Tenant, v.Name, v.Kind, v.Actor)
	if v.Before != nil {
		s += " was " + string(v.Before)
	}
	if v.After != nil {
		s += " is " + string(v.After)
	}
	return s
}

// told checks what happened since a number, and returns the newest. Lines are checked up to their end here.
func (e *env) told(after int64, want ...string) int64 {
	e.Helper()
	var got []string
	last := after
	for _, v := range e.events(store.EventFilter{All: true}, after) {
		got = append(got, line(v))
		if v.Seq <= last || v.At.IsZero() || v.Text == "" {
			e.Errorf("event %+v after number %d", v, last)
		}
		last = v.Seq
	}
	e.equal("events", got, want)
	return last
}

// An event that tells nothing of itself.
func event(tenant, kind, name string, i int) store.Event {
	return store.Event{At: at(i), Tenant: tenant, Kind: kind, Name: name, Actor: "somebody", Text: "text"}
}

func (e *env) happen(events ...store.Event) {
	e.Helper()
	e.must(e.AppendEvents(e.ctx(), events))
}

func eventsAppended(e *env) {
	want := event("t", store.KindDomainCommand, "a.example", 3)
	want.Text, want.Actor = "Ü ✓ 'x'", "token 1 (ü)"
	want.Before, want.After = json.RawMessage(`{"a":"\u0000"}`), json.RawMessage(`{"b":1}`)
	last := e.lastChange()
	e.happen(want)
	if now := e.lastChange(); now <= last {
		e.Errorf("LastChange is %d after %d", now, last)
	}
	e.must(e.AppendEvents(e.by("me"), []store.Event{{Tenant: "t", Kind: "k", Text: "b"}}))
	e.happen()
	e.reopen()
	got := e.events(store.EventFilter{Tenant: "t"}, 0)
	if len(got) != 2 || got[0].Seq <= last || got[1].Seq <= got[0].Seq {
		e.Fatalf("events are %+v", got)
	}
	want.Seq = got[0].Seq
	e.equal("event", got[0], want)
	if d := time.Since(got[1].At).Abs(); d > time.Minute || got[1].Actor != "me" || got[1].Before != nil {
		e.Errorf("event is %+v, want it now and by me", got[1])
	}
}

func eventsFiltered(e *env) {
	e.happen(event("default", "a.x", "one", 1), event("", "a.y", "one", 2), event("default", "a.y", "two", 3), event("b", "a.x", "one", 4))
	for what, c := range map[string]struct {
		f    store.EventFilter
		want string
	}{
		"tenant":      {store.EventFilter{Tenant: "default"}, "1 3"},
		"service":     {store.EventFilter{}, "2"},
		"all":         {store.EventFilter{All: true, Tenant: "b"}, "1 2 3 4"},
		"name":        {store.EventFilter{Tenant: "default", Name: "one"}, "1"},
		"name of all": {store.EventFilter{All: true, Name: "one"}, "1 2"}, // tenant b is not there
		"kinds":       {store.EventFilter{All: true, Kinds: []string{"a.y", "z"}}, "2 3"},
		"kind":        {store.EventFilter{Tenant: "default", Kinds: []string{"a.x"}}, "1"},
		"part":        {store.EventFilter{All: true, Kinds: []string{"a"}}, ""},
		"since":       {store.EventFilter{All: true, Since: at(3)}, "3 4"},
		"none":        {store.EventFilter{Tenant: "c"}, ""},
	} {
		var got []string
		for _, v := range e.events(c.f, 0) {
			got = append(got, fmt.Sprint(v.At.Sub(at(0)).Minutes()))
		}
		e.equal(what, strings.Join(got, " "), c.want)
	}
	all := e.all()
	page, err := e.Events(e.ctx(), store.EventFilter{All: true}, all[1].Seq, 1)
	e.must(err)
	e.equal("page", page, all[2:3])
	page, err = e.Events(e.ctx(), store.EventFilter{All: true}, 0, 0)
	e.must(err)
	e.equal("page of none", len(page), 0)
}

// eventsSince looks for times among events with gaps in their numbers.
func eventsSince(e *env) {
	e.equal("empty", len(e.events(store.EventFilter{All: true, Since: at(0)}, 0)), 0)
	const hours = 100
	for i := range hours {
		e.happen(event("", "k", "n", i*60), event("", "k", "n", i*60+1))
		if i%7 == 0 {
			e.must(e.SaveCertificate(e.ctx(), certificate("mta-sts.gap")))
		}
	}
	own := store.EventFilter{Kinds: []string{"k"}}
	for _, i := range []int{-100, 0, 1, 2, 59, 60, 61, 3000, 5940, 5941, 5942, 9000} {
		own.Since = at(i)
		want := 0
		for h := range hours {
			for m := range 2 {
				if h*60+m >= i {
					want++
				}
			}
		}
		if got := e.events(own, 0); len(got) != want || want > 0 && got[0].At.Before(at(i)) {
			e.Errorf("%d events since minute %d, want %d", len(got), i, want)
		}
	}
}

func eventsPruned(e *env) {
	e.happen(event("", "k", "1", 1), event("t", "k", "2", 2), event("", "k", "3", 3), event("", "k", "ahead", 9), event("", "k", "5", 5))
	prune := func(i, n, want int) {
		e.Helper()
		got, _, err := e.PruneEvents(e.ctx(), at(i), n, nil)
		e.must(err)
		e.equal("pruned", got, want)
	}
	prune(1, 10, 0)
	prune(4, 2, 2)
	prune(6, 2, 1) // the third and the fourth are looked at
	prune(6, 2, 1)
	prune(6, 2, 0)
	if left := e.all(); len(left) != 1 || left[0].Name != "ahead" {
		e.Errorf("left are %+v", left)
	}
}

// eventsOrdered reads while others write, each time from the last number on, and misses nothing.
func eventsOrdered(e *env) {
	const writers, each = 8, 25
	want := make(map[string]int) // events by name
	done := make(chan error, writers)
	var g sync.WaitGroup
	for w := range writers {
		g.Go(func() {
			name := fmt.Sprintf("writer %d", w)
			for i := range each {
				err := e.AppendEvents(e.ctx(), slices.Repeat([]store.Event{event("default", "k", name, i)}, 1+w%2*2))
				if err == nil && w%2 == 0 {
					err = e.AppendEvents(e.ctx(), slices.Repeat([]store.Event{event("default", "k", name, i)}, 2))
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		})
	}
	got := make(map[string]int)
	last, running := int64(0), writers
	for running > 0 {
		select {
		case err := <-done:
			running--
			e.must(err)
		default:
		}
		page, err := e.Events(e.ctx(), store.EventFilter{Tenant: "default", Kinds: []string{"k"}}, last, 7)
		e.must(err)
		for _, v := range page {
			if v.Seq <= last {
				e.Fatalf("number %d came after %d", v.Seq, last)
			}
			last = v.Seq
			got[v.Name]++
		}
	}
	g.Wait()
	for _, v := range e.events(store.EventFilter{Tenant: "default", Kinds: []string{"k"}}, last) {
		got[v.Name]++
	}
	for w := range writers {
		want[fmt.Sprintf("writer %d", w)] = each * 3
	}
	e.equal("events by name", got, want)
}

func eventsNewTenant(e *env) {
	e.tenant("acme")
	e.putMXSet(0, apiSet("acme", "eu"))
	e.must(e.DeleteMXSet(e.ctx(), "acme", "eu", store.OwnerAPI, nil))
	e.equal("events of the old tenant", len(e.events(store.EventFilter{Tenant: "acme"}, 0)), 2)
	e.must(e.DeleteTenant(e.ctx(), "acme", "", at(1)))
	e.tenant("acme")
	e.equal("events of the new tenant", len(e.events(store.EventFilter{Tenant: "acme"}, 0)), 0)
	e.putMXSet(0, apiSet("acme", "us"))
	e.equal("events of the new tenant", len(e.events(store.EventFilter{Tenant: "acme"}, 0)), 1)
	e.equal("events of the new tenant by name", len(e.events(store.EventFilter{Tenant: "acme", Name: "eu"}, 0)), 0)
	e.equal("events for the service", len(e.events(store.EventFilter{All: true, Name: "eu"}, 0)), 2)
}
