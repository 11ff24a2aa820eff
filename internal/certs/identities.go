package certs

import (
	"context"
	"fmt"
)

// Identities implements [Certifier]: it returns what the authority's directory says.
func (a *ACME) Identities(ctx context.Context) ([]string, error) {
	s, err := a.open(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("reach the ACME directory %s: %w", a.cfg.Directory, err)
	}
	return s.directory.Meta.CAA, nil
}

// Account implements [Certifier]. It registers the account if there is none yet.
func (a *ACME) Account(ctx context.Context) (string, error) {
	s, err := a.open(ctx, true)
	if err != nil {
		return "", fmt.Errorf("find the account at %s: %w", a.cfg.Directory, err)
	}
	return s.account.URI, nil
}

// Public implements [Certifier]. An authority that is trusted by a file of its own is somebody's own.
func (a *ACME) Public() bool { return a.cfg.CAFile == "" }

// Ways implements [Certifier].
func (a *ACME) Ways(name string) []string { return a.ways.order(name) }

// Prefer implements [Certifier].
func (a *ACME) Prefer(name, way string) { a.ways.prefer(name, way) }
