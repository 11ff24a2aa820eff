package publish

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// drainMaxAge is the max_age of the policy with mode none. RFC 8461, Section 8.3: small.
const drainMaxAge = 24 * time.Hour

// behindTime is until when this process will have heard what another has changed.
const behindTime = 2 * time.Second

// maxDecisions bounds one pass. The longest way, from a first sight to live, takes fewer than twenty.
const maxDecisions = 40

// pass makes a pass for one domain with the settings of this moment.
func (r *Reconciler) pass(ctx context.Context, d store.Domain) error {
	set := r.settings.Load()
	behind, err := r.behind(ctx, set, d)
	if err != nil {
		return err
	}
	if behind {
		d.Due = r.now().Add(behindTime)
		return cmp.Or(r.cfg.Store.Save(ctx, &d, r.now()), r.RefreshOwned(ctx))
	}
	return r.passWith(ctx, set, d)
}

// passWith looks, decides and acts for one domain until there is something to wait for.
func (r *Reconciler) passWith(ctx context.Context, set *settings, d store.Domain) error {
	w, err := r.want(ctx, set, d)
	if err != nil {
		return err
	}
	if d.State.Dirty || d.State.Served == "" {
		r.open(d.Name)
	}
	found := d.State.Findings
	var seen Seen
	for range maxDecisions {
		now := r.now()
		if w.FreshID, err = freshID(now); err != nil {
			return err
		}
		dec := Next(w, d.State, seen, now)
		switch {
		case dec.Look != 0:
			if w, err = r.lookFor(ctx, set, dec.Look, w, &d, &seen); err != nil {
				return err
			}
			continue
		case dec.Wait:
			return r.rest(ctx, set, w, &d, dec)
		case dec.Do == DoForget:
			if w.HoldStart, w.HoldEnd = r.holds(ctx); w.HoldEnd != "" {
				continue // since this pass began
			}
			if d.State.Report.Text != "" && !d.State.Expelled {
				return r.rest(ctx, set, w, &d, reportFirst(d, now))
			}
			return r.forget(ctx, d)
		}
		if dec.Do == DoDelete && w.HoldEnd == "" {
			if w.HoldStart, w.HoldEnd = r.holds(ctx); w.HoldEnd != "" {
				continue // since this pass began
			}
		}
		dec.State.Findings = found // until this pass rests
		before := d.State
		if seen.TXT != nil && before.ID == "" && dec.State.Intended != before.Intended && len(seen.TXT.foreign()) > 0 {
			if err := r.noteUnknown(ctx, d.Name, seen.TXT); err != nil {
				return err
			}
		}
		d.State = dec.State
		if err := r.save(ctx, &d); err != nil {
			return err
		}
		r.intended(d)
		if dec.Why != "" && !before.Dirty {
			r.open(d.Name)
			r.tell(d.Name, StepTXT, brief(dec.Why))
			r.cfg.Log.Warn("record drifted", "domain", d.Name, "reason", brief(dec.Why))
		}
		r.tellCommit(w, before, d.State)
		if w.Wildcard && d.State.ID != before.ID {
			if err := r.wakeDetached(ctx, d); err != nil {
				return err
			}
		}
		w.Announced, w.Stale = w.Announced || d.State.Zone != "", r.stale(d)
		switch dec.Do {
		case DoServe:
			if err := r.serve(ctx, d); err != nil {
				return err
			}
			seen.Body = nil
		case DoWrite, DoDelete:
			if err := r.write(ctx, set, d, seen.TXT.Zone, dec); err != nil {
				return r.refused(ctx, set, &d, dec, before.Zone == "", err)
			}
			seen.TXT = nil
		}
	}
	return fmt.Errorf("publish %s: no rest after %d decisions; this is a bug", d.Name, maxDecisions)
}

// want puts together what is desired of a domain.
func (r *Reconciler) want(ctx context.Context, set *settings, d store.Domain) (Want, error) {
	w := Want{
		Name: d.Name, Drain: !d.Removed.IsZero(), Adopt: d.Adopt, Alias: d.Publish == store.PublishAlias,
		Manual: d.Publish == store.PublishManual, Wildcard: d.Publish == store.PublishWildcard,
		Record: RecordName(set.conf.Alias.Zone, d), Home: home(set.conf.Alias.Zone, d),
		Settle: set.conf.Publish.Settle, TTL: set.conf.Publish.TTL,
	}
	w.Announced = d.State.Zone != "" || d.State.ID != ""
	w.Stale, w.Unseen = r.stale(d), r.uncompared(d.Name)
	var history []store.Served
	if !w.Announced || d.State.Fresh || w.Drain { // else it makes no difference
		var err error
		if history, err = r.historyOf(ctx, w, d); err != nil {
			return w, err
		}
		w.Restored = slices.ContainsFunc(history, func(h store.Served) bool { return h.Text == "" })
		w.Announced = w.Announced || w.Restored
	}
	if w.Wildcard || d.Publish == store.PublishShared {
		if err := r.wantShared(ctx, set, d, &w); err != nil {
			return w, err
		}
	}
	if !w.Drain {
		policy, rollout, ok := set.policy(d)
		if !ok { // the domain was declared a moment ago, and the settings follow
			return w, fmt.Errorf("publish %s: MX set %q is not known: %w", d.Name, d.MXSet, store.ErrStale)
		}
		w.Policy, w.Rollout = policy.Text(), rollout
		if w.Shared != nil && !w.Wildcard {
			w.follow(d.State, policy)
		}
		return w, nil
	}
	w.Policy = drainPolicy(d)
	w.HoldStart, w.HoldEnd = r.holds(ctx)
	w.MaxAge = largestMaxAge(history)
	return w, nil
}

// follow has a domain go with the shared record of its MX set where its own stage does not say otherwise.
func (w *Want) follow(s store.State, policy policygen.Policy) {
	switch {
	case w.Shared.Pinned && policy.Mode == policygen.Enforce:
		policy.Mode = policygen.Testing
		w.Policy, w.Rollout = policy.Text(), 0
	case s.Served != "" && s.Detached.IsZero() && w.Shared.Home && !s.Pinned && s.Promoted.IsZero():
		w.Policy = w.Shared.Next
	}
}

// RecordName is the owner name of a domain's record. One that may have been written keeps its place.
func RecordName(aliasZone string, d store.Domain) string {
	if d.State.Zone != "" {
		return d.State.Record
	}
	return ownRecord(aliasZone, d)
}

// drainPolicy is the last policy with mode none. Its mx lines stay: a sender that is widely used refuses a policy
// without.
func drainPolicy(d store.Domain) string {
	p, err := policygen.ParsePolicy([]byte(d.State.Served))
	if err != nil || len(p.MX) == 0 {
		p.MX = []string{string(d.Name)}
	}
	return policygen.Policy{Mode: policygen.None, MaxAge: int(drainMaxAge.Seconds()), MX: p.MX}.Text()
}

// largestMaxAge is for how long some sender may hold a policy that asks for anything. A policy that is not known, or
// does not parse, counts as the longest that RFC 8461, Section 3.2 allows.
func largestMaxAge(history []store.Served) time.Duration {
	largest := 0
	for _, h := range history {
		p, err := policygen.ParsePolicy([]byte(h.Text))
		if err != nil {
			p = policygen.Policy{MaxAge: policygen.MaxAgeLimit}
		}
		if p.Mode != policygen.None {
			largest = max(largest, p.MaxAge)
		}
	}
	return time.Duration(largest) * time.Second
}

// look fills the part of seen that a decision asked for.
func (r *Reconciler) look(ctx context.Context, l Look, w Want, d *store.Domain, target string, seen *Seen) error {
	if w.Wildcard && l != LookTXT {
		return r.lookShared(ctx, l, w, d, seen)
	}
	host := w.Name.PolicyHost()
	switch l {
	case LookPrior:
		v := r.cfg.Sight.Prior(ctx, w.Name)
		seen.Prior = &v
	case LookHost:
		v := r.cfg.Sight.Host(ctx, w.Name, target)
		seen.Host = &v
		if !v.Ours {
			r.liveFor(d, false)
		}
		switch {
		case v.Ours:
			r.wantCert(host, w, d.Tenant, seen.Prior)
			r.tell(w.Name, StepDNS, host+" points here")
		case v.Proven:
			r.cfg.Certs.Unwant(host)
			if !w.Announced {
				r.noteForeign(ctx, w.Name)
			}
		}
	case LookCert:
		v := r.cfg.Certs.Cert(host)
		seen.Cert = &v
		if v.Valid {
			r.tell(w.Name, StepCert, "certificate for "+host+" is served")
		} else {
			r.liveFor(d, false)
		}
	case LookBody:
		// Whoever committed another text since will serve it, or have the next pass find that it is not.
		if page, ok := r.cfg.Snapshot.Policy(host); !ok || page.Text != d.State.Served {
			if err := r.serveStored(ctx, d); err != nil {
				return err
			}
		}
		v, err := r.bodyOf(ctx, d, func() (Body, error) { return r.cfg.Sight.Body(ctx, w.Name, d.State.Served), nil })
		if err != nil {
			return err
		}
		seen.Body = &v
		if v.Live {
			r.tell(w.Name, StepBody, "the policy is live, seen at the node and by its public name")
		}
	case LookTXT:
		v := r.cfg.Sight.TXT(ctx, w.Record)
		if err := r.tellApart(ctx, w, *d, &v); err != nil {
			return err
		}
		seen.TXT = &v
		if d.State.Intended != "" && !w.Stale && v.all(policygen.RecordText(d.State.Intended)) {
			r.tell(w.Name, StepVerify, "every authoritative server answers id "+d.State.Intended)
		}
		r.compared(ctx, *d, &v)
	case LookMX:
		v := r.cfg.Sight.MX(ctx, w.Name, w.Policy)
		seen.MX = &v
	case LookReady:
		v := r.cfg.Sight.Ready(ctx, w.Name, promoted(w.Policy))
		seen.Ready = &v
	case LookQuota:
		v, err := r.quota(ctx, w, *d)
		if err != nil {
			return err
		}
		seen.Quota = &v
	case LookDelegation:
		v := r.delegation(ctx, w)
		seen.Delegation = &v
		if v.Ours {
			r.tell(w.Name, StepDelegation, w.Name.RecordName()+" leads to the record")
		}
	}
	return nil
}

// tellApart notes which of the values seen at a record are ours, and which the shared record makes up.
func (r *Reconciler) tellApart(ctx context.Context, w Want, d store.Domain, v *TXT) error {
	var own []string // known without a look at the books
	for _, id := range []string{d.State.ID, d.State.Intended} {
		if id != "" && d.State.Record == w.Record {
			own = append(own, policygen.RecordText(id))
		}
	}
	v.Ours = v.sts()
	known := !slices.ContainsFunc(v.Ours, func(value string) bool { return !slices.Contains(own, value) })
	if w.Shared != nil && !w.Wildcard {
		if err := r.splitShared(ctx, d, v, known); err != nil {
			return err
		}
	}
	if known {
		return nil
	}
	ids, err := r.cfg.Store.IDs(ctx, w.Record)
	if err != nil {
		return fmt.Errorf("read the ids of %s: %w", w.Record, err)
	}
	v.Ours = ours(v.sts(), ids)
	return nil
}

// ours returns those of the values that were intended here.
func ours(values []string, ids []store.WrittenID) []string {
	return slices.DeleteFunc(values, func(v string) bool {
		return !slices.ContainsFunc(ids, func(w store.WrittenID) bool { return v == policygen.RecordText(w.ID) })
	})
}

// rest commits the end of a pass, and when the next one is.
func (r *Reconciler) rest(ctx context.Context, set *settings, w Want, d *store.Domain, dec Decision) error {
	before := d.State
	d.State = dec.State
	every := set.conf.Check.Every
	if d.Publish == store.PublishWildcard || r.since(dec.State.Since) < closely {
		every = min(every, hourly)
	}
	after := dec.After
	switch {
	case d.State.Step == StepLive && after > 0: // it is promoted
	case d.State.Step == StepLive && !d.State.Dirty, d.State.Step == StepAway:
		d.State.Failures = 0
		after = time.Duration(float64(every) * (0.9 + 0.2*rand.Float64())) // spread
	case after == 0:
		d.State.Failures++
		after = pause(d.State.Step, d.State.Failures)
		if d.State.Failures > 20 { // who has waited for a day is looked at by the hour
			after = max(after, r.since(d.State.Since)/24)
		}
		after = min(after, every)
	default:
		after = min(after, max(every, dnsRetryCap))
	}
	if left := r.until(d.State.Horizon); w.Drain && left > 0 {
		after = min(after, left)
	}
	report, err := r.keepReport(ctx, set, d)
	if err != nil {
		return err
	}
	if report > 0 {
		after = min(after, report)
	}
	if problem := d.State.Report.Problem; problem != "" && report == 0 { // else it may pass by itself
		d.State.Findings = append(d.State.Findings, store.Finding{Code: "tlsrpt", Since: r.now(), Text: problem})
	}
	d.State.Findings = r.found(d.Name, before.Findings, d.State.Findings)
	d.Due = r.now().Add(after)
	if err := r.save(ctx, d); err != nil {
		return err
	}
	r.poke() // it may be due before what the dispatcher sleeps for
	r.tellRest(d.Name, before, d.State)
	return nil
}

const (
	writeRetryCap = 15 * time.Minute // between writes that fail
	writeFault    = time.Hour        // when writes that fail become a fault
	dnsRetryCap   = time.Hour        // what a provider's Retry-After may ask for
	closely       = 24 * time.Hour   // how long after a change a domain is looked at as often as a shared record
	hourly        = time.Hour        // which is so often
)

// pause grows from a second, so that what is quick is seen quickly, to what a step is worth asking for.
func pause(step string, failures int) time.Duration {
	longest := 5 * time.Minute
	switch step {
	case StepBody, StepVerify:
		longest = 30 * time.Second
	case StepCert, StepTXT:
		longest = 5 * time.Minute
	case StepDNS, StepDelegation, StepMX, StepAdopt:
		longest = 15 * time.Minute
	}
	return min(time.Second<<min(failures-1, 20), longest)
}

func (r *Reconciler) save(ctx context.Context, d *store.Domain) error {
	r.hide(d)
	if err := r.cfg.Store.Save(ctx, d, r.now()); err != nil {
		return fmt.Errorf("keep the state of %s: %w", d.Name, err)
	}
	return nil
}

// forget ends a domain: nothing of it is served, and its key is deleted.
func (r *Reconciler) forget(ctx context.Context, d store.Domain) error {
	if err := r.cfg.Certs.Drop(ctx, d.Name.PolicyHost()); err != nil {
		return fmt.Errorf("delete the certificate of %s: %w", d.Name, err)
	}
	if err := r.cfg.Store.Delete(ctx, d); err != nil {
		return fmt.Errorf("forget %s: %w", d.Name, err)
	}
	if err := r.serveStored(ctx, &d); err != nil {
		return err
	}
	r.open(d.Name)
	r.tell(d.Name, "gone", "the domain is forgotten")
	r.mu.Lock()
	r.untrack(d.Name)
	r.start.done(d.Name)
	r.mu.Unlock()
	r.cfg.Log.Info("forgot domain", "domain", d.Name)
	return nil
}

// found keeps since when something is wrong, and says once in the log that it is, and that it is not any more.
func (r *Reconciler) found(name policygen.Name, before, now []store.Finding) []store.Finding {
	has := func(all []store.Finding, code string) int {
		return slices.IndexFunc(all, func(f store.Finding) bool { return f.Code == code })
	}
	for i := range now {
		f := &now[i]
		if j := has(before, f.Code); j >= 0 {
			f.Since = before[j].Since
			continue
		}
		level := slog.LevelInfo
		if f.Fault {
			level = slog.LevelWarn
		}
		r.cfg.Log.Log(context.Background(), level, "found", "domain", name, "code", f.Code, "text", f.Text)
	}
	for _, f := range before {
		if has(now, f.Code) < 0 {
			r.cfg.Log.Info("gone", "domain", name, "code", f.Code, "since", f.Since)
		}
	}
	return now
}
