package dnsupdate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/libdns/cloudns"
	"github.com/libdns/libdns"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
)

const (
	cloudnsURL = "https://api.cloudns.net/dns"
	// 20 requests a second, 600 a minute and 36,000 an hour are allowed to an address.
	cloudnsRate, cloudnsBurst = 8, 10
)

// clouDNS writes through the library libdns/cloudns. Left alone the library deletes a duplicate before it modifies the
// other, whichever is whose, and reads the whole zone for that. So it never reads by itself: its HTTP client answers its
// question from what the account has seen, and it modifies, creates or deletes exactly that one record.
type clouDNS struct {
	api  *api
	auth url.Values
	conf config.Account
}

func newClouDNS(a config.Account, g *guard, rt http.RoundTripper) (*cloud, error) {
	g.limit = rate.NewLimiter(cloudnsRate, cloudnsBurst)
	if a.KeyID == "" || a.Secret == "" {
		return nil, errors.New("no API user: set auth_id or sub_auth_id, and auth_password_file or auth_password_env")
	}
	api, err := newAPI(a, g, rt, cloudnsURL)
	if err != nil {
		return nil, err
	}
	api.judge = judgeClouDNS
	auth := url.Values{"auth-id": {a.KeyID}, "auth-password": {string(a.Secret)}}
	if a.SubUser {
		auth = url.Values{"sub-auth-id": {a.KeyID}, "auth-password": {string(a.Secret)}}
	}
	return &cloud{api: recordwise{&clouDNS{api: api, auth: auth, conf: a}}}, nil
}

// judgeClouDNS looks into the answer: refusals are HTTP 200, too, and have words only.
func judgeClouDNS(status int, body []byte) (Kind, string) {
	var answer struct{ Status, StatusDescription string }
	kind := kindOfStatus(status)
	body = bytes.TrimSpace(body)
	switch {
	case !json.Valid(body): // gateways answer in HTML
		return cmp.Or(kind, KindUnavailable), ""
	case bytes.HasPrefix(body, []byte("[")): // no records
		return kind, ""
	case json.Unmarshal(body, &answer) != nil, kind == "" && !strings.EqualFold(answer.Status, "Failed"):
		return kind, ""
	case kind == "":
		kind = cloudnsKind(strings.ToLower(answer.StatusDescription))
	}
	return kind, worded(answer.StatusDescription)
}

func cloudnsKind(words string) Kind {
	switch {
	case strings.Contains(words, "authentication"), strings.Contains(words, "permission"), strings.Contains(words, "access"):
		return KindAuth
	case strings.Contains(words, "domain-name"):
		return KindNoZone
	case strings.Contains(words, "record-id"):
		return KindConflict // it went meanwhile
	}
	return KindRefused
}

type cloudnsRecord struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Host   string `json:"host"` // empty for the zone
	Record string `json:"record"`
	TTL    string `json:"ttl"`
}

func (a *clouDNS) look(ctx context.Context, c Change) ([]txtRecord, error) {
	host := c.relative("")
	form := url.Values{"domain-name": {c.Zone}, "host": {host}}
	maps.Copy(form, a.auth)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.api.base.String()+"/records.json", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, err := a.api.send(req, false)
	if err != nil {
		return nil, err
	}
	var records map[string]cloudnsRecord
	if body = bytes.TrimSpace(body); !bytes.Equal(body, []byte("[]")) { // in place of {}
		err = json.Unmarshal(body, &records)
		if err == nil && records == nil {
			err = errors.New("no records")
		}
		if err != nil {
			return nil, malformed(err)
		}
	}
	var found []txtRecord
	for id, r := range records {
		switch {
		case r.Type == "":
			return nil, malformed(errors.New("a record without type"))
		case !strings.EqualFold(r.Host, host):
		case r.Type == "CNAME":
			return nil, faultf(KindCNAME, "the name is a CNAME to %q", unfqdn(r.Record))
		case r.Type == "TXT":
			found = append(found, txtRecord{id: cmp.Or(r.ID, id), data: r.Record, text: cloudnsText(r.Record)})
		}
	}
	return found, nil
}

// cloudnsText reads TXT data. It comes without the outer quotes, and several strings as: one" "two
func cloudnsText(data string) string {
	if s, err := parseTXT(`"` + data + `"`); err == nil {
		return s
	}
	return textOf(data)
}

func (a *clouDNS) create(ctx context.Context, c Change) error { return a.set(ctx, c, nil) }

func (a *clouDNS) modify(ctx context.Context, c Change, r txtRecord) error {
	return a.set(ctx, c, []cloudnsRecord{{ID: r.id, Type: "TXT", Host: c.relative(""), TTL: "60"}})
}

// set has the library replace the record that it is shown, or create one if there is none. It rounds the TTL up to one
// that the API takes, and trims the zone off the name, even off one that is relative already.
func (a *clouDNS) set(ctx context.Context, c Change, shown []cloudnsRecord) error {
	txt := libdns.TXT{Name: c.Name, TTL: c.TTL, Text: c.Add}
	_, err := a.library(shown).SetRecords(ctx, c.Zone, []libdns.Record{txt})
	return err
}

func (a *clouDNS) remove(ctx context.Context, c Change, r txtRecord) error {
	// Without text and TTL it is any record that is shown.
	shown := []cloudnsRecord{{ID: r.id, Type: "TXT", Host: c.relative(""), TTL: "60"}}
	_, err := a.library(shown).DeleteRecords(ctx, c.Zone, []libdns.Record{libdns.TXT{Name: c.Name}})
	return err
}

func (a *clouDNS) library(shown []cloudnsRecord) *cloudns.Provider {
	p := &cloudns.Provider{
		AuthId: a.conf.KeyID, AuthPassword: string(a.conf.Secret),
		BaseURL:          a.api.base.String(),
		HTTPClient:       &http.Client{Transport: &cloudnsSession{api: a.api, shown: shown}},
		OperationRetries: 1, // the caller's part
	}
	if a.conf.SubUser {
		p.AuthId, p.SubAuthId = "", a.conf.KeyID
	}
	return p
}

// cloudnsSession is the library's way to the API, for one record.
type cloudnsSession struct {
	api   *api
	shown []cloudnsRecord
}

// RoundTrip answers the library's question, and sends what it writes.
func (s *cloudnsSession) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(req.URL.Path, "/records.json") {
		body, err := s.api.send(req.Clone(req.Context()), true)
		if err != nil {
			return nil, err
		}
		return response(body), nil
	}
	_, err := io.Copy(io.Discard, req.Body)
	if err != nil {
		return nil, err
	}
	records := make(map[string]cloudnsRecord)
	for _, r := range s.shown {
		records[r.ID] = r
	}
	body, err := json.Marshal(records)
	if err != nil {
		return nil, err
	}
	return response(body), nil
}
