package sender_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/sender"
)

// TestLargeDNSAnswers has a name server send as much as a message holds: it is read, and costs no more than that.
func TestLargeDNSAnswers(t *testing.T) {
	t.Parallel()
	const name = "large.test."
	text := func(size int) *dns.TXT {
		rr := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}}
		for left := size; left > 0; left -= 255 {
			rr.Txt = append(rr.Txt, strings.Repeat("x", min(left, 255)))
		}
		return rr
	}
	var many, addrs []dns.RR
	for i := range 1000 {
		many = append(many, text(20))
		addrs = append(addrs, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 9, byte(i>>8), byte(i))})
	}
	addr := labtest.StartRawDNS(t, func(question []byte, tcp bool) []byte {
		q := new(dns.Msg)
		if err := q.Unpack(question); err != nil {
			return nil
		}
		m := new(dns.Msg).SetReply(q)
		m.Compress, m.Truncated = true, !tcp
		switch q.Question[0].Qtype {
		case dns.TypeTXT:
			m.Answer = []dns.RR{text(64_000)}
		case dns.TypeA:
			m.Answer = addrs
		case dns.TypeAAAA:
			m.Rcode = dns.RcodeNameError
		default:
			m.Answer = many // of a type that was not asked for
		}
		if !tcp {
			m.Answer = nil
		}
		wire, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return wire
	})
	r := &sender.Resolver{Servers: []string{addr}}
	a, err := r.Lookup(t.Context(), name, dns.TypeTXT)
	if err != nil || len(a.RRs) != 1 || len(strings.Join(a.RRs[0].(*dns.TXT).Txt, "")) != 64_000 {
		t.Errorf("a TXT of 64 KB: %d records, %v", len(a.RRs), err)
	}
	if a, err = r.Lookup(t.Context(), name, dns.TypeMX); err != nil || len(a.RRs) != 0 {
		t.Errorf("a thousand TXT for an MX: %d records, %v", len(a.RRs), err)
	}
	found, err := r.Addrs(t.Context(), name)
	if err != nil || len(found.Addrs) != 1000 {
		t.Errorf("a thousand addresses: %d, %v", len(found.Addrs), err)
	}
	// Nobody is there, at none of them.
	dialled := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := &sender.Client{Resolver: r, Dial: func(context.Context, string, string) (net.Conn, error) {
		dialled++
		return nil, syscall.ECONNREFUSED
	}}
	if _, err := client.ProbeMX(ctx, name, policygen.Policy{}); err == nil || dialled != 16 {
		t.Errorf("a probe of an MX with a thousand addresses tried %d of them, %v, want 16", dialled, err)
	}
	client.Dial = func(context.Context, string, string) (net.Conn, error) {
		dialled++
		cancel()
		return nil, context.Canceled
	}
	dialled = 0
	if _, err := client.ProbeMX(ctx, name, policygen.Policy{}); err == nil || dialled != 1 {
		t.Errorf("a probe whose time is over tried %d addresses, %v, want 1", dialled, err)
	}
}

// endless writes the same for ever.
func endless(w io.Writer, text string) {
	for more := bytes.Repeat([]byte(text), 1000); ; {
		if _, err := w.Write(more); err != nil {
			return
		}
	}
}

// TestEndlessPolicyHosts: a policy host that goes on for ever is left at 64 KiB of header or body, and one that says
// nothing, or a byte now and then, when its time is over.
func TestEndlessPolicyHosts(t *testing.T) {
	t.Parallel()
	raw := func(talk func(conn net.Conn)) func(w *world) {
		return func(w *world) {
			w.https = w.https.Clone()
			w.https.NextProtos = []string{"http/1.1"}
			w.handler = func(rw http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(rw).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				talk(conn)
			}
		}
	}
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	for name, c := range map[string]struct {
		host func(w *world)
		step sender.Step
		size int // of the body that is kept
	}{
		"a body": {func(w *world) {
			w.handler = func(rw http.ResponseWriter, _ *http.Request) { endless(rw, "mx: a.test\n") }
		}, sender.StepLength, 64 << 10},
		"a body over HTTP/1": {raw(func(c net.Conn) { _, _ = io.WriteString(c, ok+"\r\n"); endless(c, "mx: a.test\n") }), sender.StepLength, 64 << 10},
		"a chunk": {raw(func(c net.Conn) {
			_, _ = io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n")
			endless(c, "x")
		}), sender.StepLength, 64 << 10},
		"chunks of nothing": {raw(func(c net.Conn) {
			_, _ = io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\n")
			endless(c, "1;"+strings.Repeat("x", 2000)+"\r\nx\r\n")
		}), sender.StepHTTP, 0},
		"headers":      {raw(func(c net.Conn) { _, _ = io.WriteString(c, ok); endless(c, "X: x\r\n") }), sender.StepHTTP, 0},
		"one header":   {raw(func(c net.Conn) { _, _ = io.WriteString(c, ok+"X: "); endless(c, "x") }), sender.StepHTTP, 0},
		"words before": {raw(func(c net.Conn) { endless(c, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n") }), sender.StepHTTP, 0},
		"trailers": {raw(func(c net.Conn) {
			_, _ = io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n")
			endless(c, "X: x\r\n")
		}), sender.StepHTTP, 0},
		"no words":            {raw(func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }), sender.StepHTTP, 0},
		"a byte now and then": {raw(func(c net.Conn) { drip(c) }), sender.StepHTTP, 0},
		"nothing but an error": {func(w *world) {
			w.handler = func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500); endless(rw, "x") }
		}, sender.StepStatus, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.host(w)
			client := w.start(t)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if c.step == sender.StepHTTP {
				ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
			}
			defer cancel()
			begun := time.Now()
			f, err := client.FetchPolicyAt(ctx, domain, fmt.Sprintf("127.0.0.1:%d", client.HTTPSPort))
			step := stepOf(t, err)
			if step.Step != c.step || len(f.Body) > 64<<10 || len(f.Body) < c.size || time.Since(begun) > 15*time.Second {
				t.Errorf("FetchPolicyAt = %d bytes, %v (step %s) after %v, want step %s", len(f.Body), err, step.Step, time.Since(begun), c.step)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// drip sends a header of one letter a time.
func drip(conn net.Conn) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := io.WriteString(conn, "H"); err != nil {
			return
		}
	}
}

// A policy host that shows no certificate within ten seconds is given up, whatever it says instead.
func TestEndlessHandshake(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				// Empty records, and then handshake messages without end.
				endless(conn, "\x16\x03\x03\x00\x04\x00\x00\x00\x00")
			}()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := newWorld(t).start(t)
	_, err := client.FetchPolicyAt(ctx, domain, l.Addr().String())
	if step := stepOf(t, err); step.Step != sender.StepTLS {
		t.Errorf("FetchPolicyAt = %v (step %s), want step %s", err, step.Step, sender.StepTLS)
	}
}
