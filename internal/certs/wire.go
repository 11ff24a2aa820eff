package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/time/rate"
)

// maxAnswer bounds what is read of an authority's answer, in bytes.
const maxAnswer = 1 << 20

// wire is the way to an authority. It keeps to a pace, bounds answers, names the authority in errors, and adds to a new
// order what package acme cannot say.
type wire struct {
	limit *rate.Limiter
	next  http.RoundTripper
}

// newWire makes a wire of at most so many requests a second; 0: any number.
func newWire(perSecond int, next http.RoundTripper) *wire {
	if perSecond <= 0 {
		return &wire{rate.NewLimiter(rate.Inf, 0), next}
	}
	return &wire{rate.NewLimiter(rate.Limit(perSecond), perSecond), next}
}

// RoundTrip is for http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if err := w.limit.Wait(ctx); err != nil {
		closeBody(req)
		return nil, fmt.Errorf("wait for the pace of requests to %s: %w", req.URL.Host, err)
	}
	if r, ok := ctx.Value(replacesKey{}).(replaces); ok && req.Method == http.MethodPost && req.URL.String() == r.newOrder {
		var err error
		if req, err = r.sign(req); err != nil {
			return nil, err
		}
	}
	res, err := w.next.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask the authority at %s: %w", req.URL.Host, err)
	}
	res.Body = limited{io.LimitReader(res.Body, maxAnswer), res.Body}
	return res, nil
}

// closeBody is what a RoundTripper has to do with a request that it does not send.
func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // it was not read, so nothing is lost
	}
}

// limited is a body that ends early.
type limited struct {
	io.Reader
	io.Closer
}

// replaces is the certificate that an order replaces (RFC 9773, Section 5). Package acme does not know it, so its request
// is signed again with one more member; the protected header, and with it nonce and account, stays as it is.
type replaces struct {
	newOrder string // URL
	id       string // see certID
	key      *ecdsa.PrivateKey
}

// replacesKey is the key of a replaces in the context of a request for a new order.
type replacesKey struct{}

// with returns a context for [acme.Client.AuthorizeOrder].
func (r replaces) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, replacesKey{}, r)
}

// sign returns a request that says besides what the order replaces, signed with ES256 (RFC 7518, Section 3.4).
func (r replaces) sign(req *http.Request) (*http.Request, error) {
	var jws struct {
		Protected string `json:"protected"`
		Payload   string `json:"payload"`
		Signature string `json:"signature"`
	}
	err := json.NewDecoder(req.Body).Decode(&jws)
	closeBody(req)
	if err != nil {
		return nil, fmt.Errorf("read order to sign it again: %w", err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		return nil, fmt.Errorf("read order to sign it again: %w", err)
	}
	var order map[string]any
	if err := json.Unmarshal(payload, &order); err != nil {
		return nil, fmt.Errorf("read order to sign it again: %w", err)
	}
	order["replaces"] = r.id
	if payload, err = json.Marshal(order); err != nil {
		return nil, fmt.Errorf("write order to sign it again: %w", err)
	}
	jws.Payload = base64.RawURLEncoding.EncodeToString(payload)
	hash := sha256.Sum256([]byte(jws.Protected + "." + jws.Payload))
	x, y, err := ecdsa.Sign(rand.Reader, r.key, hash[:])
	if err != nil {
		return nil, fmt.Errorf("sign order: %w", err)
	}
	var signature [2 * scalarSize]byte
	x.FillBytes(signature[:scalarSize])
	y.FillBytes(signature[scalarSize:])
	jws.Signature = base64.RawURLEncoding.EncodeToString(signature[:])
	body, err := json.Marshal(jws)
	if err != nil {
		return nil, fmt.Errorf("write order to sign it again: %w", err)
	}
	req = req.Clone(req.Context())
	req.Body, req.ContentLength, req.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	return req, nil
}
