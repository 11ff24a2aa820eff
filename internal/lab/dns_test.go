package lab_test

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/lab"
)

const exampleZone = `
@          MX   10 mx1
mx1        A    192.0.2.1
           AAAA 2001:db8::1
www        CNAME mx1
out        CNAME host.other.test.
far        CNAME host.elsewhere.example.
loop       CNAME loop
deep.down  TXT  "here"
*.wild     TXT  "any"
own.wild   TXT  "own"
a.b.wild   A    192.0.2.9
sub        NS   ns.sub
big        TXT  "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
big        TXT  "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
big        TXT  "2222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222"
big        TXT  "3333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333"
big        TXT  "4444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444"
big        TXT  "5555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555"
@          CAA  0 issue "lab.invalid"
`

func startDNS(t *testing.T, keys map[string]string) *lab.DNS {
	t.Helper()
	d, err := lab.StartDNS(t.Context(), lab.DNSOptions{
		Zones: []lab.Zone{
			{Name: "example.test", Text: exampleZone},
			{Name: "other.test.", Text: "host A 192.0.2.7\n"},
		},
		Keys: keys,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func ask(t *testing.T, d *lab.DNS, network, name, typ string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[typ])
	c := &dns.Client{Net: network, Timeout: 5 * time.Second}
	r, _, err := c.ExchangeContext(t.Context(), m, d.Addr)
	if err != nil {
		t.Fatalf("ask %s %s %s: %v", network, name, typ, err)
	}
	return r
}

// short is an answer in one line: Rcode, flags, and owner, type and data of its records.
func short(m *dns.Msg) string {
	out := []string{dns.RcodeToString[m.Rcode]}
	if m.Authoritative {
		out = append(out, "aa")
	}
	for _, rr := range m.Answer {
		out = append(out, strings.Join(slices.Delete(strings.Fields(rr.String()), 1, 3), " "))
	}
	if len(m.Ns) > 0 {
		out = append(out, "+"+dns.TypeToString[m.Ns[0].Header().Rrtype])
	}
	return strings.Join(out, "; ")
}

func TestDNSAnswers(t *testing.T) {
	t.Parallel()
	d := startDNS(t, nil)
	for _, tt := range []struct{ name, typ, want string }{
		{"example.test", "MX", "NOERROR; aa; example.test. MX 10 mx1.example.test."},
		{"MX1.Example.TEST", "A", "NOERROR; aa; mx1.example.test. A 192.0.2.1"},
		{"mx1.example.test", "AAAA", "NOERROR; aa; mx1.example.test. AAAA 2001:db8::1"},
		{"mx1.example.test", "TXT", "NOERROR; aa; +SOA"},
		{"nothing.example.test", "TXT", "NXDOMAIN; aa; +SOA"},
		{"down.example.test", "TXT", "NOERROR; aa; +SOA"}, // an empty non-terminal exists
		{"deep.down.example.test", "TXT", `NOERROR; aa; deep.down.example.test. TXT "here"`},
		{"www.example.test", "A", "NOERROR; aa; www.example.test. CNAME mx1.example.test.; mx1.example.test. A 192.0.2.1"},
		{"www.example.test", "CNAME", "NOERROR; aa; www.example.test. CNAME mx1.example.test."},
		{"out.example.test", "A", "NOERROR; aa; out.example.test. CNAME host.other.test.; host.other.test. A 192.0.2.7"},
		{"far.example.test", "A", "NOERROR; aa; far.example.test. CNAME host.elsewhere.example."},
		{"x.wild.example.test", "TXT", `NOERROR; aa; x.wild.example.test. TXT "any"`},
		{"x.y.wild.example.test", "TXT", `NOERROR; aa; x.y.wild.example.test. TXT "any"`},
		{"own.wild.example.test", "TXT", `NOERROR; aa; own.wild.example.test. TXT "own"`},
		{"own.wild.example.test", "A", "NOERROR; aa; +SOA"},
		{"x.own.wild.example.test", "TXT", "NXDOMAIN; aa; +SOA"}, // RFC 4592: own.wild is the closest encloser
		{"b.wild.example.test", "TXT", "NOERROR; aa; +SOA"},      // an empty non-terminal switches the wildcard off
		{"host.sub.example.test", "A", "NOERROR; +NS"},
		{"example.test", "CAA", `NOERROR; aa; example.test. CAA 0 issue "lab.invalid"`},
		{"example.test", "NS", "NOERROR; aa; example.test. NS ns.example.test."},
		{"ns.other.test", "A", "NOERROR; aa; ns.other.test. A 127.0.0.1"},
		{"example.com", "A", "REFUSED"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if got := short(ask(t, d, network, tt.name, tt.typ)); got != tt.want {
				t.Errorf("%s %s by %s:\n got %s\nwant %s", tt.name, tt.typ, network, got, tt.want)
			}
		}
	}
	if got := len(ask(t, d, "tcp", "loop.example.test", "A").Answer); got == 0 || got > 20 {
		t.Errorf("a CNAME loop gave %d records", got)
	}
}

func TestDNSTruncates(t *testing.T) {
	t.Parallel()
	d := startDNS(t, nil)
	if r := ask(t, d, "udp", "big.example.test", "TXT"); !r.Truncated {
		t.Errorf("600 bytes by UDP without EDNS were not truncated: %v", r)
	}
	if r := ask(t, d, "tcp", "big.example.test", "TXT"); r.Truncated || len(r.Answer) != 6 {
		t.Errorf("by TCP: truncated %v, %d records, want all 6", r.Truncated, len(r.Answer))
	}
}

func TestDNSCountsAndFails(t *testing.T) {
	t.Parallel()
	d := startDNS(t, nil)
	ask(t, d, "udp", "mx1.example.test", "A")
	ask(t, d, "udp", "mx1.example.test", "AAAA")
	if a, all := d.Queries("MX1.example.test", "A"), d.Queries("mx1.example.test", ""); a != 1 || all != 2 {
		t.Errorf("Queries = %d A, %d of all types, want 1 and 2", a, all)
	}

	d.SetFault("example.test", lab.FaultServfail)
	d.SetFault("mx1.example.test", lab.FaultNone)
	if got := ask(t, d, "udp", "deep.down.example.test", "TXT").Rcode; got != dns.RcodeServerFailure {
		t.Errorf("below a name with a fault: %s", dns.RcodeToString[got])
	}
	if got := ask(t, d, "udp", "mx1.example.test", "A").Rcode; got != dns.RcodeSuccess {
		t.Errorf("the closer name without a fault: %s", dns.RcodeToString[got])
	}
	d.SetFault(".", lab.FaultSilent)
	c := &dns.Client{Timeout: 200 * time.Millisecond}
	m := new(dns.Msg).SetQuestion("host.other.test.", dns.TypeA)
	var ne net.Error
	if _, _, err := c.Exchange(m, d.Addr); err == nil || !asTimeout(err, &ne) {
		t.Errorf("a silent server: %v, want a time-out", err)
	}
}

func TestDNSChanges(t *testing.T) {
	t.Parallel()
	d := startDNS(t, nil)
	if err := d.Set("_mta-sts.example.test", "TXT", `"v=STSv1; id=1;"`, `"other"`); err != nil {
		t.Fatal(err)
	}
	want := []string{"other", "v=STSv1; id=1;"}
	if got := d.Values("_MTA-STS.example.test.", "TXT"); !cmp.Equal(got, want) {
		t.Errorf("Values = %q, want %q", got, want)
	}
	if got := len(ask(t, d, "udp", "_mta-sts.example.test", "TXT").Answer); got != 2 {
		t.Errorf("asked: %d records, want 2", got)
	}
	if err := d.Set("_mta-sts.example.test", "TXT"); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, d, "udp", "_mta-sts.example.test", "TXT").Rcode; got != dns.RcodeNameError {
		t.Errorf("after removal: %s", dns.RcodeToString[got])
	}
	if err := d.Set("www.example.com", "A", "192.0.2.1"); err == nil {
		t.Error("Set outside of all zones was accepted")
	}
	if err := d.Set("www.example.test", "A", "nonsense"); err == nil {
		t.Error("Set of nonsense was accepted")
	}
}

func TestDNSRefusesBadZones(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"www A nonsense\n", "www.example.org. A 192.0.2.1\n"} {
		_, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "example.test", Text: text}}})
		if err == nil {
			t.Errorf("zone %q was accepted", text)
		}
	}
}
