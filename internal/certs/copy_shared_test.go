package certs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
)

// nodeStore is the database as one node has it, and counts who reads everything.
type nodeStore struct {
	*store.Postgres
	walks int
}

func (n *nodeStore) EachCertificate(ctx context.Context, f func(store.Certificate) error) error {
	n.walks++
	return n.Postgres.EachCertificate(ctx, f)
}

func openNode(t *testing.T, url string) *nodeStore {
	t.Helper()
	p, err := store.OpenPostgres(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return &nodeStore{Postgres: p}
}

// TestCopyOfANode: a node on PostgreSQL starts from its own copy and what all nodes changed since. A copy promises nothing that
// was not taken in, and that of another database is none.
func TestCopyOfANode(t *testing.T) {
	t.Parallel()
	server := labtest.StartPostgreSQL(t)
	url := server.Database(t)
	st, other := openNode(t, url), openNode(t, url)
	all := authentic(t, 60)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range all[:40] {
		must(other.SaveCertificate(t.Context(), c))
	}
	path := filepath.Join(t.TempDir(), "copy")
	start := func(st *nodeStore, path string) *Keeper {
		t.Helper()
		k := New(Config{Store: st, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Copy: path, Shared: true})
		must(k.Load(t.Context()))
		return k
	}
	check := func(k *Keeper, st *nodeStore, want, walks int) {
		t.Helper()
		n := 0
		must(st.Postgres.EachCertificate(t.Context(), func(c store.Certificate) error {
			if n++; k.memory.leaf(c.Name) == nil {
				return errors.New("not in memory: " + c.Name)
			}
			return nil
		}))
		if n != want || k.memory.len() != want || st.walks != walks {
			t.Fatalf("%d certificates, %d in memory, all read %d times; want %d and %d times", n, k.memory.len(), st.walks, want, walks)
		}
	}
	last := func() int64 {
		t.Helper()
		n, err := other.LastChange(t.Context())
		must(err)
		return n
	}
	k := start(st, path)
	check(k, st, 40, 1)
	for _, c := range all[40:50] {
		must(other.SaveCertificate(t.Context(), c)) // and this node has not heard of it
	}
	must(k.copyUpTo(t.Context(), last()))
	k = start(st, path)
	check(k, st, 50, 1)

	// Some come and go between the copy and the next start, of which the node has heard or not.
	for _, c := range all[50:55] {
		must(other.SaveCertificate(t.Context(), c))
	}
	_, err := k.Refresh(t.Context(), k.refreshed.Load())
	must(err)
	must(other.DeleteCertificate(t.Context(), all[0].Name))
	must(k.copyUpTo(t.Context(), last()))
	must(other.DeleteCertificate(t.Context(), all[1].Name))
	for _, c := range all[55:] {
		must(other.SaveCertificate(t.Context(), c))
	}
	must(other.PruneDropped(t.Context()))
	k = start(st, path)
	check(k, st, 58, 1)

	// The database is put back from before the copy: it does not know its mark.
	older := openNode(t, server.Database(t))
	for _, c := range all[:10] {
		must(older.SaveCertificate(t.Context(), c))
	}
	must(k.copyUpTo(t.Context(), last()))
	check(start(older, path), older, 10, 1)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy of another database is still there: %v", err)
	}

	// Two nodes have copies of their own, and each is good.
	second := filepath.Join(t.TempDir(), "copy")
	must(start(st, path).copyUpTo(t.Context(), last()))
	two := start(other, second)
	must(two.copyUpTo(t.Context(), last()))
	st.walks, other.walks = 0, 0
	check(start(st, path), st, 58, 0)
	check(start(other, second), other, 58, 0)
}
