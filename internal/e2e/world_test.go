package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/publish"
)

const (
	hostname  = "sts.provider.test"
	aliasZone = "alias.provider.test"
	zoned     = "zoned.test"         // publish = "zone"
	shop      = "shop.provider.test" // publish = "alias"; its zone is the provider's so that the authority sees the CNAME
	hand      = "hand.provider.test" // publish = "manual"

	settle = 2 * time.Second
	// patience is how long anything may take that has no time of its own, on a crowded machine with the race detector.
	patience = 3 * time.Minute
)

// world is one small internet with one daemon. All its addresses are on a loopback address of its own.
type world struct {
	t      *testing.T
	dir    string
	ip     string
	holder holder
	ca     *lab.CA
	orders orderBook // that it took

	second  *secondary
	api     *gate // between the daemon and who takes its DNS changes
	acme    *gate // between the daemon and its authority
	outside *gate // between the world and the daemon, as the daemon sees itself from outside

	settings settings
	daemon   *process
	admin    *httpd.Client
}

// settings are what tests vary in the configuration.
type settings struct {
	mx        []string
	maxAge    string
	domains   []string // of zoned, shop and hand
	mxsetTail string   // more of [mxset.main]
	checkTail string   // more of [check]
	acmeTail  string   // more of [acme.lab]
	every     string   // check.every; a pause is never longer either
	storeDir  string   // where the store is in the world's directory, with a slash behind it
	health    bool     // there is a listener for load balancers
}

func newWorld(t *testing.T, kind string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, ip: loopback(t)}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w.holder = hold(t, kind, "provider.test", aliasZone, zoned)
	w.ca, err = lab.StartCA(context.Background(), lab.CAOptions{DNS: w.holder.dns(), HTTPPort: 8080, TLSPort: 8443, Wrap: w.orders.wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.ca.Close() })
	w.second = newSecondary(t, w.holder.dns())
	w.api = newGate(t, "127.0.0.1:0", w.holder.api())
	w.acme = newGate(t, "127.0.0.1:0", strings.TrimSuffix(strings.TrimPrefix(w.ca.DirectoryURL, "https://"), "/dir"))
	w.outside = newGate(t, w.ip+":0", w.ip+":8443")

	w.set(hostname, "A", w.ip)
	w.set("mx1.provider.test", "A", w.ip) // BIND refuses an MX without address
	w.set("mx9.provider.test", "A", w.ip)
	w.set("mta-sts."+zoned, "A", w.ip)
	w.set("mta-sts."+shop, "CNAME", hostname+".")
	w.set("mta-sts."+hand, "CNAME", hostname+".")
	for _, d := range []string{zoned, shop, hand} {
		w.set(d, "MX", "10 mx1.provider.test.")
	}
	for name, content := range w.holder.secrets() {
		w.file(name, content)
	}
	w.file("ca.pem", string(w.ca.RootPEM)+string(w.ca.DirectoryCAPEM))
	w.settings = settings{mx: []string{"mx1.provider.test"}, maxAge: "5s", domains: []string{zoned, shop}, every: "2s"}
	w.configure()
	w.admin = httpd.NewClient("unix:" + w.path("admin.sock"))
	return w
}

// loopback returns an address on which nobody else listens.
func loopback(t *testing.T) string {
	t.Helper()
	for range 20 {
		ip := net.IPv4(127, byte(1+rand.N(254)), byte(rand.N(256)), byte(1+rand.N(254))).String()
		ln, err := net.Listen("tcp", ip+":8443")
		if err == nil {
			ln.Close()
			return ip
		}
	}
	t.Fatal("port 8443 is taken on 20 loopback addresses")
	return ""
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) file(name, content string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) set(name, typ string, values ...string) {
	w.t.Helper()
	w.holder.set(w.t, name, typ, values...)
}

// configure writes the configuration file.
func (w *world) configure() {
	w.t.Helper()
	_, outsidePort, _ := net.SplitHostPort(w.outside.addr)
	var b strings.Builder
	fmt.Fprintf(&b, "[server]\nhostname = %q\nhttps = \"%s:8443\"\nhttp = \"%s:8080\"\nadmin = \"unix:%s\"\n", hostname, w.ip, w.ip, w.path("admin.sock"))
	if w.settings.health {
		fmt.Fprintf(&b, "health = \"%s:8081\"\n", w.ip)
	}
	fmt.Fprintf(&b, "[store]\nurl = \"sqlite:%s\"\n", w.path(w.settings.storeDir+"stspub.db"))
	fmt.Fprintf(&b, "[acme.lab]\ndirectory = \"https://%s/dir\"\nca_file = \"ca.pem\"\n%s", w.acme.addr, w.settings.acmeTail)
	fmt.Fprintf(&b, "[dns]\nresolvers = [%[1]q]\nstub = { \".\" = [%[1]q, %[2]q] }\n", w.holder.dns(), w.second.addr)
	fmt.Fprintf(&b, "[account.main]\n%s[alias]\nzone = %q\naccount = \"main\"\n", w.holder.account(w.api.addr), aliasZone)
	fmt.Fprintf(&b, "[publish]\nsettle = %q\nttl = \"60s\"\n", settle)
	fmt.Fprintf(&b, "[check]\nevery = %q\nhttp_port = 8080\nhttps_port = %s\nca_file = \"ca.pem\"\n%s", w.settings.every, outsidePort, w.settings.checkTail)
	fmt.Fprintf(&b, "[mxset.main]\nmode = \"enforce\"\nmax_age = %q\nmx = [\"%s\"]\n%s\n", w.settings.maxAge, strings.Join(w.settings.mx, `", "`), w.settings.mxsetTail)
	for _, d := range w.settings.domains {
		fmt.Fprintf(&b, "[[domain]]\nname = %q\nmxset = \"main\"\n", d)
		switch d {
		case shop:
			b.WriteString("publish = \"alias\"\n")
		case hand:
			b.WriteString("publish = \"manual\"\n")
		default:
			b.WriteString("publish = \"zone\"\naccount = \"main\"\n")
		}
	}
	w.file("stspub.toml", b.String())
}

// policy is the text of RFC 8461, Section 3.2, that the settings stand for.
func (w *world) policy(mode, maxAge string) string {
	return fmt.Sprintf("version: STSv1\r\nmode: %s\r\nmax_age: %s\r\nmx: %s\r\n", mode, maxAge, strings.Join(w.settings.mx, "\r\nmx: "))
}

// record is where a domain's TXT record is.
func (w *world) record(domain string) string {
	w.t.Helper()
	if domain == shop {
		return w.status(shop).Record
	}
	return "_mta-sts." + domain
}

// delegate sets the _mta-sts CNAME as the customer does.
func (w *world) delegate() {
	w.t.Helper()
	w.set("_mta-sts."+shop, "CNAME", w.status(shop).Record+".")
}

// txt returns the TXT records of a name at the primary, along CNAMEs, in zone-file format.
func (w *world) txt(name string) []string {
	w.t.Helper()
	values, err := lookupTXT(w.holder.dns(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return values
}

func lookupTXT(server, name string) ([]string, error) {
	for range 4 {
		q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT)
		q.RecursionDesired = false
		r, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(q, server)
		if err != nil {
			return nil, err
		}
		if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
			return nil, fmt.Errorf("%s TXT: %s", name, dns.RcodeToString[r.Rcode])
		}
		var values []string
		target := ""
		for _, rr := range r.Answer {
			switch rr := rr.(type) {
			case *dns.CNAME:
				target = rr.Target
			case *dns.TXT:
				values = append(values, strings.TrimPrefix(rr.String(), rr.Hdr.String()))
			}
		}
		if len(values) > 0 || target == "" {
			slices.Sort(values)
			return values, nil
		}
		name = target
	}
	return nil, fmt.Errorf("%s TXT: too many CNAMEs", name)
}

// sts returns the MTA-STS records among TXT values.
func sts(values []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !strings.HasPrefix(v, `"v=STSv1`) })
}

// value is the record of an id in zone-file format.
func value(id string) string { return fmt.Sprintf(`"v=STSv1; id=%s;"`, id) }

// sender returns a client that sees a domain's policy host as a sender does.
func (w *world) sender(domain string) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.ca.RootPEM)
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "mta-sts." + domain},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.ip+":8443")
		},
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Timeout: 5 * time.Second, Transport: tr}
}

// fetch returns the body, or the status as an error. RFC 8461, Section 3.3: only 200 is a policy.
func fetch(c *http.Client, domain string) (string, error) {
	resp, err := c.Get("https://mta-sts." + domain + "/.well-known/mta-sts.txt")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	return string(body), err
}

// until waits for a condition. ok says what is there instead while it does not hold.
func (w *world) until(what string, limit time.Duration, ok func() (bool, string)) {
	w.t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		good, instead := ok()
		if good {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			w.t.Fatalf("%s: not within %v; last seen: %s\n%s", what, limit, instead, w.log())
		}
	}
}

// status is what the daemon says of a domain.
func (w *world) status(domain string) publish.Status {
	w.t.Helper()
	s, err := w.admin.Domain(context.Background(), domain)
	if err != nil {
		w.t.Fatalf("status of %s: %v\n%s", domain, err, w.log())
	}
	return s
}

// await waits until a domain's status is as wanted, and returns it.
func (w *world) await(domain, what string, good func(publish.Status) bool) publish.Status {
	w.t.Helper()
	var s publish.Status
	w.until(domain+" "+what, patience, func() (bool, string) {
		s = w.status(domain)
		return good(s), fmt.Sprintf("step %s, id %q, intended %q, fault %t: %s", s.Step, s.ID, s.Intended, s.Fault, s.Reason)
	})
	return s
}

// step waits until a domain rests at a step.
func (w *world) step(domain, step string) publish.Status {
	w.t.Helper()
	return w.await(domain, "at step "+step, func(s publish.Status) bool { return s.Step == step })
}

// live waits until a domain is live with an id other than before, under a policy.
func (w *world) live(domain, before, policy string) publish.Status {
	w.t.Helper()
	return w.await(domain, "live with a new id", func(s publish.Status) bool {
		return s.Step == publish.StepLive && s.ID != "" && s.ID != before && s.Intended == "" && s.Policy == policy
	})
}

// publishAll starts the daemon and plays the customer until both domains are live.
func (w *world) publishAll() (zonedID, shopID string) {
	w.t.Helper()
	w.start()
	w.step(shop, publish.StepDelegation)
	w.delegate()
	policy := w.policy("enforce", strings.TrimSuffix(w.settings.maxAge, "s"))
	return w.live(zoned, "", policy).ID, w.live(shop, "", policy).ID
}
