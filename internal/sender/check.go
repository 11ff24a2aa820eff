package sender

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
)

const (
	checkTimeout = 2 * time.Minute // the whole check
	parallel     = 4               // connections at a time to policy hosts, and to MX
	maxMX        = 32              // MX that are probed; no sender tries more
)

// seen is what was observed of a domain. Observing judges nothing, judging observes nothing.
type seen struct {
	name policygen.Name
	now  time.Time

	record    Answer
	recordErr error

	host       Addresses
	hostFailed *StepError // the policy host has no address, or not all of them are known
	fetches    []fetch    // one for each address, in their order

	mx     []probe
	mxErr  error
	mxLeft int // MX beyond maxMX
	nullMX bool

	tlsrpt    Answer
	tlsrptErr error
}

type fetch struct {
	Fetched
	failed *StepError
}

type probe struct {
	Probed
	host       string
	preference uint16
	implicit   bool
	failed     *StepError
}

// Check looks at all that a sender looks at, within two minutes, and says what it thinks of it. What could not be
// observed is in the report as well.
func (c *Client) Check(ctx context.Context, name policygen.Name) Report {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	s := &seen{name: name, now: time.Now()}
	var g errgroup.Group
	g.Go(func() error {
		s.record, s.recordErr = c.Resolver.Lookup(ctx, name.RecordName(), dns.TypeTXT)
		return nil
	})
	g.Go(func() error {
		s.tlsrpt, s.tlsrptErr = c.Resolver.Lookup(ctx, name.ReportName(), dns.TypeTXT)
		return nil
	})
	g.Go(func() error { c.seePolicy(ctx, s); return nil })
	g.Go(func() error { c.seeMX(ctx, s); return nil })
	_ = g.Wait()
	return judge(s)
}

// seePolicy fetches from every address: a sender may meet any of them.
func (c *Client) seePolicy(ctx context.Context, s *seen) {
	var addrs []string
	s.host, addrs, s.hostFailed = c.targets(ctx, s.name.PolicyHost(), c.httpsPort())
	s.fetches = make([]fetch, len(addrs))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, addr := range addrs {
		g.Go(func() error {
			f, err := c.FetchPolicyAt(ctx, s.name, addr)
			s.fetches[i].Fetched = f
			errors.As(err, &s.fetches[i].failed)
			return nil
		})
	}
	_ = g.Wait()
}

// seeMX probes every MX of the domain, or the domain itself where it has none (RFC 5321, Section 5.1).
func (c *Client) seeMX(ctx context.Context, s *seen) {
	answer, err := c.Resolver.Lookup(ctx, string(s.name), dns.TypeMX)
	if s.mxErr = err; err != nil {
		return
	}
	for _, rr := range answer.RRs {
		if mx, ok := rr.(*dns.MX); ok {
			host := unfqdn(dns.CanonicalName(mx.Mx))
			s.nullMX = s.nullMX || host == "."
			s.mx = append(s.mx, probe{host: host, preference: mx.Preference})
		}
	}
	if len(s.mx) == 0 {
		s.mx = []probe{{host: string(s.name), implicit: true}}
	}
	slices.SortFunc(s.mx, func(a, b probe) int {
		if a.preference != b.preference {
			return int(a.preference) - int(b.preference)
		}
		return strings.Compare(a.host, b.host)
	})
	s.mx = slices.DeleteFunc(s.mx, func(p probe) bool { return p.host == "." })
	s.mxLeft = max(0, len(s.mx)-maxMX)
	s.mx = s.mx[:len(s.mx)-s.mxLeft]
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range s.mx {
		g.Go(func() error {
			s.mx[i].Probed, s.mx[i].failed = c.probe(ctx, s.mx[i].host)
			return nil
		})
	}
	_ = g.Wait()
}

// judge turns what was observed into findings. It is pure.
func judge(s *seen) Report {
	j := &judgement{seen: s}
	j.report = Report{Name: s.name, Checked: s.now.UTC().Truncate(time.Second), MX: []MX{}, TLSRPT: []string{}}
	j.judgeRecord()
	j.judgePolicy()
	j.judgeMX()
	j.judgeTLSRPT()
	return j.report
}

// judgement is a report in the making.
type judgement struct {
	*seen
	report Report
	policy policygen.Policy // zero where none could be read
}

// say adds a finding. The advice is optional.
func (j *judgement) say(severity Severity, code, section, subject, message, advice string) {
	j.report.Findings = append(j.report.Findings, Finding{
		Code: code, Severity: severity, Section: section, Subject: subject, Message: message, Advice: advice,
	})
}

// texts joins the character-strings of each TXT record, as senders do (RFC 8461, Section 3.1).
func texts(a Answer) []string {
	out := []string{}
	for _, rr := range a.RRs {
		if txt, ok := rr.(*dns.TXT); ok {
			out = append(out, strings.Join(txt.Txt, ""))
		}
	}
	return out
}

// list is never null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
