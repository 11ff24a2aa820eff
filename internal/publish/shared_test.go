package publish_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

const wildcard = "*.eu.s.default.a.provider.test"

// sharedWorld has n domains behind the shared record of MX set eu, and senders that watch them all.
func sharedWorld(t *testing.T, n int) (*world, []policygen.Name) {
	w := newWorld(t)
	var names []policygen.Name
	for i := range n {
		names = append(names, policygen.Name(fmt.Sprintf("d%02d.example", i)))
	}
	w.conf = shared(w.conf, names...)
	w.ttl = 5 * time.Minute
	return w, names
}

func shared(c *config.Config, names ...policygen.Name) *config.Config {
	n := *c
	n.Domains = nil
	for _, name := range names {
		n.Domains = append(n.Domains, config.Domain{Name: name, MXSet: "eu", Publish: store.PublishShared, Account: "main"})
	}
	return &n
}

func below(name policygen.Name) string { return name.Label() + wildcard[1:] }

// settled brings all domains to live, customers included.
func (w *world) settled(names ...policygen.Name) {
	w.t.Helper()
	for _, name := range names {
		w.reach(name, publish.StepDelegation, time.Hour)
		w.change(func() { w.delegation[name] = true })
	}
	for _, name := range names {
		w.reach(name, publish.StepLive, time.Hour)
	}
}

// changed are the names written to since n writes.
func (w *world) changed(n int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, c := range w.applied[n:] {
		names = append(names, c.Name)
	}
	return names
}

func (w *world) reconfigure(f func(c *config.Config)) {
	w.t.Helper()
	w.change(func() {
		n := *w.conf
		w.conf = &n
		f(w.conf)
	})
	if _, err := w.reload(""); err != nil {
		w.t.Fatal(err)
	}
}

func setMX(mode policygen.Mode, mx ...string) func(*config.Config) {
	return func(c *config.Config) {
		set := c.MXSets["eu"]
		set.Policy = mxset(mode, mx...).Policy
		c.MXSets = map[string]config.MXSet{"eu": set}
	}
}

func TestSharedIsOneWrite(t *testing.T) {
	w, names := sharedWorld(t, 20)
	run(t, w, func(w *world) {
		w.settled(names...)
		if got := w.changed(0); !slices.Equal(got, []string{wildcard}) {
			t.Fatalf("written for 20 domains: %q, want the shared record once", got)
		}
		first := w.status(names[0])
		n := w.writes()
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		w.pass(time.Hour)
		if got := w.changed(n); !slices.Equal(got, []string{wildcard}) {
			t.Errorf("written for a change of the MX set: %q, want the shared record once", got)
		}
		for _, name := range names {
			s := w.status(name)
			if page, _ := w.snapshot.Policy(name.PolicyHost()); page == nil || page.Text != s.Policy || s.Policy == first.Policy {
				t.Errorf("%s serves %v, its status says %q", name, page, s.Policy)
			}
			if len(s.History) != 2 {
				t.Errorf("%s has %d policies in its history, want 2", name, len(s.History))
			}
		}
		if n := publish.Tracks(w.rec); n > 0 {
			t.Errorf("something is remembered of %d domains that are live", n)
		}
	})
}

// TestSharedAcrossRestarts stops the server at every moment of a change.
func TestSharedAcrossRestarts(t *testing.T) {
	w, names := sharedWorld(t, 3)
	run(t, w, func(w *world) {
		w.settled(names...)
		for i := range 40 {
			if i%10 == 5 {
				w.reconfigure(setMX(policygen.Enforce, fmt.Sprintf("mx%d.provider.test", i)))
			}
			w.pass(97 * time.Second)
			w.stop()
			if err := w.start(); err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if _, ok := w.snapshot.Policy(name.PolicyHost()); !ok {
					t.Fatalf("%s serves nothing after restart %d", name, i)
				}
			}
		}
		w.pass(time.Hour)
		id := w.status(wildcard).ID
		if got := w.at(wildcard); len(got) != 1 || got[0] != policygen.RecordText(id) {
			t.Errorf("shared record %q, want id %s", got, id)
		}
		for _, name := range names {
			if s := w.status(name); s.Step != publish.StepLive || !strings.Contains(s.Policy, "mx35.") {
				t.Errorf("%s is at %s (%s) with %q", name, s.Step, s.Reason, s.Policy)
			}
		}
		if len(w.records()) != 1 {
			t.Errorf("%d records, want the shared one alone: %v", len(w.records()), w.records())
		}
	})
}

// TestSharedHeld keeps a domain whose MX cannot be looked up at its old policy, and takes it back in later.
func TestSharedHeld(t *testing.T) {
	w, names := sharedWorld(t, 12)
	run(t, w, func(w *world) {
		w.settled(names...)
		old := w.status(names[3]).Policy
		w.change(func() { w.deaf[names[3]] = true })
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		s := w.reach(names[3], publish.StepMX, time.Hour)
		w.pass(time.Hour)
		if s = w.status(names[3]); s.Policy != old || !s.Fault {
			t.Errorf("the held domain serves %q (%s), want its old policy and a fault", s.Policy, s.Reason)
		}
		own := w.at(below(names[3]))
		if len(own) == 0 && w.status(names[1]).ID == w.status(policygen.Name(wildcard)).ID {
			own = []string{"the shared one, made after"} // whose id is fresh enough, by a second or so
		}
		if len(own) != 1 || own[0] == w.at(wildcard)[0] {
			t.Errorf("its record %q, want one of its own", own)
		}
		for _, name := range names {
			if name != names[3] && w.status(name).Policy == old {
				t.Errorf("%s did not get the new policy", name)
			}
		}
		// Its DNS works again: it gets the policy under a fresh id of its own. The shared id was answered for it once
		// with the old policy, so it goes back to the others with the next id of theirs.
		w.change(func() { w.deaf[names[3]] = false })
		w.pass(2 * time.Hour)
		if got := w.at(below(names[3])); len(got) != 1 || got[0] == own[0] {
			t.Errorf("record %q after it was mended, want a fresh id: %+v", got, w.status(names[3]))
		}
		w.pass(40 * time.Hour)
		if got := w.at(below(names[3])); len(got) > 0 {
			t.Errorf("record of its own %q, want none: it is attached again", got)
		}
		if s := w.status(names[3]); s.Step != publish.StepLive || s.Policy == old {
			t.Errorf("at %s (%s) with %q", s.Step, s.Reason, s.Policy)
		}
	})
}

// TestSharedWrongForMany holds a policy that would strand more than a few.
func TestSharedWrongForMany(t *testing.T) {
	w, names := sharedWorld(t, 30)
	run(t, w, func(w *world) {
		w.settled(names...)
		old := w.status(names[0]).Policy
		w.change(func() {
			for _, name := range names[:15] {
				w.deaf[name] = true
			}
		})
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		s := w.reach(wildcard, publish.StepMX, time.Hour)
		if !s.Fault || !strings.HasPrefix(s.Reason, "held: 15 of 30 domains cannot get the new policy, so nobody does: d00.example: its MX cannot be looked up: SERVFAIL") {
			t.Errorf("reason %q", s.Reason)
		}
		for _, name := range names {
			if got := w.status(name).Policy; got != old {
				t.Fatalf("%s serves %q", name, got)
			}
		}
		if len(w.records()) != 1 {
			t.Errorf("records %v, want the shared one alone", w.records())
		}
		if _, err := w.reload(w.plan().Hash); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if got := w.status(names[20]).Policy; got == old {
			t.Error("a forced change was not made")
		}
		if s := w.status(names[0]); s.Policy != old || s.Step != publish.StepMX {
			t.Errorf("a domain whose MX cannot be looked up is at %s with %q, want its old policy", s.Step, s.Policy)
		}
	})
}

// TestSharedLeaves drains a domain: a record of its own, mode none, and a tombstone where the shared one would answer.
func TestSharedLeaves(t *testing.T) {
	w, names := sharedWorld(t, 3)
	run(t, w, func(w *world) {
		w.settled(names...)
		id := w.status(wildcard).ID
		w.reconfigure(func(c *config.Config) { *c = *shared(c, names[1:]...) })
		w.reach(names[0], publish.StepDrain, time.Hour)
		s := w.status(names[0])
		if !strings.Contains(s.Policy, "mode: none") {
			t.Errorf("serves %q while it leaves", s.Policy)
		}
		if got := w.at(below(names[0])); len(got) != 1 || !policygen.IsSTSv1(got[0]) {
			t.Errorf("record %q, want one of its own", got)
		}
		w.pass(6 * 24 * time.Hour)
		if got := w.at(below(names[0])); len(got) != 1 || !policygen.IsSTSv1(got[0]) {
			t.Errorf("record %q before the horizon", got)
		}
		w.pass(2 * 24 * time.Hour)
		if got := w.at(below(names[0])); !slices.Equal(got, []string{publish.Tombstone}) {
			t.Errorf("record %q after the horizon, want the tombstone", got)
		}
		if _, err := w.rec.Status(w.ctx, names[0]); err == nil {
			t.Error("the domain is not forgotten")
		}
		if got := w.status(wildcard).ID; got != id {
			t.Errorf("the shared id went from %s to %s", id, got)
		}
		// It comes back: the tombstone gives way to a record of its own, and that to the shared one.
		w.reconfigure(func(c *config.Config) { *c = *shared(c, names...) })
		w.reach(names[0], publish.StepLive, time.Hour)
		if got := w.at(below(names[0])); len(got) != 1 || !policygen.IsSTSv1(got[0]) {
			t.Errorf("record %q of the domain that came back", got)
		}
		w.pass(26 * time.Hour)
		if got := w.at(below(names[0])); len(got) > 0 {
			t.Errorf("record of its own %q, want none", got)
		}
	})
}

// TestSharedEnds takes the last domain away: the shared record goes, but not before its domains have records of their own.
func TestSharedEnds(t *testing.T) {
	w, names := sharedWorld(t, 2)
	run(t, w, func(w *world) {
		w.settled(names...)
		w.reconfigure(func(c *config.Config) {
			*c = *shared(c)
			c.Domains = []config.Domain{{Name: "other.example", MXSet: "eu", Publish: store.PublishZone, Account: "main"}}
		})
		w.pass(2 * time.Hour)
		for _, name := range names {
			if got := w.at(below(name)); len(got) != 1 || !policygen.IsSTSv1(got[0]) {
				t.Errorf("record %q of %s", got, name)
			}
		}
		if len(w.at(wildcard)) > 0 {
			t.Error("the shared record stands although nobody uses it")
		}
		w.pass(10 * 24 * time.Hour)
		if len(w.records()) != 1 {
			t.Errorf("records left: %v, want that of other.example", w.records())
		}
	})
}

// TestSharedEarlyCNAME detaches a customer who set his _mta-sts before he was told to.
func TestSharedEarlyCNAME(t *testing.T) {
	w, names := sharedWorld(t, 2)
	w.delegation[names[1]] = true
	run(t, w, func(w *world) {
		w.settled(names[0])
		w.reach(names[1], publish.StepLive, time.Hour)
		own := w.at(below(names[1]))
		if len(own) == 0 && w.status(names[1]).ID == w.status(policygen.Name(wildcard)).ID {
			own = []string{"the shared one, made after"} // whose id is fresh enough, by a second or so
		}
		if len(own) != 1 || own[0] == w.at(wildcard)[0] {
			t.Errorf("record %q, want a fresh id of its own", own)
		}
		w.pass(26 * time.Hour)
		if got := w.at(below(names[1])); len(got) > 0 {
			t.Errorf("record of its own %q after a day, want none", got)
		}
	})
}

// TestSharedLateWrite has a write of an earlier life land at a name where the shared record answers.
func TestSharedLateWrite(t *testing.T) {
	w, names := sharedWorld(t, 2)
	run(t, w, func(w *world) {
		w.settled(names...)
		w.change(func() { w.txt[below(names[0])] = []string{policygen.RecordText("20200101000000deadbeef")} })
		w.pass(7 * time.Hour)
		if got := w.at(below(names[0])); len(got) != 1 || strings.Contains(got[0], "deadbeef") || got[0] == w.at(wildcard)[0] {
			t.Errorf("record %q, want a fresh id", got)
		}
	})
}

// TestSharedDrift has somebody change the shared record: it alone is mended, as soon as one of its domains is looked at.
func TestSharedDrift(t *testing.T) {
	w, names := sharedWorld(t, 4)
	run(t, w, func(w *world) {
		w.settled(names...)
		n, before := w.writes(), w.status(wildcard).ID
		w.pass(10 * time.Minute)
		w.change(func() { w.txt[wildcard] = []string{policygen.RecordText("20200101000000deadbeef")} })
		for _, name := range names[:3] {
			if err := w.rec.Wake(w.ctx, name); err != nil {
				t.Fatal(err)
			}
		}
		w.pass(6 * time.Minute) // it settles first
		if id := w.status(wildcard).ID; id == before || !slices.Equal(w.at(wildcard), []string{policygen.RecordText(id)}) {
			t.Errorf("shared record %q six minutes later, want a fresh id", w.at(wildcard))
		}
		w.pass(time.Hour)
		for _, name := range names {
			if s := w.status(name); s.Step != publish.StepLive || !s.Detached.IsZero() {
				t.Errorf("%s is at step %s (%s), detached %v; want it attached", name, s.Step, s.Reason, s.Detached)
			}
		}
		if got := w.changed(n); !slices.Equal(got, []string{wildcard}) {
			t.Errorf("written: %q, want the shared record once", got)
		}
	})
}

// TestSharedAttachedMeanwhile has a domain attached while the MX of the others are looked up: its own are, too.
func TestSharedAttachedMeanwhile(t *testing.T) {
	w, names := sharedWorld(t, 12)
	run(t, w, func(w *world) {
		w.settled(names...)
		late := names[11]
		attached := func(detached time.Time) {
			for {
				d, err := w.store.Domain(w.ctx, late)
				if err != nil {
					t.Fatal(err)
				}
				d.State.Detached = detached
				if err = w.store.Save(w.ctx, &d, time.Now()); err == nil {
					return
				}
			}
		}
		old := w.status(late).Policy
		attached(time.Now())
		w.change(func() {
			w.deaf[late] = true
			w.onceRead = func() { attached(time.Time{}) }
		})
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		w.pass(time.Minute)
		if s := w.status(names[0]); s.Policy == old {
			t.Fatalf("%s is at step %s (%s) with the old policy", names[0], s.Step, s.Reason)
		}
		if s := w.status(late); s.Policy != old || s.Detached.IsZero() {
			t.Errorf("with %q, detached %v, want the old policy at a record of its own: its MX cannot be looked up", s.Policy, s.Detached)
		}
	})
}

// TestSharedMoves takes a domain to another MX set: its customer's CNAME stays where it is.
func TestSharedMoves(t *testing.T) {
	w, names := sharedWorld(t, 3)
	w.conf.MXSets["us"] = config.MXSet{Name: "us", Policy: policygen.Policy{Mode: policygen.Enforce, MaxAge: 86400, MX: []string{"us.provider.test"}}}
	run(t, w, func(w *world) {
		w.settled(names...)
		w.reconfigure(func(c *config.Config) {
			c.Domains = slices.Clone(c.Domains)
			c.Domains[0].MXSet = "us"
		})
		w.pass(2 * time.Hour)
		s := w.status(names[0])
		if s.Step != publish.StepLive || !strings.Contains(s.Policy, "us.provider.test") || s.Record != below(names[0]) {
			t.Errorf("at %s (%s), record %s, policy %q", s.Step, s.Reason, s.Record, s.Policy)
		}
		if got := w.at(below(names[0])); len(got) != 1 || got[0] != policygen.RecordText(s.ID) {
			t.Errorf("record %q, want id %s", got, s.ID)
		}
		for _, name := range names[1:] {
			if s := w.status(name); s.Step != publish.StepLive || strings.Contains(s.Policy, "us.provider.test") {
				t.Errorf("%s at %s (%s) with %q", name, s.Step, s.Reason, s.Policy)
			}
		}
	})
}

// TestRollout promotes a domain when its time is over and its checks are clean.
func TestRollout(t *testing.T) {
	w := newWorld(t, "a.example", "b.example")
	set := w.conf.MXSets["eu"]
	set.Rollout = 4 * 24 * time.Hour
	w.conf.MXSets["eu"] = set
	w.unready["b.example"] = "mx1.provider.test offers no STARTTLS"
	run(t, w, func(w *world) {
		for _, name := range []policygen.Name{"a.example", "b.example"} {
			if s := w.reach(name, publish.StepLive, time.Hour); !strings.Contains(s.Policy, "mode: testing") {
				t.Fatalf("%s begins with %q", name, s.Policy)
			}
		}
		w.pass(3 * 24 * time.Hour)
		if s := w.status("a.example"); !strings.Contains(s.Policy, "mode: testing") {
			t.Errorf("%q before the roll-out is over", s.Policy)
		}
		w.pass(2 * 24 * time.Hour)
		if s := w.status("a.example"); s.Step != publish.StepLive || !strings.Contains(s.Policy, "mode: enforce") {
			t.Errorf("at %s with %q after the roll-out", s.Step, s.Policy)
		}
		s := w.status("b.example")
		if !s.Fault || s.Reason != "the promotion to mode enforce is held: mx1.provider.test offers no STARTTLS" || !strings.Contains(s.Policy, "testing") {
			t.Errorf("at %s (%s) with %q", s.Step, s.Reason, s.Policy)
		}
		w.change(func() { delete(w.unready, "b.example") })
		w.pass(24 * time.Hour)
		if s := w.status("b.example"); s.Fault || !strings.Contains(s.Policy, "mode: enforce") {
			t.Errorf("at %s (%s) with %q when it was mended", s.Step, s.Reason, s.Policy)
		}
	})
}

// TestSharedRollout promotes an MX set as one: who is not ready stays in testing, with a record of his own, and who comes
// later has his own time.
func TestSharedRollout(t *testing.T) {
	w, names := sharedWorld(t, 6)
	set := w.conf.MXSets["eu"]
	set.Rollout = 3 * 24 * time.Hour
	w.conf.MXSets["eu"] = set
	w.unready[names[2]] = "no STARTTLS"
	w.conf.Check.Every = 24 * time.Hour
	run(t, w, func(w *world) {
		w.settled(names...)
		if s := w.status(names[0]); !strings.Contains(s.Policy, "mode: testing") {
			t.Fatalf("begins with %q", s.Policy)
		}
		n := w.writes()
		w.pass(5 * 24 * time.Hour)
		for i, name := range names {
			want := "mode: enforce"
			if i == 2 {
				want = "mode: testing"
			}
			if s := w.status(name); !strings.Contains(s.Policy, want) {
				t.Errorf("%s at %s (%s) with %q, want %s", name, s.Step, s.Reason, s.Policy, want)
			}
		}
		got := w.changed(n)
		slices.Sort(got)
		if want := []string{wildcard, below(names[2])}; !slices.Equal(got, want) {
			t.Errorf("written %q, want %q", got, want)
		}
		late := policygen.Name("late.example")
		w.change(func() { w.delegation[late] = false })
		w.reconfigure(func(c *config.Config) { *c = *shared(c, append(slices.Clone(names), late)...) })
		w.settled(late)
		if s := w.status(late); !strings.Contains(s.Policy, "mode: testing") {
			t.Errorf("%s begins with %q", late, s.Policy)
		}
		w.pass(6 * 24 * time.Hour)
		if s := w.status(late); !strings.Contains(s.Policy, "mode: enforce") {
			t.Errorf("%s has %q after its roll-out", late, s.Policy)
		}
		if got := w.at(below(late)); len(got) > 0 {
			t.Errorf("%s still has a record of its own: %q", late, got)
		}
	})
}

// TestManual shows what to write, and waits for it.
func TestManual(t *testing.T) {
	w := newWorld(t, "m.example")
	w.conf.Domains[0].Publish, w.conf.Domains[0].Account = store.PublishManual, ""
	run(t, w, func(w *world) {
		write := func(s publish.Status) {
			w.change(func() { w.txt["_mta-sts.m.example"] = []string{policygen.RecordText(s.Intended)} })
			w.pass(time.Hour)
		}
		s := w.reach("m.example", publish.StepTXT, time.Hour)
		want := fmt.Sprintf("waiting for you to write: _mta-sts.m.example. 300 IN TXT %q", policygen.RecordText(s.Intended))
		if s.Reason != want {
			t.Errorf("reason %q, want %q", s.Reason, want)
		}
		w.stop()
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if got := w.status("m.example").Intended; got != s.Intended {
			t.Errorf("a restart asks for id %s, want %s as before", got, s.Intended)
		}
		write(s)
		if s = w.status("m.example"); s.Step != publish.StepLive {
			t.Fatalf("at %s (%s) when it is written", s.Step, s.Reason)
		}
		// Somebody writes another id: a fresh one is asked for.
		w.change(func() { w.txt["_mta-sts.m.example"] = []string{policygen.RecordText("1")} })
		w.pass(7 * time.Hour)
		s = w.status("m.example")
		if s.Step != publish.StepTXT || s.Intended == "" || !strings.HasSuffix(s.Reason, `in the place of ["v=STSv1; id=1;"]`) {
			t.Errorf("at %s (%s) with a wrong id", s.Step, s.Reason)
		}
		write(s)
		w.reconfigure(func(c *config.Config) {
			c.Domains = []config.Domain{{Name: "other.example", MXSet: "eu", Publish: store.PublishManual}}
		})
		w.pass(time.Hour)
		write(w.status("m.example"))
		w.pass(8 * 24 * time.Hour)
		if s = w.status("m.example"); s.Step != publish.StepDrain || !strings.HasPrefix(s.Reason, "waiting for you to delete: _mta-sts.m.example. TXT ") {
			t.Errorf("at %s (%s) after the horizon", s.Step, s.Reason)
		}
		w.change(func() { delete(w.txt, "_mta-sts.m.example") })
		w.pass(24 * time.Hour)
		if _, err := w.rec.Status(w.ctx, "m.example"); err == nil {
			t.Error("the domain is not forgotten")
		}
		if w.writes() > 0 {
			t.Errorf("%d writes", w.writes())
		}
	})
}
