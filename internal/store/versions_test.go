package store_test

import (
	"database/sql"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
)

// TestAccountsFromBeforeVersions: accounts that are there when accounts get versions have one each.
func TestAccountsFromBeforeVersions(t *testing.T) {
	t.Parallel()
	before := []string{`ALTER TABLE accounts DROP COLUMN version`, `DELETE FROM migrations WHERE name = '0015_account_versions'`}
	path, url := filepath.Join(t.TempDir(), "stspub.db"), labtest.StartPostgreSQL(t).Database(t)
	for name, engine := range map[string]struct {
		open func() (store.Store, error)
		back func()
	}{
		"SQLite": {
			func() (store.Store, error) { return store.OpenSQLite(t.Context(), path) },
			func() {
				db, err := sql.Open("sqlite", path)
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				for _, query := range before {
					if _, err := db.ExecContext(t.Context(), query); err != nil {
						t.Fatal(err)
					}
				}
			},
		},
		"PostgreSQL": {
			func() (store.Store, error) { return store.OpenPostgres(t.Context(), url, nil) },
			func() {
				c := connect(t, url)
				for _, query := range before {
					run(t, c, query)
				}
			},
		},
	} {
		s, err := engine.open()
		if err != nil {
			t.Fatal(err)
		}
		for _, tenant := range []string{"a", "b"} {
			if err := s.PutAccount(t.Context(), store.Account{Tenant: tenant, Name: "main", Provider: "desec", Settings: []byte("{}")}, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		engine.back()
		if s, err = engine.open(); err != nil {
			t.Fatal(err)
		}
		all, err := s.Accounts(t.Context())
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err != nil || len(all) != 2 || all[0].Version == all[1].Version {
			t.Fatalf("%s: accounts are %+v, %v", name, all, err)
		}
		for _, a := range all {
			if string(a.Settings) != "{}" || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(a.Version) {
				t.Errorf("%s: %+v", name, a)
			}
		}
	}
}
