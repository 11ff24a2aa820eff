// Package labtest gives tests the servers that operators run, and the provider that most of them have.
//
// [StartBIND], [StartKnot] and [StartPowerDNS] start the real programs on loopback, unprivileged, each with zones of the
// test's own that take signed dynamic updates; a program that is missing or does not start fails the test, never skips
// it. So does [StartPostgreSQL]. [StartCloudflare] is a fake of Cloudflare's API that behaves as documented, with faults to order; it serves its
// zones by DNS as well. All of them end with the test.
package labtest

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
)

// The keys of every server; they share DNSServer.Secret.
const (
	keyName      = "stspub"
	guestName    = "guest"
	keyAlgorithm = "hmac-sha256"
)

// DNSServer is a running authoritative server. KeyName may update any record of its zones.
type DNSServer struct {
	Program      string // "BIND", "Knot", "PowerDNS"
	Addr         string // "ADDR:PORT" for UDP and TCP
	KeyName      string
	KeyAlgorithm string // "hmac-sha256"
	Secret       string // base64
	Guest        string // a key with the same secret that may ask and not update
	API          string // PowerDNS: the URL of its HTTP API; others have none
	APIKey       string

	dir   string
	zones []string
}

// newDNSServer prepares a directory with one zone file for each zone. Zone.Text needs no SOA and no NS record.
func newDNSServer(t testing.TB, program string, zones []lab.Zone) *DNSServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "stspub-"+strings.ToLower(program)+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	secret := make([]byte, 32)
	rand.Read(secret)
	s := &DNSServer{
		Program: program, KeyName: keyName, KeyAlgorithm: keyAlgorithm, Guest: guestName,
		Secret: base64.StdEncoding.EncodeToString(secret), dir: dir,
	}
	for _, z := range zones {
		name := strings.TrimSuffix(z.Name, ".")
		s.zones = append(s.zones, name)
		// Negative answers are cached for one second, so that tests through resolvers see changes.
		head := "$ORIGIN " + name + ".\n$TTL 60\n@ IN SOA ns.stspub-lab. hostmaster.stspub-lab. 1 3600 600 604800 1\n" +
			"@ IN NS ns.stspub-lab.\n"
		s.write(t, name+".zone", head+z.Text+"\n")
	}
	return s
}

func (s *DNSServer) write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, file), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Account is an rfc2136 account for the server.
func (s *DNSServer) Account(name string) config.Account {
	return config.Account{
		Name: name, Provider: "rfc2136", Server: s.Addr,
		KeyName: s.KeyName, KeyAlgorithm: s.KeyAlgorithm, Key: config.Secret(s.Secret),
	}
}

// APIAccount is a powerdns account for the server.
func (s *DNSServer) APIAccount(name string) config.Account {
	return config.Account{Name: name, Provider: "powerdns", Server: s.API, ServerID: "localhost", APIKey: config.Secret(s.APIKey)}
}

// Set replaces the record set of a name and type ("TXT") by values in zone-file format, without any it removes it. The
// TTL is 60. Servers that do not let a CNAME stand beside other records need those removed first.
func (s *DNSServer) Set(t testing.TB, name, typ string, values ...string) {
	t.Helper()
	name = dns.Fqdn(name)
	m := new(dns.Msg).SetUpdate(dns.Fqdn(s.zone(t, name)))
	m.RemoveRRset([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: name, Rrtype: dns.StringToType[typ]}}})
	for _, v := range values {
		rr, err := dns.NewRR(name + " 60 IN " + typ + " " + v)
		if err != nil {
			t.Fatalf("record %s %s %q: %v", name, typ, v, err)
		}
		m.Insert([]dns.RR{rr})
	}
	r, err := s.exchange(m, "tcp", 15*time.Second)
	if err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("%s: set %s %s: %v %v\n%s", s.Program, name, typ, err, r, s.Log())
	}
}

// zone returns the longest zone that holds a name.
func (s *DNSServer) zone(t testing.TB, name string) string {
	t.Helper()
	longest := ""
	for _, z := range s.zones {
		if dns.IsSubDomain(dns.Fqdn(z), name) && len(z) > len(longest) {
			longest = z
		}
	}
	if longest == "" {
		t.Fatalf("%s: no zone holds %s", s.Program, name)
	}
	return longest
}

// Query asks the server without recursion, over UDP.
func (s *DNSServer) Query(name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m.RecursionDesired = false
	m.SetEdns0(4096, false)
	r, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(m, s.Addr)
	return r, err
}

// exchange sends a signed message. On a crowded machine an answer may take its time.
func (s *DNSServer) exchange(m *dns.Msg, network string, timeout time.Duration) (*dns.Msg, error) {
	key := dns.Fqdn(s.KeyName)
	c := &dns.Client{Net: network, Timeout: timeout, TsigSecret: map[string]string{key: s.Secret}}
	m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
	r, _, err := c.Exchange(m, s.Addr)
	return r, err
}

// ping proves that our server answers, over UDP and TCP: no other one has the key.
func (s *DNSServer) ping() error {
	for _, network := range []string{"udp", "tcp"} {
		for _, zone := range s.zones {
			r, err := s.exchange(new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA), network, 2*time.Second)
			if err != nil {
				return err
			}
			if r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 || r.IsTsig() == nil {
				return fmt.Errorf("zone %s: %s, signed: %t", zone, dns.RcodeToString[r.Rcode], r.IsTsig() != nil)
			}
		}
	}
	if s.API == "" {
		return nil
	}
	req, err := http.NewRequest(http.MethodGet, s.API+"/api/v1/servers/localhost", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-API-Key", s.APIKey)
	resp, err := (&http.Client{Timeout: 2 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("API: %s", resp.Status)
	}
	return nil
}

// Log is what the program wrote to its standard output and error.
func (s *DNSServer) Log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}
