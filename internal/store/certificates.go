package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Order is how the last attempt to obtain a certificate went, or, without failures, when the next one is to be made.
type Order struct {
	Name     string
	Failures int       // in a row; 0: the certificate is to be renewed at Next, whatever was planned
	Tried    time.Time // last attempt
	Next     time.Time // not before
	Problem  string    // the CA's words

	Advice    string    // what to do about it; empty: we do not know
	Authority string    // which CA it was
	Since     time.Time // first failure in a row
	Outage    bool      // the last failure was not the name's fault
}

// EachCertificate implements [Store].
func (t *tables) EachCertificate(ctx context.Context, f func(Certificate) error) error {
	return t.streamCertificates(ctx, "read certificates", f, `SELECT `+certificateColumns+` FROM certificates`)
}

// streamCertificates is stream for those that can be read; the others are in the error.
func (t *tables) streamCertificates(ctx context.Context, doing string, f func(Certificate) error, query string, args ...any) error {
	var d damages
	err := stream(ctx, t, doing, d.past(t.scanCertificate), func(c Certificate) error {
		if c.Name == "" {
			return nil
		}
		return f(c)
	}, query, args...)
	if err != nil {
		return err
	}
	return d.error(ctx, t, doing)
}

// certificateColumns are what scanCertificate reads, in its order.
const certificateColumns = `name, private_key, sealed, chain, not_before, not_after, authority, renew`

// Certificate implements [Store].
func (t *tables) Certificate(ctx context.Context, name string) (Certificate, error) {
	var d damages
	doing := fmt.Sprintf("read certificate %q", name)
	c, err := one(ctx, t, doing, d.past(t.scanCertificate), `SELECT `+certificateColumns+` FROM certificates WHERE name = $1`, name)
	if err == nil {
		err = d.error(ctx, t, doing)
	}
	return c, err
}

func (t *tables) scanCertificate(r row) (Certificate, error) {
	var c Certificate
	var chain []byte
	var seal string
	if err := r.Scan(&c.Name, &c.Key, &seal, &chain, stamp{&c.NotBefore}, stamp{&c.NotAfter}, &c.Authority, stamp{&c.Renew}); err != nil {
		return Certificate{}, err
	}
	var err error
	if c.Key, err = t.ring.Open(seal, labelCertificate+c.Name, c.Key); err != nil {
		d := &DamagedError{Names: []string{c.Name}, Err: fmt.Errorf("key of certificate %q: %w", c.Name, err)}
		if !t.ring.has(seal) {
			d.seal = seal
		}
		return Certificate{}, d
	}
	if c.Chain, err = splitChain(chain); err != nil {
		return Certificate{}, &DamagedError{Names: []string{c.Name}, Err: fmt.Errorf("certificate %q: %w", c.Name, err)}
	}
	return c, nil
}

// joinChain writes a chain as one value: before each certificate its length.
func joinChain(chain [][]byte) []byte {
	joined := []byte{}
	for _, der := range chain {
		joined = binary.AppendUvarint(joined, uint64(len(der)))
		joined = append(joined, der...)
	}
	return joined
}

// splitChain takes apart what joinChain made. The parts share the memory of joined.
func splitChain(joined []byte) ([][]byte, error) {
	var chain [][]byte
	for len(joined) > 0 {
		n, used := binary.Uvarint(joined)
		if used <= 0 || n > uint64(len(joined)-used) {
			return nil, errors.New("its chain is cut off")
		}
		end := used + int(n)
		chain = append(chain, joined[used:end:end])
		joined = joined[end:]
	}
	return chain, nil
}

// SaveCertificate implements [Store].
func (t *tables) SaveCertificate(ctx context.Context, c Certificate) error {
	actor := actorOf(ctx)
	return t.db.writeSoon(ctx, fmt.Sprintf("save certificate %q", c.Name), func(ctx context.Context, tx transaction) error {
		seal, key, err := t.seal(ctx, tx, labelCertificate+c.Name, c.Key)
		if err != nil {
			return err
		}
		change, err := tx.nextChange(ctx) // now, so that of two that save the same one tells of it
		if err != nil {
			return err
		}
		var same bool
		if err := tx.get(ctx, `SELECT EXISTS (SELECT 1 FROM certificates WHERE name = $1 AND chain = $2)`,
			[]any{c.Name, joinChain(c.Chain)}, &same); err != nil {
			return err
		}
		told := diary{actor: actor}
		if !same {
			if err := told.issued(ctx, tx, c); err != nil {
				return err
			}
		}
		if err := tx.last(ctx, `INSERT INTO certificates
			(name, private_key, sealed, chain, not_before, not_after, authority, renew, change)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO UPDATE SET private_key = excluded.private_key,
			sealed = excluded.sealed, chain = excluded.chain, not_before = excluded.not_before,
			not_after = excluded.not_after, authority = excluded.authority, renew = excluded.renew, change = excluded.change`,
			c.Name, blob(key), seal, joinChain(c.Chain), micros(c.NotBefore), micros(c.NotAfter), c.Authority,
			micros(c.Renew), change); err != nil {
			return err
		}
		if err := tx.last(ctx, `DELETE FROM dropped_certificates WHERE name = $1`, c.Name); err != nil {
			return err
		}
		if err := tx.last(ctx, `DELETE FROM orders WHERE name = $1`, c.Name); err != nil {
			return err
		}
		return told.record(ctx, tx)
	})
}

// DeleteCertificate implements [Store].
func (t *tables) DeleteCertificate(ctx context.Context, name string) error {
	return t.db.writeSoon(ctx, fmt.Sprintf("delete certificate %q", name), func(ctx context.Context, tx transaction) error {
		change, err := tx.nextChange(ctx)
		if err != nil {
			return err
		}
		if err := tx.last(ctx, `INSERT INTO dropped_certificates (name, change)
			SELECT name, CAST($1 AS BIGINT) FROM certificates WHERE name = $2`, change, name); err != nil {
			return err
		}
		if err := tx.last(ctx, `DELETE FROM certificates WHERE name = $1`, name); err != nil {
			return err
		}
		return tx.last(ctx, `DELETE FROM orders WHERE name = $1`, name)
	})
}

func scanNumber(r row) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}

// marksKept is how many copies are remembered: a node's last one, and the one before, which it may have come back to.
const marksKept = 16

// MarkCertificates implements [Store].
func (t *tables) MarkCertificates(ctx context.Context, mark string, change int64) error {
	return t.db.write(ctx, "mark a copy of the certificates", func(ctx context.Context, tx transaction) error {
		for _, q := range []struct {
			text string
			args []any
		}{
			{`INSERT INTO certificate_marks (mark, change) VALUES ($1, $2)`, []any{mark, change}},
			{`DELETE FROM certificate_marks WHERE seq <= (SELECT max(seq) FROM certificate_marks) - $1`, []any{marksKept}},
		} {
			if _, err := tx.exec(ctx, q.text, q.args...); err != nil {
				return err
			}
		}
		return pruneDropped(ctx, tx)
	})
}

// CertificatesSince implements [Store].
func (t *tables) CertificatesSince(ctx context.Context, mark string, f func(Certificate) error) error {
	const doing = "read the changes of certificates"
	change, err := one(ctx, t, doing, scanNumber, `SELECT change FROM certificate_marks WHERE mark = $1`, mark)
	if err != nil {
		return err
	}
	return t.changedCertificates(ctx, doing, change, f)
}

// CertificatesAfter implements [Store].
func (t *tables) CertificatesAfter(ctx context.Context, after int64, f func(Certificate) error) (int64, error) {
	return t.changedAfter(ctx, after, func() error {
		return t.changedCertificates(ctx, "read the changes of certificates", after, f)
	})
}

func (t *tables) changedCertificates(ctx context.Context, doing string, after int64, f func(Certificate) error) error {
	// An empty blob is written differently in each engine; that of an outer join is not.
	return t.streamCertificates(ctx, doing, f, `SELECT changed.name, private_key, coalesce(sealed, ''), chain,
		coalesce(not_before, 0), coalesce(not_after, 0), coalesce(authority, ''), coalesce(renew, 0)
		FROM (SELECT name FROM certificates WHERE change > $1 UNION ALL
			SELECT name FROM dropped_certificates WHERE change > $1) AS changed
		LEFT JOIN certificates ON certificates.name = changed.name`, after)
}

// Orders implements [Store].
func (t *tables) Orders(ctx context.Context) ([]Order, error) {
	scan := func(r row) (o Order, err error) {
		err = r.Scan(&o.Name, &o.Failures, stamp{&o.Tried}, stamp{&o.Next}, &o.Problem, &o.Authority, stamp{&o.Since},
			&o.Advice, &o.Outage)
		return o, err
	}
	return collect(ctx, t, "read orders", scan,
		`SELECT name, failures, tried, next, problem, authority, since, advice, outage
		FROM orders WHERE failures > 0 OR next <> 0 ORDER BY name`)
}

// SaveOrder implements [Store].
func (t *tables) SaveOrder(ctx context.Context, o Order) error {
	actor := actorOf(ctx)
	return t.db.writeSoon(ctx, fmt.Sprintf("save order %q", o.Name), func(ctx context.Context, tx transaction) error {
		told := diary{actor: actor, at: o.Tried}
		if err := told.failing(ctx, tx, o); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `INSERT INTO orders (name, failures, tried, next, problem,
			authority, since, advice, outage) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO UPDATE SET
			failures = excluded.failures, tried = excluded.tried, next = excluded.next, problem = excluded.problem,
			authority = excluded.authority, since = excluded.since, advice = excluded.advice, outage = excluded.outage`,
			o.Name, o.Failures, micros(o.Tried), micros(o.Next), o.Problem, o.Authority, micros(o.Since), o.Advice, o.Outage); err != nil {
			return err
		}
		return told.record(ctx, tx)
	})
}

// PlanOrder implements [Store].
func (t *tables) PlanOrder(ctx context.Context, name string, notBefore, notAfter, next time.Time) error {
	return t.exec(ctx, fmt.Sprintf("plan order %q", name), `INSERT INTO orders (name, failures, tried, next, problem, authority,
		since, advice, outage) SELECT name, 0, 0, CAST($1 AS BIGINT), '', '', 0, '', FALSE FROM certificates
		WHERE name = $2 AND not_before = $3 AND not_after = $4
		ON CONFLICT (name) DO UPDATE SET next = excluded.next WHERE orders.failures = 0`,
		micros(next), name, micros(notBefore), micros(notAfter))
}
