package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// difference is what a declaration changes in the table of domains.
type difference struct {
	owner string
	sets  map[setKey]*storedSet // all MX sets, as they will be

	add, change, restore []*Domain        // as declared
	remove               []policygen.Name // no longer declared
	touch                []policygen.Name // the policy of their MX set changed
	shared               []Domain         // shared records that the owner does not declare (any more)

	told diary // but for what is added
}

// walk compares the declared domains, by name, with the stored ones.
func (c *difference) walk(ctx context.Context, tx transaction, want []*Domain) error {
	for _, d := range want {
		if set := c.sets[setKey{d.Tenant, d.MXSet}]; set == nil || set.owner == "" {
			return fmt.Errorf("domain %q: mx set %q is not declared: declare it, or name another", d.Name, d.MXSet)
		}
	}
	// The order is that of bytes, here as in cmp.Compare.
	err := tx.query(ctx, func(r row) error {
		var have Domain
		if err := r.Scan(&have.Name, &have.Tenant, &have.MXSet, &have.Publish, &have.Account, &have.Owner,
			&have.Adopt, &have.TLSRPT, stamp{&have.Removed}); err != nil {
			return err
		}
		for len(want) > 0 && want[0].Name < have.Name {
			c.add = append(c.add, want[0])
			want = want[1:]
		}
		var declared *Domain
		if len(want) > 0 && cmp.Compare(want[0].Name, have.Name) == 0 {
			declared, want = want[0], want[1:]
		}
		return c.compare(have, declared)
	}, `SELECT name, tenant, mxset, publish, account, owner, declared_adopt, tlsrpt, removed FROM domains ORDER BY name`)
	c.add = append(c.add, want...)
	return err
}

// compare decides about one stored domain; declared is nil when it is not declared.
func (c *difference) compare(have Domain, declared *Domain) error {
	common := have.Publish == PublishWildcard || !have.Removed.IsZero() && declared != nil && have.Tenant == declared.Tenant
	switch set := c.sets[setKey{have.Tenant, have.MXSet}]; {
	case declared != nil && have.Owner != c.owner && !common:
		return fmt.Errorf("domain %q belongs to owner %q: remove it there first", have.Name, have.Owner)
	case declared != nil && !have.Removed.IsZero():
		c.restore = append(c.restore, declared)
		c.note(KindDomainRestored, "wanted again, while it drained", have, declared)
	case declared != nil && differs(have, *declared):
		c.change = append(c.change, declared)
		c.note(KindDomainChanged, "changed what is wanted of it", have, declared)
	case !have.Removed.IsZero():
		// It drains, by the policy that it has.
	case declared == nil && have.Publish == PublishWildcard:
		c.shared = append(c.shared, have)
	case declared == nil && have.Owner == c.owner:
		c.remove = append(c.remove, have.Name)
		c.note(KindDomainRemoved, "removed: it drains until senders have forgotten its policies", have, nil)
	case set != nil && set.changed:
		c.touch = append(c.touch, have.Name)
	}
	return nil
}

// note enters what becomes of a stored domain. Shared records come and go with their domains.
func (c *difference) note(kind, text string, have Domain, declared *Domain) {
	if have.Publish == PublishWildcard {
		return
	}
	var after any
	if declared != nil {
		after = c.shown(declared)
	}
	c.told.note(have.Tenant, kind, string(have.Name), text, have.shown(), after)
}

func (c *difference) shown(declared *Domain) shownDomain {
	after := declared.shown()
	after.Owner = c.owner
	return after
}

// record keeps the events. Those of what is added are made as they are written: there may be a million.
func (c *difference) record(ctx context.Context, tx transaction) error {
	added := slices.DeleteFunc(slices.Clone(c.add), func(d *Domain) bool { return d.Publish == PublishWildcard })
	if len(added) == 0 || c.told.err != nil {
		return c.told.record(ctx, tx)
	}
	err := record(ctx, tx, len(c.told.events)+len(added), func(i int) Event {
		if i < len(c.told.events) {
			return c.told.events[i]
		}
		d := added[i-len(c.told.events)]
		return Event{
			At: c.told.at, Tenant: d.Tenant, Kind: KindDomainAdded, Name: string(d.Name), Actor: c.told.actor, Text: "added",
			After: c.told.json(c.shown(d)),
		}
	})
	return cmp.Or(err, c.told.err)
}

// keepShared has those shared records removed that no other owner's domain needs. One that is needed is touched as other
// domains are.
func (c *difference) keepShared(ctx context.Context, tx transaction) error {
	for _, d := range c.shared {
		var needed bool
		err := tx.get(ctx, `SELECT EXISTS (SELECT 1 FROM domains
			WHERE tenant = $1 AND mxset = $2 AND publish = 'shared' AND removed = 0 AND owner <> $3)`,
			[]any{d.Tenant, d.MXSet, c.owner}, &needed)
		switch set := c.sets[setKey{d.Tenant, d.MXSet}]; {
		case err != nil:
			return err
		case !needed:
			c.remove = append(c.remove, d.Name)
		case set != nil && set.changed:
			c.touch = append(c.touch, d.Name)
		}
	}
	return nil
}

func differs(have, declared Domain) bool {
	return have.Tenant != declared.Tenant || have.MXSet != declared.MXSet || have.Publish != declared.Publish ||
		have.Account != declared.Account || have.Adopt != declared.Adopt || have.TLSRPT != declared.TLSRPT
}

// count counts domains; shared records, whose names begin with an asterisk, are none.
func (c *difference) count() Change {
	domains := func(all []*Domain) (n int) {
		for _, d := range all {
			if d.Publish != PublishWildcard {
				n++
			}
		}
		return n
	}
	names := func(all []policygen.Name) (n int) {
		for _, name := range all {
			if name[0] != '*' {
				n++
			}
		}
		return n
	}
	return Change{Added: domains(c.add), Changed: domains(c.change) + names(c.touch), Removed: names(c.remove), Restored: domains(c.restore)}
}

// apply writes the difference; none, nothing.
func (c *difference) apply(ctx context.Context, tx transaction, now time.Time) error {
	if len(c.add)+len(c.change)+len(c.touch)+len(c.remove)+len(c.restore) == 0 {
		return nil
	}
	version, err := tx.nextVersion(ctx)
	if err != nil {
		return err
	}
	at := micros(now)
	if err := tx.insert(ctx, "domains", []string{
		"name", "tenant", "mxset", "publish", "account", "owner", "adopt", "declared_adopt", "tlsrpt", "added", "due", "version",
	}, len(c.add), func(i int) []any {
		d := c.add[i]
		return []any{string(d.Name), d.Tenant, d.MXSet, d.Publish, d.Account, c.owner, d.Adopt, d.Adopt, d.TLSRPT, at, at, version}
	}); err != nil {
		return err
	}
	// What an operator said by Save about adoption lasts until the declaration says something new.
	for _, declared := range [][]*Domain{c.change, c.restore} {
		if err := execAll(ctx, tx, `UPDATE domains SET tenant = $1, mxset = $2, publish = $3, account = $4,
			adopt = CASE WHEN declared_adopt <> $5 OR removed <> 0 THEN $5 ELSE adopt END, declared_adopt = $5, removed = 0,
			due = $6, claimed = 0, woken = FALSE, version = $7, tlsrpt = $9, owner = $10 WHERE name = $8`, declared, func(d *Domain) []any {
			return []any{d.Tenant, d.MXSet, d.Publish, d.Account, d.Adopt, at, version, d.Name, d.TLSRPT, c.owner}
		}); err != nil {
			return err
		}
	}
	byName := func(name policygen.Name) []any { return []any{at, version, name} }
	if err := execAll(ctx, tx, `UPDATE domains SET removed = $1, due = $1, claimed = 0, woken = FALSE, version = $2
		WHERE name = $3`, c.remove, byName); err != nil {
		return err
	}
	return execAll(ctx, tx, `UPDATE domains SET due = $1, claimed = 0, woken = FALSE, version = $2 WHERE name = $3`,
		c.touch, byName)
}

// execAll runs one statement for each item.
func execAll[T any](ctx context.Context, tx transaction, query string, items []T, args func(T) []any) error {
	return tx.execMany(ctx, query, len(items), func(i int) []any { return args(items[i]) })
}
