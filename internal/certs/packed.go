package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
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
	renew               int64            // when it is planned to be renewed; 0 or less: not known
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
	if p.chain, room = m.familyOf(c.Chain[1:], c.Chain[0]); !room {
		return nil, errors.New("keep the issuers' certificates: there are too many different ones")
	}
	return p, nil
}

// loader returns what puts certificates of the store, which were checked before they were saved, into a memory: those
// without key and chain are gone.
func (k *Keeper) loader(m *memory) func(store.Certificate) error {
	return func(c store.Certificate) error {
		if len(c.Key) == 0 && len(c.Chain) == 0 {
			m.remove(c.Name)
			return nil
		}
		p, ok := m.glance(c)
		if !ok {
			var err error
			if p, err = m.pack(c); err != nil {
				k.log.Error("left out a certificate of the store", "domain", c.Name, "err", err)
				return nil
			}
		}
		p.renew = c.Renew.Unix()
		m.set(c.Name, p)
		return nil
	}
}

// Parts of what crypto/x509 writes for a P-256 key, and of a certificate.
const (
	keyBegin  = "\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20"
	keyMiddle = "\xa1\x44\x03\x42\x00" // between scalar and point
	keyLength = len(keyBegin) + scalarSize + len(keyMiddle) + pointSize
	validity  = "\x30\x1e\x17\x0d" // a SEQUENCE of two UTCTime
	utcTime   = "060102150405Z"
)

// glance packs a certificate that was checked before, without parsing it, which would take a start seconds: it finds the
// key, the time and the name by their forms. False: they are not where they mostly are.
func (m *memory) glance(c store.Certificate) (*packed, bool) {
	if len(c.Chain) == 0 || len(c.Chain[0]) > maxLeaf || len(c.Key) != keyLength || string(c.Key[:len(keyBegin)]) != keyBegin ||
		!bytes.HasPrefix(c.Key[len(keyBegin)+scalarSize:], []byte(keyMiddle)) {
		return nil, false
	}
	p := &packed{leaf: c.Chain[0]}
	copy(p.scalar[:], c.Key[len(keyBegin):])
	p.point = bytes.Index(p.leaf, c.Key[keyLength-pointSize:])
	at := bytes.Index(p.leaf, []byte(validity)) + len(validity)
	named := bytes.Contains(p.leaf, append([]byte{0x82, byte(len(c.Name))}, c.Name...)) // RFC 5280, Section 4.2.1.6: dNSName
	if p.point < 0 || !named || at < len(validity) || at+2*len(utcTime)+2 > p.point {
		return nil, false
	}
	var ok [2]bool
	p.notBefore, ok[0] = unixTime(p.leaf[at : at+len(utcTime)])
	p.notAfter, ok[1] = unixTime(p.leaf[at+len(utcTime)+2 : at+2*len(utcTime)+2])
	var room bool
	p.chain, room = m.familyOf(c.Chain[1:], c.Chain[0])
	p.authority = m.authorityOf(c.Authority)
	return p, ok == [2]bool{true, true} && room
}

// unixTime reads a UTCTime that ends in Z. RFC 5280, Section 4.1.2.5.1: 50 and above are years of the last century.
func unixTime(text []byte) (int64, bool) {
	var n [6]int
	for i := range n {
		a, b := text[2*i]-'0', text[2*i+1]-'0'
		if a > 9 || b > 9 {
			return 0, false
		}
		n[i] = 10*int(a) + int(b)
	}
	if text[12] != 'Z' || n[0] >= 50 {
		return 0, false
	}
	return time.Date(2000+n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC).Unix(), true
}

// certificate makes what crypto/tls serves of what [memory.lookup] found. It allocates; to keep the key parsed would be ten
// objects a name for the garbage collector to visit and double the memory, and saves a handshake 2 µs.
func (m *memory) certificate(v *view) (*tls.Certificate, error) {
	der, err := v.der()
	if err != nil {
		return nil, err
	}
	key := &signer{&m.keys, newPublic(der[v.point : int(v.point)+pointSize]), v.scalar}
	chain := make([][]byte, 1, 1+len(v.family.issuers))
	chain[0] = der
	return &tls.Certificate{Certificate: append(chain, v.family.issuers...), PrivateKey: key}, nil
}

// GetCertificate is for [tls.Config.GetCertificate]. It answers from memory, in any case of the name, and returns
// (nil, nil), which makes crypto/tls send the alert unrecognized_name at once, for a hello without a name, and for a
// name without a certificate that is valid now. It never orders.
//
// A hello that offers acme-tls/1 alone is a TLS-ALPN-01 challenge and goes to [Config.Challenge], if the name is wanted or
// there are few such; for those the server's NextProtos must list [acme.ALPNProto].
func (k *Keeper) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acme.ALPNProto {
		if !k.strangers.Allow() && !k.wants(hello.ServerName) {
			return nil, nil
		}
		return k.challenge(hello)
	}
	v, found := k.memory.lookup(hello.ServerName)
	if !found || !v.valid(time.Now()) {
		return nil, nil
	}
	return k.memory.certificate(&v)
}

// FewStrangers returns a handler that gives the challenges of HTTP-01 for names that are wanted, and few others, to answers,
// and the rest to fallback: as GetCertificate does with those of TLS-ALPN-01.
func (k *Keeper) FewStrangers(answers, fallback http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := strings.Cut(r.Host, ":") // what is an IPv6 address is no name
		if !k.strangers.Allow() && !k.wants(host) {
			fallback.ServeHTTP(w, r)
			return
		}
		answers.ServeHTTP(w, r)
	})
}

// wants says whether a certificate of a name, in any case, is wanted.
func (k *Keeper) wants(name string) bool {
	name = canonical(name)
	if known, found := k.memory.find(name); found && known.wanted {
		return true
	}
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.items[name]
	return i != nil && i.wanted
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
