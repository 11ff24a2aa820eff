package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

const selectTenant = `SELECT name, domains, mxsets, accounts, orders, writes, created FROM tenants`

func scanTenant(r row) (n Tenant, err error) {
	l := &n.Limits
	err = r.Scan(&n.Name, &l.Domains, &l.MXSets, &l.Accounts, &l.Orders, &l.Writes, stamp{&n.Created})
	return n, err
}

// Tenants implements [Store].
func (t *tables) Tenants(ctx context.Context) ([]Tenant, error) {
	return collect(ctx, t, "read tenants", scanTenant, selectTenant+` ORDER BY name`)
}

// Tenant implements [Store].
func (t *tables) Tenant(ctx context.Context, name string) (Tenant, error) {
	return one(ctx, t, fmt.Sprintf("read tenant %q", name), scanTenant, selectTenant+` WHERE name = $1`, name)
}

// AddTenant implements [Store].
func (t *tables) AddTenant(ctx context.Context, n Tenant) error {
	actor := actorOf(ctx)
	return t.db.writeSoon(ctx, fmt.Sprintf("add tenant %q", n.Name), func(ctx context.Context, tx transaction) error {
		l := n.Limits
		err := changed(ErrExists)(tx.exec(ctx, `INSERT INTO tenants (name, domains, mxsets, accounts, orders, writes, created)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING`,
			n.Name, l.Domains, l.MXSets, l.Accounts, l.Orders, l.Writes, micros(n.Created)))
		if err != nil {
			return err
		}
		told := diary{actor: actor}
		told.note("", KindTenantAdded, n.Name, "added", nil, l)
		return told.record(ctx, tx)
	})
}

// SetLimits implements [Store].
func (t *tables) SetLimits(ctx context.Context, name string, l Limits, ifMatch string) (after Tenant, err error) {
	actor := actorOf(ctx)
	err = t.db.writeSoon(ctx, fmt.Sprintf("limit tenant %q", name), func(ctx context.Context, tx transaction) error {
		found, err := findTenant(ctx, tx, name, ifMatch)
		if err != nil {
			return err
		}
		old := found.Limits
		found.Limits = l
		if after = found; old == l {
			return nil
		}
		if _, err := tx.exec(ctx, `UPDATE tenants SET domains = $1, mxsets = $2, accounts = $3, orders = $4, writes = $5
			WHERE name = $6`, l.Domains, l.MXSets, l.Accounts, l.Orders, l.Writes, name); err != nil {
			return err
		}
		told := diary{actor: actor}
		told.note("", KindTenantChanged, name, "changed what it may take", old, l)
		return told.record(ctx, tx)
	})
	return after, err
}

// findTenant locks a tenant. One that is not there is ErrNotFound, another than ifMatch says ErrMismatch.
func findTenant(ctx context.Context, tx transaction, name, ifMatch string) (n Tenant, err error) {
	err = tx.query(ctx, func(r row) (err error) {
		n, err = scanTenant(r)
		return err
	}, tx.locking(selectTenant+` WHERE name = $1`, "FOR UPDATE"), name)
	switch found := n.Name != ""; {
	case err != nil:
	case !matches(ifMatch, found, n.ETag()):
		err = ErrMismatch
	case !found:
		err = ErrNotFound
	}
	return n, err
}

// DeleteTenant implements [Store].
func (t *tables) DeleteTenant(ctx context.Context, name, ifMatch string, now time.Time) error {
	actor := actorOf(ctx)
	return t.db.writeSoon(ctx, fmt.Sprintf("delete tenant %q", name), func(ctx context.Context, tx transaction) error {
		if name == DefaultTenant {
			return fmt.Errorf("%w: it is that of the configuration file", ErrInUse)
		}
		if _, err := findTenant(ctx, tx, name, ifMatch); err != nil {
			return err
		}
		for _, of := range []struct{ what, query string }{
			{"domain", `SELECT name FROM domains WHERE tenant = $1 LIMIT 1`},
			{"account", `SELECT name FROM accounts WHERE tenant = $1 LIMIT 1`},
			{"mx set", `SELECT name FROM mxsets WHERE tenant = $1 AND owner <> '' LIMIT 1`},
		} {
			var first string
			switch err := tx.get(ctx, of.query, []any{name}, &first); {
			case err == nil:
				return fmt.Errorf("%w: it has the %s %q; remove that first, and let domains drain", ErrInUse, of.what, first)
			case !errors.Is(err, ErrNotFound):
				return err
			}
		}
		for _, query := range []string{
			`DELETE FROM claims WHERE tenant = $1`, `DELETE FROM webhooks WHERE tenant = $1`, `DELETE FROM dns_writes WHERE tenant = $1`,
			`DELETE FROM requests WHERE tenant = $1`, `DELETE FROM removals WHERE tenant = $1`,
		} {
			if _, err := tx.exec(ctx, query, name); err != nil {
				return err
			}
		}
		if _, err := tx.exec(ctx, `UPDATE tokens SET revoked = $1 WHERE tenant = $2 AND revoked = 0`, micros(now), name); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM tenants WHERE name = $1`, name); err != nil {
			return err
		}
		told := diary{actor: actor}
		told.note("", KindTenantRemoved, name, "removed, with its claims; its tokens are revoked", nil, nil)
		return told.record(ctx, tx)
	})
}

// changed returns otherwise when a statement changed nothing.
func changed(otherwise error) func(rows int64, err error) error {
	return func(rows int64, err error) error {
		if err == nil && rows == 0 {
			return otherwise
		}
		return err
	}
}

// TenantOf implements [Store].
func (t *tables) TenantOf(ctx context.Context, domain string) (string, error) {
	doing := fmt.Sprintf("read the tenant of %q", domain)
	scan := func(r row) (tenant string, err error) {
		err = r.Scan(&tenant)
		return tenant, err
	}
	// A row in any case: to find none and to find one is the same way through the index.
	tenant, err := one(ctx, t, doing, scan, `SELECT coalesce((SELECT tenant FROM domains WHERE name = $1), '')`, domain)
	if err == nil && tenant == "" {
		err = said(doing, ErrNotFound)
	}
	return tenant, err
}

// SharedOf implements [Store].
func (t *tables) SharedOf(ctx context.Context, tenant string) ([]Domain, error) {
	return collect(ctx, t, "read the shared records of a tenant", scanDomain,
		`SELECT `+domainColumns+` FROM domains WHERE tenant = $1 AND publish = 'wildcard' ORDER BY name`, tenant)
}

const selectToken = `SELECT id, tenant, role, label, maker, hash, created, expires, used, revoked FROM tokens`

func scanToken(r row) (k Token, err error) {
	err = r.Scan(&k.ID, &k.Tenant, &k.Role, &k.Label, &k.Maker, &k.Hash, stamp{&k.Created}, stamp{&k.Expires}, stamp{&k.Used}, stamp{&k.Revoked})
	return k, err
}

// Tokens implements [Store].
func (t *tables) Tokens(ctx context.Context, tenant string) ([]Token, error) {
	return collect(ctx, t, "read tokens", scanToken, selectToken+` WHERE tenant = $1 ORDER BY created, id`, tenant)
}

// Token implements [Store].
func (t *tables) Token(ctx context.Context, id string) (Token, error) {
	return one(vital(ctx), t, fmt.Sprintf("read token %q", id), scanToken, selectToken+` WHERE id = $1`, id)
}

// HasTokens implements [Store].
func (t *tables) HasTokens(ctx context.Context) (bool, error) {
	scan := func(r row) (there bool, err error) {
		err = r.Scan(&there)
		return there, err
	}
	return one(vital(ctx), t, "read tokens", scan, `SELECT EXISTS (SELECT 1 FROM tokens)`)
}

// AddToken implements [Store].
func (t *tables) AddToken(ctx context.Context, k Token) error {
	actor := actorOf(ctx)
	return t.db.writeSoon(ctx, fmt.Sprintf("add token %q", k.ID), func(ctx context.Context, tx transaction) error {
		var there bool
		if err := tx.get(ctx, `SELECT $1 = '' OR EXISTS (SELECT 1 FROM tenants WHERE name = $1)`, []any{k.Tenant}, &there); err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("tenant %q: %w", k.Tenant, ErrNotFound)
		}
		if err := admitToken(ctx, tx, k); err != nil {
			return err
		}
		if err := changed(ErrExists)(tx.exec(ctx, `INSERT INTO tokens (id, tenant, role, label, maker, hash, created, expires)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING`,
			k.ID, k.Tenant, k.Role, k.Label, k.Maker, blob(k.Hash), micros(k.Created), micros(k.Expires))); err != nil {
			return err
		}
		told := diary{actor: actor}
		told.note(k.Tenant, KindTokenAdded, k.ID, "made a token", nil, k.shown())
		return told.record(ctx, tx)
	})
}

// UseToken implements [Store].
func (t *tables) UseToken(ctx context.Context, id string, now time.Time) error {
	return t.db.writeAside(ctx, fmt.Sprintf("note the use of token %q", id), func(ctx context.Context, tx transaction) error {
		// Who changes the row may wait for long; the next use is noted.
		free := tx.locking(`SELECT id FROM tokens WHERE id = $2 AND used < $3`, "FOR UPDATE SKIP LOCKED")
		_, err := tx.exec(ctx, `UPDATE tokens SET used = $1 WHERE id IN (`+free+`)`, micros(now), id, micros(now))
		return err
	})
}

// RevokeToken implements [Store].
func (t *tables) RevokeToken(ctx context.Context, id string, now time.Time) error {
	actor := actorOf(ctx)
	return t.db.writeSoon(ctx, fmt.Sprintf("revoke token %q", id), func(ctx context.Context, tx transaction) error {
		var k Token
		if err := tx.query(ctx, func(r row) (err error) {
			k, err = scanToken(r)
			return err
		}, tx.locking(selectToken+` WHERE id = $1`, "FOR UPDATE"), id); err != nil {
			return err
		}
		switch {
		case k.ID == "":
			return ErrNotFound
		case !k.Revoked.IsZero():
			return nil
		}
		if _, err := tx.exec(ctx, `UPDATE tokens SET revoked = $1 WHERE id = $2`, micros(now), id); err != nil {
			return err
		}
		told := diary{actor: actor}
		told.note(k.Tenant, KindTokenRevoked, id, "revoked", k.shown(), nil)
		return told.record(ctx, tx)
	})
}

// What is counted for the limits of MX sets and accounts, in indexes: also MX sets that only draining domains need.
const (
	queryMXSetsTaken   = `SELECT count(*) FROM (SELECT 1 FROM mxsets WHERE tenant = $1 LIMIT $2 + 0) AS m`
	queryAccountsTaken = `SELECT count(*) FROM (SELECT 1 FROM accounts WHERE tenant = $1 LIMIT $2 + 0) AS a`
)

// roomFor returns a [*FullError] where a tenant may have no more of what a query counts. Who asks for the same tenant at the
// same time waits until the transaction is over.
func roomFor(ctx context.Context, tx transaction, tenant, what, query string, limit func(Limits) int) error {
	var l Limits
	err := tx.get(ctx, tx.locking(`SELECT mxsets, accounts FROM tenants WHERE name = $1`, "FOR UPDATE"), []any{tenant}, &l.MXSets, &l.Accounts)
	if errors.Is(err, ErrNotFound) {
		return nil // a tenant of whom nothing is known has no limits
	}
	most := limit(l.For(tenant))
	if err != nil || most == 0 {
		return err
	}
	var taken int
	if err := tx.get(ctx, query, []any{tenant, most}, &taken); err != nil || taken < most {
		return err
	}
	return &FullError{What: what, Most: most}
}

// queryTaken counts the domains and claims of a tenant, each no further than a limit, in indexes.
const queryTaken = `SELECT (SELECT count(*) FROM (SELECT 1 FROM domains WHERE tenant = $1 AND name > '` + firstName + `' LIMIT $2 + 0) AS d)
	+ (SELECT count(*) FROM (SELECT 1 FROM claims WHERE tenant = $1 LIMIT $2 + 0) AS c)`

// takeRoom counts one more domain of a tenant, and says whether there was no room for it.
func (w *batchWriter) takeRoom(ctx context.Context, tenant string) (full bool, err error) {
	room, known := w.room[tenant]
	if !known {
		if room, err = w.findRoom(ctx, tenant); err != nil {
			return false, err
		}
	}
	w.room[tenant] = max(room-1, 0)
	return room <= 0, nil
}

// findRoom returns how many more domains a tenant may have.
func (w *batchWriter) findRoom(ctx context.Context, tenant string) (int, error) {
	var limit, taken int
	err := w.tx.get(ctx, `SELECT domains FROM tenants WHERE name = $1`, []any{tenant}, &limit)
	if limit == 0 && (err == nil || errors.Is(err, ErrNotFound)) {
		return math.MaxInt, nil
	}
	if err == nil {
		err = w.tx.get(ctx, queryTaken, []any{tenant, limit}, &taken)
	}
	return limit - taken, err
}
