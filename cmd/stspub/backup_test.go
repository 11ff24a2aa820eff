package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/store"
)

// TestBackupAndRestore: a copy can be had while the store is in use, and put back when it is not.
func TestBackupAndRestore(t *testing.T) {
	dir := t.TempDir()
	conf, copied := filepath.Join(dir, "stspub.toml"), filepath.Join(dir, "copy.db")
	write(t, conf, "[store]\nurl = \"sqlite:data.db\"\n")
	s, err := store.OpenSQLite(t.Context(), filepath.Join(dir, "data.db"))
	if err != nil {
		t.Fatal(err)
	}
	set := func(value string) {
		t.Helper()
		if err := s.SetValue(t.Context(), "publish/test", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	set("copied")
	if out, stderr, code := stspub(t, "backup", copied, "--config", conf); code != 0 || !strings.HasPrefix(out, "copied the store into "+copied+": ") {
		t.Fatalf("backup: exit code %d, %q, %q", code, out, stderr)
	}
	if _, stderr, code := stspub(t, "backup", copied, "--config", conf); code != 1 || !strings.Contains(stderr, "file exists") {
		t.Errorf("backup over another: exit code %d, %q", code, stderr)
	}
	set("later")
	if _, stderr, code := stspub(t, "restore", copied, "--config", conf); code != 1 || !strings.Contains(stderr, "in use by another process") {
		t.Errorf("restore while it is in use: exit code %d, %q", code, stderr)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, stderr, code := stspub(t, "restore", copied, "--config", conf); code != 0 || !strings.HasSuffix(out, "what was there before is data.db.before\n") {
		t.Fatalf("restore: exit code %d, %q, %q", code, out, stderr)
	}
	if s, err = store.OpenSQLite(t.Context(), filepath.Join(dir, "data.db")); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if value, err := s.Value(t.Context(), "publish/test"); err != nil || string(value) != "copied" {
		t.Errorf("after the restore the value is %q, %v", value, err)
	}
	write(t, conf, "[store]\nurl = \"postgres://stspub@db.example/stspub\"\n")
	for _, c := range []string{"backup", "restore"} {
		if _, stderr, code := stspub(t, c, copied+".2", "--config", conf); code != 1 || !strings.Contains(stderr, "pg_dump") {
			t.Errorf("%s of PostgreSQL: exit code %d, %q", c, code, stderr)
		}
	}
	if _, err := os.Stat(copied); err != nil {
		t.Errorf("the copy is gone: %v", err)
	}
}
