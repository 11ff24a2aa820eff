package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// CAOptions says how a [CA] behaves.
type CAOptions struct {
	Addr     string        // listen address; default "127.0.0.1:0"
	DNS      string        // "ADDR:PORT" of the DNS server it resolves by, over TCP; default: the system's
	HTTPPort int           // where http-01 is validated; default 80
	TLSPort  int           // where tls-alpn-01 is validated; default 443
	Lifetime time.Duration // of certificates, in whole seconds; default 90 days

	// Profiles are the kinds of certificates beside "default", and their lifetimes. With any, an order that asks for none
	// gets one at random.
	Profiles map[string]time.Duration
	// Bindings are the HMAC keys of external account bindings in base64url, by key id. With any, accounts need one.
	Bindings   map[string]string
	Blocked    []string // domains that it never issues for
	Between    int      // certificates between leaf and root; default 1
	Alternates int      // further roots, and chains to them that clients may ask for
	// Wrap stands before the CA, to look at requests, or to answer in its place; nil: nothing does.
	Wrap func(http.Handler) http.Handler

	Log *slog.Logger // gets what the CA says, at level Debug; default: nobody does
}

// CA is a certification authority that validates and issues as a public one does. Its root is new at every start.
type CA struct {
	DirectoryURL   string // of the ACME directory
	DirectoryCAPEM []byte // to be trusted for DirectoryURL's own HTTPS
	RootPEM        []byte // to be trusted for the certificates it issues

	server *http.Server
	store  *db.MemoryStore
}

// CAEnviron returns the environment variables (name to value) that make the CA validate at once and accept every
// nonce. Its library reads them in [StartCA] and has no other setting for them, so set them before: a test by
// t.Setenv, a command by os.Setenv. Without them a validation takes up to 5 s longer, and 5 % of the requests must be
// repeated.
func CAEnviron() map[string]string {
	return map[string]string{
		"PEBBLE_VA_NOSLEEP":      "1",
		"PEBBLE_WFE_NONCEREJECT": "0",
	}
}

// StartCA starts a CA. It ends with ctx or [CA.Close], but for one idle goroutine that its library cannot end.
func StartCA(ctx context.Context, o CAOptions) (*CA, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.HTTPPort == 0 {
		o.HTTPPort = 80
	}
	if o.TLSPort == 0 {
		o.TLSPort = 443
	}
	own, ownPEM, err := loopbackCertificate()
	if err != nil {
		return nil, fmt.Errorf("start CA: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("start CA: %w", err)
	}

	logger := caLogger(o.Log)
	profiles := map[string]ca.Profile{
		// A lifetime of zero is the library's default. It makes certificates a second shorter than it is told to.
		"default": {Description: "what it makes without being asked", ValidityPeriod: uint64(o.Lifetime / time.Second)},
	}
	for name, lifetime := range o.Profiles {
		profiles[name] = ca.Profile{Description: "lives for " + lifetime.String(), ValidityPeriod: uint64(lifetime / time.Second)}
	}
	store := db.NewMemoryStore()
	if err := fill(store, o); err != nil {
		return nil, fmt.Errorf("start CA: %w", err)
	}
	authority := ca.New(logger, store, "", "ecdsa", o.Alternates, max(o.Between, 1), profiles)
	validator := va.New(logger, o.HTTPPort, o.TLSPort, false, o.DNS, store)
	front := wfe.New(logger, store, validator, authority, []string{"lab.invalid"}, false, len(o.Bindings) > 0, 0, 0)
	handler := someAlone(front.Handler())
	if o.Wrap != nil {
		handler = o.Wrap(handler)
	}

	c := &CA{
		DirectoryURL:   "https://" + l.Addr().String() + wfe.DirectoryPath,
		DirectoryCAPEM: ownPEM,
		RootPEM:        authority.GetRootCert(0).PEM(),
		server: &http.Server{
			Handler:           handler,
			TLSConfig:         &tls.Config{Certificates: []tls.Certificate{own}},
			ErrorLog:          logger,
			ReadHeaderTimeout: 10 * time.Second,
		},
		store: store,
	}
	go c.server.ServeTLS(l, "", "")                  // ended by Close
	context.AfterFunc(ctx, func() { _ = c.Close() }) // nobody is left to tell
	return c, nil
}

// Close ends the CA and its connections.
func (c *CA) Close() error { return c.server.Close() }

// fill tells the library's store what the CA knows from the start.
func fill(store *db.MemoryStore, o CAOptions) error {
	for id, key := range o.Bindings {
		if err := store.AddExternalAccountKeyByID(id, key); err != nil {
			return fmt.Errorf("add binding %q: %w", id, err)
		}
	}
	for _, domain := range o.Blocked {
		if err := store.AddBlockedDomain(domain); err != nil {
			return fmt.Errorf("block %q: %w", domain, err)
		}
	}
	return nil
}

// SetRenewalInfo has the CA ask for the renewal of one of its certificates (DER) at another time than by itself (RFC 9773,
// Section 4.2). A window that is past asks for it at once.
func (c *CA) SetRenewalInfo(leaf []byte, start, end time.Time) error {
	cert, err := x509.ParseCertificate(leaf)
	if err != nil {
		return fmt.Errorf("set renewal info: %w", err)
	}
	answer := fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q},"explanationURL":"https://lab.invalid/why"}`,
		start.Format(time.RFC3339), end.Format(time.RFC3339))
	return c.store.SetARIResponse(cert.SerialNumber, answer)
}

// someAlone lets some requests run alone. In the library those for authorisations take the locks of order and authorisation
// in the other order than new orders do, and stand still for ever when several meet; and a new account is still being
// filled in when another request for it may read it.
func someAlone(h http.Handler) http.Handler {
	var mu sync.RWMutex // guards no data: it orders requests
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/authZ/") || r.URL.Path == "/sign-me-up" {
			mu.Lock()
			defer mu.Unlock()
		} else {
			mu.RLock()
			defer mu.RUnlock()
		}
		h.ServeHTTP(w, r)
	})
}

// caLogger turns the library's log into debug lines.
func caLogger(l *slog.Logger) *log.Logger {
	if l == nil {
		return log.New(io.Discard, "", 0)
	}
	return slog.NewLogLogger(l.Handler(), slog.LevelDebug)
}

// loopbackCertificate makes a self-signed certificate for loopback, and its PEM for those who shall trust it.
func loopbackCertificate() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "stspub lab directory"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make certificate: %w", err)
	}
	p := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, p, nil
}
