package store_test

import (
	"path/filepath"
	"testing"

	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/store/storetest"
)

func open(t *testing.T, dir string) store.Store {
	t.Helper()
	s, err := store.OpenSQLite(t.Context(), filepath.Join(dir, "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, open)
}
