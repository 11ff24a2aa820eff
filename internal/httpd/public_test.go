package httpd

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stspub/stspub/internal/publish"
)

const (
	serviceHost = "mta-sts.hoster.example"
	textA       = "version: STSv1\r\nmode: enforce\r\nmax_age: 1209600\r\nmx: a.mx.example\r\n"
	textB       = "version: STSv1\r\nmode: testing\r\nmax_age: 86400\r\nmx: b.mx.example\r\n"
)

// A world is a running public server with two policies, and certificates for more names than that.
type world struct {
	*Public
	snapshot      *publish.Snapshot
	ca            *testCA
	secure, plain string // addresses
	stop          func()
}

// newPublic returns a server for a.example and b.example that does not run yet.
func newPublic(t testing.TB, change func(*PublicConfig)) *world {
	t.Helper()
	w := &world{snapshot: publish.NewSnapshot()}
	w.snapshot.Set("a.example", textA)
	w.snapshot.Set("b.example", textB)
	w.ca = newTestCA(t, "mta-sts.a.example", "mta-sts.b.example", "mta-sts.bare.example", serviceHost)
	cfg := PublicConfig{
		Hostname:       serviceHost,
		Target:         "default." + serviceHost,
		Policies:       w.snapshot,
		GetCertificate: w.ca.certificate,
		Log:            slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.Public, err = NewPublic(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

// run serves on fresh ports until stop is called or the test ends.
func (w *world) run(t testing.TB) *world {
	t.Helper()
	secure, plain := listen(t), listen(t)
	w.secure, w.plain = secure.Addr().String(), plain.Addr().String()
	w.stop = background(t, func(ctx context.Context) error { return w.Public.Run(ctx, secure, plain) })
	return w
}

// background runs f until the returned function is called or the test ends; f must then return nil.
func background(t testing.TB, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// testCA gives one certificate a name.
type testCA struct {
	roots *x509.CertPool
	leafs map[string]*tls.Certificate
}

func newTestCA(t testing.TB, names ...string) *testCA {
	t.Helper()
	sign := func(tmpl, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) []byte {
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	rootKey := newKey()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	parsed, err := x509.ParseCertificate(sign(root, root, &rootKey.PublicKey, rootKey))
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{x509.NewCertPool(), map[string]*tls.Certificate{}}
	ca.roots.AddCert(parsed)
	for i, name := range names {
		key := newKey()
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 2)), DNSNames: []string{name}}
		ca.leafs[name] = &tls.Certificate{
			Certificate: [][]byte{sign(leaf, parsed, &key.PublicKey, rootKey)}, PrivateKey: key,
		}
	}
	return ca
}

func (ca *testCA) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return ca.leafs[strings.ToLower(hello.ServerName)], nil
}

// dial opens a connection whose certificate is checked for sni.
func (w *world) dial(t testing.TB, sni string, protos ...string) *tls.Conn {
	t.Helper()
	conn, err := w.tryDial(&tls.Config{ServerName: sni, NextProtos: protos})
	if err != nil {
		t.Fatalf("dial for %q: %v", sni, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) tryDial(cfg *tls.Config) (*tls.Conn, error) {
	cfg.RootCAs = w.ca.roots
	return tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", w.secure, cfg)
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   string
	closes bool // the server says that it closes the connection
}

// raw sends text, in which \n stands for CRLF, and reads one answer to a request of that method.
func raw(t testing.TB, conn net.Conn, method, text string) reply {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	return newReply(t, resp)
}

func newReply(t testing.TB, resp *http.Response) reply {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	return reply{resp.StatusCode, resp.Header, string(body), resp.Close}
}

// http2 returns a transport for one HTTP/2 connection, with an SNI of its own.
func (w *world) http2(t testing.TB, sni string) *http.Transport {
	dials := 0
	tr := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{ServerName: sni, RootCAs: w.ca.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, errors.New("the first connection was dropped")
			}
			var d net.Dialer
			return d.DialContext(ctx, network, w.secure)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// fetch asks over the given HTTP version with an SNI and a Host of its own.
func (w *world) fetch(t testing.TB, version int, method, sni, host, path string) reply {
	t.Helper()
	if version == 1 {
		return raw(t, w.dial(t, sni), method, fmt.Sprintf("%s %s HTTP/1.1\nHost: %s\n\n", method, path, host))
	}
	tr := w.http2(t, sni)
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://unused.example"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s as %s over HTTP/2: %v", method, path, host, err)
	}
	if resp.ProtoMajor != 2 {
		t.Fatalf("spoke %s, want HTTP/2", resp.Proto)
	}
	return newReply(t, resp)
}

// counted returns the value of a metric for its label.
func (w *world) counted(t testing.TB, metric, label string) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.Collectors()...)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == metric && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no %s for %q", metric, label)
	return 0
}

func TestPolicyIsAnsweredByHost(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	tests := []struct {
		sni, host string
		status    int
		body      string
	}{
		{"mta-sts.a.example", "mta-sts.a.example", 200, textA},
		{"mta-sts.b.example", "mta-sts.b.example", 200, textB},
		{"mta-sts.a.example", "MTA-STS.A.example", 200, textA},
		{"MTA-STS.A.EXAMPLE", "mta-sts.a.example", 200, textA},
		{"mta-sts.a.example", "mta-sts.a.example:8443", 200, textA},
		{"mta-sts.a.example", "mta-sts.a.example.", 200, textA},
		{"mta-sts.a.example", "Mta-Sts.A.Example.:443", 200, textA},

		// Another host that is ours: the connection is not for it.
		{"mta-sts.a.example", "mta-sts.b.example", 421, "421 Misdirected Request\n"},
		{serviceHost, "mta-sts.b.example", 421, "421 Misdirected Request\n"},
		{"mta-sts.bare.example", "mta-sts.a.example", 421, "421 Misdirected Request\n"},
		// A host that is not ours, or has no policy (yet).
		{"mta-sts.a.example", "mta-sts.unknown.example", 404, "404 Not Found\n"},
		{"mta-sts.a.example", "a.example", 404, "404 Not Found\n"},
		{"mta-sts.a.example", "127.0.0.1", 404, "404 Not Found\n"},
		{"mta-sts.a.example", "[::1]:443", 404, "404 Not Found\n"},
		{"mta-sts.bare.example", "mta-sts.bare.example", 404, "404 Not Found\n"},
		{serviceHost, serviceHost, 404, "404 Not Found\n"},
	}
	for _, tt := range tests {
		for _, version := range []int{1, 2} {
			for _, method := range []string{"GET", "HEAD"} {
				got := w.fetch(t, version, method, tt.sni, tt.host, policyPath)
				want := tt.body
				if method == "HEAD" {
					want = ""
				}
				if got.status != tt.status || got.body != want {
					t.Errorf("HTTP/%d %s as %s for SNI %s = %d %q, want %d %q",
						version, method, tt.host, tt.sni, got.status, got.body, tt.status, want)
				}
				got.header.Del("Date")
				wantHeader := http.Header{
					"Content-Type":           {"text/plain; charset=utf-8"},
					"Content-Length":         {fmt.Sprint(len(tt.body))},
					"Cache-Control":          {"no-store"},
					"X-Content-Type-Options": {"nosniff"},
				}
				if !maps.EqualFunc(got.header, wantHeader, func(a, b []string) bool { return a[0] == b[0] && len(a) == len(b) }) {
					t.Errorf("HTTP/%d %s as %s: header %v, want %v", version, method, tt.host, got.header, wantHeader)
				}
			}
		}
	}
	rows := float64(2 * 2)
	for status, want := range map[string]float64{"200": 7 * rows, "421": 3 * rows, "404": 6 * rows, "405": 0} {
		if got := w.counted(t, "stspub_policy_requests_total", status); got != want {
			t.Errorf("counted %v answers %s, want %v", got, status, want)
		}
	}
}

func TestPolicyPathIsExact(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	const host = "mta-sts.a.example"
	tests := []struct {
		method, target string
		status         int
	}{
		{"GET", policyPath, 200},
		{"GET", policyPath + "?", 200},
		{"GET", policyPath + "?x", 200},
		{"GET", policyPath + "?x=/../;a", 200},
		{"GET", "https://" + host + policyPath, 200},
		{"GET", "http://" + host + policyPath, 200},
		{"GET", "https://MTA-STS.a.EXAMPLE:443" + policyPath, 200},
		{"GET", "https://mta-sts.b.example" + policyPath, 421}, // RFC 9112, Section 3.2.2: it goes before Host
		{"GET", "https://mta-sts.nobody.example" + policyPath, 404},

		{"GET", "/", 404},
		{"GET", "//", 404},
		{"GET", "/" + policyPath, 404},
		{"GET", policyPath + "/", 404},
		{"GET", policyPath + "//", 404},
		{"GET", "/.well-known//mta-sts.txt", 404},
		{"GET", "/.well-known/./mta-sts.txt", 404},
		{"GET", "/x/.." + policyPath, 404},
		{"GET", "/.well-known/mta-sts", 404},
		{"GET", "/.well-known/MTA-STS.txt", 404},
		{"GET", "/.well-known/mta-sts.txt%00", 404},
		{"GET", "/.well-known%2Fmta-sts.txt", 404},
		{"GET", "/.well-known/", 404},
		{"GET", "/.well-known", 404},
		{"GET", "/.well-known/acme-challenge/token", 404},
		{"GET", "/index.html", 404},
		{"HEAD", "/", 404},

		{"POST", policyPath, 405},
		{"PUT", policyPath, 405},
		{"DELETE", policyPath, 405},
		{"OPTIONS", policyPath, 405},
		{"TRACE", policyPath, 405},
		{"BREW", policyPath, 405},
		{"POST", "/x", 404},
		{"OPTIONS", "*", 404},
	}
	for _, tt := range tests {
		got := raw(t, w.dial(t, host), tt.method, fmt.Sprintf("%s %s HTTP/1.1\nHost: %s\n\n", tt.method, tt.target, host))
		if got.status != tt.status {
			t.Errorf("%s %s = %d, want %d", tt.method, tt.target, got.status, tt.status)
		}
		if got.status == 200 != (got.body == textA) {
			t.Errorf("%s %s = %d with body %q", tt.method, tt.target, got.status, got.body)
		}
		if allow := got.header.Get("Allow"); (allow == "GET, HEAD") != (tt.status == 405) {
			t.Errorf("%s %s = %d with Allow %q", tt.method, tt.target, got.status, allow)
		}
	}
}

func TestPolicyForOldClients(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)

	got := raw(t, w.dial(t, "mta-sts.a.example"), "GET", "GET "+policyPath+" HTTP/1.0\nHost: mta-sts.a.example\n\n")
	if got.status != 200 || got.body != textA {
		t.Errorf("HTTP/1.0 = %d %q, want the policy", got.status, got.body)
	}
	got = raw(t, w.dial(t, "mta-sts.a.example"), "GET", "GET "+policyPath+" HTTP/1.0\n\n")
	if got.status != 404 {
		t.Errorf("HTTP/1.0 without Host = %d, want 404", got.status)
	}
}

func TestPolicyChangesAtOnce(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	w.snapshot.Set("a.example", textB)
	if got := w.fetch(t, 1, "GET", "mta-sts.a.example", "mta-sts.a.example", policyPath); got.body != textB {
		t.Errorf("changed policy = %q, want %q", got.body, textB)
	}
	w.snapshot.Set("a.example", "")
	if got := w.fetch(t, 2, "GET", "mta-sts.a.example", "mta-sts.a.example", policyPath); got.status != 404 {
		t.Errorf("removed policy = %d, want 404", got.status)
	}
}

// TestServiceHostCanBeAPolicyHost is for the operator of mta-sts.hoster.example, who has mail at hoster.example.
func TestServiceHostCanBeAPolicyHost(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	w.snapshot.Set("hoster.example", textA)
	if got := w.fetch(t, 1, "GET", serviceHost, serviceHost, policyPath); got.status != 200 || got.body != textA {
		t.Errorf("policy at the service's host = %d %q, want 200", got.status, got.body)
	}
	if got := w.fetch(t, 1, "GET", serviceHost, serviceHost, "/"); got.status != 200 {
		t.Errorf("start page = %d, want 200", got.status)
	}
}

func TestPort80AnswersChallengesOnly(t *testing.T) {
	t.Parallel()
	w := newPublic(t, func(cfg *PublicConfig) {
		cfg.Challenges = func(fallback http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != challengePath+"token" {
					fallback.ServeHTTP(w, r)
					return
				}
				_, _ = io.WriteString(w, "token.thumbprint for "+r.Host)
			})
		}
	}).run(t)
	tests := []struct {
		method, host, target string
		status               int
	}{
		{"GET", "mta-sts.a.example", challengePath + "token", 200},
		{"GET", "mta-sts.a.example", challengePath + "other", 404},
		{"GET", "mta-sts.a.example", challengePath, 404},
		{"POST", "mta-sts.a.example", challengePath + "token", 404},
		{"GET", "mta-sts.a.example", policyPath, 404},
		{"HEAD", "mta-sts.a.example", policyPath, 404},
		{"POST", "mta-sts.a.example", policyPath, 404},
		{"BREW", "mta-sts.a.example", policyPath, 404},
		{"GET", "mta-sts.a.example", policyPath + "/", 404},
		{"GET", "mta-sts.a.example", "/", 404},
		{"GET", serviceHost, "/", 404},
		{"OPTIONS", serviceHost, "*", 404},
	}
	for _, tt := range tests {
		conn, err := net.Dial("tcp", w.plain)
		if err != nil {
			t.Fatal(err)
		}
		got := raw(t, conn, tt.method, fmt.Sprintf("%s %s HTTP/1.1\nHost: %s\n\n", tt.method, tt.target, tt.host))
		if got.status != tt.status || got.header.Get("Location") != "" {
			t.Errorf("%s %s = %d %v, want %d without Location", tt.method, tt.target, got.status, got.header, tt.status)
		}
		if got.status == 200 && got.body != "token.thumbprint for mta-sts.a.example" {
			t.Errorf("challenge answered %q", got.body)
		}
		_ = conn.Close()
	}
}

func TestNewPublicRefusesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := NewPublic(PublicConfig{Hostname: serviceHost}); err == nil {
		t.Error("NewPublic without policies = nil, want an error")
	}
}
