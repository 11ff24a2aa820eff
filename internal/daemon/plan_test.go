package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/publish"
)

// plan asks for the plan of a configuration in a directory of the operator's, or with "" of that which is in place.
func (r *run) plan(dir string) publish.Plan {
	r.w.t.Helper()
	var path string
	var files map[string][]byte
	if dir != "" {
		path = filepath.Join(dir, "new.toml")
		conf, _, err := config.LoadFiles(path, func(string) string { return "" }, os.ReadFile)
		if err != nil {
			r.w.t.Fatal(err)
		}
		files = conf.Files
	}
	p, err := r.admin.Plan(context.Background(), path, files, func(int, int) {})
	if err != nil {
		r.w.t.Fatal(err)
	}
	return p
}

// What is planned from elsewhere is what a reload does when the files are in place: with the secrets and lists that are
// there, MX from DNS, and the same hash.
func TestPlanFromElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.start(w.path("stspub.toml"))
	r.live(time.Time{})
	elsewhere := t.TempDir()
	change := w.config(`mx = ["mx1.provider.test"]`, `mx = ["mx2.provider.test"]`, `every = "1s"`, `every = "2s"`, "http = ", "# http = ")
	for name, content := range map[string]string{"new.toml": change, "customers.txt": zoned + "\nlate.zoned.test\n"} {
		if err := os.WriteFile(filepath.Join(elsewhere, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	asked := w.dns.Queries(zoned, "MX")
	p := r.plan(elsewhere)
	if w.dns.Queries(zoned, "MX") == asked {
		t.Errorf("the MX of %s were not looked up", zoned)
	}
	hash, stays, from := p.Hash, p.Leaving[0].Until, p.Arriving[0].From
	through := 2*time.Second + 60*time.Second // two settle times and the TTL
	if got := time.Until(from); got > through+time.Second || got < through-patience {
		t.Errorf("the added MX may be used in %s, want %s", got, through)
	}
	want := []string{
		"MX set main: mx +mx2.provider.test, mx -mx1.provider.test", "added: 1 domain: late.zoned.test", "changed: 1 domain: " + zoned,
		"new ids: 2 domains", "account main: 2 DNS writes, about 1s (rfc2136)",
		"removed MX: mx1.provider.test of main has to stay in service until " + stays.Format(time.DateTime+" MST"),
		"added MX: mx2.provider.test of main may be put into DNS from " + from.Format(time.DateTime+" MST") + " on, when its domains are live",
		"stranded: zoned.test: MX mx1.provider.test in DNS is not covered",
	}
	if diff := cmp.Diff(want, p.Lines()); diff != "" || stays.Sub(from) != 24*time.Hour {
		t.Errorf("plan, %s between the two times, -want +got:\n%s", stays.Sub(from), diff)
	}
	const refused = "senders would refuse the mail of 1 domain (zoned.test): MX in DNS are not covered by the new policy"
	if diff := cmp.Diff([]string{refused}, p.Refused); diff != "" {
		t.Errorf("refused, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		filepath.Join(elsewhere, "new.toml") + ":23: publish.settle: \"1s\" is for laboratories: some senders remember an old policy for 5m, and file it under the new id",
		"changes in server take effect after a restart",
	}, p.Warnings); diff != "" {
		t.Errorf("warnings, -want +got:\n%s", diff)
	}

	w.file("stspub.toml", change)
	w.file("customers.txt", zoned+"\nlate.zoned.test\n")
	if got := r.plan("").Hash; got != hash {
		t.Errorf("in place the hash is %s, want %s", got, hash)
	}
	// By signal nobody confirms anything.
	w.hangup <- os.Interrupt
	r.fault("configuration", "refused: "+refused+"; nothing is changed; look at stspub plan, and if it is meant, run: stspub reload --force "+hash)
	w.serves()
	report, err := r.admin.Reload(context.Background(), hash)
	if err != nil || report.Added != 1 || report.Changed != 1 || len(report.Forced) != 1 || report.Plan == nil || report.Plan.Hash != hash {
		t.Errorf("reload --force = %+v, %v", report, err)
	}
	r.fault("configuration", "")
	until(t, "the new policy", func() error {
		s, err := r.admin.Domain(context.Background(), zoned)
		if err == nil && !strings.Contains(s.Policy, "mx: mx2.provider.test") {
			err = fmt.Errorf("step %s, policy %q", s.Step, s.Policy)
		}
		return err
	})
}

// A broken configuration is said to be broken, under the operator's name for it.
func TestPlanOfABrokenConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.start(w.path("stspub.toml"))
	w.file("stspub.toml", w.config(`mode = "enforce"`, `mode = "strict"`))
	_, err := r.admin.Plan(context.Background(), "", nil, nil)
	want := "plan: refused: " + w.path("stspub.toml") + `:31: mxset.main.mode: "strict": is no mode; write "enforce", "testing" or "none"`
	if err == nil || err.Error() != want {
		t.Errorf("Plan = %v, want %s", err, want)
	}
	if len(r.faults()["configuration"]) > 0 {
		t.Errorf("a plan made a fault: %q", r.faults())
	}
}
