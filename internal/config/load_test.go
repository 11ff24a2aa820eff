package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// base is a valid configuration. The tests edit it and count lines: [server] is line 1, [acme.le] 3, [account.main] 5,
// [mxset.eu] 8, [[domain]] 12; what is appended begins in line 17.
const base = `[server]
hostname = "sts.example.com"
[acme.le]
directory = "https://ca.example/dir"
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

// edit is a change of base, and what is to be said of it.
type edit struct {
	name     string
	old, new string // the first is replaced by the second; "": appended
	want     string // problems, or warnings, one a line, in order
}

func (e edit) apply(t testing.TB) string {
	t.Helper()
	if e.old == "" {
		return base + e.new
	}
	if strings.Count(base, e.old) != 1 {
		t.Fatalf("%q is in base %d times, want once", e.old, strings.Count(base, e.old))
	}
	return strings.Replace(base, e.old, e.new, 1)
}

// secretWord is in every secret of these tests, and must be in nothing that is said.
const secretWord = "geheim"

func testFiles() map[string]string {
	return map[string]string{
		"token":        secretWord + "\n",
		"tsig":         "Z2VoZWlt\n",
		"empty":        "\n",
		"two-lines":    secretWord + "\n" + secretWord + "\n",
		"big":          strings.Repeat(secretWord, maxSecret/6+1),
		"no-pem":       "-----BEGIN CERTIFICATE-----\n",
		"customers":    "# customers\n\n  example.com  # new\r\nexample.net\n",
		"cut":          "example.com\nexample.ne",
		"comments":     "# none yet\n\n",
		"none":         "",
		"wrong":        "example.com\nnot a name\nexample.org\nexample.com.\nco.uk\n",
		"umlauts":      "bücher.example\n",
		"all-wrong":    strings.Repeat("_\n", 1000),
		"all-umlauts":  umlauts(1000),
		"folder/token": secretWord,
	}
}

// umlauts returns n names in U-labels, one a line.
func umlauts(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("ü" + strings.Repeat("a", i%50) + ".example" + strings.Repeat("b", i/50) + "\n")
	}
	return b.String()
}

func testEnv(key string) string {
	return map[string]string{"TOKEN": secretWord, "BLANK": " \n", "TSIG": "Z2VoZWlt", "NO_BASE": secretWord + "!"}[key]
}

// load loads an edited base and returns what is said, without the folder.
func load(t testing.TB, e edit) (cfg *Config, warnings, problems string) {
	t.Helper()
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "folder"))
	for name, content := range testFiles() {
		writeFile(t, filepath.Join(dir, name), content, 0o600)
	}
	path := filepath.Join(dir, "stspub.toml")
	writeFile(t, path, e.apply(t), 0o644)
	cfg, ws, err := Load(path, testEnv)
	if (cfg == nil) != (err != nil) {
		t.Errorf("Load = %v, %v, want either", cfg, err)
	}
	var lines []string
	for _, w := range ws {
		lines = append(lines, w.String())
	}
	warnings = strings.ReplaceAll(strings.Join(lines, "\n"), dir+"/", "")
	if err != nil {
		problems = strings.ReplaceAll(err.Error(), dir+"/", "")
	}
	if said := warnings + problems; strings.Contains(said, secretWord) || strings.Contains(said, "Z2VoZWlt") {
		t.Errorf("a secret is shown: %s", said)
	}
	return cfg, warnings, problems
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for _, e := range problemEdits() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			_, _, got := load(t, e)
			if diff := cmp.Diff(e.want, got); diff != "" {
				t.Errorf("problems, -want +got:\n%s", diff)
			}
		})
	}
}

// One line takes an MX set out of mode enforce in an emergency, whatever stands beside it.
func TestRolloutBesideAnyMode(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"enforce", "testing", "none"} {
		cfg, warnings, problems := load(t, edit{mode, `mode = "enforce"`, "rollout = '2w'\nmode = '" + mode + "'", ""})
		if warnings+problems != "" {
			t.Errorf("rollout beside mode %s: %s%s, want it taken", mode, warnings, problems)
		} else if set := cfg.MXSets["eu"]; set.Rollout != 14*24*time.Hour || string(set.Policy.Mode) != mode {
			t.Errorf("rollout beside mode %s: read are %s and %s", mode, set.Rollout, set.Policy.Mode)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, e := range warningEdits() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			_, got, problems := load(t, e)
			if problems != "" {
				t.Fatalf("problems: %s", problems)
			}
			if diff := cmp.Diff(e.want, got); diff != "" {
				t.Errorf("warnings, -want +got:\n%s", diff)
			}
		})
	}
}

func warningEdits() []edit {
	return []edit{
		{name: "nothing to say"},
		{
			"settle of a laboratory", "[mxset.eu]", "[publish]\nsettle = '4m59s'\n[mxset.eu]",
			`stspub.toml:9: publish.settle: "4m59s" is for laboratories: some senders remember an old policy for 5m, and file it under the new id`,
		},
		{
			"MX in U-labels", `"mx1.example.net"`, `"mx1.bücher.example", "*.Bücher.example"`,
			`stspub.toml:9: mxset.eu.mx: "mx1.bücher.example" is published as "mx1.xn--bcher-kva.example"
stspub.toml:9: mxset.eu.mx: "*.Bücher.example" is published as "*.xn--bcher-kva.example"`,
		},
		{
			"domain in U-labels", `"example.org"`, `"bücher.example"`,
			`stspub.toml:13: domain.name: "bücher.example" is published as "xn--bcher-kva.example"`,
		},
		{
			"listed domain in U-labels", `max_age = "2w"`, "max_age = '2w'\ndomains_file = 'umlauts'\npublish = 'zone'\naccount = 'main'",
			`umlauts:1: "bücher.example" is published as "xn--bcher-kva.example"`,
		},
		{
			"max_age under a day", `"2w"`, `86399`,
			`stspub.toml:11: mxset.eu.max_age: 86399 is less than a day; a sender that has no mail for the domain within that ` +
				`time has no policy when it is attacked (RFC 8461, Section 10.2)`,
		},
		{
			"unsigned updates", "", "[account.b]\nprovider = 'rfc2136'\nserver = '192.0.2.53'\n",
			`stspub.toml:17: account.b: updates are not signed: whoever can send from this address can change the zone; ` +
				`write key_name and key_file`,
		},
		{
			"API key in clear", "", "[account.b]\nprovider = 'powerdns'\nserver = 'http://pdns:8081'\napi_key_env = 'TOKEN'\n",
			"stspub.toml:19: account.b.server: the API key goes over the network in clear; write a URL that begins with https://, or let " +
				"nobody else into that network",
		},
		{"unsigned updates on loopback", "", "[account.b]\nprovider = 'rfc2136'\nserver = '127.0.0.1:5353'\n", ""},
	}
}

func TestManyWarningsOfAListAreCutShort(t *testing.T) {
	t.Parallel()
	_, got, problems := load(t, edit{
		old: `max_age = "2w"`,
		new: "max_age = '2w'\ndomains_file = 'all-umlauts'\npublish = 'zone'\naccount = 'main'",
	})
	lines := strings.Split(got, "\n")
	if problems != "" || len(lines) != maxPerList {
		t.Fatalf("%d warnings, problems %q, want %d and none", len(lines), problems, maxPerList)
	}
	if last := lines[maxPerList-1]; !strings.HasSuffix(last, " (what else is wrong in this list is not told)") {
		t.Errorf("last warning = %s", last)
	}
}

func TestSecretFileThatOthersCanRead(t *testing.T) {
	t.Parallel()
	for mode, want := range map[os.FileMode]string{
		0o600: "", 0o400: "", 0o620: "", 0o640: "",
		0o644: `account.main.api_token_file: everybody on this machine can read "token"; chmod 600 it`,
		0o604: `account.main.api_token_file: everybody on this machine can read "token"; chmod 600 it`,
	} {
		path := inFolder(t, "stspub.toml", base, map[string]string{"token": "x"})
		writeFile(t, filepath.Join(filepath.Dir(path), "token"), "x", mode)
		_, warnings, err := Load(path, noEnv)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		for _, w := range warnings {
			got += strings.TrimPrefix(w.String(), path+":7: ")
		}
		if got != want {
			t.Errorf("mode %o: warnings %q, want %q", mode, got, want)
		}
	}
}

func TestMissingFileIsAnErrorOfTheSystem(t *testing.T) {
	t.Parallel()
	_, _, err := Load("/nowhere/stspub.toml", noEnv)
	if !errors.Is(err, os.ErrNotExist) || err.Error() != "read configuration /nowhere/stspub.toml: no such file or directory" {
		t.Errorf("Load = %v", err)
	}
}

func TestEveryMistakeIsAProblem(t *testing.T) {
	t.Parallel()
	path := inFolder(t, "stspub.toml", "[server]\nhostname = 1\nhttps = 2\n", nil)
	_, _, err := Load(path, noEnv)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 3 {
		t.Fatalf("Load = %v, want three errors joined", err)
	}
	p, ok := errors.AsType[Problem](joined.Unwrap()[2])
	want := Problem{File: path, Line: 3, Key: "server.https", Text: `is an integer, want a string: https = "value"`}
	if !ok || p != want {
		t.Errorf("third = %#v, want %#v", joined.Unwrap()[2], want)
	}
}

// What a slip of the hand makes of a secret is no TOML any more; the library's words quote it.
func TestSyntaxErrorsShowNoSecret(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"api_token_file = geheim", "api_token_file = 'geheim", `api_token_file = "geheim`, `api_token_file = "\xgeheim"`,
		`api_token_file = "\ugeheim"`, `api_token_file = "geheim\q"`, "api_token_file = geheim'", "api_token_file = 12geheim",
		"api_token_file = 0xgeheim", "api_token_file = 0x12geheim", "api_token_file = 1979-13-99geheim",
		"api_token_file = 1979-05-27T99:99:99geheim", "geheim", "geheim==", `"geheim"`, "'geheim", "[account.geheim", "[[geheim]",
		`api_token_file = """geheim`, "api_token_file = '''geheim", "api_token_file = [geheim]", "api_token_file = {geheim}",
		"api_token_file = truegeheim", "api_token_file = +geheim", "api_token_file = 'a' geheim", "= geheim", ". geheim",
		"api_token_file = 'a' 'geheim'", "api_token_file = 99999999999999999999999999999999999999999",
		"api_token_file = 0123456789", "api_token_file = 1__2", "api_token_file = 1e", "api_token_file = geheim\x00",
		"api_token_file = \"geheim\x01\"", "api_token_file = \"geheim\xff\"", "api_token_file = 'geheim\rgeheim'",
		`api_token_file = "\uD800geheim"`, `"geh\eim" = geheim`,
	} {
		_, _, got := load(t, edit{old: `api_token_file = "token"`, new: line})
		if !strings.HasPrefix(got, "stspub.toml:") || !strings.Contains(got, ": TOML syntax: ") {
			t.Errorf("%q: problems = %s, want one of syntax", line, got)
		}
		for _, digits := range []string{"9999", "0123", "1__2", "1979"} {
			if strings.Contains(got, digits) {
				t.Errorf("%q is shown: %s", line, got)
			}
		}
	}
}

// TestLoadUnlessKnown: names that are known are not looked at, and nothing else is left out.
func TestLoadUnlessKnown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "stspub.toml")
	write := func(list string) {
		t.Helper()
		for name, text := range map[string]string{"stspub.toml": withList, "customers.txt": list} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("a.example\nb.example\n")
	whole, _, err := Load(path, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	known := func(c *Config) bool { return c.Digest == whole.Digest && c.Store.Path == whole.Store.Path }
	conf, _, err := LoadUnlessKnown(path, os.Getenv, known)
	if err != nil {
		t.Fatal(err)
	}
	if !conf.Unread || len(conf.Domains) > 0 || len(conf.Files) != 2 || conf.Digest != whole.Digest {
		t.Errorf("known: unread %v, %d domains, %d files, digest %s", conf.Unread, len(conf.Domains), len(conf.Files), conf.Digest)
	}
	conf.Unread, conf.Domains = false, whole.Domains
	if diff := cmp.Diff(whole, conf); diff != "" {
		t.Errorf("known, but for the domains:\n%s", diff)
	}
	write("a.example\nb..example\n")
	if _, _, err := LoadUnlessKnown(path, os.Getenv, known); err == nil || !strings.Contains(err.Error(), "customers.txt:2") {
		t.Errorf("another list, with a mistake in line 2: %v", err)
	}
}

const withList = `
server.hostname = "mta-sts.example.com"
acme.test = { directory = "https://acme.example/directory" }
[mxset.main]
mx = ["mx1.example.net"]
mode = "testing"
max_age = "1d"
publish = "manual"
domains_file = "customers.txt"
`
