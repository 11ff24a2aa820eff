package webhook

import (
	"fmt"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stspub/stspub/internal/store"
)

// After a copy of the store is put back its numbers come a second time, for other events. These have other ids, for receivers
// drop what they have had.
func TestIDsAfterARestore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, backup := filepath.Join(dir, "stspub.db"), filepath.Join(dir, "copy.db")
	r := newReceiver(t, nil)
	url, roots := serve(t, r)
	open := func() *world {
		st, err := store.OpenSQLite(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		return newWorld(t, st, hasty(), func(c *Config) { c.Roots = roots })
	}
	w := open()
	w.put("", "panel", url, r)
	w.start()
	w.step("", "first.example", 1)
	r.await(1)
	w.until("", "panel", func(i Info) bool { return !i.Delivered.IsZero() && i.Waiting == 0 })
	w.must(store.BackupSQLite(t.Context(), db, backup))
	for i := range 5 {
		w.step("", "lost.example", i+1)
	}
	r.await(6)
	w.stop()
	w.must(w.store.Close())
	w.must(store.RestoreSQLite(t.Context(), db, backup))

	w = open()
	w.start()
	for i := range 5 {
		w.step("", "after.example", i+1)
	}
	r.await(11)
	w.stop()
	w.must(w.store.Close())
	all, _ := r.got()
	seqs := make(map[int64]map[string]bool)
	for _, c := range all {
		if seqs[c.Data.Seq] == nil {
			seqs[c.Data.Seq] = make(map[string]bool)
		}
		seqs[c.Data.Seq][c.Data.Name] = true
	}
	twice := 0
	for _, names := range seqs {
		if len(names) > 1 {
			twice++
		}
	}
	if twice == 0 {
		t.Errorf("no number came a second time, so this test shows nothing: %v", seqs)
	}
}

// A held event without a name is followed by those without one alone, and none from before the webhook is sent.
func TestHeldEventWithoutAName(t *testing.T) {
	t.Parallel()
	var heard atomic.Bool // of the tenant
	r := newReceiver(t, func(c call) (int, http.Header) {
		if c.Type == store.KindConfiguration && !heard.Load() {
			return 500, nil
		}
		heard.Store(true)
		return 204, nil
	})
	url, roots := serve(t, r)
	w := newWorld(t, openSQLite(t), hasty(), func(c *Config) { c.Roots = roots })
	for i := range 5 {
		w.happens(store.Event{Kind: store.KindConfiguration, Text: fmt.Sprint("before ", i)})
	}
	w.put("", "audit", url, r, store.KindConfiguration, store.KindTenantAdded)
	w.start()
	w.happens(store.Event{Kind: store.KindConfiguration, Text: "configuration"})
	w.happens(store.Event{Kind: store.KindTenantAdded, Name: "acme", Text: "tenant"})
	r.await(2)
	w.until("", "audit", func(i Info) bool { return i.State == StateGood && i.Waiting == 0 })
	w.happens(store.Event{Kind: store.KindConfiguration, Text: "another"})
	r.await(3)
	w.stop()
	all, _ := r.got()
	texts := make(map[string]int)
	for _, c := range all {
		texts[c.Data.Text]++
	}
	if len(texts) != 3 || texts["tenant"] != 1 || texts["another"] != 1 {
		t.Errorf("sent: %v, want the first event until it was taken, and the two others once", texts)
	}
}
