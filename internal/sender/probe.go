package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/smtp"
	"net/textproto"
	"slices"

	"github.com/stspub/stspub/internal/policygen"
)

// maxSMTP bounds what an MX may say; greetings and EHLO answers are far below.
const maxSMTP = 1 << 20

// Probed is what an MX showed. With an error it holds what was there until then.
type Probed struct {
	Addr        string            // "ADDR:PORT" that was reached
	Addresses   Addresses         // all that DNS has for the host
	STARTTLS    bool              // offered
	Certificate *x509.Certificate // the MX's, also when it is not valid
	TLSVersion  string            // as "TLS 1.3"
	Covered     bool              // the policy lists the MX. RFC 8461, Section 4.1
	// Listed says that the certificate carries a name that the policy lists. That is what Postfix looks for, in place of
	// Covered.
	Listed bool
}

// ProbeMX connects to an MX, the first of its addresses that answers, and looks whether a sender that honours the policy
// would deliver: STARTTLS with a certificate that is valid for the MX (RFC 8461, Section 4.2). No mail is sent, and
// Covered and Listed are left to the caller to judge. Errors are of type [*StepError].
func (c *Client) ProbeMX(ctx context.Context, host string, p policygen.Policy) (Probed, error) {
	probed, err := c.probe(ctx, host)
	probed.Covered = p.Covers(host)
	probed.Listed = listed(probed.Certificate, p)
	if err != nil {
		return probed, err
	}
	return probed, nil
}

func (c *Client) probe(ctx context.Context, host string) (Probed, *StepError) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	found, addrs, failed := c.targets(ctx, host, c.smtpPort())
	for _, addr := range addrs {
		p := Probed{Addr: addr, Addresses: found}
		step, err := c.converse(ctx, host, &p)
		if err == nil {
			return p, nil
		}
		failed = &StepError{Step: step, Host: host, Addr: addr, Err: cause(err), verb: probeVerb}
		if step != StepConnect || ctx.Err() != nil {
			return p, failed
		}
	}
	failed.verb = probeVerb
	return Probed{Addr: failed.Addr, Addresses: found}, failed
}

const probeVerb = "probe MX"

func (c *Client) converse(ctx context.Context, host string, p *Probed) (Step, error) {
	conn, err := c.Connect(ctx, p.Addr)
	if err != nil {
		return StepConnect, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	step, err := c.upgrade(&boundedConn{conn, maxSMTP}, host, p)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return step, err
}

// upgrade speaks SMTP up to a secure connection, and takes its leave.
func (c *Client) upgrade(conn net.Conn, host string, p *Probed) (Step, error) {
	session, err := smtp.NewClient(conn, host)
	if err != nil {
		return StepSMTP, err
	}
	helo := c.HELO
	if helo == "" {
		helo = "localhost"
	}
	if err := session.Hello(helo); err != nil {
		return StepSMTP, err
	}
	if p.STARTTLS, _ = session.Extension("STARTTLS"); !p.STARTTLS {
		_ = session.Quit()
		return StepSTARTTLS, errors.New("STARTTLS is not offered")
	}
	err = session.StartTLS(c.tlsConfig(host))
	if state, ok := session.TLSConnectionState(); ok && state.HandshakeComplete {
		p.Certificate = state.PeerCertificates[0]
		p.TLSVersion = tls.VersionName(state.Version)
	}
	var refused *textproto.Error
	switch {
	case err == nil:
		_ = session.Quit() // the probe is over; what is said to it matters no more
		return "", nil
	case errors.As(err, &refused) && p.Certificate == nil:
		_ = session.Quit()
		return StepSTARTTLS, err
	case errors.As(err, &refused):
		return StepSMTP, err
	}
	step, leaf := handshakeStep(err)
	if leaf != nil {
		p.Certificate = leaf
	}
	return step, err
}

// listed compares as Postfix does: a name in the certificate with the patterns, either of which may be a wildcard.
func listed(cert *x509.Certificate, p policygen.Policy) bool {
	if cert == nil {
		return false
	}
	return slices.ContainsFunc(cert.DNSNames, func(san string) bool {
		mine := policygen.Policy{MX: []string{san}}
		return p.Covers(san) || slices.Contains(p.MX, san) || slices.ContainsFunc(p.MX, mine.Covers)
	})
}

// boundedConn ends a conversation that has no end.
type boundedConn struct {
	net.Conn
	left int
}

func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.New("the answer has no end")
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}
