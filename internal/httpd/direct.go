package httpd

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// directs is a listener of TLS connections that answer senders directly.
type directs struct {
	net.Listener
	public *Public
}

// Accept waits for the next connection. Its handshake comes later, in its own goroutine.
func (l directs) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &direct{Conn: tls.Server(c, l.public.config), public: l.public}, nil
}

// direct is a TLS connection for http.Server that answers by itself what nearly every sender asks: one GET for a policy, with
// nothing that could change the answer, in the bytes that http.Server would use, and for a twentieth less CPU time of a
// connection. All else goes to http.Server, which then serves the connection to its end; it may never be asked anything.
//
// It is used by one goroutine until it is left to http.Server.
type direct struct {
	*tls.Conn
	public *Public
	name   string // of the server, that the handshake was for
	left   bool   // to http.Server
	ended  bool   // there is nothing more to read
	given  bool   // to p.others, which closes it
	// answered says that the last request was, so that the connection may be ended at any time.
	answered bool
}

// ConnectionState does the handshake: http.Server asks for the state before it reads.
func (c *direct) ConnectionState() tls.ConnectionState {
	growStack()
	// A failure to set a deadline is one of the connection, which the handshake will see.
	_ = c.SetDeadline(time.Now().Add(c.public.secure.http.ReadHeaderTimeout))
	if err := c.Handshake(); err != nil {
		c.ended = true
		c.public.strangers.handshake(c.RemoteAddr().String(), reasonOf(err))
		return tls.ConnectionState{}
	}
	state := c.Conn.ConnectionState()
	switch c.name = state.ServerName; state.NegotiatedProtocol {
	case "", "http/1.1":
	case "h2":
		c.ended, c.given = true, true
		c.public.secure.open.Add(1) // see Public.count
		if !c.public.others.give(c.Conn) {
			c.given = false
			c.public.secure.open.Done()
		}
	default: // the handshake was all: RFC 8737, Section 3
		c.ended = true
	}
	return state
}

// growStack has the runtime grow the stack to what a handshake takes, 16 KB, in one step. Bit by bit it would be copied three
// times, at a fiftieth of all CPU time of a connection.
//
//go:noinline
func growStack() {
	var frame [9 << 10]byte
	runtime.KeepAlive(&frame)
}

// reasonOf returns why a handshake failed. Who did not speak TLS at all is told so, as http.Server does.
func reasonOf(err error) string {
	record, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || record.Conn == nil || !slices.Contains([]string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"}, string(record.RecordHeader[:])) {
		return err.Error()
	}
	// An error is the client's going away, which is its business.
	_, _ = io.WriteString(record.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	_ = record.Conn.Close()
	return "client sent an HTTP request to an HTTPS server"
}

// Read returns what is not answered directly.
func (c *direct) Read(p []byte) (int, error) {
	for !c.ended {
		n, err := c.Conn.Read(p)
		if c.answered {
			c.answered = false
			c.public.idle.remove(c)
		}
		if c.left || err != nil || !c.answer(p[:n]) {
			c.left = true
			return n, err
		}
	}
	return 0, io.EOF
}

// Close closes the connection, unless another has it.
func (c *direct) Close() error {
	if c.given {
		return nil
	}
	return c.Conn.Close()
}

// answer answers a request, and writes over it. False: the request is not as simple as that, and nothing was done.
func (c *direct) answer(request []byte) bool {
	select {
	case <-c.public.secure.stopping: // the client is to hear that the connection ends
		return false
	default:
	}
	now := time.Now()
	answer, ok := c.public.directly(request, c.name, now)
	if !ok {
		return false
	}
	c.public.served.Inc()
	// An error is the client's going away, which is its business; there is nothing to read then.
	_ = c.SetWriteDeadline(now.Add(c.public.secure.http.WriteTimeout))
	if _, err := c.Write(answer); err != nil {
		c.ended = true
		return true
	}
	_ = c.SetReadDeadline(now.Add(c.public.secure.http.IdleTimeout))
	c.answered = true
	c.public.idle.add(c)
	return true
}

// directly returns what http.Server would answer to a request, in the place of the request. False: to be asked itself.
func (p *Public) directly(request []byte, sni string, now time.Time) (answer []byte, ok bool) {
	host, ok := simpleGet(request)
	if !ok || !sameHost(host, sni) {
		return nil, false
	}
	page, found := p.cfg.Policies.Policy(host)
	if !found {
		return nil, false
	}
	answer = append(request[:0], "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: "...)
	answer = append(answer, page.Length[0]...)
	answer = append(answer, "\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nDate: "...)
	answer = now.UTC().AppendFormat(answer, http.TimeFormat)
	answer = append(answer, "\r\n\r\n"...)
	return append(answer, page.Text...), true
}

// simpleGet returns the host of a request that is a GET for a policy and no more: whole, alone, with one Host without a port,
// and no other header fields than those with which no answer is another one.
func simpleGet(request []byte) (host string, ok bool) {
	rest, ok := bytes.CutPrefix(request, []byte("GET "+policyPath+" HTTP/1.1\r\n"))
	for ok {
		var line, name, value []byte
		if line, rest, ok = bytes.Cut(rest, []byte("\r\n")); !ok || len(line) == 0 {
			return host, ok && len(rest) == 0 && host != ""
		}
		if name, value, ok = bytes.Cut(line, []byte(":")); !ok {
			break
		}
		value = bytes.Trim(value, " ")
		switch {
		case is(name, "Host"):
			ok = host == "" && !bytes.ContainsFunc(value, notOfHost)
			host = string(value)
		case is(name, "User-Agent"), is(name, "Accept"), is(name, "Accept-Encoding"), is(name, "Accept-Language"),
			is(name, "Connection") && is(value, "keep-alive"):
			ok = !bytes.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
		default:
			ok = false
		}
	}
	return "", false
}

// is compares ASCII without regard to case.
func is(b []byte, name string) bool { return len(b) == len(name) && strings.EqualFold(string(b), name) }

// notOfHost says whether no name of a policy host has a character.
func notOfHost(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
}

// idle has the connections that were answered and have asked nothing since. http.Server knows its own only.
type idle struct {
	mu    sync.Mutex // guards what follows
	conns map[*direct]struct{}
	ended bool
}

func (i *idle) add(c *direct) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		i.stop(c)
		return
	}
	i.conns[c] = struct{}{}
}

func (i *idle) remove(c *direct) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.conns, c)
}

// end ends them all, and those that come to be idle.
func (i *idle) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ended = true
	for c := range i.conns {
		i.stop(c)
	}
}

// stop ends the reading of a connection.
func (*idle) stop(c *direct) { _ = c.SetReadDeadline(time.Unix(1, 0)) }

// handover is a listener for connections that were accepted by another one.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	close  sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give passes a connection on. False: the listener is closed.
func (h *handover) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.closed:
		return false
	}
}

// Accept waits for the next connection.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handover) Close() error {
	h.close.Do(func() { close(h.closed) })
	return nil
}

// Addr is empty: the connections have addresses of their own.
func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }
