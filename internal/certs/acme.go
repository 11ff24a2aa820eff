package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// Values is what [ACME] needs of the store; [store.Store] has it. Its keys begin with "acme/".
type Values interface {
	Value(ctx context.Context, key string) ([]byte, error)
	SetValue(ctx context.Context, key string, value []byte) error
	DeleteValue(ctx context.Context, key string) error
}

// ACME obtains certificates from one authority and answers its challenges. The account's key and the answers to
// challenges are in the store, so that any process on the same store answers. The authority's terms of service are
// accepted without being asked.
//
// The ordering and the answering is done by golang.org/x/crypto/acme/autocert, with a Manager of its own for each
// order: a Manager that lives on would renew by itself, order inside handshakes, and keep everything for ever.
type ACME struct {
	cfg       config.ACME
	values    Values
	log       *slog.Logger
	transport http.RoundTripper
	responder *autocert.Manager // answers challenges; it cannot order
	account   chan *account     // capacity 1: who holds it may register the account
	identity  identity
}

// account is the account that orders are made with; key is nil until it is registered.
type account struct{ key crypto.Signer }

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
		transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:       &tls.Config{RootCAs: roots},
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			IdleConnTimeout:       30 * time.Second,
			ForceAttemptHTTP2:     true,
		},
		account: make(chan *account, 1),
	}
	a.account <- new(account)
	a.responder = &autocert.Manager{
		Cache:      answers{values: values, log: log},
		HostPolicy: nil, // any host: an answer is given to who knows its token
		Client:     &acme.Client{HTTPClient: &http.Client{Transport: refuse{}}},
	}
	return a, nil
}

// refuse is a transport for those that shall not talk to the authority.
type refuse struct{}

// RoundTrip refuses.
func (refuse) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no order may be made here")
}

// HTTPHandler answers HTTP-01 challenges (RFC 8555, Section 8.3) from the store, for every host, and hands all other
// requests to fallback; nil answers them with 404. It never redirects.
func (a *ACME) HTTPHandler(fallback http.Handler) http.Handler {
	if fallback == nil {
		fallback = http.NotFoundHandler()
	}
	return a.responder.HTTPHandler(fallback)
}

// GetCertificate answers TLS-ALPN-01 challenges (RFC 8737) from the store: it is [Config.Challenge]. It returns
// (nil, nil) for other hellos, and for names that are not being validated.
func (a *ACME) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != acme.ALPNProto {
		return nil, nil
	}
	c, err := a.responder.GetCertificate(hello)
	if err != nil {
		return nil, nil //nolint:nilerr // said by the cache where it matters; crypto/tls sends unrecognized_name
	}
	return c, nil
}

// Name implements [Authority].
func (a *ACME) Name() string { return a.cfg.Name }

// Staging implements [Authority].
func (a *ACME) Staging() bool { return a.cfg.Staging }

// Window implements [Authority].
func (a *ACME) Window(context.Context, []byte) (Window, error) { return Window{}, ErrNoRenewalInfo }

// Obtain orders a certificate for one name; see [Authority]. It tries TLS-ALPN-01 and then HTTP-01, each once, so a name
// that cannot be validated costs two failed validations.
func (a *ACME) Obtain(ctx context.Context, r Request) (store.Certificate, error) {
	o := newOrder(ctx, a, r.Name)
	defer o.close()
	c, err := a.obtain(ctx, o)
	if err != nil {
		return store.Certificate{}, fmt.Errorf("order certificate for %q: %w", r.Name, o.explain(err))
	}
	c.Authority = a.cfg.Name
	return c, nil
}

func (a *ACME) obtain(ctx context.Context, o *order) (store.Certificate, error) {
	client := a.client(o)
	key, err := a.register(ctx, client)
	if err != nil {
		return store.Certificate{}, err
	}
	client.Key = key
	m := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Email:      a.cfg.Email,
		Client:     client,
		Cache:      o,
		HostPolicy: autocert.HostWhitelist(o.name),
	}
	m.HTTPHandler(nil) // says that HTTP-01 is answered; the handler itself is not needed

	type result struct {
		cert *tls.Certificate
		err  error
	}
	// The Manager waits between its requests without looking at ctx. It ends at the next one, which is refused.
	done := make(chan result, 1)
	go func() {
		c, err := m.GetCertificate(&tls.ClientHelloInfo{
			ServerName:      o.name,
			CipherSuites:    []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, // or it would order an RSA certificate
			SupportedCurves: []tls.CurveID{tls.CurveP256},
		})
		done <- result{c, err}
	}()
	select {
	case <-ctx.Done():
		return store.Certificate{}, ctx.Err()
	case r := <-done:
		if r.err != nil {
			return store.Certificate{}, r.err
		}
		return keep(o.name, r.cert)
	}
}

// keep turns a certificate into what the store keeps.
func keep(name string, c *tls.Certificate) (store.Certificate, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return store.Certificate{}, errors.New("encode key: not a key that PKCS #8 knows")
	}
	return store.Certificate{
		Name:      name,
		Key:       key,
		Chain:     c.Certificate,
		NotBefore: c.Leaf.NotBefore.UTC(),
		NotAfter:  c.Leaf.NotAfter.UTC(),
	}, nil
}

func (a *ACME) client(o *order) *acme.Client {
	return &acme.Client{
		DirectoryURL: a.cfg.Directory,
		HTTPClient:   &http.Client{Transport: o},
		UserAgent:    "stspub",
		RetryBackoff: retryNonce,
	}
}

// retryNonce repeats a request only if its nonce was refused, which is the one answer with 400 that is asked about
// here. All else is the scheduler's: it knows the pauses.
func retryNonce(n int, _ *http.Request, res *http.Response) time.Duration {
	if res.StatusCode != http.StatusBadRequest || n > 10 {
		return 0
	}
	return 50 * time.Millisecond
}

// register returns the account's key, registered once a process before the first order, so that orders that run at
// the same time do not register several. Every order's Manager registers it again, which finds it, or makes the
// account anew if the authority lost it.
func (a *ACME) register(ctx context.Context, client *acme.Client) (crypto.Signer, error) {
	var acc *account
	select {
	case acc = <-a.account:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { a.account <- acc }()
	if acc.key != nil {
		return acc.key, nil
	}
	key, err := a.accountKey(ctx)
	if err != nil {
		return nil, err
	}
	client.Key = key
	contact := &acme.Account{}
	if a.cfg.Email != "" {
		contact.Contact = []string{"mailto:" + a.cfg.Email}
	}
	_, err = client.Register(ctx, contact, autocert.AcceptTOS)
	if err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, fmt.Errorf("register account: %w", err)
	}
	acc.key = key
	return key, nil
}

// accountKey takes the account's key from the store, or makes it and puts it there.
func (a *ACME) accountKey(ctx context.Context) (crypto.Signer, error) {
	at := "acme/account/" + a.cfg.Name
	der, err := a.values.Value(ctx, at)
	if errors.Is(err, store.ErrNotFound) {
		return a.newAccountKey(ctx, at)
	}
	if err != nil {
		return nil, fmt.Errorf("read account key: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read account key: value %q of the store is not a PKCS #8 key", at)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read account key: value %q of the store cannot sign", at)
	}
	return signer, nil
}

func (a *ACME) newAccountKey(ctx context.Context, at string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make account key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode account key: %w", err)
	}
	if err := a.values.SetValue(ctx, at, der); err != nil {
		return nil, fmt.Errorf("keep account key: %w", err)
	}
	return key, nil
}
