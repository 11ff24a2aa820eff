package certs

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/crypto/acme"
)

// set reads CAA records in zone-file format.
func set(t *testing.T, records ...string) caaSet {
	t.Helper()
	s := caaSet{at: "example.com"}
	for _, r := range records {
		rr, err := dns.NewRR("example.com. CAA " + r)
		if err != nil {
			t.Fatal(err)
		}
		s.records = append(s.records, rr.(*dns.CAA))
	}
	return s
}

// The issuer is ca1.example.net in all cases, with its account 1234. Words are a part of the reason; none: it is allowed.
func TestCAAAllows(t *testing.T) {
	t.Parallel()
	const account = "https://ca1.example.net/account/1234"
	both, http, tls := []string{"http-01", "tls-alpn-01"}, []string{"http-01"}, []string{"tls-alpn-01"}
	for _, c := range []struct {
		name    string
		records []string
		ways    []string
		words   string
	}{
		// RFC 8659, Sections 4.2 to 4.5.
		{"no records", nil, both, ""},
		{"certs.example.com", []string{`0 issue "ca1.example.net"`}, both, ""},
		{"nocerts.example.com", []string{`0 issue ";"`}, nil, `CAA 0 issue ";" allows nobody`},
		{"empty", []string{`0 issue ""`}, nil, "allows nobody"},
		{"two authorities", []string{`0 issue "ca1.example.net"`, `0 issue "ca2.example.org"`}, both, ""},
		{"the other authority", []string{`0 issue "ca2.example.org"`}, nil, `CAA 0 issue "ca2.example.org" allows another authority`},
		{"a parameter that we do not know", []string{`0 issue "ca1.example.net; account=230123"`}, both, ""},
		{"malformed", []string{`0 issue "%%%%%"`}, nil, "is malformed, so it allows nobody"},
		{"one malformed, one not", []string{`0 issue "%%%%%"`, `0 issue "ca1.example.net"`}, both, ""},
		{"wild.example.com", []string{`0 issue "ca1.example.net"`, `0 issuewild "ca2.example.org"`}, both, ""},
		{"wild2.example.com", []string{`0 issue ";"`, `0 issuewild "ca1.example.net"`}, nil, `CAA 0 issue ";" allows nobody`},
		{"wild3.example.com", []string{`0 issuewild "ca2.example.org"`}, both, ""},
		{"iodef alone", []string{`0 iodef "mailto:security@example.com"`}, both, ""},
		{"iodef that is critical", []string{`128 iodef "mailto:security@example.com"`}, both, ""},
		{"new.example.com", []string{`0 issue "ca1.example.net"`, `128 tbs "Unknown"`}, nil, `CAA 128 tbs "Unknown" is critical`},
		{"critical as many write it", []string{`0 issue "ca1.example.net"`, `1 tbs "Unknown"`}, nil, "is critical"},
		{"unknown and not critical", []string{`0 tbs "Unknown"`}, both, ""},
		{"unknown with a reserved flag", []string{`64 tbs "Unknown"`}, both, ""},
		{"issue that is critical", []string{`128 issue "ca1.example.net"`}, both, ""},
		{"mail certificates", []string{`128 issuemail ";"`}, both, ""}, // RFC 9495
		{"case and space", []string{`0 ISSUE " CA1.Example.NET	; "`}, both, ""},
		{"a name below", []string{`0 issue "sub.ca1.example.net"`}, nil, "allows another authority"},

		// RFC 8657, Sections 3 to 5.
		{"our account", []string{`0 issue "ca1.example.net; accounturi=` + account + `"`}, both, ""},
		{"another account", []string{`0 issue "ca1.example.net; accounturi=https://ca1.example.net/account/2345"`}, nil, "allows another account than ours, which is " + account},
		{"two accounts in one", []string{`0 issue "ca1.example.net; accounturi=` + account + `; accounturi=` + account + `"`}, nil, "has a parameter twice"},
		{"two accounts in two", []string{`0 issue "ca1.example.net; accounturi=x"`, `0 issue "ca1.example.net; AccountURI=` + account + `"`}, both, ""},
		{"a way", []string{`0 issue "ca1.example.net; validationmethods=http-01"`}, http, ""},
		{"ways", []string{`0 issue "ca1.example.net; validationmethods=dns-01,tls-alpn-01"`}, tls, ""},
		{"both ways", []string{`0 issue "ca1.example.net; validationmethods=tls-alpn-01,http-01"`}, both, ""},
		{"a way in each", []string{`0 issue "ca1.example.net; validationmethods=tls-alpn-01"`, `0 issue "ca1.example.net; validationmethods=http-01"`}, both, ""},
		{"another way", []string{`0 issue "ca1.example.net; validationmethods=dns-01"`}, nil, "does not allow to validate by http-01 or tls-alpn-01"},
		{"no way", []string{`0 issue "ca1.example.net; validationmethods="`}, nil, "does not allow to validate by"},
		{"ways twice", []string{`0 issue "ca1.example.net; validationmethods=http-01; validationmethods=tls-alpn-01"`}, nil, "has a parameter twice"},
		{"our account by another way", []string{
			`0 issue "ca1.example.net; accounturi=` + account + `; validationmethods=dns-01"`,
			`0 issue "ca1.example.net; accounturi=other; validationmethods=http-01"`,
		}, nil, "allows another account than ours"},
		{"RFC 8657, Section 5.7", []string{
			`0 issue "ca1.example.net; accounturi=` + account + `; validationmethods=http-01"`,
			`0 issue "ca2.example.org"`,
		}, http, ""},
	} {
		ways, err := set(t, c.records...).allow(issuer{[]string{"ca1.example.net"}, account}, both)
		if !slices.Equal(ways, c.ways) || (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, %v, want %v, %q", c.name, ways, err, c.ways, c.words)
		}
	}
}

// What we do not know of the authority, it knows itself.
func TestCAAAllowsWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	ways := []string{"tls-alpn-01"}
	for _, c := range []struct {
		record string
		by     issuer
		want   bool
	}{
		{`0 issue "ca2.example.org"`, issuer{}, true},
		{`0 issue ";"`, issuer{}, false},
		{`0 issue "ca1.example.net; accounturi=x"`, issuer{identities: []string{"CA1.example.net"}}, true},
		{`0 issue "ca1.example.net; accounturi=x; accounturi=x"`, issuer{identities: []string{"ca1.example.net"}}, false},
		{`0 issue "ca2.example.org"`, issuer{identities: []string{"ca1.example.net", "ca2.example.org"}}, true},
		{`0 issue "ca1.example.net; validationmethods=http-01"`, issuer{}, false}, // which is not open here
	} {
		if got, err := set(t, c.record).allow(c.by, ways); (err == nil) != c.want || c.want && !slices.Equal(got, ways) {
			t.Errorf("%s for %+v: %v, %v, want allowed: %v", c.record, c.by, got, err, c.want)
		}
	}
}

func TestParseIssue(t *testing.T) {
	t.Parallel()
	good := func(s, issuer string, params ...caaParam) {
		t.Helper()
		got, ok := parseIssue(s)
		if diff := cmp.Diff(issueValue{issuer, params}, got, cmp.AllowUnexported(issueValue{}, caaParam{})); !ok || diff != "" {
			t.Errorf("parseIssue(%q) = %v, -want +got:\n%s", s, ok, diff)
		}
	}
	bad := func(s string) {
		t.Helper()
		if got, ok := parseIssue(s); ok {
			t.Errorf("parseIssue(%q) = %+v, want an error", s, got)
		}
	}
	good("", "")
	good(";", "")
	good(" \t;\t ", "")
	good("; policy=ev", "", caaParam{"policy", "ev"})
	good("letsencrypt.org", "letsencrypt.org")
	good("LetsEncrypt.org;", "letsencrypt.org")
	good("ca; a=b", "ca", caaParam{"a", "b"})
	good("ca ; a-1 = b=c ;A=", "ca", caaParam{"a-1", "b=c"}, caaParam{"A", ""})
	bad("ca example")     // a space within the name
	bad("ca..example")    // an empty label
	bad("ca.example.")    // likewise
	bad("-ca.example")    // a hyphen at the end of a label
	bad("ca_1.example")   // an underscore
	bad("ca; a=b;")       // nothing after the second semicolon
	bad("ca; a=b;; c=d")  // nothing between two
	bad("ca; a")          // no value
	bad("ca; =b")         // no tag
	bad("ca; a.b=c")      // a tag with a dot
	bad("ca; a=b c")      // a space within the value
	bad("ca; a=b\x7f")    // a control character
	bad("ca; a=\u00fc")   // not ASCII
	bad("ca\x00; a=b")    // a zero
	bad("\u00fc.example") // not ASCII
	bad("\nca.example")   // a line feed is no space here
}

// issueGrammar is RFC 8659, Section 4.2, as a regular expression.
func issueGrammar() *regexp.Regexp {
	const (
		label     = `[a-zA-Z0-9](?:-*[a-zA-Z0-9])*`
		parameter = label + `[ \t]*=[ \t]*[!-:<-~]*`
	)
	return regexp.MustCompile(fmt.Sprintf(`^[ \t]*(?:(%[1]s(?:\.%[1]s)*)[ \t]*)?(?:;[ \t]*(?:(?:%[2]s[ \t]*;[ \t]*)*%[2]s[ \t]*)?)?$`, label, parameter))
}

func FuzzParseIssue(f *testing.F) {
	for _, s := range []string{
		"", ";", "letsencrypt.org", "ca1.example.net; account=230123", "%%%%%", "ca; a=b;", " ca\t; a-b = c ;d=",
		"example.net; accounturi=https://example.net/account/1234; validationmethods=dns-01,http-01",
	} {
		f.Add(s)
	}
	grammar := issueGrammar()
	f.Fuzz(func(t *testing.T, s string) {
		v, ok := parseIssue(s)
		m := grammar.FindStringSubmatch(s)
		if ok != (m != nil) {
			t.Fatalf("parseIssue(%q) = %+v, %v, want as the grammar: %v", s, v, ok, m != nil)
		}
		if !ok {
			return
		}
		if v.issuer != strings.ToLower(m[1]) {
			t.Errorf("parseIssue(%q) has issuer %q, want %q", s, v.issuer, m[1])
		}
		again := v.issuer + ";"
		for i, p := range v.params {
			again += strings.Repeat(";", min(i, 1)) + p.tag + "=" + p.value
		}
		if w, ok := parseIssue(again); !ok || w.issuer != v.issuer || !slices.Equal(w.params, v.params) {
			t.Errorf("parseIssue(%q) = %+v, and written again, %q, %+v", s, v, again, w)
		}
	})
}

func TestClimb(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"mta-sts.Shop.example.com.": {"mta-sts.shop.example.com", "shop.example.com", "example.com", "com"},
		"test":                      {"test"},
	} {
		if got := climb(name); !slices.Equal(got, want) {
			t.Errorf("climb(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestSpecialUse(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"mta-sts.shop.test": "test", "mta-sts.example.org": "example.org", "mta-sts.a.home.arpa": "home.arpa", "local": "local",
		"mta-sts.10.in-addr.arpa": "in-addr.arpa", "mta-sts.mail.internal": "internal", "mta-sts.x.onion": "onion",
		"mta-sts.shop.com": "", "mta-sts.mytest": "", "mta-sts.example.de": "", "mta-sts.test.com": "", "mta-sts.notexample.org": "",
	} {
		if got := specialUse(name); got != want {
			t.Errorf("specialUse(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestBarred(t *testing.T) {
	t.Parallel()
	refusal := func(c Check, proven bool) error { return &Refusal{Check: c, Proven: proven} }
	for _, c := range []struct {
		name    string
		reasons []error
		want    verdict
	}{
		{"led elsewhere", []error{refusal(CheckDNS, true)}, verdict{}},
		{"no answer", []error{refusal(CheckDNS, false), refusal(CheckCAA, false)}, verdict{outage: true}},
		{"out of reach", []error{refusal(CheckReach, false)}, verdict{outage: true}},
		{"no answer, and led elsewhere", []error{refusal(CheckCAA, false), refusal(CheckDNS, true)}, verdict{}},
		{"excluded", []error{refusal(CheckCAA, true)}, verdict{refuses: true}},
		{"reserved", []error{refusal(CheckSpecialUse, true)}, verdict{refuses: true}},
		{"our own", []error{errors.New("the store is read only")}, verdict{outage: true}},
		{"the authority is away", []error{&Unanswered{context.DeadlineExceeded}}, verdict{outage: true}},
		{"the authority is away, and led elsewhere", []error{&Unanswered{errors.New("no route")}, refusal(CheckDNS, true)}, verdict{}},
		{
			"the authority is busy",
			[]error{&Unanswered{&Problem{Status: 503, RetryAfter: time.Hour}}},
			verdict{outage: true, wait: time.Hour, advice: (&Problem{Status: 503}).Advice()},
		},
		{"our own, and excluded", []error{errors.New("we are lost"), refusal(CheckCAA, true)}, verdict{refuses: true}},
	} {
		if got := barred(hold("mta-sts.a.test", c.reasons...), "mta-sts.a.test", "a.test"); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if got := barred(context.Canceled, "mta-sts.a.test", "a.test"); got != (verdict{outage: true}) {
		t.Errorf("canceled: %+v, want an outage", got)
	}
	if err := hold("mta-sts.a.test", nil, nil); err != nil {
		t.Errorf("hold without a reason = %v", err)
	}
}

// What is seen to work is taken, and what an authority has seen to fail is not tried first again.
func TestWaysPrefer(t *testing.T) {
	t.Parallel()
	w := newWays(true)
	order := func(want ...string) {
		t.Helper()
		if got := w.order("a.test"); !slices.Equal(got, want) {
			t.Errorf("order = %q, want %q", got, want)
		}
		offered := []*acme.Challenge{{Type: "dns-01"}, {Type: http01}, {Type: tlsALPN01}}
		if got := w.pick("a.test", offered); got == nil || got.Type != want[0] {
			t.Errorf("pick = %+v, want %s", got, want[0])
		}
	}
	order(tlsALPN01, http01)
	w.prefer("a.test", tlsALPN01)
	order(tlsALPN01, http01)
	w.prefer("a.test", http01)
	order(http01, tlsALPN01)
	w.prefer("a.test", http01)
	order(http01, tlsALPN01)
	w.prefer("a.test", tlsALPN01)
	order(tlsALPN01, http01)
	w.failed("a.test", tlsALPN01)
	order(http01, tlsALPN01)
	if got := newWays(false).order("a.test"); !slices.Equal(got, []string{tlsALPN01}) {
		t.Errorf("order without HTTP = %q", got)
	}
}

// away is an authority that cannot be asked.
type away struct{ Certifier }

func (away) Identities(context.Context) ([]string, error) { return nil, errors.New("no route") }

func TestUnansweredAuthorityIsNoRefusal(t *testing.T) {
	t.Parallel()
	_, err := new(Gate).judgeCAA(t.Context(), "mta-sts.a.test", caaSet{records: []*dns.CAA{nil}}, nil, away{})
	if u, ok := errors.AsType[*Unanswered](err); !ok || u.Error() != "no route" {
		t.Errorf("%v", err)
	}
}
