package daemon

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/webhook"
)

// TestOldEventsGo forgets what is too old, on one node of two, and leaves the rest.
func TestOldEventsGo(t *testing.T) {
	t.Parallel()
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, id := range []string{"a", "b"} {
		if err := st.Beat(t.Context(), store.Node{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	hooks := webhook.New(webhook.Config{Store: st, Log: slog.New(slog.DiscardHandler)})
	now := time.Now()
	var events []store.Event
	for i := range pruneStep*2 + 5 {
		events = append(events, store.Event{At: now.Add(-49 * time.Hour), Kind: "k", Name: fmt.Sprint(i), Text: "old"})
	}
	events = append(events, store.Event{At: now.Add(-47 * time.Hour), Kind: "k", Name: "young", Text: "young"})
	if err := st.AppendEvents(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	left := func() int {
		t.Helper()
		all, err := st.Events(t.Context(), store.EventFilter{All: true}, 0, len(events)*2)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for _, c := range []struct {
		id   string
		left int
	}{{"b", len(events)}, {"a", 1}, {"a", 1}} {
		d := &daemon{store: st, webhooks: hooks, conf: &config.Config{Store: config.Store{KeepEvents: 48 * time.Hour}}}
		d.node = &node{d: d, id: c.id}
		if err := d.pruneOld(t.Context()); err != nil || left() != c.left {
			t.Errorf("node %s: %v, %d events are left, want %d", c.id, err, left(), c.left)
		}
	}
	if err := st.Deregister(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	d := &daemon{store: st, webhooks: hooks, conf: &config.Config{}}
	d.node = &node{d: d, id: "b"}
	if err := d.pruneOld(t.Context()); err != nil || left() != 0 {
		t.Errorf("the node that is left: %v, %d events are left", err, left())
	}
}
