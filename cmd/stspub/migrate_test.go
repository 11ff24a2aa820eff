package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func TestMigrate(t *testing.T) {
	t.Parallel()
	server := labtest.StartPostgreSQL(t)
	database := server.Database(t)
	path := filepath.Join(t.TempDir(), "stspub.db")
	decl := store.Declaration{Owner: store.OwnerFile, MXSets: []store.MXSet{{Tenant: "default", Name: "eu"}}}
	for i := range 3 {
		decl.Domains = append(decl.Domains, store.Domain{Name: policygen.Name(fmt.Sprintf("d%d.example", i)), Tenant: "default", MXSet: "eu"})
	}
	s, err := store.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Declare(t.Context(), decl, time.Now()); err != nil {
		t.Fatal(err)
	}
	stspub := func(args ...string) (code int, out, said string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code = run(t.Context(), append([]string{"migrate"}, args...), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	want := func(args []string, wantCode int, wantOut, wantSaid string) {
		t.Helper()
		code, out, said := stspub(args...)
		if code != wantCode || !strings.Contains(out, wantOut) || !strings.Contains(said, wantSaid) || (wantOut == "") != (out == "") {
			t.Errorf("migrate %q: exit code %d\n%s%s\nwant %d, %q, %q", args, code, out, said, wantCode, wantOut, wantSaid)
		}
		if strings.Contains(out+said, "geheim") {
			t.Errorf("migrate %q shows the password: %s%s", args, out, said)
		}
	}
	want([]string{"sqlite:" + path, database}, 1, "", "in use by another process")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want([]string{"sqlite:" + path}, 2, "", "either TO or --config")
	want([]string{"sqlite:" + path, "mysql://geheim"}, 2, "", "the URL of a store is no URL of PostgreSQL")
	want([]string{"sqlite:" + path, "postgres://u:geheim@127.0.0.1/x"}, 2, "", "holds a password")
	want([]string{"sqlite:" + path + ".none", database}, 1, "", "there is no store at")
	want([]string{"sqlite:" + path, database}, 0, "3 domains and 0 certificates, with all that belongs to them, were copied and verified",
		"copy domains: 3 rows\n")
	want([]string{"sqlite:" + path, database}, 1, "", "name an empty database")

	back := filepath.Join(t.TempDir(), "back.db")
	want([]string{database, "sqlite:" + back, "--json"}, 0, `"domains":3`, "verify domains: 3 rows\n")
	if s, err = store.OpenSQLite(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if c, err := s.Declare(t.Context(), decl, time.Now()); err != nil || c != (store.Change{}) {
		t.Errorf("the same declaration after the way back: %+v, %v", c, err)
	}
}
