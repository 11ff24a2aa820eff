package dnsupdate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/config"
)

const (
	// apiTimeout bounds one request.
	apiTimeout = 15 * time.Second
	// maxBody bounds an answer: 100 records of 8 KB.
	maxBody = 1 << 20
	// maxWords bounds what is repeated of an API's own words, in octets.
	maxWords = 300
)

// api sends the requests of an account to its provider's HTTP API: each waits for the guard's permission, and whatever
// is no success comes back as a [*fault].
type api struct {
	guard   *guard
	base    *url.URL
	client  *http.Client
	secrets []string // never shown, even if the provider repeats them
	// judge says what an answer means: its kind of failure, or "" for success, and the provider's own words.
	judge func(status int, body []byte) (Kind, string)
	// penalty is how long nothing is asked after a refusal by the rate limit that does not say how long.
	penalty time.Duration
}

// newAPI makes an api at the account's api_url, or else at standard.
func newAPI(a config.Account, g *guard, rt http.RoundTripper, standard string) (*api, error) {
	raw := a.APIURL
	if raw == "" {
		raw = standard
	}
	base, err := url.Parse(strings.TrimSuffix(raw, "/"))
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("api_url %q: not an URL", a.APIURL)
	}
	var secrets []string
	for _, s := range []config.Secret{a.APIToken, a.APIKey, a.Secret, a.ConsumerKey} {
		if s != "" {
			secrets = append(secrets, string(s))
		}
	}
	return &api{guard: g, base: base, secrets: secrets, penalty: time.Minute, client: &http.Client{
		Transport: rt,
		Timeout:   apiTimeout,
		// The credentials go to nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// send makes one request and returns the body of its success. One that writes does not pass in a dry run.
func (a *api) send(req *http.Request, writes bool) ([]byte, error) {
	if a.guard.dryRun && writes {
		return nil, faultf(KindDryRun, "%w", ErrDryRun)
	}
	if err := a.guard.permit(req.Context()); err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the URL says nothing that the record's name does not
		}
		return nil, faultf(KindUnavailable, "ask %s: %w", a.base.Host, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, faultf(KindUnavailable, "read answer of %s: %w", a.base.Host, err)
	}
	if len(body) > maxBody {
		return nil, faultf(KindUnavailable, "the answer of %s is larger than %d octets", a.base.Host, maxBody)
	}
	return body, a.verdict(resp, body)
}

// verdict tells success from every kind of failure.
func (a *api) verdict(resp *http.Response, body []byte) error {
	kind, words := a.judge(resp.StatusCode, []byte(a.hide(string(body))))
	if kind == "" {
		return nil
	}
	s := strings.TrimSpace(fmt.Sprintf("the API says HTTP %d %s", resp.StatusCode, http.StatusText(resp.StatusCode)))
	if words != "" {
		s += ", " + words
	}
	f := &fault{op: opRead, kind: kind, err: errors.New(a.hide(s)), status: resp.StatusCode}
	f.retryAfter = retryAfter(resp.Header.Get("Retry-After"))
	if f.kind == KindRateLimited {
		if f.retryAfter == 0 {
			f.retryAfter = a.penalty
		}
		a.guard.pause(f.retryAfter)
	}
	return f
}

// hide takes the secrets out of a text, before it is cut and after it is quoted.
func (a *api) hide(s string) string {
	for _, secret := range a.secrets {
		s = strings.ReplaceAll(s, secret, "[secret]")
	}
	return s
}

// call makes a request with a body in JSON and reads the answer into result; either may be nil. sign authenticates it.
func (a *api) call(ctx context.Context, method, path string, body, result any, sign func(r *http.Request, body []byte)) error {
	var raw []byte
	var err error
	if body != nil {
		if raw, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base.String()+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	sign(req, raw)
	answer, err := a.send(req, method != http.MethodGet)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(answer, result); err != nil {
		return malformed(err)
	}
	return nil
}

// kindOfStatus is what an HTTP status means where an API has no codes of its own that say more. "" is success.
func kindOfStatus(status int) Kind {
	switch {
	case status >= 200 && status < 300:
		return ""
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return KindAuth
	case status == http.StatusTooManyRequests:
		return KindRateLimited
	case status == http.StatusNotFound:
		return KindNoZone
	case status >= 500, status == http.StatusRequestTimeout:
		return KindUnavailable
	}
	return KindRefused
}

// worded quotes an API's words, if there are any.
func worded(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf("%q", s[:min(len(s), maxWords)])
}

// malformed is an answer that cannot be read, so what is there is not known.
func malformed(err error) error {
	return faultf(KindUnavailable, "malformed answer of the API: %w", err)
}

// response wraps the body of a success for a library.
func response(body []byte) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: make(http.Header), Body: io.NopCloser(bytes.NewReader(body))}
}

// retryAfter reads the header, RFC 9110, Section 10.2.3: seconds or a date. 0: not there. At most an hour is believed.
func retryAfter(header string) time.Duration {
	d := time.Duration(0)
	if n, err := strconv.Atoi(header); err == nil {
		d = time.Duration(min(n, 3600)) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), time.Hour)
}
