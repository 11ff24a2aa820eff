package certs

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Bounds of the pause between two questions for renewal information (RFC 9773, Section 4.3.2), and what it is where the
// authority does not say.
const (
	leastRetry   = time.Minute
	mostRetry    = 24 * time.Hour
	defaultRetry = 6 * time.Hour
)

// Window implements [Authority]. It is one request, which is not signed.
func (a *ACME) Window(ctx context.Context, leaf []byte) (Window, error) {
	w, err := a.window(ctx, leaf)
	if err != nil {
		return Window{}, fmt.Errorf("ask when to renew: %w", err)
	}
	return w, nil
}

func (a *ACME) window(ctx context.Context, leaf []byte) (Window, error) {
	s, err := a.open(ctx, false)
	if err != nil {
		return Window{}, err
	}
	if s.directory.RenewalInfo == "" {
		return Window{}, ErrNoRenewalInfo
	}
	id, err := certID(leaf)
	if err != nil {
		return Window{}, err
	}
	var info struct {
		SuggestedWindow struct{ Start, End time.Time }
		ExplanationURL  string
	}
	header, err := a.get(ctx, strings.TrimSuffix(s.directory.RenewalInfo, "/")+"/"+id, &info)
	if err != nil {
		return Window{}, err
	}
	w := Window{
		Start:       info.SuggestedWindow.Start.UTC(),
		End:         info.SuggestedWindow.End.UTC(),
		Explanation: oneLine(info.ExplanationURL),
		Retry:       defaultRetry,
	}
	if !w.Start.Before(w.End) { // RFC 9773, Section 4.2: such an answer is none
		return Window{}, fmt.Errorf("the window that the authority suggests ends at %s, before it begins", w.End.Format(time.RFC3339))
	}
	if said := header.Get("Retry-After"); said != "" {
		w.Retry = min(max(retryAfter(said), leastRetry), mostRetry)
	}
	return w, nil
}

// certID is the identifier of a certificate in renewal information (RFC 9773, Section 4.1): the key identifier of its
// issuer and its serial number, as in the encoding of the certificate.
func certID(leaf []byte) (string, error) {
	c, err := x509.ParseCertificate(leaf)
	if err != nil {
		return "", fmt.Errorf("read certificate: %w", err)
	}
	if len(c.AuthorityKeyId) == 0 {
		return "", errors.New("read certificate: it does not identify its issuer's key")
	}
	serial := c.SerialNumber.Bytes()
	if len(serial) == 0 || serial[0] >= 0x80 { // DER would take it for a negative number
		serial = append([]byte{0}, serial...)
	}
	return base64.RawURLEncoding.EncodeToString(c.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(serial), nil
}

// get asks for a JSON document without a signature.
func (a *ACME) get(ctx context.Context, url string, into any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	res, err := a.http.Do(req)
	if err != nil {
		return nil, explain(ctx, err, "")
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("ask the authority at %s: %w", req.URL.Host, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, readProblem(res, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", req.URL.Host, err)
	}
	return res.Header, nil
}
