package dnsupdate_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/sender"
)

// internet is a root server that is asked as a resolver, and three addresses of the name servers of example.org, all at
// one port: 127.0.0.1 and 127.0.0.2 are ns1's, 127.0.0.3 is ns2's.
type internet struct {
	root     *lab.DNS
	servers  []*lab.DNS
	observer *dnsupdate.Observer
}

const root = `
@ SOA a.root. nobody.root. 1 3600 600 86400 5
@ NS a.root.
a.root. A 127.0.0.1
`

const delegation = `
@ NS ns1
@ NS ns2
ns1 A 127.0.0.1
ns1 A 127.0.0.2
ns2 A 127.0.0.3
`

func startInternet(t *testing.T) *internet {
	t.Helper()
	start := func(addr string, zones ...lab.Zone) *lab.DNS {
		d, err := lab.StartDNS(t.Context(), lab.DNSOptions{Addr: addr, Zones: zones})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	in := &internet{root: start("", lab.Zone{Name: ".", Text: root}, lab.Zone{Name: "org"}, lab.Zone{Name: zone, Text: delegation})}
	// The first one chooses a port; the others are on addresses that nobody else uses.
	first := start("", lab.Zone{Name: zone, Text: delegation})
	in.servers = append(in.servers, first)
	for i := 2; i <= 3; i++ {
		in.servers = append(in.servers, start(fmt.Sprintf("127.0.0.%d:%d", i, first.Port()), lab.Zone{Name: zone, Text: delegation}))
	}
	in.observer = &dnsupdate.Observer{
		Resolver: &sender.Resolver{Servers: []string{in.root.Addr}, Timeout: 2 * time.Second}, Port: uint16(first.Port()),
	}
	return in
}

func (in *internet) observe(t *testing.T, name string, qtype uint16) dnsupdate.View {
	t.Helper()
	v, err := in.observer.Observe(t.Context(), name, qtype)
	if err != nil {
		t.Fatalf("Observe(%s): %v", name, err)
	}
	if v.Zone != zone {
		t.Errorf("Observe(%s).Zone = %q, want %q", name, v.Zone, zone)
	}
	return v
}

func set(t *testing.T, d *lab.DNS, name, typ string, values ...string) {
	t.Helper()
	if err := d.Set(name, typ, values...); err != nil {
		t.Fatal(err)
	}
}

// other returns the answers that do not hold want as the only STSv1 record.
func other(v dnsupdate.View, want string) []dnsupdate.Answer {
	return slices.DeleteFunc(slices.Clone(v.Answers), func(a dnsupdate.Answer) bool {
		return a.Err != nil || slices.Equal(a.STS(), []string{want})
	})
}

// exactly says whether every server answered want as the only STSv1 record.
func exactly(v dnsupdate.View, want string) bool { return v.Complete() && len(other(v, want)) == 0 }

// addr is the address of the n-th server as answers name it.
func (in *internet) addr(n int) string {
	host := "ns1." + zone
	if n == 2 {
		host = "ns2." + zone
	}
	return host + " " + in.servers[n].Addr
}

// TestObserve asks every address: one that lags behind, or does not answer, is seen.
func TestObserve(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	now, old := sts("now"), sts("old")
	for i, d := range in.servers {
		value := now
		if i == 1 {
			value = old
		}
		set(t, d, record, "TXT", quoted(value), `"stran" "ger"`)
	}
	v := in.observe(t, "_MTA-STS.example.org.", dns.TypeTXT)
	want := []dnsupdate.Answer{
		{Server: in.addr(0), TXT: []string{now, "stranger"}, TTL: time.Minute},
		{Server: in.addr(1), TXT: []string{old, "stranger"}, TTL: time.Minute},
		{Server: in.addr(2), TXT: []string{now, "stranger"}, TTL: time.Minute},
	}
	if diff := cmp.Diff(want, v.Answers, cmpopts.IgnoreFields(dnsupdate.Answer{}, "RRs")); diff != "" {
		t.Errorf("Answers (-want +got):\n%s", diff)
	}
	if v.Name != record || !v.Complete() || exactly(v, now) || v.Absent() || len(other(v, now)) != 1 || other(v, now)[0].Server != in.addr(1) {
		t.Errorf("Complete = %t, Exactly = %t, Absent = %t, Other = %v", v.Complete(), exactly(v, now), v.Absent(), other(v, now))
	}
	if diff := cmp.Diff([]string{"stranger"}, v.Answers[0].Strangers()); diff != "" {
		t.Errorf("Strangers (-want +got):\n%s", diff)
	}

	set(t, in.servers[1], record, "TXT", quoted(now))
	if v = in.observe(t, record, dns.TypeTXT); !exactly(v, now) {
		t.Errorf("Exactly = false: %+v", v)
	}
	set(t, in.servers[1], record, "TXT", quoted(now), quoted(old))
	if v = in.observe(t, record, dns.TypeTXT); exactly(v, now) {
		t.Error("Exactly = true with a duplicate at one server")
	}
	if n := in.root.Queries(zone, "NS"); n != 1 {
		t.Errorf("asked %d times who serves the zone, want once", n)
	}
	for _, d := range in.servers {
		set(t, d, record, "TXT")
	}
	v = in.observe(t, record, dns.TypeTXT)
	if !v.Absent() || !v.Answers[0].NXDomain || v.MaxTTL() != 5*time.Second {
		t.Errorf("Absent = %t, NXDomain = %t, MaxTTL = %v, want true, true and the negative TTL", v.Absent(), v.Answers[0].NXDomain, v.MaxTTL())
	}
}

// TestObserveFaults has one server fail in each way: nothing is proven then.
func TestObserveFaults(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	now := sts("now")
	for _, d := range in.servers {
		set(t, d, record, "TXT", quoted(now))
	}
	for fault, want := range map[lab.Fault]string{
		lab.FaultServfail: "name server " + in.addr(2) + ": SERVFAIL",
		lab.FaultRefused:  "name server " + in.addr(2) + ": REFUSED",
		lab.FaultSilent:   "ask name server " + in.servers[2].Addr + ": no answer within 2s",
	} {
		in.servers[2].SetFault(".", fault)
		v := in.observe(t, record, dns.TypeTXT)
		if v.Complete() || exactly(v, now) || v.Absent() || len(v.Failed()) != 1 || len(other(v, now)) != 0 {
			t.Errorf("%s: Complete = %t, Exactly = %t, Absent = %t", want, v.Complete(), exactly(v, now), v.Absent())
			continue
		}
		if got := v.Failed()[0].Err.Error(); got != want {
			t.Errorf("Err = %s, want %s", got, want)
		}
	}
	if (dnsupdate.View{}).Complete() {
		t.Error("a view of nobody is complete")
	}
}

// TestObserveLame asks a server that was delegated to and does not know the zone, one that has no address, and one whose
// address cannot be learned.
func TestObserveLame(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	for _, d := range in.servers {
		set(t, d, record, "TXT", quoted(sts("now")))
	}
	set(t, in.root, zone, "NS", "ns1.example.org.", "nowhere.example.org.")
	if v := in.observe(t, record, dns.TypeTXT); !exactly(v, sts("now")) || len(v.Answers) != 2 {
		t.Errorf("with a server that has no address: %+v", v)
	}

	broken := startInternet(t)
	set(t, broken.root, zone, "NS", "ns1.example.org.", "ns.broken.example.")
	broken.root.SetFault("broken.example", lab.FaultServfail)
	v := broken.observe(t, record, dns.TypeTXT)
	if v.Complete() || len(v.Failed()) != 1 || !strings.HasPrefix(v.Failed()[0].Err.Error(), `find name server "ns.broken.example": `) {
		t.Errorf("with a server that cannot be found: %+v", v)
	}

	elsewhere := startInternet(t)
	if err := elsewhere.servers[1].AddZone(lab.Zone{Name: "_mta-sts.example.org"}); err != nil { // it thinks that it delegates
		t.Fatal(err)
	}
	if err := elsewhere.servers[2].AddZone(lab.Zone{Name: zone, Text: delegation + "_mta-sts NS ns.example.net."}); err != nil {
		t.Fatal(err)
	}
	v = elsewhere.observe(t, record, dns.TypeTXT)
	if len(v.Failed()) != 1 || v.Failed()[0].Err.Error() != "name server "+elsewhere.addr(2)+`: not authoritative for "_mta-sts.example.org"` {
		t.Errorf("with a server that delegates: %+v", v)
	}
}

// TestObserveAlias has CNAMEs at the name, one into a place that is broken.
func TestObserveAlias(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	in.root.SetFault("broken.example", lab.FaultServfail)
	for _, d := range append(in.servers, in.root) {
		set(t, d, "in."+zone, "TXT", quoted(sts("now")))
		set(t, d, "a."+zone, "CNAME", "In.Example.Org.")
		set(t, d, "b."+zone, "CNAME", "broken.example.")
		set(t, d, "c."+zone, "CNAME", "nowhere.example.org.")
	}
	for name, target := range map[string]string{"a": "in." + zone, "b": "broken.example", "c": "nowhere." + zone} {
		v := in.observe(t, name+"."+zone, dns.TypeTXT)
		a := v.Answers[0]
		if v.CNAME() != target || len(a.RRs)+len(a.TXT) != 0 || a.NXDomain || v.Absent() || a.TTL != time.Minute {
			t.Errorf("%s: %+v, want CNAME %s and nothing else", name, a, target)
		}
	}
	v := in.observe(t, "a."+zone, dns.TypeCNAME)
	if v.CNAME() != "in."+zone || len(v.Answers[0].RRs) != 1 {
		t.Errorf("asked for the CNAME itself: %+v", v.Answers[0])
	}
}

// TestObserveLarge needs TCP.
func TestObserveLarge(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	values := []string{quoted(sts("now"))}
	for i := range 60 {
		values = append(values, fmt.Sprintf("\"%d %s\"", i, strings.Repeat("x", 200)))
	}
	for _, d := range in.servers {
		set(t, d, record, "TXT", values...)
	}
	if v := in.observe(t, record, dns.TypeTXT); !exactly(v, sts("now")) || len(v.Answers[0].TXT) != 61 {
		t.Errorf("%d values, want 61", len(v.Answers[0].TXT))
	}
}

// TestObserveStub has a stub zone's servers asked in place of the delegated ones.
func TestObserveStub(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	inside, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: zone, Text: "_mta-sts TXT " + quoted(sts("inside"))}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	in.observer.Resolver.Stub = map[string][]string{zone: {inside.Addr}}
	v := in.observe(t, record, dns.TypeTXT)
	if !exactly(v, sts("inside")) || len(v.Answers) != 1 || v.Answers[0].Server != inside.Addr {
		t.Errorf("Observe = %+v", v)
	}
}

// TestObserveUnknown has no zone to be found.
func TestObserveUnknown(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	in.root.SetFault("broken.example", lab.FaultServfail)
	_, err := in.observer.Observe(t.Context(), "_mta-sts.broken.example", dns.TypeTXT)
	want := `observe TXT "_mta-sts.broken.example": find zone: look up SOA "_mta-sts.broken.example": name server ` + in.root.Addr + ": SERVFAIL"
	if err == nil || err.Error() != want {
		t.Errorf("Observe = %v, want %s", err, want)
	}
	set(t, in.root, zone, "NS", "nowhere.example.org.")
	_, err = in.observer.Observe(t.Context(), record, dns.TypeTXT)
	if want := `observe TXT "_mta-sts.example.org": find name servers of "example.org": none has an address`; err == nil || err.Error() != want {
		t.Errorf("Observe = %v, want %s", err, want)
	}
}

// TestObserveCrowdOfServers: a zone whose DNS names very many servers, or addresses of one, does not have us ask them all.
func TestObserveCrowdOfServers(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	var servers, addrs []string
	for i := range 1000 {
		servers = append(servers, fmt.Sprintf("ns%d.victim.example.", i))
		addrs = append(addrs, fmt.Sprintf("127.0.%d.%d", 4+i/250, 1+i%250))
	}
	const want = `observe TXT "_mta-sts.example.org": find name servers of "example.org": it has more than 64, or they have more addresses`
	set(t, in.root, zone, "NS", servers...)
	if _, err := in.observer.Observe(t.Context(), record, dns.TypeTXT); err == nil || err.Error() != want {
		t.Errorf("Observe with 1000 name servers = %v, want %s", err, want)
	}
	if n := in.root.Queries("ns0.victim.example", "A"); n != 0 {
		t.Errorf("%d questions for the address of one of them, want none", n)
	}
	set(t, in.root, zone, "NS", "ns1.example.org.", "ns2.example.org.")
	set(t, in.root, "ns2."+zone, "A", addrs...)
	if _, err := in.observer.Observe(t.Context(), record, dns.TypeTXT); err == nil || err.Error() != want {
		t.Errorf("Observe with 1000 addresses of a name server = %v, want %s", err, want)
	}
	set(t, in.root, "ns2."+zone, "A", addrs[:maxAddresses-2]...) // ns1 has two
	if v := in.observe(t, record, dns.TypeTXT); len(v.Answers) != maxAddresses {
		t.Errorf("%d of %d addresses are asked", len(v.Answers), maxAddresses)
	}
}

// maxAddresses is how many addresses of the name servers of a zone are asked.
const maxAddresses = 64

// TestObserveNoRoute gives a name server an IPv6 address that this machine may have no way to.
func TestObserveNoRoute(t *testing.T) {
	t.Parallel()
	conn, err := net.Dial("udp", "[100::1]:53") // a discard prefix (RFC 6666); nothing is sent
	if err == nil {
		conn.Close()
	}
	in := startInternet(t)
	for _, d := range in.servers {
		set(t, d, record, "TXT", quoted(sts("now")))
	}
	set(t, in.root, "ns1."+zone, "AAAA", "100::1")
	if v := in.observe(t, record, dns.TypeTXT); v.Complete() != (err != nil) || len(other(v, sts("now"))) != 0 {
		t.Errorf("there is a way: %t; Observe = %+v", err == nil, v)
	}
	only := startInternet(t)
	set(t, only.root, "ns1."+zone, "A")
	set(t, only.root, "ns1."+zone, "AAAA", "100::1")
	if v := only.observe(t, record, dns.TypeTXT); v.Complete() {
		t.Errorf("a server that cannot be reached at all is overlooked: %+v", v)
	}
}

// TestObserveMany looks at many names in one place, as the alias records of a hoster are: what is above them is asked for
// once.
func TestObserveMany(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	for i := range 5 {
		in.observe(t, fmt.Sprintf("h%d.d.default.%s", i, zone), dns.TypeTXT)
	}
	for name, want := range map[string]int{zone: 1, "default." + zone: 1, "d.default." + zone: 1, "h4.d.default." + zone: 1} {
		if got := in.root.Queries(name, "SOA"); got != want {
			t.Errorf("%d questions for the SOA record of %s, want %d", got, name, want)
		}
	}
}

// TestObserveStaysOutside: a zone's owner cannot have us ask what only our network reaches, nor see what is there.
func TestObserveStaysOutside(t *testing.T) {
	t.Parallel()
	in := startInternet(t)
	for _, d := range in.servers {
		set(t, d, record, "TXT", quoted(sts("now")))
	}
	const why = ": its address is outside of the public Internet, so it is not asked; if it is meant, add it to allow_private in [check], " +
		"or the zone to stub in [dns]"
	ns1, ns2 := "ns1."+zone+why, "ns2."+zone+why
	private := func(all ...string) *sender.Guard {
		var g sender.Guard
		for _, p := range all {
			g.Private = append(g.Private, netip.MustParsePrefix(p))
		}
		return &g
	}
	own := func(want bool) func(context.Context, string, string) bool {
		return func(_ context.Context, z, name string) bool {
			if z != zone || name != record {
				t.Errorf("Own(%q, %q), want %q and %q", z, name, zone, record)
			}
			return want
		}
	}
	for _, c := range []struct {
		name  string
		guard *sender.Guard
		own   func(context.Context, string, string) bool
		want  []string // server, and why it does not answer
		asked [3]int
	}{
		{"no guard", nil, own(false), []string{in.addr(0), in.addr(1), in.addr(2)}, [3]int{1, 1, 1}},
		{"no leave", private(), nil, []string{ns1, ns2}, [3]int{}},
		{"of others", private(), own(false), []string{ns1, ns2}, [3]int{}},
		{"our own", private(), own(true), []string{in.addr(0), in.addr(1), in.addr(2)}, [3]int{1, 1, 1}},
		{"one of two", private("127.0.0.2/32"), nil, []string{ns1, in.addr(1), ns2}, [3]int{0, 1, 0}},
		{"one of them", private("127.0.0.3/32"), nil, []string{ns1, in.addr(2)}, [3]int{0, 0, 1}},
		{"their network", private("127.0.0.0/8"), nil, []string{in.addr(0), in.addr(1), in.addr(2)}, [3]int{1, 1, 1}},
	} {
		var before, asked [3]int
		for i, d := range in.servers {
			before[i] = d.Queries(record, "TXT")
		}
		in.observer = &dnsupdate.Observer{Resolver: in.observer.Resolver, Port: in.observer.Port, Guard: c.guard, Own: c.own}
		v := in.observe(t, record, dns.TypeTXT)
		var got []string
		for _, a := range v.Answers {
			if a.Err != nil {
				a.Server += ": " + a.Err.Error()
			}
			got = append(got, a.Server)
		}
		for i, d := range in.servers {
			asked[i] = d.Queries(record, "TXT") - before[i]
		}
		if diff := cmp.Diff(c.want, got); diff != "" || asked != c.asked {
			t.Errorf("%s: asked %v, want %v; answers (-want +got):\n%s", c.name, asked, c.asked, diff)
		}
		if v.Complete() != (c.asked == [3]int{1, 1, 1}) || v.Absent() {
			t.Errorf("%s: complete %v, absent %v", c.name, v.Complete(), v.Absent())
		}
	}
	stub := map[string][]string{".": {in.servers[0].Addr}}
	in.observer = &dnsupdate.Observer{Resolver: &sender.Resolver{Stub: stub}, Guard: private()}
	if v := in.observe(t, record, dns.TypeTXT); !exactly(v, sts("now")) {
		t.Errorf("a stub's server: %+v", v)
	}
}
