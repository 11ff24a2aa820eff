package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// TestCrash kills the daemon at each step of two domains' lives; each next start goes on where it was. The watchers see
// to it that no sender notices.
func TestCrash(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		watchZoned, watchShop := w.watch(zoned), w.watch(shop)
		first := w.crashesOnTheWay(t)
		w.crashesWhenLive(t)
		second := w.crashesInSettle(t)
		third := w.crashesInWrite(t)
		none := w.policy("none", "86400")
		w.crashesOnTheWayOut(t, watchZoned, watchShop)
		// Where the id was written and not verified, or its answer lost, a second one follows.
		watchZoned.want(first, first, second, third, third, none)
		watchShop.want(first, second, third, third, none) // its first id came before its CNAME
		w.stop()
		// One id more for each of three kills while one was intended and not verified.
		w.checkStore(t, 3, first, second, third, none)
		w.checkIDs(t, watchZoned)
	})
}

// both waits until both domains rest at a step, and kills the daemon.
func (w *world) both(step string) {
	w.t.Helper()
	w.step(zoned, step)
	w.step(shop, step)
	w.crash()
}

// crashesOnTheWay goes from nothing to live, killed at each step that there is on the way.
func (w *world) crashesOnTheWay(t *testing.T) string {
	t.Helper()
	w.set("mta-sts."+zoned, "A")
	w.set("mta-sts."+shop, "CNAME")
	w.acme.set(stuck)
	w.outside.set(shut)
	w.api.set(shut)

	w.start()
	w.both(publish.StepDNS)
	w.set("mta-sts."+zoned, "A", w.ip)
	w.set("mta-sts."+shop, "CNAME", hostname+".")
	w.start()
	w.both(publish.StepCert)
	w.acme.set(open)
	w.start()
	w.both(publish.StepBody)
	w.outside.set(open)
	w.start()
	w.both(publish.StepTXT)
	w.start()
	records := []string{w.record(zoned), w.record(shop)}
	for _, r := range records {
		if got := w.txt(r); len(got) > 0 {
			t.Errorf("%s TXT = %q with the line to the DNS provider cut", r, got)
		}
		w.second.lag(t, r)
	}
	w.api.set(open)
	w.both(publish.StepVerify)
	intended := []string{sts(w.txt(records[0]))[0], sts(w.txt(records[1]))[0]}
	w.second.transfer()
	w.start()
	w.step(zoned, publish.StepLive)
	w.step(shop, publish.StepDelegation)
	for i, r := range records {
		// The store may be an old copy, for all that the new process knows.
		if got := w.txt(r); len(got) != 1 || got[0] == intended[i] {
			t.Errorf("%s TXT = %q after a restart at verify, want another than before", r, got)
		}
	}
	w.crash()
	w.start()
	w.step(shop, publish.StepDelegation)
	w.delegate()
	policy := w.policy("enforce", "5")
	w.live(zoned, "", policy)
	w.live(shop, "", policy)
	return policy
}

// crashesWhenLive sees that a restart of what is well changes nothing.
func (w *world) crashesWhenLive(t *testing.T) {
	t.Helper()
	before := []publish.Status{w.status(zoned), w.status(shop)}
	w.crash()
	w.start()
	now := time.Now()
	for _, b := range before {
		s := w.await(string(b.Name), "checked", func(s publish.Status) bool { return s.Checked.After(now) })
		if s.ID != b.ID || s.Step != publish.StepLive || s.Policy != b.Policy {
			t.Errorf("%s after a restart: step %s, id %s, want live with %s as before", b.Name, s.Step, s.ID, b.ID)
		}
	}
	if strings.Contains(w.daemon.said(), `"msg":"wrote record"`) {
		t.Errorf("a restart wrote records\n%s", w.log())
	}
}

// crashesInSettle kills the daemon when the new policy is out and no id is.
func (w *world) crashesInSettle(t *testing.T) string {
	t.Helper()
	before := []publish.Status{w.status(zoned), w.status(shop)}
	w.settings.mx = append(w.settings.mx, "mx2.provider.test")
	w.configure()
	w.hangup()
	w.both(publish.StepSettle)
	w.start()
	policy := w.policy("enforce", "5")
	for _, b := range before {
		w.live(string(b.Name), b.ID, policy)
	}
	return policy
}

// crashesInWrite kills the daemon when the record is written, and the answer that says so is lost.
func (w *world) crashesInWrite(t *testing.T) string {
	t.Helper()
	before := []publish.Status{w.status(zoned), w.status(shop)}
	w.settings.mx = append(w.settings.mx, "mx3.provider.test")
	w.configure()
	w.api.set(mute)
	w.hangup()
	var landed []string
	for _, b := range before {
		w.until("id of "+b.Record+" rotated", patience, func() (bool, string) {
			got := w.txt(b.Record)
			return len(got) == 1 && got[0] != value(b.ID), strings.Join(got, " ")
		})
		landed = append(landed, w.txt(b.Record)[0])
	}
	w.crash()
	w.api.set(open)
	w.start()
	policy := w.policy("enforce", "5")
	for i, b := range before {
		if s := w.live(string(b.Name), b.ID, policy); value(s.ID) == landed[i] {
			t.Errorf("%s: id %s after the restart, which had landed unseen; want a fresh one", b.Name, s.ID)
		}
	}
	return policy
}

// crashesOnTheWayOut kills the daemon while mode none is out, when the record is deleted and nobody said so, and before
// the domain is forgotten.
func (w *world) crashesOnTheWayOut(t *testing.T, watched ...*watcher) {
	t.Helper()
	w.settings.domains = nil
	w.configure()
	w.hangup()
	drains := func(s publish.Status) bool { return s.Step == publish.StepDrain && !s.Horizon.IsZero() }
	horizon := w.await(zoned, "draining", drains).Horizon
	last := w.await(shop, "draining", drains).Horizon
	w.crash()
	w.start()
	if s := w.step(zoned, publish.StepDrain); !s.Horizon.Equal(horizon) {
		t.Errorf("horizon %v after a restart, want %v as before", s.Horizon, horizon)
	}
	w.api.set(mute)
	for _, s := range watched {
		s.pace(true)
	}
	w.until("horizon", 70*time.Second, func() (bool, string) { return time.Now().After(horizon.Add(-time.Second)), "" })
	for _, s := range watched {
		s.mayGo() // not a moment before
	}
	w.until("records deleted", time.Until(last)+patience, func() (bool, string) {
		left := slices.Concat(w.txt("_mta-sts."+zoned), w.txt("_mta-sts."+shop))
		return len(left) == 0, strings.Join(left, " ")
	})
	w.crash()
	w.api.set(open)
	w.start()
	for _, s := range watched {
		w.await(s.domain, "with its record deleted", func(s publish.Status) bool { return strings.HasPrefix(s.Reason, "the record is deleted; caches") })
	}
	w.crash()
	w.start()
	for _, s := range watched {
		s.pace(true)
		w.forgotten(s.domain)
	}
}

// checkIDs compares what senders saw with the store's books: an id stands for one policy.
func (w *world) checkIDs(t *testing.T, s *watcher) {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), w.path("stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	ids, err := st.IDs(t.Context(), policygen.Name(s.domain).RecordName())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.eras {
		i := slices.IndexFunc(ids, func(w store.WrittenID) bool { return w.ID == e.id })
		if i < 0 || ids[i].Text != e.policy {
			t.Errorf("id %s was seen with %q; the store says %+v", e.id, e.policy, ids)
		}
	}
}
