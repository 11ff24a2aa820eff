package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/stspub/stspub/internal/lab"
)

// asCommand has this test program be stspub, for tests that need a process.
const asCommand = "STSPUB_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// stspub runs a command line in this process.
func stspub(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return out.String(), errs.String(), code
}

// commands calls f for every command.
func commands(root *cobra.Command, f func(*cobra.Command)) {
	f(root)
	for _, c := range root.Commands() {
		commands(c, f)
	}
}

func TestHelpOfEveryCommand(t *testing.T) {
	n := 0
	commands(newRoot(), func(c *cobra.Command) {
		n++
		path := c.CommandPath()
		switch {
		case c.Short == "" || strings.HasSuffix(c.Short, "."):
			t.Errorf("%s: short help %q, want a phrase without full stop", path, c.Short)
		case c.Example == "":
			t.Errorf("%s: no example", path)
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  "+path) {
				t.Errorf("%s: example %q, want a line to paste, indented by two", path, line)
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s has no help", path, f.Name)
			}
		})
		help, stderr, code := stspub(t, append(strings.Fields(path)[1:], "--help")...)
		if code != 0 || stderr != "" || !strings.Contains(help, "Examples:\n"+c.Example+"\n") {
			t.Errorf("%s --help: exit code %d, %q on standard error, want 0 and the example in\n%s", path, code, stderr, help)
		}
	})
	if n < 15 {
		t.Errorf("%d commands, want all", n)
	}
}

func TestCompletion(t *testing.T) {
	for shell, mark := range map[string]string{"bash": "complete -o default", "zsh": "#compdef stspub", "fish": "complete -c stspub"} {
		script, stderr, code := stspub(t, "completion", shell)
		if code != 0 || stderr != "" || !strings.Contains(script, mark) {
			t.Errorf("completion %s: exit code %d, %q on standard error, %d octets", shell, code, stderr, len(script))
		}
	}
	names, _, code := stspub(t, "__complete", "domain", "")
	want := "add\tAdd a domain, or change what is wanted of it\nadopt\tLet a domain take over the record that somebody else published\n" +
		"claims\tList domains that are claimed and not proven, a line each\ndemote\tTake a domain back to mode testing, until it is promoted\n" +
		"export\tPrint the domains of the API as import takes them, a line of JSON each\nimport\tAdd, change or remove any number of domains\n" +
		"list\tList domains, a line each\npromote\tEnd the roll-out of a domain now: mode enforce\n" +
		"release\tLet another tenant have a domain as soon as he proves that it is his\nremove\tLet a domain drain, or end its drain\n" +
		"retry\tLook at a domain now, and order its certificate without a pause\nshow\tShow all that is known of one domain\n:4\n"
	if diff := cmp.Diff(want, names); code != 0 || diff != "" {
		t.Errorf("completion of domain: exit code %d (-want +got):\n%s", code, diff)
	}
	// No server, no names: and no error in the middle of a command line.
	if names, _, code := stspub(t, "__complete", "domain", "show", "--admin", "unix:/nonexistent", ""); code != 0 || names != ":1\n" {
		t.Errorf("completion of domains without a server: exit code %d, %q, want the error directive", code, names)
	}
}

func TestWrongCalls(t *testing.T) {
	for _, c := range []struct{ args, command, want string }{
		{"serv", "stspub", `unknown command "serv" for "stspub"`},
		{"--nope", "stspub", "unknown flag: --nope"},
		{"serve extra", "stspub serve", `unknown command "extra" for "stspub serve"`},
		{"check", "stspub check", "accepts 1 arg(s), received 0"},
		{"check a.example b.example", "stspub check", "accepts 1 arg(s), received 2"},
		{"check localhost", "stspub check", `domain "localhost": is a single label; write a whole name such as mail.example.org`},
		{"check a.example --resolver nowhere", "stspub check", `--resolver: "nowhere" is not ADDR or ADDR:PORT`},
		{"check a.example --ca /nonexistent", "stspub check", "--ca: open /nonexistent: no such file or directory"},
		{"check a.example --ca main.go", "stspub check", "--ca: main.go holds no certificate in PEM"},
		{"domain", "stspub domain", "domain needs a command"},
		{"domain lst", "stspub domain", `unknown command "lst" for "stspub domain"`},
		{"domain show", "stspub domain show", "accepts 1 arg(s), received 0"},
		{"domain show ex_ample.org", "stspub domain show", `domain "ex_ample.org": has an underscore, which no host name may have`},
		{"domain adopt co.uk", "stspub domain adopt", `domain "co.uk": is a public suffix, below which a registry hands out names; write one of those`},
		{"domain add a.example --mxset eu", "stspub domain add", "--mxset and --publish are needed"},
		{"mxset put eu --mx mx1.example.net --mode enforce", "stspub mxset put", "--mx, --mode and --max-age are needed"},
		{"mxset put eu --mx mx1.example.net --mode enforce --max-age long", "stspub mxset put", `--max-age: "long": is no duration; write it like "90s", "36h", "10d" or "1w2d"`},
		{"webhook put panel", "stspub webhook put", "--url is needed"},
		{"account put main --set server", "stspub account put", `--set: "server" is not KEY=VALUE`},
		{"config", "stspub config", "config needs a command"},
		{"config check a b", "stspub config check", "accepts at most 1 arg(s), received 2"},
		{"reload now", "stspub reload", `unknown command "now" for "stspub reload"`},
		{"reload --force", "stspub reload", "flag needs an argument: --force"},
		{"reload --force 1", "stspub reload", `--force: "1" is no hash of a plan; look at what would be let through: stspub plan`},
		{"reload --force --json", "stspub reload", `--force: "--json" is no hash of a plan; look at what would be let through: stspub plan`},
		{"plan new.toml", "stspub plan", `unknown command "new.toml" for "stspub plan"`},
		{"version --short", "stspub version", "unknown flag: --short"},
	} {
		_, stderr, code := stspub(t, strings.Fields(c.args)...)
		if want := "stspub: " + c.want + "\nstspub: hint: " + c.command + " --help\n"; code != 2 || stderr != want {
			t.Errorf("stspub %s: exit code %d, %q, want 2, %q", c.args, code, stderr, want)
		}
	}
}

func TestCommandsWithoutServer(t *testing.T) {
	const running = `is "stspub serve" running, and is this the [server] admin of its configuration?`
	for _, c := range []struct{ args, doing string }{
		{"domain list", "show faults: "},
		{"domain list --json", "show faults: "},
		{"domain show a.example", "show domain: "},
		{"domain adopt a.example", "adopt domain: "},
		{"domain retry a.example", "retry domain: "},
		{"records a.example", "show records: "},
		{"domain add a.example --mxset eu --publish alias", "add domain: "},
		{"domain remove a.example", "remove domain: "},
		{"domain export", "list domains: "},
		{"mxset list", "list mx sets: "},
		{"mxset put eu --mx mx1.example.net --mode enforce --max-age 2w", "put mx set: "},
		{"account list", "list accounts: "},
		{"tenant list", "list tenants: "},
		{"token add", "add token: "},
		{"webhook list", "list webhooks: "},
		{"webhook show panel", "show webhook: "},
		{"webhook put panel --url https://panel.example.net/", "put webhook: "},
		{"webhook test panel", "test webhook: "},
		{"webhook resume panel", "resume webhook: "},
		{"webhook remove panel", "remove webhook: "},
		{"node list", "list nodes: "},
		{"node remove node1", "remove node: "},
		{"reload", "reload: "},
		{"reload --force 0123456789abcdef", "reload: "},
		{"plan", "plan: "},
		{"plan --json", "plan: "},
		{"healthcheck", ""},
	} {
		for admin, why := range map[string]string{
			"unix:/nonexistent/admin.sock": "no such socket; " + running + ": file does not exist",
			"127.0.0.1:1":                  "nobody listens there; " + running + ": connection refused",
		} {
			out, stderr, code := stspub(t, append(strings.Fields(c.args), "--admin", admin)...)
			if want := "stspub: " + c.doing + `connect to "` + admin + `": ` + why + "\n"; code != 1 || out != "" || stderr != want {
				t.Errorf("stspub %s: exit code %d, %q, %q, want 1, %q", c.args, code, out, stderr, want)
			}
		}
	}
	// The listener is found in the configuration, even in one that is broken.
	path := filepath.Join(t.TempDir(), "stspub.toml")
	write(t, path, "[server]\nadmin = \"unix:/nonexistent/by-config.sock\"\nnonsense = [\n")
	if _, stderr, code := stspub(t, "reload", "--config", path); code != 1 || !strings.Contains(stderr, `"unix:/nonexistent/by-config.sock"`) {
		t.Errorf("stspub reload --config: exit code %d, %q, want 1 and the socket of the configuration", code, stderr)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const goodConfig = `[server]
hostname = "sts.example.com"
[store]
url = "sqlite:stspub.db"
[acme.le]
directory = "https://acme.example/dir"
[account.main]
provider = "cloudflare"
api_token_file = "token"
[mxset.eu]
mx = ["mx1.example.net"]
mode = "enforce"
max_age = "2w"
[[domain]]
name = "example.org"
mxset = "eu"
publish = "zone"
account = "main"
`

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.toml"), filepath.Join(dir, "bad.toml")
	write(t, filepath.Join(dir, "token"), "0123456789abcdef\n")
	write(t, good, goodConfig)
	write(t, bad, strings.NewReplacer(
		"[store]", "colour = \"red\"\n[store]", `"mx1.example.net"`, `"*.*.example.net", "mx_1.example.net"`, `"enforce"`, `"strict"`,
		`"2w"`, `"0s"`, `mxset = "eu"`, `mxset = "us"`, `account = "main"`, `account = "other"`, `"token"`, `"missing"`,
	).Replace(goodConfig))

	out, stderr, code := stspub(t, "config", "check", good)
	if want := good + " is good: domains 1, MX sets 1, accounts 1\n"; code != 0 || out != want || stderr != "" {
		t.Errorf("config check of a good one: exit code %d, %q, %q, want 0, %q", code, out, stderr, want)
	}
	out, stderr, code = stspub(t, "config", "check", bad)
	want := strings.ReplaceAll(`FILE:3: server.colour: unknown key; known here: addresses, admin, admin_cert_file, admin_key_file, admin_tls, health, hostname, http, https, linger, node, node_address, proxies, state
FILE:10: account.main.api_token_file: there is no such file; write the path of the file that holds the secret
FILE:12: mxset.eu.mx: "*.*.example.net": a wildcard is only the whole first label, once, as in *.example.com (RFC 8461, Section 4.1)
FILE:12: mxset.eu.mx: "mx_1.example.net": has an underscore, which no host name may have
FILE:13: mxset.eu.mode: "strict": is no mode; write "enforce", "testing" or "none"
FILE:14: mxset.eu.max_age: "0s" is out of range; 1 to 31557600 seconds, about a year (RFC 8461, Section 3.2); "2w" is a good start
FILE:17: domain.mxset: "us" has no table [mxset.NAME]; there are: eu
FILE:19: domain.account: "other" has no table [account.NAME]; there are: main
`, "FILE", bad)
	if diff := cmp.Diff(want, stderr); code != 1 || out != "" || diff != "" {
		t.Errorf("config check of a bad one: exit code %d, %q (-want +got):\n%s", code, out, diff)
	}
	missing := filepath.Join(dir, "nowhere.toml")
	for _, args := range [][]string{{"config", "check", missing}, {"serve", "--config", missing}} {
		_, stderr, code := stspub(t, args...)
		want := "read configuration " + missing + ": no such file or directory\n"
		if code != 1 || strings.TrimPrefix(stderr, "stspub: ") != want {
			t.Errorf("stspub %v: exit code %d, %q, want 1, %q", args, code, stderr, want)
		}
	}
}

func TestVersion(t *testing.T) {
	out, _, code := stspub(t, "version")
	if code != 0 || !regexp.MustCompile(`^stspub \S+( [0-9a-f]{40})?\n$`).MatchString(out) {
		t.Errorf("version: exit code %d, %q", code, out)
	}
}

// A domain with a fault ends with 1, as one that cannot be looked at does; TestDev checks good ones.
func TestCheckOfFaults(t *testing.T) {
	server, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "example.test", Text: "@ MX 10 mx\nmx A 127.0.0.1\n"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	out, stderr, code := stspub(t, "check", "example.test", "--resolver", server.Addr)
	if code != 1 || stderr != "" || !strings.HasPrefix(out, "example.test: ") || !strings.Contains(out, "(RFC 8461, 3.1)") {
		t.Errorf("check of a domain without MTA-STS: exit code %d, %q, %q, want 1 and the section of the RFC", code, out, stderr)
	}
	server.SetFault(".", lab.FaultRefused)
	if out, _, code := stspub(t, "check", "example.test", "--resolver", server.Addr, "--json"); code != 1 || !strings.Contains(out, "REFUSED") {
		t.Errorf("check without DNS: exit code %d, %q, want 1 and the cause", code, out)
	}
}

// child is this test program as stspub.
func child(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Under its own name, lines to paste would begin with "go run".
	program := filepath.Join(t.TempDir(), "stspub")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}
