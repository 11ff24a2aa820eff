package httpd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/webhook"
)

// realManager is a reconciler on a real store that takes everything, and looks at nothing: it does not run.
type realManager struct {
	*publish.Reconciler
	store store.Store
}

func (m *realManager) Certificates() certs.Overview { return certs.Overview{} }

func (m *realManager) EachCertificate(func(certs.Named) error) error { return nil }

func (m *realManager) Plan(ctx context.Context, _ string, _ map[string][]byte, progress func(int, int)) (publish.Plan, error) {
	return m.Reconciler.Plan(ctx, fileConfig(), progress)
}

// noSight sees nothing.
type noSight struct{ publish.Sight }

func (noSight) MX(context.Context, policygen.Name, string) publish.MX { return publish.MX{} }

// noCerts has no certificates.
type noCerts struct{}

func (noCerts) Want(string, string, bool)          {}
func (noCerts) Unwant(string)                      {}
func (noCerts) Retry(string)                       {}
func (noCerts) Drop(context.Context, string) error { return nil }
func (noCerts) Cert(host string) publish.Cert {
	return publish.Cert{Reason: "waiting for the certificate of " + host}
}

// deafAccount is a DNS account that is never asked.
type deafAccount struct{ dnsupdate.Account }

func (deafAccount) Provider() string     { return "desec" }
func (deafAccount) Rate() dnsupdate.Rate { return dnsupdate.Rate{Batch: 1} }

// fileConfig is what the configuration file declares.
func fileConfig() *config.Config {
	return &config.Config{
		Server: config.Server{Hostname: serviceHost}, Alias: config.Alias{Zone: "sts.hoster.example", Account: "main"},
		Publish: config.Publish{Settle: time.Minute, TTL: 5 * time.Minute}, Check: config.Check{Every: 24 * time.Hour},
		Accounts: map[string]config.Account{"main": {Name: "main", Provider: "desec"}},
		MXSets: map[string]config.MXSet{"filed": {
			Name: "filed", Policy: policygen.Policy{Mode: policygen.Testing, MaxAge: 86400, MX: []string{"mx.hoster.example"}},
		}},
		Domains: []config.Domain{{Name: "filed.example", MXSet: "filed", Publish: store.PublishZone, Account: "main"}},
		Digest:  "1",
	}
}

// newRealManager starts one. The provider refuses secrets called "wrong", and says nothing to those called "silent".
func newRealManager(t testing.TB, st store.Store) *realManager {
	t.Helper()
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	m := &realManager{store: st}
	m.Reconciler = publish.New(publish.Config{
		Store: st, Snapshot: publish.NewSnapshot(), Sight: noSight{}, Certs: noCerts{},
		Log:         slog.New(slog.NewTextHandler(t.Output(), nil)),
		Load:        func() (*config.Config, []string, error) { return fileConfig(), nil, nil },
		Accepted:    func(context.Context, *config.Config) error { return nil },
		OpenAccount: func(string, config.Account) (dnsupdate.Account, error) { return deafAccount{}, nil },
		CheckAccount: func(ctx context.Context, _ string, a config.Account, _ string) error {
			switch a.APIToken {
			case "wrong":
				return errors.New("the provider refuses the token (401)")
			case "silent":
				<-ctx.Done()
			}
			return ctx.Err()
		},
	})
	if _, err := m.Start(t.Context(), fileConfig()); err != nil {
		t.Fatal(err)
	}
	return m
}

// newWebhooks are webhooks that reach nobody.
func newWebhooks(t testing.TB, st store.Tenancy) *webhook.Webhooks {
	t.Helper()
	events, ok := st.(webhook.Store)
	if !ok {
		t.Fatalf("%T has no webhooks", st)
	}
	return webhook.New(webhook.Config{
		Store: events, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("there is no network") },
	})
}

// runAPI serves the admin API of a real manager at addr.
func runAPI(t testing.TB, addr string) (*adminWorld, *realManager) {
	t.Helper()
	return runAPIOn(t, addr, openStore(t))
}

// openStore makes a store that whoever uses it closes.
func openStore(t testing.TB) store.Store {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// runAPIOn is runAPI on a store, which it closes.
func runAPIOn(t testing.TB, addr string, st store.Store) (*adminWorld, *realManager) {
	t.Helper()
	m := newRealManager(t, st)
	w := &adminWorld{addr: addr, tenancy: m.store}
	w.serve(t, m)
	w.Client = NewClient(w.addr)
	return w, m
}

// serve runs a server of a real manager until stop is called or the test ends.
func (w *adminWorld) serve(t testing.TB, m *realManager) (stop func()) {
	t.Helper()
	return w.serveWith(t, m, newWebhooks(t, m.store))
}

// serveWith is serve with other webhooks.
func (w *adminWorld) serveWith(t testing.TB, m *realManager, hooks *webhook.Webhooks) (stop func()) {
	t.Helper()
	server := NewAdmin(AdminConfig{
		HealthConfig: HealthConfig{Version: "v1.2.3", Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(&w.log, nil))},
		Manager:      m, Tenancy: m.store, Audit: m.store, Webhooks: hooks, requests: rate.Inf,
	})
	ln, err := Listen(t.Context(), w.addr)
	if err != nil {
		t.Fatal(err)
	}
	if ln.Addr().Network() == "tcp" {
		w.addr = ln.Addr().String()
	}
	return background(t, func(ctx context.Context) error { return server.Run(ctx, ln) })
}
