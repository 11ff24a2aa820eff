package dnsupdate_test

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/sender"
)

// zoneServer is both the resolver and the name servers of example.org. Of one kind of question the answer is fuzzed.
type zoneServer struct {
	fuzzed atomic.Pointer[[]byte]
	kind   atomic.Uint32 // dns.TypeSOA, dns.TypeNS or dns.TypeTXT

	mu   sync.Mutex // guards sent
	sent [][]byte   // of the fuzzed answers
}

func (z *zoneServer) answer(question []byte, _ bool) []byte {
	var q dns.Msg
	if q.Unpack(question) != nil || len(q.Question) != 1 {
		return nil
	}
	asked := q.Question[0]
	m := new(dns.Msg).SetReply(&q)
	m.Authoritative = true
	name := dns.CanonicalName(asked.Name)
	switch {
	case uint32(asked.Qtype) == z.kind.Load() && asked.Qtype == dns.TypeTXT, uint32(asked.Qtype) == z.kind.Load() && name == zone+".":
		out := about(question, *z.fuzzed.Load())
		z.mu.Lock()
		defer z.mu.Unlock()
		z.sent = append(z.sent, out)
		return out
	case asked.Qtype == dns.TypeSOA && name == zone+".":
		m.Answer = records(zone + ". 60 IN SOA ns. nobody. 1 2 3 4 5")
	case asked.Qtype == dns.TypeNS && name == zone+".":
		m.Answer = records(zone+". 60 IN NS ns1.example.org.", zone+". 60 IN NS ns2.example.org.")
	case asked.Qtype == dns.TypeA:
		m.Answer = records(name + " 60 IN A 127.0.0.1") // whatever a name server is called, it is here
	case asked.Qtype == dns.TypeTXT:
		m.Answer = records(name + " 60 IN TXT \"v=STSv1; id=1;\"")
	}
	wire, err := m.Pack()
	if err != nil {
		return nil // a name that the library reads and does not write
	}
	return wire
}

// taken returns the fuzzed answers that were sent since it was called last.
func (z *zoneServer) taken() [][]byte {
	z.mu.Lock()
	defer z.mu.Unlock()
	sent := z.sent
	z.sent = nil
	return sent
}

// about has fuzzed bytes answer a question, whatever they are about: the part up to the end of the question is replaced,
// but for flags and numbers.
func about(question, fuzzed []byte) []byte {
	const header = 12 // RFC 1035, Section 4.1.1
	if len(fuzzed) < header {
		return fuzzed
	}
	end := header
	for end < len(question) && question[end] != 0 {
		end += 1 + int(question[end])
	}
	end += 5 // the root, type and class
	return slices.Concat(question[:2], []byte{fuzzed[2] | 0x80, fuzzed[3], 0, 1}, fuzzed[6:header], question[header:end], fuzzed[header:])
}

func records(lines ...string) []dns.RR {
	var out []dns.RR
	for _, line := range lines {
		if rr, err := dns.NewRR(line); err == nil {
			out = append(out, rr)
		}
	}
	return out
}

// body is a message without its question, for about.
func body(tb testing.TB, change func(*dns.Msg), lines ...string) []byte {
	tb.Helper()
	m := new(dns.Msg)
	m.Response, m.Authoritative, m.Answer = true, true, records(lines...)
	if len(m.Answer) != len(lines) {
		tb.Fatalf("not records: %q", lines)
	}
	if change != nil {
		change(m)
	}
	wire, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return wire
}

// FuzzObserver has the servers of a zone answer anything when they are asked where it begins, who serves it, and for the
// record.
func FuzzObserver(f *testing.F) {
	var z zoneServer
	addr := labtest.StartRawDNS(f, z.answer)
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		f.Fatal(err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		f.Fatal(err)
	}
	const r = record + ". "
	add := func(kind uint8, change func(*dns.Msg), lines ...string) { f.Add(body(f, change, lines...), kind) }
	add(0, nil, zone+". 60 IN SOA ns. nobody. 1 2 3 4 5")
	add(0, nil, zone+". 60 IN CNAME elsewhere.test.")
	add(0, func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure })
	add(1, nil, zone+". 60 IN NS ns1.example.org.", zone+". 60 IN NS .", zone+". 60 IN NS NS1.example.org.")
	add(1, nil, zone+". 60 IN CNAME example.net.")
	add(2, nil, r+"300 IN TXT \"v=STSv1; id=1;\" \"x\"", r+"60 IN TXT \"\\000\\255\"")
	add(2, nil, r+"60 IN CNAME A.Example.Net.", r+"60 IN TXT \"v=STSv1; id=1;\"")
	add(2, nil, r+"60 CH TXT \"v=STSv1; id=1;\"")
	add(2, func(m *dns.Msg) { m.Authoritative = false }, r+"60 IN TXT \"v=STSv1; id=1;\"")
	add(2, func(m *dns.Msg) {
		m.Rcode = dns.RcodeNameError
		m.Ns = records("example.org. 60 IN SOA . . 1 2 3 4 4294967295")
	})
	add(2, func(m *dns.Msg) { m.Truncated = true })
	f.Add([]byte{}, uint8(2))
	f.Fuzz(func(t *testing.T, answer []byte, kind uint8) {
		answer = answer[:min(len(answer), 60_000)]
		z.fuzzed.Store(&answer)
		z.taken()
		z.kind.Store(uint32([]uint16{dns.TypeSOA, dns.TypeNS, dns.TypeTXT}[kind%3]))
		o := &dnsupdate.Observer{Resolver: &sender.Resolver{Servers: []string{addr}, Timeout: 200 * time.Millisecond}, Port: uint16(port)}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		v, err := o.Observe(ctx, record, dns.TypeTXT)
		if ctx.Err() != nil {
			t.Fatalf("Observe took longer than 20 s: %v", err)
		}
		if err != nil {
			if len(v.Answers) > 0 || v.Complete() || v.Absent() {
				t.Errorf("Observe = %+v beside the error %v", v, err)
			}
			return
		}
		if v.Name != record || v.Zone != "." && v.Name != v.Zone && !strings.HasSuffix(v.Name, "."+v.Zone) {
			t.Errorf("the zone of %q is %q", v.Name, v.Zone)
		}
		for _, a := range v.Answers {
			checkObserved(t, a)
		}
		if v.Complete() != (len(v.Answers) > 0 && len(v.Failed()) == 0) {
			t.Errorf("Complete = %t with %d answers, %d of them none", v.Complete(), len(v.Answers), len(v.Failed()))
		}
		if z.kind.Load() == uint32(dns.TypeTXT) {
			checkProven(t, v, z.taken())
		}
	})
}

// checkObserved: an answer is either none or about the name itself.
func checkObserved(t *testing.T, a dnsupdate.Answer) {
	t.Helper()
	if a.Err != nil && (a.NXDomain || a.CNAME != "" || len(a.RRs)+len(a.TXT) > 0 || a.TTL != 0) {
		t.Errorf("beside the error %v: %+v", a.Err, a)
	}
	if a.TTL < 0 || len(a.RRs) != len(a.TXT) || len(a.STS())+len(a.Strangers()) != len(a.TXT) {
		t.Errorf("answer %+v", a)
	}
	if a.NXDomain && (a.CNAME != "" || len(a.RRs) > 0) {
		t.Errorf("a name that does not exist has %+v", a)
	}
	for _, rr := range a.RRs {
		h := rr.Header()
		if h.Rrtype != dns.TypeTXT || h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != record+"." {
			t.Errorf("%v was taken for a TXT record of %s", rr, record)
		}
	}
}

// checkProven: nothing is proven by what is not a whole answer of an authoritative server.
func checkProven(t *testing.T, v dnsupdate.View, sent [][]byte) {
	t.Helper()
	for _, wire := range sent {
		var m dns.Msg
		if m.Unpack(wire) == nil && m.Authoritative && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError) {
			return
		}
	}
	if v.Absent() || v.Complete() || len(v.Failed()) != len(v.Answers) {
		t.Errorf("an answer was made of %x: %+v", sent, v)
	}
}
