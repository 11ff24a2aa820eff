package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// queryTouch has the domains of an MX set looked at, but for those that drain.
const queryTouch = `UPDATE domains SET due = $1, claimed = 0, woken = FALSE, version = $2 WHERE tenant = $3 AND mxset = $4 AND removed = 0`

// PutMXSet implements [Store].
func (t *tables) PutMXSet(ctx context.Context, m MXSet, match func(*MXSet) bool, now time.Time) (bool, error) {
	if m.Owner == "" {
		return false, fmt.Errorf("put mx set %q: it needs an owner", m.Name)
	}
	changed := false
	actor := actorOf(ctx)
	err := t.db.write(ctx, fmt.Sprintf("put mx set %q", m.Name), func(ctx context.Context, tx transaction) error {
		matches, err := matchMXSet(ctx, tx, m.Tenant, m.Name, match)
		if err != nil {
			return err
		}
		key := setKey{m.Tenant, m.Name}
		old, err := findSet(ctx, tx, key)
		if err != nil {
			return err
		}
		set, err := toStore(m)
		if err != nil {
			return err
		}
		switch {
		case old != nil && old.owner != m.Owner && old.owner != "":
			return &OwnedError{What: "mx set", Name: m.Name, Owner: old.owner}
		case !matches:
			return ErrMismatch
		case old != nil && *old == set:
			return nil
		}
		if old == nil {
			if err := roomFor(ctx, tx, m.Tenant, "mx set", queryMXSetsTaken, func(l Limits) int { return l.MXSets }); err != nil {
				return err
			}
		}
		changed = true
		if err := writeMXSet(ctx, tx, key, set); err != nil {
			return err
		}
		if old != nil && (!old.serves(set) || old.rollout != set.rollout) {
			version, err := tx.nextVersion(ctx)
			if err != nil {
				return err
			}
			if _, err := tx.exec(ctx, queryTouch, micros(now), version, m.Tenant, m.Name); err != nil {
				return err
			}
		}
		told := diary{actor: actor, at: now}
		told.mxset(key, old, &set)
		return told.record(ctx, tx)
	})
	return changed && err == nil, err
}

// matchMXSet says whether an MX set is what a caller expects, and keeps it so for the transaction.
func matchMXSet(ctx context.Context, tx transaction, tenant, name string, match func(*MXSet) bool) (bool, error) {
	if match == nil {
		return true, nil
	}
	var have *MXSet
	err := tx.query(ctx, func(r row) error {
		m, err := scanMXSet(r)
		if m.Owner != "" {
			have = &m
		}
		return err
	}, tx.locking(selectSet+` WHERE tenant = $1 AND name = $2`, "FOR UPDATE"), tenant, name)
	return err == nil && match(have), err
}

// queryUser finds a domain of an MX set that does not drain; shared records go with their domains.
const queryUser = `SELECT name FROM domains WHERE tenant = $1 AND mxset = $2 AND removed = 0 AND publish <> 'wildcard' ORDER BY name LIMIT 1`

// DeleteMXSet implements [Store].
func (t *tables) DeleteMXSet(ctx context.Context, tenant, name, owner string, match func(*MXSet) bool) error {
	actor := actorOf(ctx)
	return t.db.write(ctx, fmt.Sprintf("delete mx set %q", name), func(ctx context.Context, tx transaction) error {
		matches, err := matchMXSet(ctx, tx, tenant, name, match)
		if err != nil {
			return err
		}
		old, err := findSet(ctx, tx, setKey{tenant, name})
		if err != nil {
			return err
		}
		switch {
		case !matches && (old == nil || old.owner == "" || old.owner == owner):
			return ErrMismatch
		case old == nil || old.owner == "":
			return ErrNotFound
		case old.owner != owner:
			return &OwnedError{What: "mx set", Name: name, Owner: old.owner}
		}
		var by policygen.Name
		switch err := tx.get(ctx, queryUser, []any{tenant, name}, &by); {
		case err == nil:
			return &InUseError{What: "mx set", Name: name, By: by}
		case !errors.Is(err, ErrNotFound):
			return err
		}
		if _, err := tx.exec(ctx, `UPDATE mxsets SET owner = '' WHERE tenant = $1 AND name = $2`, tenant, name); err != nil {
			return err
		}
		if err := dropUnused(ctx, tx); err != nil {
			return err
		}
		told := diary{actor: actor}
		told.mxset(setKey{tenant, name}, old, nil)
		return told.record(ctx, tx)
	})
}

// ReleaseDomain implements [Store].
func (t *tables) ReleaseDomain(ctx context.Context, tenant string, name policygen.Name, released bool) error {
	actor := actorOf(ctx)
	return t.db.writeSoon(ctx, fmt.Sprintf("release domain %q", name), func(ctx context.Context, tx transaction) error {
		var before bool
		if err := tx.get(ctx, tx.locking(`SELECT released FROM domains WHERE name = $1 AND tenant = $2 AND publish <> 'wildcard'`,
			"FOR UPDATE"), []any{name, tenant}, &before); err != nil || before == released {
			return err
		}
		if _, err := tx.exec(ctx, `UPDATE domains SET released = $1 WHERE name = $2`, released, name); err != nil {
			return err
		}
		told := diary{actor: actor}
		text := "another tenant may have it as soon as he proves that it is his"
		if !released {
			text = "no other tenant may have it any more"
		}
		told.note(tenant, KindDomainReleased, string(name), text, shownRelease{before}, shownRelease{released})
		return told.record(ctx, tx)
	})
}

// firstName is before all names of domains and after those of shared records, which begin with an asterisk.
const firstName = "/"

// DomainsOf implements [Store].
func (t *tables) DomainsOf(ctx context.Context, tenant string, f DomainFilter, after policygen.Name, n int) ([]Domain, error) {
	query, args := queryDomainsOf(tenant, f, after, n)
	return collect(ctx, t, "read the domains of a tenant", scanDomain, query, args...)
}

// queryDomainsOf picks the index that leads to a page without a look at many others. A column that is not to be looked up
// by its index is hidden in an expression.
func queryDomainsOf(tenant string, f DomainFilter, after policygen.Name, n int) (query string, args []any) {
	query, args = `SELECT `+domainColumns+` FROM domains WHERE tenant = $1 AND name > $2`, []any{tenant, max(string(after), firstName)}
	if f.Prefix != "" {
		query += ` AND name >= $3 AND name < $4`
		args = append(args, f.Prefix, f.Prefix+"\x7f") // names are ASCII
	}
	if f.Fault {
		query += ` AND fault = TRUE`
	}
	// Most domains are live, so that this says less than the MX set; of other steps there are few.
	byStep := !f.Fault && f.Step != "" && (f.MXSet == "" || f.Step != "live")
	byMXSet := !f.Fault && !byStep
	for _, c := range []struct {
		column, value string
		indexed       bool
	}{{"step", f.Step, byStep}, {"mxset", f.MXSet, byMXSet}} {
		switch {
		case c.value == "":
			continue
		case c.indexed:
			query += fmt.Sprintf(` AND %s = $%d`, c.column, len(args)+1)
		default:
			query += fmt.Sprintf(` AND (%s || '') = $%d`, c.column, len(args)+1)
		}
		if c.value == StepNew {
			c.value = ""
		}
		args = append(args, c.value)
	}
	// SQLite looks at a bare LIMIT ? when it plans, and so would prepare the query again at each use.
	return query + fmt.Sprintf(` ORDER BY name LIMIT $%d + 0`, len(args)+1), append(args, max(n, 0))
}

// queryCountDomains reads nothing but an index.
const queryCountDomains = `SELECT count(*) FROM domains WHERE tenant = $1 AND name > '` + firstName + `' AND owner = $2 AND removed = 0`

// CountDomains implements [Store].
func (t *tables) CountDomains(ctx context.Context, tenant, owner string) (int, error) {
	n, err := one(ctx, t, "count the domains of a tenant", scanNumber, queryCountDomains, tenant, owner)
	return int(n), err
}

const selectAccount = `SELECT tenant, name, provider, settings, sealed, version FROM accounts`

func (t *tables) scanAccount(r row) (a Account, err error) {
	var seal string
	if err := r.Scan(&a.Tenant, &a.Name, &a.Provider, &a.Settings, &seal, &a.Version); err != nil {
		return a, err
	}
	a.Settings, a.Err = t.ring.Open(seal, labelAccount+a.Tenant+"/"+a.Name, a.Settings)
	return a, nil
}

// Accounts implements [Store].
func (t *tables) Accounts(ctx context.Context) ([]Account, error) {
	return collect(ctx, t, "read accounts", t.scanAccount, selectAccount+` ORDER BY tenant, name`)
}

// Account implements [Store].
func (t *tables) Account(ctx context.Context, tenant, name string) (Account, error) {
	return one(ctx, t, fmt.Sprintf("read account %q", name), t.scanAccount, selectAccount+` WHERE tenant = $1 AND name = $2`, tenant, name)
}

// PutAccount implements [Store].
func (t *tables) PutAccount(ctx context.Context, a Account, ifMatch string) error {
	actor := actorOf(ctx)
	label := labelAccount + a.Tenant + "/" + a.Name
	return t.db.writeSoon(ctx, fmt.Sprintf("put account %q", a.Name), func(ctx context.Context, tx transaction) error {
		seal, settings, err := t.seal(ctx, tx, label, a.Settings)
		if err != nil {
			return err
		}
		var provider, version string
		err = tx.get(ctx, tx.locking(`SELECT provider, version FROM accounts WHERE tenant = $1 AND name = $2`, "FOR UPDATE"),
			[]any{a.Tenant, a.Name}, &provider, &version)
		there := err == nil
		switch {
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		case !matches(ifMatch, there, version):
			return ErrMismatch
		}
		if !there {
			if err := roomFor(ctx, tx, a.Tenant, "account", queryAccountsTaken, func(l Limits) int { return l.Accounts }); err != nil {
				return err
			}
		}
		if _, err := tx.exec(ctx, `INSERT INTO accounts (tenant, name, provider, settings, sealed, version)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, name) DO UPDATE SET provider = excluded.provider,
			settings = excluded.settings, sealed = excluded.sealed, version = excluded.version`,
			a.Tenant, a.Name, a.Provider, blob(settings), seal, a.Version); err != nil {
			return err
		}
		told := diary{actor: actor}
		after := shownAccount{a.Provider}
		if !there {
			told.note(a.Tenant, KindAccountAdded, a.Name, "added, at "+a.Provider, nil, after)
			return told.record(ctx, tx)
		}
		// Also one that is the same again is another version, which other nodes hear of by this.
		told.note(a.Tenant, KindAccountChanged, a.Name, "replaced, at "+a.Provider, shownAccount{provider}, after)
		return told.record(ctx, tx)
	})
}

// Who needs an account: first those that do not drain.
const (
	queryAccountUser   = `SELECT name FROM domains WHERE tenant = $1 AND account = $2 AND account <> '' AND removed = 0 LIMIT 1`
	queryAccountDrains = `SELECT count(*), max(horizon), min(horizon) FROM domains WHERE tenant = $1 AND account = $2 AND account <> '' AND removed > 0`
)

// DeleteAccount implements [Store].
func (t *tables) DeleteAccount(ctx context.Context, tenant, name, ifMatch string) error {
	actor := actorOf(ctx)
	return t.db.write(ctx, fmt.Sprintf("delete account %q", name), func(ctx context.Context, tx transaction) error {
		used := &InUseError{What: "account", Name: name}
		var provider, version string
		// Whoever adds a domain that needs it comes before or after this.
		missing := tx.get(ctx, tx.locking(`SELECT provider, version FROM accounts WHERE tenant = $1 AND name = $2`, "FOR UPDATE"),
			[]any{tenant, name}, &provider, &version)
		switch {
		case missing != nil && !errors.Is(missing, ErrNotFound):
			return missing
		case !matches(ifMatch, missing == nil, version):
			return ErrMismatch
		}
		switch err := tx.get(ctx, queryAccountUser, []any{tenant, name}, &used.By); {
		case err == nil:
			return used
		case !errors.Is(err, ErrNotFound):
			return err
		}
		var last, first *int64 // NULL: there are none
		if err := tx.get(ctx, queryAccountDrains, []any{tenant, name}, &used.Draining, &last, &first); err != nil {
			return err
		}
		if used.Draining > 0 {
			if *first > 0 { // else some horizon is not known yet
				used.Until = fromMicros(*last)
			}
			return used
		}
		if missing != nil {
			return missing
		}
		if _, err := tx.exec(ctx, `DELETE FROM accounts WHERE tenant = $1 AND name = $2`, tenant, name); err != nil {
			return err
		}
		told := diary{actor: actor}
		told.note(tenant, KindAccountRemoved, name, "removed", shownAccount{provider}, nil)
		return told.record(ctx, tx)
	})
}
