package dnsupdate

import (
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/policygen"
)

// View is what the authoritative servers of a zone answer about one name.
type View struct {
	Name, Zone string   // without trailing dot; "." for the root
	Answers    []Answer // one for every address of every server, in a fixed order
}

// Answer is what one address of one server says.
type Answer struct {
	// Server is the name server and its address, "ns1.example.net 192.0.2.1:53", the address alone for a stub, or the name
	// alone where none is asked.
	Server string
	// Err is why there is no answer: time-out, SERVFAIL, REFUSED, not authoritative. The fields below are empty then.
	// Nothing is proven by it.
	Err error
	// NXDomain says that the name does not exist there at all.
	NXDomain bool
	// CNAME is the target if the name is a CNAME there; lower case, without trailing dot.
	CNAME string
	// RRs are the records of the type asked for at the name itself; those at the target of a CNAME are not.
	RRs []dns.RR
	// TXT are the values of RRs, for TXT: the character-strings of each joined and without escapes.
	TXT []string
	// TTL is how long caches keep the answer: that of RRs or of the CNAME, or the negative TTL (RFC 2308, Section 5).
	TTL time.Duration
}

// STS returns the TXT values that mean to be STSv1 records; see [policygen.IsSTSv1].
func (a Answer) STS() []string {
	return slices.DeleteFunc(slices.Clone(a.TXT), func(s string) bool { return !policygen.IsSTSv1(s) })
}

// Strangers returns the other TXT values.
func (a Answer) Strangers() []string {
	return slices.DeleteFunc(slices.Clone(a.TXT), policygen.IsSTSv1)
}

// Complete says whether every server answered.
func (v View) Complete() bool {
	return len(v.Answers) > 0 && !slices.ContainsFunc(v.Answers, func(a Answer) bool { return a.Err != nil })
}

// Failed returns the answers that are none.
func (v View) Failed() []Answer {
	return slices.DeleteFunc(slices.Clone(v.Answers), func(a Answer) bool { return a.Err == nil })
}

// Absent says whether every server answered without any STSv1 record, and without a CNAME that might lead to one.
func (v View) Absent() bool {
	return v.Complete() && v.CNAME() == "" && !slices.ContainsFunc(v.Answers, func(a Answer) bool { return len(a.STS()) > 0 })
}

// CNAME returns the target of the first server where the name is a CNAME; empty: at none.
func (v View) CNAME() string {
	for _, a := range v.Answers {
		if a.CNAME != "" {
			return a.CNAME
		}
	}
	return ""
}

// MaxTTL is after what time every cache has forgotten what was answered.
func (v View) MaxTTL() time.Duration {
	var ttl time.Duration
	for _, a := range v.Answers {
		ttl = max(ttl, a.TTL)
	}
	return ttl
}
