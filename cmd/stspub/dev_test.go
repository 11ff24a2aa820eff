package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// screen is what a process prints, to be read while it does.
type screen struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

// since returns what was printed after the first n octets.
func (s *screen) since(n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()[n:]
}

// devRun is a running "stspub dev".
type devRun struct {
	dir    string
	cmd    *exec.Cmd
	screen *screen
	done   chan struct{} // closed when it ended
}

// startDev starts it on free ports. Another program may take one before it does; then it starts anew.
func startDev(t *testing.T) *devRun {
	t.Helper()
	for range 5 {
		d := &devRun{dir: t.TempDir(), screen: &screen{}, done: make(chan struct{})}
		d.cmd = child(t, "dev", "--dir", d.dir, "--https", freeAddr(t), "--http", freeAddr(t), "--dns", "127.0.0.1:0")
		d.cmd.Stdout, d.cmd.Stderr = d.screen, d.screen
		if err := d.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { // ends with the process
			_ = d.cmd.Wait() // its exit code is looked at
			close(d.done)
		}()
		t.Cleanup(func() {
			_ = d.cmd.Process.Kill()
			<-d.done
		})
		if d.waitFor(t, 0, func(text string) bool { return strings.HasSuffix(text, "\nready\n") }) {
			return d
		}
		if text := d.screen.since(0); !strings.Contains(text, "address already in use") {
			t.Fatalf("stspub dev ended:\n%s", text)
		}
	}
	t.Fatal("ports are taken again and again")
	return nil
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// waitFor waits until what was printed since from is good, or the process has ended; then it is false.
func (d *devRun) waitFor(t *testing.T, from int, good func(text string) bool) bool {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if good(d.screen.since(from)) {
			return true
		}
		select {
		case <-tick.C:
		case <-d.done:
			return good(d.screen.since(from))
		case <-deadline.C:
			t.Fatalf("not printed within two minutes:\n%s", d.screen.since(0))
		}
	}
}

// paste runs the printed lines that match, as a user does who pastes them.
func (d *devRun) paste(t *testing.T, line string) (n int, output string) {
	t.Helper()
	for _, l := range regexp.MustCompile(`(?m)^  `+line+`$`).FindAllString(d.screen.since(0), -1) {
		cmd := exec.Command("sh", "-c", l)
		cmd.Env = append(os.Environ(), asCommand+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", l, err, out)
		}
		output += string(out)
		n++
	}
	return n, output
}

// steps returns the steps that were printed of a domain since from, in order, each once.
func (d *devRun) steps(from int, domain string) []string {
	var steps []string
	for _, m := range regexp.MustCompile(`(?m)^ *[0-9.]+s  `+regexp.QuoteMeta(domain)+` +(\S+)  `).FindAllStringSubmatch(d.screen.since(from), -1) {
		if !slices.Contains(steps, m[1]) {
			steps = append(steps, m[1])
		}
	}
	return steps
}

// TestDev is the first quarter of an hour of somebody who has just found stspub.
func TestDev(t *testing.T) {
	d := startDev(t)
	way := map[string]string{
		"one.test":   "serve dns cert body settle txt verify live",
		"two.test":   "serve dns cert body settle txt verify delegation (customer) live",
		"three.test": "serve dns cert body settle txt verify delegation (customer) live",
	}
	for domain, want := range way {
		if got := strings.Join(d.steps(0, domain), " "); got != want {
			t.Errorf("steps of %s: %s, want %s", domain, got, want)
		}
	}
	if n, out := d.paste(t, `\S+ check .*`); n != 3 || !strings.Contains(out, "one.test: ") {
		t.Errorf("%d lines with check were printed, want 3; they say\n%s", n, out)
	}
	if n, out := d.paste(t, `\S+ domain list .*`); n != 1 || strings.Count(out, " live ") != 3 {
		t.Errorf("%d lines with domain list were printed, want 1; they say\n%s", n, out)
	}
	d.change(t)
	d.mistake(t)
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-d.done
	if code := d.cmd.ProcessState.ExitCode(); code != 0 || !strings.HasSuffix(d.screen.since(0), "\nended\n") {
		t.Errorf("Ctrl-C: exit code %d, want 0 and \"ended\"; printed:\n%s", code, d.screen.since(0))
	}
	for _, name := range []string{"ca.pem", "stspub.toml", "stspub.db"} {
		if _, err := os.Stat(filepath.Join(d.dir, name)); err != nil {
			t.Errorf("%v; want it left in --dir", err)
		}
	}
}

// hangup sends the signal by the line that was printed.
func (d *devRun) hangup(t *testing.T) {
	t.Helper()
	line := fmt.Sprintf("kill -HUP %d", d.cmd.Process.Pid)
	if !strings.Contains(d.screen.since(0), line+"\n") {
		t.Fatalf("%q was not printed:\n%s", line, d.screen.since(0))
	}
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// edit changes stspub.toml, sends the signal, and returns from where on the answer is printed.
func (d *devRun) edit(t *testing.T, old, new string) (from int) {
	t.Helper()
	path := filepath.Join(d.dir, "stspub.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("stspub.toml has no %q:\n%s", old, text)
	}
	write(t, path, strings.Replace(string(text), old, new, 1))
	from = len(d.screen.since(0))
	d.hangup(t)
	return from
}

// change takes the # from the second MX.
func (d *devRun) change(t *testing.T) {
	t.Helper()
	from := d.edit(t, `# "mx2.provider.test"`, `  "mx2.provider.test"`)
	domains := []string{"one.test", "two.test", "three.test"}
	d.waitFor(t, from, func(string) bool {
		return !slices.ContainsFunc(domains, func(n string) bool { return !slices.Contains(d.steps(from, n), "live") })
	})
	if text := d.screen.since(from); !strings.Contains(text, "configuration taken: 0 domains added, 3 changed, 0 removed, 0 restored\n") {
		t.Errorf("printed after SIGHUP:\n%s", text)
	}
	for _, domain := range domains {
		if got := strings.Join(d.steps(from, domain), " "); !strings.HasPrefix(got, "serve ") || !strings.Contains(got, "body settle txt verify ") {
			t.Errorf("steps of %s after the change: %s, want body, settle, txt, verify in it", domain, got)
		}
	}
	if _, out := d.paste(t, `\S+ check .*`); strings.Count(out, "mx2.provider.test") < 3 {
		t.Errorf("after the change the check says\n%s", out)
	}
}

// mistake makes a typing mistake.
func (d *devRun) mistake(t *testing.T) {
	t.Helper()
	from := d.edit(t, `mode = "enforce"`, `mode = "enforced"`)
	d.waitFor(t, from, func(text string) bool {
		return strings.Contains(text, "the configuration is not taken, and everything stays as it was:") &&
			strings.Contains(text, `mxset.main.mode: "enforced": is no mode; write "enforce", "testing" or "none"`)
	})
	d.paste(t, `\S+ check .*`)
}
