package httpd

import (
	"net"
	"sync/atomic"
)

// goodbye begins a record of TLS 1.3 that holds 2 bytes and what encrypts them, as an alert does; it is alertSize long.
const (
	goodbye   = "\x17\x03\x03\x00\x13"
	alertSize = len(goodbye) + 19
)

// farewell accepts connections for crypto/tls that do not answer a client's close_notify with one of their own. RFC 8446,
// Section 6.1, asks for it before a side closes, so that the other knows it was not cut off: but this one has read the
// whole answer, whose length it was told, and is gone. It would be the dearest system call of the connection, which on the
// way there and back as a reset takes a twentieth of all CPU time that senders cost.
type farewell struct{ net.Listener }

// Accept waits for the next connection.
func (l farewell) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &parting{Conn: c}, nil
}

// parting is a connection below crypto/tls, which reads and writes it in one goroutine each at a time.
type parting struct {
	net.Conn
	said atomic.Bool // the last thing read ended like a close_notify
}

// Read notes how what it reads ends.
func (c *parting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	said := n >= alertSize && string(p[n-alertSize:n-alertSize+len(goodbye)]) == goodbye
	if said != c.said.Load() {
		c.said.Store(said)
	}
	return n, err
}

// Write leaves out what is as long as an alert, when the other side has said goodbye: no answer is that short.
func (c *parting) Write(p []byte) (int, error) {
	if len(p) == alertSize && c.said.Load() && string(p[:len(goodbye)]) == goodbye {
		return len(p), nil
	}
	return c.Conn.Write(p)
}
