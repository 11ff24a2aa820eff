package policygen_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/policygen"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestParseMode(t *testing.T) {
	t.Parallel()
	for _, want := range []policygen.Mode{policygen.Enforce, policygen.Testing, policygen.None} {
		if got, err := policygen.ParseMode(string(want)); got != want || err != nil {
			t.Errorf("ParseMode(%q) = %q, %v, want %q", want, got, err, want)
		}
	}
	for _, raw := range []string{"", "Enforce", "enforced", " none", "report"} {
		got, err := policygen.ParseMode(raw)
		wantFieldError(t, "ParseMode", raw, string(got), err, "mode", `write "enforce", "testing" or "none"`)
	}
}

// The golden files are what senders get, byte for byte.
func TestPolicyTextGolden(t *testing.T) {
	t.Parallel()
	for file, p := range map[string]policygen.Policy{
		"enforce.txt": {Mode: policygen.Enforce, MaxAge: 1209600, MX: []string{"mx1.example.net", "*.eu.mx.example.net"}},
		"testing.txt": {Mode: policygen.Testing, MaxAge: 86400, MX: []string{"mx.example.com"}},
		"none.txt":    {Mode: policygen.None, MaxAge: 1, MX: []string{"mx.example.com"}},
		"idn.txt":     {Mode: policygen.Enforce, MaxAge: policygen.MaxAgeLimit, MX: []string{"*.xn--bcher-kva.example"}},
	} {
		if err := p.Validate(); err != nil {
			t.Errorf("Validate() of %s: %v", file, err)
		}
		path := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(path, []byte(p.Text()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), p.Text()); diff != "" {
			t.Errorf("Text() of %s (-want +got):\n%s", file, diff)
		}
	}
}

func TestPolicyValidate(t *testing.T) {
	t.Parallel()
	mx := []string{"mx.example.com"}
	bad := func(p policygen.Policy, want ...string) {
		t.Helper()
		err := p.Validate()
		if err == nil || !errors.Is(err, policygen.ErrSyntax) {
			t.Errorf("Validate() of %+v = %v, want ErrSyntax", p, err)
			return
		}
		if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
			t.Errorf("Validate() of %+v (-want +got):\n%s", p, diff)
		}
	}

	bad(policygen.Policy{Mode: "report", MaxAge: 1, MX: mx}, `mode "report": is no mode; write "enforce", "testing" or "none"`)
	bad(policygen.Policy{Mode: policygen.Enforce, MX: mx}, `max_age "0": is out of range; 1 to 31557600 seconds`)
	bad(policygen.Policy{Mode: policygen.Enforce, MaxAge: -1, MX: mx}, `max_age "-1": is out of range; 1 to 31557600 seconds`)
	bad(policygen.Policy{Mode: policygen.Enforce, MaxAge: 31557601, MX: mx},
		`max_age "31557601": is out of range; 1 to 31557600 seconds`)
	bad(policygen.Policy{Mode: policygen.None, MaxAge: 1}, // one sender refuses mode none without mx
		`mx: is missing; list at least one MX host, in mode none too`)
	bad(policygen.Policy{Mode: policygen.Enforce, MaxAge: 1, MX: []string{"MX.example.com"}},
		`mx "MX.example.com": is not in its final form; write "mx.example.com"`)
	bad(policygen.Policy{Mode: policygen.Enforce, MaxAge: 1, MX: []string{"mx.example.com", "mx.example.com"}},
		`mx "mx.example.com": is listed twice`)
	bad(policygen.Policy{}, // everything at once
		`mode: is no mode; write "enforce", "testing" or "none"`,
		`max_age "0": is out of range; 1 to 31557600 seconds`,
		`mx: is missing; list at least one MX host, in mode none too`)
	mx = []string{"*.com", "mx_1.example.com", "mx.example.com\r\nmode: none"}
	bad(policygen.Policy{Mode: policygen.Enforce, MaxAge: 1, MX: mx},
		`mx "*.com": is a wildcard below a public suffix, where anybody gets a host; write the MX hosts`,
		`mx "mx_1.example.com": has an underscore, which no host name may have`,
		`mx "mx.example.com\r\nmode: none": has a space in it`)
}

// One sender cuts a policy off at 10 KiB.
func TestPolicyValidateSize(t *testing.T) {
	t.Parallel()
	if err := policyOf(10<<10 - 1).Validate(); err != nil {
		t.Errorf("Validate() of 10 KiB but one byte: %v", err)
	}
	const want = "mx: makes a policy of 10240 bytes, which some senders cut off; stay under 10240, with fewer patterns or a wildcard"
	if err := policyOf(10 << 10).Validate(); err == nil || err.Error() != want {
		t.Errorf("Validate() of 10 KiB = %v, want %s", err, want)
	}
}

// policyOf returns a policy with a text of n bytes.
func policyOf(n int) policygen.Policy {
	p := policygen.Policy{Mode: policygen.Enforce, MaxAge: 86400}
	for i := 0; len(p.Text()) < n-100; i++ {
		p.MX = append(p.MX, fmt.Sprintf("mx%03d.example.com", i))
	}
	rest := n - len(p.Text()) - len("mx: .example.com\r\n")
	p.MX = append(p.MX, strings.Repeat("a", rest/2)+"."+strings.Repeat("b", rest-rest/2-1)+".example.com")
	return p
}

// What Text writes, ParsePolicy reads: no valid policy is lost or changed on the way.
func TestPolicyTextRoundTrip(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(8461, 32))
	for range 2000 {
		p := randomPolicy(random)
		if err := p.Validate(); err != nil {
			t.Fatalf("Validate() of %+v: %v", p, err)
		}
		got, err := policygen.ParsePolicy([]byte(p.Text()))
		if err != nil {
			t.Fatalf("ParsePolicy(%q): %v", p.Text(), err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Fatalf("ParsePolicy(%q) (-want +got):\n%s", p.Text(), diff)
		}
	}
}

func randomPolicy(random *rand.Rand) policygen.Policy {
	modes := []policygen.Mode{policygen.Enforce, policygen.Testing, policygen.None}
	p := policygen.Policy{Mode: modes[random.IntN(len(modes))], MaxAge: 1 + random.IntN(policygen.MaxAgeLimit)}
	for i := range 1 + random.IntN(8) {
		host := fmt.Sprintf("%s.n%d.example.com", randomHost(random, 1+random.IntN(3)), i)
		p.MX = append(p.MX, []string{"", "*."}[random.IntN(2)]+host)
	}
	return p
}

func TestPolicyCovers(t *testing.T) {
	t.Parallel()
	p := policygen.Policy{MX: []string{"mx1.example.com", "*.eu.example.com"}}
	for host, want := range map[string]bool{
		"mx1.example.com":     true,
		"MX1.example.com.":    true,
		"a.eu.example.com":    true,
		"mx2.example.com":     false,
		"eu.example.com":      false,
		"a.b.eu.example.com":  false,
		"mx1.example.com.org": false,
	} {
		if got := p.Covers(host); got != want {
			t.Errorf("Covers(%q) = %t, want %t", host, got, want)
		}
	}
	if (policygen.Policy{}).Covers("mx1.example.com") {
		t.Error("the empty policy covers mx1.example.com")
	}
}

func TestFieldErrorShortensStrangersValues(t *testing.T) {
	t.Parallel()
	for _, value := range []string{strings.Repeat("a", 60000), strings.Repeat("ü", 30000), strings.Repeat("\x80", 60000)} {
		err := &policygen.FieldError{Field: "mx", Value: value, Why: "is long"}
		if got := err.Error(); len(got) > 1200 || !strings.HasSuffix(got, "…\": is long") {
			t.Errorf("Error() has %d octets: %s", len(got), got)
		}
	}
}
