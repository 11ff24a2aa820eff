package daemon

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// TestStartWithStoreKey: a sealed store opens with its key alone, also where the configuration is broken, and a new key
// takes the place of the old one.
func TestStartWithStoreKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.path("stspub.toml")
	w.file("one.key", strings.Repeat("01", store.KeySize)+"\n")
	w.file("two.key", strings.Repeat("02", store.KeySize)+"\n")
	const url = `url = "sqlite:stspub.db"`
	first := w.config(url, url+"\nkey_file = \"one.key\"")

	r := w.start(path) // without a key at first
	r.live(time.Time{})
	r.stop()
	w.file("stspub.toml", first)
	r = w.start(path)
	w.serves()
	w.sealed(r, 1)

	w.file("stspub.toml", first+"[broken")
	r = w.start(path)
	w.serves()
	r.fault("configuration", "TOML syntax")
	r.stop()

	w.file("stspub.toml", w.config())
	if got := w.refused(); !strings.Contains(got, "it is sealed with the key ") || !strings.HasSuffix(got, "set [store] key_file to the file that holds that key") {
		t.Errorf("without the key: %q", got)
	}
	w.file("stspub.toml", w.config(url, url+"\nkey_file = \"two.key\""))
	if got := w.refused(); !strings.Contains(got, "it is sealed with the key ") || !strings.HasSuffix(got, "list the old one in old_key_files") {
		t.Errorf("with another key: %q", got)
	}
	w.file("stspub.toml", w.config(url, url+"\nkey_file = \"two.key\"\nold_key_files = [\"one.key\"]"))
	r = w.start(path)
	w.serves()
	w.sealed(r, 2)
	w.file("stspub.toml", w.config(url, url+"\nkey_file = \"two.key\""))
	begun := time.Now()
	r = w.start(path)
	w.serves()
	r.live(begun)
}

// sealed waits until the store of a run is sealed with a key of one byte alone, and ends the run.
func (w *world) sealed(r *run, key byte) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+w.path("stspub.db")+"?mode=ro")
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	until(w.t, "store sealed", func() error {
		var seals int
		if err := db.QueryRowContext(context.Background(), `SELECT count(*) FROM seals`).Scan(&seals); err != nil {
			return err
		}
		if seals != 1 {
			return fmt.Errorf("%d keys are in use", seals)
		}
		return nil
	})
	r.stop()
	ring, err := store.NewKeyring([]byte(strings.Repeat(string(rune(key)), store.KeySize)))
	if err != nil {
		w.t.Fatal(err)
	}
	st, err := store.OpenSealedSQLite(context.Background(), w.path("stspub.db"), ring)
	if err != nil {
		w.t.Fatal(err)
	}
	defer st.Close()
	if done, err := st.Reseal(context.Background()); err != nil || done.Rows != 0 {
		w.t.Errorf("%d rows were not sealed with the key, %v", done.Rows, err)
	}
}
