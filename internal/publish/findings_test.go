package publish_test

import (
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

// journal keeps what is logged from Info on, without the time.
type journal struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, strings.TrimSpace(regexp.MustCompile(`^time=\S+ | since=\S+`).ReplaceAllString(string(line), "")))
	return len(line), nil
}

// take returns the lines since the last time.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	j.lines = nil
	return lines
}

// keepJournal has a world log into the returned one.
func keepJournal(w *world) *journal {
	j := &journal{}
	w.log = slog.New(slog.NewTextHandler(j, nil))
	return j
}

// findings are the values of the metric stspub_findings, by code.
func findings(t *testing.T, metrics prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "stspub_findings" {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) != 1 || m.GetLabel()[0].GetName() != "code" {
				t.Errorf("labels %v, want code", m.GetLabel())
				continue
			}
			all[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	return all
}

// TestFindingIsToldOnce has one line in the log when something is found, one when it is gone, and the metric meanwhile.
func TestFindingIsToldOnce(t *testing.T) {
	w := newWorld(t, "a.example", "b.example")
	j := keepJournal(w)
	run(t, w, func(w *world) {
		metrics := prometheus.NewPedanticRegistry()
		for _, c := range w.rec.Collectors() {
			metrics.MustRegister(c)
		}
		w.reach("a.example", publish.StepLive, time.Hour)
		w.reach("b.example", publish.StepLive, time.Hour)
		w.pass(2 * time.Hour)
		j.take()
		w.change(func() { w.stranded["a.example"] = true })
		w.pass(13 * time.Hour)
		const text = "senders refuse the MX old.provider.test of a.example: the policy does not cover it; add it to the MX set or remove it from DNS"
		if diff := cmp.Diff([]string{`level=WARN msg=found domain=a.example code=mx-uncovered text="` + text + `"`}, j.take()); diff != "" {
			t.Errorf("log when it is found, -want +got:\n%s", diff)
		}
		if diff := cmp.Diff(map[string]float64{"mx-uncovered": 1}, findings(t, metrics)); diff != "" {
			t.Errorf("stspub_findings by code, -want +got:\n%s", diff)
		}
		w.change(func() { w.stranded["a.example"] = false })
		w.pass(13 * time.Hour)
		if diff := cmp.Diff([]string{"level=INFO msg=gone domain=a.example code=mx-uncovered"}, j.take()); diff != "" {
			t.Errorf("log when it is gone, -want +got:\n%s", diff)
		}
		if got := findings(t, metrics); len(got) > 0 {
			t.Errorf("stspub_findings %v after it is gone", got)
		}
		// A fault on the way is one line too.
		w.change(func() { w.host["b.example"] = publish.Host{Proven: true, Reason: "elsewhere"} })
		w.pass(7 * time.Hour)
		if diff := cmp.Diff([]string{"level=WARN msg=found domain=b.example code=dns text=elsewhere"}, j.take()); diff != "" {
			t.Errorf("log of a host that went elsewhere, -want +got:\n%s", diff)
		}
	})
}

// TestReloadLogsThePlan has the log say what a change comes to.
func TestReloadLogsThePlan(t *testing.T) {
	w := newWorld(t, "a.example")
	j := keepJournal(w)
	run(t, w, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		j.take()
		w.reconfigure(setMX(policygen.Enforce, "mx1.provider.test", "mx2.provider.test"))
		got := j.take()
		for _, want := range []string{
			"level=INFO msg=reloaded added=0 changed=1", "MX set eu: mx +mx2.provider.test", "new ids: 1 domain", "account main: 1 DNS write",
			"added MX: mx2.provider.test of eu may be put into DNS from",
		} {
			if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, want) }) {
				t.Errorf("the reload logs %q, want %q in it", got, want)
			}
		}
	})
}

// TestUncoveredInTesting notes what would be refused, which is no fault while nobody refuses it.
func TestUncoveredInTesting(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*config.Config)
		pinned bool
	}{
		"mode testing":     {setMX(policygen.Testing, "mx1.provider.test"), false},
		"demoted by hand":  {func(*config.Config) {}, true},
		"demoted, rollout": {func(c *config.Config) { setRollout(c, 14*24*time.Hour) }, true},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, "a.example")
			c.change(w.conf)
			run(t, w, func(w *world) {
				w.reach("a.example", publish.StepLive, time.Hour)
				if c.pinned {
					if err := w.rec.Promote(w.ctx, "a.example", true); err != nil {
						t.Fatal(err)
					}
				}
				w.pass(time.Hour)
				w.change(func() { w.uncovered = []string{"old.provider.test"} })
				w.pass(7 * time.Hour)
				s := w.status("a.example")
				if len(s.Findings) != 1 || s.Findings[0].Code != "mx-uncovered-testing" || s.Findings[0].Fault || s.Fault || s.Reason != "" ||
					!strings.Contains(s.Findings[0].Text, "senders would refuse the MX old.provider.test of a.example if the policy were enforced") {
					t.Errorf("fault %v (%s), findings %+v, want a notice", s.Fault, s.Reason, s.Findings)
				}
			})
		})
	}
}

func setRollout(c *config.Config, d time.Duration) {
	set := c.MXSets["eu"]
	set.Rollout = d
	c.MXSets["eu"] = set
}
