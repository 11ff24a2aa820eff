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
	"strings"
)

// request asks the API once.
func (p *powerDNS) request(ctx context.Context, method, zone string, query url.Values, body []byte) (int, []byte, error) {
	at := p.base.JoinPath(zone + ".")
	at.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, faultf(KindInternal, "write request: %w", err)
	}
	req.Header.Set("X-API-Key", p.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the URL says nothing that the record's name does not
		}
		return 0, nil, faultf(KindUnavailable, "ask %s: %w", p.base.Host, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return 0, nil, faultf(KindUnavailable, "read answer of %s: %w", p.base.Host, err)
	}
	if len(answer) > maxBody {
		return 0, nil, faultf(KindUnavailable, "the answer of %s is larger than %d octets", p.base.Host, maxBody)
	}
	return resp.StatusCode, answer, p.verdict(resp, answer)
}

// verdict tells success from every kind of failure. A question is answered with 200, a write with 204.
func (p *powerDNS) verdict(resp *http.Response, body []byte) error {
	want := http.StatusOK
	if resp.Request.Method == http.MethodPatch {
		want = http.StatusNoContent
	}
	if resp.StatusCode == want {
		return nil
	}
	var answer struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(body, &answer) // some errors are plain text, and gateways answer in HTML
	s := strings.TrimSpace(fmt.Sprintf("the API says HTTP %d %s", resp.StatusCode, http.StatusText(resp.StatusCode)))
	if answer.Error != "" {
		s += fmt.Sprintf(", %q", answer.Error)
	}
	f := &fault{op: opRead, kind: powerDNSKind(resp.StatusCode, answer.Error)}
	f.err = errors.New(strings.ReplaceAll(s, p.key, "[secret]"))
	f.retryAfter = retryAfter(resp.Header.Get("Retry-After"))
	if f.kind == KindRateLimited {
		if f.retryAfter == 0 {
			f.retryAfter = powerDNSPenalty
		}
		p.guard.pause(f.retryAfter)
	}
	return f
}

func powerDNSKind(status int, message string) Kind {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return KindAuth
	case status == http.StatusTooManyRequests:
		return KindRateLimited
	case status == http.StatusNotFound:
		return KindNoZone
	case status == http.StatusUnprocessableEntity && strings.Contains(message, "onflicts with"):
		return KindCNAME // nothing else is in the way of a TXT
	case status >= 500, status < 300, status == http.StatusRequestTimeout:
		return KindUnavailable
	}
	return KindRefused
}
