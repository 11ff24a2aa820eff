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
	return t.writeValue(ctx, doing, key, value, `UPDATE SET value = excluded.value, sealed = excluded.sealed`)
}

// EnsureValue implements [Store].
func (t *tables) EnsureValue(ctx context.Context, key string, value []byte) ([]byte, error) {
	if err := t.writeValue(ctx, fmt.Sprintf("ensure value %q", key), key, value, `NOTHING`); err != nil {
		return nil, err
	}
	return t.Value(ctx, key)
}

// writeValue writes a value, or does something else where there is one.
func (t *tables) writeValue(ctx context.Context, doing, key string, value []byte, otherwise string) error {
	return t.db.writeSoon(ctx, doing, func(ctx context.Context, tx transaction) error {
		seal, sealed, err := t.seal(ctx, tx, labelValue+key, value)
		if err == nil {
			_, err = tx.exec(ctx, `INSERT INTO key_values (name, value, sealed) VALUES ($1, $2, $3)
				ON CONFLICT (name) DO `+otherwise, key, blob(sealed), seal)
		}
		return err
	})
}

// DeleteValue implements [Store].
func (t *tables) DeleteValue(ctx context.Context, key string) error {
	return t.exec(ctx, fmt.Sprintf("delete value %q", key), `DELETE FROM key_values WHERE name = $1`, key)
}
