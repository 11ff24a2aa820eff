package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// domainColumns are what scanDomain reads, in its order.
const domainColumns = `name, tenant, mxset, publish, account, owner, adopt, tlsrpt, added, removed, due, version,
	served, dirty, record, zone, id, intended, wrote, fresh, settle, handover, old_ttl, horizon, deleted, away,
	forced, detached, staged, promoted, pinned, expelled, findings, step, reason, since, fault, failures, checked,
	report_record, report_zone, report_text, report_wrote, report_verified, report_problem, report_failures`

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
		&rp.Record, &rp.Zone, &rp.Text, stamp{&rp.Wrote}, stamp{&rp.Verified}, &rp.Problem, &rp.Failures)
	st.Handover = time.Duration(handover) * time.Microsecond
	st.OldTTL = time.Duration(oldTTL) * time.Microsecond
	if err == nil && findings != "" {
		err = json.Unmarshal([]byte(findings), &st.Findings)
	}
	return d, err
}

// queryDomain finds one domain, which may be a shared record.
const queryDomain = `SELECT ` + domainColumns + ` FROM domains WHERE name = ?`

// Domain implements [Store].
func (s *SQLite) Domain(ctx context.Context, name policygen.Name) (Domain, error) {
	d, err := scanDomain(s.readers.QueryRowContext(ctx, queryDomain, name))
	if err != nil {
		return Domain{}, fmt.Errorf("read domain %q: %w", name, s.explain(ctx, err))
	}
	return d, nil
}

// EachDomain implements [Store].
func (s *SQLite) EachDomain(ctx context.Context, f func(Domain) error) error {
	return stream(ctx, s, "read domains", scanDomain, f, `SELECT `+domainColumns+` FROM domains ORDER BY name`)
}

// EachServed implements [Store].
func (s *SQLite) EachServed(ctx context.Context, f func(name, text []byte) error) error {
	type served struct{ name, text sql.RawBytes }
	scan := func(r row) (d served, err error) {
		err = r.Scan(&d.name, &d.text)
		return d, err
	}
	return stream(ctx, s, "read what domains are served", scan, func(d served) error { return f(d.name, d.text) },
		`SELECT name, served FROM domains WHERE served <> '' AND publish <> '`+PublishWildcard+`'`)
}

// queryEachShared finds the domains of one MX set.
const queryEachShared = `SELECT ` + domainColumns + ` FROM domains
	WHERE tenant = ? AND mxset = ? AND publish = 'shared' ORDER BY name`

// EachShared implements [Store].
func (s *SQLite) EachShared(ctx context.Context, tenant, mxset string, f func(Domain) error) error {
	return stream(ctx, s, "read the domains of a shared record", scanDomain, f, queryEachShared, tenant, mxset)
}

// queryClaim finds the most overdue domains in the order of the index domains_due, without sorting. SQLite looks at a bare
// LIMIT ? when it plans, and so would prepare the query again at each use.
const queryClaim = `SELECT ` + domainColumns + ` FROM domains WHERE due <= ? ORDER BY due, name LIMIT ? + 0`

// queryClaimShared finds the shared records among them. There are few.
const queryClaimShared = `SELECT ` + domainColumns + ` FROM domains WHERE publish = 'wildcard' AND due <= ? ORDER BY due, name LIMIT ? + 0`

// Claim implements [Store].
func (s *SQLite) Claim(ctx context.Context, now time.Time, lease time.Duration, n int) ([]Domain, error) {
	if n <= 0 {
		return nil, nil
	}
	var claimed []Domain
	err := s.group.write(ctx, "claim domains", func(ctx context.Context, tx *transaction) error {
		claimed = nil
		for _, query := range []string{queryClaimShared, queryClaim} {
			found, err := overdue(ctx, tx, query, now, n-len(claimed))
			if err == nil && len(found) > 0 {
				err = lend(ctx, tx, found, now, now.Add(lease))
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

func overdue(ctx context.Context, tx *transaction, query string, now time.Time, n int) ([]Domain, error) {
	rows, err := tx.QueryContext(ctx, query, micros(now), n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []Domain
	for rows.Next() {
		d, err := scanDomain(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, d)
	}
	return found, rows.Err()
}

// lend marks domains as claimed until end. The new version shuts out an earlier claimer whose lease ran out.
func lend(ctx context.Context, tx *transaction, domains []Domain, now, end time.Time) error {
	version, err := nextVersion(ctx, tx)
	if err != nil {
		return err
	}
	for i := range domains {
		d := &domains[i]
		_, err := tx.ExecContext(ctx, `UPDATE domains SET due = ?, claimed = ?, woken = 0, version = ? WHERE name = ?`,
			micros(end), micros(now), version, d.Name)
		if err != nil {
			return err
		}
		d.Due, d.Version = fromMicros(micros(end)), version
	}
	return nil
}

const queryNextDue = `SELECT due FROM domains ORDER BY due LIMIT 1`

// NextDue implements [Store].
func (s *SQLite) NextDue(ctx context.Context) (time.Time, error) {
	var due time.Time
	err := s.readers.QueryRowContext(ctx, queryNextDue).Scan(stamp{&due})
	if err != nil {
		return time.Time{}, fmt.Errorf("read when a domain is due: %w", s.explain(ctx, err))
	}
	return due, nil
}

// Wake implements [Store].
func (s *SQLite) Wake(ctx context.Context, name policygen.Name, now time.Time) error {
	const wake = `UPDATE domains SET due = iif(claimed = 0, ?1, due), woken = (claimed <> 0) WHERE due > ?1`
	if name == "" {
		return s.write(ctx, "wake all domains", func(tx *transaction) error {
			_, err := tx.ExecContext(ctx, wake, micros(now))
			return err
		})
	}
	return s.group.write(ctx, fmt.Sprintf("wake domain %q", name), func(ctx context.Context, tx *transaction) error {
		var there int
		if err := tx.QueryRowContext(ctx, `SELECT 1 FROM domains WHERE name = ?`, name).Scan(&there); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, wake+` AND name = ?2`, micros(now), name)
		return err
	})
}

// Save implements [Store].
func (s *SQLite) Save(ctx context.Context, d *Domain, now time.Time) error {
	var saved Domain
	err := s.group.write(ctx, fmt.Sprintf("save domain %q", d.Name), func(ctx context.Context, tx *transaction) error {
		saved = *d
		old, err := latest(ctx, tx, saved)
		if err != nil {
			return err
		}
		if saved.Version, err = nextVersion(ctx, tx); err != nil {
			return err
		}
		plan := old.plan.after(micros(saved.Due), micros(now))
		saved.Due = fromMicros(plan.due)
		if err := saveState(ctx, tx, saved, plan); err != nil {
			return err
		}
		if old.state.Step != saved.State.Step || old.state.Fault != saved.State.Fault { // mostly not, and they have indexes
			if _, err := tx.ExecContext(ctx, `UPDATE domains SET step = ?, fault = ? WHERE name = ?`,
				saved.State.Step, saved.State.Fault, saved.Name); err != nil {
				return err
			}
		}
		if err := saveShared(ctx, tx, old.state, saved, now); err != nil {
			return err
		}
		return keepBooks(ctx, tx, saved.Name, old.state, saved.State, now)
	})
	if err != nil {
		return err
	}
	d.Version, d.Due = saved.Version, saved.Due
	return nil
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
	state State // only what books are kept of, Step and Fault
	plan  plan
}

// latest returns what is stored, if d is its latest version.
func latest(ctx context.Context, tx *transaction, d Domain) (stored, error) {
	var old stored
	var version int64
	err := tx.QueryRowContext(ctx, `SELECT version, served, id, intended, step, fault, due, claimed, woken
		FROM domains WHERE name = ?`, d.Name).Scan(&version, &old.state.Served, &old.state.ID, &old.state.Intended,
		&old.state.Step, &old.state.Fault, &old.plan.due, &old.plan.claimed, &old.plan.woken)
	if errors.Is(err, sql.ErrNoRows) {
		return stored{}, fmt.Errorf("%w: %w", ErrStale, ErrNotFound)
	}
	if err == nil && version != d.Version {
		err = ErrStale
	}
	return old, err
}

// saveState writes what Save may write, but for Step and Fault.
func saveState(ctx context.Context, tx *transaction, d Domain, p plan) error {
	st, rp := d.State, d.State.Report
	findings := ""
	if len(st.Findings) > 0 {
		b, err := json.Marshal(st.Findings)
		if err != nil {
			return err
		}
		findings = string(b)
	}
	_, err := tx.ExecContext(ctx, `UPDATE domains SET
			adopt = ?, due = ?, claimed = ?, woken = ?, version = ?,
			served = ?, dirty = ?, record = ?, zone = ?, id = ?, intended = ?, wrote = ?, fresh = ?,
			settle = ?, handover = ?, old_ttl = ?, horizon = ?, deleted = ?, away = ?, forced = ?,
			detached = ?, staged = ?, promoted = ?, pinned = ?, expelled = ?, findings = ?,
			reason = ?, since = ?, failures = ?, checked = ?,
			report_record = ?, report_zone = ?, report_text = ?, report_wrote = ?, report_verified = ?, report_problem = ?,
			report_failures = ?
		WHERE name = ?`,
		d.Adopt, p.due, p.claimed, p.woken, d.Version,
		st.Served, st.Dirty, st.Record, st.Zone, st.ID, st.Intended, micros(st.Wrote), st.Fresh,
		micros(st.Settle), st.Handover.Microseconds(), st.OldTTL.Microseconds(), micros(st.Horizon), micros(st.Deleted), micros(st.Away), st.Forced,
		micros(st.Detached), micros(st.Staged), micros(st.Promoted), st.Pinned, st.Expelled, findings,
		st.Reason, micros(st.Since), st.Failures, micros(st.Checked),
		rp.Record, rp.Zone, rp.Text, micros(rp.Wrote), micros(rp.Verified), rp.Problem, rp.Failures,
		d.Name)
	return err
}

// Delete implements [Store].
func (s *SQLite) Delete(ctx context.Context, d Domain) error {
	return s.write(ctx, fmt.Sprintf("delete domain %q", d.Name), func(tx *transaction) error {
		if _, err := latest(ctx, tx, d); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM domains WHERE name = ?`, d.Name)
		return err
	})
}
