package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/store"
)

// maxName is the longest host name in octets (RFC 1035, Section 2.3.4, without the root's).
const maxName = 253

// memory holds the certificates of this node by name. A look-up takes one read lock that a writer holds for one
// assignment, and allocates nothing.
type memory struct {
	seed   maphash.Seed
	shards [64]struct {
		mu      sync.RWMutex // guards entries
		entries map[string]*entry
	}
	mu     sync.Mutex // guards chains
	chains [][][]byte // those of issuers; an authority has a few
}

// entry is one certificate, in as little memory as serving it allows: neither the leaf nor the key is kept parsed. Both
// together would be ten objects a name for the garbage collector to visit, and double the memory; to make the key anew
// costs a handshake 2 µs.
type entry struct {
	leaf                []byte   // DER
	issuers             [][]byte // DER; all entries with the same ones share them
	scalar              [scalarSize]byte
	point               int   // where in leaf the public key is
	notBefore, notAfter int64 // Unix seconds
}

const (
	scalarSize = 32               // of a P-256 private key
	pointSize  = 1 + 2*scalarSize // of a P-256 public key, uncompressed (RFC 5480, Section 2.2)
)

// certificate makes what crypto/tls serves. It allocates.
func (e *entry) certificate() (*tls.Certificate, error) {
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), e.leaf[e.point:e.point+pointSize])
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	//lint:ignore SA1019 ecdsa.ParseRawPrivateKey would derive the public key again, at 18 µs a handshake; that it belongs
	// to the scalar was checked by [memory.entry].
	key := &ecdsa.PrivateKey{PublicKey: *public, D: new(big.Int).SetBytes(e.scalar[:])}
	return &tls.Certificate{Certificate: append([][]byte{e.leaf}, e.issuers...), PrivateKey: key}, nil
}

func (m *memory) init() {
	m.seed = maphash.MakeSeed()
	for i := range m.shards {
		m.shards[i].entries = make(map[string]*entry)
	}
}

// lookup returns the entry of a name in any case, with or without trailing dot, or nil.
func (m *memory) lookup(name string) *entry {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName {
		return nil
	}
	var buf [maxName]byte
	lower := buf[:len(name)]
	for i := range lower {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	s := &m.shards[maphash.Bytes(m.seed, lower)%uint64(len(m.shards))]
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[string(lower)]
}

// set puts an entry in place of a name's old one; nil removes it.
func (m *memory) set(name string, e *entry) {
	s := &m.shards[maphash.String(m.seed, name)%uint64(len(m.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if e == nil {
		delete(s.entries, name)
		return
	}
	s.entries[name] = e
}

// entry checks a certificate and makes it ready to be served. It does not look at the time, which
// [Keeper.GetCertificate] does at every handshake.
func (m *memory) entry(c store.Certificate) (*entry, error) {
	if len(c.Chain) == 0 {
		return nil, errors.New("no certificate in the chain")
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	if err := leaf.VerifyHostname(c.Name); err != nil {
		return nil, fmt.Errorf("check name: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(c.Key)
	if err != nil {
		// The cause could quote the key.
		return nil, errors.New("read key: not a PKCS #8 key")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("check key: not an ECDSA P-256 key")
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("check key: it is not the certificate's")
	}
	return m.pack(c.Chain, leaf, key)
}

// pack makes an entry of what was checked.
func (m *memory) pack(chain [][]byte, leaf *x509.Certificate, key *ecdsa.PrivateKey) (*entry, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, errors.New("write public key: not a point of P-256")
	}
	scalar, err := key.Bytes()
	if err != nil {
		return nil, errors.New("write key: not a P-256 key") // the cause could quote it
	}
	e := &entry{
		leaf: bytes.Clone(chain[0]), point: bytes.Index(chain[0], point), issuers: m.issuers(chain[1:]),
		notBefore: leaf.NotBefore.Unix(), notAfter: leaf.NotAfter.Unix(),
	}
	if e.point < 0 {
		return nil, errors.New("read certificate: its public key is not uncompressed")
	}
	copy(e.scalar[:], scalar)
	return e, nil
}

// issuers returns the one copy of the issuers' certificates that all entries share.
func (m *memory) issuers(chain [][]byte) [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, shared := range m.chains {
		if slices.EqualFunc(shared, chain, bytes.Equal) {
			return shared
		}
	}
	shared := make([][]byte, len(chain))
	for i, der := range chain {
		shared[i] = bytes.Clone(der)
	}
	m.chains = append(m.chains, shared)
	return shared
}

// GetCertificate is for [tls.Config.GetCertificate]. It answers from memory, in any case of the name, and returns
// (nil, nil), which makes crypto/tls send the alert unrecognized_name at once, for a hello without a name, and for a
// name without a certificate that is valid now. It never orders.
//
// A hello that offers acme-tls/1 alone is a TLS-ALPN-01 challenge and goes to [Config.Challenge]; for those the
// server's NextProtos must list [acme.ALPNProto].
func (k *Keeper) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acme.ALPNProto {
		return k.challenge(hello)
	}
	e := k.memory.lookup(hello.ServerName)
	if e == nil {
		return nil, nil
	}
	if now := time.Now().Unix(); now < e.notBefore || now > e.notAfter {
		return nil, nil
	}
	return e.certificate()
}
