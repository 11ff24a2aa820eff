package publish_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// foresee changes the configuration, and sees that its plan says what is written then. It returns the plan.
func (w *world) foresee(what string, change func(*config.Config), within time.Duration, lines ...string) publish.Plan {
	w.t.Helper()
	w.change(func() {
		n := *w.conf
		n.MXSets, n.Domains = maps.Clone(n.MXSets), slices.Clone(n.Domains)
		w.conf = &n
		change(w.conf)
	})
	p := w.plan()
	n := w.writes()
	r, err := w.reload("")
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	w.pass(within)
	for _, d := range w.conf.Domains { // customers do as they are told
		if s := w.status(d.Name); s.Step == publish.StepDelegation {
			w.change(func() { w.delegation[d.Name] = true })
		}
	}
	w.pass(time.Hour)
	for _, d := range w.conf.Domains {
		if s := w.status(d.Name); s.Step != publish.StepLive {
			w.t.Errorf("%s: %s is at %s (%s)", what, d.Name, s.Step, s.Reason)
		}
	}
	planned := 0
	for _, writes := range p.Writes {
		planned += writes.Writes
	}
	if got := w.changed(n); len(got) != planned {
		w.t.Errorf("%s: planned are %d writes, made %d: %q\n%s", what, planned, len(got), got, strings.Join(p.Lines(), "\n"))
	}
	if r.Changed != p.Changed.Count || r.Added != p.Added.Count {
		w.t.Errorf("%s: the reload added %d and changed %d, the plan says %d and %d", what, r.Added, r.Changed, p.Added.Count, p.Changed.Count)
	}
	for _, line := range lines {
		if !slices.Contains(p.Lines(), line) {
			w.t.Errorf("%s: the plan says\n%s\nwant %q", what, strings.Join(p.Lines(), "\n"), line)
		}
	}
	return p
}

// put has domains in an MX set, shared.
func put(mxset string, names ...policygen.Name) func(*config.Config) {
	return func(c *config.Config) {
		c.Domains = slices.DeleteFunc(c.Domains, func(d config.Domain) bool { return slices.Contains(names, d.Name) })
		for _, name := range names {
			c.Domains = append(c.Domains, config.Domain{Name: name, MXSet: mxset, Publish: store.PublishShared, Account: "main"})
		}
	}
}

// TestPlanCountsSharedWrites compares what plans foresee with what is written.
func TestPlanCountsSharedWrites(t *testing.T) {
	w, names := sharedWorld(t, 30)
	w.conf = configuration("z.example")
	us := config.MXSet{Name: "us", Policy: mxset(policygen.Enforce, "us.provider.test").Policy}
	same := config.MXSet{Name: "same", Policy: us.Policy}
	run(t, w, func(w *world) {
		w.reach("z.example", publish.StepLive, time.Hour)
		w.foresee("a new shared set", put("eu", names[:10]...), 10*time.Minute, "new ids: 10 domains", "account main: 1 DNS write, about 1s ()")
		p := w.foresee("newcomers to it", put("eu", names[10:15]...), 10*time.Minute, "new ids: 5 domains")
		if len(p.Writes) > 0 {
			t.Errorf("newcomers: %+v", p.Writes)
		}
		w.foresee("a change of it", setMX(policygen.Enforce, "mx1.provider.test", "mx2.provider.test"), 10*time.Minute, "account main: 2 DNS writes, about 1s ()")
		w.foresee("some move to a new set", func(c *config.Config) {
			c.MXSets["us"] = us
			put("us", names[:4]...)(c)
		}, 20*time.Minute, "new ids: 4 domains", "account main: 5 DNS writes, about 1s ()")
		w.foresee("they move on, with the same policy", func(c *config.Config) {
			c.MXSets["same"] = same
			delete(c.MXSets, "us")
			put("same", names[:4]...)(c)
		}, 20*time.Minute, "account main: 2 DNS writes, about 1s ()")
		w.foresee("the others' set is renamed", func(c *config.Config) {
			set := c.MXSets["eu"]
			set.Name = "europe"
			c.MXSets["europe"] = set
			put("europe", names[4:15]...)(c)
		}, 20*time.Minute, "new ids: 11 domains", "account main: 13 DNS writes, about 1s ()")
	})
}

// TestPlanCountsSharedRollout is the same where domains begin in mode testing.
func TestPlanCountsSharedRollout(t *testing.T) {
	w, names := sharedWorld(t, 20)
	w.conf = configuration("z.example")
	w.conf.Check.Every = 24 * time.Hour
	run(t, w, func(w *world) {
		w.reach("z.example", publish.StepLive, time.Hour)
		set := w.conf.MXSets["eu"]
		set.Name, set.Rollout = "new", 3*24*time.Hour
		w.foresee("a new set with a roll-out", func(c *config.Config) {
			c.MXSets["new"] = set
			put("new", names[:10]...)(c)
		}, 10*time.Minute, "MX set new: new: mode enforce, max_age 1w, mx mx1.provider.test; each domain begins in testing, for 3d",
			"account main: 1 DNS write, about 1s ()")
		if s := w.status(names[0]); !strings.Contains(s.Policy, "testing") {
			t.Errorf("%s begins with %q", names[0], s.Policy)
		}
		p := w.foresee("newcomers while it is in testing itself", put("new", names[10:12]...), 10*time.Minute, "new ids: 2 domains")
		if len(p.Writes) > 0 {
			t.Errorf("newcomers: %+v", p.Writes)
		}
		w.foresee("the roll-out is taken out", func(c *config.Config) {
			set.Rollout = 0
			c.MXSets["new"] = set
		}, time.Minute, "MX set new: rollout 3d → none", "new ids: 12 domains", "account main: 1 DNS write, about 1s ()",
			fmt.Sprintf("to enforce: 12 domains: %s and 2 more", joined(names[:10])))
		for _, name := range names[:12] {
			if s := w.status(name); !strings.Contains(s.Policy, "enforce") {
				t.Errorf("%s is at %s with %q after the roll-out was taken out", name, s.Step, s.Policy)
			}
		}
		w.foresee("it comes back", func(c *config.Config) {
			set.Rollout = 24 * time.Hour
			c.MXSets["new"] = set
		}, time.Minute, "MX set new: rollout none → 1d")
		w.foresee("newcomers where the others are in enforce", put("new", names[12:15]...), 20*time.Minute, "account main: 3 DNS writes, about 1s ()")
	})
}

func joined(names []policygen.Name) string {
	return publish.Names{Count: len(names), First: names}.String()
}

// TestRolloutTakenOut has domains with records of their own looked at soon after a reload that ends or cuts their roll-out.
func TestRolloutTakenOut(t *testing.T) {
	w := newWorld(t, "a.example", "b.example")
	rollout := func(d time.Duration) func(*config.Config) {
		return func(c *config.Config) { setRollout(c, d) }
	}
	rollout(14 * 24 * time.Hour)(w.conf)
	w.conf.Check.Every = 24 * time.Hour
	run(t, w, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.reach("b.example", publish.StepLive, time.Hour)
		w.pass(5 * 24 * time.Hour)
		p := w.foresee("longer", rollout(28*24*time.Hour), time.Minute, "MX set eu: rollout 2w → 4w", "another roll-out: 2 domains: a.example, b.example")
		if p.Rotations > 0 || strings.Contains(w.status("a.example").Policy, "enforce") {
			t.Errorf("longer: %d rotations, then %q", p.Rotations, w.status("a.example").Policy)
		}
		w.foresee("none", rollout(0), time.Minute, "MX set eu: rollout 4w → none", "changed: 2 domains: a.example, b.example",
			"to enforce: 2 domains: a.example, b.example", "account main: 2 DNS writes, about 1s ()")
		if s := w.status("a.example"); !strings.Contains(s.Policy, "enforce") {
			t.Errorf("an hour after the roll-out was taken out: %q", s.Policy)
		}
	})
}
