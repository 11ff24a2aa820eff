package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxAnswer bounds what is read of an authority's answer, in bytes.
	maxAnswer = 1 << 20
	// answerTimeout bounds one answer, its body included: all orders may wait for it.
	answerTimeout = time.Minute
)

// wire is the way to an authority. It keeps to a pace, bounds answers in size and time, and the pauses that they ask for,
// and names the authority in errors. Where the directory came by TLS, all else does: whom the authority names inside our
// network has no certificate to show, and hears nothing.
type wire struct {
	secure bool
	limit  *rate.Limiter
	next   http.RoundTripper
}

// newWire makes a wire to the authority of a directory, for at most so many requests a second; 0: any number.
func newWire(directory string, perSecond int, next http.RoundTripper) *wire {
	w := &wire{strings.HasPrefix(directory, "https:"), rate.NewLimiter(rate.Inf, 0), next}
	if perSecond > 0 {
		w.limit = rate.NewLimiter(rate.Limit(perSecond), perSecond)
	}
	return w
}

// stay has redirects taken for answers. What is signed for one address is good at no other (RFC 8555, Section 6.4), and an
// authority is not to send us elsewhere.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// RoundTrip is for http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if w.secure && req.URL.Scheme != "https" {
		closeBody(req)
		return nil, fmt.Errorf("ask the authority at %s: it names an address without TLS, %q", req.URL.Host, req.URL.Redacted())
	}
	if err := w.limit.Wait(req.Context()); err != nil {
		closeBody(req)
		return nil, fmt.Errorf("wait for the pace of requests to %s: %w", req.URL.Host, err)
	}
	ctx, cancel := context.WithTimeout(req.Context(), answerTimeout)
	defer cancel()
	res, err := w.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("ask the authority at %s: %w", req.URL.Host, err)
	}
	// Package acme would take an answer that breaks off for a short one, and so for a refusal.
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the answer of the authority at %s: %w", req.URL.Host, err)
	}
	if said := res.Header.Get("Retry-After"); said != "" {
		// Package acme would ask without a pause where this is a time that is past by our clock.
		seconds := max(1, int(retryAfter(said).Round(time.Second)/time.Second))
		res.Header.Set("Retry-After", strconv.Itoa(seconds))
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// closeBody is what a RoundTripper has to do with a request that it does not send.
func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // it was not read, so nothing is lost
	}
}

// passage is the transport of one order. It knows the directory, so that no client has to ask for it, and says what
// package acme cannot say.
type passage struct {
	session  session
	url      string // of the directory
	replaces string // what the order replaces, see certID; empty: nothing
	taken    bool   // the order was taken, or may have been
	next     http.RoundTripper
}

// RoundTrip is for http.RoundTripper.
func (p *passage) RoundTrip(req *http.Request) (*http.Response, error) {
	switch url := req.URL.String(); {
	case req.Method == http.MethodGet && url == p.url:
		body := io.NopCloser(bytes.NewReader(p.session.directory.raw))
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, Request: req}, nil
	case req.Method == http.MethodPost && url == p.session.directory.NewOrder:
		return p.order(req)
	}
	return p.next.RoundTrip(req)
}

// order passes an order on. An answer that is lost leaves open whether it was taken, as one does that a proxy gives in
// the authority's place. Where there is no connection it was not.
func (p *passage) order(req *http.Request) (*http.Response, error) {
	if p.replaces != "" {
		signed, err := p.sign(req)
		if err != nil {
			return nil, fmt.Errorf("sign the order again: %w", err)
		}
		req = signed
	}
	res, err := p.next.RoundTrip(req)
	if err != nil {
		op, ok := errors.AsType[*net.OpError](err)
		p.taken = !ok || op.Op != "dial"
		return nil, err
	}
	p.taken = res.StatusCode < http.StatusBadRequest || res.StatusCode >= http.StatusInternalServerError &&
		!strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json")
	return res, nil
}

// sign adds to a new order which certificate it replaces (RFC 9773, Section 5), and signs it again with ES256 (RFC 7518,
// Section 3.4). The protected header, with nonce and account, stays as it is.
func (p *passage) sign(req *http.Request) (*http.Request, error) {
	var jws struct {
		Protected string `json:"protected"`
		Payload   string `json:"payload"`
		Signature string `json:"signature"`
	}
	err := json.NewDecoder(req.Body).Decode(&jws)
	closeBody(req)
	if err != nil {
		return nil, err
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		return nil, err
	}
	var order map[string]any
	if err := json.Unmarshal(payload, &order); err != nil {
		return nil, err
	}
	order["replaces"] = p.replaces
	if payload, err = json.Marshal(order); err != nil {
		return nil, err
	}
	jws.Payload = base64.RawURLEncoding.EncodeToString(payload)
	hash := sha256.Sum256([]byte(jws.Protected + "." + jws.Payload))
	r, s, err := ecdsa.Sign(rand.Reader, p.session.key, hash[:])
	if err != nil {
		return nil, err
	}
	var signature [2 * scalarSize]byte
	r.FillBytes(signature[:scalarSize])
	s.FillBytes(signature[scalarSize:])
	jws.Signature = base64.RawURLEncoding.EncodeToString(signature[:])
	body, err := json.Marshal(jws)
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Body, req.ContentLength, req.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	return req, nil
}
