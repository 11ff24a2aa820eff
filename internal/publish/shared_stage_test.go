package publish_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

const day = 24 * time.Hour

// rolledOut has the MX set promote after so long, and looks once a day.
func rolledOut(w *world, d time.Duration) {
	set := w.conf.MXSets["eu"]
	set.Rollout = d
	w.conf.MXSets["eu"] = set
	w.conf.Check.Every = day
}

// modes counts the domains that serve a mode, and those that have a record of their own.
func (w *world) modes(names []policygen.Name) (enforce, testing, own int) {
	w.t.Helper()
	for _, name := range names {
		s := w.status(name)
		if strings.Contains(s.Policy, "mode: enforce") {
			enforce++
		} else {
			testing++
		}
		if !s.Detached.IsZero() {
			own++
		}
	}
	return enforce, testing, own
}

func (w *world) wantModes(names []policygen.Name, enforce, testing, own int) {
	w.t.Helper()
	if e, t, o := w.modes(names); e != enforce || t != testing || o != own {
		w.t.Errorf("%d in enforce, %d in testing, %d with records of their own; want %d, %d, %d; shared record: %+v",
			e, t, o, enforce, testing, own, w.status(wildcard).Reason)
	}
}

// TestSharedPromotionHeld has an MX of all domains that is not fit: they stay together, in testing, and say why.
func TestSharedPromotionHeld(t *testing.T) {
	w, names := sharedWorld(t, 30)
	rolledOut(w, 3*day)
	for _, name := range names {
		w.unready[name] = "MX mx1.provider.test (mx-certificate): expired"
	}
	run(t, w, func(w *world) {
		w.settled(names...)
		n := w.writes()
		w.pass(2 * day)
		if s := w.status(names[7]); !s.Fault || len(s.Findings) != 1 || s.Findings[0].Code != "promotion" {
			t.Errorf("in its roll-out: findings %+v, want what will hold the promotion", s.Findings)
		}
		w.pass(4 * day)
		w.wantModes(names, 0, 30, 0)
		s := w.status(wildcard)
		if !s.Fault || !strings.HasPrefix(s.Reason, "held: 30 of 30 domains cannot get the new policy, so nobody does: d00.example: the promotion") {
			t.Errorf("shared record at %s: %s", s.Step, s.Reason)
		}
		if got := w.changed(n); len(got) > 0 {
			t.Errorf("written %q, want nothing", got)
		}
		// A few whose last look was bad go later, with records of their own.
		w.change(func() { clear(w.unready) })
		w.pass(6 * day)
		w.wantModes(names, 30, 0, 0)
		if got := w.writes() - n; got > 3+3*10 {
			t.Errorf("%d writes for one promotion", got)
		}
	})
}

// TestSharedPromotionWaits has most domains come when the others are almost through.
func TestSharedPromotionWaits(t *testing.T) {
	w, names := sharedWorld(t, 40)
	rolledOut(w, 14*day)
	all := w.conf
	w.conf = shared(w.conf, names[:5]...)
	run(t, w, func(w *world) {
		w.settled(names[:5]...)
		w.pass(10 * day)
		w.reconfigure(func(c *config.Config) { *c = *all })
		w.settled(names[5:]...)
		n := w.writes()
		w.pass(8 * day)
		w.wantModes(names, 0, 40, 0)
		s := w.status(wildcard)
		if s.Fault || len(s.Findings) != 1 || !strings.HasPrefix(s.Findings[0].Text, "the promotion to mode enforce waits: the roll-out of 35 of 40 domains is not over") {
			t.Errorf("shared record: %+v", s)
		}
		w.pass(9 * day)
		w.wantModes(names, 40, 0, 0)
		if got := w.changed(n); !slices.Equal(got, []string{wildcard}) {
			t.Errorf("written %q, want the shared record once", got)
		}
	})
}

// TestSharedByHand promotes an MX set and takes it back, by the name of its shared record.
func TestSharedByHand(t *testing.T) {
	w, names := sharedWorld(t, 20)
	rolledOut(w, 14*day)
	run(t, w, func(w *world) {
		w.settled(names...)
		w.pass(2 * time.Hour)
		n := w.writes()
		if err := w.rec.Promote(w.ctx, wildcard, false); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * day)
		w.wantModes(names, 20, 0, 0)
		if err := w.rec.Promote(w.ctx, wildcard, true); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		w.wantModes(names, 0, 20, 0)
		w.pass(3 * day)
		w.wantModes(names, 0, 20, 0)
		if got := w.changed(n); !slices.Equal(got, []string{wildcard, wildcard}) {
			t.Errorf("written %q, want the shared record twice", got)
		}
		// A domain of its own goes along: it is an emergency.
		if err := w.rec.Promote(w.ctx, names[3], false); err != nil {
			t.Fatal(err)
		}
		w.pass(day)
		w.wantModes(names, 0, 20, 0)
	})
}

// TestSharedForced has the others get a held policy; whom it would strand, and whom an operator keeps back, keeps his.
func TestSharedForced(t *testing.T) {
	w, names := sharedWorld(t, 30)
	rolledOut(w, 3*day)
	for _, name := range names[:15] {
		w.unready[name] = "MX mx1.provider.test (mx-certificate): expired"
	}
	run(t, w, func(w *world) {
		w.settled(names...)
		if err := w.rec.Promote(w.ctx, names[20], true); err != nil {
			t.Fatal(err)
		}
		w.reach(wildcard, publish.StepMX, 5*day)
		if _, err := w.reload(w.plan().Hash); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			w.pass(time.Hour)
			for _, name := range append(names[:15:15], names[20]) {
				if s := w.status(name); !strings.Contains(s.Policy, "mode: testing") {
					t.Fatalf("%s serves %q", name, s.Policy)
				}
			}
		}
		w.wantModes(names, 14, 16, 16)
	})
}

// TestSharedUnseen changes an MX set while nothing of ours can be reached.
func TestSharedUnseen(t *testing.T) {
	w, names := sharedWorld(t, 40)
	w.conf.Check.Every = day
	run(t, w, func(w *world) {
		w.settled(names...)
		w.pass(26 * time.Hour)
		n := w.writes()
		w.change(func() { w.blind = true })
		w.reconfigure(setMX(policygen.Enforce, "mx1.provider.test", "mx2.provider.test"))
		for range 2 {
			w.pass(2 * day)
			if got := w.changed(n); len(got) > 0 {
				t.Fatalf("written %q while no policy is seen", got)
			}
			if s := w.status(wildcard); s.Step != publish.StepBody || !s.Fault || !strings.HasSuffix(s.Reason, "not seen") {
				t.Fatalf("shared record at %s (%s)", s.Step, s.Reason)
			}
		}
		w.change(func() { w.blind = false })
		w.pass(2 * time.Hour)
		if got := w.changed(n); !slices.Equal(got, []string{wildcard}) {
			t.Errorf("written %q, want the shared record once", got)
		}
	})
}

// TestSharedOwnAddress changes an MX set while caches hold another address of ours.
func TestSharedOwnAddress(t *testing.T) {
	w, names := sharedWorld(t, 4)
	run(t, w, func(w *world) {
		w.settled(names...)
		w.pass(26 * time.Hour)
		n := w.writes()
		moved := time.Now()
		w.change(func() {
			for _, name := range names {
				w.host[name] = publish.Host{Ours: true, TTL: 20 * time.Hour}
			}
		})
		w.reconfigure(setMX(policygen.Enforce, "mx1.provider.test", "mx2.provider.test"))
		for w.writes() == n {
			w.pass(10 * time.Minute)
			w.change(func() {
				for _, name := range names {
					w.host[name] = publish.Host{Ours: true, TTL: max(0, 20*time.Hour-time.Since(moved))}
				}
			})
			if time.Since(moved) > 3*day {
				t.Fatal("nothing is written any more")
			}
		}
		if took := time.Since(moved); took < 20*time.Hour {
			t.Errorf("written after %s, while caches hold the old address for 20 h", took)
		}
	})
}

// TestSharedSlowLookups has MX whose look-ups take their time: they hold nobody up.
func TestSharedSlowLookups(t *testing.T) {
	w, names := sharedWorld(t, 110)
	w.slow = 20 * time.Second
	run(t, w, func(w *world) {
		w.settled(names...)
		w.change(func() {
			for _, name := range names[:10] {
				w.deaf[name] = true
			}
		})
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		w.pass(time.Hour)
		if s := w.status(names[100]); !strings.Contains(s.Policy, "mx2.provider.test") {
			t.Errorf("%s has %q; shared record: %s", names[100], s.Policy, w.status(wildcard).Reason)
		}
		if s := w.status(names[0]); s.Step != publish.StepMX || strings.Contains(s.Policy, "mx2.provider.test") {
			t.Errorf("%s is at %s with %q", names[0], s.Step, s.Policy)
		}
	})
}

// TestSharedWidened adds an MX: that half of the customers have others which no policy ever covered makes no difference.
func TestSharedWidened(t *testing.T) {
	w, names := sharedWorld(t, 30)
	run(t, w, func(w *world) {
		w.settled(names...)
		w.change(func() {
			for _, name := range names[:15] {
				w.stranded[name] = true
			}
		})
		n := w.writes()
		w.reconfigure(setMX(policygen.Enforce, "mx1.provider.test", "mx2.provider.test"))
		w.pass(time.Hour)
		if got := w.changed(n); !slices.Equal(got, []string{wildcard}) {
			t.Errorf("written %q, want the shared record once; it is at %s", got, w.status(wildcard).Reason)
		}
	})
}

// TestSharedEarlyFinding has a customer set his _mta-sts before there is a certificate.
func TestSharedEarlyFinding(t *testing.T) {
	w, names := sharedWorld(t, 2)
	w.delegation[names[1]] = true
	w.cert[names[1].PolicyHost()] = publish.Cert{Reason: "waiting for the certificate"}
	run(t, w, func(w *world) {
		w.settled(names[0])
		w.pass(time.Hour)
		s := w.status(names[1])
		if s.Step != publish.StepCert || !s.Fault || len(s.Findings) != 1 || s.Findings[0].Code != "txt-before-body" {
			t.Errorf("at %s (%s), findings %+v", s.Step, s.Reason, s.Findings)
		}
		w.change(func() { w.delegation[names[1]] = false })
		w.pass(time.Hour)
		if s := w.status(names[1]); s.Fault || len(s.Findings) > 0 {
			t.Errorf("the CNAME is gone: findings %+v", s.Findings)
		}
	})
}

// TestSharedRemovedWhileHeld removes a domain while deletions are held: it goes on with the others.
func TestSharedRemovedWhileHeld(t *testing.T) {
	w, names := sharedWorld(t, 3)
	run(t, w, func(w *world) {
		w.settled(names...)
		w.stop()
		hold(t, w)
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.reconfigure(func(c *config.Config) { *c = *shared(c, names[1:]...) })
		w.pass(time.Hour)
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		w.pass(2 * time.Hour)
		s := w.status(names[0])
		if s.Step != publish.StepDrain || !s.Fault || !s.Detached.IsZero() || !strings.Contains(s.Policy, "mx2.provider.test") {
			t.Errorf("at %s (%s) with %q, detached %s; want it with the others", s.Step, s.Reason, s.Policy, s.Detached)
		}
		if _, err := w.reload(w.plan().Hash); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Hour)
		s = w.status(names[0])
		if got := w.at(below(names[0])); len(got) != 1 || got[0] != policygen.RecordText(s.ID) || !strings.Contains(s.Policy, "mode: none") {
			t.Errorf("confirmed: record %q, %+v", got, s)
		}
	})
}

// hold has all deletions be held with the next start.
func hold(t *testing.T, w *world) {
	t.Helper()
	ctx := context.Background() // that of the test ends outside of the bubble
	st, err := store.OpenSQLite(ctx, w.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SetValue(ctx, "publish/hold", []byte("the clock jumped")); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}
