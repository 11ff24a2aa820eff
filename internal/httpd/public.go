package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/publish"
)

// policyPath is where a policy is. RFC 8461, Section 3.3.
const policyPath = "/.well-known/mta-sts.txt"

// challengePath begins the paths of ACME's HTTP-01. RFC 8555, Section 8.3.
const challengePath = "/.well-known/acme-challenge/"

// Policies are what is served. [publish.Snapshot] is one. Policy gets a host name as the client sent it, without port;
// it is called for every request at the same time, and must neither block nor allocate.
type Policies interface {
	Policy(host string) (*publish.Page, bool)
}

// PublicConfig is what [NewPublic] needs.
type PublicConfig struct {
	// Hostname is the service's own name, as A-labels. Its start page tells customers which records to set.
	Hostname string
	// Target is where customers point their mta-sts CNAMEs, as the start page says: Hostname, or "default.<Hostname>".
	Target string
	// Policies answers for the policy hosts.
	Policies Policies
	// GetCertificate is tls.Config's, and answers ACME's TLS-ALPN-01 too. For a name that it has no certificate for,
	// and for no name, it returns nil and no error, which ends the handshake by an unrecognized_name alert.
	// RFC 8461, Section 7.1.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Serves says whether there is a certificate for a name now: a session is only taken up while there is. It neither
	// blocks nor allocates.
	Serves func(name string) bool
	// Values keeps the keys of session tickets, which are shared by all nodes. Nil: there are no tickets.
	Values Values
	// Challenges answers ACME's HTTP-01 on port 80 and leaves other requests to the handler that it is given.
	// Nil: there are none.
	Challenges func(http.Handler) http.Handler
	// MaxConns is how many connections may be open at once on each port; more wait to be accepted. Zero: 8192, which
	// may come to 300 MB when all of them idle.
	MaxConns int
	Log      *slog.Logger
}

// Public answers senders on port 443, and the ACME CA on port 80.
type Public struct {
	cfg    PublicConfig
	secure *Server
	plain  *Server
	config *tls.Config // of secure
	ticket *tickets
	others *handover // connections of secure that do not speak HTTP/1.1
	idle   idle      // of those that do
	// strangers takes what is said of connections of secure that came to nothing.
	strangers *errorLog

	// What is the same in all answers is made once.
	textPlain, noStore, noSniff []string
	notFound                    *answer
	misdirected                 *answer
	notAllowed                  *answer
	landing                     *answer

	requests   *prometheus.CounterVec
	handshakes *prometheus.CounterVec
	// The children of requests, so that counting needs no look-up.
	served, unknown, elsewhere, refused prometheus.Counter
}

// NewPublic returns the public server. The error is for a configuration that lacks something.
func NewPublic(cfg PublicConfig) (*Public, error) {
	if cfg.Hostname == "" || cfg.Target == "" || cfg.Policies == nil || cfg.GetCertificate == nil || cfg.Log == nil ||
		cfg.Values != nil && cfg.Serves == nil {
		return nil, errors.New("make public server: hostname, target, policies, certificates and log are needed")
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 8192
	}
	p := &Public{
		cfg:         cfg,
		textPlain:   []string{"text/plain; charset=utf-8"},
		noStore:     []string{"no-store"},
		noSniff:     []string{"nosniff"},
		notFound:    newError(http.StatusNotFound),
		misdirected: newError(http.StatusMisdirectedRequest),
		notAllowed:  newError(http.StatusMethodNotAllowed),
	}
	p.notAllowed.header["Allow"] = []string{"GET, HEAD"}
	var err error
	if p.landing, err = newLanding(cfg.Hostname, cfg.Target); err != nil {
		return nil, err
	}
	p.makeMetrics()
	p.secure = newServer(p.routes(), cfg.MaxConns, cfg.Log)
	p.strangers = &errorLog{cfg.Log, p.handshakes}
	p.secure.http.ErrorLog = log.New(p.strangers, "", 0)
	p.secure.http.ConnState = p.count
	p.secure.closeIdle = p.idle.end
	p.others, p.idle.conns = newHandover(), make(map[*direct]struct{})
	p.config = &tls.Config{
		MinVersion:     tls.VersionTLS12, // RFC 8461, Section 7.2
		GetCertificate: cfg.GetCertificate,
		NextProtos:     []string{"h2", "http/1.1", "acme-tls/1"},
	}
	p.ticket = newTickets(p.config, cfg.Values, cfg.Serves, cfg.Log)
	p.secure.http.TLSConfig = p.config // says that it speaks HTTP/2
	p.secure.http.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:          16,
		MaxReceiveBufferPerConnection: 64 << 10,
		MaxReceiveBufferPerStream:     16 << 10,
		WriteByteTimeout:              10 * time.Second,
	}
	p.plain = newServer(p.plainRoutes(), cfg.MaxConns, cfg.Log)
	return p, nil
}

func (p *Public) makeMetrics() {
	p.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stspub_policy_requests_total",
		Help: "Requests for a policy, by the status of the answer.",
	}, []string{"status"})
	p.served = p.requests.WithLabelValues("200")
	p.unknown = p.requests.WithLabelValues("404")
	p.refused = p.requests.WithLabelValues("405")
	p.elsewhere = p.requests.WithLabelValues("421")

	p.handshakes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stspub_tls_handshake_errors_total",
		Help: "TLS handshakes that came to nothing, by kind.",
	}, []string{"kind"})
	for _, kind := range handshakeKinds() {
		p.handshakes.WithLabelValues(kind)
	}
}

// Collectors returns the server's metrics, for the caller to register.
func (p *Public) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.requests, p.handshakes}
}

// Run serves until ctx ends, then answers all that was accepted and returns nil. It closes the listeners. The plain
// one, for port 80, may be nil. A Public runs once.
func (p *Public) Run(ctx context.Context, secure, plain net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	p.ticket.begin(ctx)
	g.Go(func() error {
		return p.secure.run(ctx, secure, func(ln net.Listener) error { return p.secure.http.Serve(directs{farewell{ln}, p}) })
	})
	g.Go(func() error {
		if err := p.secure.http.Serve(p.others); !errors.Is(err, http.ErrServerClosed) { // which ends it when all are closed
			return err
		}
		return nil
	})
	g.Go(func() error { p.ticket.run(ctx); return nil })
	if plain != nil {
		g.Go(func() error { return p.plain.Run(ctx, plain) })
	}
	return g.Wait()
}

// count is Server.count for secure. What is handed over was counted by who did so, since the one connection may be closed
// before the other is accepted.
func (p *Public) count(c net.Conn, state http.ConnState) {
	if _, other := c.(*tls.Conn); !other || state != http.StateNew {
		p.secure.count(c, state)
	}
}

// routes is all that port 443 answers.
func (p *Public) routes() http.Handler {
	r := chi.NewRouter()
	r.Use(withoutBody)
	r.NotFound(p.notFound.ServeHTTP)
	r.MethodNotAllowed(p.refuseMethod)
	r.Get(policyPath, p.policy)
	r.Head(policyPath, p.policy)
	r.Get("/", p.start)
	r.Head("/", p.start)
	return r
}

// plainRoutes is all that port 80 answers. RFC 8461, Section 3.3 forbids a sender to follow a redirect, so there is
// none, not even to the same path on port 443.
func (p *Public) plainRoutes() http.Handler {
	r := chi.NewRouter()
	r.Use(withoutBody)
	r.NotFound(p.notFound.ServeHTTP)
	r.MethodNotAllowed(p.notFound.ServeHTTP)
	if p.cfg.Challenges != nil {
		r.Get(challengePath+"*", p.cfg.Challenges(p.notFound).ServeHTTP)
	}
	return r
}

// policy answers with the policy of the Host, if that is also the name the handshake was for.
func (p *Public) policy(w http.ResponseWriter, r *http.Request) {
	host := withoutPort(r.Host)
	page, found := p.cfg.Policies.Policy(host)
	if !found {
		p.unknown.Inc()
		p.notFound.ServeHTTP(w, r)
		return
	}
	if !sameHost(host, r.TLS.ServerName) {
		p.elsewhere.Inc()
		p.misdirected.ServeHTTP(w, r)
		return
	}
	p.served.Inc()
	h := w.Header()
	h["Content-Type"] = p.textPlain
	h["Content-Length"] = page.Length
	h["Cache-Control"] = p.noStore // a cache between would keep an old body past its new id
	h["X-Content-Type-Options"] = p.noSniff
	if r.Method != http.MethodHead {
		// An error is the client's going away, which is its business.
		_, _ = io.WriteString(w, page.Text)
	}
}

// start answers at the service's own name, for people.
func (p *Public) start(w http.ResponseWriter, r *http.Request) {
	host := withoutPort(r.Host)
	switch {
	case !sameHost(host, p.cfg.Hostname):
		p.notFound.ServeHTTP(w, r)
	case !sameHost(host, r.TLS.ServerName):
		p.misdirected.ServeHTTP(w, r)
	default:
		p.landing.ServeHTTP(w, r)
	}
}

func (p *Public) refuseMethod(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == policyPath {
		p.refused.Inc()
	}
	p.notAllowed.ServeHTTP(w, r)
}

// withoutBody ends the connection of a client that sends a body, rather than read it. It gets its answer all the same.
func withoutBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func withoutPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		return host[:i]
	}
	return host
}

// sameHost compares two host names, which may end in a dot.
func sameHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

// answer is one that is the same every time. It is not changed once it is in use.
type answer struct {
	status int
	header http.Header
	body   string
}

func newAnswer(status int, contentType, body string) *answer {
	return &answer{status, http.Header{
		"Content-Type":           {contentType},
		"Content-Length":         {strconv.Itoa(len(body))},
		"Cache-Control":          {"no-store"},
		"X-Content-Type-Options": {"nosniff"},
	}, body}
}

func newError(status int) *answer {
	return newAnswer(status, "text/plain; charset=utf-8", strconv.Itoa(status)+" "+http.StatusText(status)+"\n")
}

// ServeHTTP gives the answer, whatever the request.
func (a *answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		// An error is the client's going away, which is its business.
		_, _ = io.WriteString(w, a.body)
	}
}
