package policygen

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// What RFC 8460 puts before a policy domain, and what its record begins with. RFC 8460, Section 3.
const (
	reportPrefix  = "_smtp._tls."
	reportVersion = "v=TLSRPTv1"
)

// maxReportOctets is what fits into one character-string of a TXT record; not every sender joins several.
const maxReportOctets = 255

// A domain asks for reports by one TXT record at _smtp._tls.<domain>, [Name.ReportName]. It begins with "v=TLSRPTv1;" and
// names in rua= where senders deliver, once a day, what became of their TLS with the domain's MX: which policy they
// found, how many sessions succeeded, and what failed. Without it a policy in mode testing is silent. RFC 8460, Section 3.
//
// Addresses are URIs, "mailto:tls-reports@example.org" or "https://example.org/tlsrpt", separated by commas. As comma and
// semicolon separate, and "!" once carried a size limit in a sister of this record, all three are percent-encoded inside
// of a URI: %2C, %3B, %21.

// ReportName returns the owner of the TLSRPT record, _smtp._tls.<domain>. RFC 8460, Section 3. It is two octets longer
// than [Name.RecordName], so of the longest names it has more than the 253 that a name may have; [CheckReport] tells.
func (n Name) ReportName() string { return reportPrefix + string(n) }

// CheckReport says, with a [*FieldError], why a domain cannot have a TLSRPT record: its name is too long.
func (n Name) CheckReport() error {
	if len(n.ReportName()) > maxHostOctets {
		return &FieldError{
			Field: "domain", Value: string(n),
			Why: "is too long for a TLSRPT record; with _smtp._tls. before it a name has more than 253 octets",
		}
	}
	return nil
}

// IsTLSRPTv1 reports whether a TXT at an _smtp._tls name means to be a TLSRPT record of version 1, well-formed or not. It
// is to RFC 8460, Section 3 what [IsSTSv1] is to RFC 8461: two such records are as good as none to a sender.
func IsTLSRPTv1(txt string) bool {
	rest, found := strings.CutPrefix(txt, reportVersion)
	return found && (rest == "" || !isAlphanumeric(rest[0]))
}

// ReportText returns the content of the TLSRPT record for addresses as an operator writes them, at least one; see
// [ParseReportURI]. An address that is there twice, or a record of more than 255 octets, which some senders do not read
// whole, is a [*FieldError] as well.
func ReportText(raws []string) (string, error) {
	if len(raws) == 0 {
		return "", &FieldError{Field: "rua", Why: `is empty; write an address, "mailto:tls-reports@example.org"`}
	}
	seen := make(map[string]bool, len(raws))
	var uris []string
	for _, raw := range raws {
		uri, err := ParseReportURI(raw)
		if err != nil {
			return "", err
		}
		if seen[uri] {
			return "", &FieldError{Field: "rua", Value: raw, Why: "is there twice; leave one out"}
		}
		seen[uri] = true
		uris = append(uris, uri)
	}
	text := reportVersion + "; rua=" + strings.Join(uris, ",")
	if len(text) > maxReportOctets {
		return "", &FieldError{Field: "rua", Why: fmt.Sprintf("makes a record of %d octets, more than the %d of one string; "+
			"write fewer addresses, or shorter ones", len(text), maxReportOctets)}
	}
	return text, nil
}

// ParseReportURI returns the address that raw stands for, in the form in which a record holds it: scheme and domain in
// lower case, a domain in U-labels as A-labels, and ",", "!" and ";" percent-encoded. RFC 8460, Section 3. The result
// stands for itself.
//
// It refuses, with a [*FieldError], what no sender could deliver to or what everyone should not read: other schemes, mail
// addresses that are no plain local@domain (an address with "?subject=" or two in one URI), and web addresses with a user,
// a password, a fragment, or an IP address for a host.
func ParseReportURI(raw string) (uri string, err error) {
	scheme, rest, found := strings.Cut(raw, ":")
	why := `is no address for reports; write "mailto:tls-reports@example.org" or "https://example.org/tlsrpt"`
	switch scheme = strings.ToLower(scheme); {
	case found && scheme == "mailto":
		uri, why = mailReport(rest)
	case found && scheme == "https":
		uri, why = webReport(rest)
	case found && scheme == "http":
		why = "is not encrypted; write https: (RFC 8460, Section 3)"
	case strings.Contains(raw, "@"):
		why = "has no scheme; write mailto: before it"
	}
	if why != "" {
		return "", &FieldError{Field: "rua", Value: raw, Why: why}
	}
	return uri, nil
}

// mailReport reads local@domain, the local part percent-encoded or not. RFC 6068, Section 2.
func mailReport(rest string) (uri, why string) {
	at := strings.LastIndexByte(rest, '@')
	switch {
	case at < 1:
		return "", "has no mail address; write mailto:local@domain"
	case strings.Contains(rest, ","):
		return "", "holds several mail addresses; write each as an address of its own"
	case strings.Contains(rest, "?"):
		return "", "has header fields, which a report does not take; leave out what follows the address"
	}
	local, err := url.PathUnescape(rest[:at])
	if err != nil {
		return "", "has a bad percent-encoding; a percent sign itself is written %25"
	}
	if !isDotAtom(local) {
		return "", "has a local part of other characters than mail addresses are written with"
	}
	domain, why := toHost(rest[at+1:])
	if why != "" {
		return "", "has a domain that " + why
	}
	return "mailto:" + escape(local, func(c byte) bool {
		return isAlphanumeric(c) || strings.IndexByte("-._~$'*+", c) >= 0
	}) + "@" + domain, ""
}

// isDotAtom reports whether s is a local part as they are in use. RFC 5322, Section 3.2.3; RFC 5321, Section 4.5.3.1.1.
func isDotAtom(s string) bool {
	if len(s) > 64 {
		return false
	}
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if !isAlphanumeric(atom[i]) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", atom[i]) < 0 {
				return false
			}
		}
	}
	return true
}

// webReport reads what follows "https:".
func webReport(rest string) (uri, why string) {
	rest, found := strings.CutPrefix(rest, "//")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, rest := rest[:end], rest[end:]
	switch {
	case !found || authority == "":
		return "", "has no host; write https://host/path"
	case strings.Contains(authority, "@"):
		return "", "has a user in it, and DNS shows it to everyone; leave that out"
	case strings.Contains(rest, "#"):
		return "", "has a fragment, which is never sent; leave it out"
	case strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"<>\\^`{|}", r) }):
		return "", "has a character that a URI does not have; percent-encode it"
	}
	if _, err := url.PathUnescape(rest); err != nil {
		return "", "has a bad percent-encoding; a percent sign itself is written %25"
	}
	host, port, found := strings.Cut(authority, ":")
	if _, err := netip.ParseAddr(strings.Trim(authority, "[]")); err == nil {
		host, found = authority, false // which toHost refuses in better words
	}
	host, why = toHost(host)
	if why != "" {
		return "", "has a host that " + why
	}
	if found {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", "has no good port; 1 to 65535"
		}
		host += ":" + strconv.FormatUint(n, 10)
	}
	return "https://" + host + escape(rest, func(c byte) bool { return strings.IndexByte(",!;", c) < 0 }), ""
}

// escape percent-encodes the octets that do not pass.
func escape(s string, pass func(byte) bool) string {
	var b strings.Builder
	for i := range len(s) {
		if pass(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// ParseReport returns the addresses of a TLSRPT record, the character-strings of which are joined, as they stand there.
// RFC 8460, Section 3.
//
// It reads what senders read: unknown fields are skipped, of two rua the first counts, white space may stand around
// semicolons and commas. Anything else is a [*FieldError] and no record to a sender, and so is an address that is neither
// mailto: nor https:, as nothing would be delivered there.
func ParseReport(txt string) (uris []string, err error) {
	version, fields, found := strings.Cut(txt, ";")
	if !found || strings.TrimRight(version, whiteSpace) != reportVersion {
		return nil, &FieldError{Field: "v", Value: txt, Why: `does not begin with "v=TLSRPTv1;"`}
	}
	for field := range strings.SplitSeq(fields, ";") {
		field = strings.Trim(field, whiteSpace)
		if field == "" {
			continue
		}
		name, value, found := strings.Cut(field, "=")
		if !found || !isExtensionName(name) {
			return nil, &FieldError{Field: "field", Value: field, Why: "is not name=value"}
		}
		if name != "rua" || uris != nil {
			continue
		}
		for uri := range strings.SplitSeq(value, ",") {
			uri = strings.Trim(uri, whiteSpace)
			if why := unreachable(uri); why != "" {
				return nil, &FieldError{Field: "rua", Value: uri, Why: why}
			}
			uris = append(uris, uri)
		}
	}
	if uris == nil {
		return nil, &FieldError{Field: "rua", Why: "is missing"}
	}
	return uris, nil
}

// unreachable says why nothing is delivered to an address of a record that somebody wrote.
func unreachable(uri string) (why string) {
	scheme, rest, _ := strings.Cut(uri, ":")
	local, domain, _ := strings.Cut(rest, "@")
	host, web := strings.CutPrefix(rest, "//")
	switch scheme = strings.ToLower(scheme); {
	case strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "has a character that a URI does not have"
	case strings.Contains(uri, "!"):
		return "has an exclamation mark; it is written %21"
	case scheme == "mailto" && local != "" && domain != "", scheme == "https" && web && strings.Trim(host, "/?#") != "":
		return ""
	}
	return "is neither a mailto: nor an https: address"
}
