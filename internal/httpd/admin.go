package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

// A Manager does what the admin API asks for. Its methods may be called at the same time.
type Manager interface {
	// EachStatus calls f for every domain by name until f returns an error, which it returns. The statuses come without
	// their history.
	EachStatus(ctx context.Context, f func(publish.Status) error) error
	// Status returns one domain with its history, or store.ErrNotFound.
	Status(ctx context.Context, name policygen.Name) (publish.Status, error)
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
	// Adopt allows the foreign record of a domain to be replaced, or returns store.ErrNotFound.
	Adopt(ctx context.Context, name policygen.Name) error
	// Promote ends the roll-out of a domain, or with testing takes it back to mode testing.
	Promote(ctx context.Context, name policygen.Name, testing bool) error
	// Expel ends the drain of a domain now.
	Expel(ctx context.Context, name policygen.Name) error
	// Retry has a domain looked at now, and its certificate ordered without a pause, or returns store.ErrNotFound.
	Retry(ctx context.Context, name policygen.Name) error
	// Plan says what a configuration would change: that of files, by path, of which the one at path comes first, or with
	// nil that which Reload would read. Progress is told of how many look-ups are done, about once a second. When the
	// configuration is broken the error wraps publish.ErrRefused and is shown to the operator.
	Plan(ctx context.Context, path string, files map[string][]byte, progress func(done, total int)) (publish.Plan, error)
	// Reload reads the configuration again and declares it; the hash of a plan, which may be empty, lets through what is
	// refused otherwise. When it changed nothing because the configuration is broken or refused, the error wraps
	// publish.ErrRefused and is shown to the operator.
	Reload(ctx context.Context, hash string) (publish.ReloadReport, error)
}

// HealthConfig is what [NewHealth] needs, and [NewAdmin] too.
type HealthConfig struct {
	// Version is the program's, as /healthz shows it.
	Version string
	// Ready says why this node should get no requests now, in words that anybody may read, or nil. It is asked by
	// /readyz with a context of 5 seconds. Nil: it always should.
	Ready func(context.Context) error
	// Metrics are what /metrics shows.
	Metrics prometheus.Gatherer
	Log     *slog.Logger
}

// AdminConfig is what [NewAdmin] needs.
type AdminConfig struct {
	HealthConfig
	Manager Manager
}

// internalConns is enough for the clients of our own; a listing takes one connection.
const internalConns = 256

// listingTime bounds an admin answer. A million domains over a slow terminal connection fit in it.
const listingTime = 10 * time.Minute

// NewHealth returns the plain server for load balancers and probes: /healthz says that the process answers, /readyz
// whether it should get requests, /metrics is for Prometheus. It changes nothing and shows no domain.
func NewHealth(cfg HealthConfig) *Server {
	r := newRouter()
	(&health{cfg, cfg.Log}).routes(r)
	return newServer(r, internalConns, cfg.Log)
}

// NewAdmin returns the server that the commands talk to, by [Client]. Whoever can connect to it may do everything: on a
// unix socket that is for the file's permissions to say. On a loopback port every local user can; browsers are kept out
// there, because a web page from anywhere may make a browser connect to it.
//
//	GET  /healthz, /readyz, /metrics   as with NewHealth
//	GET  /v1/domains[?faults=1]        all domains, or those in need of a human: a JSON array, or a line for each
//	                                   with "Accept: application/x-ndjson"
//	GET  /v1/domains/NAME              one domain, with history
//	POST /v1/domains/NAME/adopt        204
//	POST /v1/domains/NAME/promote[?testing=1]   204
//	POST /v1/domains/NAME/expel                 204
//	POST /v1/domains/NAME/retry                 204
//	GET  /v1/faults                    faults of the service as a whole, by subject
//	GET  /v1/certificates              how it stands with all certificates, and with each CA
//	GET  /v1/certificates/names[?waiting=1]   all names with their certificates, or those with more to say than that it is
//	                                   good: as /v1/domains
//	POST /v1/plan                      what the configuration file, or with a body that of [PlanRequest], would change
//	POST /v1/reload[?force=HASH]       what was changed
//
// Errors are problem documents. RFC 9457.
func NewAdmin(cfg AdminConfig) *Server {
	a := &admin{cfg.Manager, cfg.Log}
	r := newRouter()
	r.Use(a.handled(keepBrowsersOut))
	(&health{cfg.HealthConfig, cfg.Log}).routes(r)
	r.Get("/v1/domains", a.handle(a.domains))
	r.Get("/v1/domains/{name}", a.handle(a.domain))
	r.Post("/v1/domains/{name}/adopt", a.handle(a.adopt))
	r.Post("/v1/domains/{name}/promote", a.handle(a.promote))
	r.Post("/v1/domains/{name}/expel", a.handle(a.expel))
	r.Post("/v1/domains/{name}/retry", a.handle(a.retry))
	r.Get("/v1/faults", a.handle(a.faults))
	r.Get("/v1/certificates", a.handle(a.certificates))
	r.Get("/v1/certificates/names", a.handle(a.names))
	a.nodeRoutes(r)
	r.Post("/v1/plan", a.handle(a.plan))
	r.Post("/v1/reload", a.handle(a.reload))

	s := newServer(r, internalConns, cfg.Log)
	s.http.WriteTimeout = listingTime
	return s
}

// health answers what both internal servers answer.
type health struct {
	cfg HealthConfig
	log *slog.Logger
}

func (h *health) routes(r chi.Router) {
	r.Get("/healthz", handler(h.log, h.healthz))
	r.Get("/readyz", handler(h.log, h.readyz))
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(h.cfg.Metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}))
}

// state is the answer of /healthz and /readyz.
type state struct {
	Status  string `json:"status"`
	Version string `json:"version"`
}

func (h *health) healthz(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, state{"ok", h.cfg.Version})
}

func (h *health) readyz(w http.ResponseWriter, r *http.Request) error {
	if h.cfg.Ready != nil {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		if err := h.cfg.Ready(ctx); err != nil {
			return &Problem{Status: http.StatusServiceUnavailable, Detail: "not ready: " + err.Error()}
		}
	}
	return writeJSON(w, state{"ready", h.cfg.Version})
}

type admin struct {
	manager Manager
	log     *slog.Logger
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
func keepBrowsersOut(r *http.Request) error {
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && addr.Network() == "unix" {
		return nil // no browser connects to a socket file
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

func (a *admin) domains(w http.ResponseWriter, r *http.Request) error {
	faults, err := flag(r, "faults")
	if err != nil {
		return err
	}
	return a.list(w, r, func(add func(any) error) error {
		return a.manager.EachStatus(r.Context(), func(s publish.Status) error {
			if faults && !s.Fault {
				return nil
			}
			return add(s)
		})
	})
}

// list answers with what each adds.
func (a *admin) list(w http.ResponseWriter, r *http.Request, each func(add func(any) error) error) error {
	list := &listing{w: w, lines: strings.Contains(r.Header.Get("Accept"), linesType)}
	err := each(list.add)
	if err == nil {
		err = list.end()
	}
	if err == nil || !list.begun {
		return err
	}
	// The status 200 is out already. Only a connection that breaks tells the client that the list is not whole.
	if r.Context().Err() == nil {
		a.log.Error("cut a listing short", "err", err)
	}
	panic(http.ErrAbortHandler)
}

func (a *admin) certificates(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, a.manager.Certificates())
}

func (a *admin) names(w http.ResponseWriter, r *http.Request) error {
	waiting, err := flag(r, "waiting")
	if err != nil {
		return err
	}
	return a.list(w, r, func(add func(any) error) error {
		return a.manager.EachCertificate(func(n certs.Named) error {
			if waiting && !n.Waits() {
				return nil
			}
			return add(n)
		})
	})
}

func (a *admin) domain(w http.ResponseWriter, r *http.Request) error {
	name, err := pathName(r)
	if err != nil {
		return err
	}
	status, err := a.manager.Status(r.Context(), name)
	if err != nil {
		return notFound(name, err)
	}
	return writeJSON(w, status)
}

func (a *admin) adopt(w http.ResponseWriter, r *http.Request) error {
	return a.act(w, r, a.manager.Adopt)
}

func (a *admin) promote(w http.ResponseWriter, r *http.Request) error {
	testing, err := flag(r, "testing")
	if err != nil {
		return err
	}
	return a.act(w, r, func(ctx context.Context, name policygen.Name) error { return a.manager.Promote(ctx, name, testing) })
}

func (a *admin) expel(w http.ResponseWriter, r *http.Request) error {
	return a.act(w, r, a.manager.Expel)
}

func (a *admin) retry(w http.ResponseWriter, r *http.Request) error {
	return a.act(w, r, a.manager.Retry)
}

// act does something with the domain of the path.
func (a *admin) act(w http.ResponseWriter, r *http.Request, do func(context.Context, policygen.Name) error) error {
	name, err := pathName(r)
	if err != nil {
		return err
	}
	if err := do(r.Context(), name); err != nil {
		return refusal(notFound(name, err))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *admin) faults(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, a.manager.Faults())
}

func (a *admin) reload(w http.ResponseWriter, r *http.Request) error {
	report, err := a.manager.Reload(r.Context(), r.URL.Query().Get("force"))
	if err != nil {
		return refusal(err)
	}
	return writeJSON(w, report)
}

// pathName returns the domain of a path, which may be written in every way that [policygen.ParseName] takes.
func pathName(r *http.Request) (policygen.Name, error) {
	raw := chi.URLParam(r, "name")
	if r.URL.RawPath != "" { // then chi has matched the escaped path
		var err error
		if raw, err = url.PathUnescape(raw); err != nil {
			return "", &Problem{Status: http.StatusBadRequest, Detail: err.Error()}
		}
	}
	if strings.HasPrefix(raw, "*.") {
		return policygen.Name(strings.ToLower(raw)), nil // a shared record
	}
	name, err := policygen.ParseName(raw)
	if err != nil {
		return "", &Problem{Status: http.StatusBadRequest, Detail: err.Error()}
	}
	return name, nil
}

func flag(r *http.Request, key string) (bool, error) {
	value := r.URL.Query().Get(key)
	if value == "" {
		return false, nil
	}
	set, err := strconv.ParseBool(value)
	if err != nil {
		return false, &Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf("%s=%q is neither 1 nor 0", key, value)}
	}
	return set, nil
}

// linesType is the media type of one JSON value a line.
const linesType = "application/x-ndjson"

// listing writes values as they come, so that a million need no memory: one a line, or as a JSON array.
type listing struct {
	w     http.ResponseWriter
	lines bool
	begun bool
}

func (l *listing) add(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	switch {
	case l.lines:
		return l.write("", text, "\n")
	case !l.begun:
		return l.write("[\n", text, "")
	}
	return l.write(",\n", text, "")
}

func (l *listing) end() error {
	switch {
	case l.lines:
		return l.write("", nil, "")
	case !l.begun:
		return l.write("[", nil, "]\n")
	}
	return l.write("\n", nil, "]\n")
}

func (l *listing) write(before string, text []byte, after string) error {
	if !l.begun {
		l.begun = true
		kind := jsonType
		if l.lines {
			kind = linesType
		}
		l.w.Header().Set("Content-Type", kind)
		l.w.Header().Set("Cache-Control", "no-store")
	}
	_, err := fmt.Fprintf(l.w, "%s%s%s", before, text, after)
	return err
}
