package publish_test

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
)

// mailWorld is a zone with mail servers, each at a loopback address of its own and all at one port, as MX are.
type mailWorld struct {
	*testing.T
	dns     *lab.DNS
	roots   *x509.CertPool
	port    int
	outside *publish.Outside
}

func newMailWorld(t *testing.T, zone string) *mailWorld {
	t.Helper()
	server, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "test", Text: zone}}})
	if err != nil {
		t.Fatal(err)
	}
	w := &mailWorld{T: t, dns: server, roots: x509.NewCertPool()}
	ln, err := net.Listen("tcp", loopback()+":0") // the port is ours, at an address that is nobody's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	w.port = ln.Addr().(*net.TCPAddr).Port
	client := &sender.Client{
		Resolver: &sender.Resolver{Stub: map[string][]string{".": {server.Addr}}}, Roots: w.roots, SMTPPort: w.port,
	}
	w.outside = &publish.Outside{Client: client}
	return w
}

// loopback is one of sixteen million addresses of this machine.
func loopback() string {
	return net.IPv4(127, byte(1+rand.N(254)), byte(rand.N(256)), byte(1+rand.N(254))).String()
}

// mx starts the mail server of a name, and trusts its certificate; without names that is for the name.
func (w *mailWorld) mx(host string, o lab.MXOptions) *lab.MX {
	w.Helper()
	m := w.untrusted(host, o)
	w.roots.AppendCertsFromPEM(m.RootPEM)
	return m
}

func (w *mailWorld) untrusted(host string, o lab.MXOptions) *lab.MX {
	w.Helper()
	ip := loopback()
	o.Addr = net.JoinHostPort(ip, strconv.Itoa(w.port))
	if o.Names == nil {
		o.Names = []string{host}
	}
	m, err := lab.StartMXWith(w.Context(), o)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { m.Close() })
	w.set(host, "A", ip)
	return m
}

func (w *mailWorld) set(name, kind string, values ...string) {
	w.Helper()
	if err := w.dns.Set(name, kind, values...); err != nil {
		w.Fatal(err)
	}
}

func enforce(mx ...string) string {
	return policygen.Policy{Mode: policygen.Enforce, MaxAge: 86400, MX: mx}.Text()
}

func TestReady(t *testing.T) {
	t.Parallel()
	w := newMailWorld(t, "")
	w.mx("mx1.good.test", lab.MXOptions{})
	w.mx("mx2.good.test", lab.MXOptions{Names: []string{"*.good.test"}})
	w.mx("plain.test", lab.MXOptions{Plain: true})
	w.mx("name.test", lab.MXOptions{Names: []string{"other.test"}})
	w.mx("expired.test", lab.MXOptions{Lifetime: -time.Hour})
	w.untrusted("untrusted.test", lab.MXOptions{})
	w.set("closed.test", "A", loopback())
	for i, host := range []string{"plain.test", "name.test", "expired.test", "closed.test", "missing.test", "mx1.good.test", "untrusted.test"} {
		w.set(fmt.Sprintf("d%d.test", i), "MX", "10 mx1.good.test.", "20 "+host+".")
	}
	w.set("clean.test", "MX", "10 MX1.good.test.", "10 mx2.good.test.")
	w.set("null.test", "MX", "0 .")
	w.set("bare.test", "TXT", `"no mail"`)
	w.set("failing.test", "MX", "10 mx1.good.test.")
	w.dns.SetFault("failing.test", lab.FaultServfail)

	good := "*.good.test"
	for _, c := range []struct {
		name   policygen.Name
		policy string
		want   string // the beginning of the reason; empty: clean
		then   string // and something of its rest
	}{
		{"clean.test", enforce(good), "", ""},
		{"clean.test", enforce("mx1.good.test", "mx2.good.test"), "", ""}, // a certificate's wildcard covers a listed host
		{"null.test", enforce(good), "", ""},
		{"bare.test", enforce(good), "", ""},
		{"d5.test", enforce(good), "", ""},
		{"clean.test", enforce("mx1.good.test"), "MX mx2.good.test (mx-not-covered): the policy does not list this MX", "add it to the policy"},
		{"d0.test", enforce(good, "plain.test"), "MX plain.test (mx-starttls): no TLS: STARTTLS is not offered, since 20", " UTC; have the mail server offer STARTTLS"},
		{"d1.test", enforce(good, "name.test"), "MX name.test (mx-certificate-name): the certificate is not valid: x509: certificate is valid for other.test, not name.test, since 20", "obtain a certificate for name.test"},
		{"d2.test", enforce(good, "expired.test"), "MX expired.test (mx-certificate-expired): the certificate is not valid: x509: certificate has expired", "renew the certificate"},
		{"d3.test", enforce(good, "closed.test"), "MX closed.test (mx-refused): nobody listens at ", "start the mail server"},
		{"d4.test", enforce(good, "missing.test"), "MX missing.test (mx-missing): the MX has no address: the name does not exist, since 20", "correct the MX record"},
		{"d6.test", enforce(good, "untrusted.test"), "MX untrusted.test (mx-certificate-untrusted): the certificate is not valid: ", "obtain a certificate from a public CA"},
		{"failing.test", enforce(good), "the MX of failing.test cannot be looked up: ", "SERVFAIL"},
		{"clean.test", "version: STSv2", "parse policy: line 1", ""},
	} {
		got := w.outside.Ready(t.Context(), c.name, c.policy)
		if got.Clean != (c.want == "") || !strings.HasPrefix(got.Reason, c.want) || !strings.Contains(got.Reason, c.then) || got.Clean && got.Reason != "" {
			t.Errorf("Ready(%s, %q) = %+v, want %q … %q", c.name, c.policy, got, c.want, c.then)
		}
	}
}

// A reason names three hosts and counts the rest.
func TestReadyNamesAFew(t *testing.T) {
	t.Parallel()
	w := newMailWorld(t, "")
	var mx []string
	for i := range 6 {
		mx = append(mx, fmt.Sprintf("10 mx%d.test.", i))
	}
	w.set("many.test", "MX", mx...)
	got := w.outside.Ready(t.Context(), "many.test", enforce("mx9.test"))
	if got.Clean || strings.Count(got.Reason, "mx-not-covered") != 3 || !strings.HasSuffix(got.Reason, "; and 3 MX more") {
		t.Errorf("Ready = %+v, want three MX named and three counted", got)
	}
}

// A thousand domains with the same MX have each of these probed once, and judge what it showed by their own policy.
func TestReadyProbesAHostOnce(t *testing.T) {
	t.Parallel()
	w := newMailWorld(t, "")
	servers := []*lab.MX{
		w.mx("mx1.good.test", lab.MXOptions{}), w.mx("mx2.good.test", lab.MXOptions{}), w.mx("plain.test", lab.MXOptions{Plain: true}),
	}
	const domains = 1000
	for i := range domains {
		mx := []string{"10 mx1.good.test.", "20 mx2.good.test."}
		if i%2 == 1 {
			mx = append(mx, "30 plain.test.")
		}
		w.set(fmt.Sprintf("d%d.test", i), "MX", mx...)
	}
	var g errgroup.Group
	g.SetLimit(64) // as many as there are passes at a time
	reasons := make([]string, domains)
	begin := time.Now()
	for i := range domains {
		g.Go(func() error {
			name := policygen.Name(fmt.Sprintf("d%d.test", i))
			reasons[i] = w.outside.Ready(t.Context(), name, enforce("*.good.test", "plain.test")).Reason
			return nil
		})
	}
	_ = g.Wait()
	t.Logf("%d domains in %v", domains, time.Since(begin))
	for i, reason := range reasons {
		if bad := strings.HasPrefix(reason, "MX plain.test (mx-starttls)"); bad != (i%2 == 1) || !bad && reason != "" || reason != reasons[i%2] {
			t.Fatalf("domain %d: %q", i, reason)
		}
	}
	for i, m := range servers {
		if m.Connections() != 1 {
			t.Errorf("MX %d was connected to %d times, want once", i, m.Connections())
		}
	}
	if got := w.outside.Ready(t.Context(), "d0.test", enforce("mx1.good.test")); got.Clean || !strings.Contains(got.Reason, "mx2.good.test (mx-not-covered)") {
		t.Errorf("by another policy: %+v, want mx2 not covered", got)
	}
}
