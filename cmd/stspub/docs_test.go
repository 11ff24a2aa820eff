package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
)

// blocks returns the fenced blocks of a language in a Markdown file, without their indentation.
func blocks(t *testing.T, path, language string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	fence := regexp.MustCompile("(?ms)^( *)```" + language + "\n(.*?)^ *```$")
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		var lines []string
		for line := range strings.Lines(m[2]) {
			lines = append(lines, strings.TrimPrefix(line, m[1]))
		}
		found = append(found, strings.Join(lines, ""))
	}
	return found
}

func TestConfigurationsInREADME(t *testing.T) {
	dir := t.TempDir()
	whole := 0
	found := blocks(t, "../../README.md", "toml")
	for i, text := range found {
		if !strings.Contains(text, "server.hostname") { // a part, which goes with the first whole one
			text = found[0] + text
		} else {
			whole++
		}
		text = strings.ReplaceAll(text, "/etc/stspub/", dir+"/")
		for _, secret := range []string{"cloudflare.token", "tsig.key"} {
			if err := os.WriteFile(filepath.Join(dir, secret), []byte("c2VjcmV0c2VjcmV0\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, "stspub.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		conf, warnings, err := config.Load(path, func(string) string { return "" })
		if err != nil || len(warnings) > 0 || len(conf.Domains) != 1 {
			t.Errorf("configuration %d of README.md: %v, warnings %v", i+1, err, warnings)
		}
	}
	if whole != 2 {
		t.Errorf("README.md has %d whole configurations, want one for each provider", whole)
	}
}

// Every account in docs/providers.md is one that a configuration may hold, and stands below its provider's name.
func TestAccountsInProviders(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("c2VjcmV0c2VjcmV0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("../../config.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	account := regexp.MustCompile(`(?ms)^\[account\.main\]$.*?^(api_token_file = [^\n]*)$`)
	if !account.Match(example) {
		t.Fatal("config.example.toml has no account main")
	}
	tested := make(map[string]bool)
	for i, text := range blocks(t, "../../docs/providers.md", "toml") {
		whole := account.ReplaceAllLiteralString(string(example), strings.ReplaceAll(text, "/run/secrets/", dir+"/"))
		path := filepath.Join(dir, "stspub.toml")
		if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
			t.Fatal(err)
		}
		conf, warnings, err := config.Load(path, func(string) string { return "" })
		if err != nil || len(warnings) > 0 {
			t.Errorf("account %d of providers.md: %v, warnings %v", i+1, err, warnings)
			continue
		}
		a := conf.Accounts["main"]
		if _, err := dnsupdate.Open(a, dnsupdate.Options{}); err != nil {
			t.Errorf("account %d of providers.md: %v", i+1, err)
		}
		tested[a.Provider] = true
	}
	text, err := os.ReadFile("../../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, provider := range []string{"rfc2136", "powerdns", "cloudflare", "route53", "desec", "cloudns", "ovh", "mythicbeasts"} {
		section := regexp.MustCompile("(?s)\n## " + provider + "\n.*?\nprovider = \"" + provider + "\"\n")
		if !tested[provider] || !section.Match(text) || strings.Count(section.FindString(string(text)), "\n## ") != 1 {
			t.Errorf("providers.md has no account for %s in its section", provider)
		}
	}
}

// Every command line in the documents is one that stspub understands; what the commands do is tested elsewhere.
func TestCommandLinesInDocuments(t *testing.T) {
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	substituted := regexp.MustCompile(`"\$\([^)]*\)"`)
	inline := regexp.MustCompile("`stspub ([^`\n]+)`")
	lines := 0
	for _, path := range append(documents, "../../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var calls []string
		for _, m := range inline.FindAllStringSubmatch(string(text), -1) {
			calls = append(calls, m[1])
		}
		for _, block := range blocks(t, path, "sh") {
			for line := range strings.Lines(block) {
				if call, ok := strings.CutPrefix(strings.TrimSpace(line), "stspub "); ok {
					calls = append(calls, call)
				}
			}
		}
		for _, call := range calls {
			lines++
			call, _, _ = strings.Cut(call, " > ") // what the shell does with the output
			call = substituted.ReplaceAllString(call, "x")
			cmd, rest, err := newRoot().Find(strings.Fields(call))
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil && cmd.Name() != "completion" {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: stspub %s: %v", path, call, err)
			}
		}
	}
	if lines < 10 {
		t.Errorf("%d command lines in the documents, want those of README.md", lines)
	}
}

// Every link between the documents leads to a file that is there, and to a header in it.
func TestLinksInDocuments(t *testing.T) {
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#: ]*)(#[^) ]*)?\)`)
	punctuation := regexp.MustCompile(`[^a-z0-9 _-]`)
	links := 0
	for _, path := range append(documents, "../../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			links++
			to := filepath.Join(filepath.Dir(path), m[1])
			if m[1] == "" {
				to = path
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %s: %v", path, m[0], err)
				continue
			}
			if m[2] == "" {
				continue
			}
			there, err := os.ReadFile(to)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(there), -1) {
				anchor := strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")
				found = found || "#"+anchor == m[2]
			}
			if !found {
				t.Errorf("%s: %s: no such header", path, m[0])
			}
		}
	}
	if links < 20 {
		t.Errorf("%d links in the documents, want those of README.md and docs/deploy.md", links)
	}
}

func TestREADMENamesTheTwoCommands(t *testing.T) {
	text := strings.Join(blocks(t, "../../README.md", "sh"), "")
	for _, command := range []string{"go run ./cmd/stspub dev\n", "./test\n"} {
		if !strings.Contains(text, command) {
			t.Errorf("README.md lacks the command %q", command)
		}
	}
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil || !strings.Contains(string(ci), "./test") {
		t.Errorf(".ci/run does not call ./test: %v", err)
	}
}

// Every test that docs/security.md names is there, and every fuzz target is named.
func TestTestsInSecurity(t *testing.T) {
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(\w+ \*testing\.[TF]\)`)
	err = filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range function.FindAllSubmatch(source, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllSubmatch(text, -1) {
		name := string(m[1])
		named[name] = true
		if !there[name] {
			t.Errorf("security.md names %s, which no package has", name)
		}
	}
	for name := range there {
		if strings.HasPrefix(name, "Fuzz") && !named[name] {
			t.Errorf("security.md does not name the fuzz target %s", name)
		}
	}
	if len(named) < 80 {
		t.Errorf("security.md names %d tests, want those for all rows", len(named))
	}
	// A row without a test is an answer that nobody has seen.
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| ") && !strings.Contains(line, "`Test") && !strings.Contains(line, "`Fuzz") &&
			!strings.Contains(line, "shown by") && !strings.Contains(line, "(#limits)") {
			t.Errorf("security.md has no test for: %s", line)
		}
	}
}
