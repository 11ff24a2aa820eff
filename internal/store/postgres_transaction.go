package store

import (
	"context"
	"database/sql"
	"errors"
	"hash/crc32"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// postgresTransaction reads what is committed, statement by statement, and keeps what it locks.
type postgresTransaction struct {
	tx    pgx.Tx
	store *Postgres
}

func (t *postgresTransaction) exec(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := t.tx.Exec(ctx, query, storable(args)...)
	return tag.RowsAffected(), err
}

// execBatch is how many statements are sent before an answer is read.
const execBatch = 1000

func (t *postgresTransaction) execMany(ctx context.Context, query string, n int, args func(i int) []any) error {
	for begin := 0; begin < n; begin += execBatch {
		var b pgx.Batch
		for i := begin; i < min(n, begin+execBatch); i++ {
			b.Queue(query, storable(args(i))...)
		}
		if err := t.tx.SendBatch(ctx, &b).Close(); err != nil {
			return err
		}
	}
	return nil
}

func (t *postgresTransaction) insert(ctx context.Context, table string, columns []string, n int, values func(i int) []any) error {
	if n == 0 {
		return nil
	}
	_, err := t.tx.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		return storable(values(i)), nil
	}))
	return err
}

func (t *postgresTransaction) get(ctx context.Context, query string, args []any, dest ...any) error {
	err := t.tx.QueryRow(ctx, query, storable(args)...).Scan(dest...)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

func (t *postgresTransaction) query(ctx context.Context, f func(row) error, query string, args ...any) error {
	rows, err := t.tx.Query(ctx, query, storable(args)...)
	if err != nil {
		return err
	}
	return drainPostgres(rows, f)
}

// drainPostgres calls f for each row.
func drainPostgres(rows pgx.Rows, f func(row) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (*postgresTransaction) locking(query, clause string) string { return query + " " + clause }

// lockClass sets our locks apart from those of other users of the database.
const lockClass = 0x73747300 // "sts"

func (t *postgresTransaction) lock(ctx context.Context, thing lockable, name string, share bool) error {
	query := `SELECT pg_advisory_xact_lock($1, $2)`
	if share {
		query = `SELECT pg_advisory_xact_lock_shared($1, $2)`
	}
	// Two names with one sum wait for each other now and then.
	_, err := t.tx.Exec(ctx, query, lockClass+int32(thing), int32(crc32.ChecksumIEEE([]byte(name))))
	return err
}

func (t *postgresTransaction) tryLock(ctx context.Context, thing lockable, name string) (got bool, err error) {
	err = t.get(ctx, `SELECT pg_try_advisory_xact_lock_shared($1, $2)`,
		[]any{lockClass + int32(thing), int32(crc32.ChecksumIEEE([]byte(name)))}, &got)
	return got, err
}

func (t *postgresTransaction) tables(ctx context.Context) ([]string, error) {
	var names []string
	err := t.query(ctx, func(r row) error {
		var name string
		err := r.Scan(&name)
		names = append(names, name)
		return err
	}, `SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`)
	return names, err
}

func (t *postgresTransaction) script(ctx context.Context, statements string) error {
	_, err := t.tx.Conn().PgConn().Exec(ctx, statements).ReadAll()
	return err
}

func (t *postgresTransaction) nextVersion(ctx context.Context) (int64, error) {
	for {
		if n, ok := t.store.versions.take(); ok {
			return n, nil
		}
		var first int64
		if err := t.get(ctx, `SELECT nextval('domain_versions')`, nil, &first); err != nil {
			return 0, err
		}
		t.store.versions.fill(first)
	}
}

// channel is where changes are told.
const channel = "stspub"

func (t *postgresTransaction) nextChange(ctx context.Context) (int64, error) {
	return t.nextChanges(ctx, 1)
}

func (t *postgresTransaction) nextChanges(ctx context.Context, n int) (int64, error) {
	var last int64
	var told string
	err := t.get(ctx, `UPDATE versions SET last = last + $1 RETURNING last, CAST(pg_notify('`+channel+`', '') AS TEXT)`, []any{n}, &last, &told)
	return last - int64(n) + 1, err
}

func (t *postgresTransaction) now(ctx context.Context) (int64, error) {
	var micros int64
	err := t.get(ctx, `SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)`, nil, &micros)
	return micros, err
}

func (t *postgresTransaction) resume(ctx context.Context) error {
	t.store.versions.drop()
	for _, query := range []string{
		`SELECT setval('domain_versions', greatest(max(version), (SELECT max(turn) FROM turns), 1)) FROM domains`,
		`SELECT setval(pg_get_serial_sequence('history', 'seq'), greatest(max(seq), 1)) FROM history`,
		`SELECT setval(pg_get_serial_sequence('ids', 'seq'), greatest(max(seq), 1)) FROM ids`,
		`SELECT setval(pg_get_serial_sequence('certificate_marks', 'seq'), greatest(max(seq), 1)) FROM certificate_marks`,
	} {
		if _, err := t.tx.Exec(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

// storable makes texts among arguments such.
func storable(args []any) []any {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = storableText(s)
		}
	}
	return args
}

// lent has pgx scan into bytes that are only valid until the next row, as database/sql does.
func lent(dest []any) {
	for i, d := range dest {
		if raw, ok := d.(*sql.RawBytes); ok {
			dest[i] = (*pgtype.DriverBytes)(raw)
		}
	}
}
