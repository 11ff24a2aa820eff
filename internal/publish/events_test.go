package publish_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// told returns the events of a domain, in short, of which the kinds begin with one of those.
func (w *world) told(name string, kinds ...string) (all []string) {
	w.t.Helper()
	events, err := w.store.Events(w.ctx, store.EventFilter{Tenant: publish.Tenant, Name: name}, 0, 10_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range events {
		if slices.ContainsFunc(kinds, func(k string) bool { return strings.HasPrefix(e.Kind, k) }) {
			text, _, _ := strings.Cut(e.Text, ":")
			all = append(all, e.Kind+" "+text)
		}
		if e.Kind == store.KindDomainStep && e.Actor != store.ActorSelf {
			w.t.Errorf("event %+v, want it by stspub itself", e)
		}
	}
	return all
}

func (w *world) wantTold(what string, got []string, want ...string) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Errorf("%s is told as\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestEventsOfAPublication tells each step once, from the first look to the end of the drain.
func TestEventsOfAPublication(t *testing.T) {
	inBubble(t, []policygen.Name{"a.example", "b.example"}, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.wantTold("the way to live", w.told("a.example", "domain."),
			"domain.added added", "domain.step settle", "domain.step live")
		w.pass(5 * 24 * time.Hour)
		w.wantTold("a domain that is live", w.told("a.example", "domain.")[3:])
		w.reconfigure(setMX(policygen.Enforce, "mx1.provider.test", "mx2.provider.test"))
		w.pass(time.Hour)
		w.wantTold("a rotation", w.told("a.example", "domain.")[3:], "domain.step settle", "domain.step live")
		if got := w.told("eu", "mxset."); !slices.Equal(got, []string{"mxset.added added", "mxset.changed changed what its domains are published with"}) {
			t.Errorf("the MX set is told as %q", got)
		}
		w.reconfigure(func(c *config.Config) { c.Domains = c.Domains[1:] })
		w.pass(30 * 24 * time.Hour)
		got := w.told("a.example", "domain.removed", "domain.drained")
		if len(got) != 2 || !strings.HasPrefix(got[1], "domain.drained ") {
			t.Errorf("a drain is told as %q", got)
		}
	})
}

// TestEventsOfFaults tells of a fault when it begins and when it ends, however often it is seen.
func TestEventsOfFaults(t *testing.T) {
	inBubble(t, []policygen.Name{"a.example"}, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.change(func() { w.uncovered = []string{"old.provider.test"} })
		w.pass(5 * 24 * time.Hour)
		w.wantTold("a fault", w.told("a.example", "domain.fault"),
			"domain.fault senders refuse the MX old.provider.test of a.example")
		w.change(func() { w.uncovered = nil })
		w.pass(5 * 24 * time.Hour)
		w.wantTold("a fault that is mended", w.told("a.example", "domain.fault")[1:], "domain.fault-cleared mended")
	})
}

// TestEventsOfARollout tells that a promotion is held, that it is not any more, and that it is done.
func TestEventsOfARollout(t *testing.T) {
	w := newWorld(t, "a.example")
	set := w.conf.MXSets["eu"]
	set.Rollout = 2 * 24 * time.Hour
	w.conf.MXSets["eu"] = set
	w.unready["a.example"] = "mx1.provider.test offers no STARTTLS"
	run(t, w, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.pass(7 * 24 * time.Hour)
		w.wantTold("a promotion that is held", w.told("a.example", "domain.prom", "domain.fault"),
			"domain.promotion-held the promotion to mode enforce is held")
		w.change(func() { clear(w.unready) })
		w.pass(7 * 24 * time.Hour)
		got := w.told("a.example", "domain.prom", "domain.fault")[1:]
		slices.Sort(got)
		w.wantTold("a promotion", got, "domain.fault-cleared mended", "domain.promoted its roll-out is over")
	})
}

// TestEventsOfSharedRecords tells of a rotation once, for all domains that are attached.
func TestEventsOfSharedRecords(t *testing.T) {
	w, names := sharedWorld(t, 3)
	run(t, w, func(w *world) {
		w.settled(names...)
		name := string(names[0])
		w.pass(24 * time.Hour)
		steps := len(w.told(name, "domain.step"))
		before := len(w.told(wildcard, "domain.step"))
		w.reconfigure(setMX(policygen.Enforce, "mx1.provider.test", "mx2.provider.test"))
		w.pass(24 * time.Hour)
		if s := w.status(names[0]); !strings.Contains(s.Policy, "mx2") {
			t.Fatalf("%s is served %q", name, s.Policy)
		}
		w.wantTold("a rotation of all", w.told(name, "domain.step")[steps:])
		got := w.told(wildcard, "domain.step")[before:]
		if len(got) == 0 || got[len(got)-1] != "domain.step live" {
			t.Errorf("the shared record is told as %q", got)
		}
	})
}

// TestEventsOfTheService tells each fault of the service when it begins and when it is gone, also of the store, and who
// confirmed what was held.
func TestEventsOfTheService(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		w.reach(one, publish.StepLive, time.Hour)
		last, err := w.store.LastChange(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		told := func(what string, want ...string) {
			t.Helper()
			w.pass(2 * time.Minute)
			events, err := w.store.Events(w.ctx, store.EventFilter{}, last, 100)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range events {
				last = e.Seq
				got = append(got, strings.Join([]string{e.Kind, e.Name, e.Actor, string(e.Before), string(e.After)}, " "))
			}
			w.wantTold(what, got, want...)
		}
		w.rec.SetFault("alias zone", "is not\ndelegated")
		w.rec.SetFault("alias zone", "is not delegated, still")
		told("a fault", `service.fault alias zone stspub  {"reason":"is not\ndelegated"}`)
		w.rec.SetFault("alias zone", "")
		w.rec.SetFault("alias zone", "")
		told("its end", `service.fault-cleared alias zone stspub {"reason":"is not delegated, still"} `)

		if err := publish.ClockMoved(w.rec, w.ctx, 2*time.Hour); err != nil {
			t.Fatal(err)
		}
		reason := `{"reason":"` + strings.TrimPrefix(w.faults()[0], "hold: ") + `"}`
		told("a hold", "service.fault hold stspub  "+reason)
		if _, err := w.rec.Reload(store.WithActor(w.ctx, "token k3w5 (panel)"), w.plan().Hash); err != nil {
			t.Fatal(err)
		}
		told("its confirmation", "hold.confirmed hold token k3w5 (panel) "+reason+" ", "service.fault-cleared hold stspub "+reason+" ")
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		told("a reload with nothing held")
	})
}
