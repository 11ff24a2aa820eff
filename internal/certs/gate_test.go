package certs_test

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
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/sender"
)

// certifier is an authority as the gate knows it.
type certifier struct {
	identities []string
	account    string
	public     bool
	err        error // of the directory
	ways       []string
	preferred  string // by the gate
}

func (c *certifier) Name() string                                 { return "lab" }
func (c *certifier) Identities(context.Context) ([]string, error) { return c.identities, c.err }
func (c *certifier) Account(context.Context) (string, error)      { return c.account, c.err }
func (c *certifier) Public() bool                                 { return c.public }
func (c *certifier) Ways(string) []string                         { return c.ways }
func (c *certifier) Prefer(_, way string)                         { c.preferred = way }

// labCA is an authority that may validate by some ways; without any, by HTTP-01 and, if that does not do, by TLS-ALPN-01.
func labCA(ways ...string) *certifier {
	if len(ways) == 0 {
		ways = []string{"http-01", "tls-alpn-01"}
	}
	return &certifier{identities: []string{"lab.invalid"}, account: "https://lab.invalid/account/1", ways: ways}
}

// gateWorld is a service with its listeners, on addresses of loopback that share their port numbers.
type gateWorld struct {
	*certs.Gate
	dns         *lab.DNS
	store       *spy
	http, https int // ports
	served      atomic.Int32
}

// ours is where hosts of the tests lead; others is an address of somebody else.
const (
	ours   = "127.0.0.1"
	second = "127.0.0.2" // ours as well
	others = "127.0.0.3"
	nobody = "127.0.0.4" // where nobody listens
)

const gateZone = `
sts        A 127.0.0.1
cname      CNAME sts
chain      CNAME hop.other.test.
mta-sts.a  A 127.0.0.1
`

// newGateWorld starts a gate and a node at ours.
func newGateWorld(t testing.TB) *gateWorld {
	t.Helper()
	w := &gateWorld{store: openStore(t, filepath.Join(t.TempDir(), "stspub.db"))}
	plain, secure := listen(t), listen(t)
	w.http, w.https = port(plain), port(secure)
	w.serve(t, w.store, plain, secure)
	var err error
	w.dns, err = lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{
		{Name: "gate.test", Text: gateZone}, {Name: "other.test", Text: "hop CNAME sts.gate.test.\n"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.dns.Close() })
	w.Gate = &certs.Gate{
		Client: &sender.Client{Resolver: &sender.Resolver{Servers: []string{w.dns.Addr}}},
		Values: w.store, HTTPPort: w.http, HTTPSPort: w.https,
		Home: func(context.Context) (sender.Home, error) {
			return sender.Home{Name: "sts.gate.test", Addrs: []netip.Addr{
				netip.MustParseAddr(ours), netip.MustParseAddr(second), netip.MustParseAddr(nobody),
			}}, nil
		},
	}
	return w
}

// serve is a node: the listeners of a policy server, which answer challenges from a store.
func (w *gateWorld) serve(t testing.TB, values certs.Values, plain, secure net.Listener) {
	t.Helper()
	a := certs.NewResponder(values, slog.New(slog.NewTextHandler(t.Output(), nil)))
	answer := a.HTTPHandler(nil)
	if plain != nil {
		serveHTTP(t, plain, nil, func(rw http.ResponseWriter, r *http.Request) {
			w.served.Add(1)
			answer.ServeHTTP(rw, r)
		})
	}
	if secure != nil {
		serveHTTP(t, secure, &tls.Config{NextProtos: []string{"h2", "http/1.1", acme.ALPNProto}, GetCertificate: a.GetCertificate}, nil)
	}
}

func serveHTTP(t testing.TB, l net.Listener, conf *tls.Config, h http.HandlerFunc) {
	t.Helper()
	s := &http.Server{
		Handler: h, TLSConfig: conf, ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	if conf != nil {
		go s.ServeTLS(l, "", "")
	} else {
		go s.Serve(l)
	}
	t.Cleanup(func() { s.Close() })
}

func listenAt(t *testing.T, ip string, port int) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("%s:%d", ip, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// set replaces the addresses of a host.
func (w *gateWorld) set(t *testing.T, name, typ string, values ...string) {
	t.Helper()
	if err := w.dns.Set(name, typ, values...); err != nil {
		t.Fatal(err)
	}
}

// passes wants a name to pass, and nothing to be left of the look.
func (w *gateWorld) passes(t *testing.T, name string, by certs.Certifier) {
	t.Helper()
	if err := w.Check(t.Context(), name, by); err != nil {
		t.Errorf("Check(%s): %v, want it to pass", name, err)
	}
	w.clean(t)
}

func (w *gateWorld) clean(t *testing.T) {
	t.Helper()
	if left, _ := w.store.left(); len(left) > 0 {
		t.Errorf("left in the store: %q", left)
	}
}

// holds wants the refusals of some checks, in their order, and words in the error.
func (w *gateWorld) holds(t *testing.T, name string, by certs.Certifier, proven bool, checks []certs.Check, words ...string) {
	t.Helper()
	err := w.Check(t.Context(), name, by)
	if err == nil {
		t.Errorf("Check(%s) = nil, want %v", name, checks)
		return
	}
	var got []certs.Check
	for _, r := range refusals(err) {
		got = append(got, r.Check)
		if r.Host != name || r.Reason == "" || r.Advice == "" || r.Proven != proven {
			t.Errorf("Check(%s) has %+v, want the host, a reason, an advice, and proven: %v", name, r, proven)
		}
	}
	if !slices.Equal(got, checks) {
		t.Errorf("Check(%s) = %v: fails %v, want %v", name, err, got, checks)
	}
	for _, word := range append(words, fmt.Sprintf("hold the order for %q: ", name)) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("Check(%s) = %v, want %q in it", name, err, word)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("Check(%s) = %q, want one line", name, err)
	}
	w.clean(t)
}

// refusals are all that an error holds.
func refusals(err error) []*certs.Refusal {
	var found []*certs.Refusal
	if r, ok := err.(*certs.Refusal); ok { //nolint:errorlint // the tree is walked here
		return append(found, r)
	}
	switch e := err.(type) { //nolint:errorlint // likewise
	case interface{ Unwrap() error }:
		return refusals(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			found = append(found, refusals(err)...)
		}
	}
	return found
}

func only(c ...certs.Check) []certs.Check { return c }

// What leads here and is answered here passes, by whatever of the two ports.
func TestGatePasses(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	for _, name := range []string{"mta-sts.a.gate.test", "CNAME.gate.test.", "chain.gate.test", "sts.gate.test"} {
		before := w.served.Load()
		w.passes(t, name, labCA())
		if w.served.Load() != before+1 {
			t.Errorf("%s: %d requests by HTTP, want one", name, w.served.Load()-before)
		}
	}
	w.HTTPPort = port(listen(t)) // accepts, and is silent
	w.Client.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasSuffix(addr, fmt.Sprint(":", w.HTTPPort)) {
			return nil, errors.New("filtered")
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	by := labCA()
	if w.passes(t, "mta-sts.a.gate.test", by); by.preferred != "tls-alpn-01" {
		t.Errorf("the order will be validated by %q, want the way that was seen to work", by.preferred)
	}
	w.HTTPPort = w.http
	before := w.served.Load()
	w.passes(t, "mta-sts.a.gate.test", labCA("tls-alpn-01"))
	w.passes(t, "mta-sts.a.gate.test", labCA("tls-alpn-01", "http-01"))
	if w.served.Load() != before {
		t.Error("asked by HTTP where that is off")
	}
	if _, put := w.store.left(); put < 6 {
		t.Errorf("%d answers were put into the store, want one for each look", put)
	}
}

// Any node on the same store answers for all of them.
func TestGateKnowsOtherNodes(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	w.serve(t, w.store, listenAt(t, second, w.http), listenAt(t, second, w.https))
	w.set(t, "two.gate.test", "A", ours, second)
	before := w.served.Load()
	w.passes(t, "two.gate.test", labCA())
	if got := w.served.Load() - before; got != 2 {
		t.Errorf("%d nodes were asked, want two", got)
	}
	w.passes(t, "two.gate.test", labCA("tls-alpn-01"))

	// A node of ours that is down is met by authorities less often than one that answers; another server is no node.
	w.set(t, "two.gate.test", "A", nobody, second)
	w.passes(t, "two.gate.test", labCA())
	elsewhere := openStore(t, filepath.Join(t.TempDir(), "stspub.db"))
	w.serve(t, elsewhere, listenAt(t, nobody, w.http), listenAt(t, nobody, w.https))
	w.holds(t, "two.gate.test", labCA(), true, only(certs.CheckReach),
		fmt.Sprintf("reach: no http-01: %s:%d: another server answers, with status 404; no tls-alpn-01: %s:%d: another server answers, "+
			"and ends the TLS handshake: remote error: tls: ", nobody, w.http, nobody, w.https),
		"; have these ports lead to this service")
}

// What other servers at our address may answer.
func TestGateHoldsWhatOthersAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		words  string
	}{
		"nothing there": {http.NotFound, "another server answers, with status 404"},
		"a page for everything": {
			func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "welcome") }, "another server answers, with status 200",
		},
		"a redirect": {
			func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, "https://"+r.Host+r.URL.Path, http.StatusMovedPermanently)
			}, "another server answers, with status 301",
		},
		"the token": { // as webroots do for which the token is a name
			func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, filepath.Base(r.URL.Path)) }, "another server answers, with status 200",
		},
		"no end": {
			func(rw http.ResponseWriter, _ *http.Request) {
				for range 1 << 10 {
					fmt.Fprint(rw, strings.Repeat("x", 1<<10))
				}
			}, "another server answers, with status 200",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newGateWorld(t)
			plain, secure := listen(t), listen(t)
			serveHTTP(t, plain, nil, c.answer)
			cert, err := issue(day, "mta-sts.a.gate.test")
			if err != nil {
				t.Fatal(err)
			}
			key, err := x509.ParsePKCS8PrivateKey(cert.Key)
			if err != nil {
				t.Fatal(err)
			}
			serveHTTP(t, secure, &tls.Config{
				Certificates: []tls.Certificate{{Certificate: cert.Chain, PrivateKey: key}}, NextProtos: []string{acme.ALPNProto},
			}, nil)
			w.HTTPPort, w.HTTPSPort = port(plain), port(secure)
			w.holds(t, "mta-sts.a.gate.test", labCA(), true, only(certs.CheckReach), c.words, "another server answers, with a certificate of its own")
		})
	}
}

// Where nobody answers nothing is proven, and both ports are named.
func TestGateHoldsWhatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	w.set(t, "down.gate.test", "A", nobody)
	w.holds(t, "down.gate.test", labCA(), false, only(certs.CheckReach),
		fmt.Sprintf("no http-01: %s:%d: ", nobody, w.http), fmt.Sprintf("no tls-alpn-01: %s:%d: ", nobody, w.https), "connection refused")

	secure := listen(t)
	dead(secure)
	w.HTTPSPort = port(secure)
	w.holds(t, "mta-sts.a.gate.test", labCA("tls-alpn-01"), false, only(certs.CheckReach), "no tls-alpn-01: ", ": TLS handshake: ")

	// An address that only our network reaches is knocked at if it is ours, and else is not ours.
	w = newGateWorld(t)
	guard := &sender.Guard{}
	w.Client.Dial = guard.Dial
	w.holds(t, "mta-sts.a.gate.test", labCA(), false, only(certs.CheckReach), "127.0.0.1 is no address of the public Internet")
	guard = &sender.Guard{Own: func(context.Context) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr(ours)}, nil }}
	w.Client.Dial = guard.Dial
	w.passes(t, "mta-sts.a.gate.test", labCA())
}

// Whoever is not led here is not knocked at.
func TestGateHoldsWhatLeadsElsewhere(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	dialled := atomic.Int32{}
	w.Client.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	w.set(t, "elsewhere.gate.test", "A", others)
	w.set(t, "half.gate.test", "A", ours, others)
	w.set(t, "six.gate.test", "A", ours)
	w.set(t, "six.gate.test", "AAAA", "2001:db8::1")
	w.set(t, "alias.gate.test", "CNAME", "elsewhere.gate.test.")
	w.set(t, "dangling.gate.test", "CNAME", "nothing.gate.test.")
	w.set(t, "text.gate.test", "TXT", `"x"`)
	for name, words := range map[string]string{
		"elsewhere.gate.test": "dns: it does not lead here, seen: 127.0.0.3 (" + w.dns.Addr + "); set CNAME elsewhere.gate.test → sts.gate.test, or give it no addresses but ours",
		"half.gate.test":      "seen: 127.0.0.1 127.0.0.3 (",
		"six.gate.test":       "seen: 127.0.0.1 2001:db8::1 (",
		"alias.gate.test":     "seen: CNAME elsewhere.gate.test, 127.0.0.3 (",
		"dangling.gate.test":  "seen: CNAME nothing.gate.test, NXDOMAIN (",
		"nothing.gate.test":   "seen: NXDOMAIN (",
		"text.gate.test":      "seen: no address (",
	} {
		w.holds(t, name, labCA(), true, only(certs.CheckDNS), words)
	}
	if n := dialled.Load(); n > 0 {
		t.Errorf("%d connections to addresses that are not ours", n)
	}
	w.passes(t, "mta-sts.a.gate.test", labCA())
	if dialled.Load() == 0 {
		t.Error("the test does not see connections")
	}
}

// All name servers have to agree. One that says nothing at all is left out, unless it is the only one.
func TestGateAsksAllNameServers(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	other := func(zone string) *lab.DNS {
		t.Helper()
		d, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "gate.test", Text: zone}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	same, lies, lacks, fails, mute := other(gateZone), other("mta-sts.a A 127.0.0.3\n"), other("x A 127.0.0.1\n"), other(gateZone), other(gateZone)
	fails.SetFault("mta-sts.a.gate.test", lab.FaultServfail)
	mute.SetFault(".", lab.FaultSilent)
	const name = "mta-sts.a.gate.test"
	with := func(servers ...*lab.DNS) {
		w.Client.Resolver = &sender.Resolver{Timeout: time.Second}
		for _, d := range servers {
			w.Client.Resolver.Servers = append(w.Client.Resolver.Servers, d.Addr)
		}
	}
	with(w.dns, same)
	w.passes(t, name, labCA())
	if same.Queries(name, "A") != 1 || same.Queries(name, "AAAA") != 1 || w.dns.Queries(name, "A") != 1 {
		t.Errorf("asked for A: %d and %d times, want once each", w.dns.Queries(name, "A"), same.Queries(name, "A"))
	}
	with(w.dns, mute, same)
	w.passes(t, name, labCA())
	w.set(t, "a.b.c.d.e.f.gate.test", "A", ours)
	with(mute, w.dns)
	begun := time.Now()
	w.passes(t, "a.b.c.d.e.f.gate.test", labCA())
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %v with a dead name server, want its second waited for once, not at each step of the climb", took)
	}
	with(w.dns, lies)
	w.holds(t, name, labCA(), true, only(certs.CheckDNS), fmt.Sprintf("seen: ours (%s), 127.0.0.3 (%s)", w.dns.Addr, lies.Addr))
	with(lacks, w.dns, same)
	w.holds(t, name, labCA(), true, only(certs.CheckDNS), fmt.Sprintf("seen: NXDOMAIN (%s), ours (%s, %s)", lacks.Addr, w.dns.Addr, same.Addr))
	with(w.dns, fails)
	w.holds(t, name, labCA(), false, only(certs.CheckDNS), "SERVFAIL ("+fails.Addr+")")
	with(mute)
	w.holds(t, name, labCA(), false, only(certs.CheckDNS, certs.CheckCAA), "no answer within 1s", "no authority issues without an answer")

	// Servers that are set for a zone are asked in place of the others, all of them too.
	w.Client.Resolver = &sender.Resolver{
		Servers: []string{mute.Addr}, Stub: map[string][]string{"gate.test": {w.dns.Addr, lies.Addr}}, Timeout: time.Second,
	}
	w.holds(t, name, labCA(), true, only(certs.CheckDNS), fmt.Sprintf("seen: ours (%s), 127.0.0.3 (%s)", w.dns.Addr, lies.Addr))
	w.Client.Resolver = &sender.Resolver{}
	err := w.Check(t.Context(), name, labCA())
	if err == nil || !strings.Contains(err.Error(), "no name server to ask; name resolvers in [dns]") {
		t.Errorf("Check without name servers = %v, want what to do", err)
	}
}

// All reasons are told at once.
func TestGateJoinsReasons(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	w.set(t, "bad.gate.test", "A", others)
	w.set(t, "bad.gate.test", "CAA", `0 issue "other.example"`)
	w.holds(t, "bad.gate.test", labCA(), true, only(certs.CheckDNS, certs.CheckCAA), "seen: 127.0.0.3", "; caa: the CAA records of bad.gate.test exclude lab")
	w.set(t, "shut.gate.test", "A", ours)
	w.set(t, "shut.gate.test", "CAA", `0 issue "other.example"`)
	plain := listen(t)
	serveHTTP(t, plain, nil, http.NotFound)
	w.HTTPPort, w.HTTPSPort = port(plain), port(plain)
	err := w.Check(t.Context(), "shut.gate.test", labCA())
	if got := refusals(err); len(got) != 2 || got[0].Check != certs.CheckCAA || got[1].Check != certs.CheckReach {
		t.Errorf("Check = %v, want caa and reach", err)
	}
	// One of them is what a caller finds.
	if r := new(certs.Refusal); !errors.As(err, &r) || r.Check != certs.CheckCAA {
		t.Errorf("errors.As finds %+v", r)
	}
}

// Names that no public authority issues for are held for those, and not even looked up.
func TestGateHoldsSpecialUse(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	public := labCA()
	public.public = true
	w.holds(t, "mta-sts.a.gate.test", public, true, only(certs.CheckSpecialUse), "names in test are reserved, and lab does not issue for them; take the domain out")
	if n := w.dns.Queries("mta-sts.a.gate.test", ""); n > 0 {
		t.Errorf("%d questions about it", n)
	}
	w.passes(t, "mta-sts.a.gate.test", labCA())
}

// What is no name's fault is no refusal.
func TestGateTellsOutages(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	w.set(t, "mta-sts.a.gate.test", "CAA", `0 issue "lab.invalid"`)
	outage := func(what string, err error) {
		t.Helper()
		if r := new(certs.Refusal); err == nil || errors.As(err, &r) || !strings.Contains(err.Error(), what) {
			t.Errorf("Check = %v, want no refusal, and %q", err, what)
		}
	}
	broken := labCA()
	broken.err = errors.New("directory is down")
	outage("directory is down", w.Check(t.Context(), "mta-sts.a.gate.test", broken))
	home := w.Home
	w.Home = func(context.Context) (sender.Home, error) { return sender.Home{}, errors.New("we are lost") }
	outage("we are lost", w.Check(t.Context(), "mta-sts.a.gate.test", labCA()))
	w.Home = home
	w.Values = readOnlyValues{w.store}
	outage("put the answer to a probe into the store: read only", w.Check(t.Context(), "mta-sts.a.gate.test", labCA()))
	outage("put the answer to a probe into the store: read only", w.Check(t.Context(), "mta-sts.a.gate.test", labCA("tls-alpn-01")))
}

// What is a name's own fault says whether the authority answered meanwhile.
func TestGateTellsWhetherTheAuthorityAnswers(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	w.set(t, "bad.gate.test", "A", others)
	w.set(t, "bound.gate.test", "A", others)
	w.set(t, "bound.gate.test", "CAA", `0 issue "lab.invalid; accounturi=https://lab.invalid/account/1"`)
	away := labCA()
	away.err = errors.New("directory is down")
	public := labCA()
	public.public = true
	for _, tt := range []struct {
		name string
		by   certs.Certifier
		want bool
	}{
		{"bad.gate.test", labCA(), true},
		{"bound.gate.test", labCA(), true},
		{"bound.gate.test", halfAway{labCA()}, false},
		{"bad.gate.test", away, false},
		{"bad.gate.test", public, false}, // is not asked
	} {
		err := w.Check(t.Context(), tt.name, tt.by)
		found := refusals(err)
		if len(found) != 1 || found[0].Answered != tt.want {
			t.Errorf("Check(%s) = %v, %+v, want one refusal, and Answered: %v", tt.name, err, found, tt.want)
		}
	}
}

// halfAway is an authority that answers for its directory, and not for the account.
type halfAway struct{ *certifier }

func (halfAway) Account(context.Context) (string, error) { return "", errors.New("no account today") }

type readOnlyValues struct{ certs.Values }

func (readOnlyValues) SetValue(context.Context, string, []byte) error { return errors.New("read only") }

// A look ends after half a minute, or with its context, whoever is silent.
func TestGateIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &certs.Gate{Client: &sender.Client{Resolver: &sender.Resolver{}}, Home: func(ctx context.Context) (sender.Home, error) {
			<-ctx.Done()
			return sender.Home{}, ctx.Err()
		}}
		begun := time.Now()
		if err := g.Check(t.Context(), "mta-sts.a.gate.test", labCA()); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 30*time.Second {
			t.Errorf("Check = %v after %v, want its deadline after 30s", err, time.Since(begun))
		}
	})

	w := newGateWorld(t)
	w.Client.Resolver.Timeout = time.Hour
	w.dns.SetFault(".", lab.FaultSilent)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.Check(ctx, "mta-sts.a.gate.test", labCA()) }()
	for tick := time.Tick(time.Millisecond); w.dns.Queries("mta-sts.a.gate.test", "CAA")*w.dns.Queries("mta-sts.a.gate.test", "A") == 0; {
		<-tick
	}
	begun := time.Now()
	cancel()
	if err := <-ended; err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("Check = %v, %v after its context, want it soon", err, time.Since(begun))
	}
}

// The climb and its CNAMEs, with BIND: CAA at the host, at the target of its CNAME, above it, and not above the target.
func TestGateClimbsForCAA(t *testing.T) {
	t.Parallel()
	bind := labtest.StartBIND(t, lab.Zone{Name: "gate.test", Text: `
sts              A     127.0.0.1
free             A     127.0.0.1
own              A     127.0.0.1
own              CAA   0 issue "lab.invalid"
bad              CAA   0 issue "other.example"
mta-sts.bad      A     127.0.0.1
mta-sts.good.bad A     127.0.0.1
good.bad         CAA   0 issue "lab.invalid; validationmethods=http-01"
alias.bad        CNAME sts
far              CNAME sts.other.test.
wild             CAA   0 issue ";"
wild             CAA   0 issuewild "lab.invalid"
wild             A     127.0.0.1
new              CAA   0 issue "lab.invalid"
new              CAA   128 tbs "unknown"
new              A     127.0.0.1
mine             CAA   0 issue "lab.invalid; accounturi=https://lab.invalid/account/1"
mine             A     127.0.0.1
theirs           CAA   0 issue "lab.invalid; accounturi=https://lab.invalid/account/2"
theirs           A     127.0.0.1
odd              CAA   0 issue "%%%%%"
odd              A     127.0.0.1
tls              CAA   0 issue "lab.invalid; validationmethods=tls-alpn-01"
tls              A     127.0.0.1
`}, lab.Zone{Name: "other.test", Text: `
@   CAA 0 issue "other.example"
sts CNAME target
target A 127.0.0.1
target CAA 0 issue "lab.invalid"
`})
	w := newGateWorld(t)
	w.Client.Resolver = &sender.Resolver{Stub: map[string][]string{".": {bind.Addr}}} // it refuses "test", as one for a few zones does
	for _, name := range []string{
		"sts.gate.test", "free.gate.test", "own.gate.test", "mta-sts.good.bad.gate.test", "far.gate.test", "mine.gate.test", "tls.gate.test",
	} {
		w.passes(t, name, labCA())
	}
	for name, words := range map[string]string{
		"mta-sts.bad.gate.test": `caa: the CAA records of bad.gate.test exclude lab: CAA 0 issue "other.example" allows another authority; ` +
			`add there: CAA 0 issue "lab.invalid"`,
		"alias.bad.gate.test": "the CAA records of bad.gate.test exclude lab", // sts has none, so the climb goes on at the alias
		"wild.gate.test":      `the CAA records of wild.gate.test exclude lab: CAA 0 issue ";" allows nobody`,
		"new.gate.test":       `CAA 128 tbs "unknown" is critical, and a property that no authority knows; take that away`,
		"theirs.gate.test":    "allows another account than ours, which is https://lab.invalid/account/1",
		"odd.gate.test":       "is malformed, so it allows nobody",
	} {
		w.holds(t, name, labCA(), true, only(certs.CheckCAA), words)
	}

	// At the target, which binds all whose CNAMEs lead there, what is above does not count.
	bind.Set(t, "sts.gate.test", "CAA", `0 issue "other.example"`)
	w.holds(t, "alias.bad.gate.test", labCA(), true, only(certs.CheckCAA), "the CAA records of sts.gate.test exclude lab")
	if err := w.Target(t.Context(), "sts.gate.test", labCA()); err == nil || !strings.Contains(err.Error(), "the CAA records of sts.gate.test exclude lab") {
		t.Errorf("Target = %v, want it to say who is excluded", err)
	}
	if err := w.Target(t.Context(), "mta-sts.bad.gate.test", labCA()); err != nil {
		t.Errorf("Target of a name whose parent has CAA records = %v, want nil", err)
	}

	// Only what CAA allows is tried.
	w.passes(t, "tls.gate.test", labCA("tls-alpn-01"))
	w.holds(t, "mta-sts.good.bad.gate.test", labCA("tls-alpn-01"), true, only(certs.CheckCAA), "does not allow to validate by tls-alpn-01, which is what works here")
	by := labCA()
	if w.passes(t, "tls.gate.test", by); by.preferred != "tls-alpn-01" {
		t.Errorf("the order will be validated by %q, want the way that CAA allows", by.preferred)
	}
	secure := listen(t)
	dead(secure)
	w.HTTPSPort = port(secure)
	w.holds(t, "tls.gate.test", labCA(), false, only(certs.CheckReach), "no tls-alpn-01: ")
	w.passes(t, "mta-sts.good.bad.gate.test", labCA())
}

// A CA does not issue where its question for CAA stays without answer, so that holds an order, but for a top-level domain.
func TestGateHoldsWithoutAnswerForCAA(t *testing.T) {
	t.Parallel()
	w := newGateWorld(t)
	w.set(t, "mta-sts.shop.gate.test", "A", ours)
	w.dns.SetFault("shop.gate.test", lab.FaultServfail)
	w.dns.SetFault("mta-sts.shop.gate.test", lab.FaultNone)
	w.holds(t, "mta-sts.shop.gate.test", labCA(), false, only(certs.CheckCAA), `caa: look up CAA "shop.gate.test": `, "SERVFAIL; no authority issues without an answer")
	w.dns.SetFault("test", lab.FaultServfail)
	w.dns.SetFault("gate.test", lab.FaultNone)
	w.passes(t, "mta-sts.a.gate.test", labCA())
	if w.dns.Queries("test", "CAA") == 0 {
		t.Error("the climb did not reach the top")
	}
}

// BenchmarkGate is what one look costs on this machine; in the world it mostly waits for name servers.
func BenchmarkGate(b *testing.B) {
	w := newGateWorld(b)
	for _, way := range []string{"http-01", "tls-alpn-01"} {
		b.Run(way, func(b *testing.B) {
			for b.Loop() {
				if err := w.Check(b.Context(), "mta-sts.a.gate.test", labCA(way)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
