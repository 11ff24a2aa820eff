package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
)

// wire is the way to a server, on which things get lost.
type wire struct {
	addr   string
	silent atomic.Bool // nothing is forwarded any more, and nothing refused

	// silentAt are words of a client that are lost, with all that would come after them.
	silentAt atomic.Pointer[string]
	// cutBefore and cutAfter are words of a client at which its connection is cut: before the server reads them, or before
	// its answer comes back.
	cutBefore, cutAfter atomic.Pointer[string]

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

// startWire starts the way to a server.
func startWire(t *testing.T, port int) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: l.Addr().String()}
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				_ = client.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, client, server)
			w.mu.Unlock()
			mute := new(atomic.Bool)
			go w.forward(server, client, true, mute)
			go w.forward(client, server, false, mute)
		}
	}()
	return w
}

// url is that of a database by this way.
func (w *wire) url(direct string, port int) string {
	return strings.Replace(direct, fmt.Sprintf("127.0.0.1:%d", port), w.addr, 1)
}

// cut ends all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// forward copies until one of the two is closed. While the wire is silent it reads on, as a network acknowledges nothing
// and refuses nothing. Mute is shared with the other direction: the server's next answer is the end.
func (w *wire) forward(to, from net.Conn, up bool, mute *atomic.Bool) {
	defer to.Close()
	defer from.Close()
	says := func(words *atomic.Pointer[string], b []byte) bool {
		p := words.Load()
		return up && p != nil && bytes.Contains(b, []byte(*p))
	}
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		switch {
		case err != nil || says(&w.cutBefore, b[:n]) || !up && mute.Load():
			return
		case says(&w.silentAt, b[:n]):
			w.silent.Store(true)
			continue
		case w.silent.Load():
			continue
		case says(&w.cutAfter, b[:n]):
			mute.Store(true)
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// prepared are the words with which a client has a statement run: pgx has prepared it under a name made from its text.
func prepared(query string) string {
	sum := sha256.Sum256([]byte(query))
	return "\x00stmt_" + hex.EncodeToString(sum[:24]) + "\x00"
}

// postgresUnsure cuts a save off in its commit, before the server has it and after.
func postgresUnsure(t *testing.T, server *labtest.PostgreSQL) {
	direct := server.Database(t)
	w := startWire(t, server.Port)
	sure, s := node(t, direct), node(t, w.url(direct, server.Port))
	fill(t, s, 1)
	d, err := s.Domain(t.Context(), "d000000.example")
	if err != nil {
		t.Fatal(err)
	}
	commit := prepared("commit")
	for i, c := range []struct {
		when *atomic.Pointer[string]
		want string
	}{{&w.cutBefore, ""}, {&w.cutAfter, "written"}} {
		d.State.Reason = "written"
		c.when.Store(&commit)
		err := s.Save(t.Context(), &d, time.Now())
		c.when.Store(nil)
		if !errors.Is(err, store.ErrUnsure) || !strings.Contains(err.Error(), `save domain "d000000.example": not known whether it was written`) {
			t.Fatalf("cut %d: error is %v, want ErrUnsure", i, err)
		}
		now, err := sure.Domain(t.Context(), d.Name)
		if err != nil || now.State.Reason != c.want {
			t.Errorf("cut %d: the store has %q, %v, want %q", i, now.State.Reason, err, c.want)
		}
	}
	if err := s.Save(t.Context(), &d, time.Now()); !errors.Is(err, store.ErrStale) {
		t.Errorf("Save again: error is %v, want ErrStale, for it was written", err)
	}
}

// methods are one of each kind.
func methods(s store.Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"read":    func(ctx context.Context) error { _, err := s.Domain(ctx, "d000000.example"); return err },
		"write":   func(ctx context.Context) error { return s.SetValue(ctx, "test/a", nil) },
		"long":    func(ctx context.Context) error { return s.Wake(ctx, "", time.Now()) },
		"walk":    func(ctx context.Context) error { return s.EachDomain(ctx, func(store.Domain) error { return nil }) },
		"claim":   func(ctx context.Context) error { _, err := s.Claim(ctx, time.Now(), time.Hour, 1); return err },
		"wait":    func(ctx context.Context) error { return s.Wait(ctx, 1<<40) },
		"declare": func(ctx context.Context) error { _, err := s.Declare(ctx, declaration(2), time.Now()); return err },
	}
}

func postgresSilent(t *testing.T, server *labtest.PostgreSQL) {
	direct := server.Database(t)
	w := startWire(t, server.Port)
	s := node(t, w.url(direct, server.Port))
	fill(t, s, 1)
	const limit = time.Second
	for name, call := range methods(s) {
		if name != "wait" {
			if err := call(t.Context()); err != nil {
				t.Fatalf("%s before: %v", name, err)
			}
		}
	}
	w.silent.Store(true)
	for name, call := range methods(s) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		begun := time.Now()
		err := call(ctx)
		took := time.Since(begun)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || took > limit+3*time.Second {
			t.Errorf("%s: %v after %s, want the end of its context after %s", name, err, took, limit)
		}
	}
	w.silent.Store(false)
	for name, call := range methods(s) {
		if name != "wait" {
			if err := call(t.Context()); err != nil {
				t.Errorf("%s afterwards: %v", name, err)
			}
		}
	}
}

// postgresLimit has no context that ends.
func postgresLimit(t *testing.T, server *labtest.PostgreSQL) {
	direct := server.Database(t)
	w := startWire(t, server.Port)
	const limit = 2 * time.Second
	s, err := store.OpenPostgresWithin(t.Context(), w.url(direct, server.Port), limit)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1)
	w.silent.Store(true)
	for name, call := range methods(s) {
		if name == "long" || name == "declare" { // theirs is half an hour
			continue
		}
		begun := time.Now()
		err := call(t.Context())
		took := time.Since(begun)
		if err == nil || !strings.Contains(err.Error(), "does not answer") || took > limit+3*time.Second {
			t.Errorf("%s: %v after %s, want an error after %s", name, err, took, limit)
		}
	}
	w.silent.Store(false)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// postgresHeld has a node fall silent while it holds what all writers of certificates need.
func postgresHeld(t *testing.T, server *labtest.PostgreSQL) {
	direct := server.Database(t)
	w := startWire(t, server.Port)
	other, s := node(t, direct), node(t, w.url(direct, server.Port))
	words := "INSERT INTO certificates"
	w.silentAt.Store(&words)
	ctx, cancel := context.WithCancel(t.Context())
	saved := make(chan error)
	go func() { saved <- s.SaveCertificate(ctx, store.Certificate{Name: "a"}) }()
	beside := connect(t, direct)
	for held := false; !held; {
		if err := beside.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND state = 'idle in transaction')`).Scan(&held); err != nil {
			t.Fatal(err)
		}
		held = held && w.silent.Load()
	}
	begun := time.Now()
	if err := other.SaveCertificate(t.Context(), store.Certificate{Name: "b"}); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("another node waited for %s", took)
	}
	cancel()
	if err := <-saved; !errors.Is(err, context.Canceled) {
		t.Errorf("SaveCertificate of the silent node: %v", err)
	}
	w.silentAt.Store(nil)
	w.silent.Store(false)
	if err := s.SaveCertificate(t.Context(), store.Certificate{Name: "a"}); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// postgresPinged has a node fall silent in the middle of a ping, of which a load balancer asks for many. Nobody waits for it.
func postgresPinged(t *testing.T, server *labtest.PostgreSQL) {
	direct := server.Database(t)
	w := startWire(t, server.Port)
	other, s := node(t, direct), node(t, w.url(direct, server.Port))
	if err := s.Beat(t.Context(), store.Node{ID: "silent"}); err != nil {
		t.Fatal(err)
	}
	commit := prepared("commit")
	w.silentAt.Store(&commit)
	ctx, cancel := context.WithCancel(t.Context())
	pinged := make(chan error)
	go func() { pinged <- s.Ping(ctx) }()
	for !w.silent.Load() {
		runtime.Gosched()
	}
	begun := time.Now()
	if err := other.SaveCertificate(t.Context(), store.Certificate{Name: "b"}); err != nil {
		t.Error(err)
	}
	if err := other.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("another node waited for %s", took)
	}
	cancel()
	if err := <-pinged; !errors.Is(err, context.Canceled) {
		t.Errorf("Ping of the silent node: %v", err)
	}
	w.silentAt.Store(nil)
	w.silent.Store(false)
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// postgresLost cuts idle connections, and one while a transaction is under way: the caller does not notice.
func postgresLost(t *testing.T, server *labtest.PostgreSQL) {
	direct := server.Database(t)
	w := startWire(t, server.Port)
	s := node(t, w.url(direct, server.Port))
	fill(t, s, 1)
	for range 3 {
		w.cut()
		for name, call := range methods(s) {
			if name == "wait" {
				continue
			}
			if err := call(t.Context()); err != nil {
				t.Errorf("%s on lost connections: %v", name, err)
			}
		}
	}
	d, err := s.Domain(t.Context(), "d000000.example")
	if err != nil {
		t.Fatal(err)
	}
	beside := connect(t, direct)
	run(t, beside, `BEGIN`)
	run(t, beside, `SELECT 1 FROM domains FOR UPDATE`)
	saved := make(chan error)
	go func() { saved <- s.Save(t.Context(), &d, time.Now()) }()
	blocked(t, connect(t, direct))
	w.cut()
	run(t, beside, `COMMIT`)
	if err := <-saved; err != nil {
		t.Errorf("Save that was cut off before its commit: %v", err)
	}
}
