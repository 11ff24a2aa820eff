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
	mu      sync.Mutex // guards issuers
	issuers map[string][]byte
}

// entry is one certificate, ready to be served. It has no parsed leaf: that alone would take several KB a name, and
// the server side of a handshake does not look at it.
type entry struct {
	certificate         tls.Certificate
	notBefore, notAfter int64 // Unix seconds
}

func (m *memory) init() {
	m.seed = maphash.MakeSeed()
	m.issuers = make(map[string][]byte)
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
	e := &entry{notBefore: leaf.NotBefore.Unix(), notAfter: leaf.NotAfter.Unix()}
	e.certificate.PrivateKey = key
	e.certificate.Certificate = make([][]byte, len(c.Chain))
	e.certificate.Certificate[0] = bytes.Clone(c.Chain[0])
	for i, der := range c.Chain[1:] {
		e.certificate.Certificate[i+1] = m.issuer(der)
	}
	return e, nil
}

// issuer returns the one copy of an issuer's certificate that all entries share.
func (m *memory) issuer(der []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	shared, ok := m.issuers[string(der)]
	if !ok {
		shared = bytes.Clone(der)
		m.issuers[string(der)] = shared
	}
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
	return &e.certificate, nil
}
