package dnsupdate

import (
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
)

const (
	ovhURL = "https://eu.api.ovh.com/1.0"
	// No figure is documented.
	ovhRate, ovhBurst = 2, 10
	// ovhRecords bounds the reading of one name: each record is a request of its own.
	ovhRecords = 20
)

// ovh changes records in place and has the zone published afterwards: what is written is served only after a "refresh",
// which publishes everybody's changes of the zone.
//
// libdns/ovh adds the new record and then deletes the old one, so a refresh for another name publishes both; it forgets
// the refresh after a change that only deletes; its transport cannot be set. And go-ovh, below it, takes credentials from
// files and the environment, and asks for the time without a deadline.
type ovh struct {
	api    *api
	conf   config.Account
	cloud  *cloud
	clocks cache[time.Duration] // ours minus the API's
}

func newOVH(a config.Account, g *guard, rt http.RoundTripper) (*ovh, error) {
	g.limit = rate.NewLimiter(ovhRate, ovhBurst)
	g.perChange = 6 // a list and a record, the change, both again, the refresh
	if a.KeyID == "" || a.Secret == "" || a.ConsumerKey == "" {
		return nil, errors.New("no credentials: set application_key, application_secret_file and consumer_key_file")
	}
	api, err := newAPI(a, g, rt, ovhURL)
	if err != nil {
		return nil, err
	}
	api.judge = judgeOVH
	o := &ovh{api: api, conf: a}
	o.cloud = &cloud{api: recordwise{o}}
	return o, nil
}

// apply publishes the zone even when there was nothing to change: that a record is in the API's database does not say
// that the refresh after it was made.
func (a *ovh) apply(ctx context.Context, c Change) error {
	if err := a.cloud.apply(ctx, c); err != nil {
		return err
	}
	if a.api.guard.dryRun {
		return nil
	}
	if err := a.ask(ctx, http.MethodPost, c, "/refresh", nil, nil); err != nil {
		return writing(err)
	}
	return nil
}

// judgeOVH goes by the status, and by the error code where a status means several things.
func judgeOVH(status int, body []byte) (Kind, string) {
	kind := kindOfStatus(status)
	if kind == "" {
		if len(body) > 0 && !json.Valid(body) {
			return KindUnavailable, ""
		}
		return "", ""
	}
	var answer struct{ Message, ErrorCode string }
	if json.Unmarshal(body, &answer) != nil { // gateways answer in HTML
		return kind, ""
	}
	switch answer.ErrorCode {
	case "INVALID_CREDENTIAL", "INVALID_KEY", "INVALID_SIGNATURE", "NOT_CREDENTIAL", "NOT_GRANTED_CALL", "QUERY_TIME_OUT":
		return KindAuth, worded(answer.Message) + " (" + answer.ErrorCode + ")"
	}
	return kind, worded(answer.Message)
}

// ask makes a signed request about the zone of a change.
func (a *ovh) ask(ctx context.Context, method string, c Change, path string, body, result any) error {
	offset, err := a.clock(ctx)
	if err != nil {
		return err
	}
	path = "/domain/zone/" + c.Zone + path
	err = a.api.call(ctx, method, path, body, result, func(r *http.Request, body []byte) {
		at := time.Now().Add(-offset).Unix()
		r.Header.Set("X-Ovh-Application", a.conf.KeyID)
		r.Header.Set("X-Ovh-Consumer", string(a.conf.ConsumerKey))
		r.Header.Set("X-Ovh-Timestamp", strconv.FormatInt(at, 10))
		r.Header.Set("X-Ovh-Signature", ovhSignature(a.conf, method, a.api.base.String()+path, body, at))
	})
	if f, ok := errors.AsType[*fault](err); ok && f.kind == KindAuth {
		a.clocks.forget("") // it may have been the time
	}
	return err
}

// ovhSignature is how the API knows its caller. at is the API's time, in seconds since 1970.
func ovhSignature(a config.Account, method, target string, body []byte, at int64) string {
	parts := []string{string(a.Secret), string(a.ConsumerKey), method, target, string(body), strconv.FormatInt(at, 10)}
	return fmt.Sprintf("$1$%x", sha1.Sum([]byte(strings.Join(parts, "+"))))
}

// clock returns how far our clock is ahead of the API's.
func (a *ovh) clock(ctx context.Context) (time.Duration, error) {
	if offset, known := a.clocks.get(""); known {
		return offset, nil
	}
	var at int64
	if err := a.api.call(ctx, http.MethodGet, "/auth/time", nil, &at, func(*http.Request, []byte) {}); err != nil {
		return 0, err
	}
	offset := time.Since(time.Unix(at, 0))
	a.clocks.put("", offset)
	return offset, nil
}

type ovhRecord struct {
	ID        int64  `json:"id,omitempty"`
	FieldType string `json:"fieldType,omitempty"`
	SubDomain string `json:"subDomain"` // empty for the zone
	Target    string `json:"target"`
	TTL       int    `json:"ttl"`
}

func (a *ovh) look(ctx context.Context, c Change) ([]txtRecord, error) {
	var ids []int64
	query := url.Values{"subDomain": {c.relative("")}}
	if err := a.ask(ctx, http.MethodGet, c, "/record?"+query.Encode(), nil, &ids); err != nil {
		return nil, err
	}
	if ids == nil {
		return nil, malformed(errors.New("no list")) // is not an empty one
	}
	if len(ids) > ovhRecords {
		return nil, faultf(KindRefused, "there are more than %d records at the name", ovhRecords)
	}
	var found []txtRecord
	for _, id := range ids {
		var r ovhRecord
		if err := a.ask(ctx, http.MethodGet, c, "/record/"+strconv.FormatInt(id, 10), nil, &r); err != nil {
			if f, ok := errors.AsType[*fault](err); ok && f.kind == KindNoZone {
				f.kind = KindConflict // the zone is there, or it would have no list; the record went meanwhile
			}
			return nil, err
		}
		switch {
		case !strings.EqualFold(r.SubDomain, c.relative("")):
			return nil, faultf(KindUnavailable, "malformed answer of the API: a record of %q", r.SubDomain)
		case r.FieldType == "CNAME":
			return nil, faultf(KindCNAME, "the name is a CNAME to %q", unfqdn(r.Target))
		case r.FieldType == "TXT":
			found = append(found, txtRecord{id: strconv.FormatInt(r.ID, 10), data: r.Target, text: textOf(r.Target)})
		}
	}
	return found, nil
}

func (a *ovh) create(ctx context.Context, c Change) error {
	r := ovhRecord{FieldType: "TXT", SubDomain: c.relative(""), Target: c.Add, TTL: int(c.TTL / time.Second)}
	return a.ask(ctx, http.MethodPost, c, "/record", r, nil)
}

func (a *ovh) modify(ctx context.Context, c Change, r txtRecord) error {
	record := ovhRecord{SubDomain: c.relative(""), Target: c.Add, TTL: int(c.TTL / time.Second)}
	return a.ask(ctx, http.MethodPut, c, "/record/"+r.id, record, nil)
}

func (a *ovh) remove(ctx context.Context, c Change, r txtRecord) error {
	return a.ask(ctx, http.MethodDelete, c, "/record/"+r.id, nil, nil)
}
