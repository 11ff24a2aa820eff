package store_test

import (
	"errors"
	"testing"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
)

// postgresForsaken has a process take a living one's id, and be killed.
func postgresForsaken(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	living, usurper := node(t, url), node(t, url)
	beat := func(s store.Store) error { return s.Beat(t.Context(), store.Node{ID: "one"}) }
	for _, s := range []store.Store{living, usurper} {
		if err := beat(s); err != nil {
			t.Fatal(err)
		}
	}
	c := connect(t, url)
	run(t, c, `UPDATE nodes SET heartbeat = heartbeat - 50000000`)
	if err := beat(living); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("Beat, 50 s after the other's: %v, want ErrLocked", err)
	}
	run(t, c, `UPDATE nodes SET heartbeat = heartbeat - 15000000`)
	if err := beat(living); err != nil {
		t.Fatalf("Beat, 65 s after the other's: %v", err)
	}
	if err := beat(usurper); !errors.Is(err, store.ErrLocked) {
		t.Errorf("Beat of the other: %v, want ErrLocked", err)
	}
}
