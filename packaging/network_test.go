package packaging_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A space is a network namespace: where one container is. It lasts as long as the thread that made it.
type space struct {
	path string
	work chan func()
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := &space{work: make(chan func())}
	made := make(chan error)
	go func() { // ends when the test does; its thread is not given back, and ends with it
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		s.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		made <- err
		for f := range s.work {
			f()
		}
	}()
	if err := <-made; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(s.work) })
	return s
}

// do has f run inside. What it starts or opens there stays there.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// ip runs ip(8) inside.
func (s *space) ip(t *testing.T, args ...string) {
	t.Helper()
	var out []byte
	var err error
	s.do(func() { out, err = exec.Command("ip", args...).CombinedOutput() })
	if err != nil {
		t.Fatalf("ip %q: %v\n%s", args, err, out)
	}
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	run(t, exec.Command("ip", args...))
}

// bridge makes the network of a compose file in the namespace of this process, which has its first address, as the host has.
func bridge(t *testing.T, addr string) {
	t.Helper()
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "compose", "type", "bridge")
	ip(t, "addr", "add", addr, "dev", "compose")
	ip(t, "link", "set", "compose", "up")
}

// join gives a container's namespace an address on the bridge.
func (s *space) join(t *testing.T, name, addr string) {
	t.Helper()
	ip(t, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", s.path)
	ip(t, "link", "set", name, "master", "compose", "up")
	s.ip(t, "link", "set", "lo", "up")
	s.ip(t, "addr", "add", addr, "dev", "eth0")
	s.ip(t, "link", "set", "eth0", "up")
}

// reach has what listens at a loopback address of this process reached at the same address inside.
func (s *space) reach(t *testing.T, addr string) {
	t.Helper()
	var ln net.Listener
	var err error
	s.do(func() { ln, err = net.Listen("tcp", addr) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() { // ends with ln
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer near.Close()
				far, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer far.Close()
				go func() { // ends with far
					_, _ = io.Copy(near, far)
					_ = near.Close()
				}()
				_, _ = io.Copy(far, near)
			}()
		}
	}()
}
