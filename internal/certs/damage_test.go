package certs_test

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// TestDamagedCertificateIsOrderedAnew: a row of the store that cannot be read stops neither the start nor its own name.
func TestDamagedCertificateIsOrderedAnew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	s, err := store.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := &model{}
	m.answer = m.good
	for n := range 3 {
		c, err := m.good(t.Context(), host(n))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SaveCertificate(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE certificates SET chain = x'ff' WHERE name = ?", host(1)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	changed := make(chan string, 1)
	k := certs.New(certs.Config{
		Store: s, Authorities: one(m), Log: slog.New(slog.NewTextHandler(&said, nil)),
		OnChange: func(_ context.Context, name string) { changed <- name },
	})
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := said.String(); !strings.Contains(got, "its chain is cut off") || !strings.Contains(got, "domain="+host(1)) {
		t.Errorf("the log says %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	for n := range 3 {
		k.Want(host(n), true)
	}
	select {
	case name := <-changed:
		if s := k.Status(host(1)); name != host(1) || s.State != certs.StateValid || m.count() != 1 {
			t.Errorf("after %d orders, the last for %s: %+v", m.count(), name, s)
		}
	case <-ctx.Done():
		t.Errorf("it is not ordered: %+v", k.Status(host(1)))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
