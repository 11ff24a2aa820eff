package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// promptly is how long what waits for nobody may take on a busy machine.
const promptly = 5 * time.Second

// prompt fails the test when something takes longer.
func prompt(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), promptly)
	defer cancel()
	begun := time.Now()
	if err := f(ctx); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	t.Logf("%s took %s", what, time.Since(begun).Round(time.Millisecond))
}

// alive has a store do what others go by.
func alive(t *testing.T, s store.Store, token string) {
	t.Helper()
	prompt(t, "heartbeat", func(ctx context.Context) error { return s.Beat(ctx, store.Node{ID: "node"}) })
	prompt(t, "clock", func(ctx context.Context) error { _, err := s.Now(ctx); return err })
	prompt(t, "nodes", func(ctx context.Context) error { _, err := s.Nodes(ctx); return err })
	prompt(t, "changes", func(ctx context.Context) error { _, err := s.LastChange(ctx); return err })
	prompt(t, "accounts", func(ctx context.Context) error { _, err := s.Accounts(ctx); return err })
	prompt(t, "log-in", func(ctx context.Context) error {
		if _, err := s.Token(ctx, token); err != nil {
			return err
		}
		return s.UseToken(ctx, token, time.Now())
	})
}

// postgresCrowd has many requests of one tenant wait for the lock that a long declaration has.
func postgresCrowd(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	s := node(t, url)
	const tenants = 4
	for i := range tenants {
		name := fmt.Sprintf("t%d", i)
		if err := s.AddTenant(t.Context(), store.Tenant{Name: name, Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutMXSet(t.Context(), store.MXSet{
			Tenant: name, Name: "eu", Owner: store.OwnerAPI,
			Policy: policygen.Policy{Mode: policygen.Testing, MaxAge: 86400, MX: []string{"mx.example"}},
		}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddToken(t.Context(), store.Token{ID: "k", Role: store.RoleAdmin, Hash: []byte("hash"), Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1)
	c := connect(t, url)
	run(t, c, `SELECT pg_advisory_lock(1937011458, 0)`) // lockDeclaration
	waiting := func() (n int) {
		if err := c.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	put := func(tenant, name string) error {
		_, err := s.ApplyDomains(t.Context(), store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{{
			Domain: store.Domain{Name: policygen.Name(name), Tenant: tenant, MXSet: "eu", Publish: store.PublishManual},
		}}}, time.Now())
		return err
	}
	var g errgroup.Group
	for i := range 60 {
		g.Go(func() error { return put("t0", fmt.Sprintf("d%d.example", i)) })
	}
	for i := 1; i < tenants; i++ {
		g.Go(func() error { return put(fmt.Sprintf("t%d", i), fmt.Sprintf("of-t%d.example", i)) })
	}
	for waiting() < 3 { // there is nothing to wait on but the server
		if t.Context().Err() != nil {
			t.Fatal("nobody came to the lock")
		}
	}
	alive(t, s, "k")
	prompt(t, "save", func(ctx context.Context) error {
		d, err := s.Domain(ctx, "d000000.example")
		if err == nil {
			d.State.Reason = "saved"
			err = s.Save(ctx, &d, time.Now())
		}
		return err
	})
	if n := waiting(); n > 3 {
		t.Errorf("%d connections wait for the lock, want 3 at most", n)
	}
	run(t, c, `SELECT pg_advisory_unlock(1937011458, 0)`)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	for i := range tenants {
		want := 1
		if i == 0 {
			want = 60
		}
		if n, err := s.CountDomains(t.Context(), fmt.Sprintf("t%d", i), store.OwnerAPI); err != nil || n != want {
			t.Errorf("tenant t%d has %d domains, %v, want %d", i, n, err, want)
		}
	}
}

// postgresLongChange has the row held that all changes need, as a shared text of very many domains does, and more writes wait
// for it than there are connections.
func postgresLongChange(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	s := node(t, url)
	if err := s.AddToken(t.Context(), store.Token{ID: "k", Role: store.RoleAdmin, Hash: []byte("hash"), Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	c := connect(t, url)
	run(t, c, `BEGIN`)
	run(t, c, `UPDATE versions SET last = last`)
	var g errgroup.Group
	for i := range 20 {
		g.Go(func() error {
			return s.SaveCertificate(t.Context(), store.Certificate{Name: fmt.Sprint(i), Key: []byte("key"), Chain: [][]byte{[]byte("leaf")}})
		})
	}
	look := connect(t, url)
	for n := 0; n < 8; { // all connections for writes
		if err := look.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted`).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	alive(t, s, "k")
	run(t, c, `COMMIT`)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// postgresTurn has a shared text take its time, since a domain that it comes to is held, while passes of other attached
// domains end. Others change what they like, and it comes to all domains at once.
func postgresTurn(t *testing.T, server *labtest.PostgreSQL) {
	const attached = 20
	url := server.Database(t)
	a, b := node(t, url), node(t, url)
	wildcard := turning(t, a, attached)
	_, last := servedAfter(t, b, 0)
	c, look := connect(t, url), connect(t, url)
	run(t, c, `BEGIN`)
	run(t, c, `UPDATE domains SET reason = 'a write that takes a while' WHERE name = 'd0.example'`)
	var g errgroup.Group
	g.Go(func() error {
		wildcard.State.Served = "two"
		return a.Save(t.Context(), &wildcard, time.Now())
	})
	waiting := func(n int) {
		for got := 0; got < n; {
			if err := look.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted`).Scan(&got); err != nil {
				t.Fatal(err)
			}
		}
	}
	waiting(1)
	for i := range attached {
		g.Go(func() error {
			name := policygen.Name(fmt.Sprintf("d%d.example", i))
			d, err := b.Domain(t.Context(), name)
			if err == nil {
				d.State.Reason = "says the old text again"
				err = b.Save(t.Context(), &d, time.Now())
			}
			if !errors.Is(err, store.ErrStale) {
				return fmt.Errorf("save of %s with the old text: %w, want ErrStale", name, err)
			}
			return nil
		})
	}
	for _, s := range []*store.Postgres{a, b} {
		prompt(t, "save", func(ctx context.Context) error {
			d, err := s.Domain(ctx, "small.example")
			if err == nil {
				d.State.Step += "+"
				d.State.Served += "+"
				err = s.Save(ctx, &d, time.Now())
			}
			return err
		})
		prompt(t, "token", func(ctx context.Context) error {
			return s.AddToken(ctx, store.Token{ID: fmt.Sprintf("%p", s), Tenant: "small", Role: store.RoleAdmin, Hash: fmt.Append(nil, s), Created: time.Now()})
		})
	}
	if all, _ := servedAfter(t, b, last); len(all) != 1 || all["small.example"] != "++" {
		t.Errorf("served meanwhile is %q", all)
	}
	_, last = servedAfter(t, b, last)
	run(t, c, `COMMIT`)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	all, _ := servedAfter(t, b, last)
	if len(all) != attached {
		t.Errorf("%d domains have another text, want %d: %q", len(all), attached, all)
	}
	for name, text := range all {
		if d, err := b.Domain(t.Context(), name); err != nil || text != "two" || d.Change != wildcard.Change {
			t.Errorf("%s is served %q by change %d, %v, want %d", name, text, d.Change, err, wildcard.Change)
		}
	}
}

// turning makes a shared record of tenant big with n domains d0.example and so on that are attached, and small.example of
// tenant small.
func turning(t *testing.T, s *store.Postgres, n int) (wildcard store.Domain) {
	t.Helper()
	wildcard = store.Domain{Name: "*.eu.s.big.sts.example", Tenant: "big", MXSet: "eu"}
	for _, tenant := range []string{"big", "small"} {
		if err := s.AddTenant(t.Context(), store.Tenant{Name: tenant, Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutMXSet(t.Context(), store.MXSet{
			Tenant: tenant, Name: "eu", Owner: store.OwnerAPI,
			Policy: policygen.Policy{Mode: policygen.Testing, MaxAge: 86400, MX: []string{"mx.example"}},
		}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	batch := store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{{
		Domain: store.Domain{Name: "small.example", Tenant: "small", MXSet: "eu", Publish: store.PublishManual},
	}}}
	for i := range n {
		batch.Changes = append(batch.Changes, store.DomainChange{
			Domain: store.Domain{Name: policygen.Name(fmt.Sprintf("d%d.example", i)), Tenant: "big", MXSet: "eu", Publish: store.PublishShared},
			Shared: &wildcard,
		})
	}
	if _, err := s.ApplyDomains(t.Context(), batch, time.Now()); err != nil {
		t.Fatal(err)
	}
	serve := func(name policygen.Name, record string) store.Domain {
		d, err := s.Domain(t.Context(), name)
		if err == nil {
			d.State.Served, d.State.Record = "one", record
			err = s.Save(t.Context(), &d, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	name := wildcard.Name
	wildcard = serve(name, string(name))
	for i := range n {
		serve(policygen.Name(fmt.Sprintf("d%d.example", i)), fmt.Sprintf("h%d%s", i, name[1:]))
	}
	return wildcard
}

// servedAfter returns what is served anew after a change, and the number to ask with next.
func servedAfter(t *testing.T, s *store.Postgres, after int64) (map[policygen.Name]string, int64) {
	t.Helper()
	all := make(map[policygen.Name]string)
	next, err := s.ServedSince(t.Context(), after, func(name policygen.Name, text string) error {
		all[name] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, next
}

// postgresSlowReads has many requests of a tenant read what takes long. Neither this process nor another tenant waits for
// them, nor does a log-in for who changes its token.
func postgresSlowReads(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	s := node(t, url)
	if err := s.AddToken(t.Context(), store.Token{ID: "k", Role: store.RoleAdmin, Hash: []byte("hash"), Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	c, look := connect(t, url), connect(t, url)
	run(t, c, `BEGIN`)
	run(t, c, `LOCK TABLE events IN ACCESS EXCLUSIVE MODE`)
	run(t, c, `UPDATE tokens SET label = 'changes'`)
	waiting := func() (n int) {
		if err := look.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var g errgroup.Group
	loud, end := context.WithCancel(t.Context())
	for range 60 {
		g.Go(func() error {
			_, err := s.Events(store.WithReader(loud, "loud"), store.EventFilter{Tenant: "loud"}, 0, 10)
			return err
		})
	}
	for waiting() < 2 { // there is nothing to wait on but the server
		if t.Context().Err() != nil {
			t.Fatal("nobody came to the lock")
		}
	}
	for range 5 {
		alive(t, s, "k")
		prompt(t, "another tenant", func(ctx context.Context) error { _, err := s.Tenants(store.WithReader(ctx, "quiet")); return err })
		prompt(t, "the service", func(ctx context.Context) error { _, err := s.Tenants(store.WithReader(ctx, "")); return err })
	}
	if n := waiting(); n != 2 {
		t.Errorf("%d reads of a tenant run at a time, want 2", n)
	}
	end()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("reads of who is gone end with %v", err)
	}
	run(t, c, `COMMIT`)
	if n, err := s.Events(store.WithReader(t.Context(), "loud"), store.EventFilter{Tenant: "loud"}, 0, 10); err != nil || len(n) > 0 {
		t.Errorf("a read afterwards: %v, %v", n, err)
	}
}

// postgresOthersRow has the row of a tenant's domain held by a write. What another tenant asks about that name takes as long
// as about a name that nobody has: it neither waits nor writes.
func postgresOthersRow(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	s := node(t, url)
	fill(t, s, 1)
	if err := s.AddTenant(t.Context(), store.Tenant{Name: "other", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	c := connect(t, url)
	run(t, c, `BEGIN`)
	run(t, c, `UPDATE domains SET reason = 'a write that takes a while' WHERE name = 'd000000.example'`)
	prompt(t, "removal of another's domain", func(ctx context.Context) error {
		got, err := s.ApplyDomains(ctx, store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{{
			Remove: true, Domain: store.Domain{Name: "d000000.example", Tenant: "other"},
		}}}, time.Now())
		if err == nil && !errors.Is(got[0].Err, store.ErrNotFound) {
			t.Errorf("ApplyDomains() = %+v", got)
		}
		return err
	})
	run(t, c, `ROLLBACK`)
}

// postgresExpected has many change an MX set at once who all saw the same: one does.
func postgresExpected(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	nodes := []*store.Postgres{node(t, url), node(t, url)}
	m := store.MXSet{
		Tenant: "default", Name: "own", Owner: store.OwnerAPI,
		Policy: policygen.Policy{Mode: policygen.Testing, MaxAge: 86400, MX: []string{"mx.example"}},
	}
	if _, err := nodes[0].PutMXSet(t.Context(), m, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	account := store.Account{Tenant: "default", Name: "own", Provider: "desec", Settings: []byte("{}"), Version: "v1"}
	if err := nodes[0].PutAccount(t.Context(), account, ""); err != nil {
		t.Fatal(err)
	}
	tenant := store.Tenant{Name: "acme", Created: time.Unix(1795338000, 0)}
	if err := nodes[0].AddTenant(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(s *store.Postgres, i int) error{
		"mx set": func(s *store.Postgres, i int) error {
			next := m
			next.Policy.MaxAge += 1 + i
			_, err := s.PutMXSet(t.Context(), next, func(have *store.MXSet) bool { return have.Policy.MaxAge == m.Policy.MaxAge }, time.Now())
			return err
		},
		"account": func(s *store.Postgres, i int) error {
			next := account
			next.Version = fmt.Sprint(i)
			return s.PutAccount(t.Context(), next, account.Version)
		},
		"tenant": func(s *store.Postgres, i int) error {
			_, err := s.SetLimits(t.Context(), "acme", store.Limits{Domains: 1 + i}, tenant.ETag())
			return err
		},
	} {
		var g errgroup.Group
		var changed, refused atomic.Int32
		for i := range 8 {
			g.Go(func() error {
				switch err := change(nodes[i%2], i); {
				case err == nil:
					changed.Add(1)
				case errors.Is(err, store.ErrMismatch):
					refused.Add(1)
				default:
					return err
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil || changed.Load() != 1 || refused.Load() != 7 {
			t.Errorf("%s: %d changed it and %d were refused, %v; want one and the others", what, changed.Load(), refused.Load(), err)
		}
	}
}
