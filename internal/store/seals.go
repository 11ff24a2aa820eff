package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// resealBatch is how many rows one transaction seals anew.
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

// noteSeal notes that rows are sealed with the newest key from now on.
func noteSeal(ctx context.Context, tx transaction, ring *Keyring) error {
	id, proof := ring.Seal(labelProof, nil)
	_, err := tx.exec(ctx, `INSERT INTO seals (id, proof) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`, id, proof)
	return err
}

// Reseal implements [Store].
func (t *tables) Reseal(ctx context.Context) (sealed, damaged int, err error) {
	seals, err := collect(ctx, t, "seal anew", scanSeal, querySeals)
	if err != nil {
		return 0, 0, err
	}
	if t.ring == nil || !slices.ContainsFunc(seals, func(seal storedSeal) bool { return seal.id != t.ring.ID() }) {
		return 0, 0, nil
	}
	for _, part := range []sealedColumn{
		{"certificates", "name", "private_key", labelCertificate},
		{"key_values", "name", "value", labelValue},
		{"accounts", "tenant || '/' || name", "settings", labelAccount},
		{"webhooks", "tenant || '/' || name", "settings", labelWebhook},
	} {
		for last, n := "", resealBatch; n == resealBatch; {
			var bad int
			if last, n, bad, err = t.resealBatch(ctx, part, last); err != nil {
				return sealed, damaged, err
			}
			sealed, damaged = sealed+n-bad, damaged+bad
		}
	}
	err = t.db.write(ctx, "seal anew", func(ctx context.Context, tx transaction) error {
		_, err := tx.exec(ctx, `DELETE FROM seals WHERE id <> $1`, t.ring.ID())
		return err
	})
	if err == nil {
		err = t.db.overwritten(ctx)
	}
	return sealed, damaged, err
}

// sealedColumn is where secrets are; name is the expression that makes their label with the prefix.
type sealedColumn struct{ table, name, column, label string }

// resealBatch seals the next rows of a table behind the name last, and returns the last name, how many there were, and how
// many of those are damaged.
func (t *tables) resealBatch(ctx context.Context, of sealedColumn, last string) (string, int, int, error) {
	type secret struct {
		name, sealed string
		value        []byte
	}
	var batch, good []secret
	err := t.db.write(ctx, "seal anew", func(ctx context.Context, tx transaction) error {
		batch, good = nil, nil
		err := tx.query(ctx, func(r row) error {
			var s secret
			err := r.Scan(&s.name, &s.sealed, &s.value)
			batch = append(batch, s)
			return err
		}, tx.locking(`SELECT `+of.name+` AS label, sealed, `+of.column+` FROM `+of.table+
			` WHERE `+of.name+` > $1 AND sealed <> $2 ORDER BY label LIMIT $3 + 0`, "FOR UPDATE"), last, t.ring.ID(), resealBatch)
		if err != nil {
			return err
		}
		for _, s := range batch {
			if s.value, err = t.ring.Open(s.sealed, of.label+s.name, s.value); err == nil {
				good = append(good, s)
				continue
			}
			newer, lookErr := t.newerSeal(ctx, tx, s.sealed)
			if lookErr != nil {
				return lookErr
			}
			if newer {
				return fmt.Errorf("row %q of %s: %w", s.name, of.table, err)
			}
		}
		return tx.execMany(ctx, `UPDATE `+of.table+` SET `+of.column+` = $1, sealed = $2 WHERE `+of.name+` = $3`, len(good), func(i int) []any {
			id, sealed := t.ring.Seal(of.label+good[i].name, good[i].value)
			return []any{sealed, id, good[i].name}
		})
	})
	if err == nil && len(batch) > 0 {
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
