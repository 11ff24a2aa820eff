package publish_test

import (
	"context"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// waking is a store that says when the faulty domains of an account are woken.
type waking struct {
	store.Store
	woken func(tenant, account string)
}

func (s waking) WakeFaulty(ctx context.Context, tenant, account string, now time.Time) error {
	s.woken(tenant, account)
	return s.Store.WakeFaulty(ctx, tenant, account, now)
}

// TestAccountWakesBesideOthers replaces an account: while its many domains are woken, another tenant puts an MX set.
func TestAccountWakesBesideOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	w.t, w.ctx = t, t.Context()
	var rec *publish.Reconciler
	woken := ""
	rec, _ = w.newNode(t, "one", waking{openPostgres(t, labtest.StartPostgreSQL(t).Database(t)), func(tenant, account string) {
		woken = tenant + "/" + account
		put := make(chan error, 1)
		go func() {
			_, err := rec.PutMXSet(t.Context(), "small", own("eu", "mx.small.test"), "")
			put <- err
		}()
		select {
		case err := <-put:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("an MX set of another tenant waits for it")
		}
	}})
	if _, err := rec.Start(t.Context(), w.conf); err != nil {
		t.Fatal(err)
	}
	if _, err := rec.PutAccount(t.Context(), "big", config.Account{Name: "main", Provider: "test"}, ""); err != nil {
		t.Fatal(err)
	}
	if woken != "big/main" {
		t.Errorf("woken are the domains of %q", woken)
	}
}
