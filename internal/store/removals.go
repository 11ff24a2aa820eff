package store

import (
	"context"
	"fmt"
	"time"
)

// RemovalPeriod is for how long the removals of a tenant count together: a mistake may come in many requests.
const RemovalPeriod = time.Hour

// MassRemovalError says that a tenant would remove so many domains that it looks like a mistake.
type MassRemovalError struct {
	Removed int // within [RemovalPeriod], those that would be included
	Owned   int // domains that the tenant had
}

// Error says how many, and that RemovalPeriod is an hour.
func (e *MassRemovalError) Error() string {
	return fmt.Sprintf("%d of %d domains would be removed within an hour", e.Removed, e.Owned)
}

// countRemovals counts what a batch removes for its tenant, or returns a [*MassRemovalError]. The lock of what domains there
// are has the batches of all nodes come here one after the other.
func (w *batchWriter) countRemovals(ctx context.Context, outcomes []DomainOutcome, now time.Time) error {
	removed := 0
	for _, o := range outcomes {
		if o.Result == ResultRemoved {
			removed++
		}
	}
	if removed == 0 || w.b.TooMany == nil {
		return nil
	}
	tenant, minute := w.b.tenant(), now.Truncate(time.Minute)
	after, last := micros(minute.Add(-RemovalPeriod)), micros(minute.Add(time.Minute)) // what a clock counted that was ahead does not count
	if _, err := w.tx.exec(ctx, `DELETE FROM removals WHERE tenant = $1 AND (began <= $2 OR began > $3)`, tenant, after, last); err != nil {
		return err
	}
	var before, owned int
	if err := w.tx.get(ctx, `SELECT CAST(coalesce(sum(count), 0) AS BIGINT), coalesce(max(owned), 0) FROM removals WHERE tenant = $1`,
		[]any{tenant}, &before, &owned); err != nil {
		return err
	}
	if w.b.DryRun { // the batches before are not counted there
		before += w.b.Removed
	} else {
		before = max(before, w.b.Removed)
	}
	all := before + removed
	if w.b.TooMany(all, owned) { // counting takes longer the more there are, so it is done when it may matter
		if err := w.tx.get(ctx, queryCountDomains, []any{tenant, w.b.Owner}, &owned); err != nil {
			return err
		}
		if owned += all; w.b.TooMany(all, owned) {
			return &MassRemovalError{all, owned}
		}
	}
	_, err := w.tx.exec(ctx, `INSERT INTO removals (tenant, began, count, owned) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, began) DO UPDATE SET count = removals.count + excluded.count, owned = excluded.owned`,
		tenant, micros(minute), removed, owned)
	return err
}
