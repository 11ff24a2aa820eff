package publish_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

const maxAge = 7 * 24 * time.Hour // of the policies here

// left is what a status says of a removed MX: it stays until so long after the new id was verified.
func left(mx string, verified time.Time) []publish.PlanLeaving {
	until := verified.Add(5*time.Minute + 5*time.Minute + maxAge) // TTL, what senders remember
	return []publish.PlanLeaving{{MXSet: "eu", MX: mx, Until: until.UTC()}}
}

// TestStatusDatesRemovedMX says after a change until when the old MX is needed: what the plan said before, and later if the
// change took its time.
func TestStatusDatesRemovedMX(t *testing.T) {
	inBubble(t, []policygen.Name{"a.example"}, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.pass(2 * time.Hour)
		if s := w.status("a.example"); len(s.Leaving) > 0 {
			t.Errorf("nothing was removed: %+v", s.Leaving)
		}
		w.change(func() { w.applyErr = broken() })
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		w.pass(time.Hour)
		if diff := cmp.Diff(left("mx1.provider.test", time.Now()), w.status("a.example").Leaving); diff != "" {
			t.Errorf("while the new id is not written, from now on: -want +got:\n%s", diff)
		}
		w.change(func() { w.applyErr = nil })
		w.pass(6 * time.Hour)
		s := w.status("a.example")
		ids, err := w.store.IDs(w.ctx, "_mta-sts.a.example")
		if err != nil || s.Step != publish.StepLive || ids[0].Verified.IsZero() {
			t.Fatalf("at %s (%s), ids %v, %v", s.Step, s.Reason, ids, err)
		}
		want := left("mx1.provider.test", ids[0].Verified)
		if diff := cmp.Diff(want, s.Leaving); diff != "" {
			t.Errorf("when it is live, -want +got:\n%s", diff)
		}
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test", "mx3.provider.test"))
		w.pass(24 * time.Hour)
		if diff := cmp.Diff(want, w.status("a.example").Leaving); diff != "" {
			t.Errorf("another change does not move it, -want +got:\n%s", diff)
		}
		w.pass(time.Until(want[0].Until) - time.Second)
		if diff := cmp.Diff(want, w.status("a.example").Leaving); diff != "" {
			t.Errorf("a second before it is over, -want +got:\n%s", diff)
		}
		w.pass(time.Second)
		if s := w.status("a.example"); len(s.Leaving) > 0 {
			t.Errorf("when it is over: %+v", s.Leaving)
		}
	})
}

// TestStatusDatesRemovedMXOfShared is the same for a domain that is attached to a shared record, and for a plan.
func TestStatusDatesRemovedMXOfShared(t *testing.T) {
	w, names := sharedWorld(t, 3)
	run(t, w, func(w *world) {
		w.settled(names...)
		w.change(func() {
			c := *w.conf
			w.conf = &c
			setMX(policygen.Enforce, "mx2.provider.test")(w.conf)
		})
		plan := w.plan()
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		got := w.status(names[0]).Leaving
		if len(got) != 1 || len(plan.Leaving) != 1 || got[0].MX != plan.Leaving[0].MX || got[0].Until.Sub(plan.Leaving[0].Until).Abs() > 10*time.Second {
			t.Errorf("the status says %+v, the plan said %+v", got, plan.Leaving)
		}
		w.pass(maxAge + time.Hour)
		if s := w.status(names[0]); len(s.Leaving) > 0 || s.Publish != store.PublishShared {
			t.Errorf("a week later: %+v", s.Leaving)
		}
	})
}
