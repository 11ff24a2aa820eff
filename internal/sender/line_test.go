package sender_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/sender"
)

// busy is a name server that takes a moment for each answer, as one on the Internet does, and counts the ways that
// questions come.
type busy struct {
	addr        string
	tcp, udp    atomic.Int32
	connections atomic.Int32
}

// accepted counts connections.
type accepted struct {
	net.Listener
	n *atomic.Int32
}

func (l accepted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// ServeDNS answers the name of the question as TXT.
func (b *busy) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n, delay := &b.udp, 2*time.Millisecond
	if w.RemoteAddr().Network() == "tcp" {
		n, delay = &b.tcp, 0 // one after the other
	}
	n.Add(1)
	<-time.After(delay)
	m := new(dns.Msg).SetReply(q)
	name := q.Question[0].Name
	m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{name}}}
	_ = w.WriteMsg(m)
}

// startBusy starts it; tcp is who serves its TCP port: nil for nobody.
func startBusy(t *testing.T, tcp func(b *busy, ln net.Listener)) *busy {
	t.Helper()
	b := &busy{}
	ln, p := listenBoth(t)
	b.addr = ln.Addr().String()
	if tcp == nil {
		ln.Close()
	} else {
		t.Cleanup(func() { ln.Close() })
		go tcp(b, accepted{ln, &b.connections}) // ends with ln
	}
	started := make(chan struct{})
	s := &dns.Server{PacketConn: p, Handler: b, NotifyStartedFunc: func() { close(started) }}
	go func() { _ = s.ActivateAndServe() }() // ends by Shutdown
	<-started
	t.Cleanup(func() { _ = s.Shutdown() })
	return b
}

// serve answers at most so many questions of a connection.
func serve(limit int) func(*busy, net.Listener) {
	return func(b *busy, ln net.Listener) {
		_ = (&dns.Server{Listener: ln, Handler: b, MaxTCPQueries: limit}).ActivateAndServe()
	}
}

// slowly takes so long for each question, one after the other.
func slowly(delay time.Duration) func(*busy, net.Listener) {
	return func(b *busy, ln net.Listener) {
		h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			<-time.After(delay)
			b.ServeDNS(w, q)
		})
		_ = (&dns.Server{Listener: ln, Handler: h}).ActivateAndServe()
	}
}

// TestCrowd has many ask one server at the same time: each gets his own answer, and whatever the server makes of TCP, all
// of them do.
func TestCrowd(t *testing.T) {
	t.Parallel()
	const each, askers = 20, 100
	for name, c := range map[string]struct {
		tcp         func(*busy, net.Listener)
		least       int32 // questions that come by TCP
		most        int32
		connections int32
	}{
		"one connection for most": {serve(-1), each * askers / 2, each * askers, 3},
		"closed after ten":        {serve(10), 10, each * askers / 2, each * askers / 10},
		"refused":                 {nil, 0, 0, 0},
		"one after the other":     {slowly(100 * time.Millisecond), 1, askers, 1},
		"silent": {func(_ *busy, ln net.Listener) {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { c.Close() })
			}
		}, 0, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBusy(t, c.tcp)
			r := &sender.Resolver{Timeout: 4 * time.Second}
			var wg sync.WaitGroup
			for i := range askers {
				wg.Go(func() {
					for j := range each {
						want := fmt.Sprintf("n%d-%d.test.", i, j)
						q := new(dns.Msg).SetQuestion(want, dns.TypeTXT)
						q.RecursionDesired = false
						m, err := r.Exchange(t.Context(), b.addr, q)
						if err != nil || len(m.Answer) != 1 || strings.Join(m.Answer[0].(*dns.TXT).Txt, "") != want {
							t.Errorf("Exchange(%s) = %v, %v", want, m, err)
						}
					}
				})
			}
			wg.Wait()
			if n := b.tcp.Load(); n < c.least || n > c.most || b.connections.Load() > c.connections {
				t.Errorf("%d of %d questions over %d TCP connections, want %d to %d over at most %d", n, each*askers, b.connections.Load(),
					c.least, c.most, c.connections)
			}
		})
	}
}

// TestNoCrowd asks one question after the other, and recursive ones at the same time: each has a socket of its own.
func TestNoCrowd(t *testing.T) {
	t.Parallel()
	b := startBusy(t, serve(-1))
	r := &sender.Resolver{}
	for i := range 40 {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.test.", i), dns.TypeTXT)
		q.RecursionDesired = false
		if _, err := r.Exchange(t.Context(), b.addr, q); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if _, err := r.Exchange(t.Context(), b.addr, new(dns.Msg).SetQuestion(fmt.Sprintf("r%d.test.", i), dns.TypeTXT)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if b.tcp.Load() > 0 || b.connections.Load() > 0 {
		t.Errorf("%d questions over %d TCP connections", b.tcp.Load(), b.connections.Load())
	}
}
