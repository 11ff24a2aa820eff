package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// migrations are the steps from an empty database to this version, by name. A step that was ever released is never
// changed; what it lacks comes as the next one.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrate takes the steps that db has not seen, each in a transaction with the note that it was taken.
func migrate(ctx context.Context, db *sql.DB, steps fs.FS) error {
	files, err := fs.Glob(steps, "migrations/*.sql") // in order of their names
	if err != nil {
		return err
	}
	taken, err := takenSteps(ctx, db)
	if err != nil {
		return err
	}
	known := func(name string) bool { return slices.Contains(files, "migrations/"+name+".sql") }
	if i := slices.IndexFunc(taken, func(name string) bool { return !known(name) }); i >= 0 {
		return fmt.Errorf("written by a newer version of stspub, which took step %q: "+
			"run that version, or restore a backup from before it", taken[i])
	}
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".sql")
		if slices.Contains(taken, name) {
			continue
		}
		if err := takeStep(ctx, db, steps, file, name); err != nil {
			return fmt.Errorf("take step %q: %w", name, err)
		}
	}
	return nil
}

// takenSteps returns what db has seen, and refuses the database of another program.
func takenSteps(ctx context.Context, db *sql.DB) ([]string, error) {
	var tables, ours int
	if err := db.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE name = 'migrations') FROM sqlite_schema`).
		Scan(&tables, &ours); err != nil {
		return nil, err
	}
	if ours == 0 && tables > 0 {
		return nil, errors.New("the database of another program: set another [store] url")
	}
	if ours == 0 {
		return nil, nil
	}
	rows, err := db.QueryContext(ctx, `SELECT name FROM migrations ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var taken []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		taken = append(taken, name)
	}
	return taken, rows.Err()
}

func takeStep(ctx context.Context, db *sql.DB, steps fs.FS, file, name string) error {
	text, err := fs.ReadFile(steps, file)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing, before it the error is already known
	if _, err := tx.ExecContext(ctx, string(text)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS migrations (
		name TEXT NOT NULL PRIMARY KEY, taken INTEGER NOT NULL) STRICT`); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO migrations (name, taken)
		VALUES (?, CAST(unixepoch('subsec') * 1000000 AS INTEGER))`, name); err != nil {
		return err
	}
	return tx.Commit()
}
