package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// keeper is a server with domains that do nothing.
type keeper struct {
	httpd.Manager
	domains  []publish.Status
	expelled []policygen.Name
}

func (k *keeper) Faults() map[string]string { return nil }

func (k *keeper) StatusesOf(
	_ context.Context, _ string, f store.DomainFilter, after policygen.Name, n int,
) (page []publish.Status, err error) {
	for _, d := range k.domains {
		if d.Name > after && (d.Fault || !f.Fault) && strings.HasPrefix(string(d.Name), f.Prefix) && len(page) < n {
			page = append(page, d)
		}
	}
	return page, nil
}

func (k *keeper) SharedOf(context.Context, string) ([]publish.Status, error) { return nil, nil }

func (k *keeper) Claim(_ context.Context, _ string, name policygen.Name) (publish.Claim, error) {
	return publish.Claim{}, fmt.Errorf("read the claim to %s: %w", name, store.ErrNotFound)
}

func (k *keeper) StatusOf(_ context.Context, _ string, name policygen.Name) (publish.Status, error) {
	for _, d := range k.domains {
		if d.Name == name {
			return d, nil
		}
	}
	return publish.Status{}, fmt.Errorf("read %s: %w", name, store.ErrNotFound)
}

func (k *keeper) TenantOf(ctx context.Context, name policygen.Name) (string, error) {
	_, err := k.StatusOf(ctx, "", name)
	return store.DefaultTenant, err
}

func (k *keeper) MXSets(string) []publish.MXSet { return []publish.MXSet{{Name: "eu"}, {Name: "us"}} }

func (k *keeper) Accounts(string) []publish.Account {
	return []publish.Account{{Name: "main"}, {Name: "own"}}
}

func (k *keeper) Nodes(context.Context) ([]publish.NodeStatus, error) {
	return []publish.NodeStatus{{ID: "node1"}, {ID: "node2"}}, nil
}

func (k *keeper) RemoveNode(context.Context, string) error { return nil }

func (k *keeper) Expel(_ context.Context, name policygen.Name) error {
	k.expelled = append(k.expelled, name)
	return nil
}

// What was found is told apart by whether a human has to act, and a list says that there is more.
func TestDomainFindings(t *testing.T) {
	when := time.Date(2026, 12, 5, 10, 16, 43, 0, time.UTC)
	found := func(code, text string, fault bool) store.Finding {
		return store.Finding{Code: code, Text: text, Fault: fault, Since: when}
	}
	domain := func(name policygen.Name, reason string, findings ...store.Finding) publish.Status {
		return publish.Status{Name: name, MXSet: "eu", Publish: "zone", Step: "live", Reason: reason, Fault: reason != "", Findings: findings}
	}
	k := &keeper{domains: []publish.Status{
		domain("good.test", ""),
		domain("noted.test", "", found("tlsrpt", "no record", false)),
		domain("two.test", "MX not covered", found("mx-uncovered", "MX not covered", true), found("tlsrpt", "no record", false), found("stranger", "a TXT", true)),
	}}
	admin := listen(t, k)
	list := func(args ...string) string {
		out, stderr, code := stspub(t, append([]string{"domain", "list", "--admin", admin}, args...)...)
		if code != 0 || stderr != "" {
			t.Errorf("domain list %q: exit code %d, %q", args, code, stderr)
		}
		return out
	}
	const (
		header = "DOMAIN      MXSET  PUBLISH  STEP    SINCE  WAITING FOR\n"
		two    = "two.test    eu     zone     live !  -      MX not covered (and 2 more: stspub domain show 'two.test')\n"
	)
	if diff := cmp.Diff(header+"good.test   eu     zone     live    -      \nnoted.test  eu     zone     live    -      notice: no record\n"+two, list()); diff != "" {
		t.Errorf("domain list, -want +got:\n%s", diff)
	}
	if out := list("--faults"); strings.Contains(out, "noted.test") || !strings.Contains(out, "two.test") {
		t.Errorf("domain list --faults:\n%s\nwant only two.test", out)
	}
	k.domains[2].Leaving = []publish.PlanLeaving{{MXSet: "eu", MX: "mx1.test", Until: when}}
	out, _, _ := stspub(t, "domain", "show", "two.test", "--admin", admin)
	for _, want := range []string{
		"\nfault mx-uncovered  MX not covered (since 2026-12-05 10:16:43 UTC)\n",
		"\nnotice tlsrpt       no record (since 2026-12-05 10:16:43 UTC)\n", "\nfault stranger      a TXT (since",
		"\nremoved MX          mx1.test has to stay in service until 2026-12-05 10:16:43 UTC: senders may hold a policy that lists it\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("domain show says\n%s\nwant %q", out, want)
		}
	}
}

// The end of a drain is asked for, and nothing but a yes is one.
func TestDomainRemoveAsks(t *testing.T) {
	horizon := time.Date(2026, 12, 5, 10, 16, 43, 0, time.UTC)
	const asks = "Senders that hold a policy of left.test keep to it until 2026-12-05 10:16:43 UTC, and refuse MX that it does not name.\n" +
		"Its record, policy host and certificate go now, so they cannot learn otherwise.\nType yes to go on: "
	for _, c := range []struct {
		answer string
		args   []string
		stderr string
		code   int
	}{
		{"", nil, asks + "stspub: not confirmed; nothing is changed (--yes goes without asking)\n", 1},
		{"y\n", nil, asks + "stspub: not confirmed; nothing is changed (--yes goes without asking)\n", 1},
		{"yes\n", nil, asks, 0},
		{"", []string{"--yes"}, "", 0},
	} {
		k := &keeper{domains: []publish.Status{{Name: "left.test", Step: publish.StepDrain, Draining: true, Horizon: horizon}}}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, append([]string{"domain", "remove", "left.test", "--now", "--admin", listen(t, k)}, c.args...)...)
		cmd.Env = append(os.Environ(), asCommand+"=1")
		cmd.Stdin = strings.NewReader(c.answer)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		_ = cmd.Run() // its exit code is looked at
		if diff := cmp.Diff(c.stderr, stderr.String()); diff != "" || cmd.ProcessState.ExitCode() != c.code {
			t.Errorf("remove --now %q, answered %q: exit code %d, want %d; -want +got:\n%s", c.args, c.answer, cmd.ProcessState.ExitCode(), c.code, diff)
		}
		if done := len(k.expelled) == 1; done != (c.code == 0) {
			t.Errorf("remove --now %q, answered %q: ended are %q", c.args, c.answer, k.expelled)
		}
	}
}
