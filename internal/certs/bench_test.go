package certs_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// full returns a Keeper that has loaded n certificates, and their names. The chain is as long as a public one's.
func full(tb testing.TB, n int) (*certs.Keeper, []string) {
	tb.Helper()
	issuer, err := issue(90*day, "an issuing authority with a long name.test")
	if err != nil {
		tb.Fatal(err)
	}
	b := newBooks()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("mta-sts.customer-%06d.example.com", i)
		c, err := issue(90*day, names[i])
		if err != nil {
			tb.Fatal(err)
		}
		c.Chain = append(c.Chain, append([]byte(nil), issuer.Chain[0]...))
		b.certs[names[i]] = c
	}
	k := certs.New(certs.Config{Store: b, Authorities: one(&model{answer: refused}), Log: slog.New(slog.DiscardHandler)})
	if err := k.Load(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	for _, name := range names {
		k.Want(name, false)
	}
	return k, names
}

// loader gives certificates to Load without keeping them, so that only what the Keeper keeps is measured.
type loader struct {
	*books
	n      int
	issuer []byte
}

func (l loader) EachCertificate(_ context.Context, f func(store.Certificate) error) error {
	for i := range l.n {
		c, err := issue(90*day, fmt.Sprintf("mta-sts.customer-%06d.example.com", i))
		if err != nil {
			return err
		}
		c.Chain = append(c.Chain, append([]byte(nil), l.issuer...))
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

// TestMemory holds this package's part of the budget of 5 KB a name, after each was asked once. The rest is for the
// garbage that the collector lets grow to as much again, and for the other packages.
func TestMemory(t *testing.T) {
	const n = 2000
	issuer, err := issue(90*day, "authority.test")
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	k := certs.New(certs.Config{
		Store:       loader{newBooks(), n, issuer.Chain[0]},
		Authorities: one(&model{answer: refused}),
		Log:         slog.New(slog.DiscardHandler),
	})
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	for i := range n {
		name := fmt.Sprintf("mta-sts.customer-%06d.example.com", i)
		k.Want(name, false)
		c, err := k.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if c == nil || err != nil {
			t.Fatalf("GetCertificate(%s) = %v, %v", name, c, err)
		}
		if _, err := c.PrivateKey.(crypto.Signer).Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	each := (heap() - before) / n
	t.Logf("%d bytes a name", each)
	if each > 1200 {
		t.Errorf("%d bytes a name, want at most 1200", each)
	}
	runtime.KeepAlive(k)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLookupAllocations: a name that is not there costs none, and one that is only what makes its key.
func TestLookupAllocations(t *testing.T) {
	k, names := full(t, 10)
	const most = 15 // where the handshake around it has some 400
	for _, tt := range []struct {
		kind, name string
		most       float64
	}{
		{"known", names[0], most},
		{"known in capitals", "MTA-STS.Customer-000001.EXAMPLE.com.", most},
		{"unknown", "mta-sts.unknown.example", 0},
		{"none", "", 0},
	} {
		hello := &tls.ClientHelloInfo{ServerName: tt.name}
		if got := testing.AllocsPerRun(100, func() { k.GetCertificate(hello) }); got > tt.most {
			t.Errorf("%s: %v allocations, want at most %v", tt.kind, got, tt.most)
		}
	}
}

func BenchmarkGetCertificate(b *testing.B) {
	k, names := full(b, 10_000)
	for kind, pick := range map[string]func(i int) string{
		"hot":     func(int) string { return names[0] },
		"cold":    func(i int) string { return names[i*7919%len(names)] }, // whose memory no cache of the CPU has
		"unknown": func(int) string { return "mta-sts.unknown-customer.example" },
	} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			hello := new(tls.ClientHelloInfo)
			for i := 0; b.Loop(); i++ {
				hello.ServerName = pick(i)
				if _, err := k.GetCertificate(hello); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestSignaturesAtOnce: many handshakes at once sign each with the key of its name, and say the same twice.
func TestSignaturesAtOnce(t *testing.T) {
	t.Parallel()
	k, names := full(t, 20)
	digest := sha256.Sum256([]byte("a transcript"))
	sign := func(name string) ([]byte, error) {
		c, err := k.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			return nil, err
		}
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			return nil, err
		}
		key := c.PrivateKey.(crypto.Signer)
		if !leaf.PublicKey.(*ecdsa.PublicKey).Equal(key.Public()) {
			return nil, fmt.Errorf("the public key of %s is not its certificate's", name)
		}
		signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err == nil && !ecdsa.VerifyASN1(leaf.PublicKey.(*ecdsa.PublicKey), digest[:], signature) {
			err = fmt.Errorf("the signature for %s is wrong", name)
		}
		return signature, err
	}
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			for n := range 100 {
				name := names[(i+n)%len(names)]
				first, err := sign(name)
				if err != nil {
					return err
				}
				if again, err := sign(name); err != nil || !bytes.Equal(first, again) {
					return fmt.Errorf("two signatures for %s differ: %w", name, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// BenchmarkSign is what a handshake takes of a certificate: to find it, and one signature.
func BenchmarkSign(b *testing.B) {
	k, names := full(b, 10_000)
	b.ReportAllocs()
	hello, digest := new(tls.ClientHelloInfo), make([]byte, 32)
	for i := 0; b.Loop(); i++ {
		hello.ServerName = names[i*7919%len(names)]
		c, err := k.GetCertificate(hello)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.PrivateKey.(crypto.Signer).Sign(rand.Reader, digest, crypto.SHA256); err != nil {
			b.Fatal(err)
		}
	}
}

// shake makes a handshake, both sides.
func shake(server *tls.Config, name string) error {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = tls.Server(there, server).Handshake() // the client says how it went
	}()
	err := tls.Client(here, &tls.Config{
		ServerName: name, InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519},
	}).Handshake()
	<-ended
	return err
}

// BenchmarkHandshake is a full TLS 1.3 handshake, both sides, with one of 10,000 names, and one that is refused.
func BenchmarkHandshake(b *testing.B) {
	k, names := full(b, 10_000)
	server := &tls.Config{GetCertificate: k.GetCertificate, SessionTicketsDisabled: true}
	for kind, known := range map[string]bool{"known": true, "unknown": false} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				name := names[mathrand.IntN(len(names))]
				if !known {
					name = "x" + name
				}
				if err := shake(server, name); (err == nil) != known {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestFloodOfUnknownNames: handshakes for names at random leave nothing behind, ask no store, and keep nobody from his.
func TestFloodOfUnknownNames(t *testing.T) {
	b := newBooks()
	c, err := issue(90*day, "mta-sts.good.example")
	if err != nil {
		t.Fatal(err)
	}
	b.certs[c.Name] = c
	k := certs.New(certs.Config{Store: b, Authorities: one(&model{answer: refused}), Log: slog.New(slog.DiscardHandler)})
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{GetCertificate: k.GetCertificate}
	flood := func(n int) {
		t.Helper()
		for i := range n {
			if err := shake(server, fmt.Sprintf("%x.%x.example", mathrand.Uint64(), mathrand.Uint64())); err == nil {
				t.Fatal("a handshake for an unknown name succeeds")
			}
			if i%100 == 0 {
				if err := shake(server, c.Name); err != nil {
					t.Fatalf("handshake for a good name: %v", err)
				}
			}
		}
	}
	flood(200)
	b.mu.Lock() // whoever asks the store now waits for ever
	before := heap()
	flood(1500)
	if grown := heap() - before; grown > 150<<10 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	b.mu.Unlock()
	if s := k.Status("x.example"); s.State != certs.StateNone {
		t.Errorf("an unknown name has the state %s", s.State)
	}
}

// BenchmarkLoad is the start with 10,000 certificates.
func BenchmarkLoad(b *testing.B) {
	books := newBooks()
	for i := range 10_000 {
		name := fmt.Sprintf("mta-sts.customer-%06d.example.com", i)
		c, err := issue(90*day, name)
		if err != nil {
			b.Fatal(err)
		}
		books.certs[name] = c
	}
	for b.Loop() {
		k := certs.New(certs.Config{Store: books, Authorities: one(&model{answer: refused}), Log: slog.New(slog.DiscardHandler)})
		start := time.Now()
		if err := k.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/10_000, "µs/name")
	}
}
