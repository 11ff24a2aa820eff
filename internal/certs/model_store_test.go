package certs_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// TestBooksAreLikeAStore: what the model of a store answers is what a real one does, over prunes and restarts.
func TestBooksAreLikeAStore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	open := func() *store.SQLite {
		t.Helper()
		s, err := store.OpenSQLite(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	books, real := newBooks(), open()
	begun := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	at := func(hours int) time.Time { return begun.Add(time.Duration(hours) * time.Hour) }

	// Both say the same of an append after so many entries of those that were made, 0: none, and of what is there then.
	seqs := map[certs.Store][]int64{books: {0}, real: {0}}
	appended := func(s certs.Store, after, hours int) string {
		e := store.JournalEntry{Authority: "lab", Name: fmt.Sprintf("n%d", hours), Domain: "d", Begun: at(hours), Exempt: hours%2 == 0}
		err := s.AppendJournal(t.Context(), seqs[s][after], &e)
		if err == nil {
			seqs[s] = append(seqs[s], e.Seq)
		} else if !errors.Is(err, store.ErrStale) {
			t.Fatal(err)
		}
		all, jerr := s.Journal(t.Context(), 0)
		if jerr != nil {
			t.Fatal(jerr)
		}
		var names []string
		for _, e := range all {
			names = append(names, fmt.Sprint(e.Name, slices.Index(seqs[s], e.Seq)))
		}
		return fmt.Sprint(err == nil, names)
	}
	same := func(after, hours int, want string) {
		t.Helper()
		model, real := appended(books, after, hours), appended(real, after, hours)
		if model != want || real != want {
			t.Errorf("append after entry %d at hour %d: the model says %s, the store %s, want %s", after, hours, model, real, want)
		}
	}
	prune := func(counted, exempt int) {
		t.Helper()
		for _, s := range []certs.Store{books, real} {
			if err := s.PruneJournal(t.Context(), at(counted), at(exempt), at(exempt)); err != nil {
				t.Fatal(err)
			}
		}
	}
	same(0, 1, "true [n11]")
	same(0, 2, "false [n11]")
	same(1, 2, "true [n11 n22]")
	same(2, 3, "true [n11 n22 n33]")
	prune(10, 10)
	same(0, 11, "true [n114]") // a restart has read nothing, and there is nothing
	same(3, 12, "false [n114]")
	prune(30, 30)
	if err := real.Close(); err != nil {
		t.Fatal(err)
	}
	last := seqs[real]
	real = open()
	defer real.Close()
	seqs[real] = last
	same(0, 31, "true [n315]")
	same(4, 32, "false [n315]")
	same(5, 32, "true [n315 n326]")
	prune(31, 40) // the exempt one goes alone
	same(5, 33, "true [n315 n337]")
}
