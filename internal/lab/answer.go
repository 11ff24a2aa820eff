package lab

import (
	"github.com/miekg/dns"
)

// maxChain bounds how many CNAMEs one answer follows.
const maxChain = 12

// serve answers one message.
func (d *DNS) serve(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	switch {
	case len(r.Question) != 1:
		m.Rcode = dns.RcodeFormatError
	case d.fault(r, m):
		return
	case m.Rcode != dns.RcodeSuccess:
	case r.Opcode == dns.OpcodeUpdate:
		m.Rcode = d.update(w, r)
	default:
		d.answer(m, r.Question[0])
	}
	finish(w, r, m)
}

// fault sets the configured fault's Rcode in m; it returns true when there shall be no answer at all. It also counts.
func (d *DNS) fault(r, m *dns.Msg) (silent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := dns.CanonicalName(r.Question[0].Name)
	if r.Opcode == dns.OpcodeQuery {
		d.queries[query{name, r.Question[0].Qtype}]++
	}
	if len(d.faults) == 0 {
		return false
	}
	f, found := d.faults[name]
	for !found && name != "." {
		i, end := dns.NextLabel(name, 0)
		if name = name[i:]; end {
			name = "."
		}
		f, found = d.faults[name]
	}
	switch f {
	case FaultServfail:
		m.Rcode = dns.RcodeServerFailure
	case FaultRefused:
		m.Rcode = dns.RcodeRefused
	case FaultSilent:
		return true
	case FaultNone:
	}
	return false
}

// answer fills in the answer to a question.
func (d *DNS) answer(m *dns.Msg, q dns.Question) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	name := dns.CanonicalName(q.Name)
	if d.zone(name) == nil || q.Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeRefused
		return
	}
	for range maxChain {
		z := d.zone(name)
		if z == nil {
			return // the chain leaves our zones; the resolver goes on
		}
		if ns := z.delegation(name); ns != nil {
			if len(m.Answer) == 0 {
				m.Ns = ns
			}
			return
		}
		m.Authoritative = true
		types, found := z.node(name)
		if !found {
			m.Rcode = dns.RcodeNameError
			m.Ns = []dns.RR{z.soa()}
			return
		}
		set := choose(types, q.Qtype)
		for _, rr := range set {
			rr = dns.Copy(rr)
			rr.Header().Name = name // a wildcard's record answers under the name that was asked
			m.Answer = append(m.Answer, rr)
		}
		if len(set) == 0 {
			m.Ns = []dns.RR{z.soa()}
			return
		}
		cname, ok := set[0].(*dns.CNAME)
		if !ok || q.Qtype == dns.TypeCNAME || q.Qtype == dns.TypeANY {
			return
		}
		name = dns.CanonicalName(cname.Target)
	}
}

// choose returns the records of a type, the CNAME in place of it, or all for ANY.
func choose(types map[uint16][]dns.RR, typ uint16) []dns.RR {
	if typ == dns.TypeANY {
		var all []dns.RR
		for _, set := range types {
			all = append(all, set...)
		}
		return all
	}
	if set := types[typ]; set != nil {
		return set
	}
	return types[dns.TypeCNAME]
}

// finish adds what the transport needs (EDNS, signature, truncation) and sends.
func finish(w dns.ResponseWriter, r, m *dns.Msg) {
	size := dns.MinMsgSize
	if opt := r.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
		m.SetEdns0(dns.DefaultMsgSize, false)
	}
	if w.RemoteAddr().Network() == "tcp" {
		size = dns.MaxMsgSize
	}
	m.Truncate(size)
	if t := r.IsTsig(); t != nil && w.TsigStatus() == nil {
		m.SetTsig(t.Hdr.Name, t.Algorithm, 300, int64(t.TimeSigned))
	}
	// A client that is gone needs no answer.
	_ = w.WriteMsg(m)
}
