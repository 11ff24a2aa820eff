package store

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// read implements database.
func (p *Postgres) read(ctx context.Context, doing string, f func(row) error, query string, args ...any) error {
	who, pool := readerOf(ctx), p.aside
	switch {
	case who.vital:
		pool = p.vital
	case who.asked:
		pool = p.asked
	}
	leave, err := who.turn(ctx, p.asking)
	if err != nil {
		return said(doing, err)
	}
	defer leave()
	return p.persist(ctx, doing, p.soon, func(ctx context.Context) error {
		rows, err := pool.Query(ctx, query, storable(args)...)
		if err != nil {
			return err
		}
		called := false
		err = drainPostgres(rows, func(r row) error {
			called = true
			return f(r)
		})
		if err != nil && called {
			return finalError{err}
		}
		return err
	})
}

// walkPage is how many rows are read at once.
const walkPage = 256

// walk implements database: a cursor, page by page, and no statement under way while f runs. What is over with the first
// page has given its connection back by then. Longer walks take theirs from a pool of their own, so they keep nobody else
// from the store; too many of them, one in the other, is an error in the end.
func (p *Postgres) walk(ctx context.Context, doing string, f func(row) error, query string, args ...any) error {
	var w *walk
	err := p.persist(ctx, doing, p.soon, func(within context.Context) error {
		var err error
		w, err = p.begin(within, query, storable(args))
		return err
	})
	if err != nil {
		return err
	}
	defer func() { w.end(ctx) }()
	for {
		if w.last {
			w.end(ctx)
		}
		for i := range w.rows {
			if err := ctx.Err(); err != nil {
				return said(doing, err)
			}
			if err := f(pageRow{w, i}); err != nil {
				return said(doing, p.explain(ctx, err))
			}
		}
		if w.last {
			return nil
		}
		within, cancel := context.WithTimeout(ctx, p.soon)
		err := w.fetch(within)
		cancel()
		if err != nil {
			return said(doing, p.explain(ctx, err))
		}
	}
}

// walk is one that runs, with the rows of a page in one piece of memory.
type walk struct {
	tx     pgx.Tx // nil: over
	cursor string
	types  *pgtype.Map

	fields []pgconn.FieldDescription
	plans  []pgtype.ScanPlan
	kinds  []reflect.Type // that the plans are for
	data   []byte
	ends   []int // of values in data; -1: NULL
	rows   int
	last   bool // there is no further page
}

// begin reads the first page.
func (p *Postgres) begin(ctx context.Context, query string, args []any) (*walk, error) {
	tx, err := p.walks.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	// What FETCH returns is prepared by its text, so each query has a cursor of its own name.
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(query))
	w := &walk{tx: tx, cursor: fmt.Sprintf("walk_%x", sum.Sum64()), types: pgtype.NewMap()}
	if _, err = tx.Exec(ctx, `DECLARE `+w.cursor+` NO SCROLL CURSOR FOR `+query, args...); err == nil {
		err = w.fetch(ctx)
	}
	if err != nil {
		w.end(ctx)
		return nil, err
	}
	return w, nil
}

// fetch reads the next page.
func (w *walk) fetch(ctx context.Context) error {
	rows, err := w.tx.Query(ctx, fmt.Sprintf(`FETCH %d FROM %s`, walkPage, w.cursor))
	if err != nil {
		return err
	}
	defer rows.Close()
	w.rows, w.data, w.ends = 0, w.data[:0], w.ends[:0]
	for rows.Next() {
		for _, v := range rows.RawValues() {
			w.data = append(w.data, v...)
			if v == nil {
				w.ends = append(w.ends, -1)
			} else {
				w.ends = append(w.ends, len(w.data))
			}
		}
		w.rows++
	}
	if w.fields == nil {
		w.fields = slices.Clone(rows.FieldDescriptions())
		w.plans, w.kinds = make([]pgtype.ScanPlan, len(w.fields)), make([]reflect.Type, len(w.fields))
	}
	w.last = w.rows < walkPage
	return rows.Err()
}

// end gives the connection back.
func (w *walk) end(ctx context.Context) {
	if w.tx != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		_ = w.tx.Rollback(ctx) // says nothing new: the transaction is over or its connection is broken
		w.tx = nil
	}
}

// pageRow is a row of the page that a walk has.
type pageRow struct {
	walk *walk
	i    int
}

// Scan implements row. It keeps how each column goes into its destination from row to row.
func (r pageRow) Scan(dest ...any) error {
	w := r.walk
	if len(dest) != len(w.fields) {
		return errors.New("scan: another number of columns")
	}
	lent(dest)
	first := r.i * len(w.fields)
	begin := 0
	for i := first - 1; i >= 0; i-- { // the end of what is before, but for NULLs
		if w.ends[i] >= 0 {
			begin = w.ends[i]
			break
		}
	}
	for c, d := range dest {
		if kind := reflect.TypeOf(d); w.kinds[c] != kind {
			w.plans[c] = w.types.PlanScan(w.fields[c].DataTypeOID, w.fields[c].Format, d)
			w.kinds[c] = kind
		}
		var value []byte
		if end := w.ends[first+c]; end >= 0 {
			value = w.data[begin:end:end]
			begin = end
		}
		if err := w.plans[c].Scan(value, d); err != nil {
			return fmt.Errorf("column %s: %w", w.fields[c].Name, err)
		}
	}
	return nil
}
