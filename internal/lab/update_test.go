package lab_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/lab"
)

const (
	keyName = "writer."
	secret  = "c2VjcmV0IG9mIHRoZSB3cml0ZXI="
)

func asTimeout(err error, ne *net.Error) bool { return errors.As(err, ne) && (*ne).Timeout() }

func rr(t *testing.T, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func send(t *testing.T, d *lab.DNS, m *dns.Msg, key string) int {
	t.Helper()
	c := &dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	if key != "" {
		c.TsigSecret = map[string]string{keyName: key}
		m.SetTsig(keyName, dns.HmacSHA256, 300, time.Now().Unix())
	}
	r, _, err := c.ExchangeContext(t.Context(), m, d.Addr)
	if err != nil && r == nil {
		t.Fatalf("send update: %v", err)
	}
	if r.Rcode == dns.RcodeSuccess && key != "" && r.IsTsig() == nil {
		t.Error("the answer to a signed update is not signed")
	}
	return r.Rcode
}

func TestUpdateNeedsItsKey(t *testing.T) {
	t.Parallel()
	d := startDNS(t, map[string]string{"Writer": secret})
	update := func() *dns.Msg {
		m := new(dns.Msg).SetUpdate("example.test.")
		m.Insert([]dns.RR{rr(t, `new.example.test. 60 IN TXT "x"`)})
		return m
	}
	if got := send(t, d, update(), ""); got != dns.RcodeRefused {
		t.Errorf("unsigned: %s, want REFUSED", dns.RcodeToString[got])
	}
	if got := send(t, d, update(), "d3Jvbmc="); got != dns.RcodeNotAuth {
		t.Errorf("wrong key: %s, want NOTAUTH", dns.RcodeToString[got])
	}
	if got := d.Values("new.example.test", "TXT"); got != nil {
		t.Errorf("an update without the right key was carried out: %q", got)
	}
	if got := send(t, d, update(), secret); got != dns.RcodeSuccess {
		t.Errorf("right key: %s", dns.RcodeToString[got])
	}
	if got := d.Values("new.example.test", "TXT"); !cmp.Equal(got, []string{"x"}) || d.Updates() != 1 {
		t.Errorf("after one update: %q, %d updates", got, d.Updates())
	}
}

func TestUpdateIsCompareAndSwap(t *testing.T) {
	t.Parallel()
	d := startDNS(t, nil)
	const name = "_mta-sts.example.test."
	if err := d.Set(name, "TXT", `"old"`, `"stranger"`); err != nil {
		t.Fatal(err)
	}
	swap := func(from, to string) *dns.Msg {
		m := new(dns.Msg).SetUpdate("example.test.")
		m.Used([]dns.RR{rr(t, name+` 0 IN TXT "`+from+`"`), rr(t, name+` 0 IN TXT "stranger"`)})
		m.Remove([]dns.RR{rr(t, name+` 0 IN TXT "`+from+`"`)})
		m.Insert([]dns.RR{rr(t, name+` 60 IN TXT "`+to+`"`)})
		return m
	}
	if got := send(t, d, swap("old", "new"), ""); got != dns.RcodeSuccess {
		t.Fatalf("first swap: %s", dns.RcodeToString[got])
	}
	if got := send(t, d, swap("old", "newer"), ""); got != dns.RcodeNXRrset {
		t.Errorf("swap of a value that is gone: %s, want NXRRSET", dns.RcodeToString[got])
	}
	want := []string{"new", "stranger"}
	if got := d.Values(name, "TXT"); !cmp.Equal(got, want) {
		t.Errorf("Values = %q, want %q", got, want)
	}
	serial := ask(t, d, "udp", "example.test", "SOA").Answer[0].(*dns.SOA).Serial
	if serial != 3 { // 1, the Set, the one swap
		t.Errorf("serial = %d, want 3", serial)
	}
}

func TestUpdatePrerequisites(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		set  func(*dns.Msg, dns.RR)
		rr   string
		want int
	}{
		{"name used", func(m *dns.Msg, r dns.RR) { m.NameUsed([]dns.RR{r}) }, "mx1.example.test. 0 IN A 192.0.2.1", dns.RcodeSuccess},
		{"name used, it is not", func(m *dns.Msg, r dns.RR) { m.NameUsed([]dns.RR{r}) }, "no.example.test. 0 IN A 192.0.2.1", dns.RcodeNameError},
		{"name free", func(m *dns.Msg, r dns.RR) { m.NameNotUsed([]dns.RR{r}) }, "no.example.test. 0 IN A 192.0.2.1", dns.RcodeSuccess},
		{"name free, it is not", func(m *dns.Msg, r dns.RR) { m.NameNotUsed([]dns.RR{r}) }, "mx1.example.test. 0 IN A 192.0.2.1", dns.RcodeYXDomain},
		{"set there", func(m *dns.Msg, r dns.RR) { m.RRsetUsed([]dns.RR{r}) }, "mx1.example.test. 0 IN A 192.0.2.1", dns.RcodeSuccess},
		{"set there, it is not", func(m *dns.Msg, r dns.RR) { m.RRsetUsed([]dns.RR{r}) }, `mx1.example.test. 0 IN TXT "x"`, dns.RcodeNXRrset},
		{"set free", func(m *dns.Msg, r dns.RR) { m.RRsetNotUsed([]dns.RR{r}) }, `mx1.example.test. 0 IN TXT "x"`, dns.RcodeSuccess},
		{"set free, it is not", func(m *dns.Msg, r dns.RR) { m.RRsetNotUsed([]dns.RR{r}) }, "mx1.example.test. 0 IN A 192.0.2.1", dns.RcodeYXRrset},
		{"outside", func(m *dns.Msg, r dns.RR) { m.NameUsed([]dns.RR{r}) }, "mx1.example.org. 0 IN A 192.0.2.1", dns.RcodeNotZone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := startDNS(t, nil)
			m := new(dns.Msg).SetUpdate("example.test.")
			tt.set(m, rr(t, tt.rr))
			m.Insert([]dns.RR{rr(t, `mark.example.test. 60 IN TXT "x"`)})
			if got := send(t, d, m, ""); got != tt.want {
				t.Errorf("answer %s, want %s", dns.RcodeToString[got], dns.RcodeToString[tt.want])
			}
			done := len(d.Values("mark.example.test", "TXT")) == 1
			if done != (tt.want == dns.RcodeSuccess) {
				t.Errorf("carried out: %v", done)
			}
		})
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	t.Parallel()
	d := startDNS(t, nil)
	m := new(dns.Msg).SetUpdate("example.test.")
	m.Insert([]dns.RR{rr(t, `one.example.test. 60 IN TXT "x"`), rr(t, `two.example.org. 60 IN TXT "x"`)})
	if got := send(t, d, m, ""); got != dns.RcodeNotZone {
		t.Errorf("answer %s, want NOTZONE", dns.RcodeToString[got])
	}
	if got := d.Values("one.example.test", "TXT"); got != nil {
		t.Errorf("half of the update was carried out: %q", got)
	}
	m = new(dns.Msg).SetUpdate("example.org.")
	m.Insert([]dns.RR{rr(t, `one.example.org. 60 IN TXT "x"`)})
	if got := send(t, d, m, ""); got != dns.RcodeNotAuth {
		t.Errorf("a zone that is not ours: %s, want NOTAUTH", dns.RcodeToString[got])
	}
}

func TestUpdateRemoves(t *testing.T) {
	t.Parallel()
	d := startDNS(t, nil)
	m := new(dns.Msg).SetUpdate("example.test.")
	m.RemoveRRset([]dns.RR{rr(t, "mx1.example.test. 0 IN AAAA ::")})
	m.RemoveName([]dns.RR{rr(t, "deep.down.example.test. 0 IN A 0.0.0.0"), rr(t, "example.test. 0 IN A 0.0.0.0")})
	m.Insert([]dns.RR{rr(t, `www.example.test. 60 IN TXT "beside a CNAME"`)})
	if got := send(t, d, m, ""); got != dns.RcodeSuccess {
		t.Fatalf("answer %s", dns.RcodeToString[got])
	}
	for _, gone := range [][2]string{
		{"mx1.example.test", "AAAA"},
		{"deep.down.example.test", "TXT"},
		{"example.test", "MX"},
		{"www.example.test", "TXT"}, // acknowledged and dropped, as BIND and Knot do
	} {
		if got := d.Values(gone[0], gone[1]); got != nil {
			t.Errorf("%s %s is still there: %q", gone[0], gone[1], got)
		}
	}
	for _, there := range [][2]string{{"mx1.example.test", "A"}, {"example.test", "SOA"}, {"example.test", "NS"}} {
		if got := d.Values(there[0], there[1]); len(got) != 1 {
			t.Errorf("%s %s: %q, want it untouched", there[0], there[1], got)
		}
	}
}
