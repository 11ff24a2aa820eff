package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/lab"
)

// TestCAIssues orders a certificate step by step, as RFC 8555 has it, with a name that only our DNS server knows.
func TestCAIssues(t *testing.T) {
	for name, value := range lab.CAEnviron() {
		t.Setenv(name, value)
	}
	d, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{
		{Name: "customer.test", Text: "mta-sts CNAME target.hoster.test."},
		{Name: "hoster.test", Text: "target A 127.0.0.1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ca, err := lab.StartCA(ctx, lab.CAOptions{
		DNS: d.Addr, HTTPPort: l.Addr().(*net.TCPAddr).Port, Lifetime: 10 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}

	c := &acme.Client{DirectoryURL: ca.DirectoryURL, Key: newKey(t), HTTPClient: trusting(t, ca.DirectoryCAPEM)}
	if _, err := c.Register(ctx, &acme.Account{}, acme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 1)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer := <-answers
		answers <- answer
		w.Write([]byte(answer))
	}))
	chain := order(ctx, t, c, answers)

	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life != 10*time.Minute-time.Second {
		t.Errorf("it lives for %v", life)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.RootPEM)
	for _, der := range chain[1:] {
		issuer, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		between.AddCert(issuer)
	}
	o := x509.VerifyOptions{DNSName: "mta-sts.customer.test", Roots: roots, Intermediates: between}
	if _, err := leaf.Verify(o); err != nil {
		t.Errorf("the certificate is not trusted by RootPEM: %v", err)
	}
	if d.Queries("mta-sts.customer.test", "A") == 0 {
		t.Error("the CA did not ask our DNS server")
	}

	cancel()
	if err := ca.Close(); err != nil {
		t.Error(err)
	}
	if _, err := trusting(t, ca.DirectoryCAPEM).Get(ca.DirectoryURL); err == nil {
		t.Error("the CA answers after its end")
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func trusting(t *testing.T, pem []byte) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in DirectoryCAPEM")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// order obtains a certificate for mta-sts.customer.test by http-01.
func order(ctx context.Context, t *testing.T, c *acme.Client, answers chan<- string) [][]byte {
	t.Helper()
	o, err := c.AuthorizeOrder(ctx, acme.DomainIDs("mta-sts.customer.test"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := c.GetAuthorization(ctx, o.AuthzURLs[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range z.Challenges {
		if ch.Type != "http-01" {
			continue
		}
		answer, err := c.HTTP01ChallengeResponse(ch.Token)
		if err != nil {
			t.Fatal(err)
		}
		answers <- answer
		if _, err := c.Accept(ctx, ch); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.WaitAuthorization(ctx, z.URI); err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"mta-sts.customer.test"}}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := c.CreateCertFromOrder(ctx, o, csr, true)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}
