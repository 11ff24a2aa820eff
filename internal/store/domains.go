package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// domainColumns are what scanDomain reads, in its order.
const domainColumns = `name, tenant, mxset, publish, account, owner, adopt, tlsrpt, added, removed, due, version,
	served, dirty, record, zone, id, intended, wrote, fresh, settle, handover, old_ttl, horizon, deleted, away,
	forced, detached, staged, promoted, pinned, expelled, findings, step, reason, since, fault, failures, checked,
	report_record, report_zone, report_text, report_wrote, report_verified, report_problem, report_failures, tainted, live,
	` + changeColumn

func scanDomain(r row) (Domain, error) {
	var d Domain
	var handover, oldTTL int64
	var findings string
	st, rp := &d.State, &d.State.Report
	err := r.Scan(&d.Name, &d.Tenant, &d.MXSet, &d.Publish, &d.Account, &d.Owner, &d.Adopt, &d.TLSRPT,
		stamp{&d.Added}, stamp{&d.Removed}, stamp{&d.Due}, &d.Version,
		&st.Served, &st.Dirty, &st.Record, &st.Zone, &st.ID, &st.Intended, stamp{&st.Wrote}, &st.Fresh,
		stamp{&st.Settle}, &handover, &oldTTL, stamp{&st.Horizon}, stamp{&st.Deleted}, stamp{&st.Away}, &st.Forced,
		stamp{&st.Detached}, stamp{&st.Staged}, stamp{&st.Promoted}, &st.Pinned, &st.Expelled, &findings,
		&st.Step, &st.Reason, stamp{&st.Since}, &st.Fault, &st.Failures, stamp{&st.Checked},
		&rp.Record, &rp.Zone, &rp.Text, stamp{&rp.Wrote}, stamp{&rp.Verified}, &rp.Problem, &rp.Failures,
		&st.Tainted, stamp{&st.Live}, &d.Change)
	st.Handover = time.Duration(handover) * time.Microsecond
	st.OldTTL = time.Duration(oldTTL) * time.Microsecond
	if err == nil && findings != "" {
		err = json.Unmarshal([]byte(findings), &st.Findings)
	}
	return d, err
}

// queryDomain finds one domain, which may be a shared record.
const queryDomain = `SELECT ` + domainColumns + ` FROM domains WHERE name = $1`

// Domain implements [Store].
func (t *tables) Domain(ctx context.Context, name policygen.Name) (Domain, error) {
	return one(ctx, t, fmt.Sprintf("read domain %q", name), scanDomain, queryDomain, name)
}

// EachDomain implements [Store].
func (t *tables) EachDomain(ctx context.Context, f func(Domain) error) error {
	return stream(ctx, t, "read domains", scanDomain, f, `SELECT `+domainColumns+` FROM domains ORDER BY name`)
}

// EachServed implements [Store].
func (t *tables) EachServed(ctx context.Context, f func(name, text []byte) error) error {
	type served struct{ name, text sql.RawBytes }
	scan := func(r row) (d served, err error) {
		err = r.Scan(&d.name, &d.text)
		return d, err
	}
	return stream(ctx, t, "read what domains are served", scan, func(d served) error { return f(d.name, d.text) },
		`SELECT name, served FROM domains WHERE served <> '' AND publish <> '`+PublishWildcard+`'`)
}

// queryEachShared finds the domains of one MX set.
const queryEachShared = `SELECT ` + domainColumns + ` FROM domains
	WHERE tenant = $1 AND mxset = $2 AND publish = 'shared' ORDER BY name`

// EachShared implements [Store].
func (t *tables) EachShared(ctx context.Context, tenant, mxset string, f func(Domain) error) error {
	return stream(ctx, t, "read the domains of a shared record", scanDomain, f, queryEachShared, tenant, mxset)
}

// queryClaim finds the most overdue domains in the order of the index domains_due, without sorting. SQLite looks at a bare
// LIMIT ? when it plans, and so would prepare the query again at each use.
const queryClaim = `SELECT ` + domainColumns + ` FROM domains WHERE due <= $1 AND ` + notThese + ` ORDER BY due, name LIMIT $2 + 0`

// queryClaimShared finds the shared records among them. There are few.
const queryClaimShared = `SELECT ` + domainColumns + ` FROM domains WHERE publish = 'wildcard' AND due <= $1 AND ` + notThese + ` ORDER BY due, name LIMIT $2 + 0`

// notThese leaves out the tenants that the third argument lists, as listed has them.
const notThese = `CAST($3 AS TEXT) NOT LIKE '%,' || tenant || ',%'`

// listed are the names of tenants as an argument.
func listed(tenants []string) string { return "," + strings.Join(tenants, ",") + "," }

// Claim implements [Store].
func (t *tables) Claim(ctx context.Context, now time.Time, lease time.Duration, n int, but ...string) ([]Domain, error) {
	if n <= 0 {
		return nil, nil
	}
	var claimed []Domain
	err := t.db.writeSoon(ctx, "claim domains", func(ctx context.Context, tx transaction) error {
		claimed = nil
		for _, query := range []string{queryClaimShared, queryClaim} {
			found, err := overdue(ctx, tx, query, now, n-len(claimed), but)
			if err == nil && len(found) > 0 {
				err = t.lend(ctx, tx, found, now, now.Add(lease))
			}
			if err != nil {
				return err
			}
			claimed = append(claimed, found...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

func overdue(ctx context.Context, tx transaction, query string, now time.Time, n int, but []string) ([]Domain, error) {
	var found []Domain
	err := tx.query(ctx, func(r row) error {
		d, err := scanDomain(r)
		found = append(found, d)
		return err
	}, tx.locking(query, "FOR UPDATE SKIP LOCKED"), micros(now), n, listed(but))
	return found, err
}

// lend marks domains as claimed until end. The new version shuts out an earlier claimer whose lease ran out.
func (t *tables) lend(ctx context.Context, tx transaction, domains []Domain, now, end time.Time) error {
	version, err := tx.nextVersion(ctx)
	if err != nil {
		return err
	}
	return tx.execMany(ctx, `UPDATE domains SET due = $1, claimed = $2, holder = $3, woken = FALSE, version = $4 WHERE name = $5`,
		len(domains), func(i int) []any {
			d := &domains[i]
			d.Due, d.Version = fromMicros(micros(end)), version
			return []any{micros(end), micros(now), t.holder, version, d.Name}
		})
}

const queryNextDue = `SELECT due FROM domains ORDER BY due LIMIT 1`

// queryNextDueBut looks at all that are due before, of the tenants that it leaves out.
const queryNextDueBut = `SELECT due FROM domains WHERE CAST($1 AS TEXT) NOT LIKE '%,' || tenant || ',%' ORDER BY due LIMIT 1`

// NextDue implements [Store].
func (t *tables) NextDue(ctx context.Context, but ...string) (time.Time, error) {
	scan := func(r row) (due time.Time, err error) {
		err = r.Scan(stamp{&due})
		return due, err
	}
	if len(but) > 0 {
		return one(ctx, t, "read when a domain is due", scan, queryNextDueBut, listed(but))
	}
	return one(ctx, t, "read when a domain is due", scan, queryNextDue)
}

// queryWake makes domains due that are not.
const queryWake = `UPDATE domains SET due = CASE WHEN claimed = 0 THEN $1 ELSE due END, woken = (claimed <> 0) WHERE due > $1`

// Wake implements [Store].
func (t *tables) Wake(ctx context.Context, name policygen.Name, now time.Time) error {
	if name == "" {
		return t.db.write(ctx, "wake all domains", func(ctx context.Context, tx transaction) error {
			_, err := tx.exec(ctx, queryWake, micros(now))
			return err
		})
	}
	return t.db.writeSoon(ctx, fmt.Sprintf("wake domain %q", name), func(ctx context.Context, tx transaction) error {
		var there int
		if err := tx.get(ctx, `SELECT 1 FROM domains WHERE name = $1`, []any{name}, &there); err != nil {
			return err
		}
		_, err := tx.exec(ctx, queryWake+` AND name = $2`, micros(now), name)
		return err
	})
}

// WakeTainted implements [Store].
func (t *tables) WakeTainted(ctx context.Context, now time.Time) error {
	return t.db.write(ctx, "wake tainted domains", func(ctx context.Context, tx transaction) error {
		_, err := tx.exec(ctx, queryWake+` AND tainted`, micros(now))
		return err
	})
}

// queryWakeFaulty wakes those of one account, whose name is not empty.
const queryWakeFaulty = queryWake + ` AND tenant = $2 AND account = $3 AND account <> '' AND fault = TRUE`

// WakeFaulty implements [Store].
func (t *tables) WakeFaulty(ctx context.Context, tenant, account string, now time.Time) error {
	return t.db.write(ctx, fmt.Sprintf("wake the faulty domains of account %q", account), func(ctx context.Context, tx transaction) error {
		_, err := tx.exec(ctx, queryWakeFaulty, micros(now), tenant, account)
		return err
	})
}

// Save implements [Store].
func (t *tables) Save(ctx context.Context, d *Domain, now time.Time) error {
	var saved Domain
	actor := actorOf(ctx)
	write := t.db.writeSoon
	if d.Publish == PublishWildcard {
		write = t.db.write // the text of a hundred thousand domains may change with it
	}
	err := write(ctx, fmt.Sprintf("save domain %q", d.Name), func(ctx context.Context, tx transaction) error {
		saved = *d
		stale, err := checkShared(ctx, tx, saved)
		if err != nil {
			return err
		}
		old, err := latest(ctx, tx, saved)
		if err = cmp.Or(err, stale); err != nil {
			return err
		}
		if saved.Version, err = tx.nextVersion(ctx); err != nil {
			return err
		}
		old.plan = old.plan.after(micros(saved.Due), micros(now))
		saved.Due = fromMicros(old.plan.due)
		if err := keepBooks(ctx, tx, saved.Name, old.state, saved.State, now); err != nil {
			return err
		}
		saved.Change = old.change
		change := any(old.change)
		if saved.State.Served != old.state.Served {
			if change, err = turn(ctx, tx, &saved, now); err != nil {
				return err
			}
		}
		if err := saveState(ctx, tx, saved, old, change); err != nil {
			return err
		}
		told := diary{actor: actor, at: now}
		if err := told.saved(old, saved); err != nil {
			return err
		}
		return told.record(ctx, tx)
	})
	if err != nil {
		return err
	}
	d.Version, d.Due, d.Change = saved.Version, saved.Due, saved.Change
	return nil
}

// turn numbers the change of what a domain is served. With a shared record it is that of all its domains, which are
// written before: who needs a number waits for the end of the transaction.
func turn(ctx context.Context, tx transaction, d *Domain, now time.Time) (change any, err error) {
	if d.Publish != PublishWildcard {
		return tx.changeLast(ctx, &d.Change)
	}
	if err := turnShared(ctx, tx, *d, now); err != nil {
		return nil, err
	}
	if d.Change, err = tx.nextChange(ctx); err != nil {
		return nil, err
	}
	_, err = tx.exec(ctx, queryNumberTurn, d.Version, d.Change)
	return d.Change, err
}

// plan is when a domain is looked at next, in microseconds.
type plan struct {
	due     int64
	claimed int64 // 0: it is not
	woken   bool
}

// after returns the plan when a claimer or somebody else saves due. The claim lasts while due stays the end of the
// lease, so a claimer saves as often as it needs to; a wake that came meanwhile is kept for its end.
func (p plan) after(due, now int64) plan {
	switch {
	case p.claimed != 0 && p.due == due:
		return p
	case p.woken:
		return plan{due: min(due, now)}
	}
	return plan{due: due}
}

// stored is what the table holds of a domain that is about to be written.
type stored struct {
	state State // only what books and events are kept of, and Fault
	plan  plan

	adopt    bool
	findings string // as they are stored
	// change is that of the last write that changed what the domain is served.
	change int64
}

// latest returns what is stored, if d is its latest version.
func latest(ctx context.Context, tx transaction, d Domain) (stored, error) {
	var old stored
	var version int64
	err := tx.get(ctx, tx.locking(`SELECT version, served, id, intended, step, fault, due, claimed, woken, `+changeColumn+`,
		adopt, findings, promoted, pinned, expelled, forced FROM domains WHERE name = $1`, "FOR UPDATE"), []any{d.Name},
		&version, &old.state.Served, &old.state.ID, &old.state.Intended, &old.state.Step, &old.state.Fault,
		&old.plan.due, &old.plan.claimed, &old.plan.woken, &old.change,
		&old.adopt, &old.findings, stamp{&old.state.Promoted}, &old.state.Pinned, &old.state.Expelled, &old.state.Forced)
	if errors.Is(err, ErrNotFound) {
		return stored{}, fmt.Errorf("%w: %w", ErrStale, ErrNotFound)
	}
	if err == nil && version != d.Version {
		err = ErrStale
	}
	return old, err
}

// What saveState does, without Step and Fault, and with them: those have indexes, and mostly stay.
const (
	querySave = `UPDATE domains SET
			adopt = $1, due = $2, claimed = $3, woken = $4, version = $5,
			served = $6, dirty = $7, record = $8, zone = $9, id = $10, intended = $11, wrote = $12, fresh = $13,
			settle = $14, handover = $15, old_ttl = $16, horizon = $17, deleted = $18, away = $19, forced = $20,
			detached = $21, staged = $22, promoted = $23, pinned = $24, expelled = $25, findings = $26,
			reason = $27, since = $28, failures = $29, checked = $30,
			report_record = $31, report_zone = $32, report_text = $33, report_wrote = $34, report_verified = $35, report_problem = $36,
			report_failures = $37, change = coalesce(CAST($38 AS BIGINT), (SELECT last FROM versions)), tainted = $39, live = $40`
	querySaveState = querySave + ` WHERE name = $41`
	querySaveStep  = querySave + `, step = $42, fault = $43 WHERE name = $41`
)

// saveState writes what Save may write, with the commit.
func saveState(ctx context.Context, tx transaction, d Domain, old stored, change any) error {
	st, rp := d.State, d.State.Report
	findings, err := findingsText(st.Findings)
	if err != nil {
		return err
	}
	query, args := querySaveState, []any{
		d.Adopt, old.plan.due, old.plan.claimed, old.plan.woken, d.Version,
		st.Served, st.Dirty, st.Record, st.Zone, st.ID, st.Intended, micros(st.Wrote), st.Fresh,
		micros(st.Settle), st.Handover.Microseconds(), st.OldTTL.Microseconds(), micros(st.Horizon), micros(st.Deleted), micros(st.Away), st.Forced,
		micros(st.Detached), micros(st.Staged), micros(st.Promoted), st.Pinned, st.Expelled, findings,
		st.Reason, micros(st.Since), st.Failures, micros(st.Checked),
		rp.Record, rp.Zone, rp.Text, micros(rp.Wrote), micros(rp.Verified), rp.Problem, rp.Failures,
		change, st.Tainted, micros(st.Live), d.Name,
	}
	if old.state.Step != st.Step || old.state.Fault != st.Fault {
		query, args = querySaveStep, append(args, st.Step, st.Fault)
	}
	return tx.last(ctx, query, args...)
}

// Delete implements [Store].
func (t *tables) Delete(ctx context.Context, d Domain) error {
	actor := actorOf(ctx)
	doing := fmt.Sprintf("delete domain %q", d.Name)
	leave, err := t.db.queueUp(ctx, "")
	if err != nil {
		return said(doing, err)
	}
	defer leave()
	return t.db.write(ctx, doing, func(ctx context.Context, tx transaction) error {
		if err := tx.lock(ctx, lockDeclaration, "", true); err != nil {
			return err
		}
		if _, err := latest(ctx, tx, d); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM domains WHERE name = $1`, d.Name); err != nil {
			return err
		}
		change, err := tx.nextChange(ctx)
		if err != nil {
			return err
		}
		if err := tx.last(ctx, `INSERT INTO dropped_domains (name, change) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET change = excluded.change`, d.Name, change); err != nil {
			return err
		}
		told := diary{actor: actor}
		told.note(d.Tenant, KindDomainGone, string(d.Name), "it is forgotten: its drain is over, or was never needed", d.shown(), nil)
		return told.record(ctx, tx)
	})
}
