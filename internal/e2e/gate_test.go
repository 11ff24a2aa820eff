package e2e_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// mode is what a gate does with connections.
type mode int

const (
	open  mode = iota // to the target and back
	shut              // cut at once
	stuck             // accepted, and nothing is answered
	mute              // to the target, but no answer to a write comes back
)

// gate is a line that a test can cut.
type gate struct {
	addr   string
	target string

	// drops has everything vanish that comes, on connections that stay: as when a cable is pulled.
	drops atomic.Bool

	mu    sync.Mutex // guards the fields below
	mode  mode
	conns map[net.Conn]bool
}

// newGate listens at addr, "ADDR:0", for target.
func newGate(t *testing.T, addr, target string) *gate {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{addr: ln.Addr().String(), target: target, conns: make(map[net.Conn]bool)}
	t.Cleanup(func() { ln.Close(); g.set(shut) })
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go g.serve(c)
		}
	}()
	return g
}

// set changes the mode; connections of before are cut, so that none goes on in the old one.
func (g *gate) set(m mode) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mode = m
	for c := range g.conns {
		c.Close()
	}
}

// enter notes a connection.
func (g *gate) enter(c net.Conn) mode {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = true
	return g.mode
}

func (g *gate) leave(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
	c.Close()
}

// serve ends with the connection, which ends with the gate.
func (g *gate) serve(c net.Conn) {
	m := g.enter(c)
	defer g.leave(c)
	switch m {
	case shut:
		return
	case stuck:
		_, _ = io.Copy(io.Discard, c)
		return
	}
	far, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer far.Close()
	var written atomic.Bool
	go func() { // ends with far
		_, _ = io.Copy(writer(func(b []byte) (int, error) {
			if written.Load() || g.drops.Load() {
				return len(b), nil
			}
			return c.Write(b)
		}), far)
		if !written.Load() {
			c.Close()
		}
	}()
	_, _ = io.Copy(writer(func(b []byte) (int, error) {
		if m == mute && writes(b) {
			written.Store(true)
		}
		if g.drops.Load() {
			return len(b), nil
		}
		return far.Write(b)
	}), c)
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// writes says whether a request is to change something: an HTTP request other than GET, or a DNS message with opcode
// UPDATE after its length.
func writes(b []byte) bool {
	if bytes.HasPrefix(b, []byte("GET ")) {
		return false
	}
	for _, method := range []string{"POST ", "PUT ", "PATCH ", "DELETE "} {
		if bytes.HasPrefix(b, []byte(method)) {
			return true
		}
	}
	return len(b) > 4 && b[4]>>3&0xf == dns.OpcodeUpdate
}

// secondary is a second name server of all zones. It answers what the first one does, but for names that it holds on to.
type secondary struct {
	addr    string
	primary string

	mu   sync.Mutex // guards held
	held map[string]*dns.Msg
}

func newSecondary(t *testing.T, primary string) *secondary {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &secondary{addr: p.LocalAddr().String(), primary: primary, held: make(map[string]*dns.Msg)}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(s.serve), NotifyStartedFunc: func() { close(started) }}
	go func() { _ = srv.ActivateAndServe() }() // ends by Shutdown
	<-started
	t.Cleanup(func() { _ = srv.Shutdown() })
	return s
}

func (s *secondary) serve(w dns.ResponseWriter, r *dns.Msg) {
	s.mu.Lock()
	answer := s.held[s.key(r)]
	s.mu.Unlock()
	if answer == nil {
		var err error
		if answer, err = dns.Exchange(r, s.primary); err != nil {
			return // as a server that is too busy
		}
	}
	answer = answer.Copy()
	answer.Id = r.Id
	_ = w.WriteMsg(answer)
}

func (s *secondary) key(r *dns.Msg) string {
	return dns.CanonicalName(r.Question[0].Name) + dns.TypeToString[r.Question[0].Qtype]
}

// lag has the TXT records of a name stay as they are.
func (s *secondary) lag(t *testing.T, name string) {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT)
	q.RecursionDesired = false
	m, err := dns.Exchange(q, s.primary)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[s.key(q)] = m
}

// transfer ends all lagging.
func (s *secondary) transfer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.held)
}
