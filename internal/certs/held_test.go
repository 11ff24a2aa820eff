package certs_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// An operator who has put something right does not wait out the pause; one who has not gains no hot loop by it.
func TestRetryEndsThePause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: refused}
		k, stop := run(t, newBooks(), m)
		defer stop()
		k.Retry("a.test") // nobody knows it
		k.Want("a.test", false)
		time.Sleep(3 * time.Hour) // tries: 0, 5 min, 20 min, 65 min
		if got := len(m.of("a.test")); got != 4 {
			t.Fatalf("%d tries in three hours: %v", got, m.of("a.test"))
		}
		k.Retry("A.test.")
		synctest.Wait()
		times := m.of("a.test")
		if len(times) != 5 || !times[4].Equal(time.Now()) {
			t.Fatalf("tries after Retry: %v, want one more now, at %v", times, time.Now())
		}
		if next := k.Status("a.test").NextTry; time.Until(next) < 4*time.Hour {
			t.Errorf("the next try is at %v, want the pause to go on growing", next)
		}
	})
}

// What was mended while an order ran is met by another one, at once.
func TestRetryDuringAnOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mended atomic.Bool
		m := &model{answer: func(_ context.Context, name string) (store.Certificate, error) {
			good := mended.Load()
			time.Sleep(time.Minute)
			if !good {
				return refused(context.Background(), name)
			}
			return issue(90*day, name)
		}}
		k, stop := run(t, newBooks(), m)
		defer stop()
		k.Want("a.test", false)
		time.Sleep(30 * time.Second)
		mended.Store(true)
		k.Retry("a.test")
		time.Sleep(2 * time.Minute)
		if s := k.Status("a.test"); s.State != certs.StateValid || len(m.of("a.test")) != 2 {
			t.Errorf("%+v after orders at %v, want a second one that ends well", s, m.of("a.test"))
		}
		k.Retry("a.test") // which is good
		time.Sleep(time.Hour)
		if got := m.of("a.test"); len(got) != 2 {
			t.Errorf("orders at %v, want none for a name that does not fail", got)
		}
	})
}

// second is another authority.
type secondModel struct{ *model }

func (secondModel) Name() string { return "second" }

// What the gate holds is never ordered. A name that is to blame is looked at less and less often, and goes to an authority
// that would take it; one that is not is looked at every hour.
func TestHeldNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := &certs.Gate{Client: &sender.Client{Resolver: &sender.Resolver{}}, Home: func(context.Context) (sender.Home, error) {
			return sender.Home{}, errors.New("our own name is not found")
		}}
		var mu sync.Mutex
		looks := make(map[string][]time.Time) // by authority and name
		first := &model{answer: func(_ context.Context, name string) (store.Certificate, error) { return issue(90*day, name) }}
		second := secondModel{&model{answer: first.answer}}
		k := certs.New(certs.Config{
			Store: newBooks(), Authorities: []certs.Authority{first, second}, Log: slog.New(slog.DiscardHandler),
			Gate: func(ctx context.Context, name string, by certs.Authority) error {
				mu.Lock()
				looks[by.Name()+" "+name] = append(looks[by.Name()+" "+name], time.Now())
				mu.Unlock()
				ca := labCA()
				ca.public = by.Name() == "model"
				if !ca.public && strings.HasSuffix(name, ".test") {
					return nil
				}
				return gate.Check(ctx, name, ca)
			},
		})
		if err := k.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = k.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		const blamed, blameless = "mta-sts.a.test", "mta-sts.b.com"
		k.Want(blamed, false)
		k.Want(blameless, false)
		time.Sleep(5 * time.Hour)
		if s := k.Status(blamed); s.State != certs.StateFailing || !strings.Contains(s.Problem, "special-use: names in test are reserved") {
			t.Errorf("after five hours %+v, want it to fail by special-use", s)
		}
		if s := k.Status(blameless); s.State != certs.StateFailing || !strings.Contains(s.Problem, "our own name is not found") {
			t.Errorf("after five hours %+v, want it to fail with our name", s)
		}
		time.Sleep(10 * day)
		mu.Lock()
		defer mu.Unlock()
		if n := len(looks["model "+blamed]); n < 4 || n > 8 {
			t.Errorf("%d looks for a name that is to blame, before it went to the other authority, want a few: %v", n, looks["model "+blamed])
		}
		if s := k.Status(blamed); s.State != certs.StateValid || len(second.of(blamed)) != 1 || len(first.of(blamed)) > 0 {
			t.Errorf("%+v, ordered %v and %v, want one certificate, of the second authority", s, first.of(blamed), second.of(blamed))
		}
		if n := len(looks["model "+blameless]); n < 200 || n > 400 || len(first.of(blameless)) > 0 || len(second.of(blameless)) > 0 {
			t.Errorf("%d looks in ten days for a name that is not to blame, and orders %v, want one an hour, and no order", n, first.of(blameless))
		}
	})
}

// An authority as the gate meets it: its names, our account, and an order that takes the way which was seen to work.
func TestGateBeforeARealOrder(t *testing.T) {
	w := newWorld(t, time.Hour)
	x := new(watch)
	w.ca = w.startOtherCA(t, lab.CAOptions{Wrap: x.wrap})
	w.serveHTTP(t)
	dead(w.tls)
	a := w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	if names, err := a.Identities(t.Context()); err != nil || !slices.Equal(names, []string{"lab.invalid"}) || a.Public() {
		t.Errorf("Identities = %q, %v, Public = %v, want lab.invalid, and a CA of our own", names, err, a.Public())
	}
	if n := len(x.of(pathAccount, http.StatusCreated)); n != 0 {
		t.Errorf("%d accounts before one is needed", n)
	}
	account, err := a.Account(t.Context())
	again, errAgain := w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM).Account(t.Context())
	if err != nil || errAgain != nil || account == "" || account != again || len(x.of(pathAccount, http.StatusCreated)) != 1 {
		t.Fatalf("Account = %q, %v, and of another process %q, %v, want one and the same", account, err, again, errAgain)
	}
	g := &certs.Gate{
		Client: &sender.Client{Resolver: &sender.Resolver{Servers: []string{w.dns.Addr}}}, Values: w.store,
		HTTPPort: port(w.http), HTTPSPort: port(w.tls),
		Home: func(context.Context) (sender.Home, error) {
			return sender.Home{Name: "sts.test", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, nil
		},
	}
	set := func(record string) {
		t.Helper()
		if err := w.dns.Set("good.test", "CAA", record); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.Ways(good); !slices.Equal(got, []string{"tls-alpn-01", "http-01"}) {
		t.Errorf("Ways = %q, want TLS-ALPN-01 first", got)
	}
	set(`0 issue "lab.invalid; accounturi=` + account + `0"`)
	if err := g.Check(t.Context(), good, a); err == nil || !strings.Contains(err.Error(), "allows another account than ours, which is "+account) {
		t.Errorf("Check with another account in CAA = %v", err)
	}
	set(`0 issue "lab.invalid; accounturi=` + account + `"`)
	if err := g.Check(t.Context(), good, a); err != nil {
		t.Fatal(err)
	}
	obtain(t, a, certs.Request{Name: good})
	if n := len(x.of(pathChallenge, http.StatusOK)); n != 1 {
		t.Errorf("%d challenges were tried, want the one that works", n)
	}
}
