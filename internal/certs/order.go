package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/store"
)

const (
	// tries is how often one question is asked that an authority in trouble does not answer. What was ordered counts against
	// its limits, so it is not given up for a moment of trouble.
	tries = 4
	// firstWait is the pause after the first of them; the others are three times as long each.
	firstWait = time.Second
	// longestWait bounds the Retry-After that an order is held open for.
	longestWait = 30 * time.Second
)

// Obtain implements [Authority]. It tries one challenge, so a name that cannot be validated costs one failed validation,
// and the next call for that name tries the other one.
func (a *ACME) Obtain(ctx context.Context, r Request) (store.Certificate, error) {
	c, err := a.obtain(ctx, r)
	if err != nil {
		return store.Certificate{}, fmt.Errorf("order certificate for %q: %w", r.Name, err)
	}
	return c, nil
}

func (a *ACME) obtain(ctx context.Context, r Request) (store.Certificate, error) {
	client, o, err := a.order(ctx, r)
	if err != nil {
		return store.Certificate{}, err
	}
	c, err := a.complete(ctx, client, o, r.Name)
	if err != nil {
		return store.Certificate{}, &Taken{err}
	}
	return c, nil
}

// complete proves that a name is ours, and gets the certificate of an order that was taken.
func (a *ACME) complete(ctx context.Context, client *acme.Client, o *acme.Order, name string) (store.Certificate, error) {
	for _, url := range o.AuthzURLs {
		if err := a.authorize(ctx, client, name, url); err != nil {
			return store.Certificate{}, err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return store.Certificate{}, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		return store.Certificate{}, fmt.Errorf("make request: %w", err)
	}
	chain, err := collect(ctx, client, o.URI, csr)
	if err != nil {
		return store.Certificate{}, explain(ctx, err, "")
	}
	return a.keep(name, key, chain)
}

// order begins an order. An account that the authority has lost is registered again, once.
func (a *ACME) order(ctx context.Context, r Request) (*acme.Client, *acme.Order, error) {
	for again := false; ; again = true {
		s, err := a.open(ctx, true)
		if err != nil {
			return nil, nil, err
		}
		client, o, err := a.newOrder(ctx, s, r)
		if err == nil {
			return client, o, nil
		}
		if p, ok := errors.AsType[*Problem](err); again || !ok || !p.is("accountDoesNotExist") {
			return nil, nil, err
		}
		if err := a.forget(ctx, s.account); err != nil {
			return nil, nil, err
		}
	}
}

// newOrder sends an order.
func (a *ACME) newOrder(ctx context.Context, s session, r Request) (*acme.Client, *acme.Order, error) {
	var options []acme.OrderOption
	if a.cfg.Profile != "" {
		options = append(options, acme.WithOrderIssuanceProfile(acme.ProfileName(a.cfg.Profile)))
	}
	p := &passage{session: s}
	if r.Replaces != nil && s.directory.RenewalInfo != "" {
		var err error
		if p.replaces, err = certID(r.Replaces); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrNotReplaced, err)
		}
	}
	client := a.client(p)
	o, err := client.AuthorizeOrder(ctx, acme.DomainIDs(r.Name), options...)
	if err == nil {
		return client, o, nil
	}
	err = explain(ctx, err, "")
	switch {
	case p.replaces != "" && refusesReplaces(err):
		a.log.Info("the authority does not take the order as a replacement", "authority", a.cfg.Name, "domain", r.Name, "err", err)
		err = fmt.Errorf("%w: %w", ErrNotReplaced, err)
	case p.taken:
		err = &Taken{err}
	}
	return nil, nil, err
}

// refusesReplaces says whether an order may have been refused for what it replaces: another order may have done so already
// (RFC 9773, Section 5), or another account may have got that certificate, and authorities differ in how they say that.
func refusesReplaces(err error) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && (p.is("alreadyReplaced", "malformed", "unauthorized") ||
		p.Status == http.StatusNotFound || p.Status == http.StatusConflict)
}

// authorize proves that a name is ours.
func (a *ACME) authorize(ctx context.Context, client *acme.Client, name, url string) error {
	var z *acme.Authorization
	err := patiently(ctx, func() (err error) {
		z, err = client.GetAuthorization(ctx, url)
		return err
	})
	if err != nil {
		return explain(ctx, err, "")
	}
	switch z.Status {
	case acme.StatusValid: // from an earlier order
		return nil
	case acme.StatusPending:
	default:
		return &Problem{Detail: "the authorization is " + z.Status}
	}
	c := a.ways.pick(name, z.Challenges)
	if c == nil {
		return &Problem{Detail: "it offers no challenge that can be answered here, tls-alpn-01 or, with a port 80 of ours, http-01"}
	}
	if err := a.prove(ctx, client, name, url, c); err != nil {
		if judge(err, name, "").failed { // an authority that went away meanwhile says nothing of the way
			a.ways.failed(name, c.Type)
		}
		return err
	}
	if a.ways.worked(name, c.Type) {
		if err := a.values.SetValue(ctx, wayPrefix+a.cfg.Name, []byte(c.Type)); err != nil {
			a.log.Warn("did not keep which challenge works", "authority", a.cfg.Name, "err", err)
		}
	}
	return nil
}

// prove meets one challenge, and waits for the authority to see it.
func (a *ACME) prove(ctx context.Context, client *acme.Client, name, url string, c *acme.Challenge) error {
	at, value, err := answer(client, name, c)
	if err != nil {
		return fmt.Errorf("make answer to a challenge: %w", err)
	}
	if err := a.values.SetValue(ctx, at, value); err != nil {
		return fmt.Errorf("keep answer to a challenge: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		if err := a.values.DeleteValue(ctx, at); err != nil {
			a.log.Warn("left the answer to a challenge in the store", "domain", name, "err", err)
		}
	}()
	try := 0
	err = patiently(ctx, func() error {
		try++
		_, err := client.Accept(ctx, c)
		if _, again := trouble(ctx, err); err != nil && (try == 1 || again) {
			return err
		}
		// An authority that refuses it the second time took it the first time.
		_, err = client.WaitAuthorization(ctx, url)
		return err
	})
	if err != nil {
		return explain(ctx, err, c.Type)
	}
	return nil
}

// collect gets the certificate of an order whose authorizations are valid. It may find that an earlier question, whose
// answer was lost, has been understood.
func collect(ctx context.Context, client *acme.Client, url string, csr []byte) (chain [][]byte, err error) {
	err = patiently(ctx, func() error {
		o, err := client.WaitOrder(ctx, url)
		switch {
		case err != nil:
			return err
		case o.Status == acme.StatusValid:
			chain, err = client.FetchCert(ctx, o.CertURL, true)
		default:
			chain, _, err = client.CreateCertFromOrder(ctx, o, csr, true)
		}
		return err
	})
	return chain, err
}

// patiently asks again what an authority in trouble did not answer.
func patiently(ctx context.Context, ask func() error) error {
	pause := firstWait
	for n := 1; ; n++ {
		err := ask()
		wait, again := trouble(ctx, err)
		if n == tries || !again {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(max(wait, pause)):
		}
		pause *= 3
	}
}

// trouble says whether an error is one of the way to an authority, or of what is behind it, and not its will, and after what
// time it wants to be asked again, if it says so.
func trouble(ctx context.Context, err error) (wait time.Duration, again bool) {
	if err == nil || ctx.Err() != nil {
		return 0, false
	}
	p, ok := errors.AsType[*Problem](explain(ctx, err, ""))
	if !ok {
		return 0, true
	}
	busy := p.Status >= http.StatusInternalServerError || p.Status == http.StatusTooManyRequests && p.RetryAfter > 0
	return p.RetryAfter, busy && p.RetryAfter <= longestWait
}

// keep makes what the store keeps. Whether the certificate is for this name and key is seen by who serves it.
func (a *ACME) keep(name string, key *ecdsa.PrivateKey, chain [][]byte) (store.Certificate, error) {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return store.Certificate{}, fmt.Errorf("read the certificate that came: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return store.Certificate{}, errors.New("encode key: not a key that PKCS #8 knows")
	}
	return store.Certificate{
		Name:      name,
		Key:       der,
		Chain:     chain,
		NotBefore: leaf.NotBefore.UTC(),
		NotAfter:  leaf.NotAfter.UTC(),
		Authority: a.cfg.Name,
	}, nil
}
