package publish_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// A single look that proves nothing begins the week anew: a drain must not be released by time-outs.
func TestTimeoutsReleaseNoDrain(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() {
			w.host[one] = publish.Host{Proven: true, TTL: time.Hour, Reason: "elsewhere"}
			w.conf.Domains = w.conf.Domains[1:]
		})
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.pass(6 * 24 * time.Hour)
		for _, h := range []publish.Host{{Reason: "SERVFAIL"}, {Proven: true, Reason: "NXDOMAIN"}} {
			w.change(func() { w.host[one] = h })
			w.pass(3 * 24 * time.Hour)
			if len(w.record(one)) != 1 {
				t.Fatalf("host %+v: the record is gone, want it to stay", h)
			}
		}
		w.pass(5 * 24 * time.Hour)
		if got := w.record(one); len(got) != 0 {
			t.Errorf("record = %q after a week of proof, want none", got)
		}
	})
}

// An old id that comes back in the middle of a drain keeps senders on the old policy: the horizon begins anew.
func TestDriftBeginsTheHorizonAnew(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		old := w.reach(one, publish.StepLive, 10*time.Minute).ID
		w.change(func() { w.conf.Domains = w.conf.Domains[1:] })
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		first := w.reach(one, publish.StepDrain, 15*time.Minute).Horizon
		w.pass(6 * 24 * time.Hour)
		w.change(func() { w.txt[one.RecordName()] = []string{policygen.RecordText(old)} })
		w.pass(12 * time.Hour)
		s := w.status(one)
		if s.Step != publish.StepDrain || s.Horizon.Sub(first) < 6*24*time.Hour {
			t.Errorf("step %s, horizon %s later than before, want drain, and a whole max_age from now", s.Step, s.Horizon.Sub(first))
		}
		w.pass(3 * 24 * time.Hour)
		if got := w.record(one); !slices.Equal(got, []string{policygen.RecordText(s.ID)}) {
			t.Errorf("record = %q after the first horizon, want id %s", got, s.ID)
		}
	})
}

// A record that somebody deleted while it drains is not made anew; the horizon counts all the same.
func TestDrainWithoutRecord(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() {
			w.txt[one.RecordName()] = nil
			w.conf.Domains = w.conf.Domains[1:]
		})
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		s := w.reach(one, publish.StepDrain, 15*time.Minute)
		if left := time.Until(s.Horizon); left < 7*24*time.Hour-15*time.Minute || w.writes() != 2 {
			t.Errorf("%s to the horizon, %d writes; want a max_age, and those of the first ids alone", left, w.writes())
		}
		w.pass(8 * 24 * time.Hour)
		if _, err := w.rec.Status(w.ctx, one); !errors.Is(err, store.ErrNotFound) || w.writes() != 2 {
			t.Errorf("Status = %v, %d writes; want ErrNotFound, 2", err, w.writes())
		}
	})
}

// A domain whose record could never be written is free: to be published in another way, or to go.
func TestRefusedFromTheStart(t *testing.T) {
	w := newWorld(t, one, two)
	w.applyErr = &dnsupdate.Error{Account: "main", Op: "read", Kind: dnsupdate.KindNoZone, Err: errors.New("no such zone")}
	run(t, w, func(w *world) {
		for _, name := range []policygen.Name{one, two} {
			if s := w.reach(name, publish.StepTXT, 15*time.Minute); !s.Fault {
				t.Errorf("%s: no fault at step %s (%s)", name, s.Step, s.Reason)
			}
		}
		w.change(func() {
			w.conf.Domains = []config.Domain{{Name: two, MXSet: "eu", Publish: store.PublishAlias, Account: "main"}}
			w.applyErr = nil
		})
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		s := w.reach(two, publish.StepDelegation, time.Hour)
		record := two.Label() + ".d.default.a.provider.test"
		if got := w.at(record); s.Record != record || !slices.Equal(got, []string{policygen.RecordText(s.ID)}) {
			t.Errorf("record %s = %q, want id %s at %s", s.Record, got, s.ID, record)
		}
		if _, err := w.rec.Status(w.ctx, one); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the removed domain: Status = %v, want ErrNotFound", err)
		}
	})
}

// What caches hold of another place counts for a domain for which nothing existed at first as well.
func TestFreshDomainThatWasElsewhereSettles(t *testing.T) {
	w := newWorld(t, one)
	w.prior = false
	w.host[one] = publish.Host{Proven: true, TTL: time.Hour, Reason: "elsewhere"}
	run(t, w, func(w *world) {
		w.reach(one, publish.StepDNS, time.Minute)
		w.change(func() { delete(w.host, one) })
		w.reach(one, publish.StepSettle, 20*time.Minute)
		w.pass(50 * time.Minute)
		if n := w.writes(); n != 0 {
			t.Errorf("%d writes while caches lead elsewhere, want none", n)
		}
		w.reach(one, publish.StepLive, 20*time.Minute)
	})
}

// TestExpelledComesBack removes a domain the hard way; when it has come back, it leaves as any other.
func TestExpelledComesBack(t *testing.T) {
	inBubble(t, []policygen.Name{"a.example", "b.example"}, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.reach("b.example", publish.StepLive, time.Hour)
		remove := func() {
			w.conf = configuration("b.example")
			if _, err := w.reload(""); err != nil {
				t.Fatal(err)
			}
		}
		remove()
		w.pass(time.Hour)
		if err := w.rec.Expel(w.ctx, "a.example"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.conf = configuration("a.example", "b.example")
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.reach("a.example", publish.StepLive, time.Hour)
		w.pass(10 * 24 * time.Hour)
		remove()
		w.pass(time.Hour)
		if s := w.status("a.example"); s.Step != publish.StepDrain || len(w.record("a.example")) != 1 || !strings.Contains(s.Policy, "mode: none") {
			t.Errorf("at %s with %q and record %q, want a drain", s.Step, s.Policy, w.record("a.example"))
		}
	})
}

// TestBackFromDrainIsStaged brings a domain back to an MX set with a roll-out, with an MX that is not fit.
func TestBackFromDrainIsStaged(t *testing.T) {
	w := newWorld(t, "a.example", "b.example")
	rolledOut(w, 3*day)
	both := w.conf
	run(t, w, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.pass(5 * day)
		if s := w.status("a.example"); !strings.Contains(s.Policy, "mode: enforce") {
			t.Fatalf("after its roll-out it has %q", s.Policy)
		}
		w.reconfigure(func(c *config.Config) { c.Domains = c.Domains[1:] })
		w.pass(day)
		w.change(func() { w.unready["a.example"] = "certificate expired" })
		w.reconfigure(func(c *config.Config) { *c = *both })
		w.pass(6 * day)
		if s := w.status("a.example"); !strings.Contains(s.Policy, "mode: testing") || !strings.Contains(s.Reason, "certificate expired") {
			t.Errorf("at %s (%s) with %q, want it in its roll-out", s.Step, s.Reason, s.Policy)
		}
	})
}

// TestManualTTL has a customer write his record with a TTL of a day, which counts when he deletes it.
func TestManualTTL(t *testing.T) {
	w := newWorld(t, "m.example")
	w.conf.Domains[0].Publish, w.conf.Domains[0].Account = store.PublishManual, ""
	w.ttl = day
	run(t, w, func(w *world) {
		write := func(s publish.Status) {
			w.change(func() { w.txt["_mta-sts.m.example"] = []string{policygen.RecordText(s.Intended)} })
			w.pass(time.Hour)
		}
		write(w.reach("m.example", publish.StepTXT, time.Hour))
		w.reach("m.example", publish.StepLive, time.Hour)
		w.pass(3 * day)
		w.change(func() { w.txt["_mta-sts.m.example"] = nil })
		w.pass(7 * time.Hour)
		if s := w.status("m.example"); s.Step != publish.StepTXT || !s.Fault {
			t.Errorf("the record is gone: at %s (%s), fault %t, want a fault at once", s.Step, s.Reason, s.Fault)
		}
		id := w.status("m.example").ID
		w.change(func() { w.txt["_mta-sts.m.example"] = []string{policygen.RecordText(id)} })
		w.reach("m.example", publish.StepLive, time.Hour)
		w.reconfigure(func(c *config.Config) {
			c.Domains = []config.Domain{{Name: "other.example", MXSet: "eu", Publish: store.PublishManual}}
		})
		w.pass(time.Hour)
		begun := time.Now()
		write(w.status("m.example"))
		if got := w.status("m.example").Horizon.Sub(begun); got < 8*day {
			t.Errorf("horizon after %s, want max_age and TTL, 8 days", got)
		}
		w.pass(8*day + time.Hour)
		w.change(func() { delete(w.txt, "_mta-sts.m.example") })
		w.pass(23 * time.Hour)
		if _, err := w.rec.Status(w.ctx, "m.example"); err != nil {
			t.Errorf("while caches hold the record: %v", err)
		}
		w.pass(8 * time.Hour)
		if _, err := w.rec.Status(w.ctx, "m.example"); err == nil {
			t.Error("the domain is not forgotten")
		}
	})
}

// TestForgottenOnlyWhenProven removes a domain of a shared record before its customer was told to set his CNAME. He may have
// set it all the same, and senders may hold the policy then.
func TestForgottenOnlyWhenProven(t *testing.T) {
	next := func(d publish.Delegation) publish.Decision {
		l := right()
		l.w.Shared = &publish.Shared{Text: l.s.Served, Next: l.s.Served, ID: "shared", Clean: true, Home: true}
		l.w.Drain, l.w.Announced = true, false
		l.s.ID, l.s.Zone, l.seen.Delegation = "", "", &d
		return publish.Next(l.w, l.s, l.seen, now())
	}
	if d := next(publish.Delegation{Failed: true, Reason: "SERVFAIL"}); !d.Wait || d.State.Step != publish.StepDrain || d.State.Reason != "SERVFAIL" {
		t.Errorf("his DNS does not answer: %+v, want a wait", d)
	}
	if d := next(publish.Delegation{Ours: true}); d.State.Detached.IsZero() || d.State.Zone != "one.test" {
		t.Errorf("he set it: %+v, want a record of its own for the drain", d)
	}
	if d := next(publish.Delegation{}); d.Do != publish.DoForget {
		t.Errorf("he did not: %+v, want it forgotten", d)
	}
}
