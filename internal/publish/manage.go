package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// Reload reads the configuration and declares it. A broken or refused one changes nothing, and is a fault of the service
// until a good one follows. Hash is empty, or that of the [Plan] which is confirmed; see [Reconciler.Declare].
func (r *Reconciler) Reload(ctx context.Context, hash string) (ReloadReport, error) {
	conf, warnings, err := r.cfg.Load()
	if err != nil {
		r.fault("configuration", err.Error())
		return ReloadReport{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	report, err := r.Declare(ctx, conf, hash)
	report.Warnings = append(warnings, report.Warnings...)
	switch {
	case errors.Is(err, errOtherPlan): // that is no fault of the configuration
		return report, err
	case err != nil:
		r.fault("configuration", err.Error())
		return report, err
	}
	r.fault("configuration", "")
	r.cfg.Log.Info("reloaded", "added", report.Added, "changed", report.Changed, "removed", report.Removed, "restored", report.Restored,
		"forced", report.Forced, "plan", report.Plan.Lines())
	return report, nil
}

// Alias is the alias zone of the configuration in force, without it "", the TTL of its records, and its account.
func (r *Reconciler) Alias() (zone string, ttl time.Duration, account dnsupdate.Account) {
	set := r.settings.Load()
	return set.conf.Alias.Zone, set.conf.Publish.TTL, set.accounts[key{Tenant, set.conf.Alias.Account}]
}

// SetFault keeps a fault of the service as a whole that was found elsewhere, for example at start; an empty reason
// clears it.
func (r *Reconciler) SetFault(subject, reason string) { r.fault(subject, reason) }

// Faults returns the faults of the service as a whole, by subject.
func (r *Reconciler) Faults() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.faults)
}

// EachStatus calls f for every domain, without history.
func (r *Reconciler) EachStatus(ctx context.Context, f func(Status) error) error {
	set := r.settings.Load()
	return r.cfg.Store.EachDomain(ctx, func(d store.Domain) error { return f(r.status(set, d)) })
}

// Status returns one domain with its history, or store.ErrNotFound.
func (r *Reconciler) Status(ctx context.Context, name policygen.Name) (Status, error) {
	d, err := r.cfg.Store.Domain(ctx, name)
	if err != nil {
		return Status{}, fmt.Errorf("read %s: %w", name, err)
	}
	return r.whole(ctx, d)
}

// whole is the status of a domain with its history.
func (r *Reconciler) whole(ctx context.Context, d store.Domain) (Status, error) {
	set := r.settings.Load()
	s := r.status(set, d)
	history, err := r.cfg.Store.History(ctx, d.Name)
	if err != nil {
		return Status{}, fmt.Errorf("read the history of %s: %w", d.Name, err)
	}
	history = own(d, history)
	for _, h := range history {
		s.History = append(s.History, Past{Policy: h.Text, Foreign: h.Foreign, From: h.From, To: h.To})
	}
	s.Leaving, err = r.leaving(ctx, set, d, history)
	return s, err
}

// Adopt lets a domain replace somebody else's record. It is refused for a domain that is published from here, or
// leaves: a permission that stays might meet another record than the operator has seen.
func (r *Reconciler) Adopt(ctx context.Context, name policygen.Name) error {
	d, err := r.cfg.Store.Domain(ctx, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if d.State.ID != "" || !d.Removed.IsZero() {
		return fmt.Errorf("%w: %s is at step %s, where there is nothing to adopt", ErrRefused, name, d.State.Step)
	}
	return r.update(ctx, name, func(d *store.Domain) { d.Adopt = true })
}

func (r *Reconciler) status(set *settings, d store.Domain) Status {
	s := Status{
		Name: d.Name, ETag: d.ETag(), Tenant: d.Tenant, MXSet: d.MXSet, Publish: d.Publish, Account: d.Account, Owner: d.Owner,
		Step: d.State.Step, Reason: d.State.Reason, Fault: d.State.Fault, Since: d.State.Since,
		Due: d.Due, Checked: d.State.Checked, Draining: !d.Removed.IsZero(), Horizon: d.State.Horizon,
		Findings: d.State.Findings, Detached: d.State.Detached, Stage: stageOf(set, d),
		Policy: d.State.Served, ID: d.State.ID, Intended: d.State.Intended, Record: RecordName(set.conf.Alias.Zone, d),
	}
	if to := home(set.conf.Alias.Zone, d); to != "" {
		s.Record = to // where the other tenant had it is not his to know
	}
	if u := d.Name.Unicode(); u != string(d.Name) {
		s.Unicode = u
	}
	if s.Step == "" {
		s.Step, s.Reason = "new", "not looked at yet"
	}
	s.TLSRPT = reportStatus(set.conf.Alias.Zone, d)
	s.Records = Records(d, set.conf.Server.Hostname, set.conf.Alias.Zone)
	if d.Publish == store.PublishWildcard { // it is no host
		return s
	}
	c := r.cfg.Certs.Cert(d.Name.PolicyHost())
	if c.Valid {
		s.Certificate = "valid until " + c.NotAfter.UTC().Format(time.DateTime+" MST")
		if c.Problem != "" {
			s.Certificate += "; the last renewal failed: " + c.Problem
		}
	} else {
		s.Certificate = c.Reason
	}
	if c.Queue != "" {
		s.Certificate += "; " + c.Queue
	}
	s.Certificate = toTenant(d.Tenant, s.Certificate)
	return s
}

// stageOf says where a domain is in its roll-out.
func stageOf(set *settings, d store.Domain) string {
	switch _, rollout, _ := set.policy(d); {
	case !d.Removed.IsZero():
		return ""
	case d.State.Pinned:
		return "testing, by hand"
	case rollout == 0:
		return ""
	case d.State.Staged.IsZero():
		return "testing, for " + rollout.String() + " from when it is live"
	default:
		return "testing until " + d.State.Staged.Add(rollout).UTC().Format(time.DateTime+" MST")
	}
}

// Promote ends the roll-out of a domain by hand; with testing it goes back to mode testing until it is promoted by hand.
// The name of a shared record stands for all domains of its MX set. A policy that would strand mail is held all the same.
func (r *Reconciler) Promote(ctx context.Context, name policygen.Name, testing bool) error {
	d, err := r.cfg.Store.Domain(ctx, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if set, _ := r.settings.Load().mxset(d.Tenant, d.MXSet); set.Policy.Mode != policygen.Enforce || !d.Removed.IsZero() {
		return fmt.Errorf("%w: %s has no stage to leave: it is on its way out, or its MX set is not in mode enforce", ErrRefused, name)
	}
	err = r.update(ctx, name, func(d *store.Domain) {
		d.State.Pinned, d.State.Staged, d.State.Promoted = testing, time.Time{}, time.Time{}
		if !testing {
			d.State.Promoted = r.now()
		}
	})
	if err != nil || d.Publish != store.PublishWildcard {
		return err
	}
	return r.cfg.Store.EachShared(ctx, d.Tenant, d.MXSet, func(d store.Domain) error {
		if d.State.Detached.IsZero() {
			return nil // it goes with the record
		}
		return r.Wake(ctx, d.Name)
	})
}

// Expel ends the drain of a domain now. Senders that hold its last policy go on refusing what that does not cover.
func (r *Reconciler) Expel(ctx context.Context, name policygen.Name) error {
	d, err := r.cfg.Store.Domain(ctx, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	switch {
	case d.Removed.IsZero() && d.Owner == store.OwnerAPI:
		return fmt.Errorf("%w: %s is declared by the API; remove it there first", ErrRefused, name)
	case d.Removed.IsZero():
		return fmt.Errorf("%w: %s is declared in the configuration; take it out there first, and reload", ErrRefused, name)
	}
	return r.update(ctx, name, func(d *store.Domain) { d.State.Expelled = true })
}

// Retry has a domain looked at now, and its certificate ordered without the pause that failed orders are followed by.
func (r *Reconciler) Retry(ctx context.Context, name policygen.Name) error {
	if err := r.Wake(ctx, name); err != nil {
		return err
	}
	r.cfg.Certs.Retry(name.PolicyHost())
	d, err := r.cfg.Store.Domain(ctx, name)
	if err == nil {
		err = r.cfg.Store.AppendEvents(ctx, []store.Event{{
			Tenant: d.Tenant, Kind: store.KindDomainCommand, Name: string(name), Text: "it is to be looked at now",
			After: json.RawMessage(`{"command":"retry"}`),
		}})
	}
	if err != nil {
		return fmt.Errorf("keep that %s is retried: %w", name, err)
	}
	return nil
}

// noteForeign keeps the policy that somebody else serves for a domain before it is taken over: senders hold it for its
// max_age, so the horizon of a later drain counts it in.
func (r *Reconciler) noteForeign(ctx context.Context, name policygen.Name) {
	text := r.cfg.Sight.Foreign(ctx, name)
	if text == "" {
		return
	}
	if err := r.cfg.Store.AddForeign(ctx, name, text, r.now()); err != nil {
		r.cfg.Log.Error("foreign policy not kept", "domain", name, "err", err)
	}
}

// noteUnknown is for the take-over of a record whose policy was never seen: it counts as the longest there may be.
func (r *Reconciler) noteUnknown(ctx context.Context, name policygen.Name, t *TXT) error {
	history, err := r.cfg.Store.History(ctx, name)
	seen := slices.ContainsFunc(history, func(h store.Served) bool { return h.Foreign }) && !slices.ContainsFunc(t.foreign(), madeHere)
	if err == nil && !seen {
		err = r.cfg.Store.AddForeign(ctx, name, "", r.now())
	}
	if err != nil {
		return fmt.Errorf("keep the history of %s: %w", name, err)
	}
	return nil
}
