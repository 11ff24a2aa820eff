package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// named declares n domains.
func named(n int) store.Declaration {
	d := store.Declaration{Owner: store.OwnerFile, MXSets: []store.MXSet{{
		Tenant: "default", Name: "main", Policy: policygen.Policy{Mode: policygen.Testing, MaxAge: 86400, MX: []string{"mx.example.net"}},
	}}}
	for i := range n {
		d.Domains = append(d.Domains, store.Domain{
			Name: policygen.Name(fmt.Sprintf("d%03d.example", i)), Tenant: "default", MXSet: "main", Publish: store.PublishManual, Owner: store.OwnerFile,
		})
	}
	return d
}

// TestBackupBesideWriters: a copy that is made while others write is a store as it was at one moment, and with it the
// history of a domain and its state agree.
func TestBackupBesideWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "stspub.db")
	s := open(t, path)
	const domains = 50
	if _, err := s.Declare(t.Context(), named(domains), time.Now()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var writers errgroup.Group
	for i := range domains {
		writers.Go(func() error {
			name := policygen.Name(fmt.Sprintf("d%03d.example", i))
			for n := 0; ctx.Err() == nil; n++ {
				d, err := s.Domain(t.Context(), name)
				if err != nil {
					return err
				}
				d.State.Served = fmt.Sprintf("text %d of %s", n, name)
				if err := s.Save(t.Context(), &d, time.Now()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for n := range 3 {
		to := filepath.Join(dir, fmt.Sprintf("copy%d", n))
		if err := store.BackupSQLite(t.Context(), path, to); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(to)
		if err != nil || info.Mode() != 0o600 {
			t.Fatalf("the copy is %v, %v", info.Mode(), err)
		}
		seen := 0
		of := open(t, to)
		err = of.EachDomain(t.Context(), func(d store.Domain) error {
			seen++
			history, err := of.History(t.Context(), d.Name)
			if err != nil {
				return err
			}
			if d.State.Served != "" && (len(history) == 0 || history[len(history)-1].Text != d.State.Served) {
				return fmt.Errorf("%s is served %q, and its history does not end so", d.Name, d.State.Served)
			}
			return nil
		})
		if err != nil || seen != domains {
			t.Errorf("copy %d: %d domains, %v", n, seen, err)
		}
	}
	stop()
	if err := writers.Wait(); err != nil {
		t.Error(err)
	}
	if err := store.BackupSQLite(t.Context(), path, filepath.Join(dir, "copy0")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a copy in the place of another: %v", err)
	}
	missing := filepath.Join(dir, "missing.db")
	if err := store.BackupSQLite(t.Context(), missing, filepath.Join(dir, "copy9")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy of nothing: %v", err)
	}
	for _, left := range []string{missing, filepath.Join(dir, "copy9")} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s is left behind", left)
		}
	}
}

// TestRestore: the store is the copy again, whatever log the crash of a later one has left, and the later one is kept.
func TestRestore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "stspub.db"), filepath.Join(dir, "copy")
	s := open(t, path)
	declare := func(s *store.SQLite, n int) {
		t.Helper()
		if _, err := s.Declare(t.Context(), named(n), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	count := func(s *store.SQLite) (n int) {
		t.Helper()
		if err := s.EachDomain(t.Context(), func(d store.Domain) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	declare(s, 3)
	if err := store.BackupSQLite(t.Context(), path, copied); err != nil {
		t.Fatal(err)
	}
	declare(s, 5)
	if err := store.RestoreSQLite(t.Context(), path, copied); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("restored under a running process: %v", err)
	}
	log, err := os.ReadFile(path + "-wal")
	if err != nil || len(log) == 0 {
		t.Fatalf("there is no log to be in the way: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-wal", log, 0o600); err != nil { // as a crash leaves it
		t.Fatal(err)
	}
	damaged := filepath.Join(dir, "damaged")
	whole, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string][]byte{"cut off": whole[:len(whole)/2], "no database": []byte("tar"), "empty": nil} {
		if err := os.WriteFile(damaged, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := store.RestoreSQLite(t.Context(), path, damaged); err == nil {
			t.Fatalf("a copy that is %s is taken", what)
		}
	}
	if err := store.RestoreSQLite(t.Context(), path, copied); err != nil {
		t.Fatal(err)
	}
	if n := count(open(t, path)); n != 3 {
		t.Errorf("%d domains after the restore, want 3", n)
	}
	if n := count(open(t, path+".before")); n != 5 {
		t.Errorf("%d domains in what was there before, want 5", n)
	}
	other := filepath.Join(dir, "other.db")
	if err := store.RestoreSQLite(t.Context(), other, copied); err != nil {
		t.Fatalf("where no store is: %v", err)
	}
	if n := count(open(t, other)); n != 3 {
		t.Errorf("%d domains in the new place, want 3", n)
	}
}

// TestRestoreForAnotherUser: what root puts back can be opened by the user whose folder it is, as a service's own is.
func TestRestoreForAnotherUser(t *testing.T) {
	t.Parallel()
	dir, copied := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	other := filepath.Join(t.TempDir(), "other.db")
	if err := open(t, other).Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.BackupSQLite(t.Context(), other, copied); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // others can give nothing away
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "stspub.db")
	if err := store.RestoreSQLite(t.Context(), path, copied); err != nil {
		t.Fatal(err)
	}
	owner := func(path string) uint32 {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Uid
	}
	for _, made := range []string{path, path + ".lock"} {
		if got, want := owner(made), owner(dir); got != want {
			t.Errorf("%s belongs to %d, its folder to %d", made, got, want)
		}
	}
}

// TestRestoreKeepsOneBefore: a second restore does not overwrite what the first has put aside.
func TestRestoreKeepsOneBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "stspub.db"), filepath.Join(dir, "copy")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.BackupSQLite(t.Context(), path, copied); err != nil {
		t.Fatal(err)
	}
	if err := store.RestoreSQLite(t.Context(), path, copied); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path + ".before")
	if err != nil {
		t.Fatal(err)
	}
	if err := store.RestoreSQLite(t.Context(), path, copied); err == nil {
		t.Error("a second restore goes over the first")
	}
	if now, err := os.ReadFile(path + ".before"); err != nil || string(now) != string(before) {
		t.Errorf("what was there before is another file now: %v", err)
	}
}
