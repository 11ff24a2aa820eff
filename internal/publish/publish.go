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
	workers   = 16               // passes at the same time
	passLimit = 3 * time.Minute  // one pass, all its looks and writes together
	lease     = 4 * time.Minute  // longer than passLimit
	writeTime = 45 * time.Second // one write; well inside the lease
	idle      = 10 * time.Minute // the longest the loop sleeps
)

// Sight is how the reconciler looks at the world. What cannot be found out is a part of each answer, so there are no
// errors. [Outside] is the real one.
type Sight interface {
	// Prior says whether a policy host or _mta-sts record exists for a domain.
	Prior(ctx context.Context, name policygen.Name) Prior
	// Host says where the policy host points.
	Host(ctx context.Context, name policygen.Name) Host
	// Body fetches the policy from every node and by its public name. LiveFor is left zero.
	Body(ctx context.Context, name policygen.Name, text string) Body
	// TXT asks every authoritative server for the record. Ours is left empty.
	TXT(ctx context.Context, record string) TXT
	// MX compares the domain's MX with a policy text.
	MX(ctx context.Context, name policygen.Name, text string) MX
	// Foreign returns the policy that somebody else serves for the domain; empty: none that is understood.
	Foreign(ctx context.Context, name policygen.Name) string
	// Delegation says whether the domain's _mta-sts is a CNAME to the record.
	Delegation(ctx context.Context, name policygen.Name, record string) Delegation
}

// Certs is what the reconciler asks of package certs.
type Certs interface {
	// Want has a certificate ordered if there is no good one, and kept.
	Want(host string)
	// Unwant stops orders; what is there stays.
	Unwant(host string)
	// Drop deletes certificate and key.
	Drop(ctx context.Context, host string) error
	// Cert says whether a good certificate is served for host.
	Cert(host string) Cert
}

// Config is what a [Reconciler] works with.
type Config struct {
	Store    store.Store
	Snapshot *Snapshot
	Sight    Sight
	Certs    Certs
	Log      *slog.Logger

	// Load reads the configuration anew.
	Load func() (*config.Config, []string, error)
	// Accepted is told of every configuration that was taken; it keeps it.
	Accepted func(context.Context, *config.Config) error
	// OpenAccount makes a DNS account of its configuration.
	OpenAccount func(config.Account) (dnsupdate.Account, error)
	// OnStep, if set, is told of every step that a publication passes or waits at, as it happens.
	OnStep func(name policygen.Name, step, message string)
}

// Reconciler runs the publications of all domains.
type Reconciler struct {
	cfg      Config
	settings atomic.Pointer[settings]
	wake     chan struct{} // capacity 1

	reload sync.Mutex // one Declare or Reload at a time

	mu     sync.Mutex // guards the fields below
	tracks map[policygen.Name]*track
	faults map[string]string // of the service as a whole, by subject
	start  startup

	counting sync.Mutex // guards the fields below
	steps    map[string]int
	counted  time.Time
}

// settings is what a configuration means here. It is replaced as a whole.
type settings struct {
	conf     *config.Config
	accounts map[string]dnsupdate.Account
	mxsets   map[string]policygen.Policy
}

// track is what is remembered in memory of a publication under way.
type track struct {
	text string          // the policy text
	live time.Time       // since when it is seen live without interruption; zero: it is not
	said map[string]bool // what OnStep was told; nil: nothing is to be told
}

// New returns a reconciler that has nothing to do before [Reconciler.Start].
func New(cfg Config) *Reconciler {
	return &Reconciler{
		cfg:    cfg,
		wake:   make(chan struct{}, 1),
		tracks: make(map[policygen.Name]*track),
		faults: make(map[string]string),
	}
}

// Start takes the configuration, and fills the snapshot from the store so that everything served before is served again.
// It refuses what [Reconciler.Reload] refuses.
func (r *Reconciler) Start(ctx context.Context, conf *config.Config) (ReloadReport, error) {
	if err := r.checkClock(ctx); err != nil {
		return ReloadReport{}, err
	}
	if err := r.loadSnapshot(ctx); err != nil {
		return ReloadReport{}, err
	}
	return r.Declare(ctx, conf, false)
}

// loadSnapshot serves what was served, and has those looked at soon whose pass a crash may have cut off. A sample of the
// live ones is compared with DNS before anything may be deleted: the store may be an old copy.
func (r *Reconciler) loadSnapshot(ctx context.Context) error {
	var soon []policygen.Name
	sample := 0
	now := time.Now()
	err := r.cfg.Store.EachDomain(ctx, func(d store.Domain) error {
		r.cfg.Snapshot.Set(d.Name, d.State.Served)
		if d.State.Checked.IsZero() && d.State.ID == "" {
			// Never live: nothing to keep a certificate for yet.
		} else if d.State.Step != StepAway {
			r.cfg.Certs.Want(d.Name.PolicyHost())
		}
		compare := d.State.ID != "" && sample < startSample
		if compare {
			sample++
			r.start.pending(d.Name)
		}
		if compare || d.State.Step != StepLive && d.Due.After(now) && d.Due.Before(now.Add(lease+time.Minute)) {
			soon = append(soon, d.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the domains: %w", err)
	}
	for _, name := range soon {
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
	work := make(chan store.Domain)
	for range workers {
		g.Go(func() error {
			for d := range work {
				r.safePass(ctx, d)
			}
			return nil
		})
	}
	r.dispatch(ctx, work)
	close(work)
	_ = g.Wait()
	return nil
}

// dispatch claims what is due and hands it to the workers.
func (r *Reconciler) dispatch(ctx context.Context, work chan<- store.Domain) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		for ctx.Err() == nil {
			// One at a time a worker is free for, so that a lease runs only while its pass does.
			due, err := r.cfg.Store.Claim(ctx, time.Now(), lease, 1)
			if err != nil && ctx.Err() == nil {
				r.fault("store", fmt.Sprintf("the store does not answer: %v; serving goes on", err))
			}
			if err != nil || len(due) == 0 {
				break
			}
			r.fault("store", "")
			select {
			case work <- due[0]:
			case <-ctx.Done():
				_ = r.cfg.Store.Wake(context.WithoutCancel(ctx), due[0].Name, time.Now()) // a lost wake costs one lease
			}
		}
		timer.Reset(r.sleep(ctx))
	}
}

// sleep is how long nothing is due.
func (r *Reconciler) sleep(ctx context.Context) time.Duration {
	next, err := r.cfg.Store.NextDue(ctx)
	if err != nil {
		return idle
	}
	return min(max(time.Until(next), 10*time.Millisecond), idle)
}

// safePass runs one pass. A panic costs that pass, not the service.
func (r *Reconciler) safePass(ctx context.Context, d store.Domain) {
	defer func() {
		if p := recover(); p != nil {
			r.cfg.Log.Error("pass panicked", "domain", d.Name, "err", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, passLimit)
	defer cancel()
	err := r.pass(ctx, d)
	switch {
	case err == nil, ctx.Err() != nil && errors.Is(err, ctx.Err()):
	case errors.Is(err, store.ErrStale):
		_ = r.Wake(context.WithoutCancel(ctx), d.Name) // its lease ends anyway
	default:
		r.cfg.Log.Error("pass ended", "domain", d.Name, "err", err)
	}
}

// Wake has a domain looked at now.
func (r *Reconciler) Wake(ctx context.Context, name policygen.Name) error {
	if err := r.cfg.Store.Wake(ctx, name, time.Now()); err != nil {
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
