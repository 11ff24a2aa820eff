package policygen_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/policygen"
)

func TestReportName(t *testing.T) {
	t.Parallel()
	if got := policygen.Name("example.org").ReportName(); got != "_smtp._tls.example.org" {
		t.Errorf("ReportName() = %q", got)
	}
	label := strings.Repeat("a", 59) + "."
	for length, fits := range map[int]bool{242: true, 243: false, 244: false} {
		name := policygen.Name(strings.Repeat(label, 4) + strings.Repeat("b", length-240))
		if _, err := policygen.ParseName(string(name)); err != nil {
			t.Fatalf("ParseName of %d octets: %v", length, err)
		}
		if err := name.CheckReport(); (err == nil) != fits || err != nil && !errors.Is(err, policygen.ErrSyntax) {
			t.Errorf("CheckReport() of %d octets = %v, want it to fit: %t", length, err, fits)
		}
	}
}

func TestIsTLSRPTv1(t *testing.T) {
	t.Parallel()
	for txt, want := range map[string]bool{
		"v=TLSRPTv1; rua=mailto:a@b.test": true,
		"v=TLSRPTv1;rua=mailto:a@b.test":  true,
		"v=TLSRPTv1 ; rua=mailto:a@b":     true,
		"v=TLSRPTv1":                      true, // broken, but meant
		"v=TLSRPTv1, rua=":                true, // likewise
		"v=TLSRPTv10; rua=mailto:a@b":     false,
		"v=TLSRPTv2; rua=mailto:a@b":      false,
		"V=TLSRPTv1; rua=mailto:a@b":      false,
		"v=tlsrptv1; rua=mailto:a@b":      false,
		" v=TLSRPTv1;":                    false,
		"v=STSv1; id=1;":                  false,
		"":                                false,
	} {
		if got := policygen.IsTLSRPTv1(txt); got != want {
			t.Errorf("IsTLSRPTv1(%q) = %t, want %t", txt, got, want)
		}
	}
}

func TestParseReportURI(t *testing.T) {
	t.Parallel()
	good := func(raw, want string) {
		t.Helper()
		if got, err := policygen.ParseReportURI(raw); got != want || err != nil {
			t.Errorf("ParseReportURI(%q) = %q, %v, want %q", raw, got, err, want)
		}
	}
	bad := func(raw, why string) {
		t.Helper()
		got, err := policygen.ParseReportURI(raw)
		wantFieldError(t, "ParseReportURI", raw, got, err, "rua", why)
	}

	good("mailto:tls@example.org", "mailto:tls@example.org")
	good("MailTo:TLS@Example.ORG", "mailto:TLS@example.org") // the local part has case
	good("mailto:tls@bücher.example", "mailto:tls@xn--bcher-kva.example")
	good("mailto:a+b.c_d-e@x.test", "mailto:a+b.c_d-e@x.test")
	good("mailto:hey!you@x.test", "mailto:hey%21you@x.test")
	good("mailto:hey%21you@x.test", "mailto:hey%21you@x.test")
	good("mailto:a/b=c&d@x.test", "mailto:a%2Fb%3Dc%26d@x.test") // RFC 6068, Section 2
	good("mailto:50%25@x.test", "mailto:50%25@x.test")
	good("https://r.test", "https://r.test")
	good("HTTPS://R.Test:08443/v1/In", "https://r.test:8443/v1/In")
	good("https://r.test/a,b;c!d?e=f,g&h=%2c", "https://r.test/a%2Cb%3Bc%21d?e=f%2Cg&h=%2c")
	good("https://bücher.example/ok", "https://xn--bcher-kva.example/ok")

	bad("", "is no address for reports")
	bad("tls@example.org", "has no scheme; write mailto: before it")
	bad("example.org", "is no address for reports")
	bad("http://r.test/", "is not encrypted; write https:")
	bad("ftp://r.test/", "is no address for reports")
	bad("mailto:", "has no mail address")
	bad("mailto:@x.test", "has no mail address")
	bad("mailto:tls", "has no mail address")
	bad("mailto:a@x.test,b@x.test", "several mail addresses")
	bad("mailto:a@x.test?subject=report", "has header fields")
	bad("mailto:a b@x.test", "has a local part")
	bad("mailto:a%2Cb@x.test", "has a local part")
	bad("mailto:a;b@x.test", "has a local part")
	bad("mailto:a..b@x.test", "has a local part")
	bad("mailto:\"a\"@x.test", "has a local part")
	bad("mailto:grün@x.test", "has a local part")
	bad("mailto:"+strings.Repeat("a", 65)+"@x.test", "has a local part")
	bad("mailto:100%@x.test", "has a bad percent-encoding")
	bad("mailto:a@x.test!10m", `has a domain that has '!' in it`)
	bad("mailto:a@", "has a domain that is empty")
	bad("mailto:a@[192.0.2.1]", "has a domain that is an IP address")
	bad("https:r.test", "has no host")
	bad("https://", "has no host")
	bad("https:///v1", "has no host")
	bad("https://user:secret@r.test/", "has a user in it")
	bad("https://r.test/#top", "has a fragment")
	bad("https://r.test/grün", "percent-encode it")
	bad("https://r.test/a b", "percent-encode it")
	bad("https://r.test/\"", "percent-encode it")
	bad("https://r.test/\\", "percent-encode it")
	bad("https://r.test/%", "has a bad percent-encoding")
	bad("https://r.test:0/", "has no good port")
	bad("https://r.test:65536/", "has no good port")
	bad("https://r.test:/", "has no good port")
	bad("https://192.0.2.1/", "has a host that is an IP address")
	bad("https://[2001:db8::1]/", "has a host that is an IP address")
	bad("https://r_.test/", "has a host that has an underscore")
}

func TestReportText(t *testing.T) {
	t.Parallel()
	got, err := policygen.ReportText([]string{"mailto:tls@example.org", "https://r.test/a;b"})
	if want := "v=TLSRPTv1; rua=mailto:tls@example.org,https://r.test/a%3Bb"; got != want || err != nil {
		t.Errorf("ReportText() = %q, %v, want %q", got, err, want)
	}
	long := "https://r.test/" + strings.Repeat("a", 255-len("v=TLSRPTv1; rua=https://r.test/"))
	if got, err := policygen.ReportText([]string{long}); len(got) != 255 || err != nil {
		t.Errorf("ReportText of the longest = %d octets, %v", len(got), err)
	}
	for _, c := range []struct {
		raws []string
		want string
	}{
		{nil, `rua: is empty; write an address, "mailto:tls-reports@example.org"`},
		{[]string{long + "a"}, "rua: makes a record of 256 octets, more than the 255 of one string; write fewer addresses, or shorter ones"},
		{[]string{"mailto:a@x.test", "MAILTO:a@X.test"}, `rua "MAILTO:a@X.test": is there twice; leave one out`},
		{[]string{"mailto:a@x.test", "b@x.test"}, `rua "b@x.test": has no scheme; write mailto: before it`},
	} {
		if got, err := policygen.ReportText(c.raws); got != "" || err == nil || err.Error() != c.want || !errors.Is(err, policygen.ErrSyntax) {
			t.Errorf("ReportText(%q) = %q, %v, want %s", c.raws, got, err, c.want)
		}
	}
}

func TestParseReport(t *testing.T) {
	t.Parallel()
	good := func(txt string, want ...string) {
		t.Helper()
		if got, err := policygen.ParseReport(txt); !slices.Equal(got, want) || err != nil {
			t.Errorf("ParseReport(%q) = %q, %v, want %q", txt, got, err, want)
		}
	}
	bad := func(txt, field, why string) {
		t.Helper()
		got, err := policygen.ParseReport(txt)
		wantFieldError(t, "ParseReport", txt, strings.Join(got, " "), err, field, why)
	}

	good("v=TLSRPTv1;rua=mailto:reports@example.com", "mailto:reports@example.com")                            // the examples of the RFC
	good("v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt", "https://reporting.example.com/v1/tlsrpt") // likewise
	good("v=TLSRPTv1 ;\trua=mailto:a@b , https://c/ ; ", "mailto:a@b", "https://c/")                           // white space
	good("v=TLSRPTv1; ext=x/y; rua=mailto:a@b; rua=mailto:c@d;", "mailto:a@b")
	good("v=TLSRPTv1; rua=MAILTO:a%21b@c", "MAILTO:a%21b@c")

	bad("", "v", `does not begin with "v=TLSRPTv1;"`)
	bad("v=TLSRPTv1", "v", "does not begin with")
	bad("v=TLSRPTv10; rua=mailto:a@b", "v", "does not begin with")
	bad("v=TLSRPTv1 rua=mailto:a@b;", "v", "does not begin with")
	bad("rua=mailto:a@b; v=TLSRPTv1", "v", "does not begin with")
	bad("v=TLSRPTv1;", "rua", "is missing")
	bad("v=TLSRPTv1; RUA=mailto:a@b", "rua", "is missing")
	bad("v=TLSRPTv1; rua", "field", "is not name=value")
	bad("v=TLSRPTv1; rua =mailto:a@b", "field", "is not name=value")
	bad("v=TLSRPTv1; rua=", "rua", "neither a mailto: nor an https:")
	bad("v=TLSRPTv1; rua=a@b", "rua", "neither a mailto: nor an https:")
	bad("v=TLSRPTv1; rua=http://c/", "rua", "neither a mailto: nor an https:")
	bad("v=TLSRPTv1; rua=https:///", "rua", "neither a mailto: nor an https:")
	bad("v=TLSRPTv1; rua=mailto:a@b,", "rua", "neither a mailto: nor an https:")
	bad("v=TLSRPTv1; rua=mailto:a@b!10m", "rua", "it is written %21")
	bad("v=TLSRPTv1; rua=mailto:a@b mailto:c@d", "rua", "a character that a URI does not have")
}

func FuzzParseReport(f *testing.F) {
	f.Add("v=TLSRPTv1; rua=mailto:a@b,https://c/%2C;")
	f.Add("v=TLSRPTv1 ;\text=a;; rua=mailto:a@b!1; rua=x ")
	f.Add("v=TLSRPTv10; rua=")
	f.Fuzz(func(t *testing.T, txt string) {
		uris, err := policygen.ParseReport(txt)
		if err != nil {
			if !errors.Is(err, policygen.ErrSyntax) || uris != nil {
				t.Fatalf("ParseReport() = %q, %v", uris, err)
			}
			return
		}
		if !policygen.IsTLSRPTv1(txt) || len(uris) == 0 {
			t.Fatalf("ParseReport() = %q of what is no TLSRPTv1 record", uris)
		}
	})
}

// What is accepted of an operator stands for itself, and comes back from the record whole.
func FuzzReportText(f *testing.F) {
	for _, raw := range []string{
		"mailto:tls@bücher.example", "mailto:a%21/b@x.test", "https://r.test:443/a,b;c!d?e=%2C", "HTTPS://R.test", "https://[::1]/", "a@b.test",
	} {
		f.Add(raw, "https://two.test/;")
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		text, err := policygen.ReportText([]string{one, two})
		if err != nil {
			if !errors.Is(err, policygen.ErrSyntax) || text != "" {
				t.Fatalf("ReportText() = %q, %v", text, err)
			}
			return
		}
		if len(text) > 255 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
			t.Fatalf("ReportText() = %q, which no account takes", text)
		}
		uris, err := policygen.ParseReport(text)
		if err != nil || len(uris) != 2 {
			t.Fatalf("ParseReport(%q) = %q, %v", text, uris, err)
		}
		for _, uri := range uris {
			if strings.ContainsAny(uri, ",!;") {
				t.Fatalf("%q holds what separates", uri)
			}
			if again, err := policygen.ParseReportURI(uri); again != uri || err != nil {
				t.Fatalf("ParseReportURI(%q) = %q, %v", uri, again, err)
			}
		}
		if again, err := policygen.ReportText(uris); again != text || err != nil {
			t.Fatalf("ReportText(%q) = %q, %v, want %q", uris, again, err, text)
		}
	})
}
