package certs

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/store"
)

// identityFor is how long an authority's names are believed.
const identityFor = time.Hour

// identity is what CAA records can say of an authority and of us.
type identity struct {
	mu      sync.Mutex // guards the fields below
	names   []string
	until   time.Time // names are believed
	account string
}

// Identities implements [Certifier]: it returns what the authority's directory says, and asks once an hour.
func (a *ACME) Identities(ctx context.Context) ([]string, error) {
	i := &a.identity
	i.mu.Lock()
	names, until := i.names, i.until
	i.mu.Unlock()
	if time.Now().Before(until) {
		return names, nil
	}
	dir, err := a.stranger(nil).Discover(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach the ACME directory %s: %w", a.cfg.Directory, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.names, i.until = dir.CAA, time.Now().Add(identityFor)
	return dir.CAA, nil
}

// Account implements [Certifier]. It registers none.
func (a *ACME) Account(ctx context.Context) (string, error) {
	i := &a.identity
	i.mu.Lock()
	uri := i.account
	i.mu.Unlock()
	if uri != "" {
		return uri, nil
	}
	der, err := a.values.Value(ctx, "acme/account/"+a.cfg.Name)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read account key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return "", fmt.Errorf("read account key of %s: not a PKCS #8 key that can sign", a.cfg.Name)
	}
	acc, err := a.stranger(key).GetReg(ctx, "")
	if errors.Is(err, acme.ErrNoAccount) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask for the account at %s: %w", a.cfg.Directory, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.account = acc.URI
	return acc.URI, nil
}

// Public implements [Certifier]. An authority that is trusted by a file of its own is somebody's own.
func (a *ACME) Public() bool { return a.cfg.CAFile == "" }

// stranger is a client that makes no orders.
func (a *ACME) stranger(key crypto.Signer) *acme.Client {
	return &acme.Client{
		DirectoryURL: a.cfg.Directory, HTTPClient: &http.Client{Transport: a.transport}, Key: key,
		UserAgent: "stspub", RetryBackoff: retryNonce,
	}
}
