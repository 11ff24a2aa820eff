package policygen_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/policygen"
)

func TestParseName(t *testing.T) {
	t.Parallel()
	good := func(raw, want string) {
		t.Helper()
		got, err := policygen.ParseName(raw)
		if err != nil || string(got) != want {
			t.Errorf("ParseName(%q) = %q, %v, want %q", raw, got, err, want)
		}
	}
	bad := func(raw, why string) {
		t.Helper()
		got, err := policygen.ParseName(raw)
		wantFieldError(t, "ParseName", raw, string(got), err, "domain", why)
	}

	good("example.com", "example.com")
	good("Example.COM", "example.com")                                           // lower case
	good("example.com.", "example.com")                                          // one trailing dot
	good("mail.shop.example.co.uk", "mail.shop.example.co.uk")                   // any depth
	good("bücher.example", "xn--bcher-kva.example")                              // U-label
	good("BÜCHER.example", "xn--bcher-kva.example")                              // U-label in upper case
	good("bu\u0308cher.example", "xn--bcher-kva.example")                        // decomposed
	good("bücher。example", "xn--bcher-kva.example")                              // ideographic full stop
	good("XN--BCHER-KVA.example", "xn--bcher-kva.example")                       // A-label in upper case
	good("faß.example", "xn--fa-hia.example")                                    // IDNA 2008 keeps ß
	good("例え.テスト", "xn--r8jz45g.xn--zckzah")                                     // IDN top-level domain
	good("github.io", "github.io")                                               // private public suffix: somebody's domain
	good("shop.example", "shop.example")                                         // documentation
	good("example.test", "example.test")                                         // laboratories
	good("a.b.test", "a.b.test")                                                 // laboratories
	good("1and1.com", "1and1.com")                                               // digit first, RFC 1123
	good("123.com", "123.com")                                                   // a number, but not at the end
	good("mta-sts.example.com", "mta-sts.example.com")                           // a mail domain may be named like that
	good(strings.Repeat("a", 63)+".example", strings.Repeat("a", 63)+".example") // longest label
	good(nameOf(244), nameOf(244))                                               // longest name: 244 + len("_mta-sts.") = 253

	bad("", "is empty")
	bad(".", "is empty")
	bad("example..com", "empty label")
	bad(".example.com", "empty label")
	bad("example.com..", "trailing dot")
	bad("com", "single label")
	bad("localhost", "single label")
	bad("test", "single label")
	bad("www.localhost", "special-use domain localhost")   // RFC 6761, Section 6.3
	bad("www.invalid", "special-use domain invalid")       // RFC 6761, Section 6.4
	bad("printer.local", "special-use domain local")       // RFC 6762
	bad("abc.onion", "special-use domain onion")           // RFC 7686
	bad("shop.alt", "special-use domain alt")              // RFC 9476
	bad("mail.internal", "special-use domain internal")    // ICANN, 2024
	bad("2.0.192.in-addr.arpa", "special-use domain arpa") // RFC 3172
	bad("co.uk", "public suffix")
	bad("CO.UK.", "public suffix")
	bad("foo.ck", "public suffix") // by the rule *.ck
	bad("*.example.com", "no wildcard")
	bad("_mta-sts.example.com", "write the mail domain, example.com")
	bad("_dmarc.example.com", "underscore")
	bad("my_shop.example.com", "underscore")
	bad("my_bücher.example", "underscore") // the same words in Unicode
	bad("-a.example.com", "hyphen")
	bad("a-.example.com", "hyphen")
	bad("ab--cd.example.com", "two hyphens") // R-LDH: no CA issues for it
	bad("xn--.example.com", "hyphen")
	bad("xn--a.example.com", "no valid A-label")      // no Punycode
	bad("xn--abc-.example.com", "hyphen")             // Punycode of ASCII
	bad("xn--bcher-kvA0.example", "no valid A-label") // no Punycode
	bad("a b.example.com", "space")
	bad(" example.com", "space")
	bad("example.com\n", "space")
	bad("example.com\x00", "has '\\x00' in it")
	bad("user@example.com", "has '@' in it")
	bad("https://example.com", "has ':' in it")
	bad("example.com:443", "has ':' in it")
	bad("exam\xffple.com", "not UTF-8")
	bad("a\u202eb.example", "internationalised") // right-to-left override
	bad("192.0.2.1", "IP address")
	bad("2001:db8::1", "IP address")
	bad("[192.0.2.1]", "IP address")
	bad("1.2.3", "ends in a number")
	bad("256.256.256.256", "ends in a number")
	bad(strings.Repeat("a", 64)+".example", "label of 64 octets")
	bad(strings.Repeat("ü", 60)+".example", "label of")
	bad(nameOf(245), "with _mta-sts. before it")
	bad(nameOf(254), "at most 253 octets")
	bad(strings.Repeat("a.", 2000)+"example", "longer than any domain name")
}

func TestNameDerived(t *testing.T) {
	t.Parallel()
	name, err := policygen.ParseName("Bücher.example")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := name.PolicyHost(), "mta-sts.xn--bcher-kva.example"; got != want {
		t.Errorf("PolicyHost() = %q, want %q", got, want)
	}
	if got, want := name.RecordName(), "_mta-sts.xn--bcher-kva.example"; got != want {
		t.Errorf("RecordName() = %q, want %q", got, want)
	}
	if got, want := name.Unicode(), "bücher.example"; got != want {
		t.Errorf("Unicode() = %q, want %q", got, want)
	}
	if got, want := policygen.Name("xn--a.example").Unicode(), "xn--a.example"; got != want { // from an older list
		t.Errorf("Unicode() = %q, want %q", got, want)
	}
}

// Customers' CNAMEs point at these labels, so they are pinned. Checked with:
// printf %s NAME | sha256sum | head -c 32 | xxd -r -p | base32 | tr A-Z a-z | tr -d =
func TestNameLabelNeverChanges(t *testing.T) {
	t.Parallel()
	for name, want := range map[policygen.Name]string{
		"example.com":  "un42n5xov642kxrxrqiyanhcou",
		"shop.example": "b5mumpdanrnq4xj5vaptny7xye",
	} {
		if got := name.Label(); got != want {
			t.Errorf("Label of %q = %q, want %q", name, got, want)
		}
	}
}

// nameOf returns a name of n octets.
func nameOf(n int) string {
	const end = ".example"
	return (strings.Repeat(strings.Repeat("a", 49)+".", n/50+1) + strings.Repeat("b", 50))[:n-len(end)-1] + "b" + end
}

func wantFieldError(t *testing.T, function, in, got string, err error, field, why string) {
	t.Helper()
	var fieldError *policygen.FieldError
	switch {
	case err == nil:
		t.Errorf("%s(%q) = %q, want an error with %q", function, in, got, why)
	case got != "":
		t.Errorf("%s(%q) = %q with error %v, want nothing", function, in, got, err)
	case !errors.Is(err, policygen.ErrSyntax):
		t.Errorf("%s(%q): error %v is not ErrSyntax", function, in, err)
	case !errors.As(err, &fieldError) || fieldError.Field != field:
		t.Errorf("%s(%q): error %v is not of field %q", function, in, err, field)
	case !strings.Contains(err.Error(), why):
		t.Errorf("%s(%q): error %q, want one with %q", function, in, err, why)
	}
}
