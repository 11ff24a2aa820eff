package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// pinging is a store that answers pings as it is told.
type pinging struct {
	store.Store

	answer chan error
}

func (p *pinging) Ping(ctx context.Context) error {
	select {
	case err := <-p.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// aloneOn is a node that has a store of its own.
func aloneOn(t *testing.T, st store.Store) *node {
	t.Helper()
	n := &node{
		d:  &daemon{store: st, o: Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))}},
		id: "alone", alone: true, pings: make(chan chan<- error),
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends by stop
		defer close(done)
		n.run(ctx)
	}()
	t.Cleanup(func() { stop(); <-done })
	return n
}

func openStore(t *testing.T) *store.SQLite {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// TestReadyAsTheStoreWasLast: a store that is busy is as it was, and one that is broken is not ready.
func TestReadyAsTheStoreWasLast(t *testing.T) {
	t.Parallel()
	st := &pinging{openStore(t), make(chan error)}
	n := aloneOn(t, st)
	busy := func(want error) {
		t.Helper()
		begun := time.Now()
		if err := n.ready(t.Context()); !errors.Is(err, want) || time.Since(begun) > 5*time.Second {
			t.Errorf("ready() = %v after %s while the store is busy, want %v", err, time.Since(begun), want)
		}
	}
	busy(nil)
	answer := func(err error) {
		go func() { // ends with the answer, or the test
			select {
			case st.answer <- err:
			case <-t.Context().Done():
			}
		}()
	}
	full := errors.New("no space left")
	answer(full)
	for n.ready(t.Context()) == nil {
		if t.Context().Err() != nil {
			t.Fatal("the error was not kept")
		}
	}
	busy(full)
	answer(nil)
	for n.ready(t.Context()) != nil {
		if t.Context().Err() != nil {
			t.Fatal("the good answer was not kept")
		}
	}
	n.leaving.Store(true)
	if err := n.serves(t.Context()); err == nil {
		t.Error("a node that is about to stop says that it serves")
	}
}

// TestReadyWhileMuchIsDeclared: the writer of SQLite is busy for seconds.
func TestReadyWhileMuchIsDeclared(t *testing.T) {
	t.Parallel()
	st := openStore(t)
	n := aloneOn(t, st)
	d := store.Declaration{Owner: store.OwnerFile, MXSets: []store.MXSet{{
		Tenant: store.DefaultTenant, Name: "eu", Owner: store.OwnerFile,
		Policy: policygen.Policy{Mode: policygen.Testing, MaxAge: 86400, MX: []string{"mx.example"}},
	}}}
	for i := range 100_000 {
		d.Domains = append(d.Domains, store.Domain{
			Name: policygen.Name(fmt.Sprintf("d%06d.example", i)), Tenant: store.DefaultTenant, MXSet: "eu", Publish: store.PublishManual,
		})
	}
	done := make(chan error, 1)
	begun := time.Now()
	go func() { // ends with the declaration
		_, err := st.Declare(t.Context(), d, time.Now())
		done <- err
	}()
	var worst time.Duration
	for asked := 0; ; asked++ {
		at := time.Now()
		balancer, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := n.ready(balancer); err != nil {
			t.Errorf("not ready after %s: %v", time.Since(begun), err)
		}
		cancel()
		worst = max(worst, time.Since(at))
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("declared within %s, asked %d times, the longest answer took %s", time.Since(begun), asked, worst)
			return
		default:
		}
	}
}

// TestReadyAmongSeveral goes by what the node's own rounds saw, and asks nobody.
func TestReadyAmongSeveral(t *testing.T) {
	t.Parallel()
	n := &node{d: &daemon{store: &pinging{}}, id: "one", seen: time.Now()} // its Ping never answers
	if err := n.ready(t.Context()); err != nil {
		t.Errorf("ready() = %v", err)
	}
	n.seen = time.Now().Add(-2 * lostAfter)
	if err := n.ready(t.Context()); err == nil {
		t.Error("a node that is cut off is ready")
	}
	if err := n.serves(t.Context()); err != nil {
		t.Errorf("a node that is cut off does not serve: %v", err)
	}
}
