package httpd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestLimitsAreSet keeps anybody from losing one: http.Server's zero values mean for ever.
func TestLimitsAreSet(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil)
	log := w.cfg.Log
	for name, s := range map[string]*Server{
		"secure": w.Public.secure, "plain": w.Public.plain,
		"health": NewHealth(HealthConfig{Log: log}), "admin": NewAdmin(AdminConfig{HealthConfig: HealthConfig{Log: log}}),
	} {
		h := &s.http
		if h.ReadHeaderTimeout <= 0 || h.ReadTimeout <= 0 || h.WriteTimeout <= 0 || h.IdleTimeout <= 0 ||
			h.MaxHeaderBytes <= 0 || s.maxConns <= 0 || h.ErrorLog == nil {
			t.Errorf("the %s server lacks a limit: %+v", name, h)
		}
		if h.IdleTimeout >= s.drainTime || h.ReadHeaderTimeout >= s.drainTime {
			t.Errorf("the %s server can outlast its drain time", name)
		}
	}
}

// TestSilentClientsAreCut has clients that stop talking at every point.
func TestSilentClientsAreCut(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil)
	for _, s := range []*Server{w.Public.secure, w.Public.plain} {
		s.http.ReadHeaderTimeout = 300 * time.Millisecond
		s.http.ReadTimeout = 600 * time.Millisecond
		s.http.IdleTimeout = 300 * time.Millisecond
	}
	w.run(t)
	const host = "mta-sts.a.example"
	dialPlain := func(addr string) net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, tt := range []struct {
		name, says string
		conn       net.Conn
	}{
		{"port 80: nothing", "", dialPlain(w.plain)},
		{"port 80: part of a header", "GET / HTTP/1.1\r\nHost: x", dialPlain(w.plain)},
		{"port 443: no TLS", "", dialPlain(w.secure)},
		{"port 443: part of a hello", "\x16\x03\x01\x02\x00\x01", dialPlain(w.secure)},
		{"HTTP/1: nothing", "", w.dial(t, host)},
		{"HTTP/1: part of a request line", "GET /.well-kn", w.dial(t, host)},
		{"HTTP/1: part of a header", "GET " + policyPath + " HTTP/1.1\r\nHost: " + host + "\r\nX: ", w.dial(t, host)},
		{"HTTP/1: idle after an answer", "GET " + policyPath + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", w.dial(t, host)},
		{"HTTP/1: a body that does not come", "GET " + policyPath + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 9\r\n\r\n", w.dial(t, host)},
		{"HTTP/2: only the preface", preface, w.dial(t, host, "h2")},
		{"HTTP/2: only settings", preface + settings, w.dial(t, host, "h2")},
		{"HTTP/2: part of a frame", preface + settings + "\x00\x00\x40\x01\x04\x00\x00\x00\x01\x82", w.dial(t, host, "h2")},
	} {
		if _, err := io.WriteString(tt.conn, tt.says); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if err := tt.conn.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, tt.conn); timedOut(err) {
			t.Errorf("%s: the connection is still open", tt.name)
		}
	}
}

// TestDrippingClientIsCut sends a byte now and then, which must not keep a connection alive.
func TestDrippingClientIsCut(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil)
	w.Public.secure.http.ReadHeaderTimeout = 500 * time.Millisecond
	w.run(t)
	conn := w.dial(t, "mta-sts.a.example")
	if _, err := io.WriteString(conn, "GET "+policyPath+" HTTP/1.1\r\nHost: mta-sts.a.example\r\nX: "); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := io.WriteString(conn, "x"); err != nil {
			return
		}
		if time.Since(began) > 15*time.Second {
			t.Fatal("a client that drips its header is still connected")
		}
	}
}

func TestLargeRequestsAreRefused(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	const host = "mta-sts.a.example"
	header := strings.Repeat("X-Padding: "+strings.Repeat("x", 1000)+"\n", 20)
	got := raw(t, w.dial(t, host), "GET", "GET "+policyPath+" HTTP/1.1\nHost: "+host+"\n"+header+"\n")
	if got.status != 431 {
		t.Errorf("20 KB of header over HTTP/1 = %d, want 431", got.status)
	}
	if status := rawHTTP2(t, w.dial(t, host, "h2"), host, 12); status != "431" {
		t.Errorf("12 KB of header over HTTP/2 = %s, want 431", status)
	}
	if status := rawHTTP2(t, w.dial(t, host, "h2"), host, 1); status != "200" {
		t.Errorf("1 KB of header over HTTP/2 = %s, want 200", status)
	}
	got = raw(t, w.dial(t, host), "GET", "GET "+policyPath+"?"+strings.Repeat("x", 20_000)+" HTTP/1.1\nHost: "+host+"\n\n")
	if got.status != 431 {
		t.Errorf("20 KB of path over HTTP/1 = %d, want 431", got.status)
	}
}

// rawHTTP2 asks for the policy with some KB of header, which Go's own client would not send, and returns the status.
func rawHTTP2(t *testing.T, conn net.Conn, host string, kilobytes int) string {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	field := func(name, value string) {
		if err := enc.WriteField(hpack.HeaderField{Name: name, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	field(":method", "GET")
	field(":scheme", "https")
	field(":authority", host)
	field(":path", policyPath)
	for i := range kilobytes {
		field(fmt.Sprintf("x-padding-%d", i), strings.Repeat("~", 1000))
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	first := block.Next(16 << 10)
	if err := framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: first, EndStream: true, EndHeaders: block.Len() == 0,
	}); err != nil {
		t.Fatal(err)
	}
	if block.Len() > 0 {
		if err := framer.WriteContinuation(1, true, block.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("read frame: %v", err)
		}
		if headers, ok := frame.(*http2.MetaHeadersFrame); ok {
			return headers.PseudoValue("status")
		}
	}
}

// TestBodiesAreNotAwaited announces a body that never comes: the answer comes at once, and the connection ends.
func TestBodiesAreNotAwaited(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	const host = "mta-sts.a.example"
	for _, body := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked", "Content-Length: 5\nExpect: 100-continue"} {
		got := raw(t, w.dial(t, host), "GET", "GET "+policyPath+" HTTP/1.1\nHost: "+host+"\n"+body+"\n\n")
		if got.status != 200 || got.body != textA || !got.closes {
			t.Errorf("GET with %s = %d %q, closing: %v, want the policy and the end of the connection", body, got.status, got.body, got.closes)
		}
	}
}

// TestConnectionsAreCapped fills all places; the next client is served when one becomes free, not before.
func TestConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	w := newPublic(t, func(cfg *PublicConfig) { cfg.MaxConns = 2 })
	w.Public.secure.http.IdleTimeout = time.Minute
	w.run(t)
	const host = "mta-sts.a.example"
	request := fmt.Sprintf("GET %s HTTP/1.1\nHost: %s\n\n", policyPath, host)
	first, second := w.dial(t, host), w.dial(t, host)
	raw(t, first, "GET", request)
	raw(t, second, "GET", request)

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.try(ctx, host); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a third client beside two = %v, want to wait", err)
	}
	_ = first.Close()
	if err := w.try(t.Context(), host); err != nil {
		t.Fatalf("a client after one left: %v", err)
	}
	if got := raw(t, second, "GET", request); got.status != 200 {
		t.Errorf("the client that stayed = %d, want 200", got.status)
	}
}

// FuzzNoRedirect asks for every path under every name: there is no redirect, and a policy only for whom it is.
func FuzzNoRedirect(f *testing.F) {
	w := newPublic(f, nil)
	secure, plain := w.routes(), w.plainRoutes()
	for _, target := range []string{
		"/", "//", policyPath, "/" + policyPath, policyPath + "/", policyPath + "?x", "/.well-known/../.well-known/mta-sts.txt",
		"https://mta-sts.b.example" + policyPath, "*", "/%2e%2e/", "/.well-known", "/..", "/%2F", "http:///x", "/\\evil.example", "//evil.example/%2f..",
	} {
		f.Add("GET", target, "mta-sts.a.example", "mta-sts.a.example")
		f.Add("HEAD", target, "mta-sts.b.example", "mta-sts.a.example")
		f.Add("CONNECT", target, serviceHost, serviceHost)
		f.Add("OPTIONS", target, "", "")
	}
	f.Fuzz(func(t *testing.T, method, target, host, sni string) {
		text := method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return // http.Server would not let it through
		}
		r.TLS = stateFor(sni)
		for name, h := range map[string]http.Handler{"443": secure, "80": plain} {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			got := rec.Result()
			if got.StatusCode != 200 && got.StatusCode < 400 || got.Header.Get("Location") != "" || got.Header.Get("Refresh") != "" {
				t.Errorf("port %s: %q = %d %v", name, text, got.StatusCode, got.Header)
			}
			body := rec.Body.String()
			for domain, policy := range map[string]string{"a.example": textA, "b.example": textB} {
				if strings.Contains(body, policy) && (name == "80" || !strings.EqualFold(strings.TrimSuffix(sni, "."), "mta-sts."+domain)) {
					t.Errorf("port %s: %q for SNI %q gave the policy of %s", name, text, sni, domain)
				}
			}
		}
	})
}
