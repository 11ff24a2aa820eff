package publish_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

// year is the longest max_age that RFC 8461, Section 3.2 allows.
const year = policygen.MaxAgeLimit * time.Second

// copied returns what a backup made now has.
func (w *world) copied() []byte {
	w.t.Helper()
	w.stop()
	data, err := os.ReadFile(w.path)
	if err == nil {
		err = w.start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// putBack has the server go on with a backup.
func (w *world) putBack(data []byte) {
	w.t.Helper()
	w.stop()
	err := os.WriteFile(w.path, data, 0o600)
	if err == nil {
		err = w.start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// wantHorizon removes a domain of the API, and has its drain last as long as some max_age, and no day longer.
func (w *world) wantHorizon(name policygen.Name, maxAge time.Duration) {
	w.t.Helper()
	w.equal("removed", w.apply(publish.Change{Name: string(name), Remove: true}), "removed")
	begun := time.Now()
	s := w.reach(name, publish.StepDrain, 2*time.Hour)
	for range 20 {
		if s = w.status(name); !s.Horizon.IsZero() {
			break
		}
		w.pass(10 * time.Minute)
	}
	if got := s.Horizon.Sub(begun); got < maxAge || got > maxAge+24*time.Hour {
		w.t.Errorf("%s: removed, and drained after %s, want after %s", name, got, maxAge)
	}
}

// confirm is what an operator does with what is held.
func (w *world) confirm() {
	w.t.Helper()
	if _, err := w.reload(w.plan().Hash); err != nil {
		w.t.Fatal(err)
	}
	if got := w.faults(); len(got) != 0 {
		w.t.Errorf("confirmed: faults = %q, want none", got)
	}
}

// Last night's copy is put back, and one domain in a hundred was told something new since: drains are held, and whoever got
// a policy that is lost drains as long as there may be senders that hold it.
func TestRestoredRecentStore(t *testing.T) {
	run(t, newWorld(t), func(w *world) {
		w.putMXSet(publish.Tenant, own("week", "mx1.provider.test"))
		long := own("year", "mx2.provider.test")
		long.MaxAge = policygen.MaxAgeLimit
		w.putMXSet(publish.Tenant, long)
		var all []publish.Change
		for i := range 200 {
			all = append(all, zoned(fmt.Sprintf("d%d.example", i), "week"))
		}
		w.apply(all...)
		w.pass(2 * time.Hour)
		old := w.copied()
		w.apply(zoned("d0.example", "year"), zoned("d1.example", "year"))
		w.pass(2 * time.Hour)
		lost := w.reach("d0.example", publish.StepLive, time.Hour)
		w.putBack(old)
		w.pass(12 * time.Hour)
		if got := w.faults(); len(got) != 1 || !strings.HasPrefix(got[0], "hold: DNS holds ids that the store does not know (d") {
			t.Errorf("faults = %q, want that the store is an old copy", got)
		}
		if s := w.reach("d0.example", publish.StepLive, time.Hour); s.ID == lost.ID || strings.Contains(s.Policy, "mx2") {
			t.Errorf("id %s, policy %q, want that of the copy under a fresh id", s.ID, s.Policy)
		}
		w.confirm()
		w.wantHorizon("d0.example", year)
		w.wantHorizon("d2.example", 7*24*time.Hour)
		w.restart() // it is known for good
		w.pass(time.Hour)
		if s := w.status("d0.example"); time.Until(s.Horizon) < year-48*time.Hour {
			t.Errorf("after a restart: %s to the horizon, want a year", time.Until(s.Horizon))
		}
	})
}

// What the shared record stood for in the time that is lost, all domains of that time may have been served.
func TestRestoredSharedRecord(t *testing.T) {
	run(t, newWorld(t), func(w *world) {
		set := own("own", "mx1.provider.test")
		w.putMXSet(publish.Tenant, set)
		var names []policygen.Name
		for i := range 3 {
			name := policygen.Name(fmt.Sprintf("d%d.example", i))
			names = append(names, name)
			w.apply(sharing(string(name), "own"))
		}
		w.settled(names...)
		old := w.copied()
		set.MaxAge = policygen.MaxAgeLimit
		w.putMXSet(publish.Tenant, set)
		w.pass(2 * time.Hour)
		w.putBack(old)
		w.pass(12 * time.Hour)
		if got := w.faults(); len(got) != 1 || !strings.HasPrefix(got[0], "hold: DNS holds ids that the store does not know (*.own.s.") {
			t.Errorf("faults = %q, want that the store is an old copy", got)
		}
		w.confirm()
		w.apply(sharing("later.example", "own"))
		w.settled("later.example")
		w.wantHorizon("d0.example", year)
		w.wantHorizon("later.example", 7*24*time.Hour)
	})
}

// Ids that were not made here tell nothing of what was served from here.
func TestForeignIDKeepsNoDrain(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		for _, id := range []string{"20200101000000Z", "20200101000000abcdefg", "20200101000000ABCDEF01", "20209901000000abcdef01"} {
			w.change(func() { w.txt[one.RecordName()] = []string{policygen.RecordText(id)} })
			w.pass(12 * time.Hour)
		}
		w.reconfigure(func(c *config.Config) { c.Domains = c.Domains[1:] })
		w.reach(one, publish.StepDrain, time.Hour)
		w.pass(time.Hour)
		if left := time.Until(w.status(one).Horizon); left > 8*24*time.Hour || len(w.faults()) > 0 {
			t.Errorf("%s to the horizon, faults %q; want a week, and none", left, w.faults())
		}
	})
}
