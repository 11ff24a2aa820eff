package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite is the embedded engine: one file, one process. The file and those that SQLite keeps beside it ("-wal", "-shm")
// hold private keys and belong to the user that runs stspub alone.
//
// Writes queue for a single connection, so they never meet each other as SQLITE_BUSY; reads go beside them and see the
// last commit. Every commit is synced to disk; small writes that come at the same time share one, see [group].
type SQLite struct {
	tables
	path    string
	writer  pool    // one connection
	readers pool    // for reads that end within their method
	streams *sql.DB // for EachDomain and EachCertificate
	asking  *places // of tenants' reads
	group   *group  // for the writes that come in numbers
	changed notice  // of writes
	close   func() error
}

var _ Store = (*SQLite)(nil)

// readConnections bounds the reads that run at the same time; more wait their turn.
const readConnections = 8

// OpenSQLite opens the store in the file at path, and makes it (mode 0600) if it is not there; the directory must exist
// and be writable. It brings the tables up to this version, and refuses a file that a newer version wrote.
//
// The store belongs to this process until Close: while another one has it open the error wraps [ErrLocked], which is
// decided by a lock on the file path+".lock". Domains that the last process had claimed are due again.
func OpenSQLite(ctx context.Context, path string) (*SQLite, error) {
	return OpenSealedSQLite(ctx, path, nil)
}

// OpenSealedSQLite is [OpenSQLite] for a store whose secrets (the keys of certificates, and all values) are sealed with
// the newest key of ring; nil: they are not. A store that holds what ring cannot open is refused, and not changed. What
// is not sealed with the newest key stays until [SQLite.Reseal].
func OpenSealedSQLite(ctx context.Context, path string, ring *Keyring) (*SQLite, error) {
	s, err := openSQLite(ctx, path, ring)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", path, err)
	}
	return s, nil
}

func openSQLite(ctx context.Context, path string, ring *Keyring) (*SQLite, error) {
	file, err := createFile(path)
	if err != nil {
		return nil, adviseFile(path, err)
	}
	lock, err := lockFile(file + ".lock")
	if err != nil {
		return nil, adviseFile(file, err)
	}
	if err := checkWritable(file); err != nil {
		return nil, adviseFile(file, errors.Join(err, lock.Close()))
	}
	s := &SQLite{path: file, asking: newPlaces(readsAtOnce)}
	s.init(s, ring)
	s.sole = true
	s.group = &group{store: s}
	s.close = sync.OnceValue(func() error {
		// The writer goes last: the last connection to a database tidies its log away, and a reader could not.
		return errors.Join(closeAll(s.readers.DB, s.streams, s.writer.DB), lock.Close())
	})
	if err := s.connect(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func closeAll(pools ...*sql.DB) error {
	var errs []error
	for _, p := range pools {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// connect opens the pools and brings the tables up to date.
func (s *SQLite) connect(ctx context.Context) error {
	var err error
	if s.writer.DB, err = openPool(s.path, "_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"+
		// What is deleted is overwritten, since there are private keys in it. The log gives back what a large
		// declaration took. It goes into the tables every 16 MB and not every 4: among many domains the pages of one
		// change are not those of the next, and what does change again is copied only once.
		"&_pragma=foreign_keys(1)&_pragma=secure_delete(1)&_pragma=journal_size_limit(67108864)&_pragma=wal_autocheckpoint(4000)", 1); err != nil {
		return err
	}
	steps, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return err
	}
	if err := s.migrate(ctx, steps); err != nil {
		return err
	}
	// Whoever had claims and orders is gone, for the lock is ours.
	if err := s.release(ctx, everybody); err != nil {
		return err
	}
	if s.readers.DB, err = openPool(s.path, "mode=ro&_pragma=cache_size(-512)", readConnections); err != nil {
		return err
	}
	s.streams, err = openPool(s.path, "mode=ro", 0)
	return err
}

// openPool returns a pool of at most size connections, 0 for any number.
func openPool(path, params string, size int) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: params + "&_pragma=busy_timeout(5000)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(max(size, 1))
	return db, nil
}

// Close gives the store back. Calls under way should have ended; a second Close does nothing.
func (s *SQLite) Close() error {
	if err := s.close(); err != nil {
		return fmt.Errorf("close store %q: %w", s.path, err)
	}
	return nil
}

// keyPing is the value that [SQLite.Ping] writes.
const keyPing = "store/ping"

// Ping implements [Store]. SQLite leaves out a write of what is there already, and would not notice that its disk is full.
func (s *SQLite) Ping(ctx context.Context) error {
	return s.setValue(ctx, "write to store", keyPing, []byte(rand.Text()))
}

// write implements database.
func (s *SQLite) write(ctx context.Context, doing string, f func(context.Context, transaction) error) error {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return said(doing, s.explain(ctx, err))
	}
	t := &sqliteTransaction{Tx: tx, pool: &s.writer, statements: make(map[string]*sql.Stmt)}
	err = f(ctx, t)
	if err == nil {
		err = t.keepVersions(ctx)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		_ = tx.Rollback() // says nothing new: the transaction is over or its connection is broken
		return said(doing, s.explain(ctx, err))
	}
	t.keep(ctx)
	if t.version > 0 {
		s.changed.tell()
	}
	return nil
}

// writeSoon implements database.
func (s *SQLite) writeSoon(ctx context.Context, doing string, f func(context.Context, transaction) error) error {
	return s.group.write(ctx, doing, f)
}

// read implements database.
func (s *SQLite) read(ctx context.Context, doing string, f func(row) error, query string, args ...any) error {
	leave, err := readerOf(ctx).turn(ctx, s.asking)
	if err != nil {
		return said(doing, err)
	}
	defer leave()
	return s.each(ctx, &s.readers, doing, f, query, args...)
}

// walk implements database. It holds a connection while f runs, and f may call the store: so walks take connections from a
// pool of their own without a bound, or a few at the same time would wait for each other for ever.
func (s *SQLite) walk(ctx context.Context, doing string, f func(row) error, query string, args ...any) error {
	return s.each(ctx, s.streams, doing, f, query, args...)
}

// querier is *sql.DB and *pool.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (s *SQLite) each(ctx context.Context, pool querier, doing string, f func(row) error, query string, args ...any) error {
	rows, err := pool.QueryContext(ctx, query, args...)
	if err == nil {
		err = drain(rows, f)
	}
	if err != nil {
		return said(doing, s.explain(ctx, err))
	}
	return nil
}

// overwritten implements database: what was overwritten is still in the log.
func (s *SQLite) overwritten(ctx context.Context) error {
	if _, err := s.writer.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		return said("empty the log", s.explain(ctx, err))
	}
	return nil
}

// explain says what to do about what SQLite reports, by its code.
func (s *SQLite) explain(ctx context.Context, err error) error {
	var e *sqlite.Error
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil: // rolled back because ctx ended
		return ctx.Err()
	case !errors.As(err, &e) && ctx.Err() != nil: // its statements may be closed by then
		return troublef("%w (%w)", ctx.Err(), err)
	case !errors.As(err, &e):
		return err
	}
	switch e.Code() & 0xff { // the rest of the code is detail
	case sqlite3.SQLITE_INTERRUPT:
		if ctx.Err() != nil {
			return ctx.Err()
		}
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return troublef("%w: end the program that writes to %q (%w)", ErrLocked, s.path, err)
	case sqlite3.SQLITE_NOTADB:
		return troublef("%q is no SQLite database: name another file, or restore it from a backup (%w)", s.path, err)
	case sqlite3.SQLITE_CORRUPT:
		return troublef("%q is damaged: restore it from a backup (%w)", s.path, err)
	case sqlite3.SQLITE_FULL:
		return troublef("no space left for %q: make room on its disk (%w)", s.path, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR:
		return troublef("%q or its directory does not take writes: look at its disk and permissions (%w)", s.path, err)
	}
	return err
}
