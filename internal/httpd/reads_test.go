package httpd

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
)

// TestSlowReadsOfATenant has a tenant ask for what takes long, on as many connections as it likes. The node's heartbeat,
// other tenants and log-ins do not wait for that.
func TestSlowReadsOfATenant(t *testing.T) {
	t.Parallel()
	url := labtest.StartPostgreSQL(t).Database(t)
	st, err := store.OpenPostgres(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := runAPIOn(t, "127.0.0.1:0", st)
	w.tenant(t, "loud")
	w.tenant(t, "quiet")
	loud, quiet := w.token(t, "loud", store.RoleRead, nil), w.token(t, "quiet", store.RoleRead, nil)
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	if _, err := db.Exec(t.Context(), `BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for range 12 {
		g.Go(func() error {
			w.send(t, loud, "GET", "/v1/events?kind=webhook.removed", "")
			return nil
		})
	}
	waiting := func() (n int) {
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for waiting() < 2 { // there is nothing to wait on but the server
		if t.Context().Err() != nil {
			t.Fatal("no read came to the lock")
		}
	}
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := st.Beat(ctx, store.Node{ID: "node"}); err != nil {
			t.Errorf("heartbeat: %v", err)
		}
		cancel()
		begun := time.Now()
		if got := w.send(t, quiet, "GET", "/v1/webhooks", ""); got.status != 200 || time.Since(begun) > 5*time.Second {
			t.Errorf("another tenant is answered %d after %v: %s", got.status, time.Since(begun), got.body)
		}
	}
	if n := waiting(); n != 2 {
		t.Errorf("%d reads of a tenant run at a time, want 2", n)
	}
	if _, err := db.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
