package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
)

// startNode opens the store of a database with keys, for a node that says so.
func startNode(t *testing.T, url, id string, ring *store.Keyring) *store.Postgres {
	t.Helper()
	s, err := store.OpenPostgres(t.Context(), url, ring)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Beat(t.Context(), store.Node{ID: id}); err != nil {
		t.Fatal(err)
	}
	return s
}

// stopNode ends a node as a stop does.
func stopNode(t *testing.T, s *store.Postgres, id string) {
	t.Helper()
	if err := s.Deregister(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// writeSecrets writes one secret of each kind.
func writeSecrets(t *testing.T, s store.Store, name string) {
	t.Helper()
	if err := s.PutAccount(t.Context(), store.Account{Tenant: "default", Name: name, Provider: "desec", Settings: []byte(name)}, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.SetValue(t.Context(), "acme/"+name, []byte(name)); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveCertificate(t.Context(), store.Certificate{Name: name, Key: []byte(name), Chain: [][]byte{[]byte("leaf")}}); err != nil {
		t.Fatal(err)
	}
}

// readSecrets reads what writeSecrets wrote.
func readSecrets(t *testing.T, s store.Store, names ...string) {
	t.Helper()
	accounts, err := s.Accounts(t.Context())
	if err != nil || len(accounts) != len(names) {
		t.Fatalf("Accounts() = %d, %v, want %d", len(accounts), err, len(names))
	}
	for _, a := range accounts {
		if a.Err != nil || string(a.Settings) != a.Name {
			t.Errorf("account %s: %q, %v", a.Name, a.Settings, a.Err)
		}
	}
	for _, name := range names {
		if v, err := s.Value(t.Context(), "acme/"+name); err != nil || string(v) != name {
			t.Errorf("Value(%s) = %q, %v", name, v, err)
		}
		if c, err := s.Certificate(t.Context(), name); err != nil || string(c.Key) != name {
			t.Errorf("Certificate(%s) = %q, %v", name, c.Key, err)
		}
	}
}

// postgresKeys changes the key of two nodes, one after the other, while both write.
func postgresKeys(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	old, fresh := keyring(t, 1).ID(), keyring(t, 2).ID()
	a, b := startNode(t, url, "a", keyring(t, 1)), startNode(t, url, "b", keyring(t, 1))
	writeSecrets(t, a, "first")

	// A new key at once is refused: the other node could not read what it seals.
	stopNode(t, a, "a")
	if s, err := store.OpenPostgres(t.Context(), url, keyring(t, 2, 1)); err == nil {
		_ = s.Close()
		t.Fatal("a node took a key that the other one lacks")
	} else if !strings.Contains(err.Error(), fresh) || !strings.Contains(err.Error(), `node "b"`) || !strings.Contains(err.Error(), "old_key_files") {
		t.Errorf("refused with %v", err)
	}

	// First all learn the new key, then they take it.
	a = startNode(t, url, "a", keyring(t, 1, 2))
	stopNode(t, b, "b")
	b = startNode(t, url, "b", keyring(t, 1, 2))
	stopNode(t, a, "a")
	a = startNode(t, url, "a", keyring(t, 2, 1))
	done, err := a.Reseal(t.Context())
	if err != nil || done.Rows != 3 || !slices.Equal(done.Used, []string{old}) {
		t.Errorf("Reseal() = %+v, %v; the other node seals with the old key still", done, err)
	}
	writeSecrets(t, b, "second")
	writeSecrets(t, a, "third")
	readSecrets(t, a, "first", "second", "third")
	readSecrets(t, b, "first", "second", "third")
	if s, err := store.OpenPostgres(t.Context(), url, keyring(t, 2)); err == nil {
		_ = s.Close()
		t.Error("the store opens without the old key while a node seals with it")
	}
	stopNode(t, b, "b")
	b = startNode(t, url, "b", keyring(t, 2, 1))
	done, err = b.Reseal(t.Context())
	if err != nil || done.Rows != 3 || !slices.Contains(done.Dropped, old) || len(done.Used) > 0 {
		t.Errorf("Reseal() = %+v, %v; nobody uses the old key any more", done, err)
	}
	stopNode(t, a, "a")
	stopNode(t, b, "b")
	readSecrets(t, startNode(t, url, "a", keyring(t, 2)), "first", "second", "third")
}

// postgresLateSeal has somebody write with an old key that was dropped: the store knows of it again.
func postgresLateSeal(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	late, err := store.OpenPostgres(t.Context(), url, keyring(t, 1)) // it is no node, so nobody knows of it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Close() })
	a := startNode(t, url, "a", keyring(t, 2, 1))
	done, err := a.Reseal(t.Context())
	if err != nil || len(done.Dropped) == 0 {
		t.Fatalf("Reseal() = %+v, %v", done, err)
	}
	writeSecrets(t, late, "late")
	if s, err := store.OpenPostgres(t.Context(), url, keyring(t, 2)); err == nil {
		_ = s.Close()
		t.Error("the store opens for somebody who cannot read all of it")
	}
	if done, err := a.Reseal(t.Context()); err != nil || done.Rows != 3 {
		t.Errorf("Reseal() = %+v, %v, want the 3 that came late", done, err)
	}
	readSecrets(t, a, "late")
	stopNode(t, a, "a")
	readSecrets(t, startNode(t, url, "a", keyring(t, 2)), "late")
}

// postgresDamagedAccount is no reason to be without the others.
func postgresDamagedAccount(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	a := startNode(t, url, "a", keyring(t, 1))
	for _, tenant := range []string{"bad", "good"} {
		if err := a.PutAccount(t.Context(), store.Account{Tenant: tenant, Name: "main", Provider: "desec", Settings: []byte("{}")}, ""); err != nil {
			t.Fatal(err)
		}
	}
	run(t, connect(t, url), `UPDATE accounts SET settings = 'damaged' WHERE tenant = 'bad'`)
	got, err := a.Accounts(t.Context())
	if err != nil || len(got) != 2 || got[0].Err == nil || got[0].Settings != nil || got[1].Err != nil || string(got[1].Settings) != "{}" {
		t.Errorf("Accounts() = %+v, %v", got, err)
	}
	stopNode(t, a, "a")
	b := startNode(t, url, "b", keyring(t, 2, 1))
	if done, err := b.Reseal(t.Context()); err != nil || done.Rows != 1 || done.Damaged != 1 || len(done.Used) > 0 {
		t.Errorf("Reseal() = %+v, %v", done, err)
	}
}

// postgresOldNodes are those that do not run: nobody waits for their keys.
func postgresOldNodes(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	a := startNode(t, url, "a", keyring(t, 1))
	if err := a.Close(); err != nil { // killed, it did not deregister
		t.Fatal(err)
	}
	if s, err := store.OpenPostgres(t.Context(), url, keyring(t, 2, 1)); err == nil {
		_ = s.Close()
		t.Error("a node that was heard of just now does not count")
	}
	run(t, connect(t, url), `UPDATE nodes SET heartbeat = heartbeat - $1`, 2*time.Minute.Microseconds())
	startNode(t, url, "a", keyring(t, 2, 1))
}
