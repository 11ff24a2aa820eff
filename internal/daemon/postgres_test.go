package daemon

import (
	"strings"
	"testing"
	"time"

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
