package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/webhook"
)

// planner is a server that plans and reloads, and does nothing.
type planner struct {
	httpd.Manager
	plan  publish.Plan
	err   error
	files map[string][]byte
	path  string
	hash  string
}

func (p *planner) Plan(
	_ context.Context, path string, files map[string][]byte, progress func(done, total int),
) (publish.Plan, error) {
	p.path, p.files = path, files
	progress(1, 2)
	return p.plan, p.err
}

func (p *planner) Reload(_ context.Context, hash string) (publish.ReloadReport, error) {
	p.hash = hash
	return publish.ReloadReport{Changed: 1, Forced: []string{"shop.test"}, Plan: &p.plan, Warnings: []string{"new.toml:3: odd"}}, p.err
}

// listen has a planner answer at an admin address.
func (p *planner) listen(t *testing.T) (admin string) {
	t.Helper()
	return listen(t, p)
}

// listen has a manager answer at an admin address.
func listen(t *testing.T, m httpd.Manager) (admin string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "plan-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return listenAt(t, m, "unix:"+filepath.Join(dir, "admin.sock"))
}

// listenAt has a manager answer at addr, with a store for tenants and tokens, and returns the address as for --admin.
func listenAt(t *testing.T, m httpd.Manager, addr string) (admin string) {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	ln, err := httpd.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	server := httpd.NewAdmin(httpd.AdminConfig{
		HealthConfig: httpd.HealthConfig{Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))},
		Manager:      m, Tenancy: st, Webhooks: webhook.New(webhook.Config{
			Store: st, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Dial: new(net.Dialer).DialContext,
		}),
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if ln.Addr().Network() == "tcp" {
		return ln.Addr().String()
	}
	return addr
}

const (
	planHash   = "6a1f0c93be5d2478"
	planBefore = "version: STSv1\r\nmode: enforce\r\nmax_age: 1209600\r\nmx: mx1.test\r\n"
	planAfter  = "version: STSv1\r\nmode: enforce\r\nmax_age: 86400\r\nmx: mx3.test\r\n"
)

// bigPlan has something of everything.
func bigPlan() publish.Plan {
	when := time.Date(2026, 12, 5, 10, 16, 43, 0, time.UTC)
	p := publish.Plan{
		Hash:      planHash,
		MXSets:    []publish.PlanMXSet{{Name: "main", Before: planBefore, After: planAfter}},
		Added:     publish.Names{Count: 1, First: []policygen.Name{"new.test"}},
		Changed:   publish.Names{Count: 120, First: []policygen.Name{"a.test", "b.test"}},
		Rotations: 121,
		Writes:    []publish.PlanWrites{{Account: "main", Provider: "cloudflare", Writes: 121, Seconds: 103.71}, {Account: "own", Provider: "rfc2136", Writes: 1, Seconds: 0.02}},
		Leaving:   []publish.PlanLeaving{{MXSet: "main", MX: "mx1.test", Until: when}},
		Arriving:  []publish.PlanArrival{{MXSet: "main", MX: "mx3.test", From: when.Add(-14 * 24 * time.Hour)}},
		Unknown:   []publish.PlanReason{{Subject: "dark.test", Reason: "SERVFAIL"}},
		Held:      []publish.PlanReason{{Subject: "deletions", Reason: "the clock jumped"}},
		Advice:    []string{"wait"},
		Refused:   []string{"senders would refuse the mail of 12 domains"},
		Warnings:  []string{"new.toml:3: odd"},
	}
	for i := range 12 {
		p.Stranded = append(p.Stranded, publish.PlanDomain{Name: policygen.Name(fmt.Sprintf("s%02d.test", i)), MX: []string{"mx1.test", "mx2.test"}})
	}
	return p
}

const bigPlanText = `MX set main   max_age 2w → 1d, mx +mx3.test, mx -mx1.test
added         1 domain: new.test
changed       120 domains: a.test, b.test and 118 more
new ids       121 domains
account main  121 DNS writes, about 1m44s (cloudflare)
account own   1 DNS write, about 1s (rfc2136)
removed MX    mx1.test of main has to stay in service until 2026-12-05 10:16:43 UTC
added MX      mx3.test of main may be put into DNS from 2026-11-21 10:16:43 UTC on, when its domains are live
stranded      s00.test: MX mx1.test, mx2.test in DNS is not covered
stranded      s01.test: MX mx1.test, mx2.test in DNS is not covered
stranded      s02.test: MX mx1.test, mx2.test in DNS is not covered
stranded      s03.test: MX mx1.test, mx2.test in DNS is not covered
stranded      s04.test: MX mx1.test, mx2.test in DNS is not covered
stranded      s05.test: MX mx1.test, mx2.test in DNS is not covered
stranded      s06.test: MX mx1.test, mx2.test in DNS is not covered
stranded      s07.test: MX mx1.test, mx2.test in DNS is not covered
stranded      s08.test: MX mx1.test, mx2.test in DNS is not covered
stranded      s09.test: MX mx1.test, mx2.test in DNS is not covered
stranded      and 2 more
unknown       dark.test: its MX cannot be looked up: SERVFAIL
held          deletions: the clock jumped
advice        wait
`

func TestPlan(t *testing.T) {
	const progress = "looked up the MX of 1 of 2 domains\n"
	refused := publish.Plan{Refused: []string{"account.main: account is needed"}, Removed: publish.Names{Count: 1, First: []policygen.Name{"a.test"}}}
	held := publish.Plan{Hash: planHash, Held: []publish.PlanReason{{Subject: "shop.test", Reason: "held"}}}
	for _, c := range []struct {
		name        string
		plan        publish.Plan
		out, stderr string
		code        int
	}{
		{
			"much", bigPlan(),
			bigPlanText + "REFUSED: senders would refuse the mail of 12 domains\nif it is meant, run: stspub reload --force " + planHash + "\n",
			progress + "warning: new.toml:3: odd\n", 1,
		},
		{"nothing", publish.Plan{Hash: planHash}, "nothing changes\nto do it, run: stspub reload\n", progress, 0},
		{
			"held before", held, "held  shop.test: held\nto do it, run: stspub reload\nto let through what is held as well, run: stspub reload --force " + planHash + "\n",
			progress, 0,
		},
		{"no force helps", refused, "removed  1 domain: a.test\nREFUSED: account.main: account is needed\n", progress, 1},
	} {
		p := &planner{plan: c.plan}
		admin := p.listen(t)
		out, stderr, code := stspub(t, "plan", "--admin", admin)
		if code != c.code || stderr != c.stderr {
			t.Errorf("%s: exit code %d, %q, want %d, %q", c.name, code, stderr, c.code, c.stderr)
		}
		if diff := cmp.Diff(c.out, out); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.name, diff)
		}
		out, stderr, code = stspub(t, "plan", "--json", "--admin", admin)
		var got struct {
			Hash    string   `json:"hash"`
			Refused []string `json:"refused"`
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.Hash != c.plan.Hash || len(got.Refused) != len(c.plan.Refused) ||
			code != c.code || stderr != progress {
			t.Errorf("%s --json: %v, exit code %d, %q, %s", c.name, err, code, stderr, out)
		}
	}
}

// The file goes with its lists, and without secrets.
func TestPlanOfAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new.toml")
	write(t, path, strings.ReplaceAll(goodConfig, "[[domain]]\nname = \"example.org\"\nmxset = \"eu\"", "domains_file = \"list.txt\""))
	write(t, filepath.Join(dir, "list.txt"), "example.org\n")
	write(t, filepath.Join(dir, "token"), "0123456789abcdef\n")
	p := &planner{plan: publish.Plan{Hash: planHash}}
	admin := p.listen(t)
	t.Chdir(dir)
	if _, stderr, code := stspub(t, "plan", "--config", "new.toml", "--admin", admin); code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	if string(p.files[filepath.Join(dir, "list.txt")]) != "example.org\n" || p.files[path] == nil || len(p.files) != 2 || p.path != path {
		t.Errorf("sent are %q of %s, want the file and its list", p.files, p.path)
	}
	write(t, path, strings.ReplaceAll(goodConfig, `"enforce"`, `"strict"`))
	p.path = ""
	want := "stspub: " + path + `:12: mxset.eu.mode: "strict": is no mode; write "enforce", "testing" or "none"` + "\n"
	if out, stderr, code := stspub(t, "plan", "--config", "new.toml", "--admin", admin); code != 1 || out != "" || stderr != want || p.path != "" {
		t.Errorf("plan of a broken file: exit code %d, %q, %q, asked for %q; want 1, %q", code, out, stderr, p.path, want)
	}
}

func TestReload(t *testing.T) {
	p := &planner{plan: bigPlan()}
	admin := p.listen(t)
	out, stderr, code := stspub(t, "reload", "--force", planHash, "--admin", admin)
	if diff := cmp.Diff("0 domains added, 1 changed, 0 removed, 0 restored\n"+bigPlanText+"forced: shop.test\n", out); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if code != 0 || stderr != "warning: new.toml:3: odd\n" || p.hash != planHash {
		t.Errorf("exit code %d, %q, hash %q, want 0, a warning, %q", code, stderr, p.hash, planHash)
	}
	out, _, code = stspub(t, "reload", "--json", "--admin", admin)
	if code != 0 || p.hash != "" || !strings.HasPrefix(out, `{"added":0,"changed":1,"removed":0,"restored":0,"forced":["shop.test"],"plan":{"hash":"`+planHash+`",`) {
		t.Errorf("reload --json: exit code %d, hash %q, %s", code, p.hash, out)
	}
	p.err = fmt.Errorf("%w: 11 of 12 domains would be removed", publish.ErrRefused)
	if out, stderr, code := stspub(t, "reload", "--admin", admin); code != 1 || out != "" || stderr != "stspub: reload: refused: 11 of 12 domains would be removed\n" {
		t.Errorf("refused reload: exit code %d, %q, %q", code, out, stderr)
	}
}
