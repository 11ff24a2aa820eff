package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"time"
)

// pool keeps its queries prepared, since preparing one takes longer than running it. There are only so many queries.
type pool struct {
	*sql.DB

	mu         sync.Mutex // guards statements
	statements map[string]*sql.Stmt
}

func (p *pool) kept(query string) *sql.Stmt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.statements[query]
}

// prepared must not be called within a transaction: one has all connections that the pool of the writer has.
func (p *pool) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s := p.kept(query); s != nil {
		return s, nil
	}
	s, err := p.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if first := p.statements[query]; first != nil { // by somebody else meanwhile
		return first, s.Close()
	}
	if p.statements == nil {
		p.statements = make(map[string]*sql.Stmt)
	}
	p.statements[query] = s
	return s, nil
}

// QueryContext is as that of [sql.DB].
func (p *pool) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := p.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// sqliteTransaction runs on the statements that its pool keeps. A query that is not among them is prepared for the
// transaction alone, and is left in unknown.
type sqliteTransaction struct {
	*sql.Tx

	pool       *pool
	statements map[string]*sql.Stmt // they end with the transaction
	unknown    []string

	version, kept int64 // the last number given to a change, and the one in the table; 0: none yet
}

func (t *sqliteTransaction) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s := t.statements[query]; s != nil {
		return s, nil
	}
	if s := t.pool.kept(query); s != nil {
		t.statements[query] = t.StmtContext(ctx, s)
		return t.statements[query], nil
	}
	s, err := t.PrepareContext(ctx, query)
	if err == nil {
		t.statements[query] = s
		t.unknown = append(t.unknown, query)
	}
	return s, err
}

// keep has the next transaction find what this one did not.
func (t *sqliteTransaction) keep(ctx context.Context) {
	for _, query := range t.unknown {
		if _, err := t.pool.prepared(ctx, query); err != nil {
			return // its next user is told
		}
	}
}

func (t *sqliteTransaction) exec(ctx context.Context, query string, args ...any) (int64, error) {
	s, err := t.prepared(ctx, query)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t *sqliteTransaction) execMany(ctx context.Context, query string, n int, args func(i int) []any) error {
	for i := range n {
		if _, err := t.exec(ctx, query, args(i)...); err != nil {
			return err
		}
	}
	return nil
}

// insertRows are so many that a statement takes half the time of as many statements.
const insertRows = 32

func (t *sqliteTransaction) insert(ctx context.Context, table string, columns []string, n int, values func(i int) []any) error {
	into := `INSERT INTO ` + table + ` (` + strings.Join(columns, ", ") + `) VALUES `
	row := "(" + strings.Repeat(", ?", len(columns))[2:] + ")"
	rows := into + strings.Repeat(row+", ", insertRows-1) + row
	args := make([]any, 0, insertRows*len(columns))
	begin := 0
	for ; n-begin >= insertRows; begin += insertRows {
		args = args[:0]
		for i := range insertRows {
			args = append(args, values(begin+i)...)
		}
		if _, err := t.exec(ctx, rows, args...); err != nil {
			return err
		}
	}
	return t.execMany(ctx, into+row, n-begin, func(i int) []any { return values(begin + i) })
}

func (t *sqliteTransaction) get(ctx context.Context, query string, args []any, dest ...any) error {
	s, err := t.prepared(ctx, query)
	if err != nil {
		return err
	}
	err = s.QueryRowContext(ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

func (t *sqliteTransaction) query(ctx context.Context, f func(row) error, query string, args ...any) error {
	s, err := t.prepared(ctx, query)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}

// drain calls f for each row.
func drain(rows *sql.Rows, f func(row) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Nothing else writes while a transaction runs.
func (*sqliteTransaction) locking(query, _ string) string                          { return query }
func (*sqliteTransaction) lock(context.Context, lockable, string, bool) error      { return nil }
func (*sqliteTransaction) tryLock(context.Context, lockable, string) (bool, error) { return true, nil }

func (t *sqliteTransaction) tables(ctx context.Context) ([]string, error) {
	var names []string
	err := t.query(ctx, func(r row) error {
		var name string
		err := r.Scan(&name)
		names = append(names, name)
		return err
	}, `SELECT name FROM sqlite_schema WHERE type = 'table'`)
	return names, err
}

func (t *sqliteTransaction) script(ctx context.Context, statements string) error {
	_, err := t.ExecContext(ctx, statements)
	return err
}

// nextVersion numbers a change. The first number of a transaction is its first write; see keepVersions for the others.
func (t *sqliteTransaction) nextVersion(ctx context.Context) (int64, error) {
	if t.version > 0 {
		t.version++
		return t.version, nil
	}
	err := t.get(ctx, `UPDATE versions SET last = last + 1 RETURNING last`, nil, &t.version)
	t.kept = t.version
	return t.version, err
}

func (t *sqliteTransaction) nextChange(ctx context.Context) (int64, error) { return t.nextVersion(ctx) }

// last needs no place of its own: nobody waits for what a transaction locks, but for the transaction.
func (t *sqliteTransaction) last(ctx context.Context, query string, args ...any) error {
	_, err := t.exec(ctx, query, args...)
	return err
}

func (t *sqliteTransaction) changeLast(ctx context.Context, number *int64) (any, error) {
	var err error
	*number, err = t.nextVersion(ctx)
	return *number, err
}

func (t *sqliteTransaction) insertLast(ctx context.Context, table string, columns []string, n int, values func(i int) []any) error {
	if n == 0 {
		return nil
	}
	first, err := t.nextVersion(ctx)
	if err != nil {
		return err
	}
	t.version += int64(n) - 1
	return t.insert(ctx, table, columns, n, func(i int) []any { return append([]any{first + int64(i)}, values(i)...) })
}

// keepVersions is for the end of a transaction.
func (t *sqliteTransaction) keepVersions(ctx context.Context) error {
	if t.version == t.kept {
		return nil
	}
	_, err := t.exec(ctx, `UPDATE versions SET last = $1`, t.version)
	return err
}

// resume has the next version be greater than all.
func (t *sqliteTransaction) resume(ctx context.Context) error {
	_, err := t.exec(ctx, `UPDATE versions SET last = max(last, (SELECT coalesce(max(version), 0) FROM domains),
		(SELECT coalesce(max(turn), 0) FROM turns))`)
	return err
}

// now is the clock of the process, which is the database.
func (*sqliteTransaction) now(context.Context) (int64, error) { return time.Now().UnixMicro(), nil }
