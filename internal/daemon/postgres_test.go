package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stspub/stspub/internal/lab/labtest"
)

// TestPostgres runs on PostgreSQL, which goes away and comes back.
func TestPostgres(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := labtest.StartPostgreSQL(t)
	url := strings.Replace(server.Database(t), "stspub@", labtest.GuardedRole+"@", 1)
	w.file("postgres.password", labtest.GuardedWord+"\n")
	good := w.config(`url = "sqlite:stspub.db"`, `url = "`+url+"\"\npassword_file = \"postgres.password\"")
	w.file("stspub.toml", good)
	r := w.start(w.path("stspub.toml"))
	r.live(time.Time{})
	id := func() string {
		t.Helper()
		s, err := r.admin.Domain(t.Context(), zoned)
		if err != nil || s.ID == "" {
			t.Fatalf("id %q, %v", s.ID, err)
		}
		return s.ID
	}
	first := id()

	server.Stop()
	w.serves()
	server.Restart(t)
	r.live(time.Now())
	r.stop()

	w.file("stspub.toml", good+"[server\n") // the last accepted one is in the database
	r = w.start(w.path("stspub.toml"))
	w.serves()
	r.fault("configuration", instead)
	if got := id(); got != first {
		t.Errorf("id is %s, want that of the first run, %s", got, first)
	}
	r.stop()

	server.Stop()
	w.file("stspub.toml", good)
	got := w.refused()
	if !strings.Contains(got, "does not answer: look whether the server runs and can be reached") || strings.Contains(got, "correct") {
		t.Errorf("start without the database: %s", got)
	}
}

// TestStoreThatForgot: after a fail-over that lost what this node acknowledged, its number is that of another change. The
// node serves what the store has now.
func TestStoreThatForgot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url := labtest.StartPostgreSQL(t).Database(t)
	w.file("stspub.toml", w.config(`url = "sqlite:stspub.db"`, `url = "`+url+`"`))
	r := w.start(w.path("stspub.toml"))
	r.live(time.Time{})

	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	const other = "version: STSv1\nmode: testing\nmx: other.example\nmax_age: 86400\n"
	until(t, "a quiet moment, in which the store forgets", func() error {
		tag, err := db.Exec(t.Context(), `WITH quiet AS (SELECT last FROM versions, nodes WHERE acknowledged = last),
			node AS (UPDATE nodes SET acknowledged = acknowledged - 1 FROM quiet)
			UPDATE domains SET served = $2, change = last, due = due + 600000000 FROM quiet WHERE name = $1`, zoned, other)
		if err == nil && tag.RowsAffected() != 1 {
			err = errors.New("the node has not acknowledged all")
		}
		return err
	})
	until(t, "what the store has is served", func() error {
		if got := w.served(); got != other {
			return fmt.Errorf("served is %q", got)
		}
		return nil
	})
}
