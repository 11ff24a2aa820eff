package publish_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// A clock that is a day ahead after a restart must not end anybody's drain.
func TestClockAheadHoldsDeletions(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() { w.conf.Domains = w.conf.Domains[1:] })
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		s := w.reach(one, publish.StepDrain, 15*time.Minute)
		w.stop()
		time.Sleep(time.Until(s.Horizon) + time.Hour) // to the server, its clock jumped by a week
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.pass(3 * 24 * time.Hour)
		held := w.status(one)
		if len(w.record(one)) != 1 || !held.Fault || !strings.Contains(held.Reason, "if the clock is right, confirm it: stspub plan prints the command") {
			t.Errorf("record %q, fault %v, reason %q; want the record, and a fault that says how to go on", w.record(one), held.Fault, held.Reason)
		}
		if got := w.faults(); len(got) != 1 || !strings.HasPrefix(got[0], "hold: the clock says ") {
			t.Errorf("faults = %q, want the hold", got)
		}
		w.stop()
		if err := w.start(); err != nil { // a restart does not confirm it
			t.Fatal(err)
		}
		w.pass(24 * time.Hour)
		if len(w.record(one)) != 1 || len(w.faults()) != 1 {
			t.Errorf("after another restart: record %q, faults %q; want both", w.record(one), w.faults())
		}
		r, err := w.reload(w.plan().Hash)
		if err != nil || len(r.Forced) != 1 {
			t.Fatalf("reload --force = %+v, %v, want the hold in it", r, err)
		}
		w.pass(24 * time.Hour)
		if got := w.record(one); len(got) != 0 || len(w.faults()) != 0 {
			t.Errorf("confirmed: record %q, faults %q; want none", got, w.faults())
		}
	})
}

// A server that starts after the horizon compares the record with its store at once; it must not wait for that comparison
// before it looks.
func TestStartAfterHorizon(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() { w.conf.Domains = w.conf.Domains[1:]; w.conf.Check.Every = 10 * time.Hour })
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		horizon := w.reach(one, publish.StepDrain, 15*time.Minute).Horizon
		w.pass(time.Until(horizon) - time.Second)
		w.stop()
		time.Sleep(time.Minute)
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		if got := w.record(one); len(got) != 0 {
			t.Errorf("a minute after a start behind the horizon: record %q, want none; %s", got, w.status(one).Reason)
		}
	})
}

// An old copy of the store does not know the ids in DNS. It must not delete, and senders get fresh ids.
func TestRestoredStore(t *testing.T) {
	names := []policygen.Name{"a.test", "b.test", "c.test", "d.test"}
	inBubble(t, names, func(w *world) {
		for _, name := range names {
			w.reach(name, publish.StepLive, 20*time.Minute)
		}
		w.change(func() { w.conf.Domains = w.conf.Domains[1:] })
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.reach("a.test", publish.StepDrain, 20*time.Minute)
		w.stop()
		old, err := os.ReadFile(w.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.change(func() { w.conf.MXSets["eu"] = mxset(policygen.Enforce, "mx2.provider.test") })
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.pass(30 * time.Minute)
		before := w.status("b.test")
		w.stop()
		if err := os.WriteFile(w.path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.pass(12 * time.Hour)
		if got := w.faults(); len(got) != 1 || !strings.HasPrefix(got[0], "hold: DNS holds ids that the store does not know (") {
			t.Errorf("faults = %q, want that the store is an old copy", got)
		}
		after := w.status("b.test")
		if after.Step != publish.StepLive || after.ID == before.ID || !slices.Equal(w.record("b.test"), []string{policygen.RecordText(after.ID)}) {
			t.Errorf("step %s, id %s (in the lost store: %s), record %q; want live under a fresh id", after.Step, after.ID, before.ID,
				w.record("b.test"))
		}
		w.pass(8 * 24 * time.Hour)
		if got := w.record("a.test"); len(got) != 1 {
			t.Errorf("record of the draining domain = %q, want it held", got)
		}
	})
}

// An old copy of the store holds a drain that is over, of a domain that came back since. That the rest is confirmed does not
// end it: senders may hold what was served meanwhile.
func TestRestoredStoreWithAnOldDrain(t *testing.T) {
	names := []policygen.Name{"a.test", "b.test", "c.test", "d.test"}
	inBubble(t, names, func(w *world) {
		for _, name := range names {
			w.reach(name, publish.StepLive, 20*time.Minute)
		}
		all := w.conf.Domains
		w.reconfigure(func(c *config.Config) { c.Domains = all[1:] })
		w.reach("a.test", publish.StepDrain, 20*time.Minute)
		w.stop()
		old, err := os.ReadFile(w.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.reconfigure(func(c *config.Config) { c.Domains = all })
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		w.pass(8 * 24 * time.Hour)
		before := w.reach("a.test", publish.StepLive, time.Hour)
		w.stop()
		if err := os.WriteFile(w.path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		w.change(func() { w.conf.Domains = all[1:] })
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if _, err := w.reload(w.plan().Hash); err != nil {
			t.Fatal(err)
		}
		w.pass(24 * time.Hour)
		s := w.status("a.test")
		if got := w.record("a.test"); s.ID == before.ID || !slices.Equal(got, []string{policygen.RecordText(s.ID)}) || !strings.Contains(s.Policy, "mode: none") {
			t.Errorf("record %q, with %q, want a fresh id for mode none", got, s.Policy)
		}
		if left := time.Until(s.Horizon); left < policygen.MaxAgeLimit*time.Second-48*time.Hour {
			t.Errorf("%v to the horizon, want the longest max_age there is: what was served is not known", left)
		}
	})
}

func TestClockJumpWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, one)
		w.t = t
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		defer func() { w.stop() }()
		for jump, held := range map[time.Duration]bool{
			30 * time.Minute: false, -30 * time.Minute: false, 61 * time.Minute: true, -61 * time.Minute: true,
		} {
			if err := publish.ClockMoved(w.rec, w.ctx, jump); err != nil {
				t.Fatal(err)
			}
			if got := len(w.faults()) > 0; got != held {
				t.Errorf("jump by %s: held %v, want %v", jump, got, held)
			}
			if _, err := w.reload(w.plan().Hash); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Customers who write their records themselves write there what they like, and tell nothing of the store.
func TestRecordsOfOthersHoldNothing(t *testing.T) {
	leaves, stays := policygen.Name("z-leaves.test"), policygen.Name("y-stays.test")
	customers := []policygen.Name{"0a.test", "0b.test", "0c.test"}
	w := newWorld(t, leaves, stays)
	for _, name := range customers {
		w.conf.Domains = append(w.conf.Domains, config.Domain{Name: name, MXSet: "eu", Publish: store.PublishManual})
	}
	write := func(id func(policygen.Name) string) {
		for _, name := range customers {
			text := []string{policygen.RecordText(id(name))}
			w.change(func() { w.txt[name.RecordName()] = text })
		}
	}
	run(t, w, func(w *world) {
		for w.status(customers[0]).Intended == "" || w.status(customers[2]).Intended == "" {
			w.pass(time.Minute)
		}
		write(func(name policygen.Name) string { return w.status(name).Intended })
		for _, name := range append(customers, leaves) {
			w.reach(name, publish.StepLive, time.Hour)
		}
		write(func(policygen.Name) string { return "20200101000000Z" })
		w.restart()
		w.pass(time.Hour)
		if got := w.faults(); len(got) != 0 {
			t.Errorf("faults = %q, want none of the service", got)
		}
		w.reconfigure(func(c *config.Config) { c.Domains = c.Domains[1:] })
		w.reach(leaves, publish.StepDrain, time.Hour)
	})
}

// A tenant alone, which may write what it likes into its zones, does not make the store an old copy; two or most of all do.
func TestWhoseUnknownIDsCount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what    string
		sampled map[string]int // how many of each tenant are compared
		unknown []string       // tenants of the records with unknown ids
		newer   int            // how many of these have ids from after the copy
		publish string         // how they are reached
		want    bool
	}{
		{"one is a mistake", map[string]int{"a": 10}, []string{"a"}, 0, store.PublishZone, false},
		{"the only tenant", map[string]int{"a": 10}, []string{"a", "a"}, 0, store.PublishZone, true},
		{"one of two", map[string]int{"a": 50, "b": 50}, slices.Repeat([]string{"a"}, 50), 0, store.PublishZone, false},
		{"both of two", map[string]int{"a": 10, "b": 10}, []string{"a", "b"}, 0, store.PublishZone, true},
		{"too few", map[string]int{"a": 50, "b": 50}, []string{"a", "b"}, 0, store.PublishZone, false},
		{"most of all", map[string]int{"a": 10, "b": 2}, slices.Repeat([]string{"a"}, 10), 0, store.PublishZone, true},
		{"one from after the copy", map[string]int{"a": 100}, []string{"a"}, 1, store.PublishZone, true},
		{"of one of two tenants, in his zone", map[string]int{"a": 50, "b": 50}, []string{"a"}, 1, store.PublishZone, false},
		{"of both", map[string]int{"a": 50, "b": 50}, []string{"a", "b"}, 2, store.PublishZone, true},
		{"of one, in the alias zone", map[string]int{"a": 50, "b": 50}, []string{"a"}, 1, store.PublishAlias, true},
	} {
		if got := publish.Restored(c.sampled, c.unknown, c.newer, c.publish); got != c.want {
			t.Errorf("%s: %t, want %t", c.what, got, c.want)
		}
	}
}

// The names that sort first do not stand for all, and no tenant for the others.
func TestSampleIsOfAll(t *testing.T) {
	t.Parallel()
	var domains []store.Domain
	live := store.State{ID: "1"}
	for i := range 5000 {
		domains = append(domains, store.Domain{Name: policygen.Name(fmt.Sprintf("a%04d.test", i)), Tenant: "many", Publish: store.PublishZone, State: live})
	}
	for i := range 20 {
		domains = append(domains,
			store.Domain{Name: policygen.Name(fmt.Sprintf("b%02d.test", i)), Tenant: "few", Publish: store.PublishAlias, State: live},
			store.Domain{Name: policygen.Name(fmt.Sprintf("c%02d.test", i)), Tenant: "own", Publish: store.PublishManual, State: live},
			store.Domain{Name: policygen.Name(fmt.Sprintf("d%02d.test", i)), Tenant: "new", Publish: store.PublishZone})
	}
	first := publish.Sample(domains)
	count := make(map[byte]int)
	for _, name := range first {
		count[name[0]]++
	}
	if count['a'] != 50 || count['b'] != 20 || len(first) != 70 {
		t.Errorf("the sample has %v by their first letters, want 50 of a and 20 of b", count)
	}
	if second := publish.Sample(domains); slices.Equal(slices.Sorted(slices.Values(first)), slices.Sorted(slices.Values(second))) {
		t.Error("another sample has the same names")
	}
}
