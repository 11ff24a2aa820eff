package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/publish"
)

// maxProblem bounds what is read of a problem document, in bytes. A refused reload names every mistake of the file.
const maxProblem = 1 << 20

// A Client speaks the admin API of a running stspub. What the server refuses comes back as a [*Problem]; the error of a
// server that cannot be reached says what to do. Its methods may be called at the same time.
type Client struct {
	addr   string
	base   string // of URLs
	token  string
	tenant string
	http   http.Client
}

// NewClient returns a client of the admin listener at "unix:PATH" or "ADDR:PORT", as [server] admin has it, or at
// "https://HOST:PORT", as admin_tls has it. It does not connect yet.
func NewClient(addr string) *Client {
	network, target, base := "tcp", addr, "http://localhost"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, target = "unix", path
	} else if strings.HasPrefix(addr, "https://") {
		target, base = "", strings.TrimSuffix(addr, "/")
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &Client{addr: addr, base: base, http: http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, tcp, host string) (net.Conn, error) {
				if target == "" {
					return dialer.DialContext(ctx, tcp, host)
				}
				return dialer.DialContext(ctx, network, target)
			},
			DisableKeepAlives: true, // a command asks once
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// As returns a client that is let in by a token, and asks about a tenant. Empty: without a token, which the socket does not
// need, and about the tenant of the token, or else the default one.
func (c *Client) As(token, tenant string) *Client {
	as := *c
	as.token, as.tenant = token, tenant
	return &as
}

// Domains calls f for every domain by name, or with faults only for those that need a human, until f returns an error,
// which it returns.
func (c *Client) Domains(ctx context.Context, faults bool, f func(publish.Status) error) error {
	return c.Find(ctx, DomainQuery{Faults: faults}, f)
}

// Certificates says how it stands with all certificates.
func (c *Client) Certificates(ctx context.Context) (certs.Overview, error) {
	return ask[certs.Overview](ctx, c, http.MethodGet, "/v1/certificates", nil, "show certificates")
}

// CertificateNames calls f for every name that is wanted or has a certificate, or with waiting only for those with more to
// say than that it is good, until f returns an error, which it returns.
func (c *Client) CertificateNames(ctx context.Context, waiting bool, f func(certs.Named) error) error {
	path := "/v1/certificates/names"
	if waiting {
		path += "?waiting=1"
	}
	return lines(ctx, c, path, "list certificates", f)
}

// lines calls f for every line of an answer.
func lines[T any](ctx context.Context, c *Client, path, doing string, f func(T) error) error {
	resp, err := c.send(ctx, http.MethodGet, path, linesType, http.NoBody)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var v T
		switch err := dec.Decode(&v); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%s: read answer: %w", doing, err)
		}
		if err := f(v); err != nil {
			return err
		}
	}
}

// Domain returns one domain, with history. The error is store.ErrNotFound to errors.Is when there is none of that name.
func (c *Client) Domain(ctx context.Context, name string) (publish.Status, error) {
	return ask[publish.Status](ctx, c, http.MethodGet, c.scoped("/v1/domains/"+url.PathEscape(name), nil), nil, "show domain")
}

// Faults returns the faults of the service as a whole, by subject.
func (c *Client) Faults(ctx context.Context) (map[string]string, error) {
	return ask[map[string]string](ctx, c, http.MethodGet, "/v1/faults", nil, "show faults")
}

// Nodes returns the nodes on the server's store that are not gone.
func (c *Client) Nodes(ctx context.Context) ([]publish.NodeStatus, error) {
	return ask[[]publish.NodeStatus](ctx, c, http.MethodGet, "/v1/nodes", nil, "list nodes")
}

// RemoveNode declares a node gone.
func (c *Client) RemoveNode(ctx context.Context, id string) error {
	return c.tell(ctx, http.MethodDelete, "/v1/nodes/"+url.PathEscape(id), "remove node")
}

// Adopt allows a domain's foreign record to be replaced.
func (c *Client) Adopt(ctx context.Context, name string) error { return c.act(ctx, "adopt", name, nil) }

// Promote ends a domain's roll-out; with testing it goes back to mode testing.
func (c *Client) Promote(ctx context.Context, name string, testing bool) error {
	if testing {
		return c.act(ctx, "promote", name, url.Values{"testing": {"1"}})
	}
	return c.act(ctx, "promote", name, nil)
}

// Expel ends a domain's drain now.
func (c *Client) Expel(ctx context.Context, name string) error { return c.act(ctx, "expel", name, nil) }

// Retry has a domain looked at now, and its certificate ordered without a pause.
func (c *Client) Retry(ctx context.Context, name string) error { return c.act(ctx, "retry", name, nil) }

// act has something done with a domain.
func (c *Client) act(ctx context.Context, what, name string, q url.Values) error {
	return c.tell(ctx, http.MethodPost, c.scoped("/v1/domains/"+url.PathEscape(name)+"/"+what, q), what+" domain")
}

// Reload makes the server read its configuration again. The hash of a plan, which may be empty, lets through what it
// would refuse.
func (c *Client) Reload(ctx context.Context, hash string) (publish.ReloadReport, error) {
	path := "/v1/reload"
	if hash != "" {
		path += "?force=" + url.QueryEscape(hash)
	}
	return ask[publish.ReloadReport](ctx, c, http.MethodPost, path, nil, "reload")
}

// Healthz returns nil when the server answers that it is alive.
func (c *Client) Healthz(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/healthz", nil)
}

// scoped is a path with a query, and with the tenant that it is about.
func (c *Client) scoped(path string, q url.Values) string {
	if c.tenant != "" {
		if q == nil {
			q = url.Values{}
		}
		q.Set("tenant", c.tenant)
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// ask sends a value, unless it is nil, and returns the answer. Its errors begin with what it was doing.
func ask[T any](ctx context.Context, c *Client, method, path string, send any, doing string) (T, error) {
	var v, none T
	if err := c.put(ctx, method, path, send, &v); err != nil {
		return none, fmt.Errorf("%s: %w", doing, err)
	}
	return v, nil
}

// tell is ask where nothing is sent and no answer is read.
func (c *Client) tell(ctx context.Context, method, path, doing string) error {
	if err := c.call(ctx, method, path, nil); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// call reads the answer into v, unless v is nil.
func (c *Client) call(ctx context.Context, method, path string, v any) error {
	return c.put(ctx, method, path, nil, v)
}

// put is call with a value to send; nil: none.
func (c *Client) put(ctx context.Context, method, path string, send, v any) error {
	body := io.Reader(http.NoBody)
	if send != nil {
		text, err := json.Marshal(send)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	resp, err := c.send(ctx, method, path, jsonType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// send returns a good answer, whose body the caller closes. What it sends, but for http.NoBody, is JSON.
func (c *Client) send(ctx context.Context, method, path, accept string, body io.Reader) (*http.Response, error) {
	req, err := c.request(ctx, method, path, accept, body)
	if err != nil {
		return nil, err
	}
	if body != http.NoBody {
		req.Header.Set("Content-Type", jsonType)
	}
	return c.receive(req)
}

func (c *Client) request(ctx context.Context, method, path, accept string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask %q: %w", c.addr, err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("Accept", accept)
	return req, nil
}

// receive sends a request, and returns an answer that is no problem.
func (c *Client) receive(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	problem := &Problem{}
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if err := json.Unmarshal(said, problem); err != nil || problem.Detail == "" {
		return nil, fmt.Errorf("ask %q: answered %s, which is not how stspub answers", c.addr, resp.Status)
	}
	return nil, problem
}

// unreached says what to do about a server that cannot be reached.
func (c *Client) unreached(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // it only adds a URL that nobody wrote
	}
	const running = `is "stspub serve" running, and is this the [server] admin of its configuration?`
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("connect to %q: no such socket; %s: %w", c.addr, running, fs.ErrNotExist)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("connect to %q: nobody listens there; %s: %w", c.addr, running, syscall.ECONNREFUSED)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("connect to %q: only the user and the group of the socket may; run the command as one of them, or by sudo: %w", c.addr, fs.ErrPermission)
	}
	return fmt.Errorf("ask %q: %w", c.addr, err)
}
