package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// TLSRPT is what an operator is told of a domain's TLSRPT record.
type TLSRPT struct {
	Record   string    `json:"record"`            // owner name of the TXT record
	Text     string    `json:"text,omitempty"`    // as it is wanted; empty: it is to go
	Verified time.Time `json:"verified,omitzero"` // last seen at every authoritative server
	Problem  string    `json:"problem,omitempty"` // why it is not as it is wanted, or of no use yet
}

// keepReport brings the TLSRPT record of a domain nearer to what is wanted of it, and says when to look again; zero: with
// the domain. What goes wrong with the record is kept in State.Report, so that an error is one of the store. The caller
// saves the domain.
func (r *Reconciler) keepReport(ctx context.Context, set *settings, d *store.Domain) (time.Duration, error) {
	before, w := d.State.Report, wantReport(set.conf.Alias.Zone, *d)
	now := r.now()
	switch {
	case w.Text == "" && before.Text == "":
		d.State.Report = store.Report{}
		return 0, nil
	case !d.Removed.IsZero() && d.State.Zone != "" && d.State.Deleted.IsZero():
		return 0, nil // it drains: what is there stays until the record of MTA-STS is gone
	case w.Text != "" && current(before, w.Text) && now.Sub(before.Verified) < set.conf.Check.Every/2:
		return 0, nil
	case w.Text == "":
		_, w.Hold = r.holds(ctx)
	}
	dec := nextReport(w, before, r.lookAtReport(ctx, d.Name, w, before), now)
	if err := ctx.Err(); err != nil {
		return 0, err // what was not looked at in time is no finding
	}
	d.State.Report = dec.State
	if dec.Write {
		if err := r.save(ctx, d); err != nil {
			return 0, err
		}
		// What stood there as it is wanted is put back in any case, and so is taken away what is to go.
		must := dec.Add == "" || !before.Verified.IsZero()
		if err := r.writeReport(ctx, set, *d, dec, must); err != nil {
			d.State.Report.Problem = r.refusal(set, d, err)
			dec.After = reportRefused(&d.State.Report, before, err)
		}
	}
	return dec.After, nil
}

// wantReport puts together what is desired of a domain's TLSRPT record. One that may have been written keeps its place, but
// where another tenant had it: there it goes, and then comes anew.
func wantReport(aliasZone string, d store.Domain) reportWant {
	w := reportWant{Record: reportRecord(aliasZone, d), Owner: d.Name.ReportName(), Text: d.TLSRPT, Manual: d.Publish == store.PublishManual}
	w.Alias = w.Record != w.Owner
	if !d.Removed.IsZero() || abroad(aliasZone, d, w.Record) {
		w.Text = ""
	}
	return w
}

// reportRecord is the owner name of a domain's TLSRPT record.
func reportRecord(aliasZone string, d store.Domain) string {
	switch {
	case d.State.Report.Text != "":
		return d.State.Report.Record
	case d.Publish == store.PublishAlias, d.Publish == store.PublishShared:
		return d.Name.Label() + ".t." + d.Tenant + "." + aliasZone
	}
	return d.Name.ReportName()
}

// current says that the record was found right, and is wanted as it was then.
func current(s store.Report, text string) bool {
	values := reportValues(s.Text)
	return s.Problem == "" && !s.Verified.IsZero() && len(values) > 0 && values[len(values)-1] == text
}

func (r *Reconciler) lookAtReport(ctx context.Context, name policygen.Name, w reportWant, s store.Report) reportSeen {
	o := reportSeen{TXT: r.cfg.Sight.Report(ctx, w.Record)}
	written := reportValues(s.Text)
	o.TXT.Ours = slices.DeleteFunc(o.TXT.sts(), func(v string) bool { return !slices.Contains(written, v) })
	if w.Alias && w.Text != "" {
		o.Delegation = r.cfg.Sight.ReportDelegation(ctx, name, w.Record)
	}
	return o
}

// writeReport does what was decided at the account that holds the record.
func (r *Reconciler) writeReport(ctx context.Context, set *settings, d store.Domain, dec reportDecision, must bool) error {
	account, ok := set.account(d)
	if !ok {
		return fmt.Errorf("write the TLSRPT record of %s: account %q is not configured; put it back", d.Name, d.Account)
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	if err := r.cfg.Store.CountWrite(ctx, d.Tenant, must, r.now()); err != nil {
		return err
	}
	s := d.State.Report
	err := account.Apply(ctx, dnsupdate.Change{Zone: s.Zone, Name: s.Record, TTL: set.conf.Publish.TTL, Remove: dec.Remove, Add: dec.Add})
	if err != nil {
		return err
	}
	r.cfg.Log.Info("wrote tlsrpt record", "domain", d.Name, "record", s.Record, "add", dec.Add, "remove", dec.Remove)
	return nil
}

// reportRefused keeps why a write did not succeed, and says when to look again. Whether it landed all the same is seen
// then.
func reportRefused(s *store.Report, before store.Report, err error) time.Duration {
	after := min(rewriteAfter<<min(s.Failures-1, 10), writeRetryCap)
	var failed *dnsupdate.Error
	switch {
	case errors.Is(err, store.ErrSpent):
		s.Wrote, s.Text, s.Zone = before.Wrote, before.Text, before.Zone
		return dnsRetryCap
	case !errors.As(err, &failed):
		return 0
	}
	if failed.Op == "read" || needsHuman(failed.Kind) {
		// Nothing was written: whoever mends it need not wait, and if nothing was before, the domain is free to be published
		// in another way.
		s.Wrote, s.Text, s.Zone = before.Wrote, before.Text, before.Zone
		after = reportPause(s.Failures)
	}
	if needsHuman(failed.Kind) || s.Failures > 20 {
		return 0
	}
	return min(max(after, failed.RetryAfter), dnsRetryCap)
}

// reportFirst is the rest of a domain that is to be forgotten when its TLSRPT record is gone.
func reportFirst(d store.Domain, now time.Time) Decision {
	p := pass{s: d.State, now: now}
	reason := "the TLSRPT record at " + d.State.Report.Record + " goes first"
	if d.State.Report.Problem != "" {
		reason += ": " + d.State.Report.Problem
	}
	return *p.wait(StepDrain, reason, p.s.Step == StepDrain && now.Sub(p.s.Since) > 24*time.Hour, 0)
}

// reportStatus is nil where no record is wanted and none of ours is left.
func reportStatus(aliasZone string, d store.Domain) *TLSRPT {
	s := d.State.Report
	if d.TLSRPT == "" && s.Text == "" {
		return nil
	}
	if abroad(aliasZone, d, s.Record) {
		s, d.State.Report = store.Report{}, store.Report{}
	}
	w := wantReport(aliasZone, d)
	return &TLSRPT{Record: w.Record, Text: w.Text, Verified: s.Verified, Problem: s.Problem}
}

// reportLines are what the customer of a domain puts into DNS for TLSRPT, as zone-file lines.
func reportLines(d store.Domain, aliasZone string) []string {
	if abroad(aliasZone, d, d.State.Report.Record) {
		d.State.Report = store.Report{}
	}
	w := wantReport(aliasZone, d)
	switch {
	case d.TLSRPT == "":
		return nil
	case w.Alias:
		return []string{fmt.Sprintf("%s. 300 IN CNAME %s.", w.Owner, w.Record)}
	case w.Manual:
		return []string{fmt.Sprintf("%s. 300 IN TXT %q", w.Owner, d.TLSRPT)}
	}
	return []string{fmt.Sprintf("; %s. TXT is written by stspub", w.Owner)}
}

// Report implements [Sight].
func (o *Outside) Report(ctx context.Context, record string) TXT {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	v, err := o.Observer.Observe(ctx, record, dns.TypeTXT)
	if err != nil {
		return TXT{Servers: []Server{{Name: record, Err: err.Error()}}}
	}
	t := TXT{Zone: v.Zone}
	for _, a := range v.Answers {
		s := Server{Name: a.Server, CNAME: a.CNAME, TTL: a.TTL}
		if a.Err != nil {
			s.Err = a.Err.Error()
		} else {
			s.STS = slices.DeleteFunc(slices.Clone(a.TXT), func(v string) bool { return !policygen.IsTLSRPTv1(v) })
			s.Others = len(a.TXT) - len(s.STS)
		}
		t.Servers = append(t.Servers, s)
	}
	return t
}

// ReportDelegation implements [Sight].
func (o *Outside) ReportDelegation(ctx context.Context, name policygen.Name, record string) Delegation {
	return o.delegation(ctx, name.ReportName(), record, policygen.IsTLSRPTv1)
}
