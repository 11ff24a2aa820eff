package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// TestRefusedStarts starts a second daemon beside one that runs.
func TestRefusedStarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Cloudflare")
	w.start()
	read, err := os.ReadFile(w.path("stspub.toml"))
	if err != nil {
		t.Fatal(err)
	}
	other := func(name string, change ...string) string {
		w.file(name, strings.NewReplacer(change...).Replace(string(read)))
		return w.path(name)
	}
	free := loopback(t)
	for _, c := range []struct{ name, config, want string }{
		{
			"store", other("store.toml", w.ip, free, "admin.sock", "admin2.sock"),
			fmt.Sprintf("stspub: open store %q: in use by another process (pid %d): end that one, or set another [store] url\n", w.path("stspub.db"), w.daemon.cmd.Process.Pid),
		},
		{
			"port", other("port.toml", "stspub.db", "other.db", "admin.sock", "admin3.sock"),
			fmt.Sprintf("stspub: server.https: listen on %q: another program has the port (ss -ltnp shows which): address already in use\n", w.ip+":8443"),
		},
		{
			"socket", other("socket.toml", "stspub.db", "another.db", w.ip, free),
			fmt.Sprintf("stspub: server.admin: listen on %q: another process listens there, probably a running stspub: address already in use\n", "unix:"+w.path("admin.sock")),
		},
	} {
		_, stderr, code := w.stspub("serve", "--config", c.config)
		if code != 1 || !strings.HasSuffix(stderr, c.want) {
			t.Errorf("%s taken: exit code %d, %q, want 1, %q", c.name, code, stderr, c.want)
		}
	}
	w.must("healthcheck") // the first one did not notice
	w.stop()
}

// TestReadOnlyStore starts the daemon where it may not write.
func TestReadOnlyStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Cloudflare")
	for _, path := range []string{w.dir, w.path("store")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	read, err := os.ReadFile(w.path("stspub.toml"))
	if err != nil {
		t.Fatal(err)
	}
	w.file("stspub.toml", strings.ReplaceAll(string(read), w.path("stspub.db"), w.path("store/stspub.db")))
	p := launch(t, w.path("log"), w.nobody(t), "serve", "--config", w.path("stspub.toml"))
	code := p.end(t)
	want := fmt.Sprintf("stspub: open store %q: open %[1]s: permission denied: let user id ", w.path("store/stspub.db"))
	advice := fmt.Sprintf(" write to directory %q and the files in it\n", w.path("store"))
	if said := p.said(); code != 1 || !strings.Contains(said, want) || !strings.HasSuffix(said, advice) {
		t.Errorf("exit code %d, %q, want 1, %q", code, said, want)
	}
}

// nobody is a user without rights who may read this world's files; nil where the tests have none either, and then the
// directory of the store is closed for them.
func (w *world) nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		if err := os.Chmod(w.path("store"), 0o555); err != nil {
			t.Fatal(err)
		}
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	files, err := filepath.Glob(w.path("*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f != w.path("store") {
			if err := os.Chown(f, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// TestDomainsFile damages the list of domains in every way, while the daemon runs and before it starts.
func TestDomainsFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Cloudflare")
	list := w.customers()
	w.start()
	live := w.live(zoned, "", w.policy("enforce", "5"))
	whole := w.everybody()
	if len(whole) != 16 {
		t.Fatalf("%d domains, want 16", len(whole))
	}
	path := w.path("customers.txt")
	for _, c := range []struct {
		name   string
		damage func() error
		want   string
	}{
		{
			"cut inside a line", func() error { return os.WriteFile(path, []byte(list[:len(list)-8]), 0o600) },
			fmt.Sprintf("domains_file: %q has no line end after line 16, so it may be cut off; end the last line", path),
		},
		{
			"cut between lines", func() error { return os.WriteFile(path, []byte(zoned+"\n"), 0o600) },
			"refused: 15 of 16 domains would be removed (c01.zoned.test, c02.zoned.test, c03.zoned.test, c04.zoned.test, c05.zoned.test, " +
				"c06.zoned.test, c07.zoned.test, c08.zoned.test, c09.zoned.test, c10.zoned.test and 5 more), which looks like a truncated file",
		},
		{"emptied", func() error { return os.WriteFile(path, nil, 0o600) }, fmt.Sprintf("domains_file: %q has no domain in it; write one a line, or leave the key out", path)},
		{"missing", func() error { return os.Remove(path) }, fmt.Sprintf("domains_file: read %q: no such file or directory; write the path of a file with one domain a line", path)},
		{"a directory", func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, fmt.Sprintf("domains_file: read %q: is no regular file; write the path of a file with one domain a line", path)},
	} {
		if err := c.damage(); err != nil {
			t.Fatal(err)
		}
		from := len(w.daemon.said())
		w.hangup()
		w.heardSince(from, `"msg":"configuration not taken; everything stays as it was"`)
		w.unharmed(t, c.name+", reloaded", whole, c.want)
		w.stop()
		w.start()
		w.unharmed(t, c.name+", started", whole, c.want)
		if body, err := fetch(w.sender(zoned), zoned); err != nil || body != live.Policy {
			t.Errorf("%s: after the start %q, %v is served, want %q", c.name, body, err, live.Policy)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		w.file("customers.txt", list)
	}
	if got, want := w.must("reload"), "0 domains added, 0 changed, 0 removed, 0 restored\n"; got != want {
		t.Errorf("stspub reload prints %q, want %q", got, want)
	}
	if list := w.must("domain", "list"); strings.Contains(list, "FAULT configuration") {
		t.Errorf("the fault stays:\n%s", list)
	}
	if got := w.status(zoned); got.ID != live.ID {
		t.Errorf("id %s, want %s as ever", got.ID, live.ID)
	}
}

// customers writes a list of 16 domains, of which one has its DNS set, and returns it.
func (w *world) customers() string {
	w.t.Helper()
	list := zoned + "\n"
	for i := range 15 {
		list += fmt.Sprintf("c%02d.zoned.test\n", i+1)
	}
	w.file("customers.txt", list)
	w.settings.domains = nil
	w.settings.mxsetTail = "domains_file = \"customers.txt\"\npublish = \"zone\"\naccount = \"main\""
	w.configure()
	return list
}

// everybody returns all domains, and which of them drain.
func (w *world) everybody() map[string]bool {
	w.t.Helper()
	all := make(map[string]bool)
	err := w.admin.Domains(w.t.Context(), false, func(s publish.Status) error {
		all[string(s.Name)] = s.Draining
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// unharmed sees that all domains are there, none drains, and the fault is shown.
func (w *world) unharmed(t *testing.T, when string, whole map[string]bool, fault string) {
	t.Helper()
	all := w.everybody()
	if len(all) != len(whole) {
		t.Errorf("%s: %d domains, want %d", when, len(all), len(whole))
	}
	for name, draining := range all {
		if draining {
			t.Errorf("%s: %s drains", when, name)
		}
	}
	if list := w.must("domain", "list"); !strings.HasPrefix(list, "FAULT configuration: ") || !strings.Contains(list, fault) {
		shown, _, _ := strings.Cut(list, "\nDOMAIN ")
		t.Errorf("%s: stspub domain list: %s, want the fault %q", when, shown, fault)
	}
}

// TestBrokenConfiguration breaks the file while the daemon runs, and starts it with the broken one.
func TestBrokenConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "BIND")
	w.settings.domains = []string{zoned}
	w.configure()
	w.start()
	before := w.live(zoned, "", w.policy("enforce", "5"))
	w.settings.mxsetTail = "rolout = \"2w\"\nmax_age = 12"
	w.configure()
	path := w.path("stspub.toml")
	want := path + ":35: TOML syntax: key 'mxset.main.max_age' has already been defined; a key or table stands once"
	_, stderr, code := w.stspub("reload", "--config", path)
	if code != 1 || stderr != "stspub: reload: refused: "+want+"\n" {
		t.Errorf("stspub reload: exit code %d, %q, want 1, %q", code, stderr, want)
	}
	w.settings.mxsetTail = "rolout = \"2w\""
	w.settings.maxAge = "0s"
	w.configure()
	w.hangup()
	w.heard(`"msg":"configuration not taken; everything stays as it was"`, path+":34: mxset.main.rolout: unknown key")
	for range 2 {
		list := w.must("domain", "list", "--config", path)
		for _, want := range []string{"FAULT configuration: ", path + ":32: mxset.main.max_age: ", path + ":34: mxset.main.rolout: unknown key"} {
			if !strings.Contains(list, want) {
				t.Errorf("stspub domain list:\n%s\nwant %q", list, want)
			}
		}
		if body, err := fetch(w.sender(zoned), zoned); err != nil || body != before.Policy {
			t.Errorf("served is %q, %v, want %q", body, err, before.Policy)
		}
		w.stop()
		w.start() // with the broken one
	}
	w.settings.mxsetTail, w.settings.maxAge = "", "5s"
	w.configure()
	w.must("reload", "--config", path)
	if list := w.must("domain", "list"); strings.Contains(list, "FAULT") {
		t.Errorf("the fault stays:\n%s", list)
	}
	if s := w.status(zoned); s.ID != before.ID || s.Step != publish.StepLive {
		t.Errorf("step %s, id %s, want live with %s", s.Step, s.ID, before.ID)
	}
}

// TestClockAhead starts the daemon with a clock that is a day ahead of when it ran last, when the horizon of a draining
// domain has passed by that clock.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Knot")
	w.settings.domains = []string{zoned}
	w.configure()
	w.start()
	w.live(zoned, "", w.policy("enforce", "5"))
	w.settings.domains = nil
	w.configure()
	w.must("reload")
	w.await(zoned, "draining", func(s publish.Status) bool { return s.Step == publish.StepDrain && !s.Horizon.IsZero() })
	w.stop()
	w.dayAhead(t)
	record := w.txt("_mta-sts." + zoned)
	w.start()
	s := w.await(zoned, "held", func(s publish.Status) bool { return s.Step == publish.StepDrain && s.Fault })
	if !strings.HasPrefix(s.Reason, "the clock says ") || !strings.HasSuffix(s.Reason, ": if the clock is right, confirm it: stspub plan prints the command") {
		t.Errorf("reason %q, want the clock and the confirmation", s.Reason)
	}
	for range 2 { // a restart confirms nothing, nor does a reload
		due := s.Due
		s = w.await(zoned, "looked at again", func(s publish.Status) bool { return s.Due.After(due.Add(3 * time.Second)) })
		if got := w.txt("_mta-sts." + zoned); len(got) != 1 || got[0] != record[0] {
			t.Errorf("TXT = %q, want %q", got, record)
		}
		w.must("reload")
		w.crash()
		w.start()
	}
	if list := w.must("domain", "list", "--faults"); !strings.Contains(list, "FAULT hold: the clock says ") {
		t.Errorf("stspub domain list --faults:\n%s\nwant the clock", list)
	}
	if out := w.must("reload", "--force", w.hash()); !strings.Contains(out, "forced: the clock says ") {
		t.Errorf("stspub reload --force prints %q, want the clock", out)
	}
	w.until("record deleted", patience, func() (bool, string) {
		got := w.txt("_mta-sts." + zoned)
		return len(got) == 0, strings.Join(got, " ")
	})
}

// dayAhead sets back by more than a day what the store knows of the time.
func (w *world) dayAhead(t *testing.T) {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), w.path("stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	now := time.Now().UTC()
	if err := st.SetValue(t.Context(), "publish/clock", []byte(now.Add(-25*time.Hour).Format(time.RFC3339))); err != nil {
		t.Fatal(err)
	}
	d, err := st.Domain(t.Context(), policygen.Name(zoned))
	if err != nil {
		t.Fatal(err)
	}
	d.State.Horizon, d.Due = now.Add(-time.Hour), now
	if err := st.Save(t.Context(), &d, now); err != nil {
		t.Fatal(err)
	}
}
