package store

import (
	"context"
	"fmt"
	"time"
)

// attached selects the domains that serve the text of the shared record of an MX set, which answers for the names that end
// in ?3. Who came from another MX set and has his record there still is not among them.
const attached = `tenant = ?1 AND mxset = ?2 AND publish = 'shared' AND detached = 0 AND served <> ''
	AND substr(record, instr(record, '.')) = ?3`

// saveShared keeps a shared record and the domains attached to it at one text.
func saveShared(ctx context.Context, tx *transaction, old State, d Domain, now time.Time) error {
	switch {
	case d.Publish == PublishWildcard && d.State.Served != old.Served:
		return turnShared(ctx, tx, d, now)
	case d.Publish == PublishShared && d.State.Detached.IsZero() && d.State.Served != "":
		return checkShared(ctx, tx, d)
	}
	return nil
}

// What turnShared has done, in this order: ?4 is the new text or the end of the old page.
const (
	queryTurnPages = `UPDATE history SET until = ?4 WHERE until = 0 AND by_foreign = 0
		AND name IN (SELECT name FROM domains WHERE ` + attached + `)`
	queryNewPages = `INSERT INTO history (name, text, by_foreign, since, until)
		SELECT name, ?4, 0, ?5, 0 FROM domains WHERE ` + attached
	queryTurnShared = `UPDATE domains SET served = ?4, version = ?5,
			promoted = iif(promoted = 0, ?6, promoted),
			due = iif(claimed <> 0, ?7, due), claimed = 0, woken = 0
		WHERE ` + attached
)

// turnShared brings a new text to all that are attached. A claim on one of them ends: what its pass has seen is old.
func turnShared(ctx context.Context, tx *transaction, d Domain, now time.Time) error {
	below := string(d.Name[1:])
	if _, err := tx.ExecContext(ctx, queryTurnPages, d.Tenant, d.MXSet, below, micros(now)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, queryNewPages, d.Tenant, d.MXSet, below, d.State.Served, micros(now)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, queryTurnShared, d.Tenant, d.MXSet, below, d.State.Served, d.Version,
		micros(d.State.Promoted), micros(now))
	return err
}

// queryShared counts the shared records of an MX set that serve a text, without looking at the domains attached.
const queryShared = `SELECT count(*) FROM domains WHERE tenant = ? AND mxset = ? AND publish = 'wildcard' AND served = ?`

// checkShared refuses a text that is no longer that of the shared record.
func checkShared(ctx context.Context, tx *transaction, d Domain) error {
	var same int
	err := tx.QueryRowContext(ctx, queryShared, d.Tenant, d.MXSet, d.State.Served).Scan(&same)
	if err == nil && same != 1 {
		err = fmt.Errorf("the shared record of MX set %q has another policy: %w", d.MXSet, ErrStale)
	}
	return err
}
