package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// KeySize is the length of a key of a [Keyring], in bytes.
const KeySize = 32

// Keyring holds the keys that secrets are sealed with (AES-256-GCM), the newest first: it seals, and all of them open. A
// nil Keyring leaves everything as it is. Its methods may be called at the same time.
//
// A label says what is sealed, and is not secret: what was sealed under one label does not open under another, so
// the key of one name cannot be put in the place of another's.
type Keyring struct{ keys []sealKey }

type sealKey struct {
	id   string
	aead cipher.AEAD
}

// errSealed says that something was sealed with another key, or is damaged.
var errSealed = errors.New("sealed with another key, or damaged")

// NewKeyring makes a keyring of keys of [KeySize] bytes, the newest first. Of none it is nil.
func NewKeyring(keys ...[]byte) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, nil //nolint:nilnil // see Keyring
	}
	r := new(Keyring)
	for _, key := range keys {
		if len(key) != KeySize {
			return nil, fmt.Errorf("read key: it has %d bytes, want %d", len(key), KeySize)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
		sum := sha256.Sum256(append([]byte("stspub key id\x00"), key...))
		r.keys = append(r.keys, sealKey{hex.EncodeToString(sum[:4]), aead})
	}
	return r, nil
}

// ID names the newest key; it tells nothing of it. Empty: there is none.
func (r *Keyring) ID() string {
	if r == nil {
		return ""
	}
	return r.keys[0].id
}

// ids are those of all keys, the newest first.
func (r *Keyring) ids() []string {
	if r == nil {
		return nil
	}
	ids := make([]string, len(r.keys))
	for i, k := range r.keys {
		ids[i] = k.id
	}
	return ids
}

// Seal returns plain sealed with the newest key, whose id it returns too.
func (r *Keyring) Seal(label string, plain []byte) (id string, sealed []byte) {
	if r == nil {
		return "", plain
	}
	return r.keys[0].id, r.keys[0].aead.Seal(nil, nil, plain, []byte(label))
}

// Open returns what Seal was given, or an error that does not show it.
func (r *Keyring) Open(id, label string, sealed []byte) ([]byte, error) {
	if id == "" {
		return sealed, nil
	}
	if !r.has(id) {
		return nil, fmt.Errorf("sealed with the key %s, which is not here", id)
	}
	for _, k := range r.keys {
		if k.id == id {
			if plain, err := k.aead.Open(nil, nil, sealed, []byte(label)); err == nil {
				return plain, nil
			}
		}
	}
	return nil, errSealed
}

func (r *Keyring) has(id string) bool {
	return r != nil && slices.ContainsFunc(r.keys, func(k sealKey) bool { return k.id == id })
}
