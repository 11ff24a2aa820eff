package store

import (
	"context"
	"database/sql"
	"sync"
)

// transaction prepares each query once, since preparing one takes longer than running it and the writes of a [group] are
// much the same.
type transaction struct {
	*sql.Tx

	statements map[string]*sql.Stmt // they end with the transaction
}

func (t *transaction) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s := t.statements[query]; s != nil {
		return s, nil
	}
	s, err := t.PrepareContext(ctx, query)
	if err == nil {
		t.statements[query] = s
	}
	return s, err
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

// readers is a pool that keeps its queries prepared. There are only so many queries.
type readers struct {
	*sql.DB

	mu         sync.Mutex // guards statements
	statements map[string]*sql.Stmt
}

func (r *readers) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	r.mu.Lock()
	s := r.statements[query]
	r.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := r.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if first := r.statements[query]; first != nil { // by somebody else meanwhile
		return first, s.Close()
	}
	r.statements[query] = s
	return s, nil
}

// QueryContext is as that of [sql.DB].
func (r *readers) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := r.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// QueryRowContext is as that of [sql.DB].
func (r *readers) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s, err := r.prepared(ctx, query)
	if err != nil {
		return r.DB.QueryRowContext(ctx, query, args...) // for the error
	}
	return s.QueryRowContext(ctx, args...)
}
