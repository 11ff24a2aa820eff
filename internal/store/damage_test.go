package store

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// damage changes a row behind the store's back.
func damage(t *testing.T, s *SQLite, query string, args ...any) {
	t.Helper()
	err := s.db.write(t.Context(), "damage", func(ctx context.Context, tx transaction) error {
		n, err := tx.exec(ctx, query, args...)
		if err == nil && n != 1 {
			t.Errorf("%d rows were damaged", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDamagedCertificatesStopNothing: the others are read, before and after everything is sealed with a new key, and what
// is obtained anew takes a damaged one's place.
func TestDamagedCertificatesStopNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	var s *SQLite
	open := func(keys ...byte) {
		t.Helper()
		var raw [][]byte
		for _, k := range keys {
			raw = append(raw, bytes.Repeat([]byte{k}, KeySize))
		}
		ring, err := NewKeyring(raw...)
		if err != nil {
			t.Fatal(err)
		}
		if s != nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if s, err = OpenSealedSQLite(t.Context(), path, ring); err != nil {
			t.Fatal(err)
		}
	}
	open(1)
	defer func() { s.Close() }()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if err := s.SaveCertificate(t.Context(), Certificate{Name: name, Key: []byte("key"), Chain: [][]byte{[]byte("leaf")}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetValue(t.Context(), "acme/a", []byte("value")); err != nil {
		t.Fatal(err)
	}
	damage(t, s, `UPDATE certificates SET private_key = $1 WHERE name = 'a'`, []byte("no key at all, that is"))
	damage(t, s, `UPDATE certificates SET chain = $1 WHERE name = 'c'`, []byte{0xff})
	damage(t, s, `UPDATE certificates SET sealed = 'no id' WHERE name = 'e'`)
	check := func(when string, bad ...string) {
		t.Helper()
		var good []string
		err := s.EachCertificate(t.Context(), func(c Certificate) error { good = append(good, c.Name); return nil })
		d, damaged := errors.AsType[*DamagedError](err)
		if !damaged {
			t.Fatalf("%s: EachCertificate: %v", when, err)
		}
		slices.Sort(d.Names)
		if slices.Sort(good); len(good)+len(d.Names) != 5 || !slices.Equal(d.Names, bad) {
			t.Errorf("%s: %q are read, %q are damaged: %v", when, good, d.Names, err)
		}
		for _, name := range bad {
			if _, err := s.Certificate(t.Context(), name); !errors.As(err, &d) || !slices.Equal(d.Names, []string{name}) {
				t.Errorf("%s: Certificate(%q): %v", when, name, err)
			}
		}
	}
	check("at first", "a", "c", "e")
	open(2, 1)
	check("with two keys", "a", "c", "e")
	// The chain is not sealed, so the key of c is there.
	if done, err := s.Reseal(t.Context()); done.Rows != 4 || done.Damaged != 2 || err != nil {
		t.Errorf("Reseal() = %+v, %v", done, err)
	}
	open(2)
	check("without the old key", "a", "c", "e")
	if err := s.SaveCertificate(t.Context(), Certificate{Name: "c", Key: []byte("key"), Chain: [][]byte{[]byte("leaf")}}); err != nil {
		t.Fatal(err)
	}
	check("when one was replaced", "a", "e")
}

// TestNewerKeyIsNoDamage: another process has sealed with a key that this one does not know.
func TestNewerKeyIsNoDamage(t *testing.T) {
	t.Parallel()
	s := openTest(t)
	if err := s.SaveCertificate(t.Context(), Certificate{Name: "a", Key: []byte("key"), Chain: [][]byte{[]byte("leaf")}}); err != nil {
		t.Fatal(err)
	}
	damage(t, s, `INSERT INTO seals (id, proof) VALUES ('00ff00ff', $1)`, []byte("proof"))
	damage(t, s, `UPDATE certificates SET sealed = '00ff00ff' WHERE name = 'a'`)
	err := s.EachCertificate(t.Context(), func(Certificate) error { return nil })
	if _, damaged := errors.AsType[*DamagedError](err); damaged || err == nil || !strings.Contains(err.Error(), "the key 00ff00ff, which is not here") {
		t.Errorf("EachCertificate: %v", err)
	}
	_, err = s.Certificate(t.Context(), "a")
	if _, damaged := errors.AsType[*DamagedError](err); damaged || err == nil {
		t.Errorf("Certificate: %v", err)
	}
}
