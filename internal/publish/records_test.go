package publish_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

// A customer of a shared record keeps his CNAME while his domain gets a record of its own, and nobody is told to set one
// too early.
func TestRecordsWhileDetached(t *testing.T) {
	w, names := sharedWorld(t, 3)
	run(t, w, func(w *world) {
		cname := func(name policygen.Name) string { return name.RecordName() + ". 300 IN CNAME " + below(name) + "." }
		w.settled(names[:2]...)
		w.change(func() { w.applyErr = broken() })
		if err := w.rec.Promote(w.ctx, names[0], true); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		s := w.status(names[0])
		if s.Detached.IsZero() || s.ID != "" || !slices.Contains(s.Records, cname(names[0])) {
			t.Errorf("detached %v with id %q: records %q, want %q", s.Detached, s.ID, s.Records, cname(names[0]))
		}
	})
}

// One that was never live waits for the word.
func TestRecordsBeforeLive(t *testing.T) {
	w, names := sharedWorld(t, 2)
	w.delegation[names[1]] = true // too early
	run(t, w, func(w *world) {
		w.pass(time.Minute)
		s := w.status(names[1])
		want := "; " + names[1].RecordName() + ". 300 IN CNAME " + below(names[1]) + "."
		if s.Detached.IsZero() || s.ID != "" || !slices.Contains(s.Records, want) || !strings.HasPrefix(s.Records[1], "; not yet") {
			t.Errorf("detached %v with id %q: records %q, want %q", s.Detached, s.ID, s.Records, want)
		}
	})
}

// A shared record is no domain: it has no host, no certificate and no customer.
func TestRecordsOfASharedRecord(t *testing.T) {
	w, names := sharedWorld(t, 1)
	run(t, w, func(w *world) {
		w.settled(names...)
		s := w.status(wildcard)
		want := []string{
			"; the shared record of MX set eu, which answers for all domains that have none of their own",
			"; " + wildcard + `. TXT is written by stspub: ` + policygen.RecordText(s.ID),
		}
		if diff := cmp.Diff(want, s.Records); diff != "" || s.Certificate != "" || s.Step != publish.StepLive {
			t.Errorf("at %s, certificate %q, records -want +got:\n%s", s.Step, s.Certificate, diff)
		}
	})
}
