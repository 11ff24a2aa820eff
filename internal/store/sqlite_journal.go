package store

import (
	"context"
	"fmt"
	"time"
)

// queryAbandon ends the orders of a process that is gone, for the lock is ours. Nobody knows how they went.
const queryAbandon = `UPDATE journal SET ended = begun, failed = 1 WHERE ended = 0`

// Journal implements [Store].
func (s *SQLite) Journal(ctx context.Context, after int64) ([]JournalEntry, error) {
	scan := func(r row) (e JournalEntry, err error) {
		err = r.Scan(&e.Seq, &e.Changed, &e.Authority, &e.Name, &e.Domain, stamp{&e.Begun}, &e.Exempt, stamp{&e.Ended},
			&e.Failed, stamp{&e.Stopped}, &e.Reason)
		return e, err
	}
	return collect(ctx, s, "read journal", scan, `SELECT seq, changed, authority, name, domain, begun, exempt, ended, failed,
		stopped, reason FROM journal WHERE changed > ? ORDER BY changed`, after)
}

// AppendJournal implements [Store].
func (s *SQLite) AppendJournal(ctx context.Context, last int64, e *JournalEntry) error {
	added := *e
	err := s.group.write(ctx, fmt.Sprintf("enter the order of %q", e.Name), func(ctx context.Context, tx *transaction) error {
		var others bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM journal WHERE seq > ?)`, last).Scan(&others); err != nil {
			return err
		}
		if others {
			return ErrStale
		}
		v, err := nextVersion(ctx, tx)
		if err != nil {
			return err
		}
		added.Seq, added.Changed = v, v
		_, err = tx.ExecContext(ctx, `INSERT INTO journal (seq, changed, authority, name, domain, begun, exempt)
			VALUES (?, ?, ?, ?, ?, ?, ?)`, v, v, e.Authority, e.Name, e.Domain, micros(e.Begun), e.Exempt)
		return err
	})
	if err == nil {
		*e = added
	}
	return err
}

// EndJournal implements [Store].
func (s *SQLite) EndJournal(ctx context.Context, e JournalEntry) error {
	return s.group.write(ctx, fmt.Sprintf("end the order of %q", e.Name), func(ctx context.Context, tx *transaction) error {
		v, err := nextVersion(ctx, tx)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE journal SET changed = ?, exempt = ?, ended = ?, failed = ?, stopped = ?, reason = ?
			WHERE seq = ?`, v, e.Exempt, micros(e.Ended), e.Failed, micros(e.Stopped), e.Reason, e.Seq)
		return err
	})
}

// PruneJournal implements [Store].
func (s *SQLite) PruneJournal(ctx context.Context, counted, exempt, now time.Time) error {
	return s.exec(ctx, "prune journal", `DELETE FROM journal WHERE (begun < ? OR (exempt AND begun < ?)) AND stopped < ?`,
		micros(counted), micros(exempt), micros(now))
}
