// Package publish brings policies before senders in the one order that loses no mail, and keeps them right.
//
// RFC 8461, Section 8.1: the policy body first, the id in the TXT record after. Around that sentence lies everything
// here: the policy is served, seen from outside, left to settle; then a fresh id is committed to the store, written, and
// seen at every authoritative server. [Next] decides, as a pure function of what is wanted, remembered and seen;
// [Reconciler] looks and acts. A crash between any two steps costs a repeat and never a wrong order.
//
// What does not live here: how DNS records are written (dnsupdate), how senders look (sender), certificates (certs).
package publish

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

const (
	workers   = 640              // passes at the same time; they mostly wait for answers. A tenant that is alone has 512
	atOnce    = 64               // domains claimed in one transaction
	passLimit = 3 * time.Minute  // one pass, all its looks and writes together
	lease     = 4 * time.Minute  // longer than passLimit
	writeTime = 45 * time.Second // one write; well inside the lease
	idle      = 10 * time.Minute // the longest the loop sleeps
	idleFew   = time.Second      // likewise, where others make domains due
)

// Sight is how the reconciler looks at the world. What cannot be found out is a part of each answer, so there are no
// errors. [Outside] is the real one.
type Sight interface {
	// Prior says whether a policy host or _mta-sts record exists for a domain.
	Prior(ctx context.Context, name policygen.Name) Prior
	// Host says where the policy host points; target is where its CNAME should lead.
	Host(ctx context.Context, name policygen.Name, target string) Host
	// Body fetches the policy from every node and by its public name. LiveFor is left zero.
	Body(ctx context.Context, name policygen.Name, text string) Body
	// TXT asks every authoritative server for the record. Ours is left empty.
	TXT(ctx context.Context, record string) TXT
	// MX compares the domain's MX with a policy text.
	MX(ctx context.Context, name policygen.Name, text string) MX
	// Ready says whether the domain may be promoted to a policy text in mode enforce.
	Ready(ctx context.Context, name policygen.Name, text string) Ready
	// Foreign returns the policy that somebody else serves for the domain; empty: none that is understood.
	Foreign(ctx context.Context, name policygen.Name) string
	// Delegation says whether the domain's _mta-sts is a CNAME to the record.
	Delegation(ctx context.Context, name policygen.Name, record string) Delegation
	// Report asks every authoritative server for a TLSRPT record: Server.STS of the answer holds TLSRPTv1 values.
	Report(ctx context.Context, record string) TXT
	// ReportDelegation says whether the domain's _smtp._tls is a CNAME to the record.
	ReportDelegation(ctx context.Context, name policygen.Name, record string) Delegation
}

// Certs is what the reconciler asks of package certs.
type Certs interface {
	// Want has a certificate ordered if there is no good one, and kept. Live says that senders look for the domain's policy
	// already, so it is urgent. Tenant is whose limit of orders may hold the first one; empty: nobody's.
	Want(host, tenant string, live bool)
	// Unwant stops orders; what is there stays.
	Unwant(host string)
	// Retry ends the pause after an order that failed.
	Retry(host string)
	// Drop deletes certificate and key.
	Drop(ctx context.Context, host string) error
	// Cert says whether a good certificate is served for host.
	Cert(host string) Cert
}

// Config is what a [Reconciler] works with.
type Config struct {
	Store store.Store
	// Node is the name of this node where the store is one of several; empty: it is this process's alone.
	Node     string
	Snapshot *Snapshot
	Sight    Sight
	Certs    Certs
	Log      *slog.Logger

	// Load reads the configuration anew.
	Load func() (*config.Config, []string, error)
	// Accepted is told of every configuration that was taken; it keeps it.
	Accepted func(context.Context, *config.Config) error
	// OpenAccount makes a DNS account of a tenant of its configuration.
	OpenAccount func(tenant string, a config.Account) (dnsupdate.Account, error)
	// CheckAccount has an account read in a zone, or with "" its credentials judged, as [dnsupdate.Check]; nil: accounts are not checked when they come.
	CheckAccount func(ctx context.Context, tenant string, a config.Account, zone string) error
	// Prover looks for the proofs of claims; nil: none is ever proven.
	Prover Prover
	// OnStep, if set, is told of every step that a publication passes or waits at, as it happens.
	OnStep func(name policygen.Name, step, message string)
}

// Reconciler runs the publications of all domains.
type Reconciler struct {
	cfg      Config
	settings atomic.Pointer[settings]
	wake     chan struct{} // capacity 1
	claims   chan struct{} // capacity 1: claims are to be looked at
	telling  chan struct{} // capacity 1: there may be events of faults to tell

	passes    *slots    // by tenant
	looks     *slots    // at claims, likewise
	lookAside time.Time // not before, for others than those who are full; the dispatcher's alone

	reload sync.Mutex // held by who replaces the settings
	heard  heard      // guarded by reload
	// declaring is held while the store and the settings do not say the same; nothing is claimed meanwhile.
	declaring sync.RWMutex

	// serving is held from reading a text in the store to having it served, so that the last one served is the last one
	// committed.
	serving sync.Mutex

	mu     sync.Mutex // guards the fields below, and those of the doors but places
	tracks map[policygen.Name]*track
	faults map[string]string // of the service as a whole, by subject
	untold []store.Event     // of faults, for tellFaults, which alone takes some away
	barred map[string]bool   // subjects of faults with which nothing is claimed
	doors  map[key]*door     // by account
	start  startup
	clock  time.Time // when the clock was last looked at

	began     time.Time // when this process did; set before anything runs, as is last
	last      time.Time // the latest time that an earlier run kept; zero: none
	roll      roll
	clockRead atomic.Pointer[reading] // nil: our own clock is that of the store

	count *census
}

// New returns a reconciler that has nothing to do before [Reconciler.Start].
func New(cfg Config) *Reconciler {
	return &Reconciler{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		claims:  make(chan struct{}, 1),
		telling: make(chan struct{}, 1),
		passes:  newSlots(workers),
		looks:   newSlots(provers),
		tracks:  make(map[policygen.Name]*track),
		faults:  make(map[string]string),
		barred:  make(map[string]bool),
		doors:   make(map[key]*door),
		count:   newCensus(func(ctx context.Context) (store.Counts, error) { return cfg.Store.Counts(ctx) }),
	}
}

// Serve fills the snapshot from the store, so that everything served before is served again. It is the part of a start
// that senders wait for; [Reconciler.Start] comes after it, and does it where it was not done.
func (r *Reconciler) Serve(ctx context.Context) error {
	err := r.cfg.Snapshot.Fill(func(f func(name, text []byte) error) error { return r.cfg.Store.EachServed(ctx, f) })
	if err != nil {
		return fmt.Errorf("read the domains: %w", err)
	}
	return nil
}

// Start takes the configuration. It refuses what [Refused] says. It waits for no DNS: what would strand mail is taken, and
// held domain by domain.
func (r *Reconciler) Start(ctx context.Context, conf *config.Config) (ReloadReport, error) {
	ctx = store.WithActor(ctx, store.ActorFile)
	r.began = r.now()
	if err := r.checkClock(ctx); err != nil {
		return ReloadReport{}, err
	}
	if r.cfg.Snapshot.Len() == 0 {
		if err := r.Serve(ctx); err != nil {
			return ReloadReport{}, err
		}
	}
	if err := r.resume(ctx); err != nil {
		return ReloadReport{}, err
	}
	r.reload.Lock()
	defer r.reload.Unlock()
	if err := Refused(ctx, r.cfg.Store, conf); err != nil {
		return ReloadReport{}, err
	}
	own, err := r.loadOwned(ctx, nil)
	if err != nil {
		return ReloadReport{}, err
	}
	next, err := r.mean(conf, own)
	if err != nil {
		return ReloadReport{}, err
	}
	report, err := r.take(ctx, conf, next)
	r.poke()
	return report, err
}

// resume wants the certificates that were wanted, and has those domains looked at soon whose pass a crash may have cut off.
// A sample of the live ones is compared with DNS before anything may be deleted: the store may be an old copy.
func (r *Reconciler) resume(ctx context.Context) error {
	var soon []policygen.Name
	var seen sample
	now := r.now()
	err := r.cfg.Store.EachDomain(ctx, func(d store.Domain) error {
		if d.Publish == store.PublishWildcard {
			// It is no host.
		} else if d.State.Checked.IsZero() && d.State.ID == "" {
			// Never live: nothing to keep a certificate for yet.
		} else if d.State.Step != StepAway {
			r.cfg.Certs.Want(d.Name.PolicyHost(), "", true)
		}
		seen.add(d)
		if d.State.Step != StepLive && d.Due.After(now) && d.Due.Before(now.Add(lease+time.Minute)) {
			soon = append(soon, d.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the domains: %w", err)
	}
	names := seen.names()
	r.mu.Lock()
	r.start = startup{
		names: make(map[policygen.Name]bool), began: time.Now(), sampled: len(names), tenants: len(seen.of),
		strange: make(map[string]bool), newer: make(map[string]bool), last: r.last, until: r.began,
	}
	for _, name := range names {
		r.start.names[name] = true
	}
	r.mu.Unlock()
	for _, name := range append(soon, names...) {
		r.open(name)
		if err := r.cfg.Store.Wake(ctx, name, now); err != nil {
			return fmt.Errorf("have %s looked at: %w", name, err)
		}
	}
	return nil
}

// Run works until ctx ends, and returns when the last pass has.
func (r *Reconciler) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { r.watchClock(ctx); return nil })
	g.Go(func() error { r.tellFaults(ctx); return nil })
	g.Go(func() error { r.dispatch(ctx); return nil })
	g.Go(func() error { r.count.run(ctx); return nil })
	if r.cfg.Prover != nil {
		g.Go(func() error { r.runClaims(ctx); return nil })
	}
	return g.Wait()
}

// dispatch has passes run for what is due, until ctx ends and the last one has.
func (r *Reconciler) dispatch(ctx context.Context) {
	var passes sync.WaitGroup
	defer passes.Wait()
	free := make(chan struct{}, workers)
	begin := func(d store.Domain) {
		r.passes.begin(d.Tenant)
		passes.Go(func() {
			defer func() {
				<-free
				if r.passes.end(d.Tenant) {
					r.poke() // what it had to leave
				}
			}()
			r.safePass(ctx, d)
		})
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := time.Second // after an error of the store
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		next, err := idleFew, error(nil)
		if !r.isBarred() {
			next, err = r.claim(ctx, free, begin)
		}
		switch {
		case err == nil:
			r.fault("store", "")
			pause = time.Second
		case ctx.Err() == nil:
			r.storeFault(err)
			next, pause = pause, min(2*pause, time.Minute)
		}
		timer.Reset(next)
	}
}

func (r *Reconciler) storeFault(err error) {
	r.fault("store", fmt.Sprintf("the store does not answer: %v; serving goes on", err))
}

// claim begins a pass for every domain that is due, as workers get free: no more are claimed than can begin at once, so that
// a lease runs only while its pass does. A tenant that has as many passes as it may have has to wait for them. It returns
// how long nothing is due then.
func (r *Reconciler) claim(ctx context.Context, free chan struct{}, begin func(store.Domain)) (time.Duration, error) {
	for {
		n, err := reserve(ctx, free)
		if err != nil {
			return 0, err
		}
		due, wait, err := r.claimSome(ctx, n)
		for range n - len(due) {
			<-free
		}
		if err != nil || wait > 0 {
			return wait, err
		}
		for _, d := range due {
			begin(d)
		}
		if len(due) < n {
			break
		}
	}
	longest := idle
	if r.cfg.Node != "" {
		longest = idleFew
	}
	next, err := r.cfg.Store.NextDue(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return longest, nil
	}
	return min(max(r.until(next), 10*time.Millisecond), longest), err
}

// reserve waits for a free worker, and takes those that are free then.
func reserve(ctx context.Context, free chan struct{}) (int, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case free <- struct{}{}:
	}
	for n := 1; n < atOnce; n++ {
		select {
		case free <- struct{}{}:
		default:
			return n, nil
		}
	}
	return atOnce, nil
}

// safePass runs one pass. A panic costs that pass, not the service.
func (r *Reconciler) safePass(outer context.Context, d store.Domain) {
	defer func() {
		if p := recover(); p != nil {
			r.cfg.Log.Error("pass panicked", "domain", d.Name, "err", p)
		}
	}()
	ctx, cancel := context.WithTimeout(outer, passLimit)
	defer cancel()
	err := r.pass(ctx, d)
	switch {
	case err == nil, errors.Is(err, context.Canceled):
	case errors.Is(err, store.ErrStale): // whoever changed it has made it due
	case ctx.Err() != nil:
		r.cfg.Log.Warn("pass ran out of time", "domain", d.Name, "limit", passLimit.String())
	default:
		r.cfg.Log.Error("pass ended", "domain", d.Name, "err", err)
		r.giveBack(outer, d)
	}
}

const (
	giveBackEvery = 5 * time.Second  // between tries
	giveBackAfter = 10 * time.Second // when the domain is looked at again: what is wrong may be wrong still
)

// giveBack ends the claim of a pass that broke off, mostly since the store did not answer: as soon as it does, and not only
// when the lease is over. Nothing else of the domain is written.
func (r *Reconciler) giveBack(ctx context.Context, claimed store.Domain) {
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	for r.until(claimed.Due) > 0 {
		d, err := r.cfg.Store.Domain(ctx, claimed.Name)
		if err == nil && d.Due.Equal(claimed.Due) { // else the claim is over
			d.Due = r.now().Add(giveBackAfter)
			err = r.cfg.Store.Save(ctx, &d, r.now())
		}
		if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrStale) {
			r.poke()
			return
		}
		if ctx.Err() == nil { // while nothing is due, nobody else notices
			r.storeFault(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Wake has a domain looked at now.
func (r *Reconciler) Wake(ctx context.Context, name policygen.Name) error {
	if err := r.cfg.Store.Wake(ctx, name, r.now()); err != nil {
		return fmt.Errorf("have %s looked at: %w", name, err)
	}
	r.poke()
	return nil
}

func (r *Reconciler) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// freshID returns an id that nobody ever saw.
func freshID(now time.Time) (string, error) {
	id, err := policygen.NewID(now, rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return id, nil
}
