package certs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/store"
)

const good = "mta-sts.good.test"

// TestKeysAreECDSAAndFresh guards what an update of x/crypto could break: RSA is never asked for, nor a key used again.
func TestKeysAreECDSAAndFresh(t *testing.T) {
	t.Parallel()
	_, x, a := watched(t, lab.CAOptions{})
	var keys []*ecdsa.PublicKey
	for i := range 3 {
		c := obtain(t, a, certs.Request{Name: fmt.Sprintf("mta-sts%d.good.test", i%2)})
		parsed, err := x509.ParsePKCS8PrivateKey(c.Key)
		if err != nil {
			t.Fatal(err)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok || key.Curve != elliptic.P256() {
			t.Fatalf("key is %T, want ECDSA P-256", parsed)
		}
		leaf, err := x509.ParseCertificate(c.Chain[0])
		if err != nil || !key.PublicKey.Equal(leaf.PublicKey) || leaf.VerifyHostname(c.Name) != nil || len(leaf.DNSNames) != 1 {
			t.Errorf("the certificate is not of its key and one name: %v, %v", leaf.DNSNames, err)
		}
		if !c.NotAfter.Equal(leaf.NotAfter) || !c.NotBefore.Equal(leaf.NotBefore) || c.Authority != "lab" {
			t.Errorf("certificate %+v", c)
		}
		keys = append(keys, &key.PublicKey)
	}
	finals := x.of(pathFinalize, http.StatusOK)
	if len(finals) != 3 {
		t.Fatalf("%d orders were completed", len(finals))
	}
	for i, r := range finals {
		der, err := base64.RawURLEncoding.DecodeString(r.payload["csr"].(string))
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil || csr.PublicKeyAlgorithm != x509.ECDSA || !keys[i].Equal(csr.PublicKey) {
			t.Errorf("request %d is for a key of %v, %v", i, csr.PublicKeyAlgorithm, err)
		}
	}
	if keys[0].Equal(keys[1]) || keys[0].Equal(keys[2]) || keys[1].Equal(keys[2]) {
		t.Error("a key is used twice")
	}
}

func TestOneChallengeAnOrderAndTheOneThatWorksFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Hour)
	x := new(watch)
	w.ca = w.startOtherCA(t, lab.CAOptions{Wrap: x.wrap})
	w.serveHTTP(t)
	dead(w.tls)
	a := w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	tried := func() int { return len(x.of(pathChallenge, http.StatusOK)) }
	p, _ := problem(t, a, certs.Request{Name: good})
	if p.Challenge != "tls-alpn-01" || tried() != 1 {
		t.Errorf("%d challenges, problem %+v", tried(), p)
	}
	obtain(t, a, certs.Request{Name: good})
	if tried() != 2 {
		t.Errorf("%d challenges in two orders", tried())
	}
	// What worked comes first now, also after a restart.
	obtain(t, a, certs.Request{Name: "mta-sts2.good.test"})
	a = w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	obtain(t, a, certs.Request{Name: "mta-sts3.good.test"})
	if tried() != 4 || len(x.of(pathOrder, http.StatusCreated)) != 4 {
		t.Errorf("%d challenges in %d orders, want 4", tried(), len(x.of(pathOrder, http.StatusCreated)))
	}
	// A name that fails that way tries the other one, and then the first again.
	for _, want := range []string{"http-01", "tls-alpn-01", "http-01"} {
		if p, err := problem(t, a, certs.Request{Name: "mta-sts.refuse.test"}); p.Challenge != want {
			t.Errorf("Obtain: %v, want it to try %s", err, want)
		}
	}
	if left, put := w.store.left(); len(left) > 0 || put != 7 {
		t.Errorf("%d answers were put, left are %q", put, left)
	}
}

func TestPort80ThatIsOffIsNotTried(t *testing.T) {
	t.Parallel()
	w, _, _ := watched(t, lab.CAOptions{})
	cfg := w.table()
	cfg.NoHTTP = true
	a := w.configured(t, w.store, cfg, w.ca.DirectoryCAPEM)
	for range 2 {
		if p, err := problem(t, a, certs.Request{Name: "mta-sts.refuse.test"}); p.Challenge != "tls-alpn-01" {
			t.Errorf("Obtain: %v, want it to try tls-alpn-01", err)
		}
	}
	obtain(t, a, certs.Request{Name: good})
}

func TestAuthorizationsAreReusedOrNot(t *testing.T) {
	for _, tt := range []struct {
		reuse      string
		challenges int
	}{{"100", 1}, {"0", 2}} {
		t.Run(tt.reuse+" percent", func(t *testing.T) {
			t.Setenv("PEBBLE_AUTHZREUSE", tt.reuse)
			_, x, a := watched(t, lab.CAOptions{})
			for range 2 {
				obtain(t, a, certs.Request{Name: good})
			}
			if n := len(x.of(pathChallenge, http.StatusOK)); n != tt.challenges {
				t.Errorf("%d challenges for two orders, want %d", n, tt.challenges)
			}
		})
	}
}

func TestSlowValidationsAreWaitedFor(t *testing.T) {
	w := newWorld(t, time.Hour)
	t.Setenv("PEBBLE_VA_NOSLEEP", "0")
	t.Setenv("PEBBLE_VA_SLEEPTIME", "4")
	ca := w.startCA(t, time.Hour)
	w.serveHTTP(t)
	dead(w.tls)
	w.prefer(t, "http-01")
	obtain(t, w.newACME(t, ca.DirectoryURL, ca.DirectoryCAPEM), certs.Request{Name: good})
}

func TestProfile(t *testing.T) {
	t.Parallel()
	w, _, _ := watched(t, lab.CAOptions{Profiles: map[string]time.Duration{"shortlived": 10 * time.Minute, "tlsserver": 2 * time.Hour}})
	for profile, want := range map[string]time.Duration{"shortlived": 10 * time.Minute, "tlsserver": 2 * time.Hour, "default": time.Hour} {
		cfg := w.table()
		cfg.Profile = profile
		c := obtain(t, w.configured(t, w.store, cfg, w.ca.DirectoryCAPEM), certs.Request{Name: good})
		if life := c.NotAfter.Sub(c.NotBefore); life != want-time.Second {
			t.Errorf("profile %s lives for %v, want %v", profile, life, want)
		}
	}
	cfg := w.table()
	cfg.Profile = "longlived"
	_, err := w.configured(t, w.store, cfg, w.ca.DirectoryCAPEM).Obtain(t.Context(), certs.Request{Name: good})
	if err == nil || !strings.Contains(err.Error(), "longlived (supported profiles: default, shortlived, tlsserver)") {
		t.Errorf("a profile that is not there: %v", err)
	}
}

func TestExternalAccountBinding(t *testing.T) {
	t.Parallel()
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	w, x, a := watched(t, lab.CAOptions{Bindings: map[string]string{"kid-1": key}})
	p, err := problem(t, a, certs.Request{Name: good})
	if !strings.HasSuffix(p.Type, ":externalAccountRequired") || !strings.Contains(p.Advice(), "eab_kid") {
		t.Errorf("without a binding: %v, advice %q", err, p.Advice())
	}
	raw, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := w.table()
	cfg.EABKeyID, cfg.EABKey = "kid-1", config.Secret("another key, which is not the one that the CA knows")
	p, err = problem(t, w.configured(t, w.store, cfg, w.ca.DirectoryCAPEM), certs.Request{Name: good})
	if p.Status < 400 || strings.Contains(err.Error(), "another key") {
		t.Errorf("with another key: %v", err)
	}
	cfg.EABKey = config.Secret(raw)
	obtain(t, w.configured(t, w.store, cfg, w.ca.DirectoryCAPEM), certs.Request{Name: good})
	// An account that is there needs no binding any more.
	obtain(t, w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM), certs.Request{Name: good})
	if n := len(x.of(pathAccount, http.StatusCreated)); n != 1 {
		t.Errorf("%d accounts", n)
	}
}

func TestChainIsKeptWhole(t *testing.T) {
	t.Parallel()
	w, _, a := watched(t, lab.CAOptions{Between: 3, Alternates: 2})
	c := obtain(t, a, certs.Request{Name: good})
	if len(c.Chain) != 4 {
		t.Fatalf("%d certificates in the chain, want the leaf and 3", len(c.Chain))
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(w.ca.RootPEM)
	var leaf *x509.Certificate
	for i, der := range c.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			leaf = cert
		} else {
			between.AddCert(cert)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: good, Roots: roots, Intermediates: between}); err != nil {
		t.Errorf("of three chains not the CA's first was taken: %v", err)
	}
}

func TestBlockedNameIsRefusedWithAdvice(t *testing.T) {
	t.Parallel()
	_, _, a := watched(t, lab.CAOptions{Blocked: []string{"good.test"}})
	p, err := problem(t, a, certs.Request{Name: good})
	if !strings.HasSuffix(p.Type, ":rejectedIdentifier") || !strings.Contains(p.Advice(), "add another CA") {
		t.Errorf("Obtain: %v, advice %q", err, p.Advice())
	}
}

// TestLostAccountIsRegisteredAgainOnce: several orders find at the same time that it is lost.
func TestLostAccountIsRegisteredAgainOnce(t *testing.T) {
	t.Parallel()
	w, _, _ := watched(t, lab.CAOptions{})
	x := new(watch)
	other := w.startOtherCA(t, lab.CAOptions{Wrap: x.wrap})
	g := newGate(t)
	a := w.newACME(t, "https://"+g.Addr().String()+"/dir", w.ca.DirectoryCAPEM, other.DirectoryCAPEM)
	g.to.Store(&directory(t, w.ca.DirectoryURL).Host)
	first := obtain(t, a, certs.Request{Name: good})
	g.cut(&directory(t, other.DirectoryURL).Host)
	for known := false; !known; { // the first request on a connection that was cut may fail with it
		_, err := a.Window(t.Context(), first.Chain[0])
		_, known = errors.AsType[*certs.Problem](err)
	}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if _, err := a.Obtain(t.Context(), certs.Request{Name: fmt.Sprintf("mta-sts%d.good.test", i)}); err != nil {
				t.Errorf("order %d after the account was lost: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n, orders := len(x.of(pathAccount, http.StatusCreated)), len(x.of(pathOrder, http.StatusCreated)); n != 1 || orders != 6 {
		t.Errorf("%d accounts and %d orders, want 1 and 6", n, orders)
	}
}

// TestProcessesShareAnAccount: two that begin at the same time on one store register one account.
func TestProcessesShareAnAccount(t *testing.T) {
	t.Parallel()
	w, x, _ := watched(t, lab.CAOptions{})
	var wg sync.WaitGroup
	for i := range 4 {
		a := w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
		wg.Go(func() {
			if _, err := a.Obtain(t.Context(), certs.Request{Name: fmt.Sprintf("mta-sts%d.good.test", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(x.of(pathAccount, http.StatusCreated)); n != 1 {
		t.Errorf("4 processes registered %d accounts", n)
	}
}

func TestAuthoritiesShareAResponder(t *testing.T) {
	t.Parallel()
	w, _, first := watched(t, lab.CAOptions{})
	other := w.startOtherCA(t, lab.CAOptions{})
	second := w.configured(t, w.store, config.ACME{Name: "second", Directory: other.DirectoryURL, Staging: true}, other.DirectoryCAPEM)
	if first.Name() != "lab" || second.Name() != "second" || first.Staging() || !second.Staging() {
		t.Errorf("authorities %q, %v and %q, %v", first.Name(), first.Staging(), second.Name(), second.Staging())
	}
	var wg sync.WaitGroup
	for i, a := range []*certs.ACME{first, second, first, second} {
		wg.Go(func() {
			c, err := a.Obtain(t.Context(), certs.Request{Name: fmt.Sprintf("mta-sts%d.good.test", i)})
			if err != nil || c.Authority != a.Name() {
				t.Errorf("certificate of %q: %v", c.Authority, err)
			}
		})
	}
	wg.Wait()
	for _, name := range []string{"lab", "second"} {
		if key, err := w.store.Value(t.Context(), "acme/account/"+name); err != nil || len(key) == 0 {
			t.Errorf("account key of %s: %v", name, err)
		}
	}
}

// TestLostAnswersCostNoOrder: a proxy's page comes in place of answers in the middle of an order.
func TestLostAnswersCostNoOrder(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(request) bool{
		"authorization":          nth(1, pathAuthz),
		"challenge":              nth(1, pathChallenge),
		"state of authorization": nth(2, pathAuthz),
		"state of order":         nth(1, pathState),
		"completion":             nth(1, pathFinalize),
		"certificate":            nth(1, pathCert),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, x, a := watched(t, lab.CAOptions{})
			x.set(nil, lose)
			obtain(t, a, certs.Request{Name: good})
			if lost := x.of("", http.StatusBadGateway); len(lost) == 0 {
				t.Error("no answer was lost")
			}
			if n := len(x.of(pathOrder, http.StatusCreated)); n != 1 {
				t.Errorf("%d orders", n)
			}
		})
	}
}

func TestAuthorityInTroubleIsAProblemInFewWords(t *testing.T) {
	t.Parallel()
	_, x, a := watched(t, lab.CAOptions{})
	x.set(nil, func(request) bool { return true })
	p, err := problem(t, a, certs.Request{Name: good})
	if want := `order certificate for "mta-sts.good.test": answered 502 Bad Gateway`; err.Error() != want || p.Status != 502 || p.Type != "" {
		t.Errorf("error %q, want %q", err, want)
	}
	x.set(func(r request, w http.ResponseWriter) bool {
		return strings.HasPrefix(r.path, pathOrder) && refuse(w, http.StatusServiceUnavailable, "serverInternal", "down for maintenance")
	}, nil)
	p, err = problem(t, a, certs.Request{Name: good})
	if want := `order certificate for "mta-sts.good.test": down for maintenance (serverInternal)`; err.Error() != want || p.Status != 503 {
		t.Errorf("error %q, want %q", err, want)
	}
	if n := len(x.of(pathOrder, http.StatusServiceUnavailable)); n != 1 {
		t.Errorf("an order that was not taken was sent %d times", n)
	}
}

// TestOrderEndsWhileAnotherHangs: what one order waits for holds no other.
func TestOrderEndsWhileAnotherHangs(t *testing.T) {
	t.Parallel()
	_, x, a := watched(t, lab.CAOptions{})
	obtain(t, a, certs.Request{Name: good})
	hanging, release := make(chan bool, 2), make(chan bool)
	x.set(func(r request, _ http.ResponseWriter) bool {
		if r.path == pathNonce {
			hanging <- true
			<-release
		}
		return false
	}, nil)
	defer close(release)
	cancels, ended := make([]context.CancelFunc, 2), make([]chan error, 2)
	for i := range 2 {
		var ctx context.Context
		ctx, cancels[i] = context.WithCancel(t.Context())
		ended[i] = make(chan error, 1)
		go func() {
			_, err := a.Obtain(ctx, certs.Request{Name: fmt.Sprintf("mta-sts%d.good.test", i)})
			ended[i] <- err
		}()
		<-hanging
	}
	for _, i := range []int{1, 0} {
		cancels[i]()
		select {
		case err := <-ended[i]:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Obtain: %v", err)
			}
		case <-time.After(3 * time.Second):
			t.Fatalf("order %d did not end with its context", i)
		}
	}
}

// TestBusyAuthorityIsWaitedForWithinReason: in the middle of an order, since before it the scheduler waits.
func TestBusyAuthorityIsWaitedForWithinReason(t *testing.T) {
	t.Parallel()
	for status, kind := range map[int]string{503: "serverInternal", 429: "rateLimited"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			_, x, a := watched(t, lab.CAOptions{})
			busy := nth(1, pathFinalize)
			x.set(func(r request, w http.ResponseWriter) bool {
				w.Header().Set("Retry-After", "2")
				return busy(r) && refuse(w, status, kind, "busy")
			}, nil)
			start := time.Now()
			obtain(t, a, certs.Request{Name: good})
			if n := len(x.of(pathFinalize, status)); n != 1 || time.Since(start) < 2*time.Second {
				t.Errorf("it was busy %d times, and asked again too early, after %v", n, time.Since(start))
			}
			x.set(func(r request, w http.ResponseWriter) bool {
				w.Header().Set("Retry-After", "3600")
				return strings.HasPrefix(r.path, pathAuthz) && refuse(w, status, kind, "busy")
			}, nil)
			if p, err := problem(t, a, certs.Request{Name: good}); p.Status != status || p.RetryAfter != time.Hour {
				t.Errorf("Obtain: %v, %+v", err, p)
			}
			if n := len(x.of(pathAuthz, status)); n != 1 {
				t.Errorf("it was asked %d times", n)
			}
		})
	}
}

// TestPausesThatArePastAreNotTakenForNone: package acme would ask again at once, and again.
func TestPausesThatArePastAreNotTakenForNone(t *testing.T) {
	t.Parallel()
	for _, said := range []string{time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), "-5", "0", "soon"} {
		t.Run(said, func(t *testing.T) {
			t.Parallel()
			_, x, a := watched(t, lab.CAOptions{})
			pending := 3
			x.set(func(r request, w http.ResponseWriter) bool {
				w.Header().Set("Retry-After", said)
				if !strings.HasPrefix(r.path, pathAuthz) || len(x.of(pathChallenge, http.StatusOK)) == 0 || pending == 0 {
					return false
				}
				pending--
				fmt.Fprint(w, `{"status":"pending"}`)
				return true
			}, nil)
			start := time.Now()
			obtain(t, a, certs.Request{Name: good})
			if d := time.Since(start); d < 3*time.Second {
				t.Errorf("asked again three times in %v", d)
			}
			x.mu.Lock()
			defer x.mu.Unlock()
			if len(x.requests) > 25 {
				t.Errorf("%d requests for one order", len(x.requests))
			}
		})
	}
}

// TestPaceIsKept: the limit is on requests, of all orders together.
func TestPaceIsKept(t *testing.T) {
	t.Parallel()
	w, x, _ := watched(t, lab.CAOptions{})
	cfg := w.table()
	cfg.Budget.PerSecond = 10
	a := w.configured(t, w.store, cfg, w.ca.DirectoryCAPEM)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			if _, err := a.Obtain(t.Context(), certs.Request{Name: fmt.Sprintf("mta-sts%d.good.test", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	x.mu.Lock()
	n := len(x.requests)
	x.mu.Unlock()
	if least := time.Duration(n-10) * time.Second / 10; n < 30 || time.Since(start) < least {
		t.Errorf("%d requests in %v, want at least %v", n, time.Since(start), least)
	}
}

func TestAccountKeyThatIsNoneIsSaidWithoutShowingIt(t *testing.T) {
	t.Parallel()
	w, _, a := watched(t, lab.CAOptions{})
	if err := w.store.SetValue(t.Context(), "acme/account/lab", []byte("geheim")); err != nil {
		t.Fatal(err)
	}
	_, err := a.Obtain(t.Context(), certs.Request{Name: good})
	want := `order certificate for "mta-sts.good.test": read account key: value "acme/account/lab" of the store is not a PKCS #8 key`
	if err == nil || err.Error() != want {
		t.Errorf("Obtain: %v, want %s", err, want)
	}
}

// TestReplacement orders what replaces another certificate. A nonce is refused, as each try has to be signed again.
func TestReplacement(t *testing.T) {
	t.Parallel()
	_, x, a := watched(t, lab.CAOptions{})
	replacing := nth(1, pathOrder)
	x.set(func(r request, w http.ResponseWriter) bool {
		return r.payload["replaces"] != nil && replacing(r) && refuse(w, http.StatusBadRequest, "badNonce", "not this one")
	}, nil)
	first := obtain(t, a, certs.Request{Name: good})
	second := replace(t, a, first.Chain[0])
	third := replace(t, a, second.Chain[0])
	orders := x.of(pathOrder, http.StatusCreated)
	if len(orders) != 3 {
		t.Fatalf("%d orders", len(orders))
	}
	for i, want := range []any{nil, identifier(t, first.Chain[0]), identifier(t, second.Chain[0])} {
		if got := orders[i].payload["replaces"]; got != want {
			t.Errorf("order %d replaces %v, want %v", i, got, want)
		}
	}
	if slices.Equal(second.Chain[0], third.Chain[0]) {
		t.Error("nothing new came")
	}
	if n := len(x.of(pathOrder, http.StatusBadRequest)); n != 1 {
		t.Errorf("%d nonces of orders were refused, want 1", n)
	}
}

// replace orders what replaces a certificate. Pebble gives a certificate away before it has put down which order it came by.
func replace(t *testing.T, a *certs.ACME, leaf []byte) store.Certificate {
	t.Helper()
	for {
		c, err := a.Obtain(t.Context(), certs.Request{Name: good, Replaces: leaf})
		if err == nil {
			return c
		}
		if !strings.Contains(err.Error(), "could not find an order for the given certificate") {
			t.Fatal(err)
		}
	}
}

// identifier is what Pebble knows a certificate by.
func identifier(t *testing.T, der []byte) string {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	serial := c.SerialNumber.Bytes()
	if serial[0] >= 0x80 {
		serial = append([]byte{0}, serial...)
	}
	return base64.RawURLEncoding.EncodeToString(c.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(serial)
}

func TestReplacementThatIsNotTakenIsSaid(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		kind   string
	}{{409, "alreadyReplaced"}, {404, "notFound"}, {400, "malformed"}, {403, "unauthorized"}} {
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			_, x, a := watched(t, lab.CAOptions{})
			first := obtain(t, a, certs.Request{Name: good})
			x.set(func(r request, w http.ResponseWriter) bool {
				return r.payload["replaces"] != nil && refuse(w, tt.status, tt.kind, "replaced by another order")
			}, nil)
			if _, err := a.Obtain(t.Context(), certs.Request{Name: good, Replaces: first.Chain[0]}); !errors.Is(err, certs.ErrNotReplaced) {
				t.Errorf("Obtain: %v, want ErrNotReplaced", err)
			}
			if n := len(x.of(pathOrder, tt.status)); n != 1 {
				t.Errorf("%d orders were refused, want 1", n)
			}
			obtain(t, a, certs.Request{Name: good})
			if n := len(x.of(pathOrder, http.StatusCreated)); n != 2 {
				t.Errorf("%d orders were taken, want 2", n)
			}
		})
	}
	t.Run("unreadable", func(t *testing.T) {
		t.Parallel()
		_, x, a := watched(t, lab.CAOptions{})
		if _, err := a.Obtain(t.Context(), certs.Request{Name: good, Replaces: []byte("no certificate")}); !errors.Is(err, certs.ErrNotReplaced) {
			t.Errorf("Obtain: %v, want ErrNotReplaced", err)
		}
		if n := len(x.of(pathOrder, http.StatusCreated)); n != 0 {
			t.Errorf("%d orders were sent", n)
		}
	})
	t.Run("rateLimited", func(t *testing.T) {
		t.Parallel()
		_, x, a := watched(t, lab.CAOptions{})
		first := obtain(t, a, certs.Request{Name: good})
		x.set(func(r request, w http.ResponseWriter) bool {
			return strings.HasPrefix(r.path, pathOrder) && refuse(w, 429, "rateLimited", "too many")
		}, nil)
		if p, err := problem(t, a, certs.Request{Name: good, Replaces: first.Chain[0]}); p.Status != 429 {
			t.Errorf("Obtain: %v", err)
		}
		if n := len(x.of(pathOrder, 429)); n != 1 {
			t.Errorf("it was asked %d times, want once", n)
		}
	})
}

func TestWindow(t *testing.T) {
	t.Parallel()
	w, x, a := watched(t, lab.CAOptions{})
	c := obtain(t, a, certs.Request{Name: good})
	leaf := c.Chain[0]
	before := len(x.of("", http.StatusOK))
	got, err := a.Window(t.Context(), leaf)
	if err != nil {
		t.Fatal(err)
	}
	if got.Start.Before(c.NotBefore) || !got.Start.Before(got.End) || got.End.After(c.NotAfter) || got.Retry != 6*time.Hour {
		t.Errorf("window %+v of a certificate from %v to %v", got, c.NotBefore, c.NotAfter)
	}
	if n := len(x.of("", http.StatusOK)) - before; n != 1 {
		t.Errorf("%d requests, want 1", n)
	}

	start := time.Now().Add(-48 * time.Hour).UTC().Truncate(time.Second)
	if err := w.ca.SetRenewalInfo(leaf, start, start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	got, err = a.Window(t.Context(), leaf)
	want := certs.Window{Start: start, End: start.Add(time.Hour), Explanation: "https://lab.invalid/why", Retry: 6 * time.Hour}
	if err != nil || got != want {
		t.Errorf("a window that was moved: %+v, %v, want %+v", got, err, want)
	}

	if err := w.ca.SetRenewalInfo(leaf, start, start); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Window(t.Context(), leaf); err == nil || errors.Is(err, certs.ErrNoRenewalInfo) {
		t.Errorf("a window that ends as it begins: %+v, %v", got, err)
	}

	strange, err := issue(time.Hour, good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Window(t.Context(), strange.Chain[0]); err == nil {
		t.Error("there is a window for a certificate that does not name its issuer")
	}
	other := w.startOtherCA(t, lab.CAOptions{})
	_, err = w.newACME(t, other.DirectoryURL, other.DirectoryCAPEM).Window(t.Context(), leaf)
	if p, ok := errors.AsType[*certs.Problem](err); !ok || p.Status < 400 {
		t.Errorf("a certificate that the CA does not know: %v", err)
	}
}

func TestPauseBetweenQuestionsForTheWindowIsBounded(t *testing.T) {
	t.Parallel()
	_, x, a := watched(t, lab.CAOptions{})
	leaf := obtain(t, a, certs.Request{Name: good}).Chain[0]
	for said, want := range map[string]time.Duration{
		"": 6 * time.Hour, "5": time.Minute, "7200": 2 * time.Hour, "9999999": 24 * time.Hour, "soon": time.Minute,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): time.Minute,
	} {
		x.set(func(r request, w http.ResponseWriter) bool {
			if said != "" {
				w.Header().Set("Retry-After", said)
			}
			fmt.Fprint(w, `{"suggestedWindow":{"start":"2026-01-02T04:00:00Z","end":"2026-01-03T04:00:00+02:00"}}`)
			return true
		}, nil)
		w, err := a.Window(t.Context(), leaf)
		if err != nil || w.Retry != want || w.End.Hour() != 2 {
			t.Errorf("Retry-After %q: %+v, %v, want %v", said, w, err, want)
		}
	}
}

func TestAuthorityWithoutRenewalInfo(t *testing.T) {
	t.Parallel()
	w, x, _ := watched(t, lab.CAOptions{})
	x.set(func(r request, w http.ResponseWriter) bool {
		if r.path != "/dir" {
			return false
		}
		base := strings.TrimSuffix(w.(*answer).host, "/")
		fmt.Fprintf(w, `{"newNonce":"%[1]s/nonce-plz","newAccount":"%[1]s/sign-me-up","newOrder":"%[1]s/order-plz","meta":{"termsOfService":"x"}}`, base)
		return true
	}, nil)
	a := w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	first := obtain(t, a, certs.Request{Name: good})
	if _, err := a.Window(t.Context(), first.Chain[0]); !errors.Is(err, certs.ErrNoRenewalInfo) {
		t.Errorf("Window: %v, want ErrNoRenewalInfo", err)
	}
	obtain(t, a, certs.Request{Name: good, Replaces: first.Chain[0]})
	for _, r := range x.of(pathOrder, http.StatusCreated) {
		if r.payload["replaces"] != nil {
			t.Error("it was told what is replaced, and does not know what that is")
		}
	}
}
