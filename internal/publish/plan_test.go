package publish_test

import (
	"errors"
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

// looked are the domains whose MX were looked up since it was called last.
func (w *world) looked() []policygen.Name {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := slices.Sorted(slices.Values(w.mxLooks))
	w.mxLooks = nil
	return names
}

// A plan changes nothing, whatever it says.
func TestPlanChangesNothing(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		first := w.reach(one, publish.StepLive, 10*time.Minute)
		w.reach(two, publish.StepLive, 10*time.Minute)
		w.change(func() { w.uncovered = []string{"mx1.provider.test"} })
		conf := *w.conf
		conf.Digest, conf.Domains = "another", conf.Domains[:1]
		conf.MXSets = map[string]config.MXSet{"eu": mxset(policygen.Enforce, "mx2.provider.test")}
		writes := w.writes()
		p, err := w.rec.Plan(w.ctx, &conf, nil)
		if err != nil || p.Removed.Count != 1 || len(p.Stranded) != 1 || p.Digest != "another" || len(p.Refused) != 1 {
			t.Fatalf("Plan = %+v, %v", p, err)
		}
		w.pass(24 * time.Hour)
		for _, name := range []policygen.Name{one, two} {
			if s := w.status(name); s.Policy != first.Policy || s.Draining || s.Step != publish.StepLive {
				t.Errorf("%s: policy %q, draining %v, step %s; want what was before", name, s.Policy, s.Draining, s.Step)
			}
		}
		if got := w.writes(); got != writes || len(w.faults()) > 0 {
			t.Errorf("%d writes, %d before; faults %q", got, writes, w.faults())
		}
	})
}

// Only those are looked up whose next policy may leave out an MX that is in DNS.
func TestReloadLooksUpWhatItMust(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.reach(two, publish.StepLive, 10*time.Minute)
		w.change(func() { w.conf.MXSets["us"] = mxset(policygen.Enforce, "mx1.provider.test", "mx2.provider.test") })
		for _, c := range []struct {
			name   string
			change func()
			want   []policygen.Name
		}{
			{"nothing", func() {}, nil},
			{"an MX set that nobody uses", func() { w.conf.MXSets["us"] = mxset(policygen.Enforce, "mx2.provider.test") }, nil},
			{"an added MX", func() { w.conf.MXSets["eu"] = mxset(policygen.Enforce, "mx1.provider.test", "mx3.provider.test") }, nil},
			{"an added domain", func() {
				w.conf.Domains = append(w.conf.Domains, config.Domain{Name: "z.test", MXSet: "eu", Publish: store.PublishZone, Account: "main"})
			}, nil},
			{"testing", func() { w.conf.MXSets["eu"] = mxset(policygen.Testing, "mx3.provider.test") }, nil},
			{"one moved", func() { w.conf.Domains[0].MXSet = "us" }, []policygen.Name{one}},
			{"enforce", func() { w.conf.MXSets["eu"] = mxset(policygen.Enforce, "mx3.provider.test") }, []policygen.Name{two, "z.test"}},
			{"a removed MX", func() { w.conf.MXSets["eu"] = mxset(policygen.Enforce, "mx4.provider.test") }, []policygen.Name{two, "z.test"}},
		} {
			w.change(c.change)
			w.looked()
			w.plan()
			if got := w.looked(); !slices.Equal(got, c.want) {
				t.Errorf("%s: looked up %q, want %q", c.name, got, c.want)
			}
			if _, err := w.reload(""); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			w.pass(20 * time.Minute)
		}
	})
}

// Whoever confirms confirms what he has seen.
func TestForceIsBoundToThePlan(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.reach(two, publish.StepLive, 10*time.Minute)
		change := func(f func()) {
			w.change(func() {
				f()
				w.conf.Digest += "+"
			})
		}
		change(func() {
			w.uncovered = []string{"mx1.provider.test"}
			w.conf.MXSets["eu"] = mxset(policygen.Enforce, "mx2.provider.test")
		})
		for name, f := range map[string]func(){
			"the file": func() { w.conf.Digest += "+" },
			"DNS":      func() { w.uncovered = nil },
			"a hold": func() {
				if err := w.store.SetValue(w.ctx, "publish/hold", []byte("the clock jumped")); err != nil {
					t.Error(err)
				}
			},
		} {
			p := w.plan()
			w.change(f)
			want := fmt.Sprintf("refused: %q is not the hash of what would be done now; nothing is changed; look at it: stspub plan", p.Hash)
			if _, err := w.reload(p.Hash); !errors.Is(err, publish.ErrRefused) || err.Error() != want {
				t.Errorf("reload --force after a change of %s = %v, want %s", name, err, want)
			}
			if s := w.status(one); strings.Contains(s.Policy, "mx2") || len(w.faults()) > 0 {
				t.Errorf("after a change of %s: policy %q, faults %q", name, s.Policy, w.faults())
			}
			w.change(func() { w.uncovered = []string{"mx1.provider.test"} })
		}
		r, err := w.reload(w.plan().Hash)
		if want := []string{"the clock jumped", "one.test", "two.test"}; err != nil || !slices.Equal(r.Forced, want) {
			t.Errorf("reload --force = %q, %v, want %q", r.Forced, err, want)
		}
		// The hash is used up: what it let through is in force.
		if _, err := w.reload(w.plan().Hash); err != nil {
			t.Errorf("reload with the hash of a plan that changes nothing = %v", err)
		}
	})
}
