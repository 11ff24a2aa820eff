package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

const (
	zone     = "bench.test"
	hostname = "sts.bench.test"
	mailHost = "mx.bench.test"
)

// world is what both servers serve: domains that share a policy, each with a key and a certificate of its own.
type world struct {
	policy  policygen.Policy
	domains []domain
	service store.Certificate // of hostname
	root    []byte            // PEM
}

type domain struct {
	name        policygen.Name
	id          string // of its policy
	certificate store.Certificate
}

// newWorld makes n domains. Their certificates are as large as public ones: of an intermediate authority that goes out
// with them, and with what public authorities put into them.
func newWorld(n int) (*world, error) {
	w := &world{policy: policygen.Policy{Mode: policygen.Enforce, MaxAge: 1209600, MX: []string{mailHost}}}
	root, err := newAuthority(nil, "Bench Root X1")
	if err != nil {
		return nil, err
	}
	w.root = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw})
	issuing, err := newAuthority(root, "Bench E1")
	if err != nil {
		return nil, err
	}
	if w.service, err = issuing.issue(hostname); err != nil {
		return nil, err
	}
	now := time.Now()
	w.domains = make([]domain, n)
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for i := range w.domains {
		g.Go(func() error {
			d := &w.domains[i]
			d.name = policygen.Name(fmt.Sprintf("customer-%06d.%s", i, zone))
			var err error
			// An id has 32 random bits beside the second: too few for a hundred thousand in one.
			if d.id, err = policygen.NewID(now.Add(-time.Duration(i)*time.Second), rand.Reader); err != nil {
				return fmt.Errorf("make an id: %w", err)
			}
			d.certificate, err = issuing.issue(d.name.PolicyHost())
			return err
		})
	}
	return w, g.Wait()
}

// looked is how many domains, the first by name, are in DNS: more than stspub looks at after a start.
const looked = 1000

// first is the same world with fewer domains.
func (w *world) first(n int) *world {
	less := *w
	less.domains = w.domains[:n]
	return &less
}

// records is the DNS zone as it stands when the first domains are live.
func (w *world) records() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s. A 127.0.0.1\n%s. A 127.0.0.1\n", hostname, mailHost)
	for _, d := range w.domains[:min(len(w.domains), looked)] {
		fmt.Fprintf(&b, "%s. MX 10 %s.\n%s. A 127.0.0.1\n%s. TXT %q\n",
			d.name, mailHost, d.name.PolicyHost(), d.name.RecordName(), policygen.RecordText(d.id))
	}
	return b.String()
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority is signed by parent, or by itself.
func newAuthority(parent *authority, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"XX"}, Organization: []string{"Bench"}, CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(3, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	if parent == nil {
		parent = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		return nil, fmt.Errorf("make authority %q: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read authority %q: %w", name, err)
	}
	return &authority{cert, key}, nil
}

// timestamps is the size of two signed certificate timestamps (RFC 6962), which every public certificate carries.
const timestamps = 242

// issue makes a certificate for one name, valid for 90 days.
func (a *authority) issue(name string) (store.Certificate, error) {
	var c store.Certificate
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, fmt.Errorf("make key of %q: %w", name, err)
	}
	random := make([]byte, 16+timestamps)
	_, _ = rand.Read(random) // never fails, says crypto/rand
	scts, err := asn1.Marshal(random[16:])
	if err != nil {
		return c, fmt.Errorf("make certificate of %q: %w", name, err)
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(random[:16]), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour).Truncate(time.Second), NotAfter: time.Now().AddDate(0, 0, 90).Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IssuingCertificateURL: []string{"http://e1.i.bench.test/"},
		CRLDistributionPoints: []string{"http://e1.c.bench.test/77.crl"},
		PolicyIdentifiers:     []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}},
		ExtraExtensions:       []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: scts}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return c, fmt.Errorf("make certificate of %q: %w", name, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return c, fmt.Errorf("write key of %q: %w", name, err)
	}
	return store.Certificate{
		Name: name, Key: pkcs8, Chain: [][]byte{der, a.cert.Raw}, NotBefore: template.NotBefore, NotAfter: template.NotAfter,
	}, nil
}

func writeFile(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}
