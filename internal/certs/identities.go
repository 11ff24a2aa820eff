package certs

import (
	"context"
	"fmt"
	"net/http"

	"golang.org/x/crypto/acme"
)

// Identities returns the names by which CAA records allow the authority (RFC 8659), as its directory gives them; none if
// it does not.
func (a *ACME) Identities(ctx context.Context) ([]string, error) {
	client := &acme.Client{DirectoryURL: a.cfg.Directory, HTTPClient: &http.Client{Transport: a.transport}}
	dir, err := client.Discover(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach the ACME directory %s: %w", a.cfg.Directory, err)
	}
	return dir.CAA, nil
}
