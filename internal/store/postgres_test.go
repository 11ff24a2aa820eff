package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
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

// TestPostgres has what only this engine has, on one server.
func TestPostgres(t *testing.T) {
	t.Parallel()
	server := labtest.StartPostgreSQL(t)
	for name, test := range map[string]func(*testing.T, *labtest.PostgreSQL){
		"ManyNodesStartAtOnce":          postgresStart,
		"OpenSaysWhatIsWrong":           postgresRefused,
		"TwoNodesClaimNothingTwice":     postgresClaims,
		"DeadlocksAreMadeAgain":         postgresDeadlock,
		"ChangesAreHeard":               postgresHears,
		"TextsThatItDoesNotTake":        postgresTexts,
		"ClosingGivesBackClaims":        postgresCloses,
		"AForsakenIDIsTaken":            postgresForsaken,
		"CutInACommitIsNotKnown":        postgresUnsure,
		"SilenceEndsWithTheContext":     postgresSilent,
		"SilenceInAPingHarmsNobody":     postgresPinged,
		"SilenceEndsByItself":           postgresLimit,
		"ADomainLeftByASharedTextWaits": postgresShared,
		"ASilentNodeHoldsNobodyForLong": postgresHeld,
		"LostLinksAreMadeAnew":          postgresLost,
		"AKeyIsChangedNodeByNode":       postgresKeys,
		"AnOldKeyThatComesLateIsKnown":  postgresLateSeal,
		"ADamagedAccountIsAlone":        postgresDamagedAccount,
		"KeysOfNodesThatAreGone":        postgresOldNodes,
		"ACrowdKeepsNobodyElseOut":      postgresCrowd,
		"AnothersRowIsNotLocked":        postgresOthersRow,
		"WhatIsExpectedChangesOnce":     postgresExpected,
		"ALongChangeKeepsNobodyOut":     postgresLongChange,
		"NumbersAppearInTheirOrder":     postgresOrder,
		"ASharedTextKeepsNobodyOut":     postgresTurn,
		"SlowReadsKeepNobodyOut":        postgresSlowReads,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, server)
		})
	}
}

// node opens the store of a database once more. It is closed at the end of the test at the latest.
func node(t testing.TB, url string) *store.Postgres {
	t.Helper()
	s, err := store.OpenPostgres(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// connect opens a connection beside the store, as another program would.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func run(t *testing.T, c *pgx.Conn, query string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func fill(t testing.TB, s store.Store, n int) {
	t.Helper()
	if c, err := s.Declare(t.Context(), declaration(n), time.Now()); err != nil || c.Added != n {
		t.Fatalf("Declare() = %+v, %v", c, err)
	}
}

func postgresStart(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	var g errgroup.Group
	stores := make([]*store.Postgres, 6)
	for i := range stores {
		g.Go(func() (err error) {
			stores[i], err = store.OpenPostgres(t.Context(), url, nil)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	fill(t, stores[0], 1)
	for _, s := range stores {
		if _, err := s.Domain(t.Context(), "d000000.example"); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func postgresRefused(t *testing.T, server *labtest.PostgreSQL) {
	host := fmt.Sprintf("127.0.0.1:%d", server.Port)
	newer, other, foreign := server.Database(t), server.Database(t), server.Database(t)
	if err := node(t, newer).Close(); err != nil {
		t.Fatal(err)
	}
	run(t, connect(t, newer), `INSERT INTO migrations (name, taken) VALUES ('0999_tenants', 1)`)
	run(t, connect(t, other), `CREATE TABLE recipes (name TEXT)`)
	c := connect(t, foreign)
	run(t, c, `CREATE ROLE nobody_here LOGIN`)
	named := func(u string) string { return strings.TrimSuffix(u[strings.LastIndex(u, "/")+1:], "?sslmode=disable") }
	guarded := func(password string) string {
		u := url.URL{Scheme: "postgres", User: url.UserPassword(labtest.GuardedRole, password), Host: host, Path: "/postgres", RawQuery: "sslmode=disable"}
		return u.String()
	}
	for _, c := range []struct{ url, name, want string }{
		{newer, named(newer), `written by a newer version of stspub, which took step "0999_tenants": ` +
			`run that version, or restore a backup from before it`},
		{other, named(other), `the database of another program: set another [store] url`},
		{server.URL("nowhere"), "nowhere", `there is no database "postgres://` + host + `/nowhere": ` +
			`create it, with the user of [store] url as its owner (`},
		{guarded("hidden-words"), "postgres", `"postgres://` + host + `/postgres" refuses its user: look at the user in ` +
			`[store] url, at password_file, and at the server's pg_hba.conf (`},
		{
			strings.Replace(foreign, "stspub@", "nobody_here@", 1), named(foreign), `the user may not write to "postgres://` +
				host + "/" + named(foreign) + `": make it the owner of the database (`,
		},
		{"postgres://stspub@127.0.0.1:1/stspub", "stspub", `does not answer: look whether the server runs and can be reached (`},
	} {
		_, err := store.OpenPostgres(t.Context(), c.url, nil)
		if err == nil || !strings.HasPrefix(err.Error(), `open store "postgres://127.0.0.1:`) || !strings.Contains(err.Error(), "/"+c.name+`": `) ||
			!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("OpenPostgres(%s):\n got %v\nwant …%s…", c.name, err, c.want)
		}
	}
	if _, err := store.OpenPostgres(t.Context(), "postgres://u:hidden-words@[::1/x", nil); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("a URL that is none: %v", err)
	}
	s, err := store.OpenPostgres(t.Context(), strings.Replace(guarded(labtest.GuardedWord), "/postgres?", "/"+named(foreign)+"?", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// postgresClaims has two nodes claim with several workers each until nothing is left.
func postgresClaims(t *testing.T, server *labtest.PostgreSQL) {
	const domains, workers = 10_000, 4
	url := server.Database(t)
	nodes := []*store.Postgres{node(t, url), node(t, url)}
	fill(t, nodes[0], domains)
	var mu sync.Mutex // guards claims
	claims := make(map[policygen.Name]int)
	var share [2]int
	var g errgroup.Group
	begun := time.Now()
	for i := range 2 * workers {
		g.Go(func() error {
			for {
				got, err := nodes[i%2].Claim(t.Context(), time.Now(), time.Hour, 50)
				if err != nil || len(got) == 0 {
					return err
				}
				mu.Lock()
				for _, d := range got {
					claims[d.Name]++
				}
				share[i%2] += len(got)
				mu.Unlock()
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d and %d domains in %s", share[0], share[1], time.Since(begun))
	if len(claims) != domains || share[0]+share[1] != domains || share[0] == 0 || share[1] == 0 {
		t.Errorf("%d domains were claimed, %d by one and %d by the other", len(claims), share[0], share[1])
	}
}

// postgresDeadlock has another program and the store wait for each other.
func postgresDeadlock(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	s := node(t, url)
	record := attach(t, s, "a.example", "b.example")
	beside := connect(t, url)
	run(t, beside, `SET deadlock_timeout = '1min'`) // the store is who notices
	run(t, beside, `BEGIN`)
	run(t, beside, `SELECT 1 FROM domains WHERE name = 'b.example' FOR UPDATE`)
	record.State.Served = "two"
	saved := make(chan error)
	go func() { saved <- s.Save(t.Context(), &record, time.Now()) }()
	blocked(t, connect(t, url))
	run(t, beside, `SELECT 1 FROM domains WHERE name = 'a.example' FOR UPDATE`)
	run(t, beside, `COMMIT`)
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	if log := server.Log(); !strings.Contains(log, "deadlock detected") {
		t.Error("there was no deadlock")
	}
	if d, err := s.Domain(t.Context(), "b.example"); err != nil || d.State.Served != "two" {
		t.Errorf("b.example is served %q, %v", d.State.Served, err)
	}
}

// attach declares a shared record with domains attached to its text "one".
func attach(t *testing.T, s store.Store, names ...policygen.Name) store.Domain {
	t.Helper()
	d := declaration(0)
	d.Domains = []store.Domain{{Name: "*.eu.s.sts.example", Tenant: "default", MXSet: "eu", Publish: store.PublishWildcard, Account: "main"}}
	for _, n := range names {
		d.Domains = append(d.Domains, store.Domain{Name: n, Tenant: "default", MXSet: "eu", Publish: store.PublishShared, Account: "main"})
	}
	if _, err := s.Declare(t.Context(), d, time.Now()); err != nil {
		t.Fatal(err)
	}
	var first store.Domain
	for i, want := range d.Domains {
		got, err := s.Domain(t.Context(), want.Name)
		if err != nil {
			t.Fatal(err)
		}
		got.State.Served, got.State.Record = "one", want.Name.Label()+".eu.s.sts.example"
		if err := s.Save(t.Context(), &got, time.Now()); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = got
		}
	}
	return first
}

// blocked returns when something in the database of c waits for a lock.
func blocked(t *testing.T, c *pgx.Conn) {
	t.Helper()
	for waiting := false; !waiting; {
		err := c.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// postgresShared has a domain saved with the old text while the shared record turns to another.
func postgresShared(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	s := node(t, url)
	record := attach(t, s, "a.example")
	d, err := s.Domain(t.Context(), "a.example")
	if err != nil {
		t.Fatal(err)
	}
	hold := connect(t, url) // of the domain's history, so that the record's transaction stays open
	run(t, hold, `BEGIN`)
	run(t, hold, `SELECT 1 FROM history WHERE name = 'a.example' FOR UPDATE`)
	record.State.Served = "two"
	turned, saved := make(chan error), make(chan error)
	go func() { turned <- s.Save(t.Context(), &record, time.Now()) }()
	blocked(t, connect(t, url))
	go func() {
		d.State.Reason = "says the old text again"
		saved <- s.Save(t.Context(), &d, time.Now())
	}()
	run(t, hold, `COMMIT`)
	if err := <-turned; err != nil {
		t.Error(err)
	}
	if err := <-saved; !errors.Is(err, store.ErrStale) {
		t.Errorf("Save of an old text: error is %v, want ErrStale", err)
	}
}

func postgresTexts(t *testing.T, server *labtest.PostgreSQL) {
	s := node(t, server.Database(t))
	if err := s.AddForeign(t.Context(), "a.example", "version: STSv1\x00\xff\n", time.Now()); err != nil {
		t.Fatal(err)
	}
	h, err := s.History(t.Context(), "a.example")
	if err != nil || len(h) != 1 || h[0].Text != "version: STSv1\uFFFD\uFFFD\n" {
		t.Errorf("History() = %+v, %v", h, err)
	}
}

// postgresHears would take a minute if it did not hear.
func postgresHears(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	s, other := node(t, url), node(t, url)
	fill(t, other, 1)
	d, err := other.Domain(t.Context(), "d000000.example")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	s.Hear(t.Context(), time.Minute) // begins to listen
	for i := range 3 {
		d.State.Served = fmt.Sprint(i)
		if err := other.Save(t.Context(), &d, time.Now()); err != nil {
			t.Fatal(err)
		}
		s.Hear(t.Context(), time.Minute)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("three changes took %s", took)
	}
}

func postgresCloses(t *testing.T, server *labtest.PostgreSQL) {
	url := server.Database(t)
	first, second := node(t, url), node(t, url)
	fill(t, first, 3)
	for _, s := range []*store.Postgres{first, second} {
		if got, err := s.Claim(t.Context(), time.Now(), time.Hour, 1); err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := second.Claim(t.Context(), time.Now(), time.Hour, 9)
	if err != nil || len(got) != 2 {
		t.Errorf("Claim() = %d domains, %v, want the one that nobody had and the one that was given back", len(got), err)
	}
}

// TestPostgresKilled kills the server in the middle of saves: what was acknowledged is there, and whole.
func TestPostgresKilled(t *testing.T) {
	t.Parallel()
	server := labtest.StartPostgreSQL(t)
	s := node(t, server.Database(t))
	const workers = 6
	fill(t, s, workers)
	told := make([][]string, workers) // ids, oldest first
	for round := range 4 {
		var failed atomic.Int32
		var saves atomic.Int64
		enough := make(chan struct{})
		var g errgroup.Group
		for i := range workers {
			g.Go(func() error {
				for n := 0; ; n++ {
					d, err := s.Domain(t.Context(), policygen.Name(fmt.Sprintf("d%06d.example", i)))
					if err == nil {
						id := fmt.Sprintf("%d.%d.%d", i, round, n)
						d.State.Served, d.State.Record, d.State.Intended = writeText(id), d.Name.RecordName(), id
						if err = s.Save(t.Context(), &d, time.Now()); err == nil {
							told[i] = append(told[i], id)
						}
					}
					if err != nil {
						failed.Add(1)
						return nil //nolint:nilerr // the server is dead
					}
					if saves.Add(1) == 30 {
						close(enough)
					}
				}
			})
		}
		<-enough
		server.Kill()
		if err := g.Wait(); err != nil || failed.Load() != workers {
			t.Fatalf("%d of %d workers noticed, %v", failed.Load(), workers, err)
		}
		server.Restart(t)
		untold := 0
		for i := range told {
			untold += checkTold(t, s, policygen.Name(fmt.Sprintf("d%06d.example", i)), &told[i])
		}
		t.Logf("round %d: %d saves, %d committed and not told", round, saves.Load(), untold)
	}
}

// checkTold checks that what was told is there, with at most one save more, which is added to it.
func checkTold(t *testing.T, s store.Store, name policygen.Name, told *[]string) (untold int) {
	t.Helper()
	ids, err := s.IDs(t.Context(), name.RecordName())
	if err != nil {
		t.Fatal(err)
	}
	history, err := s.History(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	untold = len(ids) - len(*told)
	if untold < 0 || untold > 1 || len(history) != len(ids) {
		t.Fatalf("%s has %d ids and %d policies, told were %d", name, len(ids), len(history), len(*told))
	}
	for i, h := range history {
		id := ids[len(ids)-1-i].ID
		if i == len(*told) {
			*told = append(*told, id)
		}
		if id != (*told)[i] || h.Text != writeText(id) || h.To.IsZero() != (i == len(history)-1) {
			t.Fatalf("%s: policy %d is not as it was told", name, i)
		}
	}
	return untold
}
