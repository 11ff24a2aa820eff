package store

import (
	"context"
	"fmt"
)

// Value implements [Store].
func (t *tables) Value(ctx context.Context, key string) ([]byte, error) {
	scan := func(r row) ([]byte, error) {
		var value []byte
		var seal string
		if err := r.Scan(&value, &seal); err != nil {
			return nil, err
		}
		return t.ring.Open(seal, labelValue+key, value)
	}
	return one(ctx, t, fmt.Sprintf("read value %q", key), scan, `SELECT value, sealed FROM key_values WHERE name = $1`, key)
}

// SetValue implements [Store].
func (t *tables) SetValue(ctx context.Context, key string, value []byte) error {
	return t.setValue(ctx, fmt.Sprintf("set value %q", key), key, value)
}

func (t *tables) setValue(ctx context.Context, doing, key string, value []byte) error {
	seal, value := t.ring.Seal(labelValue+key, value)
	return t.exec(ctx, doing, `INSERT INTO key_values (name, value, sealed) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value, sealed = excluded.sealed`, key, blob(value), seal)
}

// EnsureValue implements [Store].
func (t *tables) EnsureValue(ctx context.Context, key string, value []byte) ([]byte, error) {
	seal, value := t.ring.Seal(labelValue+key, value)
	err := t.exec(ctx, fmt.Sprintf("ensure value %q", key), `INSERT INTO key_values (name, value, sealed) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO NOTHING`, key, blob(value), seal)
	if err != nil {
		return nil, err
	}
	return t.Value(ctx, key)
}

// DeleteValue implements [Store].
func (t *tables) DeleteValue(ctx context.Context, key string) error {
	return t.exec(ctx, fmt.Sprintf("delete value %q", key), `DELETE FROM key_values WHERE name = $1`, key)
}
