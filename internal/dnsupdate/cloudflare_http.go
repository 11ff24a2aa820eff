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
)

// maxBody bounds an answer of the API: 100 records of 8 KB.
const maxBody = 1 << 20

// session is the HTTP client of the library for one record. What the library asks is answered from what the account has
// just read, so it finds the zone, and either the one record that is to be changed or none. What it writes is sent.
type session struct {
	account *cloudflareAccount
	zone    cfZone
	shown   cfRecords
}

// Do implements the library's HTTPClient. Its errors come back through the library as they are.
func (s *session) Do(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet {
		body, err := s.account.send(req)
		if err != nil {
			return nil, err
		}
		return response(body), nil
	}
	var result any = append(cfRecords{}, s.shown...)
	if !strings.HasSuffix(req.URL.Path, "/dns_records") {
		result = []cfZone{s.zone}
	}
	body, err := json.Marshal(map[string]any{"success": true, "result": result})
	if err != nil {
		return nil, err
	}
	return response(body), nil
}

func response(body []byte) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body))}
}

// cfAnswer is the envelope of all answers.
type cfAnswer struct {
	Success    bool            `json:"success"`
	Errors     []cfError       `json:"errors"`
	Result     json.RawMessage `json:"result"`
	ResultInfo *struct {
		TotalPages int `json:"total_pages"`
	} `json:"result_info"`
}

type cfError struct {
	Code    int       `json:"code"`
	Message string    `json:"message"`
	Chain   []cfError `json:"error_chain"`
}

// get reads one page into result and returns how many pages there are.
func (a *cloudflareAccount) get(ctx context.Context, path string, query url.Values, result any) (pages int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, cloudflareURL+path+"?"+query.Encode(), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	body, err := a.send(req)
	if err != nil {
		return 0, err
	}
	var answer cfAnswer
	err = json.Unmarshal(body, &answer)
	if err == nil && string(answer.Result) == "null" {
		err = errors.New("no result") // is not an empty one: there may be records
	}
	if err == nil {
		err = json.Unmarshal(answer.Result, result)
	}
	if err != nil {
		return 0, faultf(KindUnavailable, "malformed answer of the API: %w", err)
	}
	if answer.ResultInfo != nil {
		pages = answer.ResultInfo.TotalPages
	}
	return pages, nil
}

// send makes one request and returns the body of its success; anything else is a fault. All requests of the account come
// through here. In a dry run those that write do not pass.
func (a *cloudflareAccount) send(req *http.Request) ([]byte, error) {
	if a.guard.dryRun && req.Method != http.MethodGet {
		return nil, faultf(KindDryRun, "%w", ErrDryRun)
	}
	if err := a.guard.permit(req.Context()); err != nil {
		return nil, err
	}
	req.URL.Path = a.base.Path + strings.TrimPrefix(req.URL.Path, "/client/v4")
	req.URL.Scheme, req.URL.Host, req.Host = a.base.Scheme, a.base.Host, ""
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
func (a *cloudflareAccount) verdict(resp *http.Response, body []byte) error {
	var answer cfAnswer
	malformed := json.Unmarshal(body, &answer) // gateways answer in HTML
	if resp.StatusCode == http.StatusOK && malformed == nil && answer.Success && len(answer.Errors) == 0 {
		return nil
	}
	f := &fault{op: opRead, kind: kindOf(resp.StatusCode, answer.Errors)}
	f.err = errors.New(a.describe(resp.StatusCode, answer.Errors))
	f.retryAfter = retryAfter(resp.Header.Get("Retry-After"))
	if f.kind == KindRateLimited {
		if f.retryAfter == 0 {
			f.retryAfter = cloudflarePenalty
		}
		a.guard.pause(f.retryAfter)
	}
	return f
}

// kindOf goes by the API's code where that says more than the status.
func kindOf(status int, errs []cfError) Kind {
	for _, e := range errs {
		switch e.Code {
		case 81053, 81054: // an address or CNAME record is there
			return KindCNAME
		case 81044, 81057, 81058: // the record went; an identical one is there
			return KindConflict
		case 81045:
			return KindQuota
		case 1000, 6003, 9109, 9103, 10000: // token invalid, malformed, or too weak
			return KindAuth
		case 1001, 7000, 7003: // no such zone id
			return KindNoZone
		}
	}
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return KindAuth
	case status == http.StatusTooManyRequests:
		return KindRateLimited
	case status == http.StatusNotFound:
		return KindNoZone
	case status >= 500, status == http.StatusOK, status == http.StatusRequestTimeout:
		return KindUnavailable // 200: the API says that it did not succeed, or nothing that can be read
	}
	return KindRefused
}

// describe puts status and the API's own words on one line.
func (a *cloudflareAccount) describe(status int, errs []cfError) string {
	s := strings.TrimSpace(fmt.Sprintf("the API says HTTP %d %s", status, http.StatusText(status)))
	for _, e := range errs {
		for len(e.Chain) > 0 {
			e = e.Chain[0] // the last one is the cause
		}
		s += fmt.Sprintf(", %q (%d)", e.Message, e.Code)
	}
	return strings.ReplaceAll(s, a.token, "[secret]")
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
