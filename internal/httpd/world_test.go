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
