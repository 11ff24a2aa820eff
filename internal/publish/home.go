package publish

import (
	"context"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// ownRecord is the owner name of a domain's record where it is declared now.
func ownRecord(aliasZone string, d store.Domain) string {
	switch d.Publish {
	case store.PublishAlias:
		return d.Name.Label() + ".d." + d.Tenant + "." + aliasZone
	case store.PublishShared:
		return d.Name.Label() + "." + d.MXSet + ".s." + d.Tenant + "." + aliasZone
	case store.PublishWildcard:
		return string(d.Name)
	}
	return d.Name.RecordName()
}

// home is the owner name of the record that a domain is to have, while its own stands where the domain had it with another
// tenant; else it is empty. A domain that leaves stays where it is.
func home(aliasZone string, d store.Domain) string {
	if d.State.Zone == "" || !abroad(aliasZone, d, d.State.Record) {
		return ""
	}
	return ownRecord(aliasZone, d)
}

// abroad says that a record lies in another tenant's part of the alias zone, and the domain's own is to lie in its own.
func abroad(aliasZone string, d store.Domain, record string) bool {
	return d.Removed.IsZero() && (d.Publish == store.PublishAlias || d.Publish == store.PublishShared) &&
		strings.HasSuffix(record, "."+aliasZone) && !strings.HasSuffix(record, "."+d.Tenant+"."+aliasZone)
}

// delegation says where the customer's _mta-sts leads. Where the domain came from another tenant, he is told of the record
// that it is to have alone.
func (r *Reconciler) delegation(ctx context.Context, w Want) Delegation {
	if w.Home == "" {
		return r.cfg.Sight.Delegation(ctx, w.Name, w.Record)
	}
	v := r.cfg.Sight.Delegation(ctx, w.Name, w.Home)
	v.Home = v.Ours
	v.Ours = v.Ours || r.cfg.Sight.Delegation(ctx, w.Name, w.Record).Ours
	return v
}

// comeHome is for a domain whose record stands where another tenant had it. There it is published until the customer's
// CNAME leads to its own. Then nobody asks for the old one, which goes, and a fresh id begins at the new.
func (p *pass) comeHome() *Decision {
	var d Decision
	switch {
	case p.w.Home == "":
		return nil
	case p.o.Delegation == nil:
		d = look(LookDelegation)
		return &d
	case !p.o.Delegation.Home:
		return nil
	case p.o.TXT == nil:
		d = look(LookTXT)
		return &d
	case len(p.o.TXT.Ours) == 0 && p.o.TXT.complete():
		p.s.Record, p.s.Dirty, p.s.Fresh = p.w.Home, true, false
		p.s.ID, p.s.Intended, p.s.Wrote = "", "", time.Time{}
		if p.shares() {
			p.s.Detached = p.apart()
		}
		return p.wait(StepBody, "its CNAME leads to "+p.w.Home+" now; its record goes there", false, time.Second)
	case len(p.o.TXT.Ours) == 0,
		!p.s.Wrote.IsZero() && p.now.Sub(p.s.Wrote) < rewriteAfter && !p.now.Before(p.s.Wrote):
		return p.wait(StepTXT, "its record moves to "+p.w.Home+"; not every name server says yet that the one before is gone", false, 0)
	}
	p.s.Wrote, p.s.OldTTL = p.now, max(p.s.OldTTL, p.o.TXT.ttl())
	return &Decision{State: p.s, Do: DoDelete, Remove: p.o.TXT.Ours}
}

// own are the policies that a domain was served since its tenant has it.
func own(d store.Domain, history []store.Served) []store.Served {
	for i, h := range history {
		if !h.From.Before(d.Added) {
			return history[i:]
		}
	}
	return nil
}
