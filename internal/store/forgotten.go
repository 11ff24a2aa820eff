package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Forgotten are events that PruneEvents forgot before a webhook took them.
type Forgotten struct {
	Tenant, Name string // of the webhook
	Events       int
}

// queryPruneEvents returns what it forgets.
const queryPruneEvents = `DELETE FROM events WHERE seq IN (SELECT seq FROM events ORDER BY seq LIMIT $1 + 0) AND at < $2
	RETURNING seq, tenant, kind, name`

// queryLateWebhooks finds those that have not taken all events up to one.
const queryLateWebhooks = `SELECT tenant, name, kinds, reached, held FROM webhooks WHERE reached < $1 OR held <> ''`

// PruneEvents implements [Store].
func (t *tables) PruneEvents(ctx context.Context, before time.Time, n int, kinds []string) (int, []Forgotten, error) {
	var gone []Event
	var lost []Forgotten
	err := t.db.writeSoon(ctx, "forget old events", func(ctx context.Context, tx transaction) error {
		gone, lost = nil, nil
		last := int64(0)
		if err := tx.query(ctx, func(r row) error {
			var e Event
			err := r.Scan(&e.Seq, &e.Tenant, &e.Kind, &e.Name)
			gone, last = append(gone, e), max(last, e.Seq)
			return err
		}, queryPruneEvents, max(n, 0), micros(before)); err != nil || len(gone) == 0 {
			return err
		}
		if err := tx.query(ctx, func(r row) error {
			w, err := scanLate(r)
			if missed := w.misses(gone, kinds); missed > 0 {
				lost = append(lost, Forgotten{w.Tenant, w.Name, missed})
			}
			return err
		}, queryLateWebhooks, last); err != nil {
			return err
		}
		return tx.execMany(ctx, `UPDATE webhooks SET forgotten = forgotten + $1 WHERE tenant = $2 AND name = $3`, len(lost), func(i int) []any {
			return []any{lost[i].Events, lost[i].Tenant, lost[i].Name}
		})
	})
	if err != nil {
		return 0, nil, err
	}
	return len(gone), lost, nil
}

// scanLate reads how far a webhook is.
func scanLate(r row) (w Webhook, err error) {
	var kinds, held string
	if err := r.Scan(&w.Tenant, &w.Name, &kinds, &w.Delivery.Reached, &held); err != nil {
		return w, err
	}
	w.Kinds = strings.Fields(kinds)
	if held != "" {
		if err := json.Unmarshal([]byte(held), &w.Delivery.Held); err != nil {
			return w, fmt.Errorf("held events of webhook %q: %w", w.Name, err)
		}
	}
	return w, nil
}

// misses counts which of some events a webhook has still to be told of. Kinds are those of one that does not choose.
func (w Webhook) misses(events []Event, kinds []string) int {
	if len(w.Kinds) > 0 {
		kinds = w.Kinds
	}
	n := 0
	for _, e := range events {
		waits := e.Seq > w.Delivery.Reached || slices.ContainsFunc(w.Delivery.Held, func(h HeldEvent) bool {
			return h.Tenant == e.Tenant && h.Name == e.Name && h.Seq <= e.Seq
		})
		if waits && (w.Tenant == "" || w.Tenant == e.Tenant) && slices.Contains(kinds, e.Kind) {
			n++
		}
	}
	return n
}
