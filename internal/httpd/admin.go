package httpd

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// A Manager does what the admin API asks for. Its methods may be called at the same time.
type Manager interface {
	Tenants

	// Faults returns the faults of the service as a whole, by subject.
	Faults() map[string]string
	// Nodes returns the nodes on the store that are not gone.
	Nodes(ctx context.Context) ([]publish.NodeStatus, error)
	// RemoveNode declares a node gone, or returns store.ErrNotFound. One that lives is refused.
	RemoveNode(ctx context.Context, id string) error
	// Certificates says how it stands with all certificates.
	Certificates() certs.Overview
	// EachCertificate calls f for every name that is wanted or has a certificate, by name, until f returns an error, which
	// it returns.
	EachCertificate(f func(certs.Named) error) error
	// Plan says what a configuration would change: that of files, by path, of which the one at path comes first, or with
	// nil that which Reload would read. Progress is told of how many look-ups are done, about once a second. When the
	// configuration is broken the error wraps publish.ErrRefused and is shown to the operator.
	Plan(ctx context.Context, path string, files map[string][]byte, progress func(done, total int)) (publish.Plan, error)
	// Reload reads the configuration again and declares it; the hash of a plan, which may be empty, lets through what is
	// refused otherwise. When it changed nothing because the configuration is broken or refused, the error wraps
	// publish.ErrRefused and is shown to the operator.
	Reload(ctx context.Context, hash string) (publish.ReloadReport, error)

	// Adopt allows the foreign record of a domain to be replaced, or returns store.ErrNotFound.
	Adopt(ctx context.Context, name policygen.Name) error
	// Promote ends the roll-out of a domain, or with testing takes it back to mode testing.
	Promote(ctx context.Context, name policygen.Name, testing bool) error
	// Expel ends the drain of a domain now.
	Expel(ctx context.Context, name policygen.Name) error
	// Retry has a domain looked at now, and its certificate ordered without a pause, or returns store.ErrNotFound.
	Retry(ctx context.Context, name policygen.Name) error
}

// Tenants is the part of a [Manager] about what a tenant has. Nothing of another tenant's is there; what its methods do and
// return is said at those of [publish.Reconciler].
type Tenants interface {
	TenantOf(ctx context.Context, name policygen.Name) (string, error)
	StatusOf(ctx context.Context, tenant string, name policygen.Name) (publish.Status, error)
	StatusesOf(ctx context.Context, tenant string, f store.DomainFilter, after policygen.Name, n int) ([]publish.Status, error)
	SharedOf(ctx context.Context, tenant string) ([]publish.Status, error)
	Apply(ctx context.Context, tenant string, changes []publish.Change, o publish.ApplyOptions) ([]publish.Outcome, error)
	Release(ctx context.Context, tenant string, name policygen.Name, released bool) error

	Claims(ctx context.Context, tenant string, after policygen.Name, n int) ([]publish.Claim, error)
	Claim(ctx context.Context, tenant string, name policygen.Name) (publish.Claim, error)
	LookAtClaim(ctx context.Context, tenant string, name policygen.Name) error

	MXSets(tenant string) []publish.MXSet
	MXSet(tenant, name string) (publish.MXSet, error)
	PutMXSet(ctx context.Context, tenant string, m publish.MXSet, ifMatch string) (bool, error)
	PlanMXSet(ctx context.Context, tenant string, m publish.MXSet) (publish.Plan, error)
	DeleteMXSet(ctx context.Context, tenant, name, ifMatch string) error

	Accounts(tenant string) []publish.Account
	PutAccount(ctx context.Context, tenant string, a config.Account, zone, ifMatch string) (publish.Account, string, error)
	DeleteAccount(ctx context.Context, tenant, name, ifMatch string) error
}

// HealthConfig is what [NewHealth] needs, and [NewAdmin] too.
type HealthConfig struct {
	// Version is the program's, as /healthz shows it.
	Version string
	// Ready says why this node should get no requests now, in words that anybody may read, or nil. It is asked by
	// /readyz with a context of 5 seconds. Nil: it always should.
	Ready func(context.Context) error
	// Serves says why this node should get no requests even if no other is ready, for /servez; as Ready in all else.
	Serves func(context.Context) error
	// Metrics are what /metrics shows.
	Metrics prometheus.Gatherer
	Log     *slog.Logger
}

// AdminConfig is what [NewAdmin] needs.
type AdminConfig struct {
	HealthConfig
	Manager Manager
	Tenancy store.Tenancy
	Audit   Audit
	// Webhooks are those of all tenants, and of the service.
	Webhooks Webhooks
	// TLS, if not nil, is what the listener speaks; everybody needs a token then.
	TLS *tls.Config

	requests rate.Limit // of a tenant in a second; 0: requestsASecond. For tests that ask for very much.
}

// internalConns is enough for the clients of our own; a listing takes one connection.
const internalConns = 256

// listingTime bounds an admin answer. A million domains over a slow terminal connection fit in it.
const listingTime = 10 * time.Minute

// NewHealth returns the plain server for load balancers and probes: /healthz says that the process answers, /readyz
// whether it should get requests, /servez whether it should get some where no node is ready, /metrics is for Prometheus. It
// changes nothing and shows no domain.
func NewHealth(cfg HealthConfig) *Server {
	r := newRouter()
	(&health{cfg, cfg.Log}).routes(r)
	return newServer(r, internalConns, cfg.Log)
}

// NewAdmin returns the server that the commands talk to, by [Client]. On a unix socket whoever can connect may do
// everything: that is for the file's permissions to say. On a loopback port every local user may, until the first token is
// made; browsers are kept out there, because a web page from anywhere may make a browser connect to it. With TLS, and with
// a token from then on, a caller may do what his token allows: all, or all of a tenant, or only look.
//
// Beside what [NewHealth] answers there is the API under /v1, which /openapi.json describes. Errors are problem documents.
// RFC 9457. What a tenant is answered does not depend on what another has, but for the one word "taken", the numbers of events
// and the places that all tenants share.
func NewAdmin(cfg AdminConfig) *Server {
	a := &admin{
		manager: cfg.Manager, tenancy: cfg.Tenancy, webhooks: cfg.Webhooks, audit: cfg.Audit, tls: cfg.TLS, log: cfg.Log,
		failures: failures{from: make(map[netip.Prefix]*rate.Limiter)},
		shares:   newShares(cmp.Or(cfg.requests, requestsASecond)),
		doubtful: make(chan struct{}, 1),
	}
	r := newRouter()
	r.Use(a.handled(a.keepBrowsersOut), a.authenticate)
	(&health{cfg.HealthConfig, cfg.Log}).routes(r)
	a.api = newAPI(r, cfg.Version, a.authorize)
	a.domainRoutes()
	a.setRoutes()
	a.tenantRoutes()
	a.webhookRoutes()
	a.serviceRoutes()
	a.nodeRoutes()
	a.eventRoutes()
	a.describe(r)

	s := newServer(r, internalConns, cfg.Log)
	a.stopping = s.stopping
	s.http.WriteTimeout = listingTime
	s.http.TLSConfig = cfg.TLS
	return s
}

// health answers what both internal servers answer.
type health struct {
	cfg HealthConfig
	log *slog.Logger
}

func (h *health) routes(r chi.Router) {
	r.Get("/healthz", handler(h.log, h.healthz))
	r.Get("/readyz", handler(h.log, h.probe(h.cfg.Ready, "ready")))
	r.Get("/servez", handler(h.log, h.probe(h.cfg.Serves, "serving")))
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(h.cfg.Metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}))
}

// state is the answer of /healthz, /readyz and /servez.
type state struct {
	Status  string `json:"status"`
	Version string `json:"version"`
}

func (h *health) healthz(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, state{"ok", h.cfg.Version})
}

// probe answers with what is good, or why it is not.
func (h *health) probe(ask func(context.Context) error, good string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if ask != nil {
			ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
			defer cancel()
			if err := ask(ctx); err != nil {
				return &Problem{Status: http.StatusServiceUnavailable, Detail: "not " + good + ": " + err.Error()}
			}
		}
		return writeJSON(w, state{good, h.cfg.Version})
	}
}

type admin struct {
	manager  Manager
	tenancy  store.Tenancy
	webhooks Webhooks
	audit    Audit
	tls      *tls.Config
	log      *slog.Logger
	api      huma.API
	failures failures
	shares   *shares

	stopping <-chan struct{} // closed when the server is to stop
	doubtful chan struct{}   // held while a token is looked at from where many were wrong
}

func (a *admin) handle(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return handler(a.log, f)
}

// handled makes a middleware of a check.
func (a *admin) handled(check func(*http.Request) error) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return a.handle(func(w http.ResponseWriter, r *http.Request) error {
			if err := check(r); err != nil {
				return err
			}
			next.ServeHTTP(w, r)
			return nil
		})
	}
}

// keepBrowsersOut refuses what a web page can make the browser of a user on this machine send: requests under a name
// that was made to point here (DNS rebinding), requests from another origin, and forms.
func (a *admin) keepBrowsersOut(r *http.Request) error {
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && addr.Network() == "unix" {
		return nil // no browser connects to a socket file
	}
	if a.tls != nil {
		return nil // no web page makes a browser send a token, and nothing is done without
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(r.Host); err == nil {
		host = name
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return &Problem{Status: http.StatusForbidden, Detail: fmt.Sprintf("the admin API answers to loopback names only, not to Host %q", r.Host)}
	}
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		return &Problem{Status: http.StatusForbidden, Detail: "the admin API is not for web pages: " + err.Error()}
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch kind {
	case "application/x-www-form-urlencoded", "multipart/form-data", "text/plain":
		return &Problem{Status: http.StatusUnsupportedMediaType, Detail: "the admin API takes no forms"}
	}
	return nil
}
