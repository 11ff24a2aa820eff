package store_test

import (
	"sync"
	"testing"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/store/storetest"
)

func TestPostgresContract(t *testing.T) {
	t.Parallel()
	server := labtest.StartPostgreSQL(t)
	var mu sync.Mutex // guards databases
	databases := make(map[string]string)
	storetest.Run(t, func(t *testing.T, handle string, keys *store.Keyring) (store.Store, error) {
		mu.Lock()
		url, found := databases[handle]
		if !found {
			url = server.Database(t)
			databases[handle] = url
		}
		mu.Unlock()
		s, err := store.OpenPostgres(t.Context(), url, keys)
		if err != nil {
			return nil, err
		}
		return s, nil
	})
}
