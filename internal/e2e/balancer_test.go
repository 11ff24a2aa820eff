package e2e_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// balancer stands before the nodes at the address of the policy hosts. It takes everybody to one of those in turn that
// said last that they are ready; where none did, to any, as some of the large ones do.
type balancer struct {
	c     *cluster
	turn  atomic.Uint32
	ready []atomic.Bool // of members
}

// balance starts it.
func (c *cluster) balance(t *testing.T) {
	t.Helper()
	b := &balancer{c: c, ready: make([]atomic.Bool, len(c.members))}
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	for i, m := range c.members {
		go func() { // ends by stop
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				b.ready[i].Store(m.ready() == 200)
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		}()
	}
	for _, port := range []string{":8443", ":8080"} {
		ln, err := net.Listen("tcp", c.ip+port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() { // ends with ln
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go b.carry(conn, port)
			}
		}()
	}
}

// carry ends with the connection. Without a node that listens it is cut.
func (b *balancer) carry(conn net.Conn, port string) {
	defer conn.Close()
	far := b.dial(port)
	if far == nil {
		return
	}
	defer far.Close()
	go func() { // ends with far
		_, _ = io.Copy(conn, far)
		conn.Close()
	}()
	_, _ = io.Copy(far, conn)
}

// dial connects to a node, or returns nil.
func (b *balancer) dial(port string) net.Conn {
	for range b.c.members {
		i := int(b.turn.Add(1)) % len(b.c.members)
		if b.ready[i].Load() {
			far, err := net.Dial("tcp", b.c.members[i].ip+port)
			if err != nil {
				return nil // it said that it is ready
			}
			return far
		}
	}
	for _, m := range b.c.members {
		if far, err := net.Dial("tcp", m.ip+port); err == nil {
			return far
		}
	}
	return nil
}
