package sender

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

const (
	connectTimeout = 10 * time.Second // TCP and TLS, one address
	fetchTimeout   = time.Minute      // RFC 8461, Section 3.3
	probeTimeout   = 30 * time.Second // one MX: greeting, EHLO, STARTTLS
	maxTargets     = 16               // addresses of one host that are tried; its DNS may name any number of anybody's
)

// Client looks at domains from outside. Its fields must not change after the first call. It is safe for concurrent use.
type Client struct {
	// Resolver is asked for all names; it is required.
	Resolver *Resolver
	// Roots are trusted for policy hosts and MX; nil means the system's.
	Roots *x509.CertPool
	// HTTPSPort is where policy hosts are reached; zero means 443. Another one is for laboratories.
	HTTPSPort int
	// SMTPPort is where MX are reached; zero means 25. Another one is for laboratories.
	SMTPPort int
	// HELO is the name said to MX; empty means "localhost". Some MX turn away who has no public name.
	HELO string
	// Dial connects to "ADDR:PORT"; nil means a [net.Dialer]. Where others say what is looked at, it is that of a [Guard].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Step is the step that a fetch or a probe ended at.
type Step string

// The steps, in order. Those up to StepCertificate are of both kinds.
const (
	StepResolve     Step = "resolve"     // DNS did not answer
	StepAddress     Step = "address"     // DNS answered: there is no address
	StepConnect     Step = "connect"     // no TCP connection; [StepError.Refused] tells a closed port from silence
	StepTLS         Step = "tls"         // the TLS handshake; [StepError.Alert] tells whether the server ended it
	StepCertificate Step = "certificate" // the server's certificate is not valid for the host
	StepHTTP        Step = "http"        // no whole answer within a minute
	StepStatus      Step = "status"      // an answer, but not with status 200
	StepLength      Step = "length"      // more than 64 KiB
	StepSMTP        Step = "smtp"        // no greeting, or EHLO refused
	StepSTARTTLS    Step = "starttls"    // not offered, or refused
)

// StepError says where a fetch or probe ended, and why.
type StepError struct {
	Step Step
	Host string // policy host or MX
	Addr string // "ADDR:PORT"; empty before the first connection
	Err  error
	verb string
}

func (e *StepError) Error() string {
	if e.Addr == "" {
		return fmt.Sprintf("%s %q: %v", e.verb, e.Host, e.Err)
	}
	return fmt.Sprintf("%s %q at %s: %v", e.verb, e.Host, e.Addr, e.Err)
}

func (e *StepError) Unwrap() error { return e.Err }

// Refused says that the port is closed: somebody answered that nobody listens.
func (e *StepError) Refused() bool { return errors.Is(e.Err, syscall.ECONNREFUSED) }

// Alert says that the server ended the TLS handshake, as it must when it has no certificate for the name (RFC 8461,
// Section 7.1).
func (e *StepError) Alert() bool {
	var op *net.OpError
	return e.Step == StepTLS && errors.As(e.Err, &op) && op.Op == "remote error"
}

func (c *Client) httpsPort() int { return cmp.Or(c.HTTPSPort, 443) }

func (c *Client) smtpPort() int { return cmp.Or(c.SMTPPort, 25) }

// targets resolves a host to "ADDR:PORT"s. It may return some together with an error: one of A and AAAA stayed without
// answer. That is enough for a sender.
func (c *Client) targets(ctx context.Context, host string, port int) (Addresses, []string, *StepError) {
	found, err := c.Resolver.Addrs(ctx, host)
	var out []string
	for _, a := range found.Addrs[:min(len(found.Addrs), maxTargets)] {
		out = append(out, net.JoinHostPort(a.String(), strconv.Itoa(port)))
	}
	switch {
	case err != nil:
		return found, out, &StepError{Step: StepResolve, Host: host, Err: err}
	case len(out) > 0:
		return found, out, nil
	case found.NXDomain:
		return found, nil, &StepError{Step: StepAddress, Host: host, Err: errors.New("the name does not exist")}
	}
	return found, nil, &StepError{Step: StepAddress, Host: host, Err: errors.New("no A or AAAA record")}
}

// Connect opens a TCP connection to "ADDR:PORT", within 10 seconds.
func (c *Client) Connect(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return dial(ctx, "tcp", addr)
}

// tlsConfig verifies the certificate as senders do. RFC 8461, Section 7.2: TLS 1.2 or newer.
func (c *Client) tlsConfig(host string) *tls.Config {
	return &tls.Config{ServerName: host, RootCAs: c.Roots, MinVersion: tls.VersionTLS12}
}

// handshakeStep tells a bad certificate, which it returns, from other ends of a handshake.
func handshakeStep(err error) (Step, *x509.Certificate) {
	var bad *tls.CertificateVerificationError
	if !errors.As(err, &bad) {
		return StepTLS, nil
	}
	if len(bad.UnverifiedCertificates) == 0 {
		return StepCertificate, nil
	}
	return StepCertificate, bad.UnverifiedCertificates[0]
}

// cause drops what the caller says anyway: the URL, and the address that was dialled.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		err = op.Err
	}
	if isTimeout(err) {
		return fmt.Errorf("no answer in time: %w", err)
	}
	return err
}
