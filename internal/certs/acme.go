package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

const (
	// sessionLife bounds what is believed of a directory: its addresses, and whether there is renewal information.
	sessionLife = 24 * time.Hour
	// accountPrefix is where account keys lie in the store, as PKCS #8 in DER.
	accountPrefix = "acme/account/"
	// userAgent begins the User-Agent of all requests (RFC 8555, Section 6.1).
	userAgent = "stspub"
)

// ACME is an [Authority] that speaks ACME (RFC 8555). The account's key is in the store, and so are the answers to
// challenges, which a [Responder] gives. The authority's terms of service are accepted without being asked.
//
// It works with golang.org/x/crypto/acme, and not with autocert on top of it, of which every order leaves a Manager and a
// timer behind; docs/decisions.md has the figures.
type ACME struct {
	cfg     config.ACME
	values  Values
	log     *slog.Logger
	http    *http.Client // for requests that nobody signs
	ways    *ways
	session chan *session // capacity 1: who holds it may change it
}

var _ Authority = (*ACME)(nil)

// session is what is known of an authority for a day.
type session struct {
	began     time.Time
	directory directory
	key       *ecdsa.PrivateKey // of account
	account   *acme.Account     // nil: it is not registered, or lost
}

// directory is what is read of an authority's directory besides what package acme reads (RFC 8555, Section 7.1.1, and RFC
// 9773, Section 4.2).
type directory struct {
	raw         json.RawMessage // all of it
	NewOrder    string          `json:"newOrder"`
	RenewalInfo string          `json:"renewalInfo"` // empty: there is none
	Meta        struct {
		CAA []string `json:"caaIdentities"`
	} `json:"meta"`
}

// NewACME makes an ACME for the authority of an [acme.NAME] table. It opens no connection; the error is about the
// table's CA file.
func NewACME(cfg config.ACME, values Values, log *slog.Logger) (*ACME, error) {
	var roots *x509.CertPool
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA file %q: no certificate in PEM in it", cfg.CAFile)
		}
	}
	a := &ACME{
		cfg:    cfg,
		values: values,
		log:    log,
		http: &http.Client{CheckRedirect: stay, Transport: newWire(cfg.Directory, cfg.Budget.PerSecond, &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots},
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			IdleConnTimeout:        30 * time.Second,
			ForceAttemptHTTP2:      true,
		})},
		ways:    newWays(!cfg.NoHTTP),
		session: make(chan *session, 1),
	}
	a.session <- new(session)
	return a, nil
}

// Name implements [Authority].
func (a *ACME) Name() string { return a.cfg.Name }

// Staging implements [Authority].
func (a *ACME) Staging() bool { return a.cfg.Staging }

// open returns a copy of the session, with an account if that is asked for. Orders that begin at the same time wait for
// one of them to register it.
func (a *ACME) open(ctx context.Context, account bool) (session, error) {
	s, release, err := a.hold(ctx)
	if err != nil {
		return session{}, err
	}
	defer release()
	if time.Since(s.began) > sessionLife {
		var d directory
		if _, err := a.get(ctx, a.cfg.Directory, &d.raw); err != nil {
			return session{}, err
		}
		if err := json.Unmarshal(d.raw, &d); err != nil {
			return session{}, fmt.Errorf("read the directory %s: %w", a.cfg.Directory, err)
		}
		*s = session{began: time.Now(), directory: d}
	}
	if account && s.account == nil {
		if err := a.register(ctx, s); err != nil {
			return session{}, err
		}
	}
	return *s, nil
}

// hold takes the session until release.
func (a *ACME) hold(ctx context.Context) (s *session, release func(), err error) {
	select {
	case s = <-a.session:
		return s, func() { a.session <- s }, nil
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for the account: %w", ctx.Err())
	}
}

// forget has an account that the authority does not know registered again. It may have been already.
func (a *ACME) forget(ctx context.Context, lost *acme.Account) error {
	s, release, err := a.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if s.account == lost {
		a.log.Warn("the authority lost the account, which is registered again", "authority", a.cfg.Name)
		s.account = nil
	}
	return nil
}

// register has the account of our key, or a new one.
func (a *ACME) register(ctx context.Context, s *session) (err error) {
	if err := a.ways.load(ctx, a.values, a.cfg.Name); err != nil {
		return err
	}
	if s.key, err = a.accountKey(ctx); err != nil {
		return err
	}
	wanted := &acme.Account{}
	if a.cfg.Email != "" {
		wanted.Contact = []string{"mailto:" + a.cfg.Email}
	}
	if a.cfg.EABKey != "" {
		wanted.ExternalAccountBinding = &acme.ExternalAccountBinding{KID: a.cfg.EABKeyID, Key: []byte(a.cfg.EABKey)}
	}
	client := a.client(&passage{session: *s})
	account, err := client.Register(ctx, wanted, acme.AcceptTOS)
	switch {
	case errors.Is(err, acme.ErrAccountAlreadyExists):
		account = &acme.Account{URI: string(client.KID)}
	case err != nil:
		return fmt.Errorf("register account: %w", explain(ctx, err, ""))
	default:
		a.log.Info("registered an account", "authority", a.cfg.Name, "account", account.URI)
	}
	s.account = account
	return nil
}

// client makes a client for one order, which waits for nobody else's answers: those of package acme hold locks while they
// ask.
func (a *ACME) client(p *passage) *acme.Client {
	p.url, p.next = a.cfg.Directory, a.http.Transport
	c := &acme.Client{
		Key:          p.session.key,
		DirectoryURL: a.cfg.Directory,
		HTTPClient:   &http.Client{CheckRedirect: stay, Transport: p},
		UserAgent:    userAgent,
		RetryBackoff: retryNonce,
	}
	if p.session.account != nil {
		c.KID = acme.KeyID(p.session.account.URI)
	}
	return c
}

// retryNonce repeats a request only if its nonce was refused, which is the one answer with 400 that is asked about
// here. All else is the scheduler's: it knows the pauses.
func retryNonce(n int, _ *http.Request, res *http.Response) time.Duration {
	if res.StatusCode != http.StatusBadRequest || n > 10 {
		return 0
	}
	return 50 * time.Millisecond
}

// accountKey takes the account's key from the store, or makes it and puts it there.
func (a *ACME) accountKey(ctx context.Context) (*ecdsa.PrivateKey, error) {
	at := accountPrefix + a.cfg.Name
	der, err := a.values.Value(ctx, at)
	if errors.Is(err, store.ErrNotFound) {
		der, err = a.newAccountKey(ctx, at)
	}
	if err != nil {
		return nil, fmt.Errorf("read account key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil { // the cause could quote the key
		return nil, fmt.Errorf("read account key: value %q of the store is not a PKCS #8 key", at)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read account key: value %q of the store is not an ECDSA P-256 key", at)
	}
	return key, nil
}

// newAccountKey makes a key and keeps it, unless another process did so meanwhile, and returns the one that is kept.
func (a *ACME) newAccountKey(ctx context.Context, at string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make account key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode account key: %w", err)
	}
	return a.values.EnsureValue(ctx, at, der)
}
