package publish

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// leaving says until when senders may hold policies of a domain which list an MX that the present one does not. It is what
// the plan of the change foresaw, with the times at which things happened.
func (r *Reconciler) leaving(ctx context.Context, set *settings, d store.Domain, history []store.Served) ([]PlanLeaving, error) {
	present, err := policygen.ParsePolicy([]byte(d.State.Served))
	if err != nil {
		return nil, nil // nothing is served, so nothing took the place of what was
	}
	now, ends := r.now(), make(map[string]time.Time)
	announced, settle := d.State.Zone != "" || d.State.ID != "", set.conf.Publish.Settle
	var ids []store.WrittenID
	for _, past := range history {
		p, err := policygen.ParsePolicy([]byte(past.Text))
		if err != nil || past.To.IsZero() || p.Mode == policygen.None || !announced && !past.Foreign {
			continue
		}
		lost := uncovered(p.MX, present)
		if len(lost) == 0 {
			continue
		}
		if ids == nil {
			if ids, err = r.answered(ctx, set, d); err != nil {
				return nil, err
			}
		}
		at := replaced(ids, past.To)
		if at.IsZero() {
			at = later(past.To.Add(settle), now)
		}
		// As in a plan: caches hold the old id for its TTL, and some senders what they fetched last for a settle time.
		until := at.Add(max(set.conf.Publish.TTL, d.State.OldTTL) + settle + time.Duration(p.MaxAge)*time.Second)
		for _, mx := range lost {
			ends[mx] = later(ends[mx], until)
		}
	}
	var all []PlanLeaving
	for _, mx := range slices.Sorted(maps.Keys(ends)) {
		if ends[mx].After(now) {
			all = append(all, PlanLeaving{MXSet: d.MXSet, MX: mx, Until: ends[mx].UTC()})
		}
	}
	return all, nil
}

// answered are the ids of the record that answers for a domain, newest first.
func (r *Reconciler) answered(ctx context.Context, set *settings, d store.Domain) ([]store.WrittenID, error) {
	record := RecordName(set.conf.Alias.Zone, d)
	if attached(d) {
		record = above(record)
	}
	ids, err := r.cfg.Store.IDs(ctx, record)
	if err != nil {
		return nil, fmt.Errorf("read the ids of %s: %w", record, err)
	}
	return ids, nil
}

// replaced is when the first id was verified that was made after a policy went out of service; zero: that is still to come.
func replaced(ids []store.WrittenID, ended time.Time) time.Time {
	var at time.Time
	for _, id := range ids { // newest first
		if id.Intended.Before(ended) {
			break
		}
		if !id.Verified.IsZero() {
			at = id.Verified
		}
	}
	return at
}
