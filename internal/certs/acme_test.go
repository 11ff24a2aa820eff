package certs_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
)

func TestObtainsByHTTP01(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	dead(w.tls)
	w.prefer(t, "http-01")
	n := w.startNode(t)
	n.Want("mta-sts.good.test", false)
	s := n.wait(t, "mta-sts.good.test", certs.StateValid, certs.StateFailing)
	if s.State != certs.StateValid {
		t.Fatalf("status %+v", s)
	}
	checkAnswers(t, w, "+http-01")
}

func TestObtainsByTLSALPN01(t *testing.T) {
	w := newWorld(t, time.Hour)
	dead(w.http)
	n := w.startNode(t)
	w.serveTLS(t, n.Keeper)
	n.Want("mta-sts.good.test", false)
	s := n.wait(t, "mta-sts.good.test", certs.StateValid, certs.StateFailing)
	if s.State != certs.StateValid {
		t.Fatalf("status %+v", s)
	}
	leaf, err := w.handshake(t, "MTA-STS.good.test")
	if err != nil {
		t.Fatalf("handshake: %v", err)
	}
	if _, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok {
		t.Errorf("key is %T, want ECDSA", leaf.PublicKey)
	}
	if !leaf.NotAfter.Equal(s.NotAfter) {
		t.Errorf("status says valid until %v, the certificate %v", s.NotAfter, leaf.NotAfter)
	}
	checkAnswers(t, w, "+token")
}

// checkAnswers checks that an answer of a kind was in the store, and that nothing is left of any.
func checkAnswers(t *testing.T, w *world, kind string) {
	t.Helper()
	left, put := w.store.left()
	if len(left) > 0 || put == 0 {
		t.Errorf("%d answers to challenges were put, left are %q", put, left)
	}
	found := false
	for _, key := range w.store.put {
		found = found || strings.HasSuffix(key, kind)
	}
	if !found {
		t.Errorf("no answer of kind %s among %q", kind, w.store.put)
	}
}

func TestDeadNamesShowTheReasonAndCostOthersNothing(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	n := w.startNode(t, func(c *certs.Config) { c.FirstPause = time.Hour })
	w.serveTLS(t, n.Keeper)
	for i := range 4 {
		n.Want(fmt.Sprintf("mta-sts%d.refuse.test", i), false)
		n.Want(fmt.Sprintf("mta-sts%d.missing.test", i), false)
	}
	for i := range 4 {
		n.Want(fmt.Sprintf("mta-sts%d.good.test", i), false)
	}
	for i := range 4 {
		n.wait(t, fmt.Sprintf("mta-sts%d.good.test", i), certs.StateValid)
	}
	for i := range 4 {
		s := n.wait(t, fmt.Sprintf("mta-sts%d.refuse.test", i), certs.StateFailing)
		for _, want := range []string{"tls-alpn-01: ", "127.0.0.99", "for the tls-alpn-01 challenge"} {
			if !strings.Contains(s.Problem, want) {
				t.Errorf("problem %q does not say %q", s.Problem, want)
			}
		}
		if until := time.Until(s.NextTry); until < 50*time.Minute || until > time.Hour {
			t.Errorf("next try in %v, want about an hour", until)
		}
		s = n.wait(t, fmt.Sprintf("mta-sts%d.missing.test", i), certs.StateFailing)
		if !strings.Contains(strings.ToLower(s.Problem), "could not resolve") {
			t.Errorf("problem %q does not say that the name does not resolve", s.Problem)
		}
	}
	if got := n.issuer.orders.Load(); got != 12 {
		t.Errorf("%d orders, want one for each of 12 names", got)
	}
}

func TestProblemIsTyped(t *testing.T) {
	w := newWorld(t, time.Hour)
	dead(w.http)
	dead(w.tls)
	_, err := w.acme.Obtain(t.Context(), certs.Request{Name: "mta-sts.refuse.test"})
	var p *certs.Problem
	if !errors.As(err, &p) {
		t.Fatalf("Obtain: %v, want a Problem", err)
	}
	if p.Challenge != "tls-alpn-01" || !strings.HasPrefix(p.Type, "urn:ietf:params:acme:error:") || p.Detail == "" {
		t.Errorf("problem %+v", p)
	}
	if want := `order certificate for "mta-sts.refuse.test": tls-alpn-01: `; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %q, want it to begin with %q", err, want)
	}
	left, _ := w.store.left()
	if len(left) > 0 {
		t.Errorf("answers left in the store: %q", left)
	}

	_, err = w.acme.Obtain(t.Context(), certs.Request{Name: "not_a_name.good.test"})
	if err == nil {
		t.Error("a name that is no host name was ordered")
	}
}

// deaf is a store that takes no answers to challenges.
type deaf struct{ certs.Values }

func (d deaf) SetValue(ctx context.Context, key string, value []byte) error {
	if strings.HasPrefix(key, "acme/challenge/") {
		return errors.New("disk full")
	}
	return d.Values.SetValue(ctx, key, value)
}

func TestChallengeThatNobodyCanAnswerIsNotBegun(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	dead(w.tls)
	a := w.newACMEOn(t, deaf{w.store}, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	_, err := a.Obtain(t.Context(), certs.Request{Name: "mta-sts.good.test"})
	want := `order certificate for "mta-sts.good.test": keep answer to a challenge: disk full`
	if err == nil || err.Error() != want {
		t.Errorf("Obtain: %v, want %s", err, want)
	}
	if n := w.dns.Queries("mta-sts.good.test", ""); n != 0 {
		t.Errorf("the CA validated: it asked for the name %d times", n)
	}
}

func TestRateLimitIsTyped(t *testing.T) {
	w := newWorld(t, time.Hour)
	ca := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Replay-Nonce", "nonce")
		switch base := "http://" + r.Host; r.URL.Path {
		case "/":
			fmt.Fprintf(rw, `{"newNonce":"%[1]s/nonce","newAccount":"%[1]s/account","newOrder":"%[1]s/order"}`, base)
		case "/account":
			rw.Header().Set("Location", base+"/account/1")
			rw.WriteHeader(http.StatusCreated)
			fmt.Fprint(rw, `{"status":"valid"}`)
		case "/order":
			rw.Header().Set("Retry-After", "7200")
			rw.Header().Set("Content-Type", "application/problem+json")
			rw.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(rw, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many new orders"}`)
		}
	}))
	defer ca.Close()
	a := w.newACME(t, ca.URL+"/", w.ca.DirectoryCAPEM)
	start := time.Now()
	_, err := a.Obtain(t.Context(), certs.Request{Name: "mta-sts.good.test"})
	var p *certs.Problem
	if !errors.As(err, &p) || p.Status != http.StatusTooManyRequests || p.RetryAfter != 2*time.Hour {
		t.Fatalf("Obtain: %v, %+v", err, p)
	}
	if want := `order certificate for "mta-sts.good.test": too many new orders (rateLimited)`; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v to say so", d)
	}
}

func TestBadNoncesAreRepeated(t *testing.T) {
	w := newWorld(t, time.Hour)
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "40")
	ca := w.startCA(t, time.Hour)
	w.serveHTTP(t)
	dead(w.tls)
	w.prefer(t, "http-01")
	a := w.newACME(t, ca.DirectoryURL, ca.DirectoryCAPEM)
	if _, err := a.Obtain(t.Context(), certs.Request{Name: "mta-sts.good.test"}); err != nil {
		t.Error(err)
	}
}

func TestDirectoryDownThenUpThenAnotherThatLostTheAccount(t *testing.T) {
	w := newWorld(t, time.Hour)
	w.serveHTTP(t)
	dead(w.tls)
	other := w.startCA(t, time.Hour)
	g := newGate(t)
	w.acme = w.newACME(t, "https://"+g.Addr().String()+"/dir", w.ca.DirectoryCAPEM, other.DirectoryCAPEM)
	n := w.startNode(t)
	n.Want("mta-sts.good.test", false)
	s := n.wait(t, "mta-sts.good.test", certs.StateFailing)
	if want := "ask the authority at " + g.Addr().String(); !strings.Contains(s.Problem, want) {
		t.Errorf("problem %q does not say %q", s.Problem, want)
	}

	for i, ca := range []*url.URL{directory(t, w.ca.DirectoryURL), directory(t, other.DirectoryURL)} {
		g.to.Store(&ca.Host)
		name := fmt.Sprintf("mta-sts%d.good.test", i)
		n.Want(name, false)
		n.wait(t, name, certs.StateValid)
	}
	n.wait(t, "mta-sts.good.test", certs.StateValid)
}

func directory(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestCancelEndsOrdersAtOnce(t *testing.T) {
	w := newWorld(t, time.Hour)
	silent := listen(t) // accepts by its backlog and never answers
	w.acme = w.newACME(t, "https://"+silent.Addr().String()+"/dir", w.ca.DirectoryCAPEM)
	n := w.startNode(t)
	n.Want("mta-sts.good.test", false)
	c, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	n.stop()
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("Run ended after %v", d)
	}
	if s := n.Status("mta-sts.good.test"); s.State != certs.StateOrdering || s.Problem != "" {
		t.Errorf("to be stopped counts as a failure: %+v", s)
	}

	// The same in the middle of a validation.
	ctx, cancel := context.WithCancel(t.Context())
	a := w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	ended := make(chan error, 1)
	go func() {
		_, err := a.Obtain(ctx, certs.Request{Name: "silent.test"})
		ended <- err
	}()
	if c, err = w.tls.Accept(); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Obtain: %v", err)
		}
	case <-time.After(3 * time.Second):
		t.Error("Obtain did not end with its context")
	}
}

func TestHTTPHandlerNeverRedirects(t *testing.T) {
	w := newWorld(t, time.Hour)
	for _, path := range []string{
		"/", "/.well-known/mta-sts.txt",
		"/.well-known/acme-challenge/", "/.well-known/acme-challenge/unknown", "/.well-known/acme-challenge/a/../../x",
		"/.well-known/acme-challenge/" + strings.Repeat("x", 5000),
	} {
		r := httptest.NewRequest(http.MethodGet, "http://mta-sts.good.test/", nil)
		r.URL.Path = path
		rec := httptest.NewRecorder()
		w.live.Load().HTTPHandler(nil).ServeHTTP(rec, r)
		if rec.Code != http.StatusNotFound {
			t.Errorf("%.60s: %d, want 404", path, rec.Code)
		}
	}
	called := false
	h := w.live.Load().HTTPHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if !called {
		t.Error("the fallback was not called")
	}
}

func TestNewACMENeedsItsCAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "missing.pem")
	if _, err := certs.NewACME(config.ACME{CAFile: file}, nil, nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a missing CA file: %v", err)
	}
}
