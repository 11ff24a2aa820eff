package main

import (
	"bytes"
	"errors"
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
func startDev(t *testing.T, dir string) *devRun {
	t.Helper()
	for range 5 {
		d := &devRun{dir: dir, screen: &screen{}, done: make(chan struct{})}
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
	d := startDev(t, t.TempDir())
	way := map[string]string{
		"one.test":   "serve dns cert body settle txt verify live",
		"two.test":   "serve dns cert body settle delegation (customer) live",
		"three.test": "serve dns cert body settle txt verify delegation (customer) live",
	}
	for domain, want := range way {
		// Where the shared record is not there yet, its domains wait for that first.
		if got := strings.Join(d.steps(0, domain), " "); got != want && got != "body "+strings.Replace(want, " body", "", 1) {
			t.Errorf("steps of %s: %s, want %s", domain, got, want)
		}
	}
	if n, out := d.paste(t, `\S+ check .*`); n != 3 || !strings.Contains(out, "one.test: ") {
		t.Errorf("%d lines with check were printed, want 3; they say\n%s", n, out)
	}
	if n, out := d.paste(t, `\S+ domain list .*`); n != 1 || strings.Count(out, " live ") != 4 { // with the shared record
		t.Errorf("%d lines with domain list were printed, want 1; they say\n%s", n, out)
	}
	overview, table, code := stspub(t, "certs", "--admin", "unix:"+filepath.Join(d.dir, "admin.sock"))
	for _, want := range []string{"4 of 4 names have a valid certificate", "of 280 orders in 3 hours", "mta-sts.one.test", "mta-sts.three.test"} {
		if !strings.Contains(overview, want) {
			t.Errorf("certs: exit code %d, %s; it says\n%s\nwant %q in it", code, table, overview, want)
		}
	}
	if n, out := d.paste(t, `\S+ reload .*`); n != 1 {
		t.Errorf("%d lines with reload were printed, want 1; they say\n%s", n, out)
	}
	d.change(t)
	d.mistake(t)
	d.interrupt(t)
	for _, name := range []string{"ca.pem", "stspub.toml", "stspub.db"} {
		if _, err := os.Stat(filepath.Join(d.dir, name)); err != nil {
			t.Errorf("%v; want it left in --dir", err)
		}
	}
	again(t, d.dir)
}

// interrupt is Ctrl-C.
func (d *devRun) interrupt(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-d.done
	if code := d.cmd.ProcessState.ExitCode(); code != 0 || !strings.HasSuffix(d.screen.since(0), "\nended\n") {
		t.Errorf("Ctrl-C: exit code %d, want 0 and \"ended\"; printed:\n%s", code, d.screen.since(0))
	}
}

// again is a second run with the same files. One domain is new, and one is held: its MX set leaves out its MX.
func again(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "stspub.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const held, mistaken = "name = \"three.test\"\nmxset = \"main\"", `mode = "enforced"`
	if !strings.Contains(string(text), held) || !strings.Contains(string(text), mistaken) {
		t.Fatalf("stspub.toml lacks %q or %q:\n%s", held, mistaken, text)
	}
	write(t, path, strings.NewReplacer(held, "name = \"three.test\"\nmxset = \"other\"", mistaken, `mode = "enforce"`).Replace(string(text))+`
[[domain]]
name = "four.test"
mxset = "main"
publish = "zone"
account = "lab"

[mxset.other]
mx = ["mx2.provider.test"]
mode = "enforce"
max_age = "1w"
`)
	for run := range 2 { // what is held as before has nothing new to tell
		d := startDev(t, dir)
		n, out := d.paste(t, `\S+ check .*`)
		if n != 3 || !strings.Contains(out, "four.test: ") || strings.Contains(out, "three.test: ") {
			t.Errorf("run %d: %d lines with check were printed, want those of one.test, two.test and four.test; they say\n%s", run, n, out)
		}
		if _, out := d.paste(t, `\S+ domain list .*`); strings.Count(out, " live ") != 4 || strings.Count(out, " mx ") != 1 {
			t.Errorf("run %d: domain list says\n%s", run, out)
		}
		d.interrupt(t)
	}
}

// TestDevUnseen closes what it prints to, as a terminal does that is closed.
func TestDevUnseen(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	cmd := child(t, "dev", "--https", freeAddr(t), "--http", freeAddr(t), "--dns", "127.0.0.1:0")
	stderr := &screen{}
	cmd.Stdout, cmd.Stderr = w, stderr
	cmd.Env = append(cmd.Environ(), "TMPDIR="+tmp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	_, readErr := r.Read(make([]byte, 1))
	if err := errors.Join(readErr, w.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // its exit code is looked at
	if code := cmd.ProcessState.ExitCode(); !late.Stop() || code != 1 || !strings.Contains(stderr.since(0), "print steps: ") {
		t.Errorf("exit code %d, want 1 within a minute; standard error:\n%s", code, stderr.since(0))
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDevAddresses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().String()
	for _, tt := range []struct {
		flag, addr string
		code       int
		want       string
	}{
		{"--dns", "foo", 2, `--dns: "foo" is no address to listen at; write ADDR:PORT as in "127.0.0.1:8053"`},
		{"--dns", "localhost:53", 2, `--dns: "localhost:53" is no address`},
		{"--https", "127.0.0.1:x", 2, `--https: "127.0.0.1:x" is no address`},
		{"--http", "127.0.0.1:65536", 2, `--http: "127.0.0.1:65536" is no address`},
		{"--https", "127.0.0.1:0", 2, `--https: "127.0.0.1:0" has port 0; choose a port from 1 to 65535`},
		{"--http", "127.0.0.1:0", 2, `--http: "127.0.0.1:0" has port 0`},
		{"--https", taken, 1, "address already in use; choose another address with --https ADDR:PORT"},
		{"--http", taken, 1, "address already in use; choose another address with --http ADDR:PORT"},
		{"--dns", taken, 1, "address already in use; choose another address with --dns ADDR:PORT"},
	} {
		addrs := map[string]string{"--https": freeAddr(t), "--http": freeAddr(t), "--dns": "127.0.0.1:0"}
		addrs[tt.flag] = tt.addr
		cmd := child(t, "dev", "--https", addrs["--https"], "--http", addrs["--http"], "--dns", addrs["--dns"])
		out, _ := cmd.CombinedOutput() // its exit code is looked at
		if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(out), "stspub: "+tt.flag+": ") || !strings.Contains(string(out), tt.want) {
			t.Errorf("dev %s %s: exit code %d, want %d and %q; printed:\n%s", tt.flag, tt.addr, code, tt.code, tt.want, out)
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
	domains := []string{"one.test", "*.main.s.default.sts.provider.test", "three.test"} // the record that serves two.test
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
