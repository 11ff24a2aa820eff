package store

import (
	"context"
	"database/sql"
	"sync"
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

// QueryRowContext is as that of [sql.DB].
func (p *pool) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s, err := p.prepared(ctx, query)
	if err != nil {
		return p.DB.QueryRowContext(ctx, query, args...) // for the error
	}
	return s.QueryRowContext(ctx, args...)
}

// transaction runs on the statements that its pool keeps. A query that is not among them is prepared for the transaction
// alone, and is left in unknown.
type transaction struct {
	*sql.Tx

	pool       *pool
	statements map[string]*sql.Stmt // they end with the transaction
	unknown    []string

	version, kept int64 // the last number given to a change, and the one in the table; 0: none yet
}

func (t *transaction) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
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
func (t *transaction) keep(ctx context.Context) {
	for _, query := range t.unknown {
		if _, err := t.pool.prepared(ctx, query); err != nil {
			return // its next user is told
		}
	}
}

// ExecContext is as that of [sql.Tx].
func (t *transaction) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	s, err := t.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args...)
}

// QueryContext is as that of [sql.Tx].
func (t *transaction) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := t.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// QueryRowContext is as that of [sql.Tx].
func (t *transaction) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s, err := t.prepared(ctx, query)
	if err != nil {
		return t.Tx.QueryRowContext(ctx, query, args...) // for the error
	}
	return s.QueryRowContext(ctx, args...)
}
