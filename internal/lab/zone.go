package lab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Zone is a zone as text.
type Zone struct {
	Name string // the origin, with or without trailing dot
	// Text is in the master file format (RFC 1035, Section 5), names relative to Name, TTL 60 where it says none.
	// An SOA, an NS record, and the address of that name server (loopback) are added where they are missing.
	Text string
}

// zone is a zone's records by owner name and type; names are canonical (lower case, trailing dot).
type zone struct {
	name    string
	records map[string]map[uint16][]dns.RR
}

func parseZone(z Zone) (*zone, error) {
	zz := &zone{name: dns.CanonicalName(z.Name), records: make(map[string]map[uint16][]dns.RR)}
	p := dns.NewZoneParser(strings.NewReader(z.Text), zz.name, "")
	p.SetDefaultTTL(60)
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		if !dns.IsSubDomain(zz.name, rr.Header().Name) {
			return nil, fmt.Errorf("read zone %q: %q is outside of it", z.Name, rr.Header().Name)
		}
		zz.add(rr)
	}
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("read zone %q: %w", z.Name, err)
	}
	if err := zz.complete(); err != nil {
		return nil, fmt.Errorf("complete zone %q: %w", z.Name, err)
	}
	return zz, nil
}

// complete adds SOA, NS and the name server's address where they are missing.
func (z *zone) complete() error {
	server := dns.Fqdn("ns." + strings.TrimPrefix(z.name, "."))
	var lines []string
	if z.get(z.name, dns.TypeSOA) == nil {
		lines = append(lines, z.name+" 60 IN SOA "+server+" hostmaster."+z.name+" 1 3600 600 86400 5")
	}
	if z.get(z.name, dns.TypeNS) == nil {
		lines = append(lines, z.name+" 60 IN NS "+server)
		if z.get(server, dns.TypeA) == nil {
			lines = append(lines, server+" 60 IN A 127.0.0.1")
		}
	}
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			return err
		}
		z.add(rr)
	}
	return nil
}

func (z *zone) get(name string, typ uint16) []dns.RR { return z.records[name][typ] }

// add adds a record; one that differs only in TTL is replaced.
func (z *zone) add(rr dns.RR) {
	rr = dns.Copy(rr)
	h := rr.Header()
	h.Name = dns.CanonicalName(h.Name)
	h.Class = dns.ClassINET
	if z.records[h.Name] == nil {
		z.records[h.Name] = make(map[uint16][]dns.RR)
	}
	set := slices.DeleteFunc(slices.Clone(z.records[h.Name][h.Rrtype]), func(old dns.RR) bool {
		return dns.IsDuplicate(old, rr)
	})
	z.records[h.Name][h.Rrtype] = append(set, rr)
}

// remove removes the records of one name and type that match; nil matches all.
func (z *zone) remove(name string, typ uint16, match func(dns.RR) bool) {
	var left []dns.RR
	for _, rr := range z.get(name, typ) {
		if match != nil && !match(rr) {
			left = append(left, rr)
		}
	}
	if len(left) > 0 {
		z.records[name][typ] = left
		return
	}
	delete(z.records[name], typ)
	if len(z.records[name]) == 0 {
		delete(z.records, name)
	}
}

// exists says whether a name exists in the sense of RFC 4592, Section 2.2.3: it, or a name below it, has records.
func (z *zone) exists(name string) bool {
	if len(z.records[name]) > 0 {
		return true
	}
	for owner := range z.records {
		if strings.HasSuffix(owner, "."+name) {
			return true
		}
	}
	return false
}

// node returns what answers for a name: its own records, or those of the wildcard that covers it (RFC 4592,
// Section 3.3.1). found is false where the name does not exist.
func (z *zone) node(name string) (types map[uint16][]dns.RR, found bool) {
	if z.exists(name) {
		return z.records[name], true
	}
	encloser := name
	for !z.exists(encloser) && encloser != z.name {
		i, end := dns.NextLabel(encloser, 0)
		if end {
			break
		}
		encloser = encloser[i:]
	}
	types = z.records["*."+encloser]
	return types, len(types) > 0
}

// delegation returns the NS records of a zone cut at or above a name, or nil.
func (z *zone) delegation(name string) []dns.RR {
	for name != z.name && dns.IsSubDomain(z.name, name) {
		if ns := z.get(name, dns.TypeNS); ns != nil {
			return ns
		}
		i, end := dns.NextLabel(name, 0)
		if end {
			break
		}
		name = name[i:]
	}
	return nil
}

// soa returns the zone's SOA record, which a negative answer carries.
func (z *zone) soa() *dns.SOA { return z.get(z.name, dns.TypeSOA)[0].(*dns.SOA) }

// changed raises the serial.
func (z *zone) changed() {
	soa := dns.Copy(z.soa()).(*dns.SOA)
	soa.Serial++
	z.records[z.name][dns.TypeSOA] = []dns.RR{soa}
}
