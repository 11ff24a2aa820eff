package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// attached selects the domains that serve the text of the shared record of an MX set, which answers for the names that end
// in $3. Who came from another MX set and has his record there still is not among them.
const attached = `tenant = $1 AND mxset = $2 AND publish = 'shared' AND detached = 0 AND served <> ''
	AND substr(record, length(record) - length(CAST($3 AS TEXT)) + 1) = $3`

// turned selects what queryTurnShared changed, by its version.
const turned = `tenant = $1 AND mxset = $2 AND publish = 'shared' AND version = $3`

// changeColumn is the change of a domain's text. Where a shared record brought it, the domain has the version of that turn,
// below 0, and the turn the number: so a hundred thousand domains get it at once. Of a turn that was committed while
// the statement waited the number is not seen; it is greater than all.
const changeColumn = `CASE WHEN change < 0 THEN coalesce((SELECT number FROM turns WHERE turn = -change), 9223372036854775807) ELSE change END`

// queryNumberTurn makes a turn a change.
const queryNumberTurn = `INSERT INTO turns (turn, number) VALUES ($1, $2)`

// queryPruneTurns forgets turns of which no domain has the text any more.
const queryPruneTurns = `DELETE FROM turns WHERE NOT EXISTS (SELECT 1 FROM domains WHERE change = -turn)`

// What turnShared has done, in this order: who was attached to begin with is so until the end.
const (
	queryTurnShared = `UPDATE domains SET served = $4, version = $5,
			promoted = CASE WHEN promoted = 0 THEN $6 ELSE promoted END,
			due = CASE WHEN claimed <> 0 THEN $7 ELSE due END, claimed = 0, woken = FALSE, change = -CAST($5 AS BIGINT), live = 0
		WHERE ` + attached
	queryTurnPages = `UPDATE history SET until = $4 WHERE until = 0 AND NOT by_foreign
		AND name IN (SELECT name FROM domains WHERE ` + turned + `)`
	queryNewPages = `INSERT INTO history (name, text, by_foreign, since, until)
		SELECT name, served, FALSE, CAST($4 AS BIGINT), 0 FROM domains WHERE ` + turned + ` AND served <> ''`
)

// turnShared brings a new text to all that are attached; it is no change before queryNumberTurn. A claim on one of them ends: what
// its pass has seen is old.
func turnShared(ctx context.Context, tx transaction, d Domain, now time.Time) error {
	if _, err := tx.exec(ctx, queryTurnShared, d.Tenant, d.MXSet, string(d.Name[1:]), d.State.Served, d.Version,
		micros(d.State.Promoted), micros(now)); err != nil {
		return err
	}
	for _, query := range []string{queryTurnPages, queryNewPages} {
		if _, err := tx.exec(ctx, query, d.Tenant, d.MXSet, d.Version, micros(now)); err != nil {
			return err
		}
	}
	return nil
}

// queryShared finds the shared records of an MX set that serve a text, without looking at the domains attached.
const queryShared = `SELECT name FROM domains WHERE tenant = $1 AND mxset = $2 AND publish = 'wildcard' AND served = $3`

// errTurning says that a shared record is being written, maybe with all its domains. An attached one waits for that.
var errTurning = errors.New("the shared record is being changed")

// checkShared says in stale that the text of an attached domain is not that of the shared record. If it is, it stays so
// until the transaction is over: the record is saved when no domain attached to it is, and the other way round. A lock of
// the record's row would do that too, but Claim passes over rows that are locked.
func checkShared(ctx context.Context, tx transaction, d Domain) (stale, err error) {
	group := d.Tenant + "/" + d.MXSet
	if d.Publish == PublishWildcard {
		return nil, tx.lock(ctx, lockAttached, group, false)
	}
	if d.Publish != PublishShared || !d.State.Detached.IsZero() || d.State.Served == "" {
		return nil, nil
	}
	switch free, err := tx.tryLock(ctx, lockAttached, group); {
	case err != nil:
		return nil, err
	case !free:
		return nil, errTurning
	}
	same := 0
	err = tx.query(ctx, func(row) error {
		same++
		return nil
	}, queryShared, d.Tenant, d.MXSet, d.State.Served)
	if err == nil && same != 1 {
		stale = fmt.Errorf("the shared record of MX set %q has another policy: %w", d.MXSet, ErrStale)
	}
	return stale, err
}
