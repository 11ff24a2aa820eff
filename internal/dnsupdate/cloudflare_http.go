package dnsupdate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

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
		return 0, malformed(err)
	}
	if answer.ResultInfo != nil {
		pages = answer.ResultInfo.TotalPages
	}
	return pages, nil
}

// send makes one request, wherever the API is.
func (a *cloudflareAccount) send(req *http.Request) ([]byte, error) {
	base := a.api.base
	req.URL.Path = base.Path + strings.TrimPrefix(req.URL.Path, "/client/v4")
	req.URL.Scheme, req.URL.Host, req.Host = base.Scheme, base.Host, ""
	return a.api.send(req, req.Method != http.MethodGet)
}

// judgeCloudflare tells success from every kind of failure, and repeats the API's words and codes.
func judgeCloudflare(status int, body []byte) (Kind, string) {
	var answer cfAnswer
	malformed := json.Unmarshal(body, &answer) // gateways answer in HTML
	if status == http.StatusOK && malformed == nil && answer.Success && len(answer.Errors) == 0 {
		return "", ""
	}
	var words []string
	for _, e := range answer.Errors {
		for len(e.Chain) > 0 {
			e = e.Chain[0] // the last one is the cause
		}
		words = append(words, fmt.Sprintf("%q (%d)", e.Message, e.Code))
	}
	return cfKind(status, answer.Errors), strings.Join(words, ", ")
}

// cfKind goes by the API's code where that says more than the status.
func cfKind(status int, errs []cfError) Kind {
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
	// Below 300 the API says that it did not succeed, or nothing that can be read.
	return cmp.Or(kindOfStatus(status), KindUnavailable)
}
