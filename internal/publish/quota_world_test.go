package publish_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// TestWritesOfATenant has a tenant with seven domains that may cause two writes a day.
func TestWritesOfATenant(t *testing.T) {
	var names []policygen.Name
	for i := range 7 {
		names = append(names, policygen.Name(fmt.Sprintf("d%d.test", i)))
	}
	w := newWorld(t, names...)
	run(t, w, func(w *world) {
		limit := func(n int) {
			w.t.Helper()
			if _, err := w.store.SetLimits(w.ctx, publish.Tenant, store.Limits{Writes: n}, ""); err != nil {
				w.t.Fatal(err)
			}
		}
		at := func(step string) (there []policygen.Name) {
			for _, n := range names {
				if w.status(n).Step == step {
					there = append(there, n)
				}
			}
			return there
		}
		limit(2)
		begun := time.Now()
		w.pass(20 * time.Minute)
		live, waiting := at(publish.StepLive), at(publish.StepTXT)
		if len(live) != 2 || len(waiting) != 5 || w.writes() != 2 {
			w.t.Fatalf("live %v, waiting %v, %d writes; want 2, 5 and 2", live, waiting, w.writes())
		}
		w.pass(time.Hour) // when they met the limit together, none knew of the others
		for i, n := range waiting {
			s := w.status(n)
			_, said, found := strings.Cut(s.Reason, "tenant default has used up its 2 writes to DNS in a day; the record is expected to be written at ")
			expected, err := time.Parse("2006-01-02 15:04 MST", said)
			if want := begun.Add(time.Duration(i/2+1) * 24 * time.Hour); !found || err != nil || expected.Sub(want).Abs() > time.Hour || s.Fault || s.Intended != "" {
				w.t.Errorf("%s: %+v, want it expected about %s", n, s, want)
			}
		}

		// What somebody changed or took away is mended, and a duplicate goes.
		first := live[0].RecordName()
		for what, values := range map[string][]string{"drift": {"v=STSv1; id=x;"}, "absence": nil} {
			w.change(func() { w.txt[first] = values })
			if err := w.rec.Wake(w.ctx, live[0]); err != nil {
				w.t.Fatal(err)
			}
			w.pass(15 * time.Minute)
			if s := w.status(live[0]); s.Step != publish.StepLive || !slices.Equal(w.at(first), []string{policygen.RecordText(s.ID)}) {
				w.t.Errorf("%s beyond the limit: step %s (%s), record %q", what, s.Step, s.Reason, w.at(first))
			}
		}
		before := w.writes()

		// A restart changes nothing.
		w.stop()
		if err := w.start(); err != nil {
			w.t.Fatal(err)
		}
		w.pass(time.Hour)
		if got := at(publish.StepTXT); !slices.Equal(got, waiting) || w.writes() != before {
			w.t.Errorf("after a restart %v wait, and there are %d writes, want %v and %d", got, w.writes(), waiting, before)
		}
		for range 4 {
			before = w.writes()
			w.pass(24*time.Hour + 15*time.Minute)
			if got := w.writes() - before; got > 3 { // two of one quarter, and the next one's
				w.t.Errorf("%d writes in a day, want two", got)
			}
		}
		if got := at(publish.StepLive); len(got) != len(names) {
			w.t.Errorf("live in the end: %v", got)
		}

		// Mode testing goes out at once, and back to enforce so many a day.
		limit(1)
		for _, c := range []struct {
			mode policygen.Mode
			step string
		}{{policygen.Testing, publish.StepLive}, {policygen.Enforce, publish.StepTXT}} {
			w.change(func() { w.conf.MXSets["eu"] = mxset(c.mode, "mx1.provider.test") })
			if _, err := w.reload(""); err != nil {
				w.t.Fatal(err)
			}
			w.pass(30 * time.Minute)
			if got := at(c.step); len(got) != len(names) {
				w.t.Errorf("mode %s: at step %s are %v, want all", c.mode, c.step, got)
			}
		}
		limit(0)
		w.pass(7 * time.Hour)
		if got := at(publish.StepLive); len(got) != len(names) {
			w.t.Errorf("without a limit %v are live", got)
		}
	})
}
