package store_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/store/storetest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T, dir string, keys *store.Keyring) (store.Store, error) {
		s, err := store.OpenSealedSQLite(t.Context(), filepath.Join(dir, "stspub.db"), keys)
		if err != nil {
			return nil, err
		}
		return s, nil
	})
}

// open opens the store at path. It is closed at the end of the test at the latest.
func open(t testing.TB, path string) *store.SQLite {
	t.Helper()
	s, err := store.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// raw opens the same file beside the store, as another program would.
func raw(t *testing.T, path string) *sql.Conn {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func execute(t *testing.T, c *sql.Conn, query string) {
	t.Helper()
	if _, err := c.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func number(t *testing.T, c *sql.Conn, query string) int {
	t.Helper()
	var n int
	if err := c.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// declaration has n domains in one MX set.
func declaration(n int) store.Declaration {
	d := store.Declaration{
		Owner: store.OwnerFile,
		MXSets: []store.MXSet{{
			Tenant: "default", Name: "eu",
			Policy: policygen.Policy{Mode: "enforce", MaxAge: 604800, MX: []string{"mx.example.net"}},
		}},
		Domains: make([]store.Domain, n),
	}
	for i := range d.Domains {
		d.Domains[i] = store.Domain{
			Name: policygen.Name(fmt.Sprintf("d%06d.example", i)), Tenant: "default", MXSet: "eu",
			Publish: store.PublishZone, Account: "main",
		}
	}
	return d
}

func declare(t testing.TB, s *store.SQLite, n int) {
	t.Helper()
	if _, err := s.Declare(t.Context(), declaration(n), time.Now()); err != nil {
		t.Fatal(err)
	}
}

func TestFilesBelongToTheirUserAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "stspub.db"))
	declare(t, s, 1)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode(); mode != 0o600 {
			t.Errorf("%s has mode %s, want -rw-------", f.Name(), mode)
		}
	}
	if got, want := strings.Join(names, " "), "stspub.db stspub.db-shm stspub.db-wal stspub.db.lock"; got != want {
		t.Errorf("files are %s, want %s", got, want)
	}
}

func TestStrangePath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "50%41 a?b#c&mode=ro.db")
	declare(t, open(t, path), 1)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(in(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("garbage.db", []byte(strings.Repeat("this is no database. ", 500)))
	write("file", nil)
	if err := os.Mkdir(in("dir.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(in("none/target.db"), in("dangling.db")); err != nil {
		t.Fatal(err)
	}
	execute(t, raw(t, in("other.db")), `CREATE TABLE recipes (name TEXT)`)
	if err := open(t, in("newer.db")).Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, raw(t, in("newer.db")), `INSERT INTO migrations (name, taken) VALUES ('0999_tenants', 1)`)

	for _, c := range []struct{ file, want string }{
		{"none/x.db", `open DIR/none/x.db: no such file or directory: create the missing directory, or set another [store] url`},
		{"file/x.db", `open DIR/file/x.db: not a directory: create the missing directory, or set another [store] url`},
		{"dir.db", `open DIR/dir.db: is a directory: name a file in it`},
		{"dangling.db", `lstat DIR/none: no such file or directory: create the missing directory, or set another [store] url`},
		{"garbage.db", `"DIR/garbage.db" is no SQLite database: name another file, or restore it from a backup ` +
			`(file is not a database (26))`},
		{"other.db", `the database of another program: set another [store] url`},
		{"newer.db", `written by a newer version of stspub, which took step "0999_tenants": ` +
			`run that version, or restore a backup from before it`},
	} {
		_, err := store.OpenSQLite(t.Context(), in(c.file))
		want := fmt.Sprintf("open store %q: ", in(c.file)) + strings.ReplaceAll(c.want, "DIR", dir)
		if err == nil || err.Error() != want {
			t.Errorf("OpenSQLite(%s):\n got %v\nwant %s", c.file, err, want)
		}
	}
	// A refused file is left alone, and not locked for ever.
	if n := number(t, raw(t, in("other.db")), `SELECT count(*) FROM sqlite_schema`); n != 1 {
		t.Errorf("another program's database has %d tables now, want its 1", n)
	}
	execute(t, raw(t, in("newer.db")), `DELETE FROM migrations WHERE name = '0999_tenants'`)
	open(t, in("newer.db"))
}

func TestDamagedFileIsAnErrorNotAGuess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	s := open(t, path)
	declare(t, s, 2000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	for i := 100 * page; i+page <= len(b); i += page { // the first pages hold the schema and the roots of the tables
		copy(b[i:], "\x00damaged")
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}

	s = open(t, path)
	seen := 0
	err = s.EachDomain(t.Context(), func(store.Domain) error { seen++; return nil })
	want := fmt.Sprintf("read domains: %q is damaged: restore it from a backup (", path)
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("EachDomain after %d domains: error is %v, want %s…", seen, err, want)
	}
	if _, err := s.Declare(t.Context(), declaration(2000), time.Now()); err == nil {
		t.Error("Declare compared with a damaged table")
	}
}

func TestAnotherProgramThatWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	s := open(t, path)
	declare(t, s, 1)
	other := raw(t, path)
	execute(t, other, `BEGIN IMMEDIATE`)
	err := s.SetValue(t.Context(), "test/a", nil) // waits for busy_timeout
	want := fmt.Sprintf("set value \"test/a\": in use by another process: end the program that writes to %q (", path)
	if !errors.Is(err, store.ErrLocked) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("SetValue: error is %v, want %s…", err, want)
	}
	if _, err := s.Domain(t.Context(), "d000000.example"); err != nil {
		t.Errorf("read beside a writer: %v", err)
	}
	execute(t, other, `COMMIT`)
	if err := s.SetValue(t.Context(), "test/a", nil); err != nil {
		t.Errorf("SetValue afterwards: %v", err)
	}
}

func TestUnchangedDeclarationWritesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	s := open(t, path)
	declare(t, s, 100)
	beside := raw(t, path)
	commits := func() int { return number(t, beside, `PRAGMA data_version`) } // changes with every commit that wrote
	before := commits()
	declare(t, s, 100)
	if got, err := s.Claim(t.Context(), time.Unix(0, 0), time.Hour, 10); err != nil || len(got) > 0 {
		t.Errorf("Claim() = %d domains, %v", len(got), err)
	}
	if commits() != before {
		t.Error("an unchanged declaration, or a claim of nothing, wrote to the file")
	}
	declare(t, s, 101)
	if commits() == before {
		t.Error("the test does not see writes")
	}
}

func TestStartReleasesClaims(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	s := open(t, path)
	declare(t, s, 3)
	now := time.Now()
	claimed, err := s.Claim(t.Context(), now, time.Hour, 2)
	if err != nil || len(claimed) != 2 {
		t.Fatalf("Claim() = %d domains, %v", len(claimed), err)
	}
	claimed[0].Due = now.Add(2 * time.Hour)
	if err := s.Save(t.Context(), &claimed[0], now); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	again, err := open(t, path).Claim(t.Context(), now, time.Hour, 9)
	if err != nil {
		t.Fatal(err)
	}
	var names []policygen.Name
	for _, d := range again {
		names = append(names, d.Name)
	}
	// The domain that was never claimed is the most overdue; the saved one is not due.
	if got, want := fmt.Sprint(names), "[d000002.example d000001.example]"; got != want {
		t.Errorf("claimed after the start: %s, want %s", got, want)
	}
}

// TestStreamsHoldOneRow walks 60 MB.
func TestStreamsHoldOneRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stspub.db")
	s := open(t, path)
	const rows, limit = 20_000, 8 << 20
	execute(t, raw(t, path), fmt.Sprintf(`INSERT INTO certificates (name, private_key, chain, not_before, not_after)
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		SELECT 'd' || i, zeroblob(140), CAST(x'8817' || zeroblob(2952) AS BLOB), 1, 2 FROM n`, rows))

	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, seen := heap(), uint64(0), 0
	err := s.EachCertificate(t.Context(), func(c store.Certificate) error {
		if seen++; seen%4000 == 0 {
			most = max(most, heap())
		}
		if len(c.Chain) != 1 || len(c.Chain[0]) != 2952 {
			return fmt.Errorf("certificate %s has another chain", c.Name)
		}
		return nil
	})
	if err != nil || seen != rows {
		t.Fatalf("saw %d certificates, %v", seen, err)
	}
	if most > before+limit {
		t.Errorf("the heap grew by %d bytes during the walk", most-before)
	}
}

// TestLockByAnyPath reaches one file by two names.
func TestLockByAnyPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "stspub.db"), filepath.Join(dir, "link.db")
	open(t, path)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenSQLite(t.Context(), link); !errors.Is(err, store.ErrLocked) {
		t.Errorf("OpenSQLite by a symbolic link: error is %v, want ErrLocked", err)
	}
	if _, err := os.Lstat(link + ".lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a second lock file: %v", err)
	}
}

// TestSealedFilesHoldNoSecret: neither the database nor its log, before and after resealing.
func TestSealedFilesHoldNoSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "stspub.db")
	key := bytes.Repeat([]byte("private-key-"), 12)
	fill := func(s *store.SQLite, name string) {
		t.Helper()
		err := errors.Join(
			s.SaveCertificate(t.Context(), store.Certificate{Name: name, Key: key, Chain: [][]byte{{1}}}),
			s.SetValue(t.Context(), "acme/"+name, key),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	found := func() (files []string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(content, key[:24]) {
				files = append(files, e.Name())
			}
		}
		return files
	}
	s := open(t, path)
	fill(s, "before")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := found(); len(got) == 0 {
		t.Fatal("the test does not find the key")
	}
	ring, err := store.NewKeyring(bytes.Repeat([]byte{1}, store.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	if s, err = store.OpenSealedSQLite(t.Context(), path, ring); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fill(s, "after")
	if done, err := s.Reseal(t.Context()); err != nil || done.Rows != 2 {
		t.Fatalf("Reseal() = %+v, %v, want the 2 from before", done, err)
	}
	if got := found(); len(got) > 0 {
		t.Errorf("the key is in %s", got)
	}
}

// TestPingWrites sees that a ping needs room on the disk, so that one that is full is noticed.
func TestPingWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stspub.db")
	s := open(t, path)
	defer s.Close()
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for range 3 {
		before := size()
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := size(); after <= before {
			t.Errorf("the log of the store has %d octets after a ping, and had %d", after, before)
		}
	}
}
