package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/store"
)

// packed is a certificate with its key as the memory takes it.
type packed struct {
	scalar              [scalarSize]byte // of the private key
	leaf                []byte           // DER
	point               int              // where in leaf the public key is
	chain               uint16           // of issuers, in tables
	authority           uint8            // in tables
	notBefore, notAfter int64            // Unix seconds
}

// pack checks a certificate and makes it ready to be served. It does not look at the time, which
// [Keeper.GetCertificate] does at every handshake.
func (m *memory) pack(c store.Certificate) (*packed, error) {
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
	return m.fold(c, leaf, key)
}

// fold packs what was checked.
func (m *memory) fold(c store.Certificate, leaf *x509.Certificate, key *ecdsa.PrivateKey) (*packed, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, errors.New("write public key: not a point of P-256")
	}
	scalar, err := key.Bytes()
	if err != nil {
		return nil, errors.New("write key: not a P-256 key") // the cause could quote it
	}
	p := &packed{
		leaf: c.Chain[0], point: bytes.Index(c.Chain[0], point), notBefore: leaf.NotBefore.Unix(), notAfter: leaf.NotAfter.Unix(),
		authority: m.authorityOf(c.Authority),
	}
	copy(p.scalar[:], scalar)
	if p.point < 0 {
		return nil, errors.New("read certificate: its public key is not uncompressed")
	}
	if len(p.leaf) > maxLeaf {
		return nil, fmt.Errorf("read certificate: it is %d bytes long, more than %d", len(p.leaf), maxLeaf)
	}
	var room bool
	if p.chain, room = m.chainOf(c.Chain[1:]); !room {
		return nil, errors.New("keep the issuers' certificates: there are too many different ones")
	}
	return p, nil
}

// certificate makes what crypto/tls serves. It allocates; to keep the key parsed would be ten objects a name for the
// garbage collector to visit and double the memory, and saves a handshake 2 µs.
func (v *view) certificate() (*tls.Certificate, error) {
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), v.der[v.point:int(v.point)+pointSize])
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	//lint:ignore SA1019 ecdsa.ParseRawPrivateKey would derive the public key again, at 18 µs a handshake; that it belongs
	// to the scalar was checked by [memory.pack].
	key := &ecdsa.PrivateKey{PublicKey: *public, D: new(big.Int).SetBytes(v.scalar)}
	chain := make([][]byte, 1, 1+len(v.issuers))
	chain[0] = v.der
	return &tls.Certificate{Certificate: append(chain, v.issuers...), PrivateKey: key}, nil
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
	v, found := k.memory.lookup(hello.ServerName)
	if !found || !v.valid(time.Now()) {
		return nil, nil
	}
	return v.certificate()
}

// Serves says whether there is a certificate for a name, in any case, that is valid now. It allocates nothing.
func (k *Keeper) Serves(name string) bool {
	v, found := k.memory.lookup(name)
	return found && v.valid(time.Now())
}

func (h *head) valid(now time.Time) bool {
	unix := now.Unix()
	return int64(h.notBefore) <= unix && unix <= int64(h.notAfter)
}
