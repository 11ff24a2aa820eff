package dnsupdate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
)

// callTimeout bounds one Apply, so that a write never lands after its lease in the store is over.
const callTimeout = 30 * time.Second

// backend is the provider's part of an account. Its errors hold a [*fault]. It asks [guard.permit] before each request.
type backend interface {
	apply(ctx context.Context, c Change) error
}

// guard is the part that all accounts share: one writer per name, deadline, rate limit, typed errors, metrics.
type guard struct {
	name, provider string
	backend        backend
	limit          *rate.Limiter
	perChange      float64 // requests that a change takes when there are many
	batch          int     // changes in one request
	log            *slog.Logger
	metrics        *Metrics
	dryRun         bool
	dial           func(ctx context.Context, network, address string) (net.Conn, error)
	locks          locks

	mu          sync.Mutex // guards pausedUntil
	pausedUntil time.Time
}

func newGuard(a config.Account, o Options) *guard {
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	return &guard{
		name: a.Name, provider: a.Provider, log: o.Log, metrics: o.Metrics, dryRun: o.DryRun, dial: o.Dial,
		locks:     locks{held: make(map[string]*lock)},
		perChange: 3, // a look, the write, another look
		batch:     1,
	}
}

// Name returns the account's name in the configuration.
func (g *guard) Name() string { return g.name }

// Provider returns its provider.
func (g *guard) Provider() string { return g.provider }

// Rate returns what the limit lets through.
func (g *guard) Rate() Rate {
	return Rate{Changes: float64(g.limit.Limit()) / g.perChange, Batch: g.batch}
}

// Apply keeps the contract of [Account].
func (g *guard) Apply(ctx context.Context, c Change) error {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("not done within %v", callTimeout))
	defer cancel()
	c.Zone, c.Name = unfqdn(c.Zone), unfqdn(c.Name)
	err := g.apply(ctx, c)
	if err == nil {
		g.metrics.wrote(g.name, "ok", time.Since(start))
		return nil
	}
	e := g.explain(ctx, c, err)
	g.metrics.wrote(g.name, string(e.Kind), time.Since(start))
	if e.Kind == KindDryRun {
		g.log.Info("dry run: would write TXT", "account", g.name, "zone", c.Zone, "record", c.Name,
			"remove", c.Remove, "add", c.Add, "ttl", c.TTL)
	}
	return e
}

func (g *guard) apply(ctx context.Context, c Change) (err error) {
	defer func() {
		if perr := g.survived(recover(), c.Zone); perr != nil {
			err = perr
		}
	}()
	if err := c.check(); err != nil {
		return err
	}
	unlock, err := g.locks.lock(ctx, c.Name)
	if err != nil {
		return err
	}
	defer unlock()
	return g.backend.apply(ctx, c)
}

// survived makes an error of what a panic left, for the deferred function that recovered it; nil: nothing did.
func (g *guard) survived(r any, zone string) error {
	if r == nil {
		return nil
	}
	g.log.Error("dns provider panicked", "account", g.name, "provider", g.provider, "zone", zone, "stack", string(debug.Stack()))
	return &fault{op: opWrite, kind: KindInternal, err: fmt.Errorf("panic: %v", r)}
}

// explain makes an [Error] of whatever went wrong.
func (g *guard) explain(ctx context.Context, c Change, err error) *Error {
	f, ok := errors.AsType[*fault](err)
	if !ok {
		f = &fault{op: opRead, kind: KindUnavailable, err: err}
	}
	cause := f.err
	if f.kind == KindUnavailable && ctx.Err() != nil {
		cause = context.Cause(ctx)
	}
	return &Error{
		Account: g.name, Provider: g.provider, Op: f.op, Zone: c.Zone, Name: c.Name,
		Kind: f.kind, RetryAfter: f.retryAfter, Err: cause,
	}
}

// permit waits until one more request may be sent. It does not wait for what will not be before the deadline.
func (g *guard) permit(ctx context.Context) error {
	g.mu.Lock()
	pause := time.Until(g.pausedUntil)
	g.mu.Unlock()
	if pause > 0 {
		return limited(pause, errors.New("the provider asked to wait"))
	}
	r := g.limit.Reserve()
	wait := r.Delay()
	if deadline, ok := ctx.Deadline(); ok && wait > time.Until(deadline) {
		r.Cancel()
		return limited(wait, errors.New("too many changes are waiting"))
	}
	if err := sleep(ctx, wait); err != nil {
		r.Cancel()
		return err
	}
	g.metrics.requested(g.name)
	return nil
}

// pause stops all requests of the account for a time.
func (g *guard) pause(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until := time.Now().Add(d); until.After(g.pausedUntil) {
		g.pausedUntil = until
	}
}

func limited(d time.Duration, err error) *fault {
	return &fault{op: opRead, kind: KindRateLimited, retryAfter: d, err: err}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unfqdn is the spelling of names in this package: lower case, without trailing dot, "." for the root.
func unfqdn(name string) string {
	if name = dns.CanonicalName(name); name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}

// locks are mutexes by name that a context can stop waiting for.
type locks struct {
	mu   sync.Mutex // guards held and the counts in it
	held map[string]*lock
}

type lock struct {
	sem  chan struct{}
	uses int // who holds it or waits for it
}

func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	k := l.held[name]
	if k == nil {
		k = &lock{sem: make(chan struct{}, 1)}
		l.held[name] = k
	}
	k.uses++
	l.mu.Unlock()

	release := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.uses--; k.uses == 0 {
			delete(l.held, name)
		}
	}
	select {
	case k.sem <- struct{}{}:
		return func() { <-k.sem; release() }, nil
	case <-ctx.Done():
		release()
		return nil, ctx.Err()
	}
}
