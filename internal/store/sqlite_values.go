package store

import (
	"context"
	"fmt"
)

// Value implements [Store].
func (s *SQLite) Value(ctx context.Context, key string) ([]byte, error) {
	var value []byte
	var seal string
	err := s.readers.QueryRowContext(ctx, `SELECT value, sealed FROM key_values WHERE name = ?`, key).Scan(&value, &seal)
	if err == nil {
		value, err = s.ring.Open(seal, labelValue+key, value)
	}
	if err != nil {
		return nil, fmt.Errorf("read value %q: %w", key, s.explain(ctx, err))
	}
	return value, nil
}

// SetValue implements [Store].
func (s *SQLite) SetValue(ctx context.Context, key string, value []byte) error {
	seal, value := s.ring.Seal(labelValue+key, value)
	return s.exec(ctx, fmt.Sprintf("set value %q", key), `INSERT INTO key_values (name, value, sealed) VALUES (?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value, sealed = excluded.sealed`, key, blob(value), seal)
}

// EnsureValue implements [Store].
func (s *SQLite) EnsureValue(ctx context.Context, key string, value []byte) ([]byte, error) {
	seal, value := s.ring.Seal(labelValue+key, value)
	err := s.exec(ctx, fmt.Sprintf("ensure value %q", key), `INSERT INTO key_values (name, value, sealed) VALUES (?, ?, ?)
		ON CONFLICT (name) DO NOTHING`, key, blob(value), seal)
	if err != nil {
		return nil, err
	}
	return s.Value(ctx, key)
}

// DeleteValue implements [Store].
func (s *SQLite) DeleteValue(ctx context.Context, key string) error {
	return s.exec(ctx, fmt.Sprintf("delete value %q", key), `DELETE FROM key_values WHERE name = ?`, key)
}

// blob keeps nil from becoming NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
