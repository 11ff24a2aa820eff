package publish_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

// TestPromoteByHand goes to enforce before the time, back to testing, and stays there.
func TestPromoteByHand(t *testing.T) {
	w := newWorld(t, "a.example")
	set := w.conf.MXSets["eu"]
	set.Rollout = 3 * 24 * time.Hour
	w.conf.MXSets["eu"] = set
	w.conf.Check.Every = 24 * time.Hour
	run(t, w, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		for i, mode := range []string{"enforce", "testing", "enforce"} {
			before := w.status("a.example")
			if err := w.rec.Promote(w.ctx, "a.example", mode == "testing"); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Hour)
			s := w.status("a.example")
			if s.Step != publish.StepLive || !strings.Contains(s.Policy, "mode: "+mode) || s.ID == before.ID {
				t.Errorf("%d: at %s (%s), id %s, with %q, want a fresh id for mode %s", i, s.Step, s.Reason, s.ID, s.Policy, mode)
			}
			w.pass(5 * 24 * time.Hour)
			if s := w.status("a.example"); !strings.Contains(s.Policy, "mode: "+mode) {
				t.Errorf("%d: %q later, want mode %s still", i, s.Policy, mode)
			}
		}
		w.change(func() { w.stranded["a.example"] = true })
		if err := w.rec.Promote(w.ctx, "a.example", true); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if err := w.rec.Promote(w.ctx, "a.example", false); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if s := w.status("a.example"); s.Step != publish.StepMX || !strings.Contains(s.Policy, "mode: testing") {
			t.Errorf("promoted although that strands mail: at %s (%s) with %q", s.Step, s.Reason, s.Policy)
		}
	})
}

// TestExpel ends a drain at once, also where the record cannot be deleted.
func TestExpel(t *testing.T) {
	inBubble(t, []policygen.Name{"a.example", "b.example", "c.example"}, func(w *world) {
		for _, name := range []policygen.Name{"a.example", "b.example", "c.example"} {
			w.reach(name, publish.StepLive, time.Hour)
		}
		if err := w.rec.Expel(w.ctx, "a.example"); err == nil || !strings.Contains(err.Error(), "take it out there first") {
			t.Errorf("Expel of a wanted domain: %v", err)
		}
		w.conf = configuration("c.example")
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if err := w.rec.Expel(w.ctx, "a.example"); err != nil {
			t.Fatal(err)
		}
		w.pass(10 * time.Minute)
		if _, err := w.rec.Status(w.ctx, "a.example"); err == nil || len(w.record("a.example")) > 0 {
			t.Errorf("still there: %v, record %q", err, w.record("a.example"))
		}
		w.change(func() { w.applyErr = broken() })
		if err := w.rec.Expel(w.ctx, "b.example"); err != nil {
			t.Fatal(err)
		}
		w.pass(10 * time.Minute)
		if _, err := w.rec.Status(w.ctx, "b.example"); err == nil {
			t.Error("b.example waits for an account that does not work")
		}
		if s := w.status("c.example"); s.Step != publish.StepLive {
			t.Errorf("c.example at %s", s.Step)
		}
	})
}

// TestFindings says what is wrong by code, since when, and that it is over.
func TestFindings(t *testing.T) {
	inBubble(t, []policygen.Name{"a.example"}, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.change(func() {
			w.uncovered = []string{"old.provider.test"}
			w.txt["_mta-sts.a.example"] = append(w.txt["_mta-sts.a.example"], "some verification")
		})
		w.pass(7 * time.Hour)
		s := w.status("a.example")
		var codes []string
		for _, f := range s.Findings {
			codes = append(codes, f.Code)
		}
		if !slices.Equal(codes, []string{"mx-uncovered", "stranger"}) || !s.Fault {
			t.Fatalf("findings %+v", s.Findings)
		}
		since := s.Findings[1].Since
		w.change(func() { w.uncovered = nil })
		w.pass(7 * time.Hour)
		s = w.status("a.example")
		if len(s.Findings) != 1 || s.Findings[0].Code != "stranger" || !s.Findings[0].Since.Equal(since) {
			t.Errorf("findings %+v, want stranger since %v", s.Findings, since)
		}
		w.change(func() { w.txt["_mta-sts.a.example"] = w.txt["_mta-sts.a.example"][:1] })
		w.pass(7 * time.Hour)
		if s = w.status("a.example"); len(s.Findings) > 0 || s.Fault {
			t.Errorf("findings %+v after all is mended", s.Findings)
		}
	})
}

// Whoever fills a name with text does not fill our store and log.
func TestLargeRecordIsToldInFewWords(t *testing.T) {
	w := newWorld(t, "a.example")
	large := "v=STSv1; id=" + strings.Repeat("ü", 30_000)
	w.txt["_mta-sts.a.example"] = []string{large}
	run(t, w, func(w *world) {
		s := w.reach("a.example", publish.StepAdopt, time.Hour)
		const begin = "somebody else's record stands at _mta-sts.a.example: "
		if len(s.Reason) > 5000 || !strings.HasPrefix(s.Reason, begin) || !utf8.ValidString(s.Reason) {
			t.Errorf("the reason has %d bytes: %.100q", len(s.Reason), s.Reason)
		}
		if err := w.rec.Adopt(w.ctx, "a.example"); err != nil {
			t.Fatal(err)
		}
		s = w.reach("a.example", publish.StepLive, 3*time.Hour)
		w.change(func() { w.txt["_mta-sts.a.example"] = []string{large} })
		w.pass(7 * time.Hour)
		if now := w.status("a.example"); now.ID == s.ID || w.txt["_mta-sts.a.example"][0] == large {
			t.Errorf("the record is still somebody else's; id %s", now.ID)
		}
	})
}
