package main

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/publish"
)

// stamped is a time as commands print it.
var stamped = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\dZ`)

func TestTenantCommands(t *testing.T) {
	admin := listen(t, &keeper{})
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"tenant add acme --domains 500 --writes 20", 0, "tenant acme may have 500 domains, 1000 MX sets and 100 accounts, order any certificates a day, and cause 20 DNS writes a day\n", ""},
		{"tenant add acme", 1, "", "stspub: add tenant: there is a tenant \"acme\" already\n"},
		{"tenant limit acme --orders 7 --mxsets 5", 0, "tenant acme may have any domains, 5 MX sets and 100 accounts, order 7 certificates a day, and cause any DNS writes a day\n", ""},
		{"tenant limit nobody", 1, "", "stspub: limit tenant: there is no tenant \"nobody\"\n"},
		{
			"tenant list", 0,
			"TENANT   DOMAINS  MX SETS  ACCOUNTS  ORDERS A DAY  DNS WRITES A DAY  SINCE\n" +
				"acme     any      5        100       0 of 7        any               WHEN\n" +
				"default  any      any      any       any           any               WHEN\n", "",
		},
		{"tenant remove default", 1, "", "stspub: remove tenant: delete tenant \"default\": in use: it is that of the configuration file\n"},
		{"tenant remove acme", 0, "tenant acme is removed\n", ""},
		{"tenant remove acme", 1, "", "stspub: remove tenant: there is no tenant \"acme\"\n"},
		{"tenant add Acme", 1, "", "stspub: add tenant: body.name: expected string to be lower-case letters, digits and hyphens, none of these first or last\n"},
	} {
		out, stderr, code := stspub(t, append(strings.Fields(c.args), "--admin", admin)...)
		if code != c.code || stamped.ReplaceAllString(out, "WHEN") != c.stdout || stderr != c.stderr {
			t.Errorf("stspub %s: exit code %d, %q, %q, want %d, %q, %q", c.args, code, out, stderr, c.code, c.stdout, c.stderr)
		}
	}
	out, _, _ := stspub(t, "tenant", "list", "--json", "--admin", admin)
	var info httpd.TenantInfo
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.Name != "default" {
		t.Errorf("tenant list --json: %q, %v, want one line", out, err)
	}
}

// A token is let in by a file or by the environment, and shown once.
func TestTokenCommands(t *testing.T) {
	admin := listenAt(t, &keeper{domains: []publish.Status{{Name: "good.test", Tenant: "default"}}}, "127.0.0.1:0")
	token, stderr, code := stspub(t, "token", "add", "--label", "me and you", "--expires", "1w", "--admin", admin)
	id := regexp.MustCompile(`^stspub_([a-z2-7]{12})_[0-9a-f]{64}\n$`).FindStringSubmatch(token)
	if code != 0 || id == nil || !strings.HasSuffix(stderr, "to end it: stspub token revoke "+id[1]+"\n") {
		t.Fatalf("token add: exit code %d, %q, %q", code, token, stderr)
	}
	if _, stderr, code := stspub(t, "token", "list", "--admin", admin); code != 1 || !strings.Contains(stderr, "a token is needed here") {
		t.Errorf("token list without one: exit code %d, %q", code, stderr)
	}
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, token)
	out, stderr, code := stspub(t, "token", "list", "--admin", admin, "--token-file", file)
	_, line, _ := strings.Cut(stamped.ReplaceAllString(out, "WHEN"), "\n")
	want := id[1] + " admin WHEN WHEN WHEN me and you"
	if diff := cmp.Diff(want, strings.Join(strings.Fields(line), " ")); code != 0 || stderr != "" || diff != "" {
		t.Errorf("token list: exit code %d, %q (-want +got):\n%s", code, stderr, diff)
	}
	t.Setenv("STSPUB_TOKEN", strings.TrimSpace(token))
	if out, stderr, code := stspub(t, "domain", "list", "--admin", admin); code != 0 || !strings.Contains(out, "good.test") {
		t.Errorf("domain list with STSPUB_TOKEN: exit code %d, %q, %q", code, out, stderr)
	}
	names, _, _ := stspub(t, "__complete", "domain", "show", "--admin", admin, "g")
	if names != "good.test\n:4\n" {
		t.Errorf("completion with STSPUB_TOKEN: %q", names)
	}
	out, _, code = stspub(t, "token", "add", "--role", "read", "--json", "--admin", admin)
	var info httpd.TokenInfo
	if err := json.Unmarshal([]byte(out), &info); err != nil || code != 0 || info.Role != "read" || info.Token == "" {
		t.Errorf("token add --json: exit code %d, %q", code, out)
	}
	if _, stderr, code := stspub(t, "token", "revoke", id[1], "--admin", admin); code != 0 || stderr != "" {
		t.Errorf("token revoke: exit code %d, %q", code, stderr)
	}
	if _, stderr, code := stspub(t, "token", "list", "--admin", admin); code != 1 || !strings.Contains(stderr, "the token was revoked at ") {
		t.Errorf("token list with a revoked one: exit code %d, %q", code, stderr)
	}
	for args, want := range map[string]string{
		"token add --role root":                       `stspub: --role: "root" is neither "admin" nor "read"`,
		"token add --expires soon":                    `stspub: --expires: "soon": is no duration; write it like "90s", "36h", "10d" or "1w2d"`,
		"token list --token-file /nonexistent/token":  "stspub: read --token-file: open /nonexistent/token: no such file or directory",
		"healthcheck --token-file /nonexistent/token": "stspub: read --token-file: open /nonexistent/token: no such file or directory",
		"plan --token-file /nonexistent/token":        "stspub: read --token-file: open /nonexistent/token: no such file or directory",
		"domain list --admin https://127.0.0.1:1":     `stspub: show faults: connect to "https://127.0.0.1:1": nobody listens there;`,
		"domain list --admin https://[nonsense":       `stspub: show faults: ask "https://[nonsense":`,
	} {
		_, stderr, code := stspub(t, strings.Fields(args)...)
		if code == 0 || !strings.HasPrefix(stderr, want) {
			t.Errorf("stspub %s: exit code %d, %q, want %q", args, code, stderr, want)
		}
	}
}
