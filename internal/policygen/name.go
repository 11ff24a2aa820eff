package policygen

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// What RFC 8461 puts before a policy domain, Sections 3.1 and 3.2.
const (
	policyHostPrefix = "mta-sts."
	recordPrefix     = "_mta-sts."
)

// maxNameOctets leaves room for the longer prefix within the 253 octets of a written domain name.
const maxNameOctets = maxHostOctets - len(recordPrefix)

// Name is a policy domain, the part of a mail address after the @: A-labels, lower case, without trailing dot, checked
// by [ParseName]. There is no inheritance: mail.example.com needs its own policy beside that of example.com.
// RFC 8461, Section 3.4.
type Name string

// ParseName returns the policy domain that raw stands for. U-labels become A-labels (IDNA 2008 with the mappings of
// UTS 46), letters lower case, and one trailing dot goes.
//
// It refuses, with a [*FieldError], what cannot be a policy domain or cannot get a certificate: single labels,
// IP addresses, underscores, wildcards, names that are too long for "_mta-sts." before them, the special-use domains
// localhost, invalid, local, onion, alt, internal and arpa, and public suffixes of the ICANN section such as co.uk, which
// belong to a registry. Public suffixes of the private section such as github.io are accepted: they belong to somebody
// who may well receive mail there. So are names below test and example, which laboratories use.
func ParseName(raw string) (Name, error) {
	refuse := func(why string) (Name, error) {
		return "", &FieldError{Field: "domain", Value: raw, Why: why}
	}
	if strings.Contains(raw, "*") {
		return refuse("a policy domain is no wildcard; each domain needs its own policy (RFC 8461, Section 3.4)")
	}
	if rest, found := strings.CutPrefix(strings.ToLower(raw), recordPrefix); found {
		return refuse("is the name of a record; write the mail domain, " + rest)
	}
	name, why := toHost(strings.TrimSuffix(raw, "."))
	if why == "" {
		why = checkMailHost(name)
	}
	if why != "" {
		return refuse(why)
	}
	if len(name) > maxNameOctets {
		return refuse("is too long; with _mta-sts. before it a name has more than 253 octets")
	}
	if suffix, icann := publicsuffix.PublicSuffix(name); icann && suffix == name {
		return refuse("is a public suffix, below which a registry hands out names; write one of those")
	}
	return Name(name), nil
}

// PolicyHost returns the host that serves the policy, mta-sts.<domain>. RFC 8461, Section 3.3.
func (n Name) PolicyHost() string { return policyHostPrefix + string(n) }

// RecordName returns the owner of the TXT record, _mta-sts.<domain>. RFC 8461, Section 3.1.
func (n Name) RecordName() string { return recordPrefix + string(n) }

// Unicode returns the name as people write it, with U-labels. It is for display only: two names may look alike.
func (n Name) Unicode() string {
	s, err := idna.Display.ToUnicode(string(n))
	if err != nil {
		return string(n)
	}
	return s
}

// Label returns one DNS label that stands for the name below an alias zone: 26 letters and digits, the first 128 bits of
// its SHA-256 in base32. It is one label and not the name itself because the dots of the name would create empty
// non-terminals, at which a wildcard beside them does not answer (RFC 4592, Section 2.2.2). It must never change:
// customers' CNAMEs point at it.
func (n Name) Label() string {
	sum := sha256.Sum256([]byte(n))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}
