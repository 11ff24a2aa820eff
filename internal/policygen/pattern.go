package policygen

import (
	"strings"

	"golang.org/x/net/publicsuffix"
)

// ParsePattern returns the MX pattern that raw stands for, as a policy lists it: "mx.example.com", or "*.example.com" for
// the hosts one label below example.com. RFC 8461, Sections 3.2 and 4.1. Letters become lower case and U-labels A-labels;
// changed reports the latter, which an operator should be told.
//
// It refuses, with a [*FieldError], what some sender would refuse or what can match no MX host with a trusted certificate:
// "*" alone or anywhere but as the whole first label, underscores, a trailing dot, IP addresses, single labels, and the
// special-use domains that [ParseName] refuses. It also refuses the wildcard right below a public suffix, of the ICANN
// section ("*.com") or the private one ("*.github.io"): anybody gets a host there, with a trusted certificate, and such
// a host would pass for an MX of the domain (RFC 8461, Section 10.4).
func ParsePattern(raw string) (pattern string, changed bool, err error) {
	refuse := func(why string) (string, bool, error) {
		return "", false, &FieldError{Field: "mx", Value: raw, Why: why}
	}
	rest, wildcard := strings.CutPrefix(raw, "*.")
	switch {
	case raw == "*":
		return refuse("a wildcard alone matches nothing; write the MX hosts, or *. and the domain they are in")
	case strings.Contains(rest, "*"):
		return refuse("a wildcard is only the whole first label, once, as in *.example.com (RFC 8461, Section 4.1)")
	}
	host, why := toHost(rest)
	if why == "" {
		why = checkMailHost(host)
	}
	if wildcard && host != "" {
		if suffix, _ := publicsuffix.PublicSuffix(host); suffix == host {
			why = "is a wildcard below a public suffix, where anybody gets a host; write the MX hosts"
		}
		host = "*." + host
	}
	if why == "" && len(host) > maxHostOctets {
		why = tooLong
	}
	if why != "" {
		return refuse(why)
	}
	return host, !isASCII(rest), nil
}

// Match reports whether an MX host name matches a pattern. A leading "*" stands for exactly one label: *.example.com
// matches a.example.com, but neither example.com nor a.b.example.com. RFC 8461, Section 4.1. Letter case does not matter,
// nor one trailing dot of the host. Both are expected in A-labels.
func Match(pattern, host string) bool {
	pattern, host = lower(pattern), lower(strings.TrimSuffix(host, "."))
	domain, wildcard := strings.CutPrefix(pattern, "*.")
	if !wildcard {
		return pattern != "" && pattern == host
	}
	label, rest, found := strings.Cut(host, ".")
	return found && label != "" && domain != "" && rest == domain
}
