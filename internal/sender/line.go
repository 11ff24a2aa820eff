package sender

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Where many questions are under way to one authoritative server, they go over one TCP connection, without waiting for the
// answers in between (RFC 7766, Section 6.2.1.1): a socket for each costs more than the question itself. A few go over UDP,
// each from a socket of its own, whose port nobody can guess (RFC 5452, Section 9.2); so do those that a connection fails,
// and recursive ones, since some resolvers take what comes by one connection one after the other.
const (
	crowded   = 16              // questions under way to a server, from which on a connection is worth its while
	lineIdle  = 2 * time.Second // how long a connection is kept without an answer, and how long one may take to come
	lineFull  = 1000            // questions on one connection
	lineAvoid = time.Minute     // after a connection that brought no answer, or one too late
)

// lines are the servers that are asked just now. The zero value is ready.
type lines struct {
	mu      sync.Mutex // guards servers, and asking of each
	servers map[string]*line
}

// line is the way to one server.
type line struct {
	server string // "ADDR:PORT"
	asking int    // questions under way, over whatever way

	mu       sync.Mutex // guards the fields below
	conn     *dns.Conn  // nil: there is none
	coming   bool       // it will be there soon
	answered bool       // it has brought an answer
	avoid    time.Time  // no new one before
	waiting  map[uint16]chan *dns.Msg
}

// enter counts a question to a server until leave. It returns the line that it may go over; nil: there are too few.
func (ls *lines) enter(server string) (l *line, leave func()) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	at := ls.servers[server]
	if at == nil {
		at = &line{server: server}
		if ls.servers == nil {
			ls.servers = make(map[string]*line)
		}
		ls.servers[server] = at
	}
	at.asking++
	if at.asking >= crowded {
		l = at
	}
	return l, func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		if at.asking--; at.asking == 0 && !at.used() {
			delete(ls.servers, server)
		}
	}
}

// used says that there is something to be remembered of a line. Of the few servers that were ever crowded, the last word
// may stay.
func (l *line) used() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil || l.coming || time.Now().Before(l.avoid)
}

// ask returns the answer to a question, or nil when it does not come this way within the timeout.
func (l *line) ask(ctx context.Context, m *dns.Msg, timeout time.Duration) *dns.Msg {
	conn, id, answer := l.begin()
	if conn == nil {
		return nil
	}
	defer l.end(id, answer)
	q := *m
	q.Id = id
	wire, err := q.Pack()
	if err == nil {
		_, err = conn.Write(wire) // whole, also where others write
	}
	if err != nil {
		return nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case a := <-answer: // nil: the connection ended
		return a
	case <-timer.C:
		l.drop(conn)
	case <-ctx.Done():
	}
	return nil
}

// drop ends a connection that is too slow; all that wait for its answers go another way.
func (l *line) drop(conn *dns.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == conn {
		l.avoid = time.Now().Add(lineAvoid)
		_ = conn.Close() // its reader learns it
	}
}

// begin takes an id on the connection, if there is one. If there is none it has one made, for those who ask later.
func (l *line) begin() (*dns.Conn, uint16, chan *dns.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		if !l.coming && !time.Now().Before(l.avoid) {
			l.coming = true
			go l.run() // ends lineIdle after the last answer
		}
		return nil, 0, nil
	}
	if len(l.waiting) >= lineFull {
		return nil, 0, nil
	}
	for {
		id := uint16(rand.N(1 << 16))
		if l.waiting[id] == nil {
			answer := make(chan *dns.Msg, 1)
			l.waiting[id] = answer
			return l.conn, id, answer
		}
	}
}

// end gives an id back, unless it is somebody else's by now.
func (l *line) end(id uint16, answer chan *dns.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[id] == answer {
		delete(l.waiting, id)
	}
}

// run connects, and hands answers out until none comes any more.
func (l *line) run() {
	raw, err := (&net.Dialer{Timeout: lineIdle}).Dial("tcp", l.server)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.coming, l.avoid = false, time.Now().Add(lineAvoid)
		return
	}
	defer raw.Close()
	conn := &dns.Conn{Conn: buffered{raw, bufio.NewReader(raw)}}
	l.mu.Lock()
	l.conn, l.coming, l.answered, l.waiting = conn, false, false, make(map[uint16]chan *dns.Msg)
	l.mu.Unlock()
	for err == nil {
		var m *dns.Msg
		if err = raw.SetReadDeadline(time.Now().Add(lineIdle)); err == nil {
			m, err = conn.ReadMsg()
		}
		if err == nil {
			l.deliver(m)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 && !l.answered {
		l.avoid = time.Now().Add(lineAvoid)
	}
	for _, answer := range l.waiting {
		answer <- nil
	}
	l.conn, l.waiting = nil, nil
}

// deliver hands an answer to who waits for it. Servers may answer in any order (RFC 7766, Section 7).
func (l *line) deliver(m *dns.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if answer := l.waiting[m.Id]; answer != nil {
		l.answered = true
		delete(l.waiting, m.Id)
		answer <- m
	}
}

// buffered reads many answers at once.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

// Read implements [net.Conn].
func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
