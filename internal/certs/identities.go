package certs

import (
	"context"
	"fmt"
)

// Identities returns the names by which CAA records allow the authority (RFC 8659), as its directory gives them; none if
// it does not.
func (a *ACME) Identities(ctx context.Context) ([]string, error) {
	s, err := a.open(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("reach the ACME directory %s: %w", a.cfg.Directory, err)
	}
	return s.directory.Meta.CAA, nil
}
