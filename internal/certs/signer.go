package certs

//lint:file-ignore SA1019 What parses keys would check the point and derive it from the scalar, at 18 µs a handshake. That
// they belong together was checked by memory.pack, and crypto/ecdsa looks at what it signs with.

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"io"
	"math/big"
	"sync"
)

// signer is the private key of one certificate, for one handshake.
type signer struct {
	keys   *sync.Pool // of *ecdsa.PrivateKey, from newKey
	public *ecdsa.PublicKey
	scalar []byte // nobody may change it
}

// newKey returns a key to be filled for one signature. crypto/ecdsa remembers each key that it signed with until the garbage
// collector has taken it, so that a new one for every handshake would be some microseconds, and work for the collector.
func newKey() any { return &ecdsa.PrivateKey{PublicKey: *newPublic(nil), D: new(big.Int)} }

// newPublic returns the public key of an uncompressed point; nil is the zero key.
func newPublic(point []byte) *ecdsa.PublicKey {
	p := &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int), Y: new(big.Int)}
	if len(point) == pointSize {
		p.X.SetBytes(point[1 : 1+scalarSize])
		p.Y.SetBytes(point[1+scalarSize:])
	}
	return p
}

// Public returns the public key.
func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign signs by RFC 6979, which needs no random numbers: what crypto/ecdsa does with them is hashed by SHA-512, for which
// CPUs have no instruction, and is a fifth of a signature.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	key := s.keys.Get().(*ecdsa.PrivateKey)
	defer s.keys.Put(key)
	key.X.Set(s.public.X)
	key.Y.Set(s.public.Y)
	key.D.SetBytes(s.scalar)
	return key.Sign(nil, digest, opts)
}
