package store

import (
	"context"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// claimColumns are what scanClaim reads, in its order.
const claimColumns = `tenant, name, mxset, publish, account, adopt, tlsrpt, token, created, expires, due, looked, looks, reason`

func scanClaim(r row) (DomainClaim, error) {
	var c DomainClaim
	d := &c.Domain
	err := r.Scan(&d.Tenant, &d.Name, &d.MXSet, &d.Publish, &d.Account, &d.Adopt, &d.TLSRPT, &c.Token, stamp{&c.Created},
		stamp{&c.Expires}, stamp{&c.Due}, stamp{&c.Looked}, &c.Looks, &c.Reason)
	return c, err
}

const queryClaimOf = `SELECT ` + claimColumns + ` FROM claims WHERE tenant = ? AND name = ?`

// putClaim adds a claim, or has one want what c says.
func putClaim(ctx context.Context, tx *transaction, c DomainChange) error {
	d, claim := c.Domain, c.Claim
	_, err := tx.ExecContext(ctx, `INSERT INTO claims (tenant, name, mxset, publish, account, adopt, tlsrpt, token, created, expires, due)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (tenant, name) DO UPDATE SET mxset = excluded.mxset, publish = excluded.publish,
		account = excluded.account, adopt = excluded.adopt, tlsrpt = excluded.tlsrpt, due = excluded.due`,
		d.Tenant, d.Name, d.MXSet, d.Publish, d.Account, d.Adopt, d.TLSRPT, claim.Token, micros(claim.Created), micros(claim.Expires),
		micros(claim.Due))
	return err
}

// DomainClaim implements [Store].
func (s *SQLite) DomainClaim(ctx context.Context, tenant string, name policygen.Name) (DomainClaim, error) {
	c, err := scanClaim(s.readers.QueryRowContext(ctx, queryClaimOf, tenant, name))
	if err != nil {
		return DomainClaim{}, fmt.Errorf("read the claim to domain %q: %w", name, s.explain(ctx, err))
	}
	return c, nil
}

const queryClaimsOf = `SELECT ` + claimColumns + ` FROM claims WHERE tenant = ? AND name > ? ORDER BY name LIMIT ? + 0`

// ClaimsOf implements [Store].
func (s *SQLite) ClaimsOf(ctx context.Context, tenant string, after policygen.Name, n int) ([]DomainClaim, error) {
	return collect(ctx, s, "read the claims of a tenant", scanClaim, queryClaimsOf, tenant, after, max(n, 0))
}

const queryDueClaims = `SELECT ` + claimColumns + ` FROM claims WHERE due <= ? AND expires > ? ORDER BY due LIMIT ? + 0`

// DueClaims implements [Store].
func (s *SQLite) DueClaims(ctx context.Context, now time.Time, lease time.Duration, n int) ([]DomainClaim, error) {
	var due []DomainClaim
	err := s.group.write(ctx, "take claims that are due", func(ctx context.Context, tx *transaction) error {
		due = due[:0]
		rows, err := tx.QueryContext(ctx, queryDueClaims, micros(now), micros(now), max(n, 0))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			c, err := scanClaim(rows)
			if err != nil {
				return err
			}
			due = append(due, c)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for i := range due {
			c := &due[i]
			c.Due = fromMicros(micros(now.Add(lease)))
			if _, err := tx.ExecContext(ctx, `UPDATE claims SET due = ? WHERE tenant = ? AND name = ?`,
				micros(c.Due), c.Domain.Tenant, c.Domain.Name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return due, nil
}

// SaveClaim implements [Store].
func (s *SQLite) SaveClaim(ctx context.Context, c DomainClaim) error {
	return s.group.write(ctx, fmt.Sprintf("save the claim to domain %q", c.Domain.Name), func(ctx context.Context, tx *transaction) error {
		res, err := tx.ExecContext(ctx, `UPDATE claims SET due = ?, looked = ?, looks = ?, reason = ? WHERE tenant = ? AND name = ? AND token = ?`,
			micros(c.Due), micros(c.Looked), c.Looks, c.Reason, c.Domain.Tenant, c.Domain.Name, c.Token)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

// ExpireClaims implements [Store].
func (s *SQLite) ExpireClaims(ctx context.Context, now time.Time) (int, error) {
	n := 0
	err := s.group.write(ctx, "forget claims that expired", func(ctx context.Context, tx *transaction) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM claims WHERE expires <= ?`, micros(now))
		if err != nil {
			return err
		}
		gone, err := res.RowsAffected()
		n = int(gone)
		return err
	})
	return n, err
}
