package publish

import (
	"context"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// Quota is how a tenant's limit of writes to DNS stands to a fresh id. It is zero where there is no limit.
type Quota struct {
	Spent     bool          // no more may be written today but what must be
	Reason    string        // if so
	After     time.Duration // likewise: when it is this record's turn, at the earliest
	Announced string        // the text that State.ID stands for; empty: there is none, or nobody asked
}

// afford holds a fresh id back while the tenant may cause no more writes to DNS today. limited says that the write may be
// refused for that reason when it is made. What is needed so that senders are told nothing wrong, or nothing that makes
// them refuse mail, is written in any case.
func (p *pass) afford() (d *Decision, limited bool) {
	wanted := func(l Look) *Decision { v := look(l); return &v }
	switch o := p.o; {
	case p.w.Drain: // senders hold what is to end
		return nil, false
	case p.shares() && p.s.ID == "" && p.w.Announced: // the shared record answers for it meanwhile
		return nil, false
	case p.shares() && p.s.ID == "" && o.Delegation == nil:
		return wanted(LookDelegation), false
	case p.shares() && p.s.ID == "" && o.Delegation.Ours: // likewise
		return nil, false
	case o.Quota == nil:
		return wanted(LookQuota), false
	case o.Quota.Announced == p.s.Served: // senders may hold another text under the id
		return nil, false
	case enforced(o.Quota.Announced) && !enforced(p.s.Served): // senders may refuse mail by what they hold
		return nil, false
	case o.Quota.Spent:
		return p.wait(StepTXT, o.Quota.Reason, false, o.Quota.After), true
	}
	return nil, true
}

// maxAhead bounds how many domains are counted that wait before one.
const maxAhead = 10_000

// quota says how the limit of a domain's tenant stands to a fresh id for it.
func (r *Reconciler) quota(ctx context.Context, w Want, d store.Domain) (Quota, error) {
	now := r.now()
	q, err := r.cfg.Store.WriteQuota(ctx, d.Tenant, now)
	if err != nil || q.Limit == 0 {
		return Quota{}, err
	}
	v := Quota{Spent: q.Full()}
	if d.State.ID != "" {
		ids, err := r.cfg.Store.IDs(ctx, w.Record)
		if err != nil {
			return Quota{}, fmt.Errorf("read the ids of %s: %w", w.Record, err)
		}
		for _, id := range ids {
			if id.ID == d.State.ID {
				v.Announced = id.Text
			}
		}
	}
	if !v.Spent {
		return v, nil
	}
	ahead, err := r.cfg.Store.CountStep(ctx, d.Tenant, StepTXT, string(d.Name), maxAhead)
	if err != nil {
		return Quota{}, err
	}
	at := q.Next(ahead)
	v.After = max(at.Sub(now), time.Second)
	v.Reason = fmt.Sprintf("tenant %s has used up its %d writes to DNS in a day; the record is expected to be written at %s",
		d.Tenant, q.Limit, at.UTC().Format("2006-01-02 15:04 MST"))
	return v, nil
}

// wantCert has a certificate ordered and kept. The order of a first one is the tenant's; who is announced has had one, and
// needs it.
func (r *Reconciler) wantCert(host string, w Want, tenant string, prior *Prior) {
	if w.Announced {
		tenant = ""
	}
	r.cfg.Certs.Want(host, tenant, w.Announced || prior != nil && prior.Record)
}
