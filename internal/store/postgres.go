package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Postgres is the engine for several nodes: PostgreSQL 13 or newer. Any number of processes may have the same database
// open. It holds private keys and belongs to stspub alone.
//
// What a process has claimed is its own until its lease ends, it closes the store, or [Store.Beat] or [Store.Deregister]
// says that it is gone. A transaction that the database gives up for the sake of others, or that is cut off before its
// commit, is made again. One that is cut off in its commit is an error that wraps [ErrUnsure].
type Postgres struct {
	tables
	pool     *pgxpool.Pool // for writes, which may wait for each other
	vital    *pgxpool.Pool // for heartbeats and log-ins, which wait for nobody
	aside    *pgxpool.Pool // for reads that end within their method
	asked    *pgxpool.Pool // for those of requests
	asking   *places       // of tenants' requests, before they take a connection
	walks    *pgxpool.Pool // for EachDomain and the like; see walk
	where    string        // for errors
	soon     time.Duration // limit of what is small
	queue    *queue
	versions versions
	ear      ear
	closed   atomic.Bool
	close    func() error
}

var _ Store = (*Postgres)(nil)

// Limits of what waits for the database. Those of the server come first where it can tell; ours are for when it, or the
// way to it, is silent.
const (
	dialLimit      = 10 * time.Second
	silenceLimit   = 20 * time.Second // of a connection with something under way
	statementLimit = 30 * time.Second
	soonLimit      = 45 * time.Second // a small transaction, or a page of a walk
	idleLimit      = 10 * time.Second // of a transaction between two statements: whoever began it is cut off, and has locks
	longIdle       = time.Minute      // the same of one that writes a lot
	walkLimit      = time.Hour        // the same while the caller of a walk looks at a page
	longStatement  = 10 * time.Minute
	longLimit      = 30 * time.Minute // a transaction that may write everything
	closeLimit     = 5 * time.Second
)

// Connections of a process. The server allows 100 in all, unless it is told otherwise.
const (
	poolSize  = 16 // half of it is for writes
	walksSize = 12
)

// OpenPostgres opens the store in the database that an URL names, "postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…", and
// makes its tables if there are none. They are brought up to this version, while other processes that start wait; a
// database that a newer version wrote is refused, and so is one that ring cannot open, as by [OpenSealedSQLite]. An error
// does not show the password.
//
// Beside what libpq knows, "pool_max_conns" in the URL bounds the connections for everything but long walks; default 16,
// at least 4.
func OpenPostgres(ctx context.Context, url string, ring *Keyring) (*Postgres, error) {
	return openPostgres(ctx, url, ring, soonLimit)
}

func openPostgres(ctx context.Context, address string, ring *Keyring, soon time.Duration) (*Postgres, error) {
	conf, err := pgxpool.ParseConfig(address)
	if err != nil {
		// The cause may hold the password.
		return nil, errors.New("open store: the [store] url of PostgreSQL is not understood: " +
			`write "postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full", with %XX for what is special in a name`)
	}
	p := &Postgres{where: shown(conf.ConnConfig), soon: soon, queue: newQueue(), asking: newPlaces(readsAtOnce), ear: ear{slot: make(chan struct{}, 1)}}
	p.init(p, ring)
	configure(conf)
	if !strings.Contains(address, "pool_max_conns") {
		conf.MaxConns = poolSize
	}
	p.ear.conf = conf.ConnConfig.Copy()
	if err := p.connect(ctx, conf); err != nil {
		return nil, fmt.Errorf("open store %q: %w", p.where, err)
	}
	return p, nil
}

// shown is what errors call the database.
func shown(c *pgx.ConnConfig) string {
	u := url.URL{Scheme: "postgres", Host: c.Host, Path: "/" + c.Database}
	if !strings.HasPrefix(c.Host, "/") {
		u.Host = net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	}
	return u.String()
}

// configure sets what the URL leaves open.
func configure(conf *pgxpool.Config) {
	c := conf.ConnConfig
	for key, value := range map[string]string{
		"application_name":                    "stspub",
		"statement_timeout":                   milliseconds(statementLimit),
		"idle_in_transaction_session_timeout": milliseconds(idleLimit),
		// The server is to give up a node that is cut off, and its locks, as soon as the node gives up the server.
		"tcp_user_timeout":        milliseconds(silenceLimit),
		"tcp_keepalives_idle":     "10",
		"tcp_keepalives_interval": "5",
		"tcp_keepalives_count":    "2",
	} {
		if _, given := c.RuntimeParams[key]; !given {
			c.RuntimeParams[key] = value
		}
	}
	c.DialFunc = dialer().DialContext
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = dialLimit
	}
	if c.ValidateConnect == nil {
		// After a fail-over the old server may still answer, and take no writes.
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	conf.PingTimeout = dialLimit
	conf.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		// What is acknowledged has to survive; a stricter setting than this stays.
		_, err := c.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
		return err
	}
}

// milliseconds is a time as the server's settings have it.
func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// connect opens the pools and brings the tables up to date.
func (p *Postgres) connect(ctx context.Context, conf *pgxpool.Config) error {
	steps, err := fs.Sub(migrations, "migrations/postgres")
	if err != nil {
		return err
	}
	slow := conf.Copy()
	slow.MaxConns, slow.MinConns, slow.MinIdleConns, slow.MaxConnIdleTime = walksSize, 0, 0, time.Minute
	slow.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = milliseconds(walkLimit)
	quick, own, asked := conf.Copy(), conf.Copy(), conf.Copy()
	quick.MaxConns, own.MaxConns, asked.MaxConns = max(conf.MaxConns/8, 1), max(conf.MaxConns/5, 1), max(conf.MaxConns/5, 1)
	conf.MaxConns = max(conf.MaxConns-quick.MaxConns-own.MaxConns-asked.MaxConns, 1)
	for _, c := range []*pgxpool.Config{quick, own, asked, conf} {
		c.MinConns, c.MinIdleConns = min(c.MinConns, c.MaxConns), min(c.MinIdleConns, c.MaxConns)
	}
	for _, of := range []struct {
		pool **pgxpool.Pool
		conf *pgxpool.Config
	}{{&p.pool, conf}, {&p.vital, quick}, {&p.aside, own}, {&p.asked, asked}, {&p.walks, slow}} {
		if *of.pool, err = pgxpool.NewWithConfig(ctx, of.conf); err != nil {
			p.closePools()
			return err
		}
	}
	p.close = sync.OnceValue(p.shut)
	if err := p.migrate(ctx, steps); err != nil {
		p.closePools()
		return err
	}
	return nil
}

func (p *Postgres) pools() []*pgxpool.Pool {
	return []*pgxpool.Pool{p.pool, p.vital, p.aside, p.asked, p.walks}
}

// closePools closes those that are open.
func (p *Postgres) closePools() {
	for _, pool := range p.pools() {
		if pool != nil {
			pool.Close()
		}
	}
}

// Close gives the store back, and what was claimed. Calls under way should have ended; a second Close does nothing.
func (p *Postgres) Close() error { return p.close() }

func (p *Postgres) shut() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	err := p.release(ctx, p.holder)
	p.closed.Store(true)
	p.ear.close(ctx)
	p.closePools()
	if err != nil {
		return fmt.Errorf("close store %q: give back what was claimed, which is free when its lease ends: %w", p.where, err)
	}
	return nil
}

// write implements database.
func (p *Postgres) write(ctx context.Context, doing string, f func(context.Context, transaction) error) error {
	return p.transact(ctx, doing, longLimit, p.pool, func(ctx context.Context, tx transaction) error {
		if _, err := tx.exec(ctx, `SELECT set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $2, true)`,
			milliseconds(longStatement), milliseconds(longIdle)); err != nil {
			return err
		}
		return f(ctx, tx)
	})
}

// writeSoon implements database.
func (p *Postgres) writeSoon(ctx context.Context, doing string, f func(context.Context, transaction) error) error {
	return p.transact(ctx, doing, p.soon, p.pool, f)
}

// overwritten implements database: old rows go with the next vacuum.
func (*Postgres) overwritten(context.Context) error { return nil }

// transact runs f in a transaction within a limit, and again where that helps.
func (p *Postgres) transact(ctx context.Context, doing string, limit time.Duration, pool *pgxpool.Pool,
	f func(context.Context, transaction) error,
) error {
	return p.persist(ctx, doing, limit, func(ctx context.Context) error {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		t := postgresTransaction{conn: conn.Conn(), store: p}
		defer t.end(ctx)
		if err := f(ctx, &t); err != nil {
			return err
		}
		return t.commit(ctx)
	})
}

// tries is how often something is done at most.
const tries = 10

// persist does something within a limit, again while the database gives it up for the sake of others, and twice more on a
// new connection when that was lost.
func (p *Postgres) persist(ctx context.Context, doing string, limit time.Duration, do func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if p.closed.Load() {
		return said(doing, errClosed)
	}
	lost := 0
	for try := 1; ; try++ {
		err := do(within)
		if err == nil {
			return nil
		}
		again := within.Err() == nil && try < tries && !errors.Is(err, ErrUnsure)
		switch {
		case within.Err() == nil && errors.Is(err, errTurning): // however long that takes, and without a connection
			try = min(try, tries-2)
		case again && gaveUp(err):
		case again && isLost(err) && lost < 2:
			lost++
			for _, pool := range p.pools() {
				pool.Reset() // the others are likely no better
			}
		default:
			return said(doing, p.explain(ctx, err))
		}
		pause := time.NewTimer(rand.N(time.Duration(try) * 20 * time.Millisecond)) // those that met are not to meet again
		select {
		case <-within.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// versions are numbers that the database gave this process.
type versions struct {
	mu        sync.Mutex // guards next and end
	next, end int64
}

// versionBlock is how many that are at once: as the migrations have it.
const versionBlock = 1000

func (v *versions) take() (int64, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next == v.end {
		return 0, false
	}
	v.next++
	return v.next - 1, true
}

func (v *versions) drop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next, v.end = 0, 0
}

func (v *versions) fill(first int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next, v.end = first, first+versionBlock
}
