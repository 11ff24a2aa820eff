package labtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 30 * time.Second // a loaded machine with the race detector on
	stopTimeout  = 10 * time.Second
	portTries    = 8
)

// portTaken is how the programs say that somebody else has the port, which was free a moment ago.
var portTaken = regexp.MustCompile(`(?i)address( already)? in use|cannot bind address`)

// run starts a program and waits until it answers. The programs cannot choose a free port themselves, so one is chosen
// for them, and chosen again when it is taken meanwhile. configure writes the configuration for a port.
func (s *DNSServer) run(t testing.TB, program, debian string, configure func(port int) (args []string)) {
	t.Helper()
	path := find(program)
	if path == "" {
		t.Fatalf("%s is not installed: apt-get install %s", program, debian)
	}
	for range portTries {
		port := freePort(t)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		args := configure(port)
		handOver(t, s.dir)
		p := start(t, s.dir, path, args)
		err := s.await(p)
		if err == nil {
			t.Cleanup(p.stop)
			return
		}
		p.stop()
		if !portTaken.MatchString(s.Log()) {
			t.Fatalf("start %s: %v\n%s", program, err, s.Log())
		}
	}
	t.Fatalf("start %s: %d ports in turn were taken\n%s", program, portTries, s.Log())
}

// find looks where daemons are, too: unprivileged users often do not have that in their PATH.
func find(program string) string {
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// freePort returns a port of 127.0.0.1 that is free for UDP and TCP at this moment.
func freePort(t testing.TB) int {
	t.Helper()
	for range portTries {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil && p.Close() == nil {
			return l.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatal("no port is free for UDP and TCP")
	return 0
}

// process is a running program.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended; err is set then
	err  error
}

// start starts a program in a directory, unprivileged. What it says goes to the file "log" there. It finds files from
// descriptor 3 on.
func start(t testing.TB, dir, path string, args []string, files ...*os.File) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = dir, log, log, files
	// The program must not outlive a test process that is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: credential(t)}
	started := make(chan error)
	go func() { // ends with the program
		// The signal comes when the thread that started the program ends, so it is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer log.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return p
}

// await returns when the server answers, or why it will not.
func (s *DNSServer) await(p *process) error { return p.await(s.ping, s.Log) }

// await returns when ping does not fail any more, or why the program will not answer.
func (p *process) await(ping func() error, log func() string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	err := errors.New("not asked yet")
	for {
		select {
		case <-p.done:
			return fmt.Errorf("it ended: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %w", startTimeout, err)
		case <-tick.C:
			if err = ping(); err == nil {
				return nil
			}
			if portTaken.MatchString(log()) {
				return err // BIND runs on without the port
			}
		}
	}
}

// stop ends the program, by force if need be.
func (p *process) stop() { p.end(syscall.SIGTERM) }

// end is stop by another signal.
func (p *process) end(signal os.Signal) {
	_ = p.cmd.Process.Signal(signal)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// unprivileged is nobody's ids, for tests that run as root.
func unprivileged(t testing.TB) (uid, gid uint32, ok bool) {
	t.Helper()
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	id := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatalf("user nobody: %v", err)
		}
		return uint32(n)
	}
	return id(u.Uid), id(u.Gid), true
}

// credential is that of the user that programs run as; nil: who runs the test.
func credential(t testing.TB) *syscall.Credential {
	t.Helper()
	uid, gid, ok := unprivileged(t)
	if !ok {
		return nil
	}
	return &syscall.Credential{Uid: uid, Gid: gid}
}

// handOver gives a directory to the user that programs run as.
func handOver(t testing.TB, dir string) {
	t.Helper()
	uid, gid, ok := unprivileged(t)
	if !ok {
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(uid), int(gid))
	})
	if err != nil {
		t.Fatal(err)
	}
}
