package publish

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// The TLSRPT record of a domain (RFC 8460, Section 3) is kept beside its MTA-STS record, by the same account and in the
// same way to publish. It is simpler: no policy has to be served before, so it is written as soon as it is wanted, and a
// record that is wrong for a while costs reports and no mail. So nothing here holds MTA-STS up, and what goes wrong is a
// finding beside the domain's step. What stays is: exactly one record at every moment, and never a hand on somebody else's.

// reportWant is what is desired of a domain's TLSRPT record.
type reportWant struct {
	Record string // owner name of the TXT record
	Owner  string // _smtp._tls.<domain>; with Alias the customer's CNAME to Record
	Text   string // content of the record; empty: none is wanted
	Alias  bool   // Record lies in our alias zone
	Manual bool   // the customer writes the record
	Hold   string // why nothing may be deleted; empty: it may
}

// reportSeen is what was looked at. TXT.Servers have TLSRPTv1 values in place of STSv1 ones, and TXT.Ours are those of
// them that stand in store.Report.Text.
type reportSeen struct {
	TXT        TXT
	Delegation Delegation // with Alias
}

// reportDecision says what to commit, and with Write what to do then: Add comes and Remove goes, in one step.
type reportDecision struct {
	State  store.Report
	Write  bool
	Add    string
	Remove []string
	After  time.Duration // look again then; zero: with the domain
}

// nextReport decides what is next for a TLSRPT record. It is pure and level-triggered, as [Next] is. What it never does:
//   - remove a value that is not in State.Text, to which every value is committed before it is written;
//   - write where another TLSRPTv1 record stands, or add without removing what it replaces.
func nextReport(w reportWant, s store.Report, o reportSeen, now time.Time) reportDecision {
	p := reportPass{w: w, s: s, t: &o.TXT, now: now}
	if w.Text == "" {
		return p.leave()
	}
	p.s.Record = w.Record
	foreign := p.t.foreign()
	switch {
	case w.Manual:
		return p.watch()
	case p.t.answered() == 0:
		return p.wait(p.t.lag(w.Text))
	case p.t.all(w.Text): // also if somebody else wrote just that: then it is not ours to delete
		p.s.Verified = now
		if w.Alias && !o.Delegation.Ours {
			return p.find(o.Delegation.Reason)
		}
		p.s.Problem, p.s.Failures = "", 0
		return reportDecision{State: p.s}
	case len(foreign) > 0:
		p.s.Verified = time.Time{}
		beside := ""
		if len(p.t.Ours) > 0 {
			beside = " beside ours, so senders ignore both"
		}
		return p.find(fmt.Sprintf("somebody else's TLSRPT record stands at %s%s: %q; it is not touched: delete it, or leave tlsrpt out",
			w.Record, beside, foreign[0]))
	case !slices.ContainsFunc(p.t.Servers, func(s Server) bool { return s.Err == "" && !slices.Equal(s.STS, []string{w.Text}) }):
		return p.wait(p.t.lag(w.Text)) // a server does not answer
	}
	return p.write()
}

// reportPass is one call of nextReport. s is the state as it is to be committed.
type reportPass struct {
	w   reportWant
	s   store.Report
	t   *TXT
	now time.Time
}

// find ends the look with what only a human can mend; it is looked at again with the domain.
func (p *reportPass) find(problem string) reportDecision {
	p.s.Problem = problem
	p.s.Failures++
	return reportDecision{State: p.s}
}

// wait ends the look with what passes by itself.
func (p *reportPass) wait(problem string) reportDecision {
	d := p.find(problem)
	d.After = reportPause(d.State.Failures)
	return d
}

// reportPause grows, until a record is looked at no more often than its domain.
func reportPause(failures int) time.Duration {
	if failures > 20 {
		return 0
	}
	return pause(StepTXT, failures)
}

// write asks for the record to be written, at most once in rewriteAfter: name servers lag behind.
func (p *reportPass) write() reportDecision {
	p.s.Verified = time.Time{}
	if p.recent() { // an account that refused it has said why
		return p.wait(cmp.Or(p.s.Problem, p.t.lag(p.w.Text)))
	}
	p.s.Zone, p.s.Wrote = p.t.Zone, p.now
	p.s.Text = withValue(p.s.Text, p.w.Text)
	p.s.Problem = p.t.lag(p.w.Text)
	p.s.Failures++
	return reportDecision{
		State: p.s, Write: true, Add: p.w.Text,
		Remove: slices.DeleteFunc(slices.Clone(p.t.Ours), func(v string) bool { return v == p.w.Text }),
		After:  pause(StepVerify, p.s.Failures),
	}
}

// recent says that what was written a moment ago may still be on its way.
func (p *reportPass) recent() bool {
	return !p.s.Wrote.IsZero() && p.now.Sub(p.s.Wrote) < rewriteAfter && !p.now.Before(p.s.Wrote)
}

// watch is for a record that the customer writes.
func (p *reportPass) watch() reportDecision {
	if p.t.all(p.w.Text) {
		p.s.Verified, p.s.Problem, p.s.Failures = p.now, "", 0
		return reportDecision{State: p.s}
	}
	p.s.Verified = time.Time{}
	last := "no such record"
	switch {
	case !p.t.complete():
		last = p.t.lag(p.w.Text)
	case !p.t.absent():
		last = fmt.Sprintf("%q", p.t.sts())
	}
	return p.find(fmt.Sprintf("waiting for: %s TXT %q, last seen %s", p.w.Record, p.w.Text, last))
}

// leave deletes what was written from here, and then forgets it.
func (p *reportPass) leave() reportDecision {
	switch {
	case p.s.Text == "":
		return reportDecision{}
	case len(p.t.Ours) > 0 && p.w.Hold != "":
		return p.find("the TLSRPT record is to be deleted; " + p.w.Hold)
	case len(p.t.Ours) > 0 && !p.recent():
		p.s.Wrote, p.s.Verified = p.now, time.Time{}
		p.s.Problem = "the TLSRPT record at " + p.s.Record + " is deleted; not every name server says so yet"
		p.s.Failures++
		return reportDecision{State: p.s, Write: true, Remove: p.t.Ours, After: pause(StepVerify, p.s.Failures)}
	case len(p.t.Ours) > 0, !p.t.complete():
		return p.wait("the TLSRPT record is to be deleted; " + p.t.lag(""))
	case p.recent(): // a write may still land
		d := p.wait("the TLSRPT record at " + p.s.Record + " is deleted")
		d.After = rewriteAfter
		return d
	}
	return reportDecision{}
}

// maxReportValues is how many values are remembered as ours: the last one, and those that a late answer of a provider or a
// restored zone may bring back.
const maxReportValues = 8

// reportValues are the values that were ever committed for writing and may stand somewhere.
func reportValues(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(v string) bool { return v == "" })
}

// withValue makes a value the last one. There is no line end in a value: it consists of URIs.
func withValue(text, value string) string {
	all := slices.DeleteFunc(reportValues(text), func(v string) bool { return v == value })
	all = append(all[max(0, len(all)-maxReportValues+1):], value)
	return strings.Join(all, "\n")
}
