package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/stspub/stspub/internal/store"
)

// challengePrefix is where answers to challenges lie in the store.
const challengePrefix = "acme/challenge/"

// Values is the part of the store for ACME; [store.Store] has it. Its keys begin with "acme/".
type Values interface {
	Value(ctx context.Context, key string) ([]byte, error)
	SetValue(ctx context.Context, key string, value []byte) error
	EnsureValue(ctx context.Context, key string, value []byte) ([]byte, error)
	DeleteValue(ctx context.Context, key string) error
}

// Responder answers the challenges of all authorities. The answers are in the store, where [ACME.Obtain] puts them, so that
// any process on the same store answers. The work is done by the Manager of golang.org/x/crypto/acme/autocert; this one
// cannot order.
type Responder struct{ manager *autocert.Manager }

// NewResponder makes a Responder.
func NewResponder(values Values, log *slog.Logger) *Responder {
	return &Responder{&autocert.Manager{
		Cache:      answers{values: values, log: log},
		HostPolicy: nil, // any host: an answer is given to who knows its token
		Client:     &acme.Client{HTTPClient: &http.Client{Transport: refuse{}}},
	}}
}

// HTTPHandler answers HTTP-01 challenges (RFC 8555, Section 8.3) from the store, for every host, and hands all other
// requests to fallback; nil answers them with 404. It never redirects.
func (r *Responder) HTTPHandler(fallback http.Handler) http.Handler {
	if fallback == nil {
		fallback = http.NotFoundHandler()
	}
	return r.manager.HTTPHandler(fallback)
}

// GetCertificate answers TLS-ALPN-01 challenges (RFC 8737) from the store: it is [Config.Challenge]. It returns
// (nil, nil) for other hellos, and for names that are not being validated.
func (r *Responder) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != acme.ALPNProto {
		return nil, nil
	}
	c, err := r.manager.GetCertificate(hello)
	if err != nil {
		return nil, nil //nolint:nilerr // said by the cache where it matters; crypto/tls sends unrecognized_name
	}
	return c, nil
}

// refuse is a transport for those that shall not talk to an authority.
type refuse struct{}

// RoundTrip refuses.
func (refuse) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no order may be made here")
}

// answers is the cache of the Manager that answers challenges: it reads what orders have put.
type answers struct {
	values Values
	log    *slog.Logger
}

// Get returns the answer to a challenge. What it cannot find out it does not tell to the outside.
func (c answers) Get(ctx context.Context, key string) ([]byte, error) {
	if len(key) > 2*maxName {
		return nil, autocert.ErrCacheMiss
	}
	data, err := c.values.Value(ctx, challengePrefix+key)
	if err != nil {
		if !errors.Is(err, store.ErrNotFound) {
			c.log.Error("read no answer to a challenge", "err", err)
		}
		return nil, autocert.ErrCacheMiss
	}
	return data, nil
}

// Put is for autocert.Cache. It does nothing.
func (answers) Put(context.Context, string, []byte) error { return nil }

// Delete is for autocert.Cache. It does nothing.
func (answers) Delete(context.Context, string) error { return nil }

// answer makes the answer to a challenge of a name, and the key that it has in the store: what a Manager would have put
// into its Cache.
func answer(client *acme.Client, name string, c *acme.Challenge) (key string, value []byte, err error) {
	if c.Type == http01 {
		text, err := client.HTTP01ChallengeResponse(c.Token)
		return challengePrefix + c.Token + "+http-01", []byte(text), err
	}
	cert, err := client.TLSALPN01ChallengeCert(c.Token, name)
	if err != nil {
		return "", nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return "", nil, fmt.Errorf("encode key of a challenge: %w", err)
	}
	value = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, der := range cert.Certificate {
		value = append(value, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return challengePrefix + name + "+token", value, nil
}
