package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// resealBatch is how many rows are sealed anew at once.
const resealBatch = 256

// Labels of what is sealed; see [Keyring].
const (
	labelProof       = "proof"
	labelCertificate = "certificate/" // and its name
	labelValue       = "value/"       // and its key
	labelAccount     = "account/"     // its tenant, a slash and its name
	labelWebhook     = "webhook/"     // likewise
)

// checkSeals says whether everything in a store can be opened, and changes nothing.
func checkSeals(seals []storedSeal, ring *Keyring) error {
	var lacking []string
	for _, seal := range seals {
		if seal.id == "" {
			continue
		}
		if _, err := ring.Open(seal.id, labelProof, seal.proof); err != nil {
			lacking = append(lacking, seal.id)
		}
	}
	switch {
	case len(lacking) == 0:
		return nil
	case ring == nil:
		return fmt.Errorf("it is sealed with the key %s: set [store] key_file to the file that holds that key", strings.Join(lacking, " and "))
	}
	return fmt.Errorf("it is sealed with the key %s, and [store] key_file holds the key %s: put the right key there, "+
		"or, if the key was changed, list the old one in old_key_files", strings.Join(lacking, " and "), ring.ID())
}

type storedSeal struct {
	id    string
	proof []byte
}

func scanSeal(r row) (s storedSeal, err error) {
	err = r.Scan(&s.id, &s.proof)
	return s, err
}

const querySeals = `SELECT id, proof FROM seals ORDER BY id`

// seal seals a secret that is written in a transaction. The store knows every key that a row is sealed with, whatever
// another node dropped: so it never opens for somebody who could not read all of it.
func (t *tables) seal(ctx context.Context, tx transaction, label string, plain []byte) (id string, sealed []byte, err error) {
	id, sealed = t.ring.Seal(label, plain)
	if id == "" {
		return id, sealed, nil
	}
	if err := tx.lock(ctx, lockSeals, "", true); err != nil {
		return "", nil, err
	}
	var known bool
	if err := tx.get(ctx, `SELECT EXISTS (SELECT 1 FROM seals WHERE id = $1)`, []any{id}, &known); err != nil {
		return "", nil, err
	}
	if !known {
		err = noteSeal(ctx, tx, t.ring)
	}
	return id, sealed, err
}

// noteSeal notes that rows are sealed with the newest key from now on.
func noteSeal(ctx context.Context, tx transaction, ring *Keyring) error {
	id, proof := ring.Seal(labelProof, nil)
	_, err := tx.exec(ctx, `INSERT INTO seals (id, proof) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`, id, proof)
	return err
}

// noKeys stands for the keys of a node that has none.
const noKeys = "-"

// keysOf are the keys of a node as its row has them.
func keysOf(ring *Keyring) string {
	if ring == nil {
		return noKeys
	}
	return strings.Join(ring.ids(), " ")
}

// heardOf is for how long a node that was heard of counts as one that runs.
const heardOf = time.Minute

// enterKey notes the key that secrets are sealed with from now on. While a node runs that does not have it, it is refused: that
// one could not read what this one writes.
func (t *tables) enterKey(ctx context.Context, tx transaction) error {
	if t.ring == nil {
		return nil
	}
	if !t.sole {
		now, err := tx.now(ctx)
		if err != nil {
			return err
		}
		var lacking []string
		err = tx.query(ctx, func(r row) error {
			var node, keys string
			err := r.Scan(&node, &keys)
			if keys != "" && !slices.Contains(strings.Fields(keys), t.ring.ID()) {
				lacking = append(lacking, node)
			}
			return err
		}, `SELECT id, keys FROM nodes WHERE deregistered = 0 AND heartbeat > $1 ORDER BY id`, now-heardOf.Microseconds())
		if err != nil {
			return err
		}
		if len(lacking) > 0 {
			return fmt.Errorf("[store] key_file holds the key %s, which node %q does not have, and it runs: first list that key in "+
				"old_key_files of all nodes and restart them, then make it their key_file; a store that was not sealed yet gets its first key while no node runs",
				t.ring.ID(), lacking[0])
		}
	}
	return noteSeal(ctx, tx, t.ring)
}

// Reseal implements [Store].
func (t *tables) Reseal(ctx context.Context) (Resealed, error) {
	const doing = "seal anew"
	seals, err := collect(ctx, t, doing, scanSeal, querySeals)
	if err != nil {
		return Resealed{}, err
	}
	if t.ring == nil || !slices.ContainsFunc(seals, func(seal storedSeal) bool { return seal.id != t.ring.ID() }) {
		return Resealed{}, nil
	}
	var done Resealed
	done.Rows, done.Damaged, err = t.resealAll(func(f func(context.Context, transaction) error) error { return t.db.write(ctx, doing, f) })
	if err != nil {
		return done, err
	}
	all := done
	err = t.db.write(ctx, doing, func(ctx context.Context, tx transaction) error {
		all = done
		return t.dropSeals(ctx, tx, &all)
	})
	if err != nil {
		return done, err
	}
	return all, t.db.overwritten(ctx)
}

// dropSeals forgets the keys that nothing is sealed with any more, nor will be.
func (t *tables) dropSeals(ctx context.Context, tx transaction, done *Resealed) error {
	if err := tx.lock(ctx, lockSeals, "", false); err != nil {
		return err
	}
	if !t.sole { // what other nodes wrote behind us
		more, damaged, err := t.resealAll(func(f func(context.Context, transaction) error) error { return f(ctx, tx) })
		if err != nil {
			return err
		}
		done.Rows, done.Damaged = done.Rows+more, damaged
	}
	var old, used []string
	err := tx.query(ctx, func(r row) error {
		var id string
		err := r.Scan(&id)
		old = append(old, id)
		return err
	}, `SELECT id FROM seals WHERE id <> $1 ORDER BY id`, t.ring.ID())
	if err == nil && !t.sole {
		err = tx.query(ctx, func(r row) error {
			var keys string
			err := r.Scan(&keys)
			newest, _, _ := strings.Cut(keys, " ")
			used = append(used, strings.TrimPrefix(newest, noKeys))
			return err
		}, `SELECT keys FROM nodes WHERE deregistered = 0`)
	}
	if err != nil {
		return err
	}
	for _, id := range old {
		if slices.Contains(used, id) {
			done.Used = append(done.Used, id)
			continue
		}
		if _, err := tx.exec(ctx, `DELETE FROM seals WHERE id = $1`, id); err != nil {
			return err
		}
		done.Dropped = append(done.Dropped, id)
	}
	return nil
}

// resealAll seals everything anew that is not sealed with the newest key, a page within each transaction.
func (t *tables) resealAll(within func(func(context.Context, transaction) error) error) (sealed, damaged int, err error) {
	for _, part := range []sealedColumn{
		{"certificates", "name", "private_key", labelCertificate},
		{"key_values", "name", "value", labelValue},
		{"accounts", "tenant || '/' || name", "settings", labelAccount},
		{"webhooks", "tenant || '/' || name", "settings", labelWebhook},
	} {
		for last, n := "", resealBatch; n == resealBatch; {
			var bad int
			next := last
			if err := within(func(ctx context.Context, tx transaction) (err error) {
				next, n, bad, err = t.resealPage(ctx, tx, part, last)
				return err
			}); err != nil {
				return sealed, damaged, err
			}
			last, sealed, damaged = next, sealed+n-bad, damaged+bad
		}
	}
	return sealed, damaged, nil
}

// sealedColumn is where secrets are; name is the expression that makes their label with the prefix.
type sealedColumn struct{ table, name, column, label string }

// resealPage seals the next rows of a table behind the name last, and returns the last name, how many there were, and how
// many of those are damaged.
func (t *tables) resealPage(ctx context.Context, tx transaction, of sealedColumn, last string) (string, int, int, error) {
	type secret struct {
		name, sealed string
		value        []byte
	}
	var batch, good []secret
	err := tx.query(ctx, func(r row) error {
		var s secret
		err := r.Scan(&s.name, &s.sealed, &s.value)
		batch = append(batch, s)
		return err
	}, tx.locking(`SELECT `+of.name+` AS label, sealed, `+of.column+` FROM `+of.table+
		` WHERE `+of.name+` > $1 AND sealed <> $2 ORDER BY label LIMIT $3 + 0`, "FOR UPDATE"), last, t.ring.ID(), resealBatch)
	if err != nil {
		return "", 0, 0, err
	}
	for _, s := range batch {
		if s.value, err = t.ring.Open(s.sealed, of.label+s.name, s.value); err == nil {
			good = append(good, s)
			continue
		}
		newer, lookErr := t.newerSeal(ctx, tx, s.sealed)
		if lookErr != nil {
			return "", 0, 0, lookErr
		}
		if newer {
			return "", 0, 0, fmt.Errorf("row %q of %s: %w", s.name, of.table, err)
		}
	}
	err = tx.execMany(ctx, `UPDATE `+of.table+` SET `+of.column+` = $1, sealed = $2 WHERE `+of.name+` = $3`, len(good), func(i int) []any {
		id, sealed := t.ring.Seal(of.label+good[i].name, good[i].value)
		return []any{sealed, id, good[i].name}
	})
	if len(batch) > 0 {
		last = batch[len(batch)-1].name
	}
	return last, len(batch), len(batch) - len(good), err
}

// newerSeal says that a key is in use that this process does not have, since another one got it after our start.
func (t *tables) newerSeal(ctx context.Context, tx transaction, id string) (known bool, err error) {
	if !t.ring.has(id) {
		err = tx.get(ctx, `SELECT EXISTS (SELECT 1 FROM seals WHERE id = $1)`, []any{id}, &known)
	}
	return known, err
}
