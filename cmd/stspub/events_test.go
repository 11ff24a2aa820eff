package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// TestEvents follows a whole stspub, over a restart of it, while an operator changes things.
func TestEvents(t *testing.T) {
	o := newOperator(t)
	follower := &devRun{dir: o.dev.dir, screen: &screen{}, done: make(chan struct{})}
	follower.cmd = child(t, "events", "--follow", "--since", "1h", "--admin", "unix:"+filepath.Join(o.dev.dir, "admin.sock"))
	follower.cmd.Stdout, follower.cmd.Stderr = follower.screen, follower.screen
	if err := follower.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		_ = follower.cmd.Wait() // its exit code is looked at
		close(follower.done)
	}()
	t.Cleanup(func() {
		_ = follower.cmd.Process.Kill()
		<-follower.done
	})
	sees := func(words ...string) {
		t.Helper()
		good := follower.waitFor(t, 0, func(text string) bool {
			for _, w := range words {
				if !strings.Contains(text, w) {
					return false
				}
			}
			return true
		})
		if !good {
			t.Fatalf("events --follow ended, want %q:\n%s", words, follower.screen.since(0))
		}
	}
	do := func(args ...string) string {
		t.Helper()
		out, _, code := o.stspub(args...)
		if code != 0 {
			t.Fatalf("stspub %q: exit code %d\n%s", args, code, out)
		}
		return out
	}
	sees("configuration.taken", "one.test                  domain.added          added [file]", "certificate.issued    valid until ",
		"domain.step           live\n")
	do("mxset", "put", "eu", "--mx", "mx1.provider.test", "--mode", "testing", "--max-age", "1d")
	do("domain", "add", "new.example", "--mxset", "eu", "--publish", "manual")
	sees("mxset.added           added [socket]", "new.example               domain.added          added [socket]")

	o.dev.interrupt(t)
	sees("stspub: lost the server (", "trying again\n")
	o.dev = startDev(t, o.dev.dir)
	sees("stspub: connected again; nothing was missed\n", "node.gone ")
	do("domain", "remove", "new.example")
	sees("new.example               domain.removed ")
	if err := follower.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-follower.done:
	case <-time.After(time.Minute):
		t.Fatal("events --follow goes on after an interrupt")
	}
	if code := follower.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("events --follow ended with %d", code)
	}
	if n := strings.Count(follower.screen.since(0), "new.example               domain.added "); n != 1 {
		t.Errorf("the domain was added %d times:\n%s", n, follower.screen.since(0))
	}

	var kinds []string
	last := int64(0)
	for line := range strings.Lines(do("events", "--domain", "new.example", "--kind", "domain.added,domain.removed", "--json")) {
		var e store.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Seq <= last || e.Actor != "socket" || e.Name != "new.example" {
			t.Errorf("%v in %q after number %d", err, line, last)
		}
		kinds, last = append(kinds, e.Kind), e.Seq
	}
	if got := strings.Join(kinds, " "); got != "domain.added domain.removed" {
		t.Errorf("events --json has %q", got)
	}
	if out := do("events", "--since", "1h", "--name", "eu"); strings.Count(out, "\n") != 1 {
		t.Errorf("events --name eu: %q", out)
	}
	if out, _, code := o.stspub("events", "--kind", "nothing"); code != 1 || !strings.Contains(out, `query.kind="nothing": there is no such kind; there are account.added, `) {
		t.Errorf("events --kind nothing: exit code %d, %q", code, out)
	}
	if out, _, code := o.stspub("events", "--since", "tomorrow"); code != 2 || !strings.HasPrefix(out, `stspub: --since: "tomorrow" is no time; write one like 2h, `) {
		t.Errorf("events --since tomorrow: exit code %d, %q", code, out)
	}
	if out := do("__complete", "events", "--kind", "domain.f"); out != "domain.fault\ndomain.fault-cleared\n:4\n" {
		t.Errorf("completion of --kind: %q", out)
	}
	if out := do("__complete", "events", "--domain", "one"); !strings.HasPrefix(out, "one.test\n:4\n") {
		t.Errorf("completion of --domain: %q", out)
	}
	o.dev.interrupt(t)
}

func TestSinceArg(t *testing.T) {
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "2h": now.Add(-2 * time.Hour), "1w2d": now.AddDate(0, 0, -9), "2026-11-20": time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC),
		"2026-11-20 10:11:12": time.Date(2026, 11, 20, 10, 11, 12, 0, time.UTC), "2026-11-22T09:00:00+01:00": now,
	} {
		if got, err := sinceArg(text, now); err != nil || !got.Equal(want) {
			t.Errorf("sinceArg(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	if s := printable("a\x1b[2Jb\nü✓"); s != "a\uFFFD[2Jb\uFFFDü✓" {
		t.Errorf("printable = %q", s)
	}
}
