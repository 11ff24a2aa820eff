package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// resumeWebhook has a webhook wait for nothing any more.
func resumeWebhook(ctx context.Context, tx transaction, w Webhook) error {
	now, err := tx.now(ctx)
	if err != nil {
		return err
	}
	w.Delivery.atOnce(fromMicros(now))
	return saveDelivery(ctx, tx, w)
}

// atOnce has everything tried now.
func (d *Delivery) atOnce(now time.Time) {
	d.Failures, d.Paused, d.Due, d.Rest = 0, false, time.Time{}, time.Time{}
	for i := range d.Held {
		d.Held[i].Due, d.Due = now, now
	}
}

func saveDelivery(ctx context.Context, tx transaction, w Webhook) error {
	d, held := w.Delivery, ""
	if len(d.Held) > 0 {
		text, err := json.Marshal(d.Held)
		if err != nil {
			return err
		}
		held = string(text)
	}
	_, err := tx.exec(ctx, `UPDATE webhooks SET reached = $1, held = $2, since = $3, problem = $4, failures = $5, lost = $6,
		delivered = $7, paused = $8, due = $9, rest = $10 WHERE tenant = $11 AND name = $12`,
		d.Reached, held, micros(d.Since), storableText(d.Problem), d.Failures, d.Lost, micros(d.Delivered), d.Paused, micros(d.Due),
		micros(d.Rest), w.Tenant, w.Name)
	return err
}

// queryClaimWebhooks asks an index of events, once for each webhook.
const queryClaimWebhooks = `SELECT ` + webhookColumns + ` FROM webhooks AS w
	WHERE NOT paused AND leased <= $1 AND (due > 0 AND due <= $1 OR rest <= $1 AND (
		w.tenant = '' AND EXISTS (SELECT 1 FROM events AS e WHERE e.seq > w.reached)
		OR w.tenant <> '' AND EXISTS (SELECT 1 FROM events AS e WHERE e.tenant = w.tenant AND e.seq > w.reached)))
	ORDER BY leased LIMIT $2 + 0`

// ClaimWebhooks implements [Store].
func (t *tables) ClaimWebhooks(ctx context.Context, lease time.Duration, n int) ([]Webhook, time.Time, error) {
	var claimed []Webhook
	var now time.Time
	err := t.db.writeSoon(ctx, "take webhooks that are due", func(ctx context.Context, tx transaction) error {
		claimed = claimed[:0]
		at, err := tx.now(ctx)
		if err != nil {
			return err
		}
		now = fromMicros(at)
		if err := tx.query(ctx, func(r row) error {
			w, err := t.scanWebhook(r)
			claimed = append(claimed, w)
			return err
		}, tx.locking(queryClaimWebhooks, "FOR UPDATE OF w SKIP LOCKED"), at, max(n, 0)); err != nil {
			return err
		}
		return tx.execMany(ctx, `UPDATE webhooks SET holder = $1, leased = $2 WHERE tenant = $3 AND name = $4`, len(claimed),
			func(i int) []any {
				return []any{t.holder, micros(now.Add(lease)), claimed[i].Tenant, claimed[i].Name}
			})
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return claimed, now, nil
}

// SaveWebhook implements [Store].
func (t *tables) SaveWebhook(ctx context.Context, w Webhook, lease time.Duration) error {
	doing := fmt.Sprintf("save the deliveries of webhook %q", w.Name)
	other := false
	err := t.db.writeSoon(ctx, doing, func(ctx context.Context, tx transaction) error {
		other = false
		at, err := tx.now(ctx)
		if err != nil {
			return err
		}
		var version, leased int64
		var holder string
		switch err := tx.get(ctx, tx.locking(`SELECT version, holder, leased FROM webhooks WHERE tenant = $1 AND name = $2`, "FOR UPDATE"),
			[]any{w.Tenant, w.Name}, &version, &holder, &leased); {
		case errors.Is(err, ErrNotFound):
			return ErrStale
		case err != nil:
			return err
		case holder != t.holder || leased < at:
			return ErrStale
		}
		w, until := w, at+lease.Microseconds() // f may be called again
		if other = version != w.Version; other {
			w.Delivery.Held = slices.Clone(w.Delivery.Held)
			w.Delivery.atOnce(fromMicros(at))
		}
		if other || lease == 0 {
			until = 0
		}
		if err := saveDelivery(ctx, tx, w); err != nil {
			return err
		}
		_, err = tx.exec(ctx, `UPDATE webhooks SET leased = $1 WHERE tenant = $2 AND name = $3`, until, w.Tenant, w.Name)
		return err
	})
	if err == nil && other {
		err = said(doing, ErrStale)
	}
	return err
}
