package httpd

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A logBuffer collects log lines. The zero value is ready.
type logBuffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestHandshakeIsRefusedWithoutCertificate: RFC 8461, Section 7.1, no default certificate.
func TestHandshakeIsRefusedWithoutCertificate(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	for _, sni := range []string{"mta-sts.unknown.example", "a.example", "mta-sts.a.example.unknown", ""} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			conn, err := net.Dial("tcp", w.secure)
			if err != nil {
				t.Fatal(err)
			}
			// A client of Go sends no SNI for an empty name, but then it must not verify.
			client := tls.Client(conn, &tls.Config{
				ServerName: sni, InsecureSkipVerify: true, MinVersion: version, MaxVersion: version,
			})
			_ = client.SetDeadline(time.Now().Add(10 * time.Second))
			err = client.Handshake()
			if err == nil || !strings.Contains(err.Error(), "remote error: tls: unrecognized name") {
				t.Errorf("handshake for %q = %v, want the alert unrecognized_name", sni, err)
			}
			_ = conn.Close()
		}
	}
}

func TestHandshakeVersions(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	for version, good := range map[uint16]bool{
		tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true,
	} {
		conn, err := w.tryDial(&tls.Config{ServerName: "mta-sts.a.example", MinVersion: version, MaxVersion: version})
		if (err == nil) != good {
			t.Errorf("handshake with %s = %v, want good: %v", tls.VersionName(version), err, good)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

func TestHandshakeProtocols(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	for offer, want := range map[string]string{
		"":                  "",
		"http/1.1":          "http/1.1",
		"h2":                "h2",
		"http/1.1 h2":       "h2",
		"h2 http/1.1":       "h2",
		"acme-tls/1":        "acme-tls/1",
		"spdy/3.1 http/1.1": "http/1.1",
	} {
		conn := w.dial(t, "mta-sts.a.example", strings.Fields(offer)...)
		if got := conn.ConnectionState().NegotiatedProtocol; got != want {
			t.Errorf("offered %q, got %q, want %q", offer, got, want)
		}
	}
	if _, err := w.tryDial(&tls.Config{ServerName: "mta-sts.a.example", NextProtos: []string{"smtp"}}); err == nil {
		t.Error("a client that speaks no HTTP got a connection")
	}
}

// TestChallengeHandshake: RFC 8737, Section 3: the handshake is all there is to it, and the server then closes.
func TestChallengeHandshake(t *testing.T) {
	t.Parallel()
	offered := make(chan []string, 1)
	w := newPublic(t, func(cfg *PublicConfig) {
		certificate := cfg.GetCertificate
		cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			offered <- hello.SupportedProtos
			return certificate(hello)
		}
	}).run(t)
	conn := w.dial(t, "mta-sts.a.example", "acme-tls/1")
	if _, err := io.WriteString(conn, "GET "+policyPath+" HTTP/1.1\r\nHost: mta-sts.a.example\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); len(got) != 0 || timedOut(err) {
		t.Errorf("after acme-tls/1 read %q, %v, want the end of the connection", got, err)
	}
	if got := <-offered; len(got) != 1 || got[0] != "acme-tls/1" {
		t.Errorf("the certificate function saw %q, want acme-tls/1", got)
	}
}

func timedOut(err error) bool {
	netErr, ok := errors.AsType[net.Error](err)
	return ok && netErr.Timeout()
}

// TestHandshakeKinds makes real handshakes fail in every way there is a name for.
func TestHandshakeKinds(t *testing.T) {
	t.Parallel()
	var log logBuffer
	w := newPublic(t, func(cfg *PublicConfig) {
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) // level Info
		certificate := cfg.GetCertificate
		cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == "broken.example" {
				return nil, errors.New("the disk is on fire")
			}
			return certificate(hello)
		}
	})
	w.Public.secure.http.ReadHeaderTimeout = time.Minute // none of these runs into it, however slow the machine
	w.run(t)

	handshake := func(cfg *tls.Config) func() {
		return func() {
			if conn, err := w.tryDial(cfg); err == nil {
				t.Errorf("handshake with %+v succeeded", cfg)
				_ = conn.Close()
			}
		}
	}
	send := func(text string, reset bool) func() {
		return func() {
			conn, err := net.Dial("tcp", w.secure)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			if reset {
				return
			}
			_, _ = io.Copy(io.Discard, conn) // until the server has had enough
		}
	}
	for _, tt := range []struct {
		kind string
		fail func()
	}{
		{"unknown_name", handshake(&tls.Config{ServerName: "mta-sts.unknown.example"})},
		{"alert", func() { // a client that trusts another root
			conn, err := net.Dial("tcp", w.secure)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if tls.Client(conn, &tls.Config{ServerName: "mta-sts.a.example"}).Handshake() == nil {
				t.Error("a client without our root trusts us")
			}
			_, _ = io.Copy(io.Discard, conn) // closing at once might reset the connection before the alert is read
		}},
		{"gone", send("", true)},
		{"unsupported", handshake(&tls.Config{ServerName: "mta-sts.a.example", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})},
		{"unsupported", handshake(&tls.Config{ServerName: "mta-sts.a.example", NextProtos: []string{"smtp"}})},
		{"not_tls", send("GET / HTTP/1.1\r\nHost: mta-sts.a.example\r\n\r\n", false)},
		{"not_tls", send("EHLO mail.example\r\n", false)},
		{"other", handshake(&tls.Config{ServerName: "broken.example"})},
	} {
		w.countsOne(t, tt.kind, tt.fail)
	}
	w.stop()
	if got := log.String(); got != "" {
		t.Errorf("failed handshakes said in the log:\n%s", got)
	}
}

// TestHandshakeTimeout connects and says nothing.
func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil)
	w.Public.secure.http.ReadHeaderTimeout = 100 * time.Millisecond
	w.run(t)
	w.countsOne(t, "timeout", func() {
		conn, err := net.Dial("tcp", w.secure)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.Copy(io.Discard, conn) // until the server has had enough
	})
}

// countsOne wants the handshake that fail makes fail to be counted, once, as that kind.
func (w *world) countsOne(t *testing.T, kind string, fail func()) {
	t.Helper()
	before := w.counted(t, "stspub_tls_handshake_errors_total", kind)
	fail()
	for deadline := time.Now().Add(10 * time.Second); w.counted(t, "stspub_tls_handshake_errors_total", kind) == before; {
		if time.Now().After(deadline) {
			t.Fatalf("a failed handshake was not counted as %s", kind)
		}
	}
	if got := w.counted(t, "stspub_tls_handshake_errors_total", kind); got != before+1 {
		t.Errorf("one failed handshake counted %v as %s", got-before, kind)
	}
}

func TestErrorLogLevels(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"http: TLS handshake error from 192.0.2.1:1234: EOF":                                 `level=DEBUG msg="ended TLS handshake" addr=192.0.2.1:1234 err=EOF`,
		"http: TLS handshake error from [2001:db8::1]:1234: tls: no certificates configured": `level=DEBUG msg="ended TLS handshake" addr=[2001:db8::1]:1234 err="tls: no certificates configured"`,
		"http2: server: error reading preface from client 192.0.2.1:1: EOF":                  `level=DEBUG msg="ended HTTP/2 connection" err="http2: server: error reading preface from client 192.0.2.1:1: EOF"`,
		"http: panic serving 192.0.2.1:1: boom\ngoroutine 1":                                 `level=ERROR msg="panicked while answering" err="http: panic serving 192.0.2.1:1: boom\ngoroutine 1"`,
		"http: Accept error: too many open files; retrying in 5ms":                           `level=WARN msg="http server complained" err="http: Accept error: too many open files; retrying in 5ms"`,
	} {
		var log logBuffer
		l := newErrorLog(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), nil)
		l.Print(message)
		if _, got, _ := strings.Cut(strings.TrimSpace(log.String()), " "); got != want {
			t.Errorf("%q is logged as\n%s, want\n%s", message, got, want)
		}
	}
}
