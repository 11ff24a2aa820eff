package packaging_test

import (
	"context"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
)

// commandLines are the commands in blocks, each on one line.
func commandLines(blocks []string) []string {
	var lines []string
	for _, b := range blocks {
		for line := range strings.Lines(strings.ReplaceAll(b, "\\\n", "")) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// TestDeployCommands: no command stands in docs/deploy.md that no test knows. Those of sections that docker runs are run by
// TestImage; there is no systemd to talk to here and no cluster, so systemctl, journalctl and kubectl are read.
func TestDeployCommands(t *testing.T) {
	programs := map[string]string{
		"## Docker":         "docker install chown",
		"### One node":      "docker",
		"### Two nodes":     "docker install test chown",
		"## systemd":        "go install systemctl journalctl stspub curl", // TestDeploySystemd
		"## Kubernetes":     "kubectl",                                     // TestDeployKubernetes
		"## In front of it": "", "## Its own DNS": "", "## Docker Compose": "",
		backingUp: "stspub systemctl pg_dump pg_restore docker", // TestDeployBackup, TestImage
	}
	headers := regexp.MustCompile(`(?m)^##+ .*$`).FindAllString(read(t, deploy), -1)
	if want := slices.Sorted(maps.Keys(programs)); !slices.Equal(slices.Sorted(slices.Values(headers)), want) {
		t.Errorf("sections %q, want %q", headers, want)
	}
	for _, header := range headers {
		for _, line := range commandLines(section(t, header, "sh")) {
			program, _, _ := strings.Cut(line, " ")
			if !slices.Contains(strings.Fields(programs[header]), program) {
				t.Errorf("%s: no test knows %q", header, line)
			}
			if program == "systemctl" || program == "journalctl" {
				checkSystemctl(t, line)
			}
		}
	}
}

// TestDeploySettings: what docs/deploy.md has of settings and of DNS fits to nodes.toml.
func TestDeploySettings(t *testing.T) {
	_, proxies, _ := strings.Cut(section(t, "## In front of it", "toml")[0], "[server]\n")
	text := regexp.MustCompile(`(?m)^proxies = .*\n`).ReplaceAllLiteralString(read(t, "nodes.toml"), proxies)
	conf := nodesConfig(t, text)
	if len(conf.Server.Proxies) != 2 {
		t.Errorf("proxies %v, want two", conf.Server.Proxies)
	}
	names := make(map[string]int)
	for line := range strings.Lines(section(t, "## Its own DNS", "")[0]) {
		rr, err := dns.NewRR(line)
		if err != nil || rr == nil {
			t.Fatalf("%s: %q is no record: %v", deploy, line, err)
		}
		names[strings.TrimSuffix(rr.Header().Name, ".")]++
	}
	if host := conf.Server.Hostname; names[host] != 2 || names["*."+host] != 2 {
		t.Errorf("%s has no A and AAAA records for %s and all names below it: %v", deploy, host, names)
	}
}

// checkSystemctl reads a command to systemd.
func checkSystemctl(t *testing.T, line string) {
	t.Helper()
	const ours = `^(systemctl (daemon-reload|(enable --now|start|stop|restart|reload) stspub)|journalctl --unit stspub)$`
	if !regexp.MustCompile(ours).MatchString(line) {
		t.Errorf("%s: is %q understood?", deploy, line)
	}
}

// TestDeploySystemd runs what docs/deploy.md says of systemd, but for what needs systemd running, in a folder of its own.
func TestDeploySystemd(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"usr/local/bin", "etc/systemd/system"} {
		mkdir(t, filepath.Join(dir, d))
	}
	blocks := section(t, "## systemd", "sh")
	here := strings.ReplaceAll(strings.ReplaceAll(blocks[0], " /", " "+dir+"/"), " stspub ", " "+dir+"/stspub ")
	cmd := exec.Command("bash", "-eu", "-c", here)
	cmd.Dir = root
	run(t, cmd)
	text := read(t, filepath.Join(dir, "etc/systemd/system", unit))
	for path := range strings.SplitSeq(program+" /etc/stspub/stspub.toml", " ") {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil || !strings.Contains(text, path) {
			t.Errorf("the unit needs %s, which is not installed: %v", path, err)
		}
	}

	// The credential is where the configuration looks for it.
	dropIn := section(t, "## systemd", "ini")[0]
	mkdir(t, filepath.Join(dir, "etc/systemd/system", unit+".d"))
	write(t, filepath.Join(dir, "etc/systemd/system", unit+".d/override.conf"), dropIn, 0o644)
	copied := filepath.Join(dir, "etc/systemd/system", unit)
	write(t, copied, strings.ReplaceAll(text, program, filepath.Join(dir, program)), 0o644)
	if stdout, stderr, err := try(exec.Command("systemd-analyze", "verify", copied)); err != nil || stdout+stderr != "" {
		t.Errorf("systemd-analyze verify: %v\n%s%s", err, stdout, stderr)
	}
	name := regexp.MustCompile(`LoadCredential=(\w+):`).FindStringSubmatch(dropIn)
	key := section(t, "## systemd", "toml")[0]
	if name == nil || !strings.HasSuffix(key, `= "/run/credentials/`+unit+"/"+name[1]+"\"\n") {
		t.Errorf("the credential of %q is not what %q reads", dropIn, key)
	}

	// The last line waits until a node is ready.
	lines := commandLines(blocks)
	var asked atomic.Int32
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 || r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = s.Serve(ln) }() // until Close
	t.Cleanup(func() { _ = s.Close() })
	wait := strings.Replace(lines[len(lines)-1], "127.0.0.1:8081", ln.Addr().String(), 1)
	run(t, exec.Command("bash", "-c", wait))
	if n := asked.Load(); n != 2 {
		t.Errorf("%s asked %d times, want until it is ready", wait, n)
	}
}

// TestDeployBackup runs what docs/deploy.md says of copies of the store, on SQLite and PostgreSQL.
func TestDeployBackup(t *testing.T) {
	dir := t.TempDir()
	stspub := filepath.Join(dir, "stspub")
	run(t, exec.Command("go", "-C", root, "build", "-o", stspub, "./cmd/stspub"))
	write(t, filepath.Join(dir, "stspub.toml"), "[store]\nurl = \"sqlite:stspub.db\"\n", 0o600)
	server := labtest.StartPostgreSQL(t)
	from, to := server.Database(t), server.Database(t)
	var dump, restore string
	mkdir(t, filepath.Join(dir, "backups"))
	here := strings.NewReplacer("/var/backups", dir+"/backups", "stspub backup", stspub+" backup --config "+dir+"/stspub.toml",
		"stspub restore", stspub+" restore --config "+dir+"/stspub.toml")
	sqlite := func() store.Store {
		s, err := store.OpenSQLite(t.Context(), filepath.Join(dir, "stspub.db"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	postgres := func(url string) store.Store {
		s, err := store.OpenPostgres(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const key = "publish/test"
	set := func(s store.Store, value string) {
		t.Helper()
		if err := s.SetValue(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	wantCopied := func(s store.Store) {
		t.Helper()
		if value, err := s.Value(context.Background(), key); err != nil || string(value) != "copied" {
			t.Errorf("what was put back has the value %q, %v", value, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s := sqlite()
	set(s, "copied")
	for _, line := range commandLines(section(t, backingUp, "sh")) {
		switch strings.Fields(line)[0] {
		case "stspub":
			if strings.Contains(line, " restore ") {
				set(s, "later")
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			run(t, exec.Command("bash", "-c", here.Replace(line)))
		case "pg_dump":
			dump = here.Replace(line)
		case "pg_restore":
			restore = here.Replace(line)
		}
	}
	wantCopied(sqlite())

	p := postgres(from)
	set(p, "copied")
	const url = "postgres://stspub@db.example.net/stspub?sslmode=verify-full"
	run(t, exec.Command("bash", "-c", strings.Replace(dump, url, from, 1)))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, exec.Command("bash", "-c", strings.Replace(restore, url, to, 1)))
	wantCopied(postgres(to))
}
