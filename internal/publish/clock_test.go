package publish_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// setBack sets the clock back, which a bubble of testing/synctest cannot do: instead, everything that the store remembers
// happened that much later, the ids in DNS included.
func (w *world) setBack(st store.Store, by time.Duration) {
	w.t.Helper()
	ctx := context.Background()
	var all []store.Domain
	if err := st.EachDomain(ctx, func(d store.Domain) error {
		all = append(all, d)
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	for _, d := range all {
		s := &d.State
		times := []*time.Time{
			&s.Wrote, &s.Settle, &s.Horizon, &s.Deleted, &s.Away, &s.Detached, &s.Staged, &s.Promoted, &s.Since, &s.Checked,
			&s.Report.Wrote, &s.Report.Verified, &d.Due,
		}
		for i := range s.Findings {
			times = append(times, &s.Findings[i].Since)
		}
		for _, at := range times {
			if !at.IsZero() {
				*at = at.Add(by)
			}
		}
		if s.ID != "" {
			w.laterID(st, &d, by)
		}
		if err := st.Save(ctx, &d, time.Now()); err != nil {
			w.t.Fatal(err)
		}
	}
	kept, err := st.Value(ctx, "publish/clock")
	if err != nil {
		w.t.Fatal(err)
	}
	last, err := time.Parse(time.RFC3339, string(kept))
	if err == nil {
		err = st.SetValue(ctx, "publish/clock", []byte(last.Add(by).Format(time.RFC3339)))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// laterID has a domain's id be one that was made later.
func (w *world) laterID(st store.Store, d *store.Domain, by time.Duration) {
	w.t.Helper()
	old, intended := d.State.ID, d.State.Intended
	id := policygen.IDTime(old).Add(by).Format("20060102150405") + old[len("20060102150405"):]
	d.State.Intended = id // for the books
	if err := st.Save(context.Background(), d, time.Now()); err != nil {
		w.t.Fatal(err)
	}
	d.State.ID, d.State.Intended = id, intended
	w.change(func() {
		for i, v := range w.txt[d.State.Record] {
			if v == policygen.RecordText(old) {
				w.txt[d.State.Record][i] = policygen.RecordText(id)
			}
		}
	})
}

// restartSetBack stops the server, sets the clock back, and starts it.
func (w *world) restartSetBack(by time.Duration) {
	w.t.Helper()
	w.stop()
	st, err := store.OpenSQLite(context.Background(), w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.setBack(st, by)
	if err := st.Close(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.start(); err != nil {
		w.t.Fatal(err)
	}
}

// noIDTwice looks at all writes so far.
func (w *world) noIDTwice() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	written := make(map[string]bool)
	for _, c := range w.applied {
		if c.Add != "" && c.Add != publish.Tombstone && written[c.Add] {
			w.t.Errorf("%q is written twice", c.Add)
		}
		written[c.Add] = true
	}
}

// TestClockSetBack sets the clock back by an hour in the middle of a change, while a domain drains, of a server that runs
// and over a restart.
func TestClockSetBack(t *testing.T) {
	for name, restart := range map[string]bool{"running": false, "restart": true} {
		t.Run(name, func(t *testing.T) {
			w, names := sharedWorld(t, 3)
			for _, name := range []policygen.Name{one, two} {
				w.conf.Domains = append(w.conf.Domains, configuration(name).Domains...)
			}
			run(t, w, func(w *world) { w.setBackWhileTurning(names, restart) })
		})
	}
}

func (w *world) setBackWhileTurning(names []policygen.Name, restart bool) {
	w.settled(names...)
	for _, name := range []policygen.Name{one, two} {
		w.reach(name, publish.StepLive, 10*time.Minute)
	}
	w.conf.Domains[len(w.conf.Domains)-1] = configuration("new.test").Domains[0]
	w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
	w.pass(4*time.Minute + 50*time.Second) // settling, all of them
	writes := w.writes()
	horizon := time.Now().Add(7 * 24 * time.Hour) // of two.test, at the least
	if restart {
		w.restartSetBack(time.Hour)
	} else {
		w.setBack(w.store, time.Hour)
		if err := publish.ClockMoved(w.rec, w.ctx, -time.Hour); err != nil {
			w.t.Fatal(err)
		}
	}
	w.pass(time.Minute)
	settled := w.writes() - writes
	switch { // the settle time is 5 minutes
	case restart && settled > 0:
		w.t.Errorf("%d writes a minute after the restart, want the settle time begun anew", settled)
	case !restart && settled != 4:
		w.t.Errorf("%d writes when the settle time was over, want one for each record: it is no matter of the clock", settled)
	}
	w.pass(5 * time.Minute)
	if n := w.writes() - writes; n != 4 {
		w.t.Errorf("%d writes six minutes after the clock was set back, want 4: %q", n, w.changed(writes))
	}
	for _, name := range append(slices.Clone(names), one, "new.test") {
		if s := w.status(name); s.Step != publish.StepLive || s.Policy != w.conf.MXSets["eu"].Policy.Text() {
			w.t.Errorf("%s is at step %s (%s) with %q six minutes after the clock was set back", name, s.Step, s.Reason, s.Policy)
		}
	}
	w.noIDTwice()

	w.pass(time.Until(horizon))
	if got := w.record(two); len(got) != 1 {
		w.t.Errorf("record %q at the horizon, want it to stay until senders forgot the last policy", got)
	}
	w.pass(90 * time.Minute)
	if got := w.record(two); len(got) != 0 {
		w.t.Errorf("record %q an hour and a half after the horizon (%s), want none", got, w.status(two).Reason)
	}
	if faults := w.faults(); len(faults) > 0 {
		w.t.Errorf("faults %q", faults)
	}
}

// TestClockSetBackKeepsApart sets the clock back before a domain gets a record of its own: an id of the shared record from
// before is not taken for a newer one.
func TestClockSetBackKeepsApart(t *testing.T) {
	w, names := sharedWorld(t, 3)
	run(t, w, func(w *world) {
		w.settled(names...)
		w.restartSetBack(time.Hour)
		w.pass(time.Minute)
		away := names[1]
		w.change(func() { w.host[away] = publish.Host{Proven: true, TTL: time.Minute, Reason: "elsewhere"} })
		if err := w.rec.Wake(w.ctx, away); err != nil {
			t.Fatal(err)
		}
		w.reach(away, publish.StepDNS, time.Minute)
		w.change(func() { delete(w.host, away) })
		own := w.reach(away, publish.StepLive, time.Hour)
		w.pass(12 * time.Hour)
		if s := w.status(away); s.ID != own.ID || s.Detached.IsZero() || !slices.Equal(w.at(below(away)), []string{policygen.RecordText(s.ID)}) {
			t.Errorf("id %s, record %q, detached %v; want id %s of its own: the shared one is older", s.ID, w.at(below(away)), s.Detached, own.ID)
		}
		w.pass(36 * time.Hour)
		if s := w.status(away); s.Step != publish.StepLive || !s.Detached.IsZero() || len(w.at(below(away))) > 0 {
			t.Errorf("at step %s, record %q; want it attached to a newer id", s.Step, w.at(below(away)))
		}
		w.noIDTwice()
	})
}
