package store

import (
	"context"
	"database/sql"
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
)

// checkSeals says whether everything in a store can be opened, and changes nothing. A database without tables, or from
// before there were seals, has none.
func checkSeals(ctx context.Context, db *sql.DB, ring *Keyring) error {
	var tables int
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE name = 'seals'`).Scan(&tables); err != nil || tables == 0 {
		return err
	}
	seals, err := readSeals(ctx, db)
	if err != nil {
		return err
	}
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

func readSeals(ctx context.Context, db *sql.DB) ([]storedSeal, error) {
	rows, err := db.QueryContext(ctx, `SELECT id, proof FROM seals ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var seals []storedSeal
	for rows.Next() {
		var s storedSeal
		if err := rows.Scan(&s.id, &s.proof); err != nil {
			return nil, err
		}
		seals = append(seals, s)
	}
	return seals, rows.Err()
}

// noteSeal notes that rows are sealed with the newest key from now on.
func noteSeal(ctx context.Context, db *sql.DB, ring *Keyring) error {
	if ring == nil {
		return nil
	}
	id, proof := ring.Seal(labelProof, nil)
	_, err := db.ExecContext(ctx, `INSERT INTO seals (id, proof) VALUES (?, ?) ON CONFLICT (id) DO NOTHING`, id, proof)
	return err
}

// Reseal implements [Store].
func (s *SQLite) Reseal(ctx context.Context) (int, error) {
	seals, err := readSeals(ctx, s.readers.DB)
	if err != nil {
		return 0, fmt.Errorf("seal anew: %w", s.explain(ctx, err))
	}
	if s.ring == nil || !slices.ContainsFunc(seals, func(seal storedSeal) bool { return seal.id != s.ring.ID() }) {
		return 0, nil
	}
	count := 0
	for _, t := range []sealedColumn{
		{"certificates", "name", "private_key", labelCertificate},
		{"key_values", "name", "value", labelValue},
		{"accounts", "tenant || '/' || name", "settings", labelAccount},
	} {
		for last, n := "", resealBatch; n == resealBatch; count += n {
			if last, n, err = s.resealBatch(ctx, t, last); err != nil {
				return count, err
			}
		}
	}
	err = s.write(ctx, "seal anew", func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM seals WHERE id <> ?`, s.ring.ID())
		return err
	})
	if err == nil {
		// What was overwritten is still in the log.
		_, err = s.writer.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
	}
	if err != nil {
		return count, fmt.Errorf("seal anew: %w", s.explain(ctx, err))
	}
	return count, nil
}

// sealedColumn is where secrets are; name is the expression that makes their label with the prefix.
type sealedColumn struct{ table, name, column, label string }

// resealBatch seals the next rows of a table behind the name last, and returns the last name and how many there were.
func (s *SQLite) resealBatch(ctx context.Context, t sealedColumn, last string) (string, int, error) {
	n := 0
	err := s.write(ctx, "seal anew", func(tx *transaction) error {
		type row struct {
			name, sealed string
			secret       []byte
		}
		rows, err := tx.QueryContext(ctx, `SELECT `+t.name+` AS id, sealed, `+t.column+` FROM `+t.table+`
			WHERE `+t.name+` > ? AND sealed <> ? ORDER BY id LIMIT ?`, last, s.ring.ID(), resealBatch)
		if err != nil {
			return err
		}
		defer rows.Close()
		var batch []row
		for rows.Next() {
			var r row
			if err := rows.Scan(&r.name, &r.sealed, &r.secret); err != nil {
				return err
			}
			batch = append(batch, r)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for _, r := range batch {
			plain, err := s.ring.Open(r.sealed, t.label+r.name, r.secret)
			if err != nil {
				return fmt.Errorf("row %q of %s: %w", r.name, t.table, err)
			}
			id, sealed := s.ring.Seal(t.label+r.name, plain)
			if _, err := tx.ExecContext(ctx, `UPDATE `+t.table+` SET `+t.column+` = ?, sealed = ? WHERE `+t.name+` = ?`, sealed, id, r.name); err != nil {
				return err
			}
			last = r.name
		}
		n = len(batch)
		return nil
	})
	return last, n, err
}
