package httpd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// deadSocket leaves a socket file behind as a killed process does.
func deadSocket(t *testing.T, path string) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
}

func TestListenOnSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "admin.sock")
	deadSocket(t, path)
	ln, err := Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatalf("Listen over the socket of a dead process = %v", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), os.ModeSocket|0o660; got != want {
		t.Errorf("socket has mode %v, want %v", got, want)
	}

	_, err = Listen(t.Context(), "unix:"+path)
	want := fmt.Sprintf(`listen on "unix:%s": another process listens there, probably a running stspub: address already in use`, path)
	if err == nil || err.Error() != want || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second Listen = %v, want %s", err, want)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("after the refusal the first listener is gone: %v", err)
	} else {
		_ = conn.Close()
	}
	_ = ln.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close the socket file is there (%v)", err)
	}
}

func TestListenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(file, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := listen(t)
	t.Cleanup(func() { _ = taken.Close() })
	port := taken.Addr().String()

	for addr, want := range map[string]string{
		port:                         `listen on "` + port + `": another program has the port (ss -ltnp shows which): address already in use`,
		"192.0.2.1:443":              `listen on "192.0.2.1:443": this machine does not have that address: cannot assign requested address`,
		"unix:" + file:               `listen on "unix:` + file + `": a file that is no socket is in the way; remove it or choose another path`,
		"unix:" + dir + "/no/a.sock": `listen on "unix:` + dir + `/no/a.sock": the directory of the socket does not exist: no such file or directory`,
	} {
		if _, err := Listen(t.Context(), addr); err == nil || err.Error() != want {
			t.Errorf("Listen(%q) = %v, want %s", addr, err, want)
		}
	}
	if text, err := os.ReadFile(file); string(text) != "keep me" {
		t.Errorf("the file in the way was touched: %q, %v", text, err)
	}
	// Tests may run as root, who may have every port, so this one is told what the kernel would say.
	err := explain(&net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)})
	if want := "a port below 1024 needs the capability CAP_NET_BIND_SERVICE, or the sysctl net.ipv4.ip_unprivileged_port_start=0: permission denied"; err.Error() != want {
		t.Errorf("explain(EACCES) = %v, want %s", err, want)
	}
}
