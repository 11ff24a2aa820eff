package policygen

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Lengths of RFC 1035, Section 2.3.4, for names as they are written: without the root label and its length octet.
const (
	maxHostOctets  = 253
	maxLabelOctets = 63
)

const (
	tooLong    = "is too long; a domain name has at most 253 octets"
	underscore = "has an underscore, which no host name may have"
)

// toHost returns the host name in A-labels and lower case that raw stands for, or why it stands for none.
// A trailing dot is refused.
func toHost(raw string) (host, why string) {
	if why := checkRaw(raw); why != "" {
		return "", why
	}
	host = lower(raw)
	if !isASCII(host) {
		a, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return "", "is no valid internationalised name: " + idnaReason(err)
		}
		host = a
	}
	if why := checkHost(host); why != "" {
		return "", why
	}
	return host, ""
}

// checkRaw finds what would be harder to explain after the conversion to A-labels.
func checkRaw(raw string) (why string) {
	const longest = 4 * maxHostOctets // UTF-8 of a name in U-labels
	switch {
	case raw == "":
		return "is empty; write a domain name such as example.org"
	case len(raw) > longest:
		return "is longer than any domain name"
	case !utf8.ValidString(raw):
		return "is not UTF-8"
	case strings.ContainsFunc(raw, isSpace):
		return "has a space in it"
	case strings.Contains(raw, "_"):
		return underscore
	}
	if _, err := netip.ParseAddr(strings.Trim(raw, "[]")); err == nil {
		return "is an IP address; write a host name"
	}
	return ""
}

// checkHost says why an ASCII name in lower case is no host name. RFC 1123, Section 2.1.
func checkHost(host string) (why string) {
	if len(host) > maxHostOctets {
		return tooLong
	}
	if strings.HasSuffix(host, ".") {
		return "has a trailing dot; leave it out"
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if why := checkLabel(label); why != "" {
			return why
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "ends in a number, as no domain name does"
	}
	return ""
}

func checkLabel(label string) (why string) {
	switch {
	case label == "":
		return "has an empty label; one dot between two labels"
	case len(label) > maxLabelOctets:
		return fmt.Sprintf("has a label of %d octets; a label has at most %d", len(label), maxLabelOctets)
	}
	for _, r := range label {
		if r == '_' {
			return underscore
		}
		if r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return fmt.Sprintf("has %q in it; a host name has letters, digits and hyphens", r)
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return fmt.Sprintf("has the label %q; a label neither begins nor ends with a hyphen", label)
	}
	return ""
}

// checkMailHost says why a host name can neither be a policy domain nor an MX host, which both need a certificate that
// strangers trust. RFC 8461, Sections 3.3 and 4.2.
func checkMailHost(host string) (why string) {
	labels := strings.Split(host, ".")
	if len(labels) == 1 {
		return "is a single label; write a whole name such as mail.example.org"
	}
	for _, label := range labels {
		if why := checkReserved(label); why != "" {
			return why
		}
	}
	if top := labels[len(labels)-1]; slices.Contains(specialUse(), top) {
		return fmt.Sprintf("is below the special-use domain %s, where no host has a certificate that senders trust", top)
	}
	return ""
}

// checkReserved refuses labels with two hyphens at the third place unless they are A-labels. They are reserved (R-LDH
// labels, RFC 5890, Section 2.3.1), and public CAs issue no certificates for them.
func checkReserved(label string) (why string) {
	if len(label) < 4 || label[2:4] != "--" {
		return ""
	}
	if !strings.HasPrefix(label, "xn--") {
		return fmt.Sprintf("has the label %q; two hyphens at the third place are reserved", label)
	}
	if a, err := idna.Lookup.ToASCII(label); err != nil || a != label {
		return fmt.Sprintf("has the label %q, which is no valid A-label; write the name in Unicode", label)
	}
	return ""
}

// specialUse lists the top-level domains that IANA or ICANN keep out of the public DNS, without test and example: those
// are what laboratories and documentation use (RFC 6761, Sections 6.2 and 6.5).
func specialUse() []string {
	return []string{"localhost", "invalid", "local", "onion", "alt", "internal", "arpa"}
}

// idnaReason makes the words of the idna package fit into a sentence.
func idnaReason(err error) string { return strings.TrimPrefix(err.Error(), "idna: ") }

// lower folds A–Z alone. strings.ToLower would also make a k of the Kelvin sign, which no host name has.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

func isSpace(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' || r == '\u00a0' }
