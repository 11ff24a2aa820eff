package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/publish"
)

// drifted is how long it may take until something is found that is looked for every two seconds.
const drifted = 30 * time.Second

// TestDrift has somebody else's hand change the records of live domains.
func TestDrift(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.publishAll()
		policy := w.policy("enforce", "5")
		for _, domain := range []string{zoned, shop} {
			s := w.status(domain)
			id := w.idByHand(t, s, policy)
			w.recordDeleted(t, s.Record, id)
			w.rightAgain(t, domain, id)
			w.duplicateAdded(t, s.Record, id)
			w.rightAgain(t, domain, id)
		}
		w.cnameRemoved(t)
	})
}

// idByHand puts another id into the record: it is answered by a fresh one, never by the old one.
func (w *world) idByHand(t *testing.T, s publish.Status, policy string) string {
	t.Helper()
	const foreign = `"v=STSv1; id=20260101000000deadbeef;"`
	w.set(s.Record, "TXT", foreign)
	var seen []string
	w.until(s.Record+" mended", settle+drifted, func() (bool, string) {
		got := w.txt(s.Record)
		if len(got) == 1 && !slices.Contains(seen, got[0]) {
			seen = append(seen, got[0])
		}
		return len(got) == 1 && got[0] != foreign, strings.Join(got, " ")
	})
	id := w.live(string(s.Name), s.ID, policy).ID
	if want := []string{foreign, value(id)}; !slices.Equal(seen, want) && !slices.Equal(seen, want[1:]) {
		t.Errorf("%s was %q, want %q", s.Record, seen, want)
	}
	w.heard(`"msg":"wrote record"`, s.Record, `"add":"v=STSv1; id=`+id+`;"`, `"remove":["v=STSv1; id=20260101000000deadbeef;"]`)
	return id
}

// recordDeleted takes the record away: it is put back as it was.
func (w *world) recordDeleted(t *testing.T, record, id string) {
	t.Helper()
	from := len(w.daemon.said())
	w.set(record, "TXT")
	w.until(record+" put back", drifted, func() (bool, string) {
		got := w.txt(record)
		if len(got) > 0 && !slices.Equal(got, []string{value(id)}) {
			t.Fatalf("%s TXT = %q, want %q put back", record, got, value(id))
		}
		return len(got) == 1, "nothing"
	})
	w.heardSince(from, `"msg":"wrote record"`, record, `"add":"v=STSv1; id=`+id+`;"`, `"remove":`)
}

// duplicateAdded puts a second MTA-STS record beside the first: it goes.
func (w *world) duplicateAdded(t *testing.T, record, id string) {
	t.Helper()
	from := len(w.daemon.said())
	w.set(record, "TXT", value(id), `"v=STSv1; id=duplicate1;"`)
	w.until(record+" single", drifted, func() (bool, string) {
		got := w.txt(record)
		return slices.Equal(got, []string{value(id)}), strings.Join(got, " ")
	})
	w.heardSince(from, `"msg":"wrote record"`, record, `"remove":["v=STSv1; id=duplicate1;"]`)
}

// rightAgain waits until the domain was looked at and found right, with the id it had.
func (w *world) rightAgain(t *testing.T, domain, id string) {
	t.Helper()
	now := time.Now()
	if s := w.await(domain, "checked", func(s publish.Status) bool { return s.Checked.After(now) }); s.ID != id || s.Step != publish.StepLive {
		t.Errorf("%s: step %s, id %s, want live, still with %s", domain, s.Step, s.ID, id)
	}
}

// cnameRemoved takes the customer's CNAME away: that is a fault, which only the customer can mend.
func (w *world) cnameRemoved(t *testing.T) {
	t.Helper()
	w.set("_mta-sts."+shop, "CNAME")
	s := w.await(shop, "without its CNAME", func(s publish.Status) bool { return s.Step == publish.StepDelegation })
	want := "waiting for: CNAME _mta-sts." + shop + " → " + s.Record + ", last seen NXDOMAIN"
	if s.Reason != want || !s.Fault {
		t.Errorf("reason %q, fault %t, want %q as a fault", s.Reason, s.Fault, want)
	}
	list := w.must("domain", "list", "--faults")
	if !strings.Contains(list, want) || !strings.Contains(list, "delegation !") || strings.Contains(list, zoned) {
		t.Errorf("stspub domain list --faults:\n%s\nwant only %s with %q", list, shop, want)
	}
	w.delegate()
	if again := w.step(shop, publish.StepLive); again.ID != s.ID {
		t.Errorf("id %s, want %s as before", again.ID, s.ID)
	}
}

// TestAdoption finds somebody else's record at the name, and takes over only when told to.
func TestAdoption(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const foreign = "v=STSv1; id=foreign1;"
		w.set("_mta-sts."+zoned, "TXT", `"`+foreign+`"`)
		w.settings.domains = []string{zoned}
		w.configure()
		watch := w.watch(zoned)
		w.start()
		s := w.step(zoned, publish.StepAdopt)
		want := "somebody else's record stands at _mta-sts." + zoned + `: "` + foreign + `"; if this server is to take over, run: ` +
			"stspub domain adopt " + zoned + " (or set adopt = true)"
		if s.Reason != want || !s.Fault {
			t.Errorf("reason %q, fault %t, want %q as a fault", s.Reason, s.Fault, want)
		}
		w.crash()
		w.start()
		now := time.Now()
		w.await(zoned, "looked at again", func(s publish.Status) bool { return s.Due.After(now.Add(4 * time.Second)) })
		if got := w.txt("_mta-sts." + zoned); len(got) != 1 || got[0] != `"`+foreign+`"` {
			t.Errorf("TXT = %q before adoption, want the foreign one", got)
		}
		if got, want := w.must("domain", "adopt", zoned), zoned+" may replace the record that it finds\n"; got != want {
			t.Errorf("stspub domain adopt prints %q, want %q", got, want)
		}
		policy := w.policy("enforce", "5")
		w.live(zoned, "", policy)
		watch.want(policy, policy)
		if watch.eras[0].id != "foreign1" {
			t.Errorf("first id %s, want the foreign one", watch.eras[0].id)
		}
	})
}
