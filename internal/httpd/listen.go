package httpd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// socketMode lets the owner and the group of the admin socket use it; the group is how an operator is let in.
const socketMode = 0o660

// Listen opens a listener at "ADDR:PORT", or at "unix:PATH" a socket with mode 0660. Its errors say who is in the way and
// what to do.
//
// A socket file that nobody listens at is left from a process that was killed, and is replaced; one that somebody
// listens at is an error.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return listenUnix(ctx, path)
	}
	// Every connection has deadlines of seconds, so TCP's probes would never be sent. To set them up is four system calls.
	lc := net.ListenConfig{KeepAlive: -1}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", addr, explain(err))
	}
	return ln, nil
}

// explain says of an error of listening what to do.
func explain(err error) error {
	err = cause(err)
	why := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		why = "another program has the port (ss -ltnp shows which)"
	case errors.Is(err, fs.ErrPermission):
		why = "a port below 1024 needs the capability CAP_NET_BIND_SERVICE, or the sysctl net.ipv4.ip_unprivileged_port_start=0"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		why = "this machine does not have that address"
	default:
		return err
	}
	return fmt.Errorf("%s: %w", why, err)
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("listen on %q: %w", "unix:"+path, err)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %q: the directory of the socket does not exist: %w", "unix:"+path, cause(err))
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", "unix:"+path, cause(err))
	}
	// Until here the usual umask has kept the socket closer than 0660: connecting takes the right to write.
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %q: %w", "unix:"+path, err), ln.Close())
	}
	return ln, nil
}

// removeStale removes the socket file of a process that is gone, and nothing else.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return cause(err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is no socket is in the way; remove it or choose another path")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("another process listens there, probably a running stspub: %w", syscall.EADDRINUSE), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return cause(err)
}

// cause strips what net and os say of the operation and the address, which the caller says better.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		err = sys.Err
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return err
}
