package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// endedKept is for how long tokens that ended are shown.
const endedKept = 30 * 24 * time.Hour

// admitToken makes room for a token, and says why it is not to come.
func admitToken(ctx context.Context, tx transaction, k Token) error {
	if k.Maker != "" {
		var revoked int64
		err := tx.get(ctx, tx.locking(`SELECT revoked FROM tokens WHERE id = $1`, "FOR UPDATE"), []any{k.Maker}, &revoked)
		if errors.Is(err, ErrNotFound) || err == nil && revoked > 0 {
			return fmt.Errorf("the token %q that makes it is revoked: %w", k.Maker, ErrStale)
		}
		if err != nil {
			return err
		}
	}
	// What was made with one of these ended no later.
	if _, err := tx.exec(ctx, `DELETE FROM tokens WHERE tenant = $1 AND (revoked > 0 AND revoked < $2 OR expires > 0 AND expires < $2)`,
		k.Tenant, micros(k.Created.Add(-endedKept))); err != nil {
		return err
	}
	var n int
	if err := tx.get(ctx, `SELECT count(*) FROM tokens WHERE tenant = $1`, []any{k.Tenant}, &n); err != nil {
		return err
	}
	if n >= MaxTokens {
		return ErrTokens
	}
	return nil
}

// queryMade finds the tokens that were made with one, and with those, and are not revoked.
const queryMade = selectToken + ` WHERE revoked = 0 AND id IN (WITH RECURSIVE made(id) AS (
	SELECT id FROM tokens WHERE maker = $1 AND maker <> '' UNION
	SELECT t.id FROM tokens t JOIN made ON t.maker = made.id AND t.maker <> '') SELECT id FROM made) ORDER BY id`

// RevokeMade implements [Store].
func (t *tables) RevokeMade(ctx context.Context, id string, now time.Time) error {
	actor := actorOf(ctx)
	return t.db.writeSoon(ctx, fmt.Sprintf("revoke what token %q made", id), func(ctx context.Context, tx transaction) error {
		told := diary{actor: actor}
		err := tx.query(ctx, func(r row) error {
			k, err := scanToken(r)
			told.note(k.Tenant, KindTokenRevoked, k.ID, "revoked with the one that it was made with", k.shown(), nil)
			return err
		}, tx.locking(queryMade, "FOR UPDATE"), id)
		if err != nil {
			return err
		}
		for _, e := range told.events {
			if _, err := tx.exec(ctx, `UPDATE tokens SET revoked = $1 WHERE id = $2`, micros(now), e.Name); err != nil {
				return err
			}
		}
		return told.record(ctx, tx)
	})
}
