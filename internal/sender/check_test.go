package sender_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/sender"
)

const (
	domain     = "good.test"
	policyHost = "mta-sts.good.test"
	goodPolicy = "version: STSv1\r\nmode: enforce\r\nmax_age: 1209600\r\nmx: mx1.mail.test\r\nmx: *.pool.test\r\n"
	day        = 24 * time.Hour
)

// world is all that a sender of mail to good.test meets. A test changes one thing of it.
type world struct {
	ca     *authority
	client *sender.Client

	zone    []string // lines of the zone file
	special map[string]func(dns.ResponseWriter, *dns.Msg)

	https   *tls.Config // nil: nobody listens
	policy  string
	header  map[string]string
	handler http.HandlerFunc // in place of policy and header
	second  http.HandlerFunc // at 127.0.0.2; nil: nobody listens

	mx1, mx2 *tls.Config // without: no STARTTLS
	noMX1    bool        // nobody listens there
}

const goodZone = `good.test. 60 IN SOA ns.good.test. root.good.test. 1 60 60 60 60
_mta-sts.good.test. 300 IN TXT "v=STSv1; id=20260131120000;"
mta-sts.good.test. 300 IN A 127.0.0.1
good.test. 300 IN MX 10 mx1.mail.test.
good.test. 300 IN MX 20 a.pool.test.
_smtp._tls.good.test. 300 IN TXT "v=TLSRPTv1; rua=mailto:tls@good.test"
mail.test. 60 IN SOA ns.mail.test. root.mail.test. 1 60 60 60 60
mx1.mail.test. 300 IN A 127.0.0.1
pool.test. 60 IN SOA ns.pool.test. root.pool.test. 1 60 60 60 60
a.pool.test. 300 IN A 127.0.0.2`

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{ca: newAuthority(t), client: &sender.Client{}, zone: strings.Split(goodZone, "\n"), policy: goodPolicy}
	w.special = map[string]func(dns.ResponseWriter, *dns.Msg){}
	w.header = map[string]string{"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
	w.https = serving(w.ca.issue(t, 60*day, policyHost))
	w.mx1 = serving(w.ca.issue(t, 60*day, "mx1.mail.test"))
	w.mx2 = serving(w.ca.issue(t, 60*day, "*.pool.test"))
	return w
}

// set replaces the lines that begin with owner and type, as in "_mta-sts TXT", by others; none deletes.
func (w *world) set(owner, kind string, lines ...string) {
	w.zone = slices.DeleteFunc(w.zone, func(line string) bool {
		f := strings.Fields(line)
		return f[0] == owner+"." && f[3] == kind
	})
	w.zone = append(w.zone, lines...)
}

// start starts everything and returns a client for it.
func (w *world) start(t *testing.T) *sender.Client {
	t.Helper()
	w.client.HTTPSPort, w.client.SMTPPort = w.startWeb(t), w.startMail(t)
	server := startDNS(t, &dnsServer{special: w.special}, strings.Join(w.zone, "\n"))
	w.client.Resolver = &sender.Resolver{Servers: []string{server.addr}}
	w.client.Roots = w.ca.pool()
	return w.client
}

func (w *world) startWeb(t *testing.T) int {
	if w.https == nil {
		l := listen(t, "127.0.0.1:0") // the port stays ours, at another address than the policy host's
		w.set(policyHost, "A", policyHost+". 60 IN A 127.0.0.3")
		return portOf(t, l.Addr().String())
	}
	handler := w.handler
	if handler == nil {
		handler = func(rw http.ResponseWriter, r *http.Request) {
			if r.Host != policyHost || r.TLS.ServerName != policyHost {
				http.Error(rw, "not that host", http.StatusMisdirectedRequest)
				return
			}
			for key, value := range w.header {
				rw.Header().Set(key, value)
			}
			fmt.Fprint(rw, w.policy)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/mta-sts.txt", handler)
	port := portOf(t, startHTTPS(t, "127.0.0.1:0", w.https, mux))
	if w.second != nil {
		startHTTPS(t, fmt.Sprintf("127.0.0.2:%d", port), w.https, w.second)
	}
	return port
}

func (w *world) startMail(t *testing.T) int {
	if w.noMX1 {
		return portOf(t, startSMTP(t, "127.0.0.2:0", w.mx2))
	}
	port := portOf(t, startSMTP(t, "127.0.0.1:0", w.mx1))
	startSMTP(t, fmt.Sprintf("127.0.0.2:%d", port), w.mx2)
	return port
}

func (w *world) check(t *testing.T) sender.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return w.start(t).Check(ctx, domain)
}

// findings lists everything but what is ok, as "fault record-several".
func findings(r sender.Report) []string {
	out := []string{}
	for _, f := range r.Findings {
		if f.Severity != sender.OK {
			out = append(out, string(f.Severity)+" "+f.Code)
		}
	}
	return out
}

func TestCheckGood(t *testing.T) {
	t.Parallel()
	r := newWorld(t).check(t)
	var codes []string
	for _, f := range r.Findings {
		codes = append(codes, string(f.Severity)+" "+f.Code+" "+f.Subject)
	}
	want := []string{
		"ok record _mta-sts.good.test",
		"ok certificate mta-sts.good.test",
		"ok policy https://mta-sts.good.test/.well-known/mta-sts.txt",
		"ok mx mx1.mail.test", "ok mx a.pool.test",
		"ok tlsrpt _smtp._tls.good.test",
	}
	if diff := cmp.Diff(want, codes); diff != "" || !r.OK() {
		t.Errorf("Check of a good domain: OK is %v, findings (-want +got):\n%s", r.OK(), diff)
	}
	if r.Record.ID != "20260131120000" || r.Policy.Body != goodPolicy || r.Policy.Status != 200 || r.Policy.Proto != "HTTP/2.0" {
		t.Errorf("Check saw record %+v, policy %+v", r.Record, r.Policy)
	}
	if len(r.MX) != 2 || r.MX[0].TLSVersion != "TLS 1.3" || !r.MX[1].Covered || !r.MX[1].Listed {
		t.Errorf("Check saw MX %+v", r.MX)
	}
}

// change is one case of the tables: what is different, and all that is found then.
type change struct {
	name   string
	change func(t *testing.T, w *world)
	want   []string
}

func runChanges(t *testing.T, cases []change) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(t, w)
			r := w.check(t)
			if diff := cmp.Diff(c.want, findings(r)); diff != "" {
				t.Errorf("findings (-want +got):\n%s\n%+v", diff, r.Findings)
			}
			faults := slices.ContainsFunc(c.want, func(s string) bool { return strings.HasPrefix(s, "fault ") })
			if r.OK() == faults {
				t.Errorf("OK() = %v with %q", r.OK(), c.want)
			}
		})
	}
}

func txt(values ...string) func(*testing.T, *world) {
	return func(_ *testing.T, w *world) {
		var lines []string
		for _, v := range values {
			lines = append(lines, "_mta-sts.good.test. 300 IN TXT "+v)
		}
		w.set("_mta-sts.good.test", "TXT", lines...)
	}
}

func TestCheckRecord(t *testing.T) {
	t.Parallel()
	alias := "_mta-sts.good.test. 300 IN CNAME x.pool.test."
	runChanges(t, []change{
		{"none", txt(), []string{"fault record-missing"}},
		{"another", txt(`"hello"`), []string{"fault record-missing"}},
		{"two", txt(`"v=STSv1; id=1;"`, `"v=STSv1; id=2;"`), []string{"fault record-several"}},
		{"malformed", txt(`"v=STSv1; id=a-b;"`), []string{"fault record-malformed"}},
		{"no id", txt(`"v=STSv1;"`), []string{"fault record-malformed"}},
		{"space before semicolon", txt(`"v=STSv1 ; id=1;"`), []string{"warning record-form"}},
		{"two strings", txt(`"v=STSv1; " "id=1;"`), []string{"warning record-split"}},
		{"stranger beside", txt(`"v=STSv1; id=1;"`, `"hello"`), []string{"warning record-neighbour"}},
		{"alias", func(_ *testing.T, w *world) {
			w.set("_mta-sts.good.test", "TXT", alias, `x.pool.test. 300 IN TXT "v=STSv1; id=1;"`)
		}, []string{"info record-chain"}},
		{"dangling alias", func(_ *testing.T, w *world) { w.set("_mta-sts.good.test", "TXT", alias) }, []string{"fault record-dangling"}},
		{"long TTL", func(_ *testing.T, w *world) {
			w.set("_mta-sts.good.test", "TXT", `_mta-sts.good.test. 172800 IN TXT "v=STSv1; id=1;"`)
		}, []string{"warning record-ttl"}},
		{"name server fails", func(_ *testing.T, w *world) { w.special["_mta-sts.good.test."] = answerCode(dns.RcodeServerFailure) }, []string{"fault record-lookup"}},
	})
}

func TestCheckTLSRPT(t *testing.T) {
	t.Parallel()
	const owner = "_smtp._tls.good.test"
	set := func(values ...string) func(*testing.T, *world) {
		return func(_ *testing.T, w *world) {
			w.set(owner, "TXT")
			for _, v := range values {
				w.zone = append(w.zone, owner+`. 300 IN TXT "`+v+`"`)
			}
		}
	}
	good := []string{}
	runChanges(t, []change{
		{"none", set(), []string{"info tlsrpt-missing"}},
		{"https", set("v=TLSRPTv1;rua=https://r.test/v1"), good},
		{"both", set("v=TLSRPTv1; rua=mailto:a@r.test,https://r.test/v1;"), good},
		{"two", set("v=TLSRPTv1; rua=mailto:a@r.test", "v=TLSRPTv1; rua=mailto:b@r.test"), []string{"warning tlsrpt-several"}},
		{"no rua", set("v=TLSRPTv1;"), []string{"warning tlsrpt-malformed"}},
		{"bare address", set("v=TLSRPTv1; rua=a@r.test"), []string{"warning tlsrpt-malformed"}},
		{"no semicolon", set("v=TLSRPTv1 rua=mailto:a@r.test"), []string{"warning tlsrpt-malformed"}},
		{"size limit", set("v=TLSRPTv1; rua=mailto:a@r.test!10m"), []string{"warning tlsrpt-malformed"}},
		{"another version beside", set("v=TLSRPTv1; rua=mailto:a@r.test", "v=TLSRPTv10; rua=mailto:b@r.test"), good},
		{"alias", func(_ *testing.T, w *world) {
			w.set(owner, "TXT", owner+". 300 IN CNAME r.pool.test.", `r.pool.test. 300 IN TXT "v=TLSRPTv1; rua=mailto:a@r.test"`)
		}, []string{"info tlsrpt-chain"}},
		{"dangling alias", func(_ *testing.T, w *world) { w.set(owner, "TXT", owner+". 300 IN CNAME r.pool.test.") }, []string{"warning tlsrpt-dangling"}},
		{"name server fails", func(_ *testing.T, w *world) { w.special[owner+"."] = answerCode(dns.RcodeRefused) }, []string{"warning tlsrpt-lookup"}},
	})
}

// What MX are found depends on the policy: without one nothing enforces.
func TestCheckPolicyHost(t *testing.T) {
	t.Parallel()
	host := func(lines ...string) func(*testing.T, *world) {
		return func(_ *testing.T, w *world) { w.set(policyHost, "A", lines...) }
	}
	at2 := policyHost + ". 60 IN A 127.0.0.2"
	certificate := func(issue func(t *testing.T, w *world) *tls.Certificate) func(*testing.T, *world) {
		return func(t *testing.T, w *world) { w.https = serving(issue(t, w)) }
	}
	runChanges(t, []change{
		{"no such name", host(), []string{"fault host-missing"}},
		{"alias", host(policyHost+". 60 IN CNAME web.pool.test.", "web.pool.test. 60 IN A 127.0.0.1"), []string{"info host-chain"}},
		{"dangling alias", host(policyHost + ". 60 IN CNAME web.pool.test."), []string{"fault host-dangling"}},
		{"name server fails", func(_ *testing.T, w *world) { w.special[policyHost+"."] = answerCode(dns.RcodeServerFailure) }, []string{"fault host-lookup"}},
		{"name server fails for AAAA", func(_ *testing.T, w *world) { w.special[policyHost+"."] = onlyA }, []string{"warning host-lookup"}},
		{"refused", func(_ *testing.T, w *world) { w.https = nil }, []string{"fault host-refused"}},
		{"silent", func(_ *testing.T, w *world) { w.client.Dial = blocked(&w.client.HTTPSPort) }, []string{"fault host-unreachable"}},
		{"no TLS", func(t *testing.T, w *world) {
			l := listen(t, "127.0.0.8:0")
			go func() { _ = play(l, []string{"S: SSH-2.0-example"}) }()
			w.set(policyHost, "A", policyHost+". 60 IN A 127.0.0.8")
			w.client.Dial = redirected("127.0.0.8", l.Addr().String())
		}, []string{"fault host-tls"}},
		{"one address refused", func(_ *testing.T, w *world) { w.zone = append(w.zone, at2) }, []string{"warning host-address-unreachable"}},
		{"one address differs", func(_ *testing.T, w *world) {
			w.zone = append(w.zone, at2)
			w.second = func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "version: STSv1\n") }
		}, []string{"fault policy-differs"}},
		{"one address has none", func(_ *testing.T, w *world) {
			w.zone = append(w.zone, at2)
			w.second = http.NotFound
		}, []string{"fault host-address"}},
		{"no certificate", certificate(func(*testing.T, *world) *tls.Certificate { return nil }), []string{"fault host-tls-alert"}},
		{"TLS 1.1 only", func(_ *testing.T, w *world) {
			w.https.MinVersion, w.https.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		}, []string{"fault host-tls-alert"}},
		{"certificate of another", certificate(func(t *testing.T, w *world) *tls.Certificate { return w.ca.issue(t, day, "www.good.test") }), []string{"fault certificate-name"}},
		{"certificate expired", certificate(func(t *testing.T, w *world) *tls.Certificate { return w.ca.issue(t, -time.Hour, policyHost) }), []string{"fault certificate-expired"}},
		{"certificate expires soon", certificate(func(t *testing.T, w *world) *tls.Certificate { return w.ca.issue(t, time.Hour, policyHost) }), []string{"warning certificate-expires-soon"}},
		{"certificate untrusted", certificate(func(t *testing.T, _ *world) *tls.Certificate { return newAuthority(t).issue(t, day, policyHost) }), []string{"fault certificate-untrusted"}},
	})
}

func TestCheckAnswer(t *testing.T) {
	t.Parallel()
	header := func(key, value string) func(*testing.T, *world) {
		return func(_ *testing.T, w *world) { w.header[key] = value }
	}
	policy := func(text string) func(*testing.T, *world) {
		return func(_ *testing.T, w *world) { w.policy = text }
	}
	handler := func(f http.HandlerFunc) func(*testing.T, *world) {
		return func(_ *testing.T, w *world) { w.handler = f }
	}
	long := goodPolicy + strings.Repeat("mx: another-host-of-many.pool.test\r\n", 300)
	runChanges(t, []change{
		{"not found", handler(http.NotFound), []string{"fault policy-status"}},
		{"redirect", handler(func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "https://other.test/", http.StatusFound)
		}), []string{"fault policy-redirect"}},
		{"hangs up", handler(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), []string{"fault host-http"}},
		{"HTML", header("Content-Type", "text/html"), []string{"fault policy-content-type"}},
		{"from a cache", header("Age", "17"), []string{"warning policy-cached"}},
		{"may be cached", header("Cache-Control", "public, max-age=300"), []string{"info policy-cacheable"}},
		{"max-age 0", header("Cache-Control", "max-age=0"), []string{}},
		{"LF only", policy(strings.ReplaceAll(goodPolicy, "\r", "")), []string{}},
		{"blank line", policy(goodPolicy + "\r\n"), []string{"warning policy-blank-line"}},
		{"long", policy(long), []string{"warning policy-long", "info mx-unused"}},
		{"too long", policy(strings.Repeat(long, 10)), []string{"fault policy-length"}},
		{"two mistakes", policy(strings.NewReplacer("enforce", "force", "1209600", "2w").Replace(goodPolicy)), []string{"fault policy-malformed", "fault policy-malformed"}},
		{"testing", policy(strings.Replace(goodPolicy, "enforce", "testing", 1)), []string{"info policy-testing"}},
		{"none", policy("version: STSv1\nmode: none\nmax_age: 60\n"), []string{"info policy-none"}},
		{"short max_age", policy(strings.Replace(goodPolicy, "1209600", "3600", 1)), []string{"warning policy-max-age"}},
	})
}

func TestCheckMX(t *testing.T) {
	t.Parallel()
	mx := func(lines ...string) func(*testing.T, *world) {
		return func(_ *testing.T, w *world) { w.set(domain, "MX", lines...) }
	}
	mode := func(mode string, then func(*testing.T, *world)) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			w.policy = strings.Replace(goodPolicy, "enforce", mode, 1)
			then(t, w)
		}
	}
	plain := func(_ *testing.T, w *world) { w.mx1 = nil }
	other := func(t *testing.T, w *world) { w.mx1 = serving(w.ca.issue(t, 60*day, "b.pool.test")) }
	uncovered := mx("good.test. 60 IN MX 10 mx1.mail.test.", "good.test. 60 IN MX 20 a.pool.test.", "good.test. 60 IN MX 30 mx3.mail.test.",
		"mx3.mail.test. 60 IN CNAME mx1.mail.test.")
	runChanges(t, []change{
		{"null MX", mx("good.test. 60 IN MX 0 ."), []string{"info mx-null"}},
		{"null MX beside", mx("good.test. 60 IN MX 0 .", "good.test. 60 IN MX 10 mx1.mail.test."), []string{"warning mx-null", "info mx-unused"}},
		{"none, no address", mx(), []string{"info mx-implicit", "fault mx-not-covered", "fault mx-missing", "info mx-unused"}},
		{"implicit", func(t *testing.T, w *world) {
			w.set(domain, "MX", "good.test. 60 IN A 127.0.0.1")
			w.mx1 = serving(w.ca.issue(t, 60*day, domain))
			w.policy = strings.Replace(goodPolicy, "mx1.mail.test", domain, 1)
		}, []string{"info mx-implicit", "info mx-unused"}},
		{"not covered", uncovered, []string{"fault mx-not-covered", "warning mx-cname", "fault mx-certificate-name"}},
		{"not covered, testing", mode("testing", uncovered), []string{"info policy-testing", "warning mx-not-covered", "warning mx-cname", "warning mx-certificate-name"}},
		{"no such host", func(_ *testing.T, w *world) { w.set("mx1.mail.test", "A") }, []string{"fault mx-missing"}},
		{"host not answered", func(_ *testing.T, w *world) { w.special["mx1.mail.test."] = answerCode(dns.RcodeServerFailure) }, []string{"warning mx-lookup"}},
		{"MX not answered", func(_ *testing.T, w *world) { w.special["good.test."] = answerCode(dns.RcodeServerFailure) }, []string{"warning mx-lookup"}},
		{"no STARTTLS", plain, []string{"fault mx-starttls"}},
		{"no STARTTLS, testing", mode("testing", plain), []string{"info policy-testing", "warning mx-starttls"}},
		{"no STARTTLS, none", mode("none", plain), []string{"info policy-none", "info mx-starttls"}},
		{"no policy, no STARTTLS", func(t *testing.T, w *world) { w.policy = ""; plain(t, w) }, []string{"fault policy-malformed", "fault policy-malformed", "fault policy-malformed", "fault policy-malformed", "warning mx-starttls"}},
		{"certificate of another", other, []string{"fault mx-certificate-name"}},
		{"certificate expired", func(t *testing.T, w *world) { w.mx1 = serving(w.ca.issue(t, -time.Hour, "mx1.mail.test")) }, []string{"fault mx-certificate-expired"}},
		{"certificate expires soon", func(t *testing.T, w *world) { w.mx1 = serving(w.ca.issue(t, time.Hour, "mx1.mail.test")) }, []string{"warning certificate-expires-soon"}},
		{"certificate untrusted", func(t *testing.T, w *world) { w.mx1 = serving(newAuthority(t).issue(t, day, "mx1.mail.test")) }, []string{"fault mx-certificate-untrusted"}},
		{"handshake fails", func(_ *testing.T, w *world) { w.mx1 = serving(nil) }, []string{"fault mx-tls"}},
		{"33 of them", func(_ *testing.T, w *world) {
			for i := range 31 {
				w.zone = append(w.zone, fmt.Sprintf("good.test. 60 IN MX 5 h%d.pool.test.", i), fmt.Sprintf("h%d.pool.test. 60 IN A 127.0.0.2", i))
			}
		}, []string{"warning mx-many"}},
		{"refused", func(_ *testing.T, w *world) { w.noMX1 = true }, []string{"fault mx-refused"}},
		{"silent", func(_ *testing.T, w *world) { w.client.Dial = blocked(&w.client.SMTPPort) }, []string{"warning mx-unreachable"}},
	})
}

// onlyA answers for A, and fails for the rest.
func onlyA(w dns.ResponseWriter, q *dns.Msg) {
	if q.Question[0].Qtype != dns.TypeA {
		answerCode(dns.RcodeServerFailure)(w, q)
		return
	}
	m := new(dns.Msg).SetReply(q)
	m.Answer = []dns.RR{&dns.A{
		Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 0, 0, 1),
	}}
	_ = w.WriteMsg(m)
}

// blocked is a network that lets nothing through to one port of 127.0.0.1, which is known later.
func blocked(port *int) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == fmt.Sprintf("127.0.0.1:%d", *port) {
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

// redirected is a network that connects somewhere else than to a host.
func redirected(host, target string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, host+":") {
			addr = target
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}
