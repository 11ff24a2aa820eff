package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrSpent says that a tenant has used up what it may take in a day.
var ErrSpent = errors.New("the tenant has used up what it may take in a day")

const (
	limitPeriod = 24 * time.Hour
	// quarter is what writes to DNS are counted by. They count until a day after its end.
	quarter = 15 * time.Minute
)

// Spent is what a tenant took of its [Limits] in the last day.
type Spent struct {
	Orders int `json:"orders" doc:"first certificates that it ordered, failed orders too"`
	Writes int `json:"writes" doc:"writes to DNS that it caused, to a quarter of an hour; counted only while they are limited"`
}

// WriteQuota is how it stands with the writes to DNS of a tenant. The zero value is that of one without a limit.
type WriteQuota struct {
	Limit, Used int
	now         time.Time
	quarters    []quarterOf // oldest first
}

// quarterOf is how many writes there were in a quarter of an hour, and until when they count.
type quarterOf struct {
	until time.Time
	count int
}

// Full says that no more may be written but what must be.
func (q WriteQuota) Full() bool { return q.Limit > 0 && q.Used >= q.Limit }

// Next is when one more may be written after n others that wait, if each is as soon as it may be.
func (q WriteQuota) Next(n int) time.Time {
	if q.Limit == 0 {
		return q.now
	}
	at := q.now.Add(time.Duration(n/q.Limit) * limitPeriod) // those are to come, and to grow old
	left := q.Used + n%q.Limit + 1 - q.Limit
	for _, p := range q.quarters {
		if left <= 0 {
			break
		}
		at = p.until.Add(time.Duration(n/q.Limit) * limitPeriod)
		left -= p.count
	}
	return at
}

// quarterAt is when the quarter of a time began.
func quarterAt(t time.Time) int64 { return micros(t) - micros(t)%quarter.Microseconds() }

// counting are the first and last quarters that count at a time. What a clock counted that was ahead does not.
func counting(now time.Time) (after, last int64) {
	return micros(now.Add(-limitPeriod - quarter)), quarterAt(now.Add(quarter))
}

const queryWriteLimit = `SELECT coalesce((SELECT writes FROM tenants WHERE name = $1), 0)`

// CountWrite implements [Store].
func (t *tables) CountWrite(ctx context.Context, tenant string, must bool, now time.Time) error {
	doing := fmt.Sprintf("count a write to DNS of tenant %q", tenant)
	limit, err := one(ctx, t, doing, scanNumber, queryWriteLimit, tenant)
	if err != nil || limit == 0 {
		return err
	}
	after, last := counting(now)
	return t.db.writeSoon(ctx, doing, func(ctx context.Context, tx transaction) error {
		var limit, used int64
		err := tx.get(ctx, tx.locking(`SELECT writes FROM tenants WHERE name = $1`, "FOR UPDATE"), []any{tenant}, &limit)
		if limit == 0 && (err == nil || errors.Is(err, ErrNotFound)) { // since then
			return nil
		}
		if err == nil {
			_, err = tx.exec(ctx, `DELETE FROM dns_writes WHERE tenant = $1 AND (began <= $2 OR began > $3)`, tenant, after, last)
		}
		if err == nil {
			err = tx.get(ctx, `SELECT CAST(coalesce(sum(count), 0) AS BIGINT) FROM dns_writes WHERE tenant = $1`, []any{tenant}, &used)
		}
		if err == nil && used >= limit && !must {
			err = fmt.Errorf("%w: %d writes to DNS", ErrSpent, limit)
		}
		if err != nil {
			return err
		}
		_, err = tx.exec(ctx, `INSERT INTO dns_writes (tenant, began, count) VALUES ($1, $2, 1)
			ON CONFLICT (tenant, began) DO UPDATE SET count = dns_writes.count + 1`, tenant, quarterAt(now))
		return err
	})
}

// WriteQuota implements [Store].
func (t *tables) WriteQuota(ctx context.Context, tenant string, now time.Time) (WriteQuota, error) {
	doing := fmt.Sprintf("read the writes to DNS of tenant %q", tenant)
	limit, err := one(ctx, t, doing, scanNumber, queryWriteLimit, tenant)
	if err != nil || limit == 0 {
		return WriteQuota{}, err
	}
	after, last := counting(now)
	scan := func(r row) (q quarterOf, err error) {
		err = r.Scan(stamp{&q.until}, &q.count)
		q.until = q.until.Add(quarter + limitPeriod)
		return q, err
	}
	q := WriteQuota{Limit: int(limit), now: now}
	q.quarters, err = collect(ctx, t, doing, scan,
		`SELECT began, count FROM dns_writes WHERE tenant = $1 AND began > $2 AND began <= $3 ORDER BY began`, tenant, after, last)
	for _, p := range q.quarters {
		q.Used += p.count
	}
	return q, err
}

// CountStep implements [Store].
func (t *tables) CountStep(ctx context.Context, tenant, step, before string, most int) (int, error) {
	n, err := one(ctx, t, fmt.Sprintf("count the domains of tenant %q at a step", tenant), scanNumber,
		`SELECT count(*) FROM (SELECT 1 FROM domains WHERE tenant = $1 AND step = $2 AND name < $3 LIMIT $4 + 0) AS d`,
		tenant, step, before, most)
	return int(n), err
}

// Spent implements [Store].
func (t *tables) Spent(ctx context.Context, now time.Time) (map[string]Spent, error) {
	all := make(map[string]Spent)
	add := func(query string, to func(*Spent) *int, args ...any) error {
		return t.db.read(ctx, "read what tenants took", func(r row) error {
			var tenant string
			var n int
			if err := r.Scan(&tenant, &n); err != nil {
				return err
			}
			s := all[tenant]
			*to(&s) = n
			all[tenant] = s
			return nil
		}, query, args...)
	}
	err := add(`SELECT tenant, count(*) FROM journal WHERE tenant <> '' AND NOT exempt AND begun > $1 GROUP BY tenant`,
		func(s *Spent) *int { return &s.Orders }, micros(now.Add(-limitPeriod)))
	if err != nil {
		return nil, err
	}
	after, last := counting(now)
	err = add(`SELECT tenant, CAST(sum(count) AS BIGINT) FROM dns_writes WHERE began > $1 AND began <= $2 GROUP BY tenant`,
		func(s *Spent) *int { return &s.Writes }, after, last)
	if err != nil {
		return nil, err
	}
	return all, nil
}
