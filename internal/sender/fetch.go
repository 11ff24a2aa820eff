package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// maxBody is what senders read at most. RFC 8461, Section 3.3.
const maxBody = 64 << 10

// policyPath is fixed. RFC 8461, Section 3.2.
const policyPath = "/.well-known/mta-sts.txt"

// Fetched is an answer of a policy host. With an error it holds what was there until then.
type Fetched struct {
	Addr        string // "ADDR:PORT" that was reached
	Status      int    // 0: no answer
	Proto       string // "HTTP/1.1" or "HTTP/2.0"
	Header      http.Header
	Body        []byte            // at most 64 KiB
	Certificate *x509.Certificate // the policy host's, also when it is not valid
	Took        time.Duration     // from the connection to the last byte
}

// FetchPolicy fetches a domain's policy as a sender does: it resolves the policy host, takes the first address that
// accepts a connection, demands a certificate that is valid for the policy host, TLS 1.2 or newer and status 200, follows
// no redirect, and stops after 64 KiB or a minute (RFC 8461, Section 3.3). It does not judge media type and body.
// Errors are of type [*StepError].
func (c *Client) FetchPolicy(ctx context.Context, name policygen.Name) (Fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	_, addrs, failed := c.targets(ctx, name.PolicyHost(), c.httpsPort())
	if len(addrs) == 0 {
		failed.verb = fetchVerb
		return Fetched{}, failed
	}
	var f Fetched
	var err error
	for _, addr := range addrs {
		f, err = c.FetchPolicyAt(ctx, name, addr)
		var step *StepError
		if !errors.As(err, &step) || step.Step != StepConnect || ctx.Err() != nil {
			break
		}
	}
	return f, err
}

const fetchVerb = "fetch policy from"

// FetchPolicyAt is [Client.FetchPolicy] from one "ADDR:PORT", with SNI and Host of the policy host: a node's own
// listener, or one of several addresses.
func (c *Client) FetchPolicyAt(ctx context.Context, name policygen.Name, addr string) (Fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	f := Fetched{Addr: addr}
	begin := time.Now()
	step, err := c.fetch(ctx, name.PolicyHost(), &f)
	f.Took = time.Since(begin)
	if err != nil {
		return f, &StepError{Step: step, Host: name.PolicyHost(), Addr: addr, Err: cause(err), verb: fetchVerb}
	}
	return f, nil
}

func (c *Client) fetch(ctx context.Context, host string, f *Fetched) (Step, error) {
	conn, err := c.Connect(ctx, f.Addr)
	if err != nil {
		return StepConnect, err
	}
	conf := c.tlsConfig(host)
	conf.NextProtos = []string{"h2", "http/1.1"}
	secure := tls.Client(conn, conf)
	defer secure.Close()
	if err := handshake(ctx, secure); err != nil {
		step, leaf := handshakeStep(err)
		f.Certificate = leaf
		return step, err
	}
	f.Certificate = secure.ConnectionState().PeerCertificates[0]

	answer, err := get(ctx, host, secure)
	if err != nil {
		return StepHTTP, err
	}
	defer answer.Body.Close()
	f.Status, f.Proto, f.Header = answer.StatusCode, answer.Proto, answer.Header
	f.Body, err = io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	long := len(f.Body) > maxBody
	f.Body = f.Body[:min(len(f.Body), maxBody)]
	switch {
	case f.Status != http.StatusOK: // of an error page nothing else matters
		return StepStatus, fmt.Errorf("status %d", f.Status)
	case err != nil:
		return StepHTTP, err
	case long:
		return StepLength, errors.New("longer than 64 KiB")
	}
	return "", nil
}

func handshake(ctx context.Context, conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return conn.HandshakeContext(ctx)
}

// get asks over one connection that stands already, in the protocol that it has agreed upon.
func get(ctx context.Context, host string, conn net.Conn) (*http.Response, error) {
	transport := &http.Transport{
		DialTLSContext:         func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		ForceAttemptHTTP2:      true,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+policyPath, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "stspub")
	// RFC 8461, Section 3.3: redirects must not be followed. The transport alone follows none.
	return transport.RoundTrip(request)
}
