package labtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// StartHAProxy starts the HAProxy that is installed. What comes to the returned address it passes on to another, as the
// options of its server line say.
func StartHAProxy(t testing.TB, to, options string) (addr string) {
	t.Helper()
	path := find("haproxy")
	if path == "" {
		t.Fatal("haproxy is not installed: apt-get install haproxy")
	}
	dir, err := os.MkdirTemp("", "stspub-haproxy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	text := fmt.Sprintf(`global
	maxconn 100
defaults
	mode tcp
	timeout connect 10s
	timeout client 60s
	timeout server 60s
listen all
	bind fd@3
	server stspub %s %s
`, to, options)
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	handOver(t, dir)
	t.Cleanup(start(t, dir, path, []string{"-db", "-f", "haproxy.cfg"}, file).stop)
	return ln.Addr().String()
}
