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

const queryClaimOf = `SELECT ` + claimColumns + ` FROM claims WHERE tenant = $1 AND name = $2`

// putClaim adds a claim, or has one want what c says.
func putClaim(ctx context.Context, tx transaction, c DomainChange) error {
	d, claim := c.Domain, c.Claim
	_, err := tx.exec(ctx, `INSERT INTO claims (tenant, name, mxset, publish, account, adopt, tlsrpt, token, created, expires, due)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (tenant, name) DO UPDATE SET mxset = excluded.mxset, publish = excluded.publish,
		account = excluded.account, adopt = excluded.adopt, tlsrpt = excluded.tlsrpt, due = excluded.due`,
		d.Tenant, d.Name, d.MXSet, d.Publish, d.Account, d.Adopt, d.TLSRPT, claim.Token, micros(claim.Created), micros(claim.Expires),
		micros(claim.Due))
	return err
}

// DomainClaim implements [Store].
func (t *tables) DomainClaim(ctx context.Context, tenant string, name policygen.Name) (DomainClaim, error) {
	return one(ctx, t, fmt.Sprintf("read the claim to domain %q", name), scanClaim, queryClaimOf, tenant, name)
}

const queryClaimsOf = `SELECT ` + claimColumns + ` FROM claims WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3 + 0`

// ClaimsOf implements [Store].
func (t *tables) ClaimsOf(ctx context.Context, tenant string, after policygen.Name, n int) ([]DomainClaim, error) {
	return collect(ctx, t, "read the claims of a tenant", scanClaim, queryClaimsOf, tenant, after, max(n, 0))
}

const queryDueClaims = `SELECT ` + claimColumns + ` FROM claims WHERE due <= $1 AND expires > $1 AND ` + notThese + ` ORDER BY due LIMIT $2 + 0`

// DueClaims implements [Store].
func (t *tables) DueClaims(ctx context.Context, now time.Time, lease time.Duration, n int, but ...string) ([]DomainClaim, error) {
	var due []DomainClaim
	err := t.db.writeSoon(ctx, "take claims that are due", func(ctx context.Context, tx transaction) error {
		due = due[:0]
		err := tx.query(ctx, func(r row) error {
			c, err := scanClaim(r)
			due = append(due, c)
			return err
		}, tx.locking(queryDueClaims, "FOR UPDATE SKIP LOCKED"), micros(now), max(n, 0), listed(but))
		if err != nil {
			return err
		}
		for i := range due {
			c := &due[i]
			c.Due = fromMicros(micros(now.Add(lease)))
			if _, err := tx.exec(ctx, `UPDATE claims SET due = $1 WHERE tenant = $2 AND name = $3`,
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
func (t *tables) SaveClaim(ctx context.Context, c DomainClaim) error {
	return t.db.writeSoon(ctx, fmt.Sprintf("save the claim to domain %q", c.Domain.Name), func(ctx context.Context, tx transaction) error {
		return changed(ErrNotFound)(tx.exec(ctx, `UPDATE claims SET due = $1, looked = $2, looks = $3, reason = $4
			WHERE tenant = $5 AND name = $6 AND token = $7`,
			micros(c.Due), micros(c.Looked), c.Looks, storableText(c.Reason), c.Domain.Tenant, c.Domain.Name, c.Token))
	})
}

// ExpireClaims implements [Store].
func (t *tables) ExpireClaims(ctx context.Context, now time.Time) (int, error) {
	n := 0
	actor := actorOf(ctx)
	err := t.db.writeSoon(ctx, "forget claims that expired", func(ctx context.Context, tx transaction) error {
		told := diary{actor: actor, at: now}
		err := tx.query(ctx, func(r row) error {
			c, err := scanClaim(r)
			told.note(c.Domain.Tenant, KindClaimExpired, string(c.Domain.Name), "nothing proved it in time", c.Domain.shown(), nil)
			return err
		}, `DELETE FROM claims WHERE expires <= $1 RETURNING `+claimColumns, micros(now))
		if n = len(told.events); err != nil {
			return err
		}
		return told.record(ctx, tx)
	})
	return n, err
}
