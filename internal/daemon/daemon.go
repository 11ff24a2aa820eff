// Package daemon puts the parts of stspub together: it opens what they need, starts them in order, and stops them in
// order. `stspub serve` and `stspub dev` both run it, so that what is tried on a desk is what runs in production.
//
// It decides nothing about domains (publish), answers nobody (httpd) and knows no flags (cmd/stspub).
package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/webhook"
)

// Options are what a run of the daemon is given.
type Options struct {
	ConfigPath string
	Env        func(string) string // os.Getenv but in tests
	Version    string
	Built      time.Time // of the commit that this was built from: the clock cannot be before it; zero: not known
	DryRun     bool      // DNS writes are refused and logged
	Log        *slog.Logger

	// Reload is asked for a reload by everything received from it; it may be nil.
	Reload <-chan os.Signal
	// OnReload, OnStep and OnReady, where set, are told of reloads, of every step of every publication, and of the moment
	// when all listeners serve.
	OnReload func(publish.ReloadReport, error)
	OnStep   func(name policygen.Name, step, message string)
	OnReady  func()
}

// daemon is one run.
type daemon struct {
	o    Options
	conf *config.Config

	store      store.Store
	opened     config.Store   // what the store is
	keys       *store.Keyring // of the store; nil: it is not sealed
	client     *sender.Client
	observer   *dnsupdate.Observer
	issuers    []*certs.ACME // in order of preference
	gate       *certs.Gate
	keeper     *certs.Keeper
	reconciler *publish.Reconciler
	node       *node
	ours       func(context.Context) ([]netip.Addr, error) // the addresses to which no tenant's account leads
	reloaded   chan struct{}                               // capacity 1: a reload was taken
	registry   *prometheus.Registry
	metrics    *dnsupdate.Metrics

	webhooks      *webhook.Webhooks
	public        *httpd.Public
	admin, health *httpd.Server
	adminTLS      *httpd.Server

	secure, plain, adminLn, adminTLSLn, healthLn net.Listener
}

// Run serves until ctx ends; then it answers what was accepted, lets passes and orders end, and returns nil. An error
// means that it did not start, or that a listener failed.
func Run(ctx context.Context, o Options) error {
	if err := checkClock(time.Now(), o.Built); err != nil {
		return err
	}
	path, err := filepath.Abs(o.ConfigPath) // accepted files are found by it, however the next start spells it
	if err != nil {
		return fmt.Errorf("find configuration %q: %w", o.ConfigPath, err)
	}
	o.ConfigPath = path
	d := &daemon{o: o, reloaded: make(chan struct{}, 1), registry: prometheus.NewRegistry(), metrics: dnsupdate.NewMetrics()}
	fault, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := d.store.Close(); err != nil {
			o.Log.Error("store not closed", "err", err)
		}
	}()
	defer d.closeListeners()
	if err := d.begin(ctx); err != nil {
		return errors.Join(fault, err)
	}
	return d.run(ctx, fault)
}

// begin does everything that senders wait for.
func (d *daemon) begin(ctx context.Context) error {
	if err := d.listen(ctx); err != nil {
		return err
	}
	if err := d.assemble(ctx); err != nil {
		return err
	}
	if err := d.node.join(ctx); err != nil {
		return err
	}
	return d.fill(ctx)
}

// listen opens all listeners before anything has begun, so that a port that is taken changes nothing.
func (d *daemon) listen(ctx context.Context) error {
	for _, l := range []struct {
		to        *net.Listener
		key, addr string
	}{
		{&d.secure, "server.https", d.conf.Server.HTTPS},
		{&d.plain, "server.http", d.conf.Server.HTTP},
		{&d.adminLn, "server.admin", d.conf.Server.Admin},
		{&d.adminTLSLn, "server.admin_tls", d.conf.Server.AdminTLS},
		{&d.healthLn, "server.health", d.conf.Server.Health},
	} {
		if l.addr == "" {
			continue
		}
		ln, err := httpd.Listen(ctx, l.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", l.key, err)
		}
		*l.to = ln
	}
	d.secure = httpd.BehindProxies(d.secure, d.conf.Server.Proxies)
	if d.plain != nil {
		d.plain = httpd.BehindProxies(d.plain, d.conf.Server.Proxies)
	}
	return nil
}

func (d *daemon) closeListeners() {
	for _, ln := range []net.Listener{d.secure, d.plain, d.adminLn, d.adminTLSLn, d.healthLn} {
		if ln != nil {
			_ = ln.Close() // a second Close is the normal case
		}
	}
}

// assemble makes the parts. Nothing runs yet.
func (d *daemon) assemble(ctx context.Context) error {
	roots, err := trust(d.conf.Check.CAFile)
	if err != nil {
		return err
	}
	resolver := &sender.Resolver{Servers: d.conf.DNS.Resolvers, Stub: d.conf.DNS.Stub}
	d.client = &sender.Client{
		Resolver: resolver, Roots: roots, HTTPSPort: d.conf.Check.HTTPSPort, SMTPPort: d.conf.Check.SMTPPort, HELO: d.conf.Server.Hostname,
	}
	d.observer = &dnsupdate.Observer{
		Resolver: resolver, Guard: &sender.Guard{Private: d.conf.Check.AllowPrivate}, Own: d.writesIn,
	}
	if d.node, err = d.newNode(ctx); err != nil {
		return err
	}
	responder := certs.NewResponder(d.store, d.o.Log)
	authorities, budgets, err := d.authorities()
	if err != nil {
		return err
	}
	outside := &publish.Outside{
		Client: d.client, Observer: d.observer, Hostname: d.conf.Server.Hostname, Addresses: d.conf.Server.Addresses,
		Node: dialable(d.secure.Addr()), Peers: d.node.peers, Values: d.store,
	}
	d.client.Dial = d.guard(outside).Dial
	d.ours = d.ownAddresses(outside)
	d.gate = &certs.Gate{
		Client: d.client, Home: outside.Home, Values: d.store, HTTPPort: d.conf.Check.HTTPPort, HTTPSPort: d.conf.Check.HTTPSPort,
	}
	d.keeper = certs.New(certs.Config{
		Store: d.store, Authorities: authorities, Budgets: budgets, Challenge: responder.GetCertificate, Gate: d.admit,
		Log: d.o.Log, OnChange: d.certChanged, Copy: copyPath(d.conf), Shared: d.conf.Store.Postgres != "",
		Keys: d.keys,
	})
	snapshot := publish.NewSnapshot()
	d.reconciler = publish.New(publish.Config{
		Store: d.store, Node: d.node.shared(), Snapshot: snapshot, Certs: certView{d.keeper, d.conf.Server.Hostname}, Log: d.o.Log,
		Sight:       outside,
		Load:        d.reread,
		Accepted:    d.accept,
		OpenAccount: d.openAccount, CheckAccount: d.checkAccount, Prover: outside,
		OnStep: d.o.OnStep,
	})
	d.webhooks = webhook.New(webhook.Config{
		Store: d.store, Dial: (&sender.Guard{Private: d.conf.Check.AllowPrivate}).Dial, Roots: roots, Log: d.o.Log,
		Fault: d.reconciler.SetFault,
	})
	d.public, err = httpd.NewPublic(httpd.PublicConfig{
		Hostname: d.conf.Server.Hostname, Target: d.conf.Server.Hostname, Policies: snapshot,
		GetCertificate: d.keeper.GetCertificate, Serves: d.keeper.Serves, Values: d.store, Log: d.o.Log,
		Challenges: func(fallback http.Handler) http.Handler {
			return d.keeper.FewStrangers(responder.HTTPHandler(fallback), fallback)
		},
	})
	if err != nil {
		return err
	}
	health := httpd.HealthConfig{Version: d.o.Version, Ready: d.node.ready, Serves: d.node.serves, Metrics: d.registry, Log: d.o.Log}
	d.assembleAdmin(health)
	d.health = httpd.NewHealth(health)
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, cs := range [][]prometheus.Collector{
		d.keeper.Collectors(), d.reconciler.Collectors(), d.public.Collectors(), d.metrics.Collectors(), d.webhooks.Collectors(),
	} {
		d.registry.MustRegister(cs...)
	}
	return nil
}

// assembleAdmin makes the listeners of the admin API.
func (d *daemon) assembleAdmin(health httpd.HealthConfig) {
	cfg := httpd.AdminConfig{
		HealthConfig: health, Manager: manager{d.reconciler, d}, Tenancy: d.store, Audit: d.store, Webhooks: d.webhooks,
	}
	d.admin = httpd.NewAdmin(cfg)
	if d.adminTLSLn != nil {
		pair := httpd.NewKeyPair(d.conf.Server.AdminCertFile, d.conf.Server.AdminKeyFile, d.o.Log)
		cfg.TLS = &tls.Config{GetCertificate: pair.GetCertificate, MinVersion: tls.VersionTLS12}
		d.adminTLS = httpd.NewAdmin(cfg)
	}
}

// authorities makes those of the configuration, with their budgets.
func (d *daemon) authorities() (all []certs.Authority, budgets []config.Budget, err error) {
	for _, table := range d.conf.ACME {
		a, err := certs.NewACME(table, d.store, d.o.Log)
		if err != nil {
			return nil, nil, fmt.Errorf("acme.%s: %w", table.Name, err)
		}
		d.issuers = append(d.issuers, a)
		all, budgets = append(all, a), append(budgets, table.Budget)
	}
	return all, budgets, nil
}

// fill reads what is served into memory.
func (d *daemon) fill(ctx context.Context) error {
	last, err := d.store.LastChange(ctx)
	if err != nil {
		return err
	}
	d.node.served.Store(last)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.keeper.Load(ctx) })
	g.Go(func() error { return d.reconciler.Serve(ctx) })
	return g.Wait()
}

// start takes the configuration.
func (d *daemon) start(ctx context.Context) error {
	report, err := d.reconciler.Start(ctx, d.conf)
	if err == nil {
		err = d.keepServer(ctx, d.conf) // the same file may have been accepted at another node
	}
	if err != nil {
		return err
	}
	d.o.Log.Info("configuration taken", "added", report.Added, "changed", report.Changed, "removed", report.Removed,
		"restored", report.Restored, "digest", d.conf.Digest)
	d.conf = d.conf.Lean()
	return nil
}

// run serves, takes the configuration, and has everything work until ctx ends. Then it says that it is not ready, after a
// while its listeners stop, and the workers when nobody is left to be served.
func (d *daemon) run(ctx context.Context, fault error) error {
	serve, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	servers, serving := errgroup.WithContext(serve)
	servers.Go(func() error { return d.public.Run(serving, d.secure, d.plain) })
	if d.healthLn != nil {
		servers.Go(func() error { return d.health.Run(serving, d.healthLn) })
	}
	told := context.AfterFunc(ctx, stopServing)
	err := d.start(serving)
	told()
	if err != nil {
		stopServing()
		last := d.leave(ctx, servers.Wait())
		if ctx.Err() != nil { // we are told to stop, which is no fault
			return last
		}
		return errors.Join(fault, err, last)
	}
	if fault != nil {
		d.reconciler.SetFault("configuration", "the last accepted configuration is served, because of this one: "+fault.Error())
	}
	servers.Go(func() error { return d.admin.Run(serving, d.adminLn) })
	if d.adminTLS != nil {
		servers.Go(func() error { return d.adminTLS.Run(serving, d.adminTLSLn) })
	}
	servers.Go(func() error { d.node.linger(ctx, serving); stopServing(); return nil })
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	workers, working := errgroup.WithContext(work)
	workers.Go(func() error { return d.keeper.Run(working) })
	workers.Go(func() error { return d.keeper.RunCopies(working) })
	workers.Go(func() error { return d.reconciler.Run(working) })
	workers.Go(func() error { d.node.run(working); return nil })
	workers.Go(func() error { return d.webhooks.Run(working) })
	workers.Go(func() error { d.reseal(working); return nil })
	workers.Go(func() error { d.prune(working); return nil })
	workers.Go(func() error { d.preflight(working); return nil })
	workers.Go(func() error { d.reloads(working); return nil })
	d.o.Log.Info("serving", "dry_run", d.o.DryRun, "https", d.secure.Addr().String(), "version", d.o.Version)
	if d.o.OnReady != nil {
		d.o.OnReady()
	}
	err = servers.Wait()
	stop()
	return d.leave(ctx, errors.Join(err, workers.Wait()))
}

// leave ends a run, in which nothing works any more, with what came of it.
func (d *daemon) leave(ctx context.Context, err error) error {
	ctx = context.WithoutCancel(ctx)
	d.node.gone(ctx)
	return errors.Join(err, d.keeper.LastCopy(ctx))
}

// reseal seals with the newest key what is not. What it does not get to, the next start does.
func (d *daemon) reseal(ctx context.Context) {
	done, err := d.store.Reseal(ctx)
	if done.Damaged > 0 {
		d.o.Log.Error("left damaged secrets in the store; certificates are ordered again, accounts have to be set again", "count", done.Damaged)
	}
	switch {
	case err != nil && ctx.Err() == nil:
		d.o.Log.Error("secrets of the store not all sealed with the newest key; the next start tries again", "err", err)
	case err == nil && len(done.Used) > 0:
		d.o.Log.Info("sealed the secrets of the store with the newest key; other nodes use old ones still", "count", done.Rows, "keys", done.Used)
	case err == nil && len(done.Dropped) > 0:
		d.o.Log.Info("sealed the secrets of the store with the newest key; old ones may go", "count", done.Rows)
	}
}

// reloads answers signals. The reload itself says in the log what it did or why it did nothing.
func (d *daemon) reloads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.o.Reload:
		}
		report, err := manager{d.reconciler, d}.Reload(store.WithActor(ctx, store.ActorFile), "")
		if err != nil {
			d.o.Log.Error("configuration not taken; everything stays as it was", "err", err)
		}
		for _, w := range report.Warnings {
			d.o.Log.Warn(w)
		}
		if d.o.OnReload != nil {
			d.o.OnReload(report, err)
		}
	}
}

// certChanged has the domain of a certificate looked at.
func (d *daemon) certChanged(ctx context.Context, host string) {
	d.checkSkew(ctx)
	name, err := policygen.ParseName(trimPolicyHost(host))
	if err != nil || host != name.PolicyHost() {
		return // the service's own certificate
	}
	if err := d.reconciler.Wake(ctx, name); err != nil && !errors.Is(err, store.ErrNotFound) {
		d.o.Log.Warn("domain not woken", "domain", name, "err", err)
	}
}

// trust is the system's roots, and those of a file.
func trust(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // the system's, as crypto/x509 has it
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("check.ca_file: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("check.ca_file: %s holds no certificate in PEM", file)
	}
	return roots, nil
}

// dialable is a listener's address as this node itself reaches it.
func dialable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// checkClock refuses a clock that cannot be right: one from before this program was written. RFC 8461 lives on time:
// certificates, max_age, horizons. A day is for clocks of developers that are ahead.
func checkClock(now, built time.Time) error {
	if written := time.Date(2026, time.November, 22, 0, 0, 0, 0, time.UTC); built.Before(written) {
		built = written
	}
	if now.Before(built.AddDate(0, 0, -1)) {
		return fmt.Errorf("the clock says %s, and this program is of %s; set the clock before starting",
			now.UTC().Format(time.RFC3339), built.UTC().Format(time.RFC3339))
	}
	return nil
}
