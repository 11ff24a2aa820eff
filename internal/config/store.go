package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
)

// storeKeySize is the length of a key that seals the store, in bytes.
const storeKeySize = 32

// store reads [store]. The URL of another engine may hold a password, so none is shown.
func (l *loader) store() {
	l.cfg.Store.Path = defaultStore
	l.storeKeys(l.doc.Store)
	t := l.doc.Store.URL
	if !t.given() {
		return
	}
	path, sqlite := strings.CutPrefix(t.v, "sqlite:")
	switch {
	case strings.HasPrefix(t.v, "postgres:"), strings.HasPrefix(t.v, "postgresql:"):
		l.problem(t.line, "store.url", "PostgreSQL is not available yet; write url = %q", "sqlite:"+defaultStore)
	case !sqlite:
		l.problem(t.line, "store.url", "names no known engine; write url = %q", "sqlite:"+defaultStore)
	case path == "", strings.HasSuffix(path, "/"), strings.Contains(path, ":memory:"):
		l.problem(t.line, "store.url", "names no file; write url = %q", "sqlite:"+defaultStore)
	default:
		l.cfg.Store.Path = l.path(path)
	}
}

// storeKeys reads the keys that the store is sealed with.
func (l *loader) storeKeys(t storeTable) {
	key, _ := l.secret("store", "key", t.KeyFile, t.KeyEnv, checkStoreKey)
	if key != "" {
		key, _ = decodeStoreKey(key) // it was checked
		l.cfg.Store.Keys = append(l.cfg.Store.Keys, key)
	}
	if t.OldKeyFiles.given() && !t.KeyFile.given() && !t.KeyEnv.given() {
		l.problem(t.OldKeyFiles.line, "store.old_key_files", "stands without key_file; write the file of the new key there, "+
			"since a store that is sealed stays so")
	}
	for _, item := range t.OldKeyFiles.items {
		old, err := l.secretFile("store.old_key_files", item)
		if err == nil {
			old, err = decodeStoreKey(old)
		}
		if err != nil {
			l.lacking(item.line, "store.old_key_files", err)
			continue
		}
		l.cfg.Store.Keys = append(l.cfg.Store.Keys, old)
	}
}

func checkStoreKey(secret Secret) error {
	_, err := decodeStoreKey(secret)
	return err
}

// decodeStoreKey takes 32 bytes as hex or in either alphabet of base64.
func decodeStoreKey(secret Secret) (Secret, error) {
	if key, err := hex.DecodeString(string(secret)); err == nil && len(key) == storeKeySize {
		return Secret(key), nil
	}
	plain := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(string(secret), "="))
	if key, err := base64.RawURLEncoding.DecodeString(plain); err == nil && len(key) == storeKeySize {
		return Secret(key), nil
	}
	return "", errors.New("the secret is no key of 32 random bytes in base64 or hex; make one: openssl rand -base64 32")
}
