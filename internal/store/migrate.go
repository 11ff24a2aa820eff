package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// migrations are the steps from an empty database to this version, by name, in a folder for each engine. A step that was
// ever released is never changed; what it lacks comes as the next one, and leaves an older version that runs beside this
// one what it needs.
//
//go:embed migrations/*/*.sql
var migrations embed.FS

// migrate takes the steps that the database has not seen, and notes that they were taken: all or none. Of several
// processes at the same time one does, and the others wait. Then it notes the key that secrets are sealed with.
func (t *tables) migrate(ctx context.Context, steps fs.FS) error {
	files, err := fs.Glob(steps, "*.sql") // in order of their names
	if err != nil {
		return err
	}
	return t.db.write(ctx, "", func(ctx context.Context, tx transaction) error {
		if err := tx.lock(ctx, lockSchema, "", false); err != nil {
			return err
		}
		taken, err := takenSteps(ctx, tx, t.ring)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(taken, func(name string) bool { return !slices.Contains(files, name+".sql") }); i >= 0 {
			return fmt.Errorf("written by a newer version of stspub, which took step %q: "+
				"run that version, or restore a backup from before it", taken[i])
		}
		for _, file := range files {
			name := strings.TrimSuffix(file, ".sql")
			if slices.Contains(taken, name) {
				continue
			}
			if err := takeStep(ctx, tx, steps, name); err != nil {
				return fmt.Errorf("take step %q: %w", name, err)
			}
		}
		return t.enterKey(ctx, tx)
	})
}

// takenSteps returns what the database has seen. It refuses the database of another program, and one whose seals ring does
// not open.
func takenSteps(ctx context.Context, tx transaction, ring *Keyring) ([]string, error) {
	tables, err := tx.tables(ctx)
	if err != nil || len(tables) == 0 {
		return nil, err
	}
	if !slices.Contains(tables, "migrations") {
		return nil, errors.New("the database of another program: set another [store] url")
	}
	if slices.Contains(tables, "seals") {
		var seals []storedSeal
		err := tx.query(ctx, func(r row) error {
			s, err := scanSeal(r)
			seals = append(seals, s)
			return err
		}, querySeals)
		if err == nil {
			err = checkSeals(seals, ring)
		}
		if err != nil {
			return nil, err
		}
	}
	var taken []string
	err = tx.query(ctx, func(r row) error {
		var name string
		err := r.Scan(&name)
		taken = append(taken, name)
		return err
	}, `SELECT name FROM migrations ORDER BY name`)
	return taken, err
}

func takeStep(ctx context.Context, tx transaction, steps fs.FS, name string) error {
	text, err := fs.ReadFile(steps, name+".sql")
	if err != nil {
		return err
	}
	for _, script := range []string{
		string(text), `CREATE TABLE IF NOT EXISTS migrations (name TEXT NOT NULL PRIMARY KEY, taken BIGINT NOT NULL)`,
	} {
		if err := tx.script(ctx, script); err != nil {
			return err
		}
	}
	now, err := tx.now(ctx)
	if err != nil {
		return err
	}
	_, err = tx.exec(ctx, `INSERT INTO migrations (name, taken) VALUES ($1, $2)`, name, now)
	return err
}
