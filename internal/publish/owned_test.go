package publish_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
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
	if _, _, err := rec.PutAccount(t.Context(), "big", config.Account{Name: "main", Provider: "test"}, "", ""); err != nil {
		t.Fatal(err)
	}
	if woken != "big/main" {
		t.Errorf("woken are the domains of %q", woken)
	}
}

// reading is a store that counts how much of what the API declares is read of it, and may be put back.
type reading struct {
	store.Store
	all, one int
	back     int64 // by how many changes
}

func (s *reading) MXSets(ctx context.Context) ([]store.MXSet, error) {
	s.all++
	return s.Store.MXSets(ctx)
}

func (s *reading) Accounts(ctx context.Context) ([]store.Account, error) {
	s.all++
	return s.Store.Accounts(ctx)
}

func (s *reading) MXSet(ctx context.Context, tenant, name string) (store.MXSet, error) {
	s.one++
	return s.Store.MXSet(ctx, tenant, name)
}

func (s *reading) Account(ctx context.Context, tenant, name string) (store.Account, error) {
	s.one++
	return s.Store.Account(ctx, tenant, name)
}

func (s *reading) LastChange(ctx context.Context) (int64, error) {
	last, err := s.Store.LastChange(ctx)
	return last - s.back, err
}

// TestRefreshReadsWhatChanged has another process change MX sets and accounts: they are known here after a round, which
// reads no others.
func TestRefreshReadsWhatChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a.example")
		w.t, w.ctx = t, t.Context()
		other, err := store.OpenSQLite(t.Context(), w.path)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		st := &reading{Store: other}
		rec, _ := w.newNode(t, "two", st)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		put := func(name, mx string) {
			t.Helper()
			_, err := other.PutMXSet(t.Context(), store.MXSet{
				Tenant: "acme", Name: name, Owner: store.OwnerAPI, Policy: policygen.Policy{Mode: policygen.Testing, MaxAge: 86400, MX: []string{mx}},
			}, nil, time.Now())
			must(err)
		}
		account := func(name, provider string) {
			t.Helper()
			must(other.PutAccount(t.Context(), store.Account{Tenant: "acme", Name: name, Provider: provider, Settings: []byte("{}")}, ""))
		}
		known := func() (all []string) {
			for _, m := range rec.MXSets("acme") {
				all = append(all, m.Name+" "+m.MX[0])
			}
			for _, a := range rec.Accounts("acme") {
				all = append(all, a.Name+" "+a.Provider)
			}
			return all
		}
		for i := range 10 {
			put(fmt.Sprintf("s%d", i), "mx.example")
		}
		account("a", "test")
		_, err = rec.Start(t.Context(), w.conf)
		must(err)
		if got := known(); len(got) != 11 {
			t.Fatalf("known at the start are %q", got)
		}
		must(rec.RefreshOwned(t.Context())) // hears what the start itself declared
		st.all, st.one = 0, 0
		round := func(what string, one, all int, want ...string) {
			t.Helper()
			must(rec.RefreshOwned(t.Context()))
			if st.one != one || st.all != all {
				t.Errorf("%s: %d were read, and all %d times, want %d and %d", what, st.one, st.all, one, all)
			}
			if got := known(); len(want) > 0 && !slices.Equal(got, want) {
				t.Errorf("%s: known are %q, want %q", what, got, want)
			}
			st.one, st.all = 0, 0
		}
		round("nothing", 0, 0)
		must(other.AppendEvents(t.Context(), []store.Event{{Kind: store.KindDomainStep, Name: "a.example"}}))
		round("something else", 0, 0)
		for i := range 8 {
			must(other.DeleteMXSet(t.Context(), "acme", fmt.Sprintf("s%d", i), store.OwnerAPI, nil))
		}
		put("s8", "mx8.example")
		put("s8", "mx9.example")
		account("a", "other")
		account("b", "test")
		round("changes", 11, 0, "s8 mx9.example", "s9 mx.example", "a test", "b test")
		round("nothing again", 0, 0)
		must(other.DeleteAccount(t.Context(), "acme", "a", ""))
		round("a removal", 1, 0, "s8 mx9.example", "s9 mx.example", "b test")
		for i := range 150 { // more events than are read at once
			put("s8", "even.example")
			put("s8", "odd.example")
			must(other.AppendEvents(t.Context(), []store.Event{{Kind: store.KindDomainStep, Name: fmt.Sprint(i)}}))
		}
		put("s9", "last.example")
		round("many changes", 2, 0, "s8 odd.example", "s9 last.example", "b test")
		st.back = 1
		round("put back", 0, 2)
		st.back = 0
		time.Sleep(5 * time.Minute) // in the bubble
		round("later", 0, 2)
	})
}
