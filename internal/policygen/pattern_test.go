package policygen_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/policygen"
)

func TestParsePattern(t *testing.T) {
	t.Parallel()
	good := func(raw, want string, wantChanged bool) {
		t.Helper()
		got, changed, err := policygen.ParsePattern(raw)
		if err != nil || got != want || changed != wantChanged {
			t.Errorf("ParsePattern(%q) = %q, %t, %v, want %q, %t", raw, got, changed, err, want, wantChanged)
		}
	}
	bad := func(raw, why string) {
		t.Helper()
		got, _, err := policygen.ParsePattern(raw)
		wantFieldError(t, "ParsePattern", raw, got, err, "mx", why)
	}

	good("mx.example.com", "mx.example.com", false)
	good("MX.Example.COM", "mx.example.com", false) // lower case, nothing to tell
	good("*.example.com", "*.example.com", false)
	good("*.mx.example.co.uk", "*.mx.example.co.uk", false)
	good("*.example.test", "*.example.test", false)                   // laboratories
	good("mx.bücher.example", "mx.xn--bcher-kva.example", true)       // U-label
	good("*.bücher.example", "*.xn--bcher-kva.example", true)         // U-label behind a wildcard
	good("*.XN--BCHER-KVA.example", "*.xn--bcher-kva.example", false) // A-label already
	good("mx.github.io", "mx.github.io", false)                       // one host in a private public suffix
	good("*.mx.github.io", "*.mx.github.io", false)                   // below one owner's name there
	good("*."+nameOf(251), "*."+nameOf(251), false)                   // longest

	bad("", "is empty")
	bad("*", "wildcard alone")
	bad("*.", "is empty")
	bad("*.*.x", "only the whole first label")
	bad("*.*.example.com", "only the whole first label")
	bad("mx.*.example.com", "only the whole first label")
	bad("mx*.example.com", "only the whole first label")
	bad("**.example.com", "only the whole first label")
	bad("*example.com", "only the whole first label")
	bad("*.com", "below a public suffix")
	bad("*.co.uk", "below a public suffix")
	bad("*.github.io", "below a public suffix") // its hosts are everybody's
	bad("*.example", "below a public suffix")   // no suffix on the list, but a top-level domain
	bad("mx_1.x", "underscore")                 // refused by several senders
	bad("mx_1.example.com", "underscore")
	bad("mx.example.com.", "trailing dot") // never matches at some senders
	bad("*.example.com.", "trailing dot")
	bad("mx", "single label")
	bad("localhost", "single label")
	bad("mx.local", "special-use domain local") // no trusted certificate
	bad("192.0.2.1", "IP address")
	bad("[192.0.2.1]", "IP address")
	bad("2001:db8::1", "IP address")
	bad("*.0.2.1", "ends in a number")
	bad("mx..example.com", "empty label")
	bad("*..example.com", "empty label")
	bad("mx.example.com mx2.example.com", "space") // one host a line
	bad("mx.example.com,mx2.example.com", "has ',' in it")
	bad("10 mx.example.com", "space")            // an MX record with its preference
	bad("mx.example.com\r\nmode: none", "space") // no way out of the line
	bad("mx-.example.com", "hyphen")
	bad("mx--1.example.com", "two hyphens")
	bad("xn--a.example.com", "no valid A-label")
	bad("*."+nameOf(252), "at most 253 octets")
}

func TestMatch(t *testing.T) {
	t.Parallel()
	good := func(pattern, host string) {
		t.Helper()
		if !policygen.Match(pattern, host) {
			t.Errorf("Match(%q, %q) = false, want true", pattern, host)
		}
	}
	bad := func(pattern, host string) {
		t.Helper()
		if policygen.Match(pattern, host) {
			t.Errorf("Match(%q, %q) = true, want false", pattern, host)
		}
	}

	good("mx.example.com", "mx.example.com")
	good("mx.example.com", "MX.Example.COM")  // DNS keeps the case of names
	good("MX.Example.COM", "mx.example.com")  // and so do policies
	good("mx.example.com", "mx.example.com.") // as a resolver returns it
	good("*.example.com", "mx.example.com")
	good("*.example.com", "MX.EXAMPLE.com.")

	bad("*.example.com", "example.com")     // no label
	bad("*.example.com", "a.b.example.com") // two labels
	bad("*.example.com", ".example.com")    // empty label
	bad("*.example.com", "mxexample.com")   // a suffix, but not of labels
	bad("*.example.com", "mx.notexample.com")
	bad("mx.example.com", "mx2.example.com")
	bad("mx.example.com", "mx.example.com.evil.example")
	bad("mx.example.com", "mx.example.com..")
	bad("*", "com")                           // no pattern
	bad("*.", "com.")                         // no pattern
	bad("*.", "com..")                        // no pattern
	bad("mx*.example.com", "mx1.example.com") // no pattern
	bad("", "")
	bad("", ".")
	bad("mk.example.com", "m\u212a.example.com") // KELVIN SIGN is no K
}

// A wildcard covers a host exactly when the host is the domain and one more label, whatever these are.
func TestMatchProperties(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(8461, 41))
	for range 20000 {
		domain := randomHost(random, 2)
		host := randomHost(random, 1) + "." + domain
		if !policygen.Match("*."+domain, host) {
			t.Fatalf("Match(%q, %q) = false, want true", "*."+domain, host)
		}
		if policygen.Match("*."+domain, domain) {
			t.Fatalf("Match(%q, %q) = true, want false", "*."+domain, domain)
		}
		if deeper := randomHost(random, 1) + "." + host; policygen.Match("*."+domain, deeper) {
			t.Fatalf("Match(%q, %q) = true, want false", "*."+domain, deeper)
		}
		if other := randomHost(random, 3); policygen.Match(host, other) != (host == other) {
			t.Fatalf("Match(%q, %q) = %t", host, other, host != other)
		}
		upper := strings.ToUpper(host) + "."
		if !policygen.Match("*."+domain, upper) || !policygen.Match(host, upper) {
			t.Fatalf("Match of %q with %q or its wildcard = false, want true", host, upper)
		}
	}
}

// randomHost returns a name of n labels out of few letters, so that names meet.
func randomHost(random *rand.Rand, n int) string {
	labels := make([]string, n)
	for i := range labels {
		labels[i] = strings.Repeat(string("abz09"[random.IntN(5)]), 1+random.IntN(2))
	}
	return strings.Join(labels, ".")
}
