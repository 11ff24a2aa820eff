package config

import (
	"strings"
	"testing"
)

func reportEdits() []edit {
	const maxAge = `max_age = "2w"`
	set := func(value string) string { return maxAge + "\ntlsrpt = " + value }
	long := strings.Repeat("a", 50) + "."
	return []edit{
		{
			"bad addresses, each in its line", maxAge, set("[\n'tls@x.test',\n'http://x.test',\n'mailto:a@x.test',\n'mailto:A@x.test!1m',\n'mailto:a@X.test']"),
			`stspub.toml:13: mxset.eu.tlsrpt: "tls@x.test": has no scheme; write mailto: before it
stspub.toml:14: mxset.eu.tlsrpt: "http://x.test": is not encrypted; write https: (RFC 8460, Section 3)
stspub.toml:16: mxset.eu.tlsrpt: "mailto:A@x.test!1m": has a domain that has '!' in it; a host name has letters, digits and hyphens
stspub.toml:17: mxset.eu.tlsrpt: "mailto:a@X.test" is there twice, first in line 15; leave one out`,
		},
		{
			"addresses of an MX set, none", maxAge, set("[]"),
			`stspub.toml:12: mxset.eu.tlsrpt: is empty; write at least one address, or leave it out`,
		},
		{
			"too many addresses", "", "tlsrpt = [\n'https://x.test/" + strings.Repeat("a", 200) + "',\n'mailto:tls-reports@example.org']\n",
			`stspub.toml:17: domain.tlsrpt: makes a record of 262 octets, more than the 255 of one string; write fewer addresses, or shorter ones`,
		},
		{
			"address without a list", "", "tlsrpt = 'mailto:a@x.test'\n",
			`stspub.toml:17: domain.tlsrpt: is a string, want an array of strings: tlsrpt = ["value"]`,
		},
		{
			"a name too long for the record", `"example.org"`, `"` + strings.Repeat(long, 4) + strings.Repeat("b", 34) + `.test"` + "\ntlsrpt = ['mailto:a@x.test']",
			`stspub.toml:13: domain.name: "` + strings.Repeat(long, 4) + strings.Repeat("b", 34) + `.test": is too long for a TLSRPT record; with ` +
				`_smtp._tls. before it a name has more than 253 octets`,
		},
	}
}

// What a [[domain]] says replaces what its MX set says.
func TestTLSRPT(t *testing.T) {
	t.Parallel()
	const domains = "\ndomains = ['listed.example']\npublish = 'zone'\naccount = 'main'\n"
	config := func(set, domain string) string {
		text := base + domain + "\n"
		return strings.Replace(text, `max_age = "2w"`, `max_age = "2w"`+domains+set, 1)
	}
	const theirs, own = "v=TLSRPTv1; rua=mailto:tls@x.test,https://x.test/a%3Bb", "v=TLSRPTv1; rua=mailto:me@x.test"
	const set = "tlsrpt = ['MAILTO:tls@X.test', 'https://x.test/a;b']"
	for _, c := range []struct {
		set, domain    string
		listed, tabled string
	}{
		{"", "", "", ""},
		{set, "", theirs, theirs},
		{set, "tlsrpt = ['mailto:me@x.test']", theirs, own},
		{set, "tlsrpt = []", theirs, ""},
		{"", "tlsrpt = ['mailto:me@x.test']", "", own},
	} {
		got, warnings, err := Load(inFolder(t, "stspub.toml", config(c.set, c.domain), map[string]string{"token": "fake"}), noEnv)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("Load with %q and %q: %v, warnings %v", c.set, c.domain, err, warnings)
		}
		if len(got.Domains) != 2 || got.Domains[0].TLSRPT != c.tabled || got.Domains[1].TLSRPT != c.listed {
			t.Errorf("Load with %q and %q: domains %+v, want TLSRPT %q and %q", c.set, c.domain, got.Domains, c.tabled, c.listed)
		}
	}
}
