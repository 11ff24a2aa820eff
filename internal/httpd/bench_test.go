package httpd

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
)

// discard is a http.ResponseWriter that keeps its header map, as net/http does for one answer.
type discard struct {
	header http.Header
	status int
	n      int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { d.n += len(p); return len(p), nil }
func (d *discard) WriteString(s string) (int, error) {
	d.n += len(s)
	return len(s), nil
}

func quiet(cfg *PublicConfig) { cfg.Log = slog.New(slog.DiscardHandler) }

// policyRequest is what net/http hands to the handler.
func policyRequest(tb testing.TB, host, sni string) *http.Request {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, "https://"+host+policyPath, nil)
	if err != nil {
		tb.Fatal(err)
	}
	r.TLS = &tls.ConnectionState{ServerName: sni}
	return r
}

func TestPolicyHandlerAllocatesNothing(t *testing.T) {
	w := newPublic(t, quiet)
	for _, tt := range []struct {
		host   string
		status int // 0: not written, which is 200
	}{
		{"mta-sts.a.example", 0}, {"mta-sts.b.example:443", 421}, {"mta-sts.unknown.example", 404},
	} {
		r, rec := policyRequest(t, tt.host, "mta-sts.a.example"), &discard{header: http.Header{}}
		if n := testing.AllocsPerRun(100, func() { w.policy(rec, r) }); n != 0 {
			t.Errorf("an answer to %s allocates %v times", tt.host, n)
		}
		if rec.status != tt.status || rec.n == 0 {
			t.Errorf("%s was answered %d with %d bytes, want %d", tt.host, rec.status, rec.n, tt.status)
		}
	}
}

func BenchmarkPolicyHandler(b *testing.B) {
	w := newPublic(b, quiet)
	routes := w.routes()
	for name, host := range map[string]string{"hit": "mta-sts.a.example", "elsewhere": "mta-sts.b.example", "miss": "mta-sts.x.example"} {
		r, rec := policyRequest(b, host, "mta-sts.a.example"), &discard{header: http.Header{}}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.policy(rec, r)
			}
		})
		b.Run(name+"/routed", func(b *testing.B) { // with what chi and the middleware add
			b.ReportAllocs()
			for b.Loop() {
				routes.ServeHTTP(rec, r)
			}
		})
	}
}

// BenchmarkSender does what a sender does: a full TLS 1.3 handshake, one GET, and away. The time is that of client and
// server together, on one machine.
func BenchmarkSender(b *testing.B) {
	w := newPublic(b, quiet).run(b)
	cfg := &tls.Config{
		ServerName: "mta-sts.a.example", RootCAs: w.ca.roots, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: mta-sts.a.example\r\nConnection: close\r\n\r\n", policyPath)
	b.ReportAllocs()
	for b.Loop() {
		conn, err := tls.DialWithDialer(&net.Dialer{}, "tcp", w.secure, cfg)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := goodPolicy(resp); err != nil {
			b.Fatal(err)
		}
		_ = conn.Close()
	}
}
