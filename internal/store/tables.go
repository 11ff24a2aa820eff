package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// tables is the [Store] on the tables that both engines have, in SQL that both understand: $1 and so on are arguments.
// Where they differ it has its database do it, so that nothing is decided twice.
type tables struct {
	db   database
	ring *Keyring
	// holder stands for this opening of the store among the claims and orders, at random.
	holder string
	sole   bool // no other process has the store open

	mu     sync.Mutex  // guards what follows
	node   string      // whom this process beats for; "": nobody yet
	acked  int64       // what that has acknowledged for certain
	former predecessor // who beat for it before
}

func (t *tables) init(db database, ring *Keyring) {
	t.db, t.ring, t.holder = db, ring, rand.Text()
}

// database is what each engine does in its own way. Doing says what for, as the begin of the error.
type database interface {
	// write runs f in a transaction that may take minutes. f may be called again, and then begins anew.
	write(ctx context.Context, doing string, f func(context.Context, transaction) error) error
	// writeSoon is write for what is small and comes in numbers. f must not wait for others.
	writeSoon(ctx context.Context, doing string, f func(context.Context, transaction) error) error
	// writeAside is writeSoon for who must not wait for other writes, since others go by how long it takes, and does not lock
	// what they lock.
	writeAside(ctx context.Context, doing string, f func(context.Context, transaction) error) error
	// queueUp returns when it is a caller's turn to change which domains there are, for a tenant or with "" for all of them,
	// which ends with leave.
	queueUp(ctx context.Context, tenant string) (leave func(), err error)
	// read calls f for each row of a query. f must not call the store.
	read(ctx context.Context, doing string, f func(row) error, query string, args ...any) error
	// walk is read where f may call the store, however long it takes: it shows the rows of one moment.
	walk(ctx context.Context, doing string, f func(row) error, query string, args ...any) error
	// overwritten is called when secrets were replaced, to have no old ones lie about.
	overwritten(ctx context.Context) error
	// explain says what to do about an error.
	explain(ctx context.Context, err error) error
}

// transaction is one that runs.
type transaction interface {
	// exec returns how many rows it changed.
	exec(ctx context.Context, query string, args ...any) (int64, error)
	// execMany runs one statement n times, with the arguments for each.
	execMany(ctx context.Context, query string, n int, args func(i int) []any) error
	// insert adds n rows to a table, in its fastest way, with the values of columns for each.
	insert(ctx context.Context, table string, columns []string, n int, values func(i int) []any) error
	// get scans the first row of a query; ErrNotFound: there is none.
	get(ctx context.Context, query string, args []any, dest ...any) error
	// query calls f for each row. f must not use the transaction.
	query(ctx context.Context, f func(row) error, query string, args ...any) error

	// locking returns a query that keeps the rows that it finds as they are, by a clause like "FOR UPDATE". An engine with
	// one writer does not need it.
	locking(query, clause string) string
	// lock has transactions wait for each other that lock the same thing: all of them, or with share only those that do
	// not share it.
	lock(ctx context.Context, thing lockable, name string, share bool) error
	// tryLock is lock with share for who must not wait, since he has a connection that others need: it says whether nobody has
	// the thing alone.
	tryLock(ctx context.Context, thing lockable, name string) (bool, error)
	// tables returns the names of all tables.
	tables(ctx context.Context) ([]string, error)
	// script runs statements without arguments.
	script(ctx context.Context, statements string) error
	// nextVersion is a number that no row had before.
	nextVersion(ctx context.Context) (int64, error)
	// nextChange is a version greater than all that it returned before, in whatever transaction: who has seen one has
	// seen all smaller ones. It may have other transactions wait for the end of this one, so it comes late.
	nextChange(ctx context.Context) (int64, error)
	// last is exec for the end of the transaction: it may run with the commit, behind everything that is not last itself.
	last(ctx context.Context, query string, args ...any) error
	// changeLast is nextChange for the end of the transaction. Number is set when it has committed; a statement that is last
	// and comes behind it has coalesce($n, (SELECT last FROM versions)), with what this returns.
	changeLast(ctx context.Context, number *int64) (arg any, err error)
	// insertLast is last for n rows of a table that get the next changes in their first column, in their order. Who waits
	// for a number so waits for a commit, and not for this process.
	insertLast(ctx context.Context, table string, columns []string, n int, values func(i int) []any) error
	// resume is called when rows were written with their numbers, to give none of them again.
	resume(ctx context.Context) error
	// now is the database's clock, in microseconds.
	now(ctx context.Context) (int64, error)
}

// lockable is what a transaction can lock beside rows.
type lockable int32

const (
	lockSchema      lockable = iota + 1 // the tables themselves
	lockDeclaration                     // which domains there are
	lockForeign                         // the foreign policies of a name
	lockAttached                        // who is attached to a shared record, and its text
	lockWebhooks                        // how many webhooks a tenant has
	lockSeals                           // which keys rows may be sealed with
)

// row is what a query finds.
type row interface{ Scan(dest ...any) error }

// exec is writeSoon for a single statement.
func (t *tables) exec(ctx context.Context, doing, query string, args ...any) error {
	return t.db.writeSoon(ctx, doing, func(ctx context.Context, tx transaction) error {
		_, err := tx.exec(ctx, query, args...)
		return err
	})
}

// collect returns all rows of a query.
func collect[T any](ctx context.Context, t *tables, doing string, scan func(row) (T, error), query string,
	args ...any,
) ([]T, error) {
	var all []T
	err := t.db.read(ctx, doing, func(r row) error {
		v, err := scan(r)
		all = append(all, v)
		return err
	}, query, args...)
	if err != nil {
		return nil, err
	}
	return all, nil
}

// one returns the row of a query, or ErrNotFound.
func one[T any](ctx context.Context, t *tables, doing string, scan func(row) (T, error), query string,
	args ...any,
) (T, error) {
	all, err := collect(ctx, t, doing, scan, query, args...)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s: %w", doing, ErrNotFound)
	}
	if err != nil {
		var none T
		return none, err
	}
	return all[0], nil
}

// said begins an error with what was done.
func said(doing string, err error) error {
	if doing == "" {
		return err
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// errStop ends a walk for the sake of f.
var errStop = errors.New("stopped")

// stream calls f for each row of a query, as of the moment it was called, and f may call the store. An error of f is
// returned as it is.
func stream[T any](ctx context.Context, t *tables, doing string, scan func(row) (T, error), f func(T) error,
	query string, args ...any,
) error {
	var own error
	err := t.db.walk(ctx, doing, func(r row) error {
		v, err := scan(r)
		if err != nil {
			return err
		}
		if own = f(v); own != nil {
			return errStop
		}
		return nil
	}, query, args...)
	if own != nil {
		return own
	}
	return err
}

// storableText puts U+FFFD in the place of what PostgreSQL does not take in a text, and somebody outside may send: NUL, and
// bytes that are no UTF-8.
func storableText(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// micros is a time as the tables have it.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// fromMicros is the time that micros was given, to the microsecond.
func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// stamp scans a time.
type stamp struct{ t *time.Time }

// Scan implements [sql.Scanner].
func (s stamp) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("time is a %T", v)
	}
	*s.t = fromMicros(n)
	return nil
}

// blob keeps nil from becoming NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
