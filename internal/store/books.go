package store

import (
	"context"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// keepBooks enters into history and ids what changed from old to st.
func keepBooks(ctx context.Context, tx transaction, name policygen.Name, old, st State, now time.Time) error {
	if st.Served != old.Served {
		if err := turnPage(ctx, tx, name, st.Served, now); err != nil {
			return err
		}
	}
	if st.Intended != old.Intended && st.Intended != "" {
		if err := intend(ctx, tx, st, now); err != nil {
			return err
		}
	}
	if st.ID == old.ID || st.ID == "" {
		return nil
	}
	// An id that was intended earlier and lands late is verified too, one that is not ours is not in the table.
	return tx.last(ctx, `UPDATE ids SET verified = $1 WHERE id = $2 AND verified = 0`, micros(now), st.ID)
}

// turnPage ends the policy that was served until now, and begins text unless nothing is served any more.
func turnPage(ctx context.Context, tx transaction, name policygen.Name, text string, now time.Time) error {
	if err := tx.last(ctx, `UPDATE history SET until = $1 WHERE name = $2 AND until = 0 AND NOT by_foreign`,
		micros(now), name); err != nil {
		return err
	}
	if text == "" {
		return nil
	}
	return tx.last(ctx, `INSERT INTO history (name, text, by_foreign, since, until) VALUES ($1, $2, FALSE, $3, 0)`,
		name, text, micros(now))
}

// intend enters a new id.
func intend(ctx context.Context, tx transaction, st State, now time.Time) error {
	n, err := tx.exec(ctx,
		`INSERT INTO ids (id, record, text, intended) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`,
		st.Intended, st.Record, st.Served, micros(now))
	if err == nil && n == 0 {
		err = fmt.Errorf("id %q for record %q: %w", st.Intended, st.Record, ErrIDReused)
	}
	return err
}

// History implements [Store].
func (t *tables) History(ctx context.Context, name policygen.Name) ([]Served, error) {
	scan := func(r row) (h Served, err error) {
		err = r.Scan(&h.Text, &h.Foreign, stamp{&h.From}, stamp{&h.To})
		return h, err
	}
	return collect(ctx, t, fmt.Sprintf("read history of domain %q", name), scan,
		`SELECT text, by_foreign, since, until FROM history WHERE name = $1 ORDER BY seq`, name)
}

// AddForeign implements [Store].
func (t *tables) AddForeign(ctx context.Context, name policygen.Name, text string, now time.Time) error {
	return t.db.write(ctx, fmt.Sprintf("add foreign policy of domain %q", name), func(ctx context.Context, tx transaction) error {
		if err := tx.lock(ctx, lockForeign, string(name), false); err != nil {
			return err
		}
		n, err := tx.exec(ctx, `UPDATE history SET until = CASE WHEN until < $1 THEN $1 ELSE until END
			WHERE name = $2 AND by_foreign AND text = $3`, micros(now), name, text)
		if err != nil || n > 0 {
			return err
		}
		_, err = tx.exec(ctx, `INSERT INTO history (name, text, by_foreign, since, until) VALUES ($1, $2, TRUE, $3, $4)`,
			name, text, micros(now), micros(now))
		return err
	})
}

// IDs implements [Store].
func (t *tables) IDs(ctx context.Context, record string) ([]WrittenID, error) {
	scan := func(r row) (id WrittenID, err error) {
		err = r.Scan(&id.ID, &id.Text, stamp{&id.Intended}, stamp{&id.Verified})
		return id, err
	}
	return collect(ctx, t, fmt.Sprintf("read ids of record %q", record), scan,
		`SELECT id, text, intended, verified FROM ids WHERE record = $1 ORDER BY seq DESC`, record)
}
