package packaging_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// standIn answers as a node does, as far as HAProxy sees it: who it is, if it is told by the PROXY protocol who asks.
type standIn struct {
	addr  string
	ready atomic.Bool
}

func newStandIn(t *testing.T, addr string, ports map[string]string) *standIn {
	t.Helper()
	s := &standIn{addr: addr}
	s.ready.Store(true)
	listen := func(port string) net.Listener {
		ln, err := net.Listen("tcp", net.JoinHostPort(addr, ports[port]))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		return ln
	}
	for _, port := range []string{"443", "80"} {
		ln := listen(port)
		go func() { // ends with the listener
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go s.answer(c, port)
			}
		}()
	}
	health := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" || !s.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = health.Serve(listen("8081")) }() // until Close
	t.Cleanup(func() { _ = health.Close() })
	return s
}

// answer ends when it has answered one connection.
func (s *standIn) answer(c net.Conn, port string) {
	defer c.Close()
	const signature = "\r\n\r\n\x00\r\nQUIT\n"
	head := make([]byte, len(signature)+4)
	if _, err := io.ReadFull(c, head); err != nil || !strings.HasPrefix(string(head), signature) {
		return
	}
	fmt.Fprintf(c, "%s %s", s.addr, port)
}

// TestHAProxy runs haproxy.cfg on a real HAProxy: both nodes are used, only for what they listen to, and one that is not ready
// gets nothing, but when none is. Who comes by IPv6 is served as who comes by IPv4.
func TestHAProxy(t *testing.T) {
	ports := make(map[string]string)
	for _, port := range []string{"443", "80", "8081", ":443", ":80"} {
		ln, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		_, ports[port], _ = net.SplitHostPort(ln.Addr().String())
		_ = ln.Close()
	}
	text, err := os.ReadFile("haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	conf := strings.NewReplacer(
		"bind :443", "bind 127.0.0.1:"+ports[":443"], "bind :::443", "bind ::1:"+ports[":443"],
		"bind :80", "bind 127.0.0.1:"+ports[":80"], "bind :::80", "bind ::1:"+ports[":80"], "port 8081", "port "+ports["8081"],
		"node1:443", "127.0.0.2:"+ports["443"], "node2:443", "127.0.0.3:"+ports["443"],
		"node1:80", "127.0.0.2:"+ports["80"], "node2:80", "127.0.0.3:"+ports["80"],
	).Replace(string(text))
	nodes := []*standIn{newStandIn(t, "127.0.0.2", ports), newStandIn(t, "127.0.0.3", ports)}
	startHAProxy(t, conf)

	ask := func(addr, port string) string {
		c, err := net.Dial("tcp", net.JoinHostPort(addr, ports[":"+port]))
		if err != nil {
			return ""
		}
		defer c.Close()
		said, _ := io.ReadAll(c)
		return string(said)
	}
	// until is for what HAProxy has to notice first.
	until := func(what string, good func(answers map[string]bool) bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
			answers := make(map[string]bool)
			for range 20 {
				for _, addr := range []string{"127.0.0.1", "::1"} {
					answers[ask(addr, "443")], answers[ask(addr, "80")] = true, true
				}
			}
			if good(answers) {
				return
			}
		}
		t.Errorf("not seen within 30 s: %s", what)
	}
	until("both are used", func(a map[string]bool) bool {
		return len(a) == 4 && a["127.0.0.2 443"] && a["127.0.0.3 443"] && a["127.0.0.2 80"] && a["127.0.0.3 80"]
	})
	nodes[0].ready.Store(false)
	until("one is left alone", func(a map[string]bool) bool { return len(a) == 2 && a["127.0.0.3 443"] && a["127.0.0.3 80"] })
	nodes[1].ready.Store(false)
	until("none is ready, so both are used", func(a map[string]bool) bool { return len(a) == 4 && a["127.0.0.2 443"] && a["127.0.0.3 80"] })
	nodes[1].ready.Store(true)
	until("again one is left alone", func(a map[string]bool) bool { return len(a) == 2 && a["127.0.0.3 443"] && a["127.0.0.3 80"] })
	nodes[0].ready.Store(true)
	until("it is back", func(a map[string]bool) bool { return len(a) == 4 && a["127.0.0.2 443"] })
}

// startHAProxy runs it as nobody, until the test is over.
func startHAProxy(t *testing.T, conf string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "haproxy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "haproxy.cfg"), conf, 0o644)
	cmd := exec.Command("/usr/sbin/haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	started, ended := make(chan error), make(chan struct{})
	go func() { // ends with the program
		defer close(ended)
		// The signal comes when the thread that started the program ends, so it is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // says that it was killed
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start haproxy (apt-get install haproxy): %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
}
