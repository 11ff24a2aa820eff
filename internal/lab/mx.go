package lab

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// MX is a mail server that offers STARTTLS with a good certificate and takes no mail.
type MX struct {
	Addr    string // "ADDR:PORT" it listens at
	RootPEM []byte // to be trusted for its certificate

	server      *smtp.Server
	done        chan struct{}
	connections atomic.Int64
}

// MXOptions are the ways in which a mail server can be less than good.
type MXOptions struct {
	Addr  string
	Names []string // of its certificate, at least one
	// Lifetime is how long the certificate is still valid; zero: 90 days; less: it has expired.
	Lifetime time.Duration
	Plain    bool // STARTTLS is not offered
}

// StartMX starts a mail server for the names, with a certificate that carries them all. It ends with ctx or [MX.Close].
func StartMX(ctx context.Context, addr string, names ...string) (*MX, error) {
	return StartMXWith(ctx, MXOptions{Addr: addr, Names: names})
}

// StartMXWith starts a mail server as the options say. It ends with ctx or [MX.Close].
func StartMXWith(ctx context.Context, o MXOptions) (*MX, error) {
	cert, root, err := selfSigned(o.Names, cmp.Or(o.Lifetime, 90*24*time.Hour))
	if err != nil {
		return nil, fmt.Errorf("make a certificate for the mail server: %w", err)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("start the mail server: %w", err)
	}
	m := &MX{Addr: ln.Addr().String(), RootPEM: root, server: smtp.NewServer(refuseMail{}), done: make(chan struct{})}
	m.server.Domain = o.Names[0]
	if !o.Plain {
		m.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	m.server.ReadTimeout, m.server.WriteTimeout = time.Minute, time.Minute
	m.server.ErrorLog = silent{}
	go func() {
		defer close(m.done)
		_ = m.server.Serve(counted{ln, &m.connections}) // it ends by Close
	}()
	context.AfterFunc(ctx, func() { _ = m.Close() })
	return m, nil
}

// Connections counts the connections so far.
func (m *MX) Connections() int { return int(m.connections.Load()) }

// counted is a listener that counts.
type counted struct {
	net.Listener
	n *atomic.Int64
}

func (l counted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return conn, err
}

// Close ends the server and its connections.
func (m *MX) Close() error {
	err := m.server.Close()
	<-m.done
	if errors.Is(err, smtp.ErrServerClosed) {
		return nil
	}
	return err
}

// selfSigned makes a certificate that is its own root and valid for left from now.
func selfSigned(names []string, left time.Duration) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: now.Add(min(0, left) - time.Hour), NotAfter: now.Add(left),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// refuseMail is a backend that takes no mail.
type refuseMail struct{}

func (refuseMail) NewSession(*smtp.Conn) (smtp.Session, error) { return refuseMail{}, nil }
func (refuseMail) Reset()                                      {}
func (refuseMail) Logout() error                               { return nil }
func (refuseMail) Data(io.Reader) error                        { return noMail() }
func (refuseMail) Rcpt(string, *smtp.RcptOptions) error        { return noMail() }
func (refuseMail) Mail(string, *smtp.MailOptions) error        { return noMail() }

func noMail() error {
	return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "no mail here"}
}

type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}
