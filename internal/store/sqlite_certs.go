package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// EachCertificate implements [Store].
func (s *SQLite) EachCertificate(ctx context.Context, f func(Certificate) error) error {
	return stream(ctx, s, "read certificates", s.scanCertificate, f, `SELECT `+certificateColumns+` FROM certificates`)
}

// certificateColumns are what scanCertificate reads, in its order.
const certificateColumns = `name, private_key, sealed, chain, not_before, not_after, authority, renew`

// Certificate implements [Store].
func (s *SQLite) Certificate(ctx context.Context, name string) (Certificate, error) {
	all, err := collect(ctx, s, fmt.Sprintf("read certificate %q", name), s.scanCertificate,
		`SELECT `+certificateColumns+` FROM certificates WHERE name = ?`, name)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("read certificate %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return Certificate{}, err
	}
	return all[0], nil
}

func (s *SQLite) scanCertificate(r row) (Certificate, error) {
	var c Certificate
	var chain []byte
	var seal string
	if err := r.Scan(&c.Name, &c.Key, &seal, &chain, stamp{&c.NotBefore}, stamp{&c.NotAfter}, &c.Authority, stamp{&c.Renew}); err != nil {
		return Certificate{}, err
	}
	var err error
	if c.Key, err = s.ring.Open(seal, labelCertificate+c.Name, c.Key); err != nil {
		return Certificate{}, fmt.Errorf("key of certificate %q: %w: delete the certificate, and it is ordered again", c.Name, err)
	}
	if c.Chain, err = splitChain(chain); err != nil {
		return Certificate{}, fmt.Errorf("certificate %q: %w", c.Name, err)
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
			return nil, errors.New("chain is cut off: delete the certificate, and it is ordered again")
		}
		end := used + int(n)
		chain = append(chain, joined[used:end:end])
		joined = joined[end:]
	}
	return chain, nil
}

// SaveCertificate implements [Store].
func (s *SQLite) SaveCertificate(ctx context.Context, c Certificate) error {
	return s.group.write(ctx, fmt.Sprintf("save certificate %q", c.Name), func(ctx context.Context, tx *transaction) error {
		change, err := nextVersion(ctx, tx)
		if err != nil {
			return err
		}
		seal, key := s.ring.Seal(labelCertificate+c.Name, c.Key)
		if _, err := tx.ExecContext(ctx, `INSERT INTO certificates
			(name, private_key, sealed, chain, not_before, not_after, authority, renew, change)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET private_key = excluded.private_key,
			sealed = excluded.sealed, chain = excluded.chain, not_before = excluded.not_before,
			not_after = excluded.not_after, authority = excluded.authority, renew = excluded.renew, change = excluded.change`,
			c.Name, blob(key), seal, joinChain(c.Chain), micros(c.NotBefore), micros(c.NotAfter), c.Authority,
			micros(c.Renew), change); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM dropped_certificates WHERE name = ?`, c.Name); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM orders WHERE name = ?`, c.Name)
		return err
	})
}

// DeleteCertificate implements [Store].
func (s *SQLite) DeleteCertificate(ctx context.Context, name string) error {
	return s.group.write(ctx, fmt.Sprintf("delete certificate %q", name), func(ctx context.Context, tx *transaction) error {
		change, err := nextVersion(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO dropped_certificates (name, change)
			SELECT name, ? FROM certificates WHERE name = ?`, change, name); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM certificates WHERE name = ?`, name); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM orders WHERE name = ?`, name)
		return err
	})
}

// LastChange implements [Store].
func (s *SQLite) LastChange(ctx context.Context) (int64, error) {
	var last int64
	if err := s.readers.QueryRowContext(ctx, `SELECT last FROM versions`).Scan(&last); err != nil {
		return 0, fmt.Errorf("read the last change: %w", s.explain(ctx, err))
	}
	return last, nil
}

// marksKept is how many copies are remembered: a node's last one, and the one before, which it may have come back to.
const marksKept = 16

// MarkCertificates implements [Store].
func (s *SQLite) MarkCertificates(ctx context.Context, mark string, change int64) error {
	return s.write(ctx, "mark a copy of the certificates", func(tx *transaction) error {
		for _, q := range []struct {
			text string
			args []any
		}{
			{`INSERT INTO certificate_marks (mark, change) VALUES (?, ?)`, []any{mark, change}},
			{`DELETE FROM certificate_marks WHERE seq <= (SELECT max(seq) FROM certificate_marks) - ?`, []any{marksKept}},
			{`DELETE FROM dropped_certificates WHERE change <= (SELECT min(change) FROM certificate_marks)`, nil},
		} {
			if _, err := tx.ExecContext(ctx, q.text, q.args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// CertificatesSince implements [Store].
func (s *SQLite) CertificatesSince(ctx context.Context, mark string, f func(Certificate) error) error {
	var change int64
	err := s.readers.QueryRowContext(ctx, `SELECT change FROM certificate_marks WHERE mark = ?`, mark).Scan(&change)
	if err != nil {
		return fmt.Errorf("read the changes of certificates: %w", s.explain(ctx, err))
	}
	return stream(ctx, s, "read the changes of certificates", s.scanCertificate, f, `SELECT `+certificateColumns+`
		FROM certificates WHERE change > ?1 UNION ALL SELECT name, x'', '', x'', 0, 0, '', 0 FROM dropped_certificates
		WHERE change > ?1`, change)
}

// Orders implements [Store].
func (s *SQLite) Orders(ctx context.Context) ([]Order, error) {
	scan := func(r row) (o Order, err error) {
		err = r.Scan(&o.Name, &o.Failures, stamp{&o.Tried}, stamp{&o.Next}, &o.Problem, &o.Authority, stamp{&o.Since},
			&o.Advice, &o.Outage)
		return o, err
	}
	return collect(ctx, s, "read orders", scan,
		`SELECT name, failures, tried, next, problem, authority, since, advice, outage
		FROM orders WHERE failures > 0 OR next <> 0 ORDER BY name`)
}

// SaveOrder implements [Store].
func (s *SQLite) SaveOrder(ctx context.Context, o Order) error {
	return s.exec(ctx, fmt.Sprintf("save order %q", o.Name), `INSERT INTO orders (name, failures, tried, next, problem,
		authority, since, advice, outage) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
		failures = excluded.failures, tried = excluded.tried, next = excluded.next, problem = excluded.problem,
		authority = excluded.authority, since = excluded.since, advice = excluded.advice, outage = excluded.outage`,
		o.Name, o.Failures, micros(o.Tried), micros(o.Next), o.Problem, o.Authority, micros(o.Since), o.Advice, o.Outage)
}
