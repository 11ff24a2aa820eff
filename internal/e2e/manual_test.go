package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/publish"
)

// TestManual has a human write the record: too late, wrongly, rightly, and delete it in the end. The daemon writes nothing.
func TestManual(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Knot")
	w.settings.domains = []string{hand}
	w.configure()
	w.watch(hand)
	w.start()

	first := w.byHand(t, "")
	w.stop()
	restarted := time.Now()
	w.start()
	w.await(hand, "settled again", func(s publish.Status) bool { return s.Step == publish.StepTXT && s.Since.After(restarted) })
	// The id that a human may have copied already stays.
	if again := w.byHand(t, ""); again.Intended != first.Intended {
		t.Errorf("a restart asks for id %s, want %s as before", again.Intended, first.Intended)
	}
	const wrong = "v=STSv1; id=20260101000000;"
	w.set(first.Record, "TXT", `"`+wrong+`"`)
	if again := w.byHand(t, wrong); again.Intended != first.Intended || again.ID != "" {
		t.Errorf("with a wrong record: id %q, intended %s, want none, and %s", again.ID, again.Intended, first.Intended)
	}
	w.written(t, first, w.policy("enforce", "5"))

	// The MX change: the policy is there first, and the record is stale until somebody writes it.
	w.settings.mx = append(w.settings.mx, "mx2.provider.test")
	w.configure()
	w.must("reload")
	stale := w.byHand(t, record(first.Intended))
	if policy := w.policy("enforce", "5"); stale.ID != first.Intended || stale.Policy != policy {
		t.Errorf("with a stale record: id %s, policy %q; want still %s, and %q", stale.ID, stale.Policy, first.Intended, policy)
	}
	w.written(t, stale, w.policy("enforce", "5"))

	// Somebody writes what nobody asked for.
	const other = "v=STSv1; id=20260202000000;"
	w.set(first.Record, "TXT", `"`+other+`"`)
	drifted := w.byHand(t, other)
	if ids := []string{first.Intended, stale.Intended}; slices.Contains(ids, drifted.Intended) {
		t.Errorf("id %s is asked for once more", drifted.Intended)
	}
	w.written(t, drifted, w.policy("enforce", "5"))

	w.settings.domains = nil
	w.configure()
	w.must("reload")
	leaving := w.byHand(t, record(drifted.Intended))
	w.set(first.Record, "TXT", value(leaving.Intended))
	w.await(hand, "draining", func(s publish.Status) bool { return s.Step == publish.StepDrain && !s.Horizon.IsZero() })
	w.must("domain", "remove", hand, "--now", "--yes")
	want := fmt.Sprintf("waiting for you to delete: %s. TXT %q", first.Record, record(leaving.Intended))
	w.await(hand, want, func(s publish.Status) bool { return s.Reason == want })
	if got := w.txt(first.Record); !slices.Equal(got, []string{value(leaving.Intended)}) {
		t.Errorf("record %q, which the daemon has no hand on", got)
	}
}

// record is the TXT value of an id.
func record(id string) string { return "v=STSv1; id=" + id + ";" }

// byHand waits until a human is asked to write the record in the place of what is there, and asked the same by all commands.
func (w *world) byHand(t *testing.T, there string) publish.Status {
	t.Helper()
	line := func(s publish.Status, ttl int) string {
		return fmt.Sprintf("%s. %d IN TXT %q", s.Record, ttl, record(s.Intended))
	}
	s := w.await(hand, "waits for a human, who wrote "+there, func(s publish.Status) bool {
		want := "waiting for you to write: " + line(s, 60)
		if there != "" {
			want += fmt.Sprintf(" in the place of %q", []string{there})
		}
		return s.Step == publish.StepTXT && s.Intended != "" && s.Reason == want
	})
	if got := w.must("records", hand); !strings.HasSuffix(got, "\n"+line(s, 300)+"\n") {
		t.Errorf("stspub records prints %q, want %q", got, line(s, 300))
	}
	if got := w.must("domain", "show", hand); !strings.Contains(got, s.Reason) {
		t.Errorf("stspub domain show prints %q, want %q", got, s.Reason)
	}
	if got, want := strings.Join(w.txt(s.Record), " "), strings.TrimSuffix(`"`+there+`"`, `""`); got != want {
		t.Errorf("record %s, want %s", got, want)
	}
	return s
}

// written has a human write what was asked for.
func (w *world) written(t *testing.T, s publish.Status, policy string) {
	t.Helper()
	w.set(s.Record, "TXT", value(s.Intended))
	if live := w.live(hand, s.ID, policy); live.ID != s.Intended || live.Fault {
		t.Errorf("live under id %s, fault %t, want %s", live.ID, live.Fault, s.Intended)
	}
}
