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
	// updateChanges go into one update: enough to make its cost that of the records, and far from filling it.
	updateChanges = 300
	// maxUpdate is the size of an update, in octets, that leaves room for the signature; 65535 is the end.
	maxUpdate = 60_000
)

// errSwapped is that a prerequisite did not hold: the record set is not what the server answered a moment ago.
var errSwapped = errors.New("the record changed while it was written")

// rfc2136 updates a zone at its primary. RFC 2136 makes one message atomic, and its prerequisites make it a
// compare-and-swap: "this is the whole record set" (Section 2.4.2) or "there is none" (2.4.3), then delete and add.
type rfc2136 struct {
	guard     *guard
	server    string // "ADDR:PORT"
	key       string // canonical name; empty: unsigned
	algorithm string // canonical name
	secret    string // base64
}

func newRFC2136(a config.Account, g *guard) (backend, error) {
	// The server is the operator's own. The limit only keeps a mass roll-out from filling its journal at once.
	g.limit = rate.NewLimiter(100, 100)
	g.perChange = 2.0 / updateChanges // the questions, the update
	r := &rfc2136{guard: g, server: a.Server}
	if _, _, err := net.SplitHostPort(r.server); err != nil {
		r.server = net.JoinHostPort(strings.Trim(r.server, "[]"), "53")
	}
	if a.KeyName == "" {
		return r.batches(), nil
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
	r.secret = string(a.Key)
	return r.batches(), nil
}

func (r *rfc2136) batches() *batches { return newBatches(r.guard, updateChanges, r.applyAll) }

// job is a change on its way.
type job struct {
	Change
	found []*dns.TXT // at the name
	plan  plan
	err   error // the result, when it is no longer on its way
}

// applyAll makes changes of one zone. What the questions show to be in order goes in one message. All its prerequisites
// have to hold, so a name that somebody else changes in between is looked for, and tried again without holding the others.
func (r *rfc2136) applyAll(ctx context.Context, cs []Change) []error {
	jobs := make([]*job, len(cs))
	for i, c := range cs {
		jobs[i] = &job{Change: c}
	}
	pending := jobs
	for try := range updateTries {
		pending = r.swap(ctx, r.look(ctx, pending, try > 0))
		if len(pending) == 0 {
			break
		}
		if err := sleep(ctx, rand.N(100*time.Millisecond)<<try); err != nil {
			fail(pending, err)
			pending = nil
			break
		}
	}
	fail(pending, &fault{op: opWrite, kind: KindConflict, err: fmt.Errorf("%w, %d times", errSwapped, updateTries)})
	errs := make([]error, len(cs))
	for i, j := range jobs {
		errs[i] = j.err
	}
	return errs
}

func fail(jobs []*job, err error) {
	for _, j := range jobs {
		j.err = err
	}
}

// look asks what is at the names, and returns those where there is something to write. A wildcard is answered like a
// record of the name, but is not at the name, and no prerequisite sees it: it is told apart where it would matter, or
// where a prerequisite has just failed (again).
func (r *rfc2136) look(ctx context.Context, jobs []*job, again bool) (write []*job) {
	questions := make([]*dns.Msg, len(jobs))
	for i, j := range jobs {
		questions[i] = new(dns.Msg).SetQuestion(dns.Fqdn(j.Name), dns.TypeTXT)
		questions[i].RecursionDesired = false
	}
	var doubtful []*job
	var types []*dns.Msg // whether the doubtful have records of the type
	for i, answer := range r.exchange(ctx, questions) {
		j := jobs[i]
		j.found, j.plan = nil, plan{}
		alias := r.read(j, answer)
		switch {
		case alias:
			doubtful, types = append(doubtful, j), append(types, holds(j.Change, dns.TypeCNAME))
		case len(j.found) > 0 && (again || j.err != nil):
			doubtful, types = append(doubtful, j), append(types, holds(j.Change, dns.TypeTXT))
		}
	}
	for i, answer := range r.exchange(ctx, types) {
		j := doubtful[i]
		err := answer.err
		if err == nil {
			err = updateFault(answer.msg)
		}
		if err == nil { // a wildcard's
			j.found = nil
			j.plan, j.err = j.Change.plan(nil)
		} else if !errors.Is(err, errSwapped) {
			j.err = err
		}
	}
	return slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool { return j.err != nil || j.plan.empty() })
}

// read takes from an answer what is at the name, and plans. alias says that it is a CNAME, if it is at the name.
func (r *rfc2136) read(j *job, answer reply) (alias bool) {
	if j.err = answer.err; j.err == nil {
		j.err = r.readFault(j.Change, answer.msg)
	}
	if j.err != nil {
		return false
	}
	for _, rr := range answer.msg.Answer {
		switch rr := rr.(type) {
		case *dns.DNAME:
			j.err = faultf(KindCNAME, "%q is redirected to %q by a DNAME", unfqdn(rr.Hdr.Name), unfqdn(rr.Target))
			return false
		case *dns.CNAME:
			j.err = faultf(KindCNAME, "the name is a CNAME to %q", unfqdn(rr.Target))
			return true
		case *dns.TXT:
			if unfqdn(rr.Hdr.Name) == j.Name {
				j.found = append(j.found, rr)
			}
		}
	}
	j.plan, j.err = j.Change.plan(texts(j.found))
	return false
}

// holds asks whether the name itself has records of a type, by an update that has a prerequisite and changes nothing.
func holds(c Change, qtype uint16) *dns.Msg {
	m := new(dns.Msg).SetUpdate(dns.Fqdn(c.Zone))
	m.RRsetNotUsed([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: dns.Fqdn(c.Name), Rrtype: qtype}}})
	return m
}

// swap replaces the record sets if all of them still are what was found, and returns those that are not. A message that
// is too large, or that the server does not take for the sake of some of its changes, is halved.
func (r *rfc2136) swap(ctx context.Context, jobs []*job) (changed []*job) {
	if len(jobs) == 0 {
		return nil
	}
	m := new(dns.Msg).SetUpdate(dns.Fqdn(jobs[0].Zone))
	m.Compress = true
	for _, j := range jobs {
		j.update(m)
	}
	halve := func() []*job {
		half := len(jobs) / 2
		return append(r.swap(ctx, jobs[:half]), r.swap(ctx, jobs[half:])...)
	}
	if len(jobs) > 1 && m.Len() > maxUpdate {
		return halve()
	}
	answer, err := r.one(ctx, m)
	if err == nil {
		err = updateFault(answer)
	}
	if err == nil {
		return nil
	}
	swapped := errors.Is(err, errSwapped)
	if f, ok := errors.AsType[*fault](err); len(jobs) > 1 && (swapped || ok && f.kind == KindRefused) {
		return halve()
	}
	if swapped {
		return jobs
	}
	fail(jobs, writing(err))
	return nil
}

// update adds the change to an update: that the record set is what was found, what goes and what comes.
func (j *job) update(m *dns.Msg) {
	header := dns.RR_Header{Name: dns.Fqdn(j.Name), Rrtype: dns.TypeTXT, Class: dns.ClassINET}
	// The library writes into the records it is given; the exact data of each is kept, however it is split into strings.
	for _, rr := range j.found {
		m.Used([]dns.RR{dns.Copy(rr)})
	}
	if len(j.found) == 0 {
		m.RRsetNotUsed([]dns.RR{&dns.ANY{Hdr: header}})
	}
	for _, i := range j.plan.remove {
		m.Remove([]dns.RR{dns.Copy(j.found[i])})
	}
	if j.plan.add {
		header.Ttl = uint32(j.TTL / time.Second)
		m.Insert([]dns.RR{&dns.TXT{Hdr: header, Txt: []string{j.Add}}})
	}
}
