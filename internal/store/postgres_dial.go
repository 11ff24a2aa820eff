package store

import (
	"net"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of Linux: for how long what was sent may stay unacknowledged.
const tcpUserTimeout = 18

// dialer makes connections that notice when the way to the server is cut off and says nothing of it.
func dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         dialLimit,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 2},
		Control: func(network, _ string, c syscall.RawConn) error {
			if runtime.GOOS != "linux" || !strings.HasPrefix(network, "tcp") {
				return nil
			}
			var failed error
			err := c.Control(func(fd uintptr) {
				failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silenceLimit.Milliseconds()))
			})
			if err != nil {
				return err
			}
			return failed
		},
	}
}
