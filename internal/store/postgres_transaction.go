package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// postgresTransaction reads what is committed, statement by statement, and keeps what it locks. It begins with its first
// statement, and commits with its last ones: each way to the server and back is one for which others wait that need what
// it locks.
type postgresTransaction struct {
	conn  *pgx.Conn
	store *Postgres
	begun bool
	late  pgx.Batch // for the end
}

// send runs what queue puts into a batch.
func (t *postgresTransaction) send(ctx context.Context, queue func(b *pgx.Batch)) error {
	var b pgx.Batch
	if !t.begun {
		b.Queue("begin")
		t.begun = true
	}
	queue(&b)
	return t.conn.SendBatch(ctx, &b).Close()
}

// begin is for what goes in no batch.
func (t *postgresTransaction) begin(ctx context.Context) error {
	if t.begun {
		return nil
	}
	return t.send(ctx, func(*pgx.Batch) {})
}

func (t *postgresTransaction) exec(ctx context.Context, query string, args ...any) (changed int64, err error) {
	err = t.send(ctx, func(b *pgx.Batch) {
		b.Queue(query, storable(args)...).Exec(func(tag pgconn.CommandTag) error {
			changed = tag.RowsAffected()
			return nil
		})
	})
	return changed, err
}

// execBatch is how many statements are sent before an answer is read.
const execBatch = 1000

func (t *postgresTransaction) execMany(ctx context.Context, query string, n int, args func(i int) []any) error {
	for begin := 0; begin < n; begin += execBatch {
		err := t.send(ctx, func(b *pgx.Batch) {
			for i := begin; i < min(n, begin+execBatch); i++ {
				b.Queue(query, storable(args(i))...)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *postgresTransaction) insert(ctx context.Context, table string, columns []string, n int, values func(i int) []any) error {
	if n == 0 {
		return nil
	}
	if err := t.begin(ctx); err != nil {
		return err
	}
	_, err := t.conn.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		return storable(values(i)), nil
	}))
	return err
}

func (t *postgresTransaction) last(ctx context.Context, query string, args ...any) error {
	_, err := t.queueLast(ctx, query, args...)
	return err
}

// queueLast has a statement go with the commit. What it would take beforehand is done now, and so can be made again.
func (t *postgresTransaction) queueLast(ctx context.Context, query string, args ...any) (*pgx.QueuedQuery, error) {
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	if _, err := t.conn.Prepare(ctx, query, query); err != nil {
		return nil, err
	}
	return t.late.Queue(query, storable(args)...), nil
}

func (t *postgresTransaction) changeLast(ctx context.Context, number *int64) (any, error) {
	q, err := t.queueLast(ctx, queryChanges, 1)
	if err != nil {
		return nil, err
	}
	q.QueryRow(func(r pgx.Row) error {
		var told string
		return r.Scan(number, &told)
	})
	return nil, nil //nolint:nilnil // NULL: the row has it then
}

// fewRows are quicker as statements, with the commit, than in bulk before it.
const fewRows = 16

func (t *postgresTransaction) insertLast(ctx context.Context, table string, columns []string, n int, values func(i int) []any) error {
	if n > fewRows {
		first, err := t.nextChanges(ctx, n)
		if err != nil {
			return err
		}
		return t.insert(ctx, table, columns, n, func(i int) []any { return append([]any{first + int64(i)}, values(i)...) })
	}
	if err := t.last(ctx, queryChanges, n); err != nil {
		return err
	}
	query := `INSERT INTO ` + table + ` (` + strings.Join(columns, ", ") + `) VALUES ((SELECT last FROM versions) - $1`
	for i := range columns[1:] {
		query += fmt.Sprintf(", $%d", i+2)
	}
	query += ")"
	for i := range n {
		if err := t.last(ctx, query, append([]any{n - 1 - i}, values(i)...)...); err != nil {
			return err
		}
	}
	return nil
}

// commit says of what it cannot know whether it was written that it is ErrUnsure. When the connection breaks, pgx says that
// it was closed and nothing sent, even if the commit was sent; so only what is closed before is trusted to be.
func (t *postgresTransaction) commit(ctx context.Context) error {
	switch {
	case !t.begun:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	q, err := t.queueLast(ctx, "commit")
	switch {
	case err != nil:
		return err
	case t.conn.IsClosed():
		return pgconn.ErrConnClosed
	}
	q.Exec(func(tag pgconn.CommandTag) error {
		if tag.String() == "ROLLBACK" {
			return pgx.ErrTxCommitRollback
		}
		return nil
	})
	err = t.conn.SendBatch(ctx, &t.late).Close()
	var e *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, pgx.ErrTxCommitRollback):
		return err
	case errors.As(err, &e) && e.SeverityUnlocalized == "ERROR": // FATAL ends the connection, at any moment
		return err
	case !t.conn.IsClosed() && t.conn.PgConn().TxStatus() != 'I': // the server says that it still runs
		return err
	}
	return fmt.Errorf("%w, for the way to the database was cut in the commit (%w)", ErrUnsure, err)
}

// end rolls back what is not committed. It says nothing new: a connection that is not idle then is not used again.
func (t *postgresTransaction) end(ctx context.Context) {
	if t.conn.IsClosed() || t.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
	defer cancel()
	_, _ = t.conn.Exec(ctx, "rollback")
}

func (t *postgresTransaction) get(ctx context.Context, query string, args []any, dest ...any) error {
	found := false
	err := t.query(ctx, func(r row) error {
		if found {
			return nil
		}
		found = true
		return r.Scan(dest...)
	}, query, args...)
	if err == nil && !found {
		return ErrNotFound
	}
	return err
}

func (t *postgresTransaction) query(ctx context.Context, f func(row) error, query string, args ...any) error {
	return t.send(ctx, func(b *pgx.Batch) {
		b.Queue(query, storable(args)...).Query(func(rows pgx.Rows) error { return drainPostgres(rows, f) })
	})
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
	_, err := t.exec(ctx, query, lockClass+int32(thing), int32(crc32.ChecksumIEEE([]byte(name))))
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
	if err := t.begin(ctx); err != nil {
		return err
	}
	_, err := t.conn.PgConn().Exec(ctx, statements).ReadAll()
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

// queryChanges takes $1 numbers and tells of it, when the transaction commits. Whoever wants a number waits until then.
const queryChanges = `UPDATE versions SET last = last + $1 RETURNING last, CAST(pg_notify('` + channel + `', '') AS TEXT)`

// nextChanges takes n numbers, one behind the other, and returns the first.
func (t *postgresTransaction) nextChanges(ctx context.Context, n int) (int64, error) {
	var last int64
	var told string
	err := t.get(ctx, queryChanges, []any{n}, &last, &told)
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
		if _, err := t.exec(ctx, query); err != nil {
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
