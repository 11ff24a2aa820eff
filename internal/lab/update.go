package lab

import (
	"slices"

	"github.com/miekg/dns"
)

// update carries out a dynamic update, all of it or nothing, and returns the answer's Rcode. Sections are those of
// RFC 2136: r.Answer are the prerequisites, r.Ns the updates.
func (d *DNS) update(w dns.ResponseWriter, r *dns.Msg) int {
	if d.keys && r.IsTsig() == nil {
		return dns.RcodeRefused
	}
	if r.IsTsig() != nil && w.TsigStatus() != nil {
		return dns.RcodeNotAuth
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	q := r.Question[0]
	z := d.zones[dns.CanonicalName(q.Name)]
	if q.Qtype != dns.TypeSOA {
		return dns.RcodeFormatError
	}
	if z == nil || q.Qclass != dns.ClassINET {
		return dns.RcodeNotAuth
	}
	if rcode := z.prerequisites(r.Answer); rcode != dns.RcodeSuccess {
		return rcode
	}
	if rcode := z.prescan(r.Ns); rcode != dns.RcodeSuccess {
		return rcode
	}
	for _, rr := range r.Ns {
		z.apply(rr)
	}
	z.changed()
	d.updates++
	return dns.RcodeSuccess
}

// prerequisites checks Section 3.2 of RFC 2136.
func (z *zone) prerequisites(rrs []dns.RR) int {
	type set struct {
		name string
		typ  uint16
	}
	wanted := make(map[set][]dns.RR) // the value-dependent ones
	for _, rr := range rrs {
		h := rr.Header()
		name := dns.CanonicalName(h.Name)
		if h.Ttl != 0 {
			return dns.RcodeFormatError
		}
		if !dns.IsSubDomain(z.name, name) {
			return dns.RcodeNotZone
		}
		inUse := len(z.records[name]) > 0
		any := h.Rrtype == dns.TypeANY
		exists := z.get(name, h.Rrtype) != nil
		switch {
		case h.Class == dns.ClassANY && any && !inUse:
			return dns.RcodeNameError
		case h.Class == dns.ClassNONE && any && inUse:
			return dns.RcodeYXDomain
		case h.Class == dns.ClassANY && !any && !exists:
			return dns.RcodeNXRrset
		case h.Class == dns.ClassNONE && !any && exists:
			return dns.RcodeYXRrset
		case h.Class == dns.ClassINET:
			s := set{name, h.Rrtype}
			wanted[s] = append(wanted[s], rr)
		}
	}
	for s, rrs := range wanted {
		if !sameSet(rrs, z.get(s.name, s.typ)) {
			return dns.RcodeNXRrset
		}
	}
	return dns.RcodeSuccess
}

// sameSet compares two record sets without their TTLs.
func sameSet(a, b []dns.RR) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x dns.RR) bool {
		return !slices.ContainsFunc(b, func(y dns.RR) bool { return dns.IsDuplicate(x, y) })
	})
}

// prescan checks Section 3.4.1, so that apply cannot fail half-way.
func (z *zone) prescan(rrs []dns.RR) int {
	for _, rr := range rrs {
		h := rr.Header()
		_, empty := rr.(*dns.ANY)
		empty = empty || h.Rdlength == 0
		switch {
		case !dns.IsSubDomain(z.name, dns.CanonicalName(h.Name)):
			return dns.RcodeNotZone
		case h.Class == dns.ClassINET && (empty || h.Rrtype == dns.TypeANY),
			h.Class == dns.ClassANY && (!empty || h.Ttl != 0),
			h.Class == dns.ClassNONE && (h.Ttl != 0 || h.Rrtype == dns.TypeANY),
			h.Class != dns.ClassINET && h.Class != dns.ClassANY && h.Class != dns.ClassNONE:
			return dns.RcodeFormatError
		}
	}
	return dns.RcodeSuccess
}

// apply carries out one update, Section 3.4.2.
func (z *zone) apply(rr dns.RR) {
	h := rr.Header()
	name := dns.CanonicalName(h.Name)
	apex := func(typ uint16) bool {
		return name == z.name && (typ == dns.TypeSOA || typ == dns.TypeNS)
	}
	switch h.Class {
	case dns.ClassINET:
		z.insert(name, rr)
	case dns.ClassANY:
		for typ := range z.records[name] {
			if (h.Rrtype == typ || h.Rrtype == dns.TypeANY) && !apex(typ) {
				z.remove(name, typ, nil)
			}
		}
	case dns.ClassNONE:
		if apex(h.Rrtype) {
			return
		}
		rr = dns.Copy(rr)
		rr.Header().Class = dns.ClassINET
		z.remove(name, h.Rrtype, func(old dns.RR) bool { return dns.IsDuplicate(old, rr) })
	}
}

// insert adds a record unless it may not stand beside what is there: like BIND and Knot it drops a record at a name
// with a CNAME, and a CNAME at a name with records, and calls that success.
func (z *zone) insert(name string, rr dns.RR) {
	typ := rr.Header().Rrtype
	_, hasCNAME := z.records[name][dns.TypeCNAME]
	switch {
	case typ == dns.TypeSOA:
		return
	case typ == dns.TypeCNAME && hasCNAME:
		z.remove(name, dns.TypeCNAME, nil)
	case typ == dns.TypeCNAME && len(z.records[name]) > 0, typ != dns.TypeCNAME && hasCNAME:
		return
	}
	z.add(rr)
}
