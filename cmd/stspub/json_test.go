package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// withoutJSON are the commands that have no --json, and why.
func withoutJSON() map[string]string {
	return map[string]string{
		"stspub serve":                 "it runs until it is told to stop; its log is JSON where nobody looks",
		"stspub dev":                   "it is for people who look",
		"stspub healthcheck":           "it prints nothing; the exit code is the answer",
		"stspub domain export":         "it prints what import takes, which is JSON in any case",
		"stspub help":                  "it prints help",
		"stspub completion bash":       "it prints a script",
		"stspub completion fish":       "it prints a script",
		"stspub completion powershell": "it prints a script",
		"stspub completion zsh":        "it prints a script",
	}
}

// leaves calls f for every command that does something.
func leaves(f func(*cobra.Command)) {
	root := newRoot()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	commands(root, func(c *cobra.Command) {
		if c.Runnable() && !c.HasSubCommands() {
			f(c)
		}
	})
}

func TestEveryCommandHasJSON(t *testing.T) {
	without := withoutJSON()
	leaves(func(c *cobra.Command) {
		_, excused := without[c.CommandPath()]
		if has := c.Flags().Lookup("json") != nil; has == excused {
			t.Errorf("%s has --json: %v; it has to print its result as JSON, or to be in the list of those that do not", c.CommandPath(), has)
		}
		delete(without, c.CommandPath())
	})
	for path := range without {
		t.Errorf("there is no command %q", path)
	}
}

// machine runs commands as a program does, which reads JSON.
type machine struct {
	*testing.T
	ran map[string]bool // by their paths
}

// run runs a command with --json, and returns the objects that it prints. The first has certain keys, or values as in
// "result=removed".
func (m *machine) run(line string, wantCode int, keys ...string) []map[string]any {
	m.Helper()
	args := strings.Fields(line)
	command, _, err := newRoot().Find(args)
	if err != nil {
		m.Fatal(err)
	}
	m.ran[command.CommandPath()] = true
	out, stderr, code := stspub(m.T, append(args, "--json")...)
	if code != wantCode {
		m.Fatalf("stspub %s --json: exit code %d, want %d\n%s%s", line, code, wantCode, out, stderr)
	}
	var all []map[string]any
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var v map[string]any
		err := d.Decode(&v)
		if err == io.EOF {
			break
		}
		if err != nil {
			m.Fatalf("stspub %s --json prints no objects: %v\n%s", line, err, out)
		}
		all = append(all, v)
	}
	if lines := strings.Count(out, "\n"); len(all) == 0 || lines != len(all) {
		m.Fatalf("stspub %s --json: %d objects on %d lines, want one on each\n%s", line, len(all), lines, out)
	}
	for _, key := range keys {
		key, want, exact := strings.Cut(key, "=")
		if v, there := all[0][key]; !there || exact && fmt.Sprint(v) != want {
			m.Errorf("stspub %s --json: %q is %v, want %q\n%s", line, key, v, want, out)
		}
	}
	return all
}

// TestJSONOfEveryCommand runs every command that has --json: it prints an object, or a line for each, and nothing else.
func TestJSONOfEveryCommand(t *testing.T) {
	o := newOperator(t)
	m := &machine{T: t, ran: make(map[string]bool)}
	file := func(name string) string { return filepath.Join(o.dev.dir, name) }
	t.Setenv("STSPUB_ADMIN", "unix:"+file("admin.sock"))
	resolver := regexp.MustCompile(`DNS server at (\S+)`).FindStringSubmatch(o.dev.screen.since(0))[1]
	o.live("mode: enforce")

	m.run("version", 0, "version")
	m.run("config check "+file("stspub.toml"), 0, "ok=true", "problems", "warnings")
	m.run("check one.test --resolver "+resolver, 1, "name=one.test", "findings")
	m.run("plan", 0, "hash")
	m.run("reload", 0, "added", "changed")
	m.run("certs", 0, "names", "valid")

	m.run("mxset put eu --mx mx1.provider.test --mode testing --max-age 1d", 0, "name=eu", "owner=api", "etag")
	m.run("mxset put eu --mx mx2.provider.test --mode testing --max-age 1d --dry-run", 0, "mxsets")
	m.run("mxset list", 0, "name=eu", "etag")
	m.run("mxset show eu", 0, "name=eu", "mode=testing")
	write(t, file("key"), "bm8gc3VjaCBrZXk=")
	m.run("account put own --provider rfc2136 --set server=192.0.2.53 --set key_name=k --secret-file key="+file("key"), 0, "name=own", "check", "etag")
	m.run("account list", 0, "name", "provider")
	m.run("account remove own", 0, "name=own", "result=removed")

	m.run("domain add new.example --mxset eu --publish manual", 0, "name=new.example", "result=added", "etag")
	write(t, file("list"), "a.example\nb.example\n")
	m.run("domain import "+file("list")+" --mxset eu --publish manual", 0, "name=a.example", "result=added")
	m.run("domain list", 0, "name", "step", "etag")
	m.run("domain show one.test", 0, "name=one.test", "policy", "etag")
	m.run("records one.test", 0, "name=one.test", "records", "id")
	m.run("domain adopt new.example", 0, "name=new.example", "result=allowed")
	m.run("domain retry NEW.example", 0, "name=new.example", "result=retried")
	m.run("domain demote one.test", 0, "name=one.test", "result=demoted")
	m.run("domain promote one.test", 0, "name=one.test", "result=promoted")
	m.run("domain release new.example", 0, "name=new.example", "result=released")
	m.run("domain release new.example --withdraw", 0, "name=new.example", "result=kept")
	m.run("domain remove a.example", 0, "name=a.example", "result=removed")
	m.run("domain remove b.example --now --yes", 0, "name=b.example", "result=ended")

	m.run("tenant add acme --domains 5", 0, "name=acme", "domains=5", "etag")
	m.run("tenant limit acme --orders 7", 0, "name=acme", "orders_a_day=7", "etag")
	m.run("tenant list", 0, "name=acme", "used")
	id := m.run("token add --tenant acme", 0, "id", "token", "role=admin")[0]["id"]
	m.run("token list --tenant acme", 0, fmt.Sprint("id=", id))
	m.run(fmt.Sprint("token revoke ", id), 0, fmt.Sprint("name=", id), "result=revoked")
	m.run("mxset put main --tenant acme --mx mx1.provider.test --mode testing --max-age 1d", 0)
	m.run("domain add customer.example --tenant acme --mxset main --publish alias", 0, "result=claimed")
	m.run("domain claims --tenant acme", 0, "name=customer.example", "records")
	m.run("domain remove customer.example --tenant acme", 0, "result=withdrawn")
	m.run("mxset remove main --tenant acme", 0, "name=main", "result=removed")

	m.run("webhook put panel --tenant acme --url https://panel.provider.test/hooks", 0, "name=panel", "secret", "etag")
	m.run("webhook list --tenant acme", 0, "name=panel", "state")
	m.run("webhook show panel --tenant acme", 0, "name=panel", "kinds")
	m.run("webhook test panel --tenant acme", 1, "taken=false")
	m.run("webhook resume panel --tenant acme", 0, "name=panel", "state")
	m.run("webhook remove panel --tenant acme", 0, "name=panel", "result=removed")
	m.run("tenant remove acme", 0, "name=acme", "result=removed")
	m.run("events --kind mxset,tenant", 0, "seq", "kind")

	copied := file("copy.db")
	m.run("backup "+copied+" --config "+file("stspub.toml"), 0, "file="+copied, "bytes")
	write(t, file("other.toml"), "[store]\nurl = \"sqlite:other.db\"\n")
	if first := m.run("restore "+copied+" --config "+file("other.toml"), 0, "store="+file("other.db")); first[0]["before"] != nil {
		t.Errorf("where no store was, one is kept at %v", first[0]["before"])
	}
	m.run("restore "+copied+" --config "+file("other.toml"), 0, "before="+file("other.db.before"))
	m.run("migrate sqlite:"+file("other.db")+" sqlite:"+file("moved.db"), 0, "domains", "mxsets")
	o.dev.interrupt(t)

	t.Setenv("STSPUB_ADMIN", listen(t, &keeper{}))
	m.run("node list", 0, "id=node1", "silent")
	m.run("node remove node1", 0, "name=node1", "result=removed")

	leaves(func(c *cobra.Command) {
		if c.Flags().Lookup("json") != nil && !m.ran[c.CommandPath()] {
			t.Errorf("%s was not run", c.CommandPath())
		}
	})
}
