package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/publish"
)

// TestAPIDocument does what docs/api.md says, in its words, and sees that it comes out as it says.
func TestAPIDocument(t *testing.T) {
	o := newOperator(t)
	socket := filepath.Join(o.dev.dir, "admin.sock")
	run := func(header string, said ...string) {
		t.Helper()
		blocks := sectionOf(t, "../../docs/api.md", header)
		for i := range blocks {
			blocks[i][1] = strings.ReplaceAll(blocks[i][1], "/run/stspub/admin.sock", socket)
		}
		if len(blocks) == 0 {
			t.Errorf("%q has no examples", header)
		}
		all := ""
		for len(blocks) > 0 {
			o.do(&blocks, 1)
			all += o.said
		}
		for _, want := range said {
			if !strings.Contains(all, want) {
				t.Errorf("the examples of %q do not say %q:\n%s", header, want, all)
			}
		}
	}
	run("# The admin API\n", `"openapi":"3.1.0"`, `"name":"one.test"`)
	run("\n## Who may do what\n", "tenant acme may have 500 domains", "panel-of-acme", "MXSET  OWNER", `"label":"panel-of-acme"`, " is revoked\n")
	run("\n## Add a domain\n", `"result":"added"`, "mx set eu is in mode enforce with mx1.provider.test", "shop.example unchanged",
		"mta-sts.shop.example. 300 IN CNAME mta-sts.provider.test.", "mx set                             eu\n", `"name":"shop.example","result":"removed"`, "one.test ")
	run("\n## Change an MX set\n", "mx +mx2.provider.test, mx -mx1.provider.test", "mx        mx1.provider.test\n")
	run("\n## Many domains at once\n", `{"name":"a.example","result":"added"`, `"error":"shop.example is not here","status":404`,
		`{"name":"nowhere.example","error":"nowhere.example: publish: `, "2 domains: 2 added\n", `{"name":"c.example","mxset":"eu","publish":"alias"}`)
	run("\n## Lists\n", "HTTP/1.1 200 OK", "Content-Type: application/json")
	run("\n## Claims\n", "customer.example claimed; what proves it: stspub records customer.example", "mta-sts.customer.example. 300 IN CNAME acme.mta-sts.provider.test.",
		"_stspub-challenge.customer.example.")
	run("\n## Accounts\n", "account own at rfc2136 is taken; not tried: ", "own      api    rfc2136",
		`account \"own\" was changed since it was read, or is gone; read it again`, "account own is removed")
	run("\n## Commands in scripts\n", `{"name":"one.test",`, `{"name":"c.example","result":"retried"}`+"\n", `"domains":600`)
	run("\n## Events\n", `"kind":"mxset.added"`, `"kind":"account.added"`, "c.example", "domain.added", "[socket]")
	run("\n## Webhooks\n", "url      https://panel.provider.test/hooks\n", "domain.fault-cleared\n", `"name":"panel","tenant":"acme"`)
	o.dev.interrupt(t)
}

// What is imported comes out as it went in, and what is refused is named with its line.
func TestImportAndExport(t *testing.T) {
	o := newOperator(t)
	stspub := func(want int, args ...string) string {
		t.Helper()
		out, _, code := o.stspub(args...)
		if code != want {
			t.Errorf("stspub %q: exit code %d, want %d\n%s", args, code, want, out)
		}
		return out
	}
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(o.dev.dir, name)
		write(t, path, text)
		return path
	}
	stspub(0, "mxset", "put", "eu", "--mx", "mx1.provider.test", "--mode", "testing", "--max-age", "1d")
	lines := `{"name":"a.example","mxset":"eu","publish":"zone","account":"lab","tlsrpt":["mailto:a@a.example","https://a.example/r"]}
{"name":"b.example","mxset":"eu","publish":"shared"}
{"name":"c.example","mxset":"eu","publish":"manual"}
`
	in := file("in.ndjson", lines)
	if out := stspub(0, "domain", "import", in, "--dry-run"); out != "3 domains: 3 added; nothing is changed\n" {
		t.Errorf("import --dry-run: %q", out)
	}
	if out := stspub(0, "domain", "export"); out != "" {
		t.Errorf("export after a dry run: %q", out)
	}
	if out := stspub(0, "domain", "import", in); out != "3 domains: 3 added\n" {
		t.Errorf("import: %q", out)
	}
	if out := stspub(0, "domain", "export"); out != lines {
		t.Errorf("export: %q, want what was imported", out)
	}
	if out := stspub(0, "domain", "export", "--all", "--mxset", "main"); strings.Count(out, "\n") != 3 || !strings.Contains(out, `"name":"one.test"`) {
		t.Errorf("export --all: %q, want those of the file", out)
	}
	mixed := file("mixed.txt", "# customers\n\na.example\nexample.b..\none.test\n{\"name\":\"c.example\",\"remove\":true}\n")
	out := stspub(1, "domain", "import", mixed, "--mxset", "eu", "--publish", "manual")
	for _, want := range []string{
		"mixed.txt:4: example.b..: name: ", "mixed.txt:5: domain \"one.test\" belongs to the configuration file: change it there\n",
		"4 domains: 1 changed, 1 removed, 2 refused\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("import of what is not all good:\n%swant %q", out, want)
		}
	}
	var first struct{ Name, Result string }
	out = stspub(0, "domain", "import", in, "--json")
	if err := json.Unmarshal([]byte(strings.SplitAfter(out, "\n")[0]), &first); err != nil || first.Name != "a.example" || strings.Count(out, "\n") != 3 {
		t.Errorf("import --json: %q, %v", out, err)
	}
	for _, tt := range []struct{ text, want string }{
		{"", "names no domain\n"},
		{"a.example\n", `.txt:1: "a.example" has no MX set or way to publish; give --mxset and --publish` + "\n"},
		{`{"name":"a.example","color":"red"}`, ".txt:1: is no change of a domain: json: unknown field \"color\"\n"},
	} {
		if out := stspub(1, "domain", "import", file("bad.txt", tt.text)); !strings.HasSuffix(out, tt.want) {
			t.Errorf("import of %q: %q, want %q", tt.text, out, tt.want)
		}
	}
	if out := stspub(0, "domain", "remove", "b.example", "--dry-run"); out != "b.example would be removed\n" {
		t.Errorf("remove --dry-run: %q", out)
	}
	if out := stspub(0, "domain", "remove", "b.example", "--now", "--yes"); !strings.HasPrefix(out, "b.example ends now") {
		t.Errorf("remove --now: %q", out)
	}
	o.await("b.example", "gone", func(publish.Status) bool { return false })
	if out := stspub(1, "domain", "remove", "one.test"); !strings.Contains(out, "belongs to the configuration file: change it there") {
		t.Errorf("remove of what the file declares: %q", out)
	}
	if _, err := os.Stat(in); err != nil {
		t.Error(err)
	}
}
