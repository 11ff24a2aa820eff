package store

import (
	"context"
	"fmt"
	"time"
)

// JournalEntry is one order of a certificate, as it is counted against what its authority allows.
type JournalEntry struct {
	Seq       int64  // given by the store; it grows
	Changed   int64  // of the last write, of any entry; given by the store
	Authority string // name of the CA
	Name      string // of the certificate
	Domain    string // its registered domain
	Begun     time.Time
	Exempt    bool // the CA counts it against no limit
	// Tenant is whose first certificate it is for; empty: it is counted for none, as a renewal.
	Tenant string

	Ended   time.Time // zero: it runs, or who ran it is gone
	Failed  bool      // a validation failed, or may have
	Stopped time.Time // until when the CA wants no orders at all; zero: it did not say
	Reason  string    // why it refused the order itself, in the CA's words; empty: it took it, or did not answer
}

// Journal implements [Store].
func (t *tables) Journal(ctx context.Context, after int64) ([]JournalEntry, error) {
	scan := func(r row) (e JournalEntry, err error) {
		err = r.Scan(&e.Seq, &e.Changed, &e.Authority, &e.Name, &e.Domain, stamp{&e.Begun}, &e.Exempt, stamp{&e.Ended},
			&e.Failed, stamp{&e.Stopped}, &e.Reason, &e.Tenant)
		return e, err
	}
	return collect(ctx, t, "read journal", scan, `SELECT seq, changed, authority, name, domain, begun, exempt, ended, failed,
		stopped, reason, tenant FROM journal WHERE changed > $1 ORDER BY changed`, after)
}

// AppendJournal implements [Store].
func (t *tables) AppendJournal(ctx context.Context, last int64, e *JournalEntry) error {
	added := *e
	err := t.db.writeSoon(ctx, fmt.Sprintf("enter the order of %q", e.Name), func(ctx context.Context, tx transaction) error {
		v, err := tx.nextChange(ctx) // from here on nobody else appends
		if err != nil {
			return err
		}
		var others bool
		if err := tx.get(ctx, `SELECT EXISTS (SELECT 1 FROM journal WHERE seq > $1)`, []any{last}, &others); err != nil {
			return err
		}
		if others {
			return ErrStale
		}
		added.Seq, added.Changed = v, v
		return tx.last(ctx, `INSERT INTO journal (seq, changed, authority, name, domain, begun, exempt, tenant, holder)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, v, v, e.Authority, e.Name, e.Domain, micros(e.Begun), e.Exempt, e.Tenant, t.holder)
	})
	if err == nil {
		*e = added
	}
	return err
}

// EndJournal implements [Store].
func (t *tables) EndJournal(ctx context.Context, e JournalEntry) error {
	return t.db.writeSoon(ctx, fmt.Sprintf("end the order of %q", e.Name), func(ctx context.Context, tx transaction) error {
		v, err := tx.nextChange(ctx)
		if err != nil {
			return err
		}
		return tx.last(ctx, `UPDATE journal SET changed = $1, exempt = $2, ended = $3, failed = $4, stopped = $5, reason = $6
			WHERE seq = $7`, v, e.Exempt, micros(e.Ended), e.Failed, micros(e.Stopped), e.Reason, e.Seq)
	})
}

// PruneJournal implements [Store].
func (t *tables) PruneJournal(ctx context.Context, counted, exempt, now time.Time) error {
	return t.exec(ctx, "prune journal", `DELETE FROM journal
		WHERE (begun < $1 OR (exempt AND begun < $2)) AND stopped < $3 OR begun > $4`,
		micros(counted), micros(exempt), micros(now), micros(now.Add(24*time.Hour)))
}
