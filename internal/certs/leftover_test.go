package certs_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// shop is a CA that forgets every order, so that what is left after many of them is ours. It validates nothing, but that
// every tenth name fails.
type shop struct {
	key    *ecdsa.PrivateKey
	server *httptest.Server

	mu    sync.Mutex
	last  int
	proof map[string]bool   // orders whose challenge was accepted
	leafs map[string][]byte // PEM, by order
}

func newShop(tb testing.TB) *shop {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	s := &shop{key: key, proof: make(map[string]bool), leafs: make(map[string][]byte)}
	s.server = httptest.NewServer(s)
	tb.Cleanup(s.server.Close)
	return s
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Replay-Nonce", "nonce")
	base := "http://" + r.Host
	what, n, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	order := fmt.Sprintf(`{"status":"ready","authorizations":["%[1]s/authz/%[2]s"],"finalize":"%[1]s/finalize/%[2]s"}`, base, n)
	switch what {
	case "":
		fmt.Fprintf(w, `{"newNonce":"%[1]s/nonce","newAccount":"%[1]s/account","newOrder":"%[1]s/new"}`, base)
	case "account":
		w.Header().Set("Location", base+"/account/1")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"status":"valid"}`)
	case "new":
		s.last++
		n = fmt.Sprint(s.last)
		w.Header().Set("Location", base+"/order/"+n)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"status":"pending","authorizations":["%[1]s/authz/%[2]s"],"finalize":"%[1]s/finalize/%[2]s"}`, base, n)
	case "authz":
		status, problem := "pending", ""
		if s.proof[n] {
			status = "valid"
			if strings.HasSuffix(n, "9") {
				status, problem = "invalid", `,"error":{"type":"urn:ietf:params:acme:error:connection","detail":"refused"}`
			}
			delete(s.proof, n)
		}
		fmt.Fprintf(w, `{"status":%q,"challenges":[{"type":"tls-alpn-01","url":"%s/chal/%s","token":"t%[3]s"%s}]}`, status, base, n, problem)
	case "chal":
		s.proof[n] = true
		fmt.Fprint(w, `{}`)
	case "order":
		fmt.Fprint(w, order)
	case "finalize":
		s.leafs[n] = s.sign(signed(body)["csr"].(string))
		fmt.Fprintf(w, `{"status":"valid","certificate":"%s/cert/%s"}`, base, n)
	case "cert":
		w.Write(s.leafs[n])
		delete(s.leafs, n)
	}
}

// sign issues a certificate.
func (s *shop) sign(encoded string) []byte {
	der, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(int64(s.last)), DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * day),
	}
	if der, err = x509.CreateCertificate(rand.Reader, t, t, csr.PublicKey, s.key); err != nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// drawer is Values in memory.
type drawer struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (d *drawer) Value(_ context.Context, key string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v, found := d.values[key]; found {
		return v, nil
	}
	return nil, store.ErrNotFound
}

func (d *drawer) SetValue(_ context.Context, key string, value []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.values[key] = bytes.Clone(value)
	return nil
}

func (d *drawer) EnsureValue(ctx context.Context, key string, value []byte) ([]byte, error) {
	if v, err := d.Value(ctx, key); err == nil {
		return v, nil
	}
	return value, d.SetValue(ctx, key, value)
}

func (d *drawer) DeleteValue(_ context.Context, key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.values, key)
	return nil
}

// buy makes orders for n names that nobody ordered before, eight at a time.
func buy(tb testing.TB, a *certs.ACME, from, n int) {
	tb.Helper()
	names := make(chan string)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for name := range names {
				_, err := a.Obtain(tb.Context(), certs.Request{Name: name})
				if _, refused := errors.AsType[*certs.Problem](err); err != nil && !refused {
					tb.Error(err)
				}
			}
		})
	}
	for i := range n {
		names <- fmt.Sprintf("mta-sts.customer-%06d.example.com", from+i)
	}
	close(names)
	wg.Wait()
}

// TestOrdersLeaveNothing: an order of autocert leaves 7.7 KB and a timer behind.
func TestOrdersLeaveNothing(t *testing.T) {
	s := newShop(t)
	d := &drawer{values: make(map[string][]byte)}
	a, err := certs.NewACME(config.ACME{Name: "shop", Directory: s.server.URL + "/"}, d, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	buy(t, a, 0, 200)
	before, goroutines := heap(), runtime.NumGoroutine()
	const orders = 300
	buy(t, a, 200, orders)
	left := heap() - before
	t.Logf("%d bytes an order", left/orders)
	if left > orders*300 {
		t.Errorf("%d orders left %d bytes behind", orders, left)
	}
	if n := runtime.NumGoroutine(); n > goroutines+8 { // the connections of a server come and go
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if n := len(d.values); n != 2 { // the account's key, and the way that works
		t.Errorf("%d values are left in the store: %v", n, d.values)
	}
	runtime.KeepAlive(a)
}

// BenchmarkOrders makes orders, both sides, and says what each leaves on the heap: go test -bench Orders -benchtime 10000x.
func BenchmarkOrders(b *testing.B) {
	s := newShop(b)
	d := &drawer{values: make(map[string][]byte)}
	a, err := certs.NewACME(config.ACME{Name: "shop", Directory: s.server.URL + "/"}, d, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	buy(b, a, 0, 200)
	before := heap()
	b.ResetTimer()
	buy(b, a, 200, b.N)
	b.StopTimer()
	b.ReportMetric(float64(heap()-before)/float64(b.N), "B-left/op")
	runtime.KeepAlive(a)
}
