package webhook

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Events that are forgotten while a webhook is paused are lost: its state, the log and the metrics say how many. Those that
// were taken are not.
func TestForgottenEventsAreLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gone := false
		w, r := bubble(t, seldom, func(call) (int, http.Header) {
			if gone {
				return http.StatusGone, nil
			}
			return 204, nil
		})
		var log strings.Builder
		w.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		w.addTenants("a")
		w.put("a", "x", "https://hooks.example/", r)
		w.start()
		begin := time.Now()
		w.step("a", "one.example", 1)
		at(begin, time.Minute)
		gone = true
		for n := range 3 {
			w.step("a", "one.example", n+2)
			w.step("a", "two.example", n+1)
		}
		w.step("", "ours.example", 1) // is not the tenant's
		at(begin, 2*time.Minute)
		if i := w.info("a", "x"); i.State != StatePaused || i.Lost != 0 {
			t.Fatalf("webhook is %+v, want it paused", i)
		}
		n, err := w.Prune(t.Context(), time.Now().Add(time.Minute), 100)
		if err != nil || n < 8 {
			t.Fatalf("forgot %d events, %v", n, err)
		}
		if i := w.info("a", "x"); i.Lost != 6 {
			t.Errorf("lost are %d, want 6: %+v", i.Lost, i)
		}
		if n := lost(t, w); n != 6 {
			t.Errorf("the metric says %v, want 6", n)
		}
		if want := `msg="events lost, they were too old to be kept before a webhook took them" tenant=a id=x count=6`; !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}

		gone = false
		if _, err := w.Resume(t.Context(), "a", "x"); err != nil {
			t.Fatal(err)
		}
		w.step("a", "one.example", 5)
		at(begin, 5*time.Minute)
		if _, taken := r.got(); len(taken) != 2 || taken[1].Data.Text != "5" {
			t.Errorf("taken are %+v, want the first and the last", taken)
		}
		if n, err := w.Prune(t.Context(), time.Now().Add(time.Minute), 100); err != nil || n == 0 || w.info("a", "x").Lost != 6 {
			t.Errorf("forgot %d events that were taken, %v: %+v", n, err, w.info("a", "x"))
		}
	})
}

// lost is what the metrics say.
func lost(t *testing.T, w *world) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.Collectors()...)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "stspub_webhook_events_total" && m.GetLabel()[0].GetValue() == "lost" {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatal("there is no such metric")
	return 0
}
