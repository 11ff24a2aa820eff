package store

import (
	"context"
	"fmt"
)

// Value implements [Store].
func (s *SQLite) Value(ctx context.Context, key string) ([]byte, error) {
	var value []byte
	err := s.readers.QueryRowContext(ctx, `SELECT value FROM key_values WHERE name = ?`, key).Scan(&value)
	if err != nil {
		return nil, fmt.Errorf("read value %q: %w", key, s.explain(ctx, err))
	}
	return value, nil
}

// SetValue implements [Store].
func (s *SQLite) SetValue(ctx context.Context, key string, value []byte) error {
	return s.exec(ctx, fmt.Sprintf("set value %q", key), `INSERT INTO key_values (name, value) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, key, blob(value))
}

// EnsureValue implements [Store].
func (s *SQLite) EnsureValue(ctx context.Context, key string, value []byte) ([]byte, error) {
	err := s.exec(ctx, fmt.Sprintf("ensure value %q", key), `INSERT INTO key_values (name, value) VALUES (?, ?)
		ON CONFLICT (name) DO NOTHING`, key, blob(value))
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
