package dnsupdate

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
)

const (
	// updateTries is how often a compare-and-swap is begun anew because the record set changed in between.
	updateTries = 4
	// exchangeTimeout bounds one question or update.
	exchangeTimeout = 10 * time.Second
)

// errSwapped is that a prerequisite did not hold: the record set is not what the server answered a moment ago.
var errSwapped = errors.New("the record changed while it was written")

// rfc2136 updates a zone at its primary. RFC 2136 makes one message atomic, and its prerequisites make it a
// compare-and-swap: "this is the whole record set" (Section 2.4.2) or "there is none" (2.4.3), then delete and add.
type rfc2136 struct {
	guard     *guard
	server    string            // "ADDR:PORT"
	key       string            // canonical name; empty: unsigned
	algorithm string            // canonical name
	secret    map[string]string // for the library
}

func newRFC2136(a config.Account, g *guard) (*rfc2136, error) {
	// The server is the operator's own. The limit only keeps a mass roll-out from filling its journal at once.
	g.limit = rate.NewLimiter(100, 100)
	r := &rfc2136{guard: g, server: a.Server}
	if _, _, err := net.SplitHostPort(r.server); err != nil {
		r.server = net.JoinHostPort(strings.Trim(r.server, "[]"), "53")
	}
	if a.KeyName == "" {
		return r, nil
	}
	r.key = dns.CanonicalName(a.KeyName)
	r.algorithm = dns.HmacSHA256
	if a.KeyAlgorithm != "" {
		r.algorithm = dns.CanonicalName(a.KeyAlgorithm)
	}
	known := []string{dns.HmacSHA1, dns.HmacSHA224, dns.HmacSHA256, dns.HmacSHA384, dns.HmacSHA512}
	if !slices.Contains(known, r.algorithm) {
		return nil, fmt.Errorf("key_algorithm %q: want one of hmac-sha256, hmac-sha384, hmac-sha512, hmac-sha224, hmac-sha1", a.KeyAlgorithm)
	}
	if raw, err := base64.StdEncoding.DecodeString(string(a.Key)); err != nil || len(raw) == 0 {
		return nil, errors.New("the TSIG key is not base64") // the cause would quote from it
	}
	r.secret = map[string]string{r.key: string(a.Key)}
	return r, nil
}

func (r *rfc2136) apply(ctx context.Context, c Change) error {
	for try := range updateTries {
		found, err := r.read(ctx, c)
		if err != nil {
			return err
		}
		p, err := c.plan(texts(found))
		if len(found) > 0 && (err != nil || try > 0) {
			// A wildcard is answered like a record of the name, but is not at the name, and no prerequisite sees it.
			held, herr := r.holds(ctx, c, dns.TypeTXT)
			if herr != nil {
				return herr
			}
			if !held {
				found = nil
				p, err = c.plan(nil)
			}
		}
		if err != nil || p.empty() {
			return err
		}
		if err := r.swap(ctx, c, found, p); !errors.Is(err, errSwapped) {
			return err
		}
		if err := sleep(ctx, rand.N(100*time.Millisecond)<<try); err != nil {
			return err
		}
	}
	return &fault{op: opWrite, kind: KindConflict, err: fmt.Errorf("%w, %d times", errSwapped, updateTries)}
}

// read asks the primary for the TXT records at the name.
func (r *rfc2136) read(ctx context.Context, c Change) ([]*dns.TXT, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(c.Name), dns.TypeTXT)
	m.RecursionDesired = false
	answer, err := r.exchange(ctx, m)
	if err != nil {
		return nil, err
	}
	if err := r.readFault(c, answer); err != nil {
		return nil, err
	}
	var found []*dns.TXT
	for _, rr := range answer.Answer {
		switch rr := rr.(type) {
		case *dns.DNAME:
			return nil, faultf(KindCNAME, "%q is redirected to %q by a DNAME", unfqdn(rr.Hdr.Name), unfqdn(rr.Target))
		case *dns.CNAME:
			held, err := r.holds(ctx, c, dns.TypeCNAME)
			if err != nil {
				return nil, err
			}
			if held {
				return nil, faultf(KindCNAME, "the name is a CNAME to %q", unfqdn(rr.Target))
			}
			return nil, nil // a wildcard's
		case *dns.TXT:
			if unfqdn(rr.Hdr.Name) == c.Name {
				found = append(found, rr)
			}
		}
	}
	return found, nil
}

// holds says whether the name itself has records of a type, by an update that has a prerequisite and changes nothing.
func (r *rfc2136) holds(ctx context.Context, c Change, qtype uint16) (bool, error) {
	m := new(dns.Msg).SetUpdate(dns.Fqdn(c.Zone))
	m.RRsetNotUsed([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: dns.Fqdn(c.Name), Rrtype: qtype}}})
	answer, err := r.exchange(ctx, m)
	if err != nil {
		return false, err
	}
	err = updateFault(answer)
	if errors.Is(err, errSwapped) {
		return true, nil
	}
	return false, err
}

// swap replaces the record set if it still is what was found.
func (r *rfc2136) swap(ctx context.Context, c Change, found []*dns.TXT, p plan) error {
	header := dns.RR_Header{Name: dns.Fqdn(c.Name), Rrtype: dns.TypeTXT, Class: dns.ClassINET}
	m := new(dns.Msg).SetUpdate(dns.Fqdn(c.Zone))
	// The library writes into the records it is given; the exact data of each is kept, however it is split into strings.
	for _, rr := range found {
		m.Used([]dns.RR{dns.Copy(rr)})
	}
	if len(found) == 0 {
		m.RRsetNotUsed([]dns.RR{&dns.ANY{Hdr: header}})
	}
	for _, i := range p.remove {
		m.Remove([]dns.RR{dns.Copy(found[i])})
	}
	if p.add {
		header.Ttl = uint32(c.TTL / time.Second)
		m.Insert([]dns.RR{&dns.TXT{Hdr: header, Txt: []string{c.Add}}})
	}
	answer, err := r.exchange(ctx, m)
	if err != nil {
		return writing(err)
	}
	if err := updateFault(answer); err != nil {
		return writing(err)
	}
	return nil
}

// exchange sends a message over TCP, signed, and returns the answer if its signature is right. A message that would
// change the zone is refused in a dry run.
func (r *rfc2136) exchange(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	if r.guard.dryRun && m.Opcode == dns.OpcodeUpdate && len(m.Ns) > 0 {
		return nil, faultf(KindDryRun, "%w", ErrDryRun)
	}
	if err := r.guard.permit(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	client := &dns.Client{Net: "tcp", Timeout: exchangeTimeout, TsigSecret: r.secret}
	// One connection a message: the library would let the signature of a second one depend on the first.
	conn, err := client.DialContext(ctx, r.server)
	if err != nil {
		return nil, faultf(KindUnavailable, "ask server %s: %w", r.server, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // the library looks at the deadline only
	if r.key != "" {
		m.SetTsig(r.key, r.algorithm, 300, time.Now().Unix())
	}
	answer, _, err := client.ExchangeWithConnContext(ctx, m, conn)
	if answer == nil || errors.Is(err, dns.ErrId) {
		return nil, faultf(KindUnavailable, "ask server %s: %w", r.server, err)
	}
	return answer, r.signatureFault(answer, err)
}
