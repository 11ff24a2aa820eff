package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// EachCertificate implements [Store].
func (s *SQLite) EachCertificate(ctx context.Context, f func(Certificate) error) error {
	return stream(ctx, s, "read certificates", scanCertificate, f,
		`SELECT name, private_key, chain, not_before, not_after, authority FROM certificates`)
}

func scanCertificate(r row) (Certificate, error) {
	var c Certificate
	var chain []byte
	if err := r.Scan(&c.Name, &c.Key, &chain, stamp{&c.NotBefore}, stamp{&c.NotAfter}, &c.Authority); err != nil {
		return Certificate{}, err
	}
	var err error
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
	return s.write(ctx, fmt.Sprintf("save certificate %q", c.Name), func(tx *transaction) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO certificates (name, private_key, chain, not_before, not_after, authority)
			VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET private_key = excluded.private_key,
			chain = excluded.chain, not_before = excluded.not_before, not_after = excluded.not_after,
			authority = excluded.authority`,
			c.Name, blob(c.Key), joinChain(c.Chain), micros(c.NotBefore), micros(c.NotAfter), c.Authority); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM orders WHERE name = ?`, c.Name)
		return err
	})
}

// DeleteCertificate implements [Store].
func (s *SQLite) DeleteCertificate(ctx context.Context, name string) error {
	return s.write(ctx, fmt.Sprintf("delete certificate %q", name), func(tx *transaction) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM certificates WHERE name = ?`, name); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM orders WHERE name = ?`, name)
		return err
	})
}

// Orders implements [Store].
func (s *SQLite) Orders(ctx context.Context) ([]Order, error) {
	scan := func(r row) (o Order, err error) {
		err = r.Scan(&o.Name, &o.Failures, stamp{&o.Tried}, stamp{&o.Next}, &o.Problem)
		return o, err
	}
	return collect(ctx, s, "read orders", scan,
		`SELECT name, failures, tried, next, problem FROM orders WHERE failures > 0 ORDER BY name`)
}

// SaveOrder implements [Store].
func (s *SQLite) SaveOrder(ctx context.Context, o Order) error {
	return s.exec(ctx, fmt.Sprintf("save order %q", o.Name), `INSERT INTO orders (name, failures, tried, next, problem)
		VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET failures = excluded.failures, tried = excluded.tried,
		next = excluded.next, problem = excluded.problem`,
		o.Name, o.Failures, micros(o.Tried), micros(o.Next), o.Problem)
}
