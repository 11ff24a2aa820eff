package sender_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/sender"
)

const fuzzName = "mta-sts.fuzz.test."

// answersTo returns messages as a server sends them: the body of FuzzResolver's seeds.
func answersTo(tb testing.TB, lines ...string) []byte {
	tb.Helper()
	m := new(dns.Msg).SetQuestion(fuzzName, dns.TypeTXT)
	m.Response, m.Authoritative = true, true
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			tb.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	m.Compress = true
	wire, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return wire
}

// tell makes an answer of fuzzed bytes: as they are, or with the question that was asked in the place of the one in them,
// so that they are about that.
func tell(question, fuzzed []byte, asIs bool) []byte {
	asked := len(answersHeader) + len(dnsName(question)) + 4
	if asIs || len(fuzzed) < asked || len(question) < asked {
		return fuzzed
	}
	out := slices.Clone(fuzzed)
	copy(out, question[:2]) // names may point to the id
	out[2] |= 0x80          // an answer
	copy(out[4:6], question[4:6])
	// A question of another length moves what follows.
	return slices.Concat(out[:len(answersHeader)], question[len(answersHeader):asked], out[questionEnd(out):])
}

// answersHeader is as long as the header of a message. RFC 1035, Section 4.1.1.
const answersHeader = "............"

// dnsName is the name that a question is about, as it is written in the message.
func dnsName(message []byte) []byte {
	rest := message[len(answersHeader):]
	n := 0
	for n < len(rest) && rest[n] != 0 && rest[n] < 64 {
		n += 1 + int(rest[n])
	}
	return rest[:min(n+1, len(rest))]
}

func questionEnd(message []byte) int {
	return min(len(answersHeader)+len(dnsName(message))+4, len(message))
}

// FuzzResolver has a name server answer anything: what Lookup says was really in an answer to the question, and everything
// else is an error.
func FuzzResolver(f *testing.F) {
	var current, sent atomic.Pointer[[]byte]
	var asIs atomic.Bool
	addr := labtest.StartRawDNS(f, func(question []byte, _ bool) []byte {
		out := tell(question, *current.Load(), asIs.Load())
		sent.Store(&out)
		return out
	})
	types := []uint16{dns.TypeTXT, dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeNS, dns.TypeMX, dns.TypeSOA, dns.TypeCAA}
	for i, lines := range [][]string{
		{fuzzName + " 300 IN TXT \"v=STSv1; id=1;\" \"\""},
		{fuzzName + " 0 IN A 192.0.2.1", fuzzName + " 4294967295 IN A 192.0.2.2", fuzzName + " 60 CH A 192.0.2.3"},
		{fuzzName + " 60 IN AAAA ::", fuzzName + " 60 IN AAAA ::ffff:127.0.0.1"},
		{fuzzName + " 60 IN CNAME " + fuzzName},
		{fuzzName + " 60 IN NS .", "other.test. 60 IN NS ns.other.test."},
		{fuzzName + " 60 IN MX 65535 ."},
		{fuzzName + " 60 IN CNAME a.test.", "a.test. 30 IN CNAME B.test.", "b.test. 90 IN SOA . . 1 2 3 4 5"},
		{fuzzName + " 60 IN CAA 128 issue \";\""},
	} {
		wire := answersTo(f, lines...)
		f.Add(wire, uint8(i), false)
		f.Add(wire[:len(wire)-3], uint8(i), true)
		truncated := slices.Clone(wire)
		truncated[2] |= 2
		f.Add(truncated, uint8(i), false)
		refused := slices.Clone(wire)
		refused[3] = 5
		f.Add(refused, uint8(i), false)
	}
	f.Add([]byte{}, uint8(0), true)
	f.Fuzz(func(t *testing.T, answer []byte, kind uint8, raw bool) {
		answer = answer[:min(len(answer), 60_000)]
		current.Store(&answer)
		asIs.Store(raw)
		qtype := types[int(kind)%len(types)]
		r := &sender.Resolver{Servers: []string{addr}, Timeout: 200 * time.Millisecond}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got, err := r.Lookup(ctx, fuzzName, qtype)
		if ctx.Err() != nil {
			t.Fatalf("Lookup took longer than 10 s: %v", err)
		}
		wantLine(t, err)
		if err == nil {
			checkLookup(t, got, qtype)
			checkSaid(t, *sent.Load(), got)
		} else if len(got.RRs)+len(got.Chain) > 0 || got.NXDomain {
			t.Errorf("Lookup = %+v beside the error %v", got, err)
		}
		if found, err := r.Addrs(ctx, fuzzName); err == nil {
			checkAddrs(t, found)
		} else {
			wantLine(t, err)
		}
	})
}

// checkLookup looks at what Lookup promises of itself.
func checkLookup(t *testing.T, a sender.Answer, qtype uint16) {
	t.Helper()
	end := fuzzName
	for _, c := range a.Chain {
		if c != strings.ToLower(c) || c == "" || c != "." && strings.HasSuffix(strings.ReplaceAll(c, `\.`, ""), ".") {
			t.Errorf("chain %q", a.Chain)
		}
		end = c
	}
	if len(a.Chain) > 10 || a.NXDomain && len(a.RRs) > 0 || a.TTL < 0 || a.TTL > a.MaxTTL {
		t.Errorf("Lookup = %+v", a)
	}
	for _, rr := range a.RRs {
		if h := rr.Header(); h.Rrtype != qtype || h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != dns.CanonicalName(end) {
			t.Errorf("Lookup of type %d has %v at the end of %q", qtype, rr, a.Chain)
		}
	}
}

// checkSaid compares with the message itself, where no CNAME led to another question.
func checkSaid(t *testing.T, wire []byte, a sender.Answer) {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("%v, and Lookup = %+v", err, a)
	}
	if !m.Response || m.Opcode != dns.OpcodeQuery || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError ||
		len(m.Question) != 1 || dns.CanonicalName(m.Question[0].Name) != fuzzName {
		t.Errorf("answer %v was taken for one: %+v", m.MsgHdr, a)
	}
	if len(a.Chain) == 0 && a.NXDomain && m.Rcode != dns.RcodeNameError {
		t.Errorf("code %s was taken for NXDOMAIN", dns.RcodeToString[m.Rcode])
	}
}

// checkAddrs: all that is connected to is an address.
func checkAddrs(t *testing.T, found sender.Addresses) {
	t.Helper()
	if slices.ContainsFunc(found.Addrs, func(a netip.Addr) bool { return !a.IsValid() }) || found.NXDomain && len(found.Addrs) > 0 {
		t.Errorf("Addrs = %+v", found)
	}
}

// wantLine wants an error to be fit for one line of a log or terminal.
func wantLine(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	if s := err.Error(); len(s) > 4096 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("the error has %d bytes, or control characters: %.200q", len(s), s)
	}
}
