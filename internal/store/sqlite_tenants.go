package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"
)

const selectTenant = `SELECT name, domains, orders, writes, created FROM tenants`

func scanTenant(r row) (t Tenant, err error) {
	err = r.Scan(&t.Name, &t.Limits.Domains, &t.Limits.Orders, &t.Limits.Writes, stamp{&t.Created})
	return t, err
}

// Tenants implements [Store].
func (s *SQLite) Tenants(ctx context.Context) ([]Tenant, error) {
	return collect(ctx, s, "read tenants", scanTenant, selectTenant+` ORDER BY name`)
}

// Tenant implements [Store].
func (s *SQLite) Tenant(ctx context.Context, name string) (Tenant, error) {
	t, err := scanTenant(s.readers.QueryRowContext(ctx, selectTenant+` WHERE name = ?`, name))
	if err != nil {
		return Tenant{}, fmt.Errorf("read tenant %q: %w", name, s.explain(ctx, err))
	}
	return t, nil
}

// AddTenant implements [Store].
func (s *SQLite) AddTenant(ctx context.Context, t Tenant) error {
	return s.group.write(ctx, fmt.Sprintf("add tenant %q", t.Name), func(ctx context.Context, tx *transaction) error {
		return changed(ErrExists)(tx.ExecContext(ctx, `INSERT INTO tenants (name, domains, orders, writes, created)
			VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING`,
			t.Name, t.Limits.Domains, t.Limits.Orders, t.Limits.Writes, micros(t.Created)))
	})
}

// SetLimits implements [Store].
func (s *SQLite) SetLimits(ctx context.Context, name string, l Limits) error {
	return s.group.write(ctx, fmt.Sprintf("limit tenant %q", name), func(ctx context.Context, tx *transaction) error {
		return changed(ErrNotFound)(tx.ExecContext(ctx, `UPDATE tenants SET domains = ?, orders = ?, writes = ? WHERE name = ?`,
			l.Domains, l.Orders, l.Writes, name))
	})
}

// DeleteTenant implements [Store].
func (s *SQLite) DeleteTenant(ctx context.Context, name string, now time.Time) error {
	return s.group.write(ctx, fmt.Sprintf("delete tenant %q", name), func(ctx context.Context, tx *transaction) error {
		if name == DefaultTenant {
			return fmt.Errorf("%w: it is that of the configuration file", ErrInUse)
		}
		for _, of := range []struct{ what, query string }{
			{"domain", `SELECT name FROM domains WHERE tenant = ? LIMIT 1`},
			{"account", `SELECT name FROM accounts WHERE tenant = ? LIMIT 1`},
			{"mx set", `SELECT name FROM mxsets WHERE tenant = ? AND owner <> '' LIMIT 1`},
		} {
			var first string
			switch err := tx.QueryRowContext(ctx, of.query, name).Scan(&first); {
			case err == nil:
				return fmt.Errorf("%w: it has the %s %q; remove that first, and let domains drain", ErrInUse, of.what, first)
			case !errors.Is(err, sql.ErrNoRows):
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM claims WHERE tenant = ?`, name); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked = ? WHERE tenant = ? AND revoked = 0`, micros(now), name); err != nil {
			return err
		}
		return changed(ErrNotFound)(tx.ExecContext(ctx, `DELETE FROM tenants WHERE name = ?`, name))
	})
}

// changed returns otherwise when a statement changed nothing.
func changed(otherwise error) func(sql.Result, error) error {
	return func(r sql.Result, err error) error {
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		if err == nil && n == 0 {
			return otherwise
		}
		return err
	}
}

// TenantOf implements [Store].
func (s *SQLite) TenantOf(ctx context.Context, domain string) (string, error) {
	var tenant string
	// A row in any case: to find none and to find one is the same way through the index.
	err := s.readers.QueryRowContext(ctx, `SELECT coalesce((SELECT tenant FROM domains WHERE name = ?), '')`, domain).Scan(&tenant)
	if err == nil && tenant == "" {
		err = ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("read the tenant of %q: %w", domain, s.explain(ctx, err))
	}
	return tenant, nil
}

// SharedOf implements [Store].
func (s *SQLite) SharedOf(ctx context.Context, tenant string) ([]Domain, error) {
	return collect(ctx, s, "read the shared records of a tenant", scanDomain,
		`SELECT `+domainColumns+` FROM domains WHERE tenant = ? AND publish = 'wildcard' ORDER BY name`, tenant)
}

const selectToken = `SELECT id, tenant, role, label, hash, created, expires, used, revoked FROM tokens`

func scanToken(r row) (t Token, err error) {
	err = r.Scan(&t.ID, &t.Tenant, &t.Role, &t.Label, &t.Hash, stamp{&t.Created}, stamp{&t.Expires}, stamp{&t.Used}, stamp{&t.Revoked})
	return t, err
}

// Tokens implements [Store].
func (s *SQLite) Tokens(ctx context.Context, tenant string) ([]Token, error) {
	return collect(ctx, s, "read tokens", scanToken, selectToken+` WHERE tenant = ? ORDER BY created, id`, tenant)
}

// Token implements [Store].
func (s *SQLite) Token(ctx context.Context, id string) (Token, error) {
	t, err := scanToken(s.readers.QueryRowContext(ctx, selectToken+` WHERE id = ?`, id))
	if err != nil {
		return Token{}, fmt.Errorf("read token %q: %w", id, s.explain(ctx, err))
	}
	return t, nil
}

// HasTokens implements [Store].
func (s *SQLite) HasTokens(ctx context.Context) (bool, error) {
	var any bool
	if err := s.readers.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM tokens)`).Scan(&any); err != nil {
		return false, fmt.Errorf("read tokens: %w", s.explain(ctx, err))
	}
	return any, nil
}

// AddToken implements [Store].
func (s *SQLite) AddToken(ctx context.Context, t Token) error {
	return s.group.write(ctx, fmt.Sprintf("add token %q", t.ID), func(ctx context.Context, tx *transaction) error {
		var there bool
		if err := tx.QueryRowContext(ctx, `SELECT ? = '' OR EXISTS (SELECT 1 FROM tenants WHERE name = ?)`, t.Tenant, t.Tenant).
			Scan(&there); err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("tenant %q: %w", t.Tenant, ErrNotFound)
		}
		return changed(ErrExists)(tx.ExecContext(ctx, `INSERT INTO tokens (id, tenant, role, label, hash, created, expires)
			VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			t.ID, t.Tenant, t.Role, t.Label, blob(t.Hash), micros(t.Created), micros(t.Expires)))
	})
}

// UseToken implements [Store].
func (s *SQLite) UseToken(ctx context.Context, id string, now time.Time) error {
	return s.exec(ctx, fmt.Sprintf("note the use of token %q", id), `UPDATE tokens SET used = ? WHERE id = ? AND used < ?`,
		micros(now), id, micros(now))
}

// RevokeToken implements [Store].
func (s *SQLite) RevokeToken(ctx context.Context, id string, now time.Time) error {
	return s.group.write(ctx, fmt.Sprintf("revoke token %q", id), func(ctx context.Context, tx *transaction) error {
		return changed(ErrNotFound)(tx.ExecContext(ctx, `UPDATE tokens SET revoked = CASE revoked WHEN 0 THEN ? ELSE revoked END
			WHERE id = ?`, micros(now), id))
	})
}

// queryTaken counts the domains and claims of a tenant, each no further than a limit, in indexes.
const queryTaken = `SELECT (SELECT count(*) FROM (SELECT 1 FROM domains WHERE tenant = ?1 AND name > '` + firstName + `' LIMIT ?2))
	+ (SELECT count(*) FROM (SELECT 1 FROM claims WHERE tenant = ?1 LIMIT ?2))`

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
	err := w.tx.QueryRowContext(ctx, `SELECT domains FROM tenants WHERE name = ?`, tenant).Scan(&limit)
	if limit == 0 && (err == nil || errors.Is(err, sql.ErrNoRows)) {
		return math.MaxInt, nil
	}
	if err == nil {
		err = w.tx.QueryRowContext(ctx, queryTaken, tenant, limit).Scan(&taken)
	}
	return limit - taken, err
}
