package config

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// storeKeySize is the length of a key that seals the store, in bytes.
const storeKeySize = 32

// store reads [store]. The URL may hold a password by mistake, so none is shown.
func (l *loader) store() {
	l.cfg.Store.Path = defaultStore
	l.storeKeys(l.doc.Store)
	t := l.doc.Store
	l.cfg.Store.KeepEvents = l.duration("store.keep_events", t.KeepEvents, defaultKeepEvents, day, 10*365*day, `"1d" to "3650d"`)
	password, _ := l.secret("store", "password", t.PasswordFile, t.PasswordEnv, nil)
	if !t.URL.given() {
		return
	}
	path, sqlite := strings.CutPrefix(t.URL.v, "sqlite:")
	switch {
	case strings.HasPrefix(t.URL.v, "postgres:"), strings.HasPrefix(t.URL.v, "postgresql:"):
		if err := l.postgres(t.URL, password); err != nil {
			l.problem(t.URL.line, "store.url", "%v", err)
		}
	case !sqlite:
		l.problem(t.URL.line, "store.url", "names no known engine; write url = %q", "sqlite:"+defaultStore)
	case path == "", strings.HasSuffix(path, "/"), strings.Contains(path, ":memory:"):
		l.problem(t.URL.line, "store.url", "names no file; write url = %q", "sqlite:"+defaultStore)
	default:
		l.cfg.Store.Path = l.path(path)
	}
}

// postgres reads the URL of a PostgreSQL database.
func (l *loader) postgres(t text, password Secret) error {
	full, err := PostgresURL(t.v, password)
	if err != nil {
		return err
	}
	l.cfg.Store.Postgres = full
	u, err := url.Parse(t.v)
	if err != nil {
		return err
	}
	host := u.Hostname()
	ip, err := netip.ParseAddr(host)
	near := host == "" || host == "localhost" || err == nil && ip.IsLoopback()
	if mode := u.Query().Get("sslmode"); !near && mode != "verify-full" {
		l.warn(t.line, "store.url", "whoever is on the way to the database can read and change what goes there; add ?sslmode=verify-full to the URL, "+
			"and sslrootcert=FILE where its CA is your own")
	}
	return nil
}

// PostgresURL returns the URL of a PostgreSQL database with a password; empty: none. Its errors show neither.
func PostgresURL(raw string, password Secret) (Secret, error) {
	const shape = "postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full"
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("is no URL; write %q, with %%XX for what is special in a name", shape)
	}
	_, given := u.User.Password()
	host := cmp.Or(u.Host, u.Query().Get("host"))
	switch {
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return "", fmt.Errorf("is no URL of PostgreSQL; write %q", shape)
	case given || u.Query().Has("password"):
		return "", errors.New("holds a password; write that into a file of its own, and name the file in password_file")
	case u.User.Username() == "":
		return "", fmt.Errorf("names no user; write %q", shape)
	case host == "":
		return "", fmt.Errorf("names no host; write %q, or ?host=/run/postgresql for a socket", shape)
	case strings.Trim(u.Path, "/") == "":
		return "", fmt.Errorf("names no database; write %q", shape)
	}
	if password != "" {
		u.User = url.UserPassword(u.User.Username(), string(password))
	}
	return Secret(u.String()), nil
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
