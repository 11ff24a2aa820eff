package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a running daemon.
type process struct {
	cmd  *exec.Cmd
	log  string        // its file
	from int64         // where in it this process begins
	done chan struct{} // closed when it ended; err is set then
	err  error
}

// launch starts the program; all daemons of a directory write one log.
func launch(t *testing.T, log string, cred *syscall.Credential, args ...string) *process {
	t.Helper()
	return launchProgram(t, binary(), nil, log, cred, args...)
}

// launchProgram is launch for another program, and with more in its environment.
func launchProgram(t *testing.T, program string, env []string, log string, cred *syscall.Credential, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	info, err := out.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(program, args...), log: log, from: info.Size(), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// It must not outlive a test process that is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: cred}
	started := make(chan error)
	go func() { // ends with the program
		// The signal comes when the thread that started the program ends, so it is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if said := p.said(); strings.Contains(said, "DATA RACE") || strings.Contains(said, "panic") {
			t.Errorf("the daemon says:\n%s", said)
		}
	})
	return p
}

// said is what this process logged so far.
func (p *process) said() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(raw[min(p.from, int64(len(raw))):])
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// end waits for the program to end by itself and returns its exit code.
func (p *process) end(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("the program does not end:\n%s", p.said())
	}
	return p.cmd.ProcessState.ExitCode()
}

// start starts the daemon and returns when it serves.
func (w *world) start(args ...string) {
	w.t.Helper()
	w.daemon = w.launch(args...)
	w.until("daemon serves", patience, func() (bool, string) {
		select {
		case <-w.daemon.done:
			w.t.Fatalf("the daemon ended: %v\n%s", w.daemon.err, w.log())
		default:
		}
		return strings.Contains(w.daemon.said(), `"msg":"serving"`), "it does not say so"
	})
}

// launch starts the daemon and does not wait.
func (w *world) launch(args ...string) *process {
	w.t.Helper()
	return launch(w.t, w.path("log"), nil, append([]string{"serve", "--config", w.path("stspub.toml")}, args...)...)
}

// stop ends the daemon as systemd does.
func (w *world) stop() {
	w.t.Helper()
	if err := w.daemon.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	if code := w.daemon.end(w.t); code != 0 {
		w.t.Fatalf("exit code %d after SIGTERM, want 0\n%s", code, w.log())
	}
}

// crash kills the daemon at this very moment.
func (w *world) crash() { w.daemon.kill() }

// hangup sends SIGHUP.
func (w *world) hangup() {
	w.t.Helper()
	if err := w.daemon.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		w.t.Fatal(err)
	}
}

// log is the end of what the daemon has logged, or each node of a cluster.
func (w *world) log() string {
	logs, _ := filepath.Glob(w.path("*.log"))
	var b strings.Builder
	for _, log := range append(logs, w.path("log")) {
		if raw, err := os.ReadFile(log); err == nil {
			fmt.Fprintf(&b, "%s:\n%s\n", filepath.Base(log), raw[max(0, len(raw)-16_000):])
		}
	}
	return b.String()
}

// heard waits until the running daemon has logged a text, which may be given in parts of one line.
func (w *world) heard(parts ...string) {
	w.t.Helper()
	w.heardSince(0, parts...)
}

// heardSince is heard after what was said before, in octets.
func (w *world) heardSince(from int, parts ...string) {
	w.t.Helper()
	w.until("log says "+strings.Join(parts, " … "), patience, func() (bool, string) {
		for line := range strings.Lines(w.daemon.said()[from:]) {
			if containsAll(line, parts) {
				return true, ""
			}
		}
		return false, "no such line"
	})
}

func containsAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// stspub runs a command to its end.
func (w *world) stspub(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(), args...)
	cmd.Env = append(os.Environ(), "STSPUB_ADMIN=unix:"+w.path("admin.sock"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that has to end with 0, and returns what it printed.
func (w *world) must(args ...string) string {
	w.t.Helper()
	stdout, stderr, code := w.stspub(args...)
	if code != 0 {
		w.t.Fatalf("stspub %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}
