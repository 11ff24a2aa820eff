package publish_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// skewed is a store whose clock is not ours. It notes by what time it was asked for domains.
type skewed struct {
	store.Store
	skew time.Duration

	mu    sync.Mutex // guards times
	times []time.Time
}

func (s *skewed) Now(ctx context.Context) (time.Time, error) {
	now, err := s.Store.Now(ctx)
	return now.Add(s.skew), err
}

func (s *skewed) note(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, now)
}

func (s *skewed) Claim(ctx context.Context, now time.Time, lease time.Duration, n int, but ...string) ([]store.Domain, error) {
	s.note(now)
	return s.Store.Claim(ctx, now, lease, n, but...)
}

func (s *skewed) Save(ctx context.Context, d *store.Domain, now time.Time) error {
	s.note(now)
	return s.Store.Save(ctx, d, now)
}

func (s *skewed) Wake(ctx context.Context, name policygen.Name, now time.Time) error {
	s.note(now)
	return s.Store.Wake(ctx, name, now)
}

// openPostgres opens a database of a server as another process does.
func openPostgres(t *testing.T, url string) store.Store {
	t.Helper()
	st, err := store.OpenPostgres(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// newNode makes a reconciler on a store of several, in the world's DNS.
func (w *world) newNode(t *testing.T, name string, st store.Store) (*publish.Reconciler, *publish.Snapshot) {
	t.Helper()
	snapshot := publish.NewSnapshot()
	w.snapshot = snapshot // as who looks from outside sees it
	return publish.New(publish.Config{
		Store: st, Node: name, Snapshot: snapshot, Sight: w, Certs: w, Log: slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", name),
		Load:        func() (*config.Config, []string, error) { return w.conf, nil, nil },
		Accepted:    func(context.Context, *config.Config) error { return nil },
		OpenAccount: func(_ string, a config.Account) (dnsupdate.Account, error) { return account{w, a.Name}, nil },
	}), snapshot
}

// TestClockOfTheStore has a node work whose clock is five minutes behind the store's, as it reads it: everything goes by the
// store's.
func TestClockOfTheStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	w.t, w.prior, w.ctx = t, false, t.Context()
	st := &skewed{Store: openPostgres(t, labtest.StartPostgreSQL(t).Database(t)), skew: 5 * time.Minute}
	r, _ := w.newNode(t, "one", st)
	now, err := st.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.SetClock(now, time.Now())
	if err := st.Beat(t.Context(), store.Node{ID: "one"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Start(t.Context(), w.conf); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	eventually(t, "a record", func() bool { return len(w.record("a.example")) == 1 })
	d, err := st.Domain(t.Context(), "a.example")
	stop()
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, at := range st.times {
		if ahead := time.Until(at); ahead < 4*time.Minute || ahead > 5*time.Minute+time.Second {
			t.Errorf("the store was asked by a time %s ahead of ours, want that of the store, which is 5 m ahead", ahead)
		}
	}
	if len(st.times) < 3 {
		t.Errorf("the store was asked %d times", len(st.times))
	}
	if made := policygen.IDTime(d.State.Intended + d.State.ID); time.Until(made) < 4*time.Minute {
		t.Errorf("the id is of %s, want the store's time", made)
	}
}

// eventually waits for what others do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("no %s within a minute", what)
		}
	}
}

// TestRefreshServesWhatOthersChanged follows a store that others write, and that is put back to an old copy.
func TestRefreshServesWhatOthersChanged(t *testing.T) {
	t.Parallel()
	server := labtest.StartPostgreSQL(t)
	url := server.Database(t)
	w := newWorld(t, "a.example", "b.example", "c.example")
	w.t = t
	other := openPostgres(t, url)
	if _, err := other.Declare(t.Context(), declared(w.conf), time.Now()); err != nil {
		t.Fatal(err)
	}
	r, snapshot := w.newNode(t, "one", openPostgres(t, url))
	if err := r.Serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	var seen int64
	want := make(map[policygen.Name]string)
	check := func(what string) {
		t.Helper()
		var err error
		if seen, err = r.Refresh(t.Context(), seen); err != nil {
			t.Fatal(err)
		}
		got := make(map[policygen.Name]string)
		for _, name := range []policygen.Name{"a.example", "b.example", "c.example"} {
			if page, ok := snapshot.Policy(name.PolicyHost()); ok {
				got[name] = page.Text
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || snapshot.Len() != len(want) {
			t.Errorf("%s: %d policies, -want +got\n%s", what, snapshot.Len(), diff)
		}
	}
	serve := func(name policygen.Name, text string) {
		t.Helper()
		d, err := other.Domain(t.Context(), name)
		if err == nil {
			d.State.Served, d.State.Dirty = text, true
			err = other.Save(t.Context(), &d, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
		if want[name] = text; text == "" {
			delete(want, name)
		}
	}
	check("nothing")
	serve("a.example", "one")
	serve("b.example", "one")
	check("two")
	serve("a.example", "two")
	serve("b.example", "")
	serve("c.example", "three")
	check("changed")
	d, err := other.Domain(t.Context(), "c.example")
	if err == nil {
		err = other.Delete(t.Context(), d)
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(want, "c.example")
	check("deleted")
	snapshot.Set("b.example", "of a time that the store does not know")
	seen = 1 << 40
	check("another store")
	want = maps.Clone(want)
	serve("b.example", "four")
	check("afterwards")

	// It is gone for the others, and comes back when they have forgotten what was deleted meanwhile.
	d, err = other.Domain(t.Context(), "a.example")
	if err == nil {
		err = other.Delete(t.Context(), d)
	}
	last, lerr := other.LastChange(t.Context())
	if err = errors.Join(err, lerr); err == nil {
		err = other.Beat(t.Context(), store.Node{ID: "other", Acknowledged: last})
	}
	if err == nil {
		err = other.PruneDropped(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.ServedSince(t.Context(), seen, func(policygen.Name, string) error { return nil }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what was deleted is still known: %v", err)
	}
	delete(want, "a.example")
	check("when it comes back")
}

// declared is the declaration of a world's zones.
func declared(conf *config.Config) store.Declaration {
	d := store.Declaration{Owner: store.OwnerFile}
	for name, m := range conf.MXSets {
		d.MXSets = append(d.MXSets, store.MXSet{Tenant: publish.Tenant, Name: name, Policy: m.Policy})
	}
	for _, c := range conf.Domains {
		d.Domains = append(d.Domains, store.Domain{
			Name: c.Name, Tenant: publish.Tenant, MXSet: c.MXSet, Publish: c.Publish, Account: c.Account, Owner: store.OwnerFile,
		})
	}
	return d
}

// TestNodesAreSeen is about the list of nodes, and the faults that come of it.
func TestNodesAreSeen(t *testing.T) {
	t.Parallel()
	url := labtest.StartPostgreSQL(t).Database(t)
	w := newWorld(t, "a.example")
	w.t, w.prior = t, false
	mine, theirs := openPostgres(t, url), openPostgres(t, url)
	r, _ := w.newNode(t, "one", mine)
	if err := errors.Join(mine.Beat(t.Context(), store.Node{ID: "one", Address: "192.0.2.1:443"}), theirs.Beat(t.Context(), store.Node{ID: "two", Address: "192.0.2.2:443"})); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Start(t.Context(), w.conf); err != nil {
		t.Fatal(err)
	}
	peers, err := r.Peers(t.Context())
	if err != nil || !cmp.Equal(peers, []string{"192.0.2.2:443"}) {
		t.Errorf("Peers = %q, %v", peers, err)
	}
	if err := r.LookAtNodes(t.Context()); err != nil || len(r.Faults()) > 0 {
		t.Errorf("LookAtNodes = %v, faults %q", err, r.Faults())
	}
	if err := r.RemoveNode(t.Context(), "two"); !errors.Is(err, publish.ErrRefused) {
		t.Errorf("RemoveNode of one that lives = %v, want ErrRefused", err)
	}
	if err := r.RemoveNode(t.Context(), "three"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("RemoveNode of nobody = %v, want ErrNotFound", err)
	}
	if err := theirs.Deregister(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	nodes, err := r.Nodes(t.Context())
	if err != nil || len(nodes) != 1 || nodes[0].ID != "one" || nodes[0].Lost {
		t.Errorf("Nodes = %+v, %v, want only one", nodes, err)
	}
}

// TestNodesWithOtherConfigurations is about two nodes of which one has taken another file.
func TestNodesWithOtherConfigurations(t *testing.T) {
	t.Parallel()
	url := labtest.StartPostgreSQL(t).Database(t)
	w := newWorld(t, "a.example")
	w.t, w.prior = t, false
	stores := []store.Store{openPostgres(t, url), openPostgres(t, url)}
	var nodes []*publish.Reconciler
	for i, name := range []string{"one", "two"} {
		if err := stores[i].Beat(t.Context(), store.Node{ID: name, Acknowledged: 1 << 40}); err != nil {
			t.Fatal(err)
		}
		r, _ := w.newNode(t, name, stores[i])
		if _, err := r.Start(t.Context(), w.conf); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, r)
	}
	changed := *w.conf
	changed.MXSets = map[string]config.MXSet{"eu": mxset(policygen.Enforce, "mx2.provider.test")}
	if _, err := nodes[0].Declare(t.Context(), &changed, ""); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 2)
	go func() { done <- nodes[1].Run(ctx) }()
	eventually(t, "fault", func() bool {
		return strings.Contains(nodes[1].Faults()["configuration of nodes"], `node "one" took a configuration`)
	})
	if d, err := stores[1].Domain(t.Context(), "a.example"); err != nil || d.State.Step != "" {
		t.Errorf("a node with an old configuration brought the domain to %q, %v", d.State.Step, err)
	}
	// It starts again with the old one, and does not declare it.
	seen := w.snapshot
	again, _ := w.newNode(t, "two", stores[1])
	w.snapshot = seen
	if _, err := again.Start(t.Context(), w.conf); err != nil {
		t.Fatal(err)
	}
	sets, err := stores[0].MXSets(t.Context())
	if err != nil || len(sets) != 1 || sets[0].Policy.MX[0] != "mx2.provider.test" {
		t.Errorf("MX sets %+v, %v, want that of the new configuration", sets, err)
	}
	if _, err := nodes[1].Declare(t.Context(), &changed, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "record", func() bool { return len(w.record("a.example")) == 1 })
	if f := nodes[1].Faults()["configuration of nodes"]; f != "" {
		t.Errorf("fault %q with the same configuration", f)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestMXSetsOfAnotherNode: what the API tells one node of an MX set holds for the pass that another one makes because of it.
func TestMXSetsOfAnotherNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "api.example")
	w.t, w.prior, w.ctx = t, false, t.Context()
	w.conf = configuration()
	url := labtest.StartPostgreSQL(t).Database(t)
	st := openPostgres(t, url)
	one, _ := w.newNode(t, "one", openPostgres(t, url))
	two, _ := w.newNode(t, "two", st)
	if err := st.Beat(t.Context(), store.Node{ID: "two"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*publish.Reconciler{one, two} {
		if _, err := r.Start(t.Context(), w.conf); err != nil {
			t.Fatal(err)
		}
	}
	running(t, two)
	put := func(mx string) {
		t.Helper()
		if _, err := one.PutMXSet(t.Context(), publish.Tenant, own("own", mx), ""); err != nil {
			t.Fatal(err)
		}
	}
	served := func(mx string) {
		t.Helper()
		eventually(t, "a policy with "+mx, func() bool {
			d, err := st.Domain(t.Context(), "api.example")
			return err == nil && strings.Contains(d.State.Served, mx)
		})
	}
	put("mx9.provider.test")
	outcomes, err := one.Apply(t.Context(), publish.Tenant, []publish.Change{zoned("api.example", "own")}, publish.ApplyOptions{})
	if err != nil || outcomes[0].Err != nil {
		t.Fatal(outcomes, err)
	}
	served("mx9.provider.test")
	put("mx8.provider.test")
	served("mx8.provider.test")

	// Who saw the set as it was changes it at most once, at whatever node.
	seen, err := one.MXSet(publish.Tenant, "own")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.PutMXSet(t.Context(), publish.Tenant, own("own", "mx7.provider.test"), seen.ETag); err != nil {
		t.Fatal(err)
	}
	if _, err := two.PutMXSet(t.Context(), publish.Tenant, own("own", "mx6.provider.test"), seen.ETag); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("a change of what another node changed: %v", err)
	}
	if err := two.DeleteMXSet(t.Context(), publish.Tenant, "own", seen.ETag); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("the removal of what another node changed: %v", err)
	}
	if err := one.DeleteMXSet(t.Context(), publish.Tenant, "other", ""); err == nil {
		t.Error("an MX set that is not there is deleted")
	}
}

// TestAccountsOfAnotherNode: who saw an account as it was changes it at most once, at whatever node, and its ETag tells nothing
// of its credentials.
func TestAccountsOfAnotherNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.t, w.prior, w.ctx = t, false, t.Context()
	w.conf = configuration()
	url := labtest.StartPostgreSQL(t).Database(t)
	one, _ := w.newNode(t, "one", openPostgres(t, url))
	two, _ := w.newNode(t, "two", openPostgres(t, url))
	for _, r := range []*publish.Reconciler{one, two} {
		if _, err := r.Start(t.Context(), w.conf); err != nil {
			t.Fatal(err)
		}
	}
	put := func(r *publish.Reconciler, token, ifMatch string) (publish.Account, error) {
		a, _, err := r.PutAccount(t.Context(), "acme", config.Account{Name: "own", Provider: "test", APIToken: config.Secret(token)}, "", ifMatch)
		return a, err
	}
	seen, err := put(one, "s3cret", "")
	if err != nil {
		t.Fatal(err)
	}
	same, err := put(one, "s3cret", seen.ETag)
	if err != nil || same.ETag == seen.ETag || len(same.ETag) != 32 {
		t.Errorf("the same credentials again have the ETag %q, then %q, %v", seen.ETag, same.ETag, err)
	}
	if _, err := put(two, "other", seen.ETag); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("a change of what another node changed: %v", err)
	}
	if err := two.DeleteAccount(t.Context(), "acme", "own", seen.ETag); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("the removal of what another node changed: %v", err)
	}
	if got := two.Accounts("acme"); len(got) > 0 {
		t.Errorf("after refused changes, accounts are %+v", got)
	}
	for _, r := range []*publish.Reconciler{one, two} {
		if err := r.RefreshOwned(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.Accounts("acme"); len(got) != 1 || got[0] != same {
			t.Errorf("accounts are %+v, want %+v", got, same)
		}
	}
	third, err := put(two, "other", same.ETag)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.DeleteAccount(t.Context(), "acme", "own", third.ETag); err != nil {
		t.Error(err)
	}
	if _, err := put(two, "other", "*"); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("a change of what another node removed: %v", err)
	}
}

// TestFaultsOfSeveralNodes has one event come of what two nodes find.
func TestFaultsOfSeveralNodes(t *testing.T) {
	t.Parallel()
	url := labtest.StartPostgreSQL(t).Database(t)
	w := newWorld(t)
	w.t, w.prior = t, false
	var nodes []*publish.Reconciler
	st := openPostgres(t, url)
	for _, name := range []string{"one", "two"} {
		r, _ := w.newNode(t, name, openPostgres(t, url))
		if err := st.Beat(t.Context(), store.Node{ID: name, Acknowledged: 1 << 40}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Start(t.Context(), w.conf); err != nil {
			t.Fatal(err)
		}
		running(t, r)
		nodes = append(nodes, r)
	}
	told := func() (names []string) {
		events, err := st.Events(t.Context(), store.EventFilter{Kinds: []string{store.KindServiceFault, store.KindServiceMended}}, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			names = append(names, e.Kind+" "+e.Name)
		}
		return names
	}
	want := []string{"service.fault node three", "service.fault last", "service.fault-cleared node three", "service.fault-cleared last"}
	nodes[0].SetFault("node three", "is silent")
	eventually(t, "event of a fault", func() bool { return len(told()) == 1 })
	nodes[1].SetFault("node three", "is silent")
	nodes[1].SetFault("last", "is told of after it")
	eventually(t, "event of another", func() bool { return len(told()) >= 2 })
	nodes[1].SetFault("node three", "")
	eventually(t, "event of an end", func() bool { return len(told()) >= 3 })
	nodes[0].SetFault("node three", "")
	nodes[1].SetFault("last", "")
	eventually(t, "event of the other's end", func() bool { return len(told()) >= 4 })
	if diff := cmp.Diff(want, told()); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
