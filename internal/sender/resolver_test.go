package sender_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/sender"
)

const alphaZone = `
alpha.test.        3600 IN SOA ns.alpha.test. root.alpha.test. 1 3600 600 86400 60
txt.alpha.test.     300 IN TXT "one" "two"
mixed.alpha.test.    50 IN TXT "x"
here.alpha.test.    120 IN CNAME txt.alpha.test.
away.alpha.test.    900 IN CNAME Hop.Beta.test.
gone.alpha.test.    100 IN CNAME nothing.alpha.test.
round.alpha.test.   100 IN CNAME trip.alpha.test.
trip.alpha.test.    100 IN CNAME round.alpha.test.
host.alpha.test.    100 IN A    192.0.2.1
host.alpha.test.    100 IN A    192.0.2.2
host.alpha.test.     40 IN AAAA 2001:db8::1
v4.alpha.test.      100 IN A    192.0.2.1
hop.beta.test.        1 IN TXT  "a stale copy that alpha has no say about"
aliased.alpha.test. 700 IN CNAME host.alpha.test.
`

const betaZone = `
beta.test.        3600 IN SOA ns.beta.test. root.beta.test. 1 3600 600 86400 60
hop.beta.test.     200 IN CNAME end.beta.test.
end.beta.test.     600 IN TXT "the end"
`

// stubs is a resolver with one authoritative server for each zone.
func stubs(t *testing.T) *sender.Resolver {
	t.Helper()
	alpha := startDNS(t, &dnsServer{}, alphaZone)
	beta := startDNS(t, &dnsServer{}, betaZone)
	return &sender.Resolver{Stub: map[string][]string{"Alpha.test.": {alpha.addr}, "beta.test": {beta.addr}}}
}

// recursor is a resolver with one recursive server that knows both zones.
func recursor(t *testing.T) *sender.Resolver {
	t.Helper()
	beta := startDNS(t, &dnsServer{recursive: true}, strings.Replace(alphaZone, "hop.beta.test. ", "xxx.beta.test. ", 1)+betaZone)
	return &sender.Resolver{Servers: []string{beta.addr}}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	type result struct {
		Chain    string
		Texts    string
		NXDomain bool
		TTL, Max int // seconds
	}
	cases := []struct {
		name string
		want result
	}{
		{"txt.alpha.test", result{Texts: "one+two", TTL: 300, Max: 300}},
		{"TXT.Alpha.Test.", result{Texts: "one+two", TTL: 300, Max: 300}},
		{"here.alpha.test", result{Chain: "txt.alpha.test", Texts: "one+two", TTL: 120, Max: 300}},
		{"away.alpha.test", result{Chain: "hop.beta.test end.beta.test", Texts: "the end", TTL: 200, Max: 900}},
		{"gone.alpha.test", result{Chain: "nothing.alpha.test", NXDomain: true, TTL: 60, Max: 100}},
		{"never.alpha.test", result{NXDomain: true, TTL: 60, Max: 60}},
		{"v4.alpha.test", result{TTL: 60, Max: 60}},
	}
	for kind, r := range map[string]*sender.Resolver{"authoritative": stubs(t), "recursive": recursor(t)} {
		for _, c := range cases {
			a, err := r.Lookup(t.Context(), c.name, dns.TypeTXT)
			if err != nil {
				t.Errorf("%s: Lookup(%q): %v", kind, c.name, err)
				continue
			}
			got := result{Chain: strings.Join(a.Chain, " "), NXDomain: a.NXDomain, TTL: int(a.TTL.Seconds()), Max: int(a.MaxTTL.Seconds())}
			for _, rr := range a.RRs {
				got.Texts += strings.Join(rr.(*dns.TXT).Txt, "+")
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s: Lookup(%q) (-want +got):\n%s", kind, c.name, diff)
			}
		}
	}
}

// Nothing is proven by these, so they must not look like "there is nothing".
func TestLookupProvesNothing(t *testing.T) {
	t.Parallel()
	server := startDNS(t, &dnsServer{special: map[string]func(dns.ResponseWriter, *dns.Msg){
		"fail.alpha.test.":    answerCode(dns.RcodeServerFailure),
		"refused.alpha.test.": answerCode(dns.RcodeRefused),
		"silent.alpha.test.":  silence,
		"garbage.alpha.test.": func(w dns.ResponseWriter, q *dns.Msg) {
			_, _ = w.Write([]byte{byte(q.Id >> 8), byte(q.Id), 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0, 7})
		},
		"other.alpha.test.": func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.Question[0].Name = "txt.alpha.test."
			_ = w.WriteMsg(m)
		},
		"query.alpha.test.": func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(q) },
		"below.alpha.test.": func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			ns, _ := dns.NewRR("alpha.test. 60 IN NS ns.alpha.test.")
			m.Ns = []dns.RR{ns}
			_ = w.WriteMsg(m)
		},
	}}, alphaZone)
	cases := []struct{ name, want string }{
		{"fail.alpha.test", "SERVFAIL"},
		{"refused.alpha.test", "REFUSED"},
		{"silent.alpha.test", "no answer within 200ms"},
		{"garbage.alpha.test", "malformed answer: "},
		{"other.alpha.test", `malformed answer: it is for "txt.alpha.test."`},
		{"query.alpha.test", "malformed answer: not an answer"},
		{"below.alpha.test", "refers to other servers"},
		{"round.alpha.test", "more than 10 CNAMEs in a row, or a loop of them"},
		{"a..alpha.test", "not a domain name"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := &sender.Resolver{Servers: []string{server.addr}, Timeout: 200 * time.Millisecond}
			a, err := r.Lookup(t.Context(), c.name, dns.TypeTXT)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.name) {
				t.Errorf("Lookup(%q) = %+v, %v, want an error with the name and %q", c.name, a, err, c.want)
			}
		})
	}
	two := &sender.Resolver{Servers: []string{server.addr, "127.0.0.1:1"}}
	if _, err := two.Lookup(t.Context(), "fail.alpha.test", dns.TypeTXT); err == nil ||
		!strings.Contains(err.Error(), "SERVFAIL; ask name server 127.0.0.1:1: ") {
		t.Errorf("Lookup with two bad servers = %v, want both reasons", err)
	}
	if _, err := (&sender.Resolver{}).Lookup(t.Context(), "x.test", dns.TypeA); err == nil {
		t.Error("Lookup without servers succeeded")
	}
}

func TestLookupAsksNextServer(t *testing.T) {
	t.Parallel()
	name := "txt.alpha.test."
	bad := startDNS(t, &dnsServer{special: map[string]func(dns.ResponseWriter, *dns.Msg){name: answerCode(dns.RcodeServerFailure)}}, alphaZone)
	good := startDNS(t, &dnsServer{}, alphaZone)
	unused := startDNS(t, &dnsServer{}, alphaZone)
	r := &sender.Resolver{Servers: []string{bad.addr, good.addr, unused.addr}}
	a, err := r.Lookup(t.Context(), name, dns.TypeTXT)
	if err != nil || len(a.RRs) != 1 {
		t.Errorf("Lookup = %+v, %v, want the record from the second server", a, err)
	}
	if bad.asked.Load() != 1 || good.asked.Load() != 1 || unused.asked.Load() != 0 {
		t.Errorf("servers were asked %d, %d, %d times, want 1, 1, 0", bad.asked.Load(), good.asked.Load(), unused.asked.Load())
	}
}

func TestLookupSurvivesLostPacket(t *testing.T) {
	t.Parallel()
	name := "lossy.alpha.test."
	server := &dnsServer{}
	server.special = map[string]func(dns.ResponseWriter, *dns.Msg){name: func(w dns.ResponseWriter, q *dns.Msg) {
		if server.asked.Load() == 1 {
			return
		}
		answerCode(dns.RcodeNameError)(w, q)
	}}
	startDNS(t, server, alphaZone)
	r := &sender.Resolver{Servers: []string{server.addr}, Timeout: time.Second}
	a, err := r.Lookup(t.Context(), name, dns.TypeTXT)
	if err != nil || !a.NXDomain {
		t.Errorf("Lookup = %+v, %v, want NXDOMAIN from the second try", a, err)
	}
}

func TestExchangeGoesToTCPWhenTruncated(t *testing.T) {
	t.Parallel()
	var zone strings.Builder
	for range 30 {
		zone.WriteString("big.alpha.test. 60 IN TXT \"" + strings.Repeat("x", 200) + "\"\n")
	}
	server := startDNS(t, &dnsServer{}, zone.String())
	r := &sender.Resolver{Servers: []string{server.addr}}
	m, err := r.Exchange(t.Context(), server.addr, new(dns.Msg).SetQuestion("big.alpha.test.", dns.TypeTXT))
	if err != nil || m.Truncated || len(m.Answer) != 30 {
		t.Fatalf("Exchange = %v, %v, want all 30 records", m, err)
	}
	if n := server.asked.Load(); n != 2 {
		t.Errorf("server was asked %d times, want UDP and TCP", n)
	}
}

func TestLookupEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	server := startDNS(t, &dnsServer{special: map[string]func(dns.ResponseWriter, *dns.Msg){
		"wait.alpha.test.": func(dns.ResponseWriter, *dns.Msg) { cancel() },
	}}, alphaZone)
	r := &sender.Resolver{Servers: []string{server.addr, server.addr}, Timeout: time.Minute}
	begin := time.Now()
	_, err := r.Lookup(ctx, "wait.alpha.test", dns.TypeTXT)
	if !errors.Is(err, context.Canceled) || time.Since(begin) > 20*time.Second {
		t.Errorf("Lookup = %v after %v, want context canceled at once", err, time.Since(begin))
	}
	if n := server.asked.Load(); n != 1 {
		t.Errorf("server was asked %d times after the end of the context, want 1", n)
	}
}

func TestStubFor(t *testing.T) {
	t.Parallel()
	r := &sender.Resolver{Stub: map[string][]string{".": {"root"}, "example.org.": {"short"}, "SUB.example.org": {"long"}}}
	cases := []struct{ name, zone, server string }{
		{"a.sub.example.org", "sub.example.org", "long"},
		{"Sub.Example.org.", "sub.example.org", "long"},
		{"notsub.example.org", "example.org", "short"},
		{"notexample.org", ".", "root"},
		{".", ".", "root"},
	}
	for _, c := range cases {
		zone, servers, ok := r.StubFor(c.name)
		if !ok || zone != c.zone || len(servers) != 1 || servers[0] != c.server {
			t.Errorf("StubFor(%q) = %q, %q, %v, want %q, %q", c.name, zone, servers, ok, c.zone, c.server)
		}
	}
	if zone, _, ok := new(sender.Resolver).StubFor("example.org"); ok {
		t.Errorf("StubFor without stubs = %q, want none", zone)
	}
}

// Each asks one server at a time, and says of an error whether that one answered.
func TestEach(t *testing.T) {
	t.Parallel()
	good := startDNS(t, &dnsServer{}, alphaZone)
	lies := startDNS(t, &dnsServer{}, strings.Replace(alphaZone, "v4.alpha.test.      100 IN A    192.0.2.1", "v4.alpha.test.      100 IN A    192.0.2.66", 1))
	special := map[string]func(dns.ResponseWriter, *dns.Msg){"v4.alpha.test.": answerCode(dns.RcodeServerFailure)}
	fails := startDNS(t, &dnsServer{special: special}, alphaZone)
	mute := startDNS(t, &dnsServer{special: map[string]func(dns.ResponseWriter, *dns.Msg){"v4.alpha.test.": silence}}, alphaZone)
	servers := []string{good.addr, lies.addr, fails.addr, mute.addr}
	const timeout = time.Second
	for name, r := range map[string]*sender.Resolver{
		"servers":        {Servers: servers, Timeout: timeout},
		"stub":           {Servers: []string{"127.0.0.1:1"}, Stub: map[string][]string{"Alpha.TEST.": servers, "test": {"127.0.0.1:1"}}, Timeout: timeout},
		"stub of all":    {Stub: map[string][]string{".": servers}, Timeout: timeout},
		"a further stub": {Servers: servers, Stub: map[string][]string{"beta.test": {"127.0.0.1:1"}}, Timeout: timeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for server, one := range r.Each("v4.alpha.test.") {
				a, err := one.Addrs(t.Context(), "v4.alpha.test")
				said := fmt.Sprint(a.Addrs)
				if err != nil {
					said = fmt.Sprintf("silent: %v", sender.Silent(err))
				}
				got = append(got, server+" "+said)
			}
			want := []string{good.addr + " [192.0.2.1]", lies.addr + " [192.0.2.66]", fails.addr + " silent: false", mute.addr + " silent: true"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Each, -want +got:\n%s", diff)
			}
		})
	}
	closed := &sender.Resolver{Servers: []string{"127.0.0.1:1"}, Timeout: timeout}
	if _, err := closed.Lookup(t.Context(), "v4.alpha.test", dns.TypeA); !sender.Silent(err) {
		t.Errorf("Lookup at a closed port = %v, want it silent", err)
	}
	for range new(sender.Resolver).Each("v4.alpha.test") {
		t.Error("a Resolver without servers has one to ask")
	}
}

func TestAddrs(t *testing.T) {
	t.Parallel()
	r := stubs(t)
	all := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}
	cases := []struct {
		host string
		want sender.Addresses
	}{
		{"host.alpha.test", sender.Addresses{Addrs: all, TTL: 100 * time.Second}},
		{"aliased.alpha.test", sender.Addresses{Addrs: all, Chain: []string{"host.alpha.test"}, TTL: 700 * time.Second}},
		{"v4.alpha.test", sender.Addresses{Addrs: all[:1], TTL: 100 * time.Second}},
		{"txt.alpha.test", sender.Addresses{TTL: time.Minute}},
		{"gone.alpha.test", sender.Addresses{Chain: []string{"nothing.alpha.test"}, NXDomain: true, TTL: 100 * time.Second}},
	}
	for _, c := range cases {
		got, err := r.Addrs(t.Context(), c.host)
		if err != nil {
			t.Errorf("Addrs(%q): %v", c.host, err)
			continue
		}
		if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("Addrs(%q) (-want +got):\n%s", c.host, diff)
		}
	}
}

// Half an answer is an error, but a sender can go on with it.
func TestAddrsWithoutAAAA(t *testing.T) {
	t.Parallel()
	server := startDNS(t, &dnsServer{special: map[string]func(dns.ResponseWriter, *dns.Msg){"half.alpha.test.": onlyA}}, "")
	r := &sender.Resolver{Servers: []string{server.addr}}
	got, err := r.Addrs(t.Context(), "half.alpha.test")
	if err == nil || len(got.Addrs) != 1 || !strings.Contains(err.Error(), "AAAA") {
		t.Errorf("Addrs = %+v, %v, want one address and an error for AAAA", got, err)
	}
}

func TestSystemServers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	cases := []struct {
		file string
		want []string // nil: an error
	}{
		{"search x.test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n", []string{"192.0.2.53:53", "[2001:db8::53]:53"}},
		{"search x.test\n", nil},
	}
	for _, c := range cases {
		if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := sender.ServersOf(path)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("servers of %q = %q, %v, want %q", c.file, got, err, c.want)
		}
	}
	if _, err := sender.ServersOf(path + ".missing"); err == nil {
		t.Error("servers of a missing file: no error")
	}
}
