package publish_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// world is what a reconciler sees and changes, in memory. It runs in a bubble of testing/synctest with a real store, so
// that months pass in a moment.
type world struct {
	t    *testing.T
	path string
	conf *config.Config
	log  *slog.Logger // nil: the test's

	store    store.Store
	snapshot *publish.Snapshot
	rec      *publish.Reconciler
	stop     func()
	ctx      context.Context // of this run; the test's own is not of the bubble

	mu         sync.Mutex
	prior      bool
	host       map[policygen.Name]publish.Host // default: ours
	cert       map[string]publish.Cert         // default: valid
	txt        map[string][]string
	uncovered  []string
	stranded   map[policygen.Name]bool   // whose MX no policy covers
	deaf       map[policygen.Name]bool   // whose MX cannot be looked up
	slow       time.Duration             // how long that takes
	unready    map[policygen.Name]string // why
	unknownMX  string                    // why MX cannot be looked up
	mxLooks    []policygen.Name
	delegation map[policygen.Name]bool
	cname      map[policygen.Name]string // of those that lead to one record alone
	foreign    string
	ttl        time.Duration // of the records seen
	blind      bool          // the body is not seen
	applyErr   error
	quota      int    // writes that are taken before the API is gone; 0: it is there
	hangs      string // what the names of the accounts begin with that do not answer; empty: none
	readOnly   bool   // the store refuses writes
	onceRead   func() // when the domains of a shared record were read, once
	loadErr    error
	applied    []dnsupdate.Change
	asked      []string // account and name of each write
	prover     publish.Prover
	checked    []string // accounts that were to read, and where
	checkErr   error
	steps      []string
	wanted     map[string]bool
	dropped    []string
	retried    []string
}

func newWorld(t *testing.T, domains ...policygen.Name) *world {
	t.Helper()
	w := &world{
		t: t, path: filepath.Join(memory(t), "stspub.db"), prior: true,
		host: make(map[policygen.Name]publish.Host), cert: make(map[string]publish.Cert), txt: make(map[string][]string),
		stranded: make(map[policygen.Name]bool), deaf: make(map[policygen.Name]bool), unready: make(map[policygen.Name]string),
		delegation: make(map[policygen.Name]bool), cname: make(map[policygen.Name]string), wanted: make(map[string]bool),
	}
	w.conf = configuration(domains...)
	return w
}

// running runs a reconciler until the test ends.
func running(t *testing.T, rec *publish.Reconciler) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- rec.Run(ctx) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// memory is a directory that needs no disk, where there is one: what a commit waits for is tested elsewhere.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "publish-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func configuration(domains ...policygen.Name) *config.Config {
	c := &config.Config{
		Server:   config.Server{Hostname: "sts.provider.test"},
		Publish:  config.Publish{Settle: 5 * time.Minute, TTL: 5 * time.Minute},
		Check:    config.Check{Every: 6 * time.Hour},
		Accounts: map[string]config.Account{"main": {Name: "main"}},
		Alias:    config.Alias{Zone: "a.provider.test", Account: "main"},
		MXSets:   map[string]config.MXSet{"eu": mxset(policygen.Enforce, "mx1.provider.test")},
	}
	for _, name := range domains {
		c.Domains = append(c.Domains, config.Domain{Name: name, MXSet: "eu", Publish: store.PublishZone, Account: "main"})
	}
	return c
}

func mxset(mode policygen.Mode, mx ...string) config.MXSet {
	return config.MXSet{Name: "eu", Policy: policygen.Policy{Mode: mode, MaxAge: 7 * 86400, MX: mx}}
}

// start opens the store and runs a reconciler; the returned error is that of Start.
func (w *world) start() error {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	st, err := store.OpenSQLite(ctx, w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.store, w.snapshot = st, publish.NewSnapshot()
	log := cmp.Or(w.log, slog.New(slog.NewTextHandler(w.t.Output(), nil)))
	w.rec = publish.New(publish.Config{
		Store: readOnly{st, w}, Snapshot: w.snapshot, Sight: w, Certs: w, Log: log,
		Load: func() (*config.Config, []string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.conf, nil, w.loadErr
		},
		Accepted:    func(context.Context, *config.Config) error { return nil },
		OpenAccount: w.open, CheckAccount: w.check, Prover: w.prover,
		OnStep: func(name policygen.Name, step, message string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.steps = append(w.steps, fmt.Sprintf("%s %s: %s", name, step, message))
		},
	})
	if _, err := w.rec.Start(ctx, w.conf); err != nil {
		cancel()
		return errors.Join(err, st.Close())
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.rec.Run(ctx)
	}()
	w.stop = func() {
		cancel()
		<-done
		if err := st.Close(); err != nil {
			w.t.Error(err)
		}
	}
	return nil
}

func (w *world) open(tenant string, a config.Account) (dnsupdate.Account, error) {
	if a.Provider == "broken" {
		return nil, errors.New("unknown provider")
	}
	if tenant != publish.Tenant {
		a.Name = tenant + "/" + a.Name
	}
	return account{w, a.Name}, nil
}

func (w *world) check(_ context.Context, tenant string, a config.Account, zone string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checked = append(w.checked, tenant+"/"+a.Name+" "+zone+" "+string(a.APIToken))
	return w.checkErr
}

// inBubble runs a test in a bubble, with a reconciler that runs.
func inBubble(t *testing.T, domains []policygen.Name, f func(w *world)) {
	t.Helper()
	run(t, newWorld(t, domains...), f)
}

// run is inBubble for a world that is not the usual one.
func run(t *testing.T, w *world, f func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		defer func() { w.stop() }()
		f(w)
	})
}

// pass lets time go by, and everything that is due be done.
func (w *world) pass(d time.Duration) {
	time.Sleep(d) // in the bubble
	synctest.Wait()
}

func (w *world) status(name policygen.Name) publish.Status {
	w.t.Helper()
	s, err := w.rec.Status(w.ctx, name)
	if err != nil {
		w.t.Fatalf("Status(%s): %v", name, err)
	}
	return s
}

// reach lets time go by in steps until a domain is at a step.
func (w *world) reach(name policygen.Name, step string, within time.Duration) publish.Status {
	w.t.Helper()
	synctest.Wait()
	for range 200 {
		if s := w.status(name); s.Step == step {
			return s
		}
		w.pass(within / 200)
	}
	s := w.status(name)
	w.t.Fatalf("%s is at step %s (%s), want %s within %s", name, s.Step, s.Reason, step, within)
	return s
}

func (w *world) reload(hash string) (publish.ReloadReport, error) { return w.rec.Reload(w.ctx, hash) }

// plan says what a reload would do.
func (w *world) plan() publish.Plan {
	w.t.Helper()
	w.mu.Lock()
	conf := w.conf
	w.mu.Unlock()
	p, err := w.rec.Plan(w.ctx, conf, nil)
	if err != nil {
		w.t.Fatalf("Plan: %v", err)
	}
	return p
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) record(name policygen.Name) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.txt[name.RecordName()])
}

// at are the TXT values that were written at a name.
func (w *world) at(record string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.txt[record])
}

// records are all names with TXT values.
func (w *world) records() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.txt))
}

func (w *world) isWanted(host string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted[host]
}

func (w *world) writes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.applied)
}

// The world as [publish.Sight].

func (w *world) Prior(context.Context, policygen.Name) publish.Prior {
	w.mu.Lock()
	defer w.mu.Unlock()
	return publish.Prior{Existed: w.prior}
}

func (w *world) Host(_ context.Context, name policygen.Name, _ string) publish.Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h, ok := w.host[name]; ok {
		return h
	}
	return publish.Host{Ours: true}
}

func (w *world) Body(_ context.Context, name policygen.Name, text string) publish.Body {
	w.mu.Lock()
	defer w.mu.Unlock()
	page, ok := w.snapshot.Policy(name.PolicyHost())
	if w.blind || !ok || page.Text != text {
		return publish.Body{Reason: "not seen"}
	}
	return publish.Body{Live: true}
}

func (w *world) TXT(_ context.Context, record string) publish.TXT {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := publish.Server{Name: "ns1", TTL: w.ttl}
	for _, v := range w.answer(record) {
		if policygen.IsSTSv1(v) {
			s.STS = append(s.STS, v)
		} else {
			s.Others++
		}
	}
	return publish.TXT{Zone: "test", Servers: []publish.Server{s}}
}

// answer is what a name server answers, with wildcards as RFC 4592 has them. w.mu is held.
func (w *world) answer(record string) []string {
	values, there := w.txt[record]
	if !there {
		_, parent, _ := strings.Cut(record, ".")
		values = w.txt["*."+parent]
	}
	return values
}

func (w *world) Ready(_ context.Context, name policygen.Name, _ string) publish.Ready {
	w.mu.Lock()
	defer w.mu.Unlock()
	return publish.Ready{Clean: w.unready[name] == "", Reason: w.unready[name]}
}

func (w *world) MX(ctx context.Context, name policygen.Name, _ string) publish.MX {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slow := w.slow; slow > 0 && w.deaf[name] {
		w.mu.Unlock()
		select {
		case <-time.After(slow):
		case <-ctx.Done():
		}
		w.mu.Lock()
	}
	w.mxLooks = append(w.mxLooks, name)
	if w.unknownMX != "" {
		return publish.MX{Reason: w.unknownMX}
	}
	if w.deaf[name] {
		return publish.MX{Reason: "SERVFAIL"}
	}
	if w.stranded[name] {
		return publish.MX{Known: true, Uncovered: []string{"old.provider.test"}}
	}
	return publish.MX{Known: true, Uncovered: slices.Clone(w.uncovered)}
}

func (w *world) Delegation(_ context.Context, name policygen.Name, record string) publish.Delegation {
	w.mu.Lock()
	defer w.mu.Unlock()
	ours := w.delegation[name]
	if to := w.cname[name]; to != "" {
		ours = to == record
	}
	return publish.Delegation{Ours: ours, Reason: "waiting for: CNAME → " + record}
}

func (w *world) Foreign(context.Context, policygen.Name) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.foreign
}

// The world as [publish.Certs].

func (w *world) Want(host, _ string, _ bool) { w.change(func() { w.wanted[host] = true }) }

func (w *world) Unwant(host string) { w.change(func() { delete(w.wanted, host) }) }

func (w *world) Retry(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retried = append(w.retried, host)
}

func (w *world) Drop(_ context.Context, host string) error {
	w.change(func() { w.dropped = append(w.dropped, host) })
	return nil
}

func (w *world) Cert(host string) publish.Cert {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, ok := w.cert[host]; ok {
		return c
	}
	return publish.Cert{Valid: true, NotAfter: time.Now().Add(60 * 24 * time.Hour)}
}

// The world as [dnsupdate.Account].

func (w *world) Name() string     { return "main" }
func (w *world) Provider() string { return "test" }

func (w *world) Rate() dnsupdate.Rate { return dnsupdate.Rate{Changes: 100, Batch: 1} }

func (w *world) Apply(_ context.Context, c dnsupdate.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applied = append(w.applied, c)
	if w.applyErr != nil {
		return w.applyErr
	}
	if w.quota == 1 {
		return &dnsupdate.Error{Account: "main", Op: "write", Kind: dnsupdate.KindUnavailable, Err: errors.New("502 Bad Gateway")}
	}
	w.quota = max(w.quota-1, 0)
	keep := slices.DeleteFunc(w.txt[c.Name], func(v string) bool { return slices.Contains(c.Remove, v) || v == c.Add })
	if c.Add != "" {
		keep = append(keep, c.Add)
	}
	w.txt[c.Name] = keep
	if len(keep) == 0 {
		delete(w.txt, c.Name)
	}
	return nil
}

// happened are the steps told of a domain, the first words of each.
func (w *world) happened(name policygen.Name) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var steps []string
	for _, s := range w.steps {
		if rest, ok := strings.CutPrefix(s, string(name)+" "); ok {
			step, _, _ := strings.Cut(rest, ":")
			steps = append(steps, step)
		}
	}
	return steps
}

func (w *world) faults() []string {
	var all []string
	for _, subject := range slices.Sorted(maps.Keys(w.rec.Faults())) {
		all = append(all, subject+": "+w.rec.Faults()[subject])
	}
	return all
}

// broken is the error of an account that only a human can mend.
func broken() error {
	return &dnsupdate.Error{Account: "main", Op: "write", Kind: dnsupdate.KindAuth, Err: errors.New("no such token")}
}
