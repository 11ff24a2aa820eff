package certs

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// values is a store's values in memory.
type values struct {
	mu  sync.Mutex // guards all
	all map[string][]byte
}

func (v *values) Value(_ context.Context, key string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if value, found := v.all[key]; found {
		return value, nil
	}
	return nil, store.ErrNotFound
}

func (v *values) SetValue(_ context.Context, key string, value []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all[key] = value
	return nil
}

func (v *values) EnsureValue(_ context.Context, key string, value []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old, found := v.all[key]; found {
		return old, nil
	}
	v.all[key] = value
	return value, nil
}

func (v *values) DeleteValue(_ context.Context, key string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.all, key)
	return nil
}

const fuzzedHost = "mta-sts.fuzz.test"

// Where an authority may misbehave. The address of each is its own name.
const (
	atDirectory = "/directory"
	atNonce     = "/nonce"
	atAccount   = "/account"
	atOrder     = "/order"
	atAuthz     = "/authz"
	atChallenge = "/challenge"
	atPoll      = "/poll"
	atFinalize  = "/finalize"
	atCert      = "/cert"
	atRenewal   = "/renewal/"
)

func places() []string {
	return []string{atDirectory, atNonce, atAccount, atOrder, atAuthz, atChallenge, atPoll, atFinalize, atCert, atRenewal}
}

// How an answer that is not the honest one ends.
const (
	thenClose = iota // of the connection
	thenStall        // nothing more comes, and the connection stays
	thenOn           // the body goes on for ever
	thenKinds
)

// fraud is an authority at https://ca.test, and everywhere else, that issues as RFC 8555 says, but for one place.
type fraud struct {
	certificate *tls.Certificate // its own, for any name
	roots       *x509.CertPool
	key         *ecdsa.PrivateKey // that it issues with

	at           string // where it gives answer
	answer       []byte
	then         int
	conns        []net.Conn
	requests     int
	plain, valid bool // somebody spoke without TLS; the challenge was accepted
	issued       []byte
	mu           sync.Mutex // guards what is above, from conns on
	served       sync.WaitGroup
}

func newFraud(tb testing.TB) *fraud {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	f := &fraud{key: key, roots: x509.NewCertPool()}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"ca.test"}, IsCA: true, BasicConstraintsValid: true,
		// A bubble of synctest begins in the year 2000.
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	f.roots.AddCert(leaf)
	f.certificate = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return f
}

// acme makes an ACME whose connections all lead to the authority.
func (f *fraud) acme(t *testing.T, v Values) *ACME {
	t.Helper()
	a, err := NewACME(config.ACME{Name: "fraud", Directory: "https://ca.test" + atDirectory}, v, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	transport := a.http.Transport.(*wire).next.(*http.Transport)
	transport.Proxy = nil
	transport.TLSClientConfig.RootCAs = f.roots
	transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.conns = append(f.conns, theirs)
		in := &inbox{}
		in.more.L = &in.mu
		f.served.Go(func() { in.fill(theirs) })
		f.served.Go(func() { f.serve(theirs, in) })
		return ours, nil
	}
	return a
}

// end closes what is open.
func (f *fraud) end(a *ACME) {
	a.http.CloseIdleConnections()
	f.mu.Lock()
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.served.Wait()
}

// inbox takes what is written to a pipe, so that nobody waits there: net/http does so with a lock held, on which the clock
// of a bubble does not go on.
type inbox struct {
	mu   sync.Mutex // guards what follows
	more sync.Cond
	text []byte
	end  error
}

func (in *inbox) fill(from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		in.mu.Lock()
		in.text, in.end = append(in.text, buf[:n]...), err
		in.more.Broadcast()
		in.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (in *inbox) Read(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.text) == 0 && in.end == nil {
		in.more.Wait()
	}
	if len(in.text) == 0 {
		return 0, in.end
	}
	n := copy(p, in.text)
	in.text = in.text[n:]
	return n, nil
}

func (f *fraud) serve(conn net.Conn, from io.Reader) {
	defer conn.Close()
	in := bufio.NewReader(from)
	if first, err := in.Peek(1); err != nil || first[0] != 0x16 { // a handshake (RFC 8446, Section 5.1)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.plain = f.plain || err == nil
		return
	}
	secure := tls.Server(peeked{conn, in}, &tls.Config{
		Certificates: []tls.Certificate{*f.certificate}, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13,
	})
	requests := bufio.NewReader(secure)
	for {
		req, err := http.ReadRequest(requests)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		text, honest := f.reply(req, body)
		if _, err := secure.Write(text); err != nil {
			return
		}
		switch {
		case honest:
			continue
		case f.then == thenStall:
			_, _ = requests.ReadByte() // until the other side has had enough
		case f.then == thenOn:
			for more := bytes.Repeat([]byte("{[ 0"), 4096); err == nil; {
				_, err = secure.Write(more)
			}
		}
		return
	}
}

// peeked is a connection of which something was read.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// reply is what the authority says, and whether it is what RFC 8555 asks for.
func (f *fraud) reply(req *http.Request, body []byte) (text []byte, honest bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	if strings.HasPrefix(req.URL.Path, f.at) {
		return f.answer, false
	}
	status, said := f.honest(req.URL.Path, body)
	if req.Method == http.MethodHead {
		said = ""
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d X\r\nReplay-Nonce: n\r\nLocation: https://ca.test%s\r\nContent-Length: %d\r\n\r\n%s",
		status, map[string]string{atAccount: atAccount, atOrder: atPoll, atFinalize: atPoll}[req.URL.Path], len(said), said), true
}

func (f *fraud) honest(path string, body []byte) (status int, said string) {
	state := map[bool]string{false: "pending", true: "valid"}[f.valid]
	switch path {
	case atDirectory:
		return 200, directoryText()
	case atAccount:
		return 201, `{"status":"valid"}`
	case atOrder:
		return 201, orderText("pending")
	case atAuthz:
		return 200, authzText(state)
	case atChallenge:
		f.valid = true
		return 200, `{"type":"tls-alpn-01","url":"https://ca.test/challenge","token":"t","status":"processing"}`
	case atPoll:
		return 200, orderText(map[bool]string{false: "ready", true: "valid"}[f.issued != nil])
	case atFinalize:
		f.issued = f.issue(body)
		return 200, orderText("valid")
	case atCert:
		return 200, string(f.issued)
	}
	if strings.HasPrefix(path, atRenewal) {
		return 200, windowText()
	}
	return 200, ""
}

func directoryText() string {
	return `{"newNonce":"https://ca.test/nonce","newAccount":"https://ca.test/account","newOrder":"https://ca.test/order",` +
		`"renewalInfo":"https://ca.test/renewal","meta":{"caaIdentities":["ca.test"]}}`
}

func orderText(status string) string {
	return `{"status":"` + status + `","authorizations":["https://ca.test/authz"],"finalize":"https://ca.test/finalize","certificate":"https://ca.test/cert"}`
}

func authzText(status string) string {
	return `{"status":"` + status + `","identifier":{"type":"dns","value":"mta-sts.fuzz.test"},` +
		`"challenges":[{"type":"tls-alpn-01","url":"https://ca.test/challenge","token":"t"},{"type":"http-01","url":"https://ca.test/challenge","token":"h"}]}`
}

func windowText() string {
	return `{"suggestedWindow":{"start":"2000-02-01T00:00:00Z","end":"2000-02-02T00:00:00Z"},"explanationURL":"https://ca.test/why"}`
}

// issue makes the certificate that a request asks for, or nothing of one that cannot be read.
func (f *fraud) issue(body []byte) []byte {
	var jws, payload struct{ Payload, CSR string }
	if json.Unmarshal(body, &jws) != nil {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil || json.Unmarshal(text, &payload) != nil {
		return nil
	}
	der, err := base64.RawURLEncoding.DecodeString(payload.CSR)
	if err != nil {
		return nil
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil
	}
	return f.leaf(csr.PublicKey, csr.DNSNames...)
}

func (f *fraud) leaf(public any, names ...string) []byte {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: names, AuthorityKeyId: []byte{1},
		NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2000, 4, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, f.certificate.Leaf, public, f.key)
	if err != nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// obtained is what came of one order with a fraud.
type obtained struct {
	cert     store.Certificate
	err      error
	took     time.Duration
	left     []string // answers to challenges that are still in the store
	requests int
	plain    bool
	window   Window
	asked    error // for the window
}

const obtainTime = 2 * answerTimeout

// cheat has an order meet an answer at a place. No real time passes.
func cheat(t *testing.T, f *fraud, at string, answer []byte, then int) (o obtained) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fraud{certificate: f.certificate, roots: f.roots, key: f.key, at: at, answer: answer, then: then}
		v := &values{all: make(map[string][]byte)}
		a := f.acme(t, v)
		ctx, cancel := context.WithTimeout(t.Context(), obtainTime)
		defer cancel()
		begun := time.Now()
		o.cert, o.err = a.Obtain(ctx, Request{Name: fuzzedHost})
		o.took = time.Since(begun)
		asking, done := context.WithTimeout(t.Context(), time.Minute)
		defer done()
		leaf, _ := pem.Decode(f.leaf(f.key.Public(), fuzzedHost))
		o.window, o.asked = a.Window(asking, leaf.Bytes)
		f.end(a)
		for key := range v.all {
			if strings.HasPrefix(key, challengePrefix) {
				o.left = append(o.left, key)
			}
		}
		o.requests, o.plain = f.requests, f.plain
	})
	return o
}

// check: whatever an authority does, an order ends in time, leaves nothing behind, and a certificate that is taken fits.
func (o *obtained) check(t *testing.T) {
	t.Helper()
	if o.took > obtainTime+saveTimeout || o.requests > 5000 {
		t.Errorf("it took %v and %d requests", o.took, o.requests)
	}
	if len(o.left) > 0 {
		t.Errorf("left in the store: %.200q", o.left)
	}
	if o.plain {
		t.Error("something was asked for without TLS")
	}
	for _, err := range []error{o.err, o.asked} {
		if err == nil {
			continue
		}
		if s := err.Error(); len(s) > 3*maxWords || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("the error has %d bytes, or is not printable: %.300q", len(s), s)
		}
		judge(err, fuzzedHost, "fuzz.test")
	}
	if w := o.window; len(w.Explanation) > 2*maxWords || strings.ContainsFunc(w.Explanation, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("the explanation has %d bytes, or is not printable: %.300q", len(w.Explanation), w.Explanation)
	}
	if w := o.window; o.asked == nil && (!w.Start.Before(w.End) || w.Retry < leastRetry || w.Retry > mostRetry) {
		t.Errorf("window %+v", w)
	}
	if o.err != nil {
		return
	}
	m := newMemory()
	p, err := m.pack(o.cert)
	if err != nil {
		return // it is refused
	}
	leaf, err := x509.ParseCertificate(p.leaf)
	if err != nil || !slices.Contains(leaf.DNSNames, fuzzedHost) {
		t.Fatalf("a certificate for %v is taken, %v", leaf.DNSNames, err)
	}
	m.set(o.cert.Name, p)
	v, _ := m.lookup(fuzzedHost)
	served, err := m.certificate(&v)
	if err != nil {
		t.Fatal(err)
	}
	digest := bytes.Repeat([]byte{7}, 32)
	signature, err := served.PrivateKey.(*signer).Sign(nil, digest, crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(leaf.PublicKey.(*ecdsa.PublicKey), digest, signature) {
		t.Errorf("a certificate is taken whose key is another: %v", err)
	}
}

// FuzzAuthority has an ACME server answer anything at one place, byte for byte.
func FuzzAuthority(f *testing.F) {
	ca := newFraud(f)
	other := string(ca.leaf(ca.key.Public(), fuzzedHost))
	texts := []string{
		directoryText(), "", `{"status":"valid"}`, orderText("pending"), authzText("pending"),
		`{"type":"tls-alpn-01","url":"https://ca.test/challenge","token":"t","status":"valid"}`, orderText("ready"), orderText("valid"), other, windowText(),
	}
	for i, at := range places() {
		for then := range thenKinds {
			f.Add(uint8(i), uint8(then), "200 OK\r\nReplay-Nonce: n\r\nLocation: https://ca.test/poll", texts[i])
		}
		for _, head := range []string{
			"429 X\r\nRetry-After: 7200\r\nContent-Type: application/problem+json", "503 X\r\nRetry-After: -1", "302 X\r\nLocation: http://169.254.169.254/",
			"307 X\r\nLocation: https://ca.test" + at, "100 Continue", "400 X\r\nReplay-Nonce: n", "200 OK\r\nContent-Encoding: gzip", "204 X", "\x00",
		} {
			f.Add(uint8(i), uint8(thenClose), head, `{"type":"urn:ietf:params:acme:error:badNonce","detail":"a\nb\u001b[2J","subproblems":[{"detail":"c"}]}`)
		}
	}
	f.Add(uint8(0), uint8(thenClose), "200 OK", strings.ReplaceAll(directoryText(), "https:", "http:"))
	f.Add(uint8(3), uint8(thenClose), "201 OK\r\nReplay-Nonce: n\r\nLocation: https://ca.test/poll", `{"status":"ready","finalize":"https://ca.test/finalize"}`)
	f.Add(uint8(8), uint8(thenClose), "200 OK", string(ca.leaf(ca.key.Public(), "other.test")))
	f.Add(uint8(8), uint8(thenClose), "200 OK", strings.Repeat(other, 7))
	f.Add(uint8(8), uint8(thenClose), "200 OK", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
	f.Add(uint8(9), uint8(thenClose), "200 OK", strings.ReplaceAll(windowText(), "/why", `/\u001b[2J`+strings.Repeat("y", 10_000)))
	f.Fuzz(func(t *testing.T, place, then uint8, head, body string) {
		at := places()[int(place)%len(places())]
		answer := []byte("HTTP/1.1 " + head + "\r\n\r\n" + body)
		o := cheat(t, ca, at, answer, int(then)%thenKinds)
		o.check(t)
	})
}
