package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Declare implements [Store]. It walks the declared and the stored domains side by side in order of their names, so it
// holds in memory only what differs.
func (t *tables) Declare(ctx context.Context, d Declaration, now time.Time) (Change, error) {
	var done Change
	actor := actorOf(ctx)
	doing := fmt.Sprintf("declare for owner %q", d.Owner)
	leave, err := t.db.queueUp(ctx, "")
	if err != nil {
		return Change{}, said(doing, err)
	}
	defer leave()
	err = t.db.write(ctx, doing, func(ctx context.Context, tx transaction) error {
		if err := tx.lock(ctx, lockDeclaration, "", false); err != nil {
			return err
		}
		want, err := sortDeclared(d)
		if err != nil {
			return err
		}
		told := diary{actor: actor, at: now}
		if d.Digest != "" {
			told.note("", KindConfiguration, "", "took the configuration "+d.Digest[:min(len(d.Digest), 12)], nil, shownDigest{d.Digest})
		}
		sets, err := declareMXSets(ctx, tx, d, &told)
		if err != nil {
			return err
		}
		diff := difference{owner: d.Owner, sets: sets, told: told}
		if err := diff.walk(ctx, tx, want); err != nil {
			return err
		}
		if err := diff.keepShared(ctx, tx); err != nil {
			return err
		}
		if err := diff.apply(ctx, tx, now); err != nil {
			return err
		}
		done = diff.count()
		if err := dropUnused(ctx, tx); err != nil {
			return err
		}
		return diff.record(ctx, tx)
	})
	if err != nil {
		return Change{}, err
	}
	return done, nil
}

// dropUnused deletes the MX sets that nobody declares or uses.
func dropUnused(ctx context.Context, tx transaction) error {
	_, err := tx.exec(ctx, `DELETE FROM mxsets WHERE owner = '' AND NOT EXISTS (
		SELECT 1 FROM domains WHERE domains.tenant = mxsets.tenant AND domains.mxset = mxsets.name)`)
	return err
}

// sortDeclared returns the declared domains by name.
func sortDeclared(d Declaration) ([]*Domain, error) {
	if d.Owner == "" {
		return nil, errors.New("a declaration needs an owner")
	}
	want := make([]*Domain, len(d.Domains))
	for i := range d.Domains {
		want[i] = &d.Domains[i]
		if o := want[i].Owner; o != "" && o != d.Owner {
			return nil, fmt.Errorf("domain %q is declared for owner %q: declare it there", want[i].Name, o)
		}
	}
	slices.SortFunc(want, func(a, b *Domain) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(want); i++ {
		if want[i].Name == want[i-1].Name {
			return nil, fmt.Errorf("domain %q is declared twice: drop one", want[i].Name)
		}
	}
	return want, nil
}

// setKey names an MX set.
type setKey struct{ tenant, name string }

// storedSet is a row of the table mxsets.
type storedSet struct {
	owner, mode, mx string
	maxAge          int
	rollout         int64 // microseconds
	changed         bool  // the policy is about to change
}

// declareMXSets writes the MX sets that are new or differ, and disowns those that are missing. It returns all.
func declareMXSets(ctx context.Context, tx transaction, d Declaration, told *diary) (map[setKey]*storedSet, error) {
	sets, err := storedSets(ctx, tx)
	if err != nil {
		return nil, err
	}
	declared := make(map[setKey]bool, len(d.MXSets))
	for _, m := range d.MXSets {
		key := setKey{m.Tenant, m.Name}
		if declared[key] {
			return nil, fmt.Errorf("mx set %q is declared twice: drop one", m.Name)
		}
		declared[key] = true
		before := sets[key]
		if err := declareMXSet(ctx, tx, sets, key, d.Owner, m); err != nil {
			return nil, fmt.Errorf("mx set %q: %w", m.Name, err)
		}
		if after := sets[key]; after != before {
			told.mxset(key, before, after)
		}
	}
	for key, set := range sets {
		if set.owner != d.Owner || declared[key] {
			continue
		}
		told.mxset(key, set, nil)
		set.owner = ""
		if _, err := tx.exec(ctx, `UPDATE mxsets SET owner = '' WHERE tenant = $1 AND name = $2`,
			key.tenant, key.name); err != nil {
			return nil, err
		}
	}
	return sets, nil
}

const selectSet = `SELECT tenant, name, owner, mode, max_age, mx, rollout FROM mxsets`

func scanSet(r row) (key setKey, set storedSet, err error) {
	err = r.Scan(&key.tenant, &key.name, &set.owner, &set.mode, &set.maxAge, &set.mx, &set.rollout)
	return key, set, err
}

// findSet returns one; nil: it is not there.
func findSet(ctx context.Context, tx transaction, key setKey) (found *storedSet, err error) {
	err = tx.query(ctx, func(r row) error {
		_, set, err := scanSet(r)
		found = &set
		return err
	}, selectSet+` WHERE tenant = $1 AND name = $2`, key.tenant, key.name)
	return found, err
}

func storedSets(ctx context.Context, tx transaction) (map[setKey]*storedSet, error) {
	sets := make(map[setKey]*storedSet)
	err := tx.query(ctx, func(r row) error {
		key, set, err := scanSet(r)
		sets[key] = &set
		return err
	}, selectSet)
	return sets, err
}

// declareMXSet brings sets and the table to what is declared, writing only what differs.
func declareMXSet(ctx context.Context, tx transaction, sets map[setKey]*storedSet, key setKey, owner string, m MXSet) error {
	set, err := toStore(m)
	if err != nil {
		return err
	}
	set.owner = owner
	if old := sets[key]; old != nil {
		if old.owner != owner && old.owner != "" {
			return fmt.Errorf("belongs to owner %q: change it there, or take another name", old.owner)
		}
		if *old == set {
			return nil
		}
		set.changed = !old.serves(set)
	}
	sets[key] = &set
	return writeMXSet(ctx, tx, key, set)
}

// toStore is an MX set as the table has it.
func toStore(m MXSet) (storedSet, error) {
	mx, err := json.Marshal(m.Policy.MX)
	return storedSet{
		owner: m.Owner, mode: string(m.Policy.Mode), maxAge: m.Policy.MaxAge, mx: string(mx), rollout: m.Rollout.Microseconds(),
	}, err
}

// serves says whether two MX sets have the same policy.
func (s storedSet) serves(other storedSet) bool {
	return s.mode == other.mode && s.maxAge == other.maxAge && s.mx == other.mx
}

func writeMXSet(ctx context.Context, tx transaction, key setKey, set storedSet) error {
	_, err := tx.exec(ctx, `INSERT INTO mxsets (tenant, name, owner, mode, max_age, mx, rollout)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (tenant, name) DO UPDATE SET owner = excluded.owner, mode = excluded.mode,
		max_age = excluded.max_age, mx = excluded.mx, rollout = excluded.rollout`,
		key.tenant, key.name, set.owner, set.mode, set.maxAge, set.mx, set.rollout)
	return err
}

func scanMXSet(r row) (m MXSet, err error) {
	var mx string
	var rollout int64
	if err := r.Scan(&m.Tenant, &m.Name, &m.Owner, &m.Policy.Mode, &m.Policy.MaxAge, &mx, &rollout); err != nil {
		return m, err
	}
	m.Rollout = time.Duration(rollout) * time.Microsecond
	if err := json.Unmarshal([]byte(mx), &m.Policy.MX); err != nil {
		return m, fmt.Errorf("mx set %q: %w", m.Name, err)
	}
	return m, nil
}

// MXSets implements [Store].
func (t *tables) MXSets(ctx context.Context) ([]MXSet, error) {
	return collect(ctx, t, "read mx sets", scanMXSet, selectSet+` ORDER BY tenant, name`)
}

// MXSet implements [Store].
func (t *tables) MXSet(ctx context.Context, tenant, name string) (MXSet, error) {
	return one(ctx, t, fmt.Sprintf("read mx set %q", name), scanMXSet, selectSet+` WHERE tenant = $1 AND name = $2`, tenant, name)
}
