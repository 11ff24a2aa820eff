package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

func openTest(t testing.TB) *SQLite {
	t.Helper()
	s, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
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

// steps are migrations by name.
func steps(texts map[string]string) fs.FS {
	files := fstest.MapFS{}
	for name, text := range texts {
		files[name+".sql"] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	db, err := openPool(filepath.Join(t.TempDir(), "x.db"), "_txlock=immediate", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := new(SQLite)
	s.init(s, nil)
	s.writer.DB = db
	content := func() string {
		t.Helper()
		var tables, taken string
		if err := db.QueryRowContext(t.Context(), `SELECT
			(SELECT group_concat(name, ' ') FROM (SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name)),
			(SELECT group_concat(name, ' ') FROM (SELECT name FROM migrations ORDER BY name))`,
		).Scan(&tables, &taken); err != nil {
			t.Fatal(err)
		}
		return tables + "; " + taken
	}
	all := map[string]string{}
	add := func(name, text string) error {
		all[name] = text
		return s.migrate(t.Context(), steps(all))
	}
	check := func(want string) {
		t.Helper()
		if got := content(); got != want {
			t.Errorf("database is %q, want %q", got, want)
		}
	}

	if err := add("0001_one", "CREATE TABLE one (a); INSERT INTO one VALUES (1);"); err != nil {
		t.Fatal(err)
	}
	check("migrations one; 0001_one")
	if err := add("0002_two", "CREATE TABLE two (a);\nINSERT INTO two SELECT a + 1 FROM one;\n-- the end\n"); err != nil {
		t.Fatal(err)
	}
	check("migrations one two; 0001_one 0002_two")

	err = add("0003_bad", "CREATE TABLE three (a); DROP TABLE one; INSERT INTO nowhere VALUES (1);")
	if err == nil || !strings.HasPrefix(err.Error(), `take step "0003_bad": `) {
		t.Errorf("bad step: error is %v", err)
	}
	check("migrations one two; 0001_one 0002_two") // nothing of it

	delete(all, "0003_bad")
	delete(all, "0002_two")
	err = s.migrate(t.Context(), steps(all))
	if want := `written by a newer version of stspub, which took step "0002_two": ` +
		`run that version, or restore a backup from before it`; err == nil || err.Error() != want {
		t.Errorf("older program: error is %v, want %s", err, want)
	}
	check("migrations one two; 0001_one 0002_two")
	var n int
	if err := db.QueryRowContext(t.Context(), `SELECT (SELECT sum(a) FROM one) + (SELECT sum(a) FROM two)`).Scan(&n); err != nil || n != 3 {
		t.Errorf("steps ran %d times 1 + 2, %v", n, err)
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	s := openTest(t)
	for _, c := range []struct {
		pragma string
		want   string
	}{
		{"journal_mode", "wal"}, {"synchronous", "2"}, {"foreign_keys", "1"}, {"busy_timeout", "5000"}, {"secure_delete", "1"},
	} {
		var got string
		if err := s.writer.QueryRowContext(t.Context(), "PRAGMA "+c.pragma).Scan(&got); err != nil || got != c.want {
			t.Errorf("%s of the writer is %s, %v, want %s", c.pragma, got, err, c.want)
		}
	}
	for name, pool := range map[string]*sql.DB{"readers": s.readers.DB, "streams": s.streams} {
		_, err := pool.ExecContext(t.Context(), `DELETE FROM domains`)
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code() != sqlite3.SQLITE_READONLY {
			t.Errorf("a write by the %s: error is %v, want SQLITE_READONLY", name, err)
		}
	}
}

// TestPlans looks at the queries that run all the time on a million domains.
func TestPlans(t *testing.T) {
	t.Parallel()
	s := openTest(t)
	for _, c := range []struct {
		query, want string
		args        []any
	}{
		{queryClaim, "SEARCH domains USING INDEX domains_due (due<?)", []any{1, 1, ",a,"}},
		{queryClaimShared, "SEARCH domains USING INDEX domains_shared_due (due<?)", []any{1, 1, ",a,"}},
		{queryNextDue, "SCAN domains USING COVERING INDEX domains_due", nil},
		{queryNextDueBut, "SCAN domains USING INDEX domains_due", []any{",a,"}},
		{queryShared, "SEARCH domains USING INDEX domains_shared (tenant=? AND mxset=?)", []any{"default", "eu", "text"}},
		{queryRelease, "SCAN domains USING INDEX domains_claimed", []any{"*"}},
		// One shared record, and those attached to it.
		{queryDomain, "SEARCH domains USING INDEX sqlite_autoindex_domains_1 (name=?)", []any{"*.eu.s.default.a.example"}},
		{queryEachShared, "SEARCH domains USING INDEX domains_mxset (tenant=? AND mxset=?)", []any{"default", "eu"}},
		{
			queryTurnPages, "SEARCH history USING INDEX history_name (name=?); LIST SUBQUERY 1; " +
				"SEARCH domains USING INDEX domains_mxset (tenant=? AND mxset=?)", []any{"default", "eu", 1, 1},
		},
		{queryNewPages, "SEARCH domains USING INDEX domains_mxset (tenant=? AND mxset=?)", []any{"default", "eu", 1, 1}},
		{queryTurnShared, "SEARCH domains USING INDEX domains_mxset (tenant=? AND mxset=?)", []any{"default", "eu", ".eu", "text", 1, 1, 1}},
		{
			queryServedSince, "COMPOUND QUERY; LEFT-MOST SUBQUERY; SEARCH domains USING INDEX domains_change (change>?); UNION ALL; " +
				"SCAN turns; SEARCH domains USING INDEX domains_change (change=?); UNION ALL; " +
				"SEARCH dropped_domains USING COVERING INDEX dropped_domains_change (change>?); CORRELATED SCALAR SUBQUERY 3; " +
				"SEARCH domains USING INDEX sqlite_autoindex_domains_1 (name=?)", []any{1},
		},
		// What the API declares.
		{queryUser, "SEARCH domains USING INDEX domains_mxset (tenant=? AND mxset=?)", []any{"default", "eu"}},
		{queryTouch, "SEARCH domains USING INDEX domains_mxset (tenant=? AND mxset=?)", []any{1, 1, "default", "eu"}},
		{querySharing, "SCAN CONSTANT ROW; SCALAR SUBQUERY 1; " +
			"SEARCH domains USING COVERING INDEX domains_sharing (tenant=? AND mxset=?)", []any{"default", "eu"}},
		{queryWakeFaulty, "SEARCH domains USING INDEX domains_account (tenant=? AND account=?)", []any{1, "default", "main"}},
		{queryCountDomains, "SEARCH domains USING COVERING INDEX domains_tenant (tenant=? AND name>?)", []any{"default", "api"}},
		{
			queryCounts, "COMPOUND QUERY; LEFT-MOST SUBQUERY; SCAN domains USING COVERING INDEX domains_step; UNION ALL; " +
				"SCAN domains USING COVERING INDEX domains_removed; UNION ALL; SCAN domains USING COVERING INDEX domains_fault", nil,
		},
		{queryFindings, "SCAN domains USING INDEX domains_findings", nil},
		{queryAccountUser, "SEARCH domains USING INDEX domains_account (tenant=? AND account=? AND removed=?)", []any{"default", "main"}},
		{queryAccountDrains, "SEARCH domains USING INDEX domains_account (tenant=? AND account=? AND removed>?)", []any{"default", "main"}},
		{queryClaimOf, "SEARCH claims USING PRIMARY KEY (tenant=? AND name=?)", []any{"default", "a.example"}},
		{queryClaimsOf, "SEARCH claims USING PRIMARY KEY (tenant=? AND name>?)", []any{"default", "a.example", 1}},
		{queryDueClaims, "SEARCH claims USING INDEX claims_due (due<?)", []any{1, 1, ",a,"}},
	} {
		if got := explained(t, s, c.query, c.args); got != c.want {
			t.Errorf("plan of %s\n got %s\nwant %s", c.query, got, c.want)
		}
	}
	// A page is found by its index, in order, without a sort.
	const byName = "(tenant=? AND name>?"
	for _, c := range []struct {
		filter DomainFilter
		want   string
	}{
		{DomainFilter{}, "domains_tenant " + byName + ")"},
		{DomainFilter{Prefix: "a"}, "domains_tenant " + byName + " AND name<?)"},
		{DomainFilter{Fault: true}, "domains_fault " + byName + ")"},
		{DomainFilter{Fault: true, Step: "live", MXSet: "eu"}, "domains_fault " + byName + ")"},
		{DomainFilter{Step: "live"}, "domains_step (tenant=? AND step=? AND name>?)"},
		{DomainFilter{Step: "dns", MXSet: "eu"}, "domains_step (tenant=? AND step=? AND name>?)"},
		{DomainFilter{MXSet: "eu"}, "domains_mxset (tenant=? AND mxset=? AND name>?)"},
		{DomainFilter{Step: "live", MXSet: "eu"}, "domains_mxset (tenant=? AND mxset=? AND name>?)"},
	} {
		query, args := queryDomainsOf("default", c.filter, "a.example", 100)
		if got, want := explained(t, s, query, args), "SEARCH domains USING INDEX "+c.want; got != want {
			t.Errorf("plan of %s\n got %s\nwant %s", query, got, want)
		}
	}
}

// explained is the plan of a query.
func explained(t *testing.T, s *SQLite, query string, args []any) string {
	t.Helper()
	rows, err := s.writer.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	// The number of a change, for the few that have it in another table.
	return strings.TrimSuffix(strings.Join(plan, "; "), "; CORRELATED SCALAR SUBQUERY 1; SEARCH turns USING INTEGER PRIMARY KEY (rowid=?)")
}

func TestNoSpaceLeft(t *testing.T) {
	t.Parallel()
	s := openTest(t)
	if err := s.SetValue(t.Context(), "test/a", []byte("old")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.writer.ExecContext(t.Context(), `PRAGMA max_page_count = 1`); err != nil { // the pages there are
		t.Fatal(err)
	}
	err := s.SetValue(t.Context(), "test/a", make([]byte, 100_000))
	want := fmt.Sprintf(`set value "test/a": no space left for %q: make room on its disk (`, s.path)
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("SetValue: error is %v, want %s…", err, want)
	}
	if v, err := s.Value(t.Context(), "test/a"); err != nil || string(v) != "old" {
		t.Errorf("value afterwards is %q, %v", v, err)
	}
	if _, err := s.writer.ExecContext(t.Context(), `PRAGMA max_page_count = 1000000`); err != nil {
		t.Fatal(err)
	}
	if err := s.SetValue(t.Context(), "test/a", make([]byte, 100_000)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestCancelledWrites cuts saves off at any point: what is written is whole, and the next save goes through.
func TestCancelledWrites(t *testing.T) {
	t.Parallel()
	s := openTest(t)
	d := declareOne(t, s)
	text := strings.Repeat("policy ", 20_000)
	cut, saved := 0, 0
	for i := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(1500))*time.Microsecond)
		d.State.Served = fmt.Sprint(i, text)
		d.State.Record, d.State.Intended = "r", fmt.Sprintf("id%d", i)
		err := s.Save(ctx, &d, time.Now())
		cancel()
		switch {
		case err == nil:
			saved++
		case errors.Is(err, context.DeadlineExceeded):
			cut++
		default:
			t.Fatalf("Save: %v", err)
		}
		if d, err = s.Domain(t.Context(), d.Name); err != nil {
			t.Fatal(err)
		}
	}
	if cut == 0 {
		t.Fatal("no save was cut off")
	}
	d.State.Served, d.State.Intended = "last", "last"
	if err := s.Save(t.Context(), &d, time.Now()); err != nil {
		t.Fatal(err)
	}
	history, err := s.History(t.Context(), d.Name)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := s.IDs(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(ids)
	if len(ids) != len(history) || len(ids) < saved+1 {
		t.Fatalf("%d policies and %d ids after %d saves", len(history), len(ids), saved+1)
	}
	for i := range ids {
		if ids[i].Text != history[i].Text {
			t.Errorf("policy %d and its id do not belong together", i)
		}
	}
}

// declareOne declares one domain.
func declareOne(t *testing.T, s *SQLite) Domain {
	t.Helper()
	if _, err := s.Declare(t.Context(), Declaration{
		Owner:   OwnerFile,
		MXSets:  []MXSet{{Tenant: "default", Name: "eu"}},
		Domains: []Domain{{Name: "a.example", Tenant: "default", MXSet: "eu"}},
	}, time.Now()); err != nil {
		t.Fatal(err)
	}
	d, err := s.Domain(t.Context(), "a.example")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestCopyIsVerified changes a copy behind its back.
func TestCopyIsVerified(t *testing.T) {
	t.Parallel()
	from, to := openTest(t), openTest(t)
	declareOne(t, from)
	c := &copier{&from.tables, &to.tables, func(string, int) {}}
	if err := Copy(t.Context(), from, to, c.tell); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ change, want string }{
		{`UPDATE domains SET due = due + 1`, "domains: the 1 rows are not those that were copied; does another program write to one of the stores?"},
		{`DELETE FROM domains`, "domains: 0 rows of 1 arrived"},
	} {
		if _, err := to.writer.ExecContext(t.Context(), tt.change); err != nil {
			t.Fatal(err)
		}
		domains := slices.IndexFunc(copiedTables(), func(c copiedTable) bool { return c.name == "domains" })
		if err := c.verify(t.Context(), copiedTables()[domains]); err == nil || err.Error() != tt.want {
			t.Errorf("%s: error is %v, want %s", tt.change, err, tt.want)
		}
	}
}

// TestCopyKnowsAllColumns compares what is copied with what there is.
func TestCopyKnowsAllColumns(t *testing.T) {
	t.Parallel()
	s := openTest(t)
	rest := map[string]bool{}
	rows, err := s.writer.QueryContext(t.Context(), `SELECT m.name || '.' || c.name FROM sqlite_schema AS m, pragma_table_info(m.name) AS c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'`)
	if err != nil {
		t.Fatal(err)
	}
	if err := drain(rows, func(r row) error {
		var name string
		err := r.Scan(&name)
		rest[name] = true
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, table := range copiedTables() {
		for _, column := range table.columns() {
			if !rest[table.name+"."+column] {
				t.Errorf("there is no %s.%s, or it is copied twice", table.name, column)
			}
			delete(rest, table.name+"."+column)
		}
	}
	// Claims end with a copy, and nodes stay where they are.
	for _, name := range []string{
		"domains.claimed", "domains.woken", "domains.holder", "journal.holder", "webhooks.holder", "webhooks.leased",
		"versions.last", "versions.dropped", "seals.id", "seals.proof",
		"migrations.name", "migrations.taken", "nodes.id", "nodes.holder", "nodes.address", "nodes.started", "nodes.heartbeat",
		"nodes.acknowledged", "nodes.deregistered", "nodes.keys",
	} {
		delete(rest, name)
	}
	if len(rest) > 0 {
		t.Errorf("these are not copied: %v", rest)
	}
}
