package dnsupdate

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
)

const (
	desecURL = "https://desec.io/api/v1"
	// Each minute 50 reads and, in one domain, 15 writes are allowed; a change is two reads and a write.
	desecRate, desecBurst = 0.6, 6
)

// desec writes whole record sets, each in one step. The API cannot compare and swap: a stranger that somebody else writes
// at the name between the look and the write is lost.
//
// libdns/desec speaks through http.DefaultClient only, sleeps on a 429, lets one account wait for another, and gives up
// on a stranger with escapes.
type desec struct {
	api    *api
	token  string
	minTTL cache[int] // seconds, by domain
}

func newDeSEC(a config.Account, g *guard, rt http.RoundTripper) (*cloud, error) {
	g.limit = rate.NewLimiter(desecRate, desecBurst)
	if a.APIToken == "" {
		return nil, errors.New("no API token: set api_token_file or api_token_env")
	}
	api, err := newAPI(a, g, rt, desecURL)
	if err != nil {
		return nil, err
	}
	api.judge = judgeDeSEC
	return &cloud{api: &desec{api: api, token: string(a.APIToken)}}, nil
}

// judgeDeSEC repeats what the API says: {"detail": "…"}, or lists of messages by field.
func judgeDeSEC(status int, body []byte) (Kind, string) {
	kind := kindOfStatus(status)
	var detail struct {
		Detail string `json:"detail"`
	}
	switch {
	case kind == "", !json.Valid(body):
		return kind, ""
	case json.Unmarshal(body, &detail) == nil && detail.Detail != "":
		return kind, worded(detail.Detail)
	}
	return kind, worded(strings.TrimSpace(string(body)))
}

func (a *desec) ask(ctx context.Context, method, path string, body, result any) error {
	return a.api.call(ctx, method, path, body, result, func(r *http.Request, _ []byte) {
		r.Header.Set("Authorization", "Token "+a.token)
	})
}

type desecSet struct {
	Subname string   `json:"subname"`
	Type    string   `json:"type"`
	Records []string `json:"records"`       // in zone-file format
	TTL     int      `json:"ttl,omitempty"` // omitted: as it is
}

func (a *desec) look(ctx context.Context, c Change) ([]txtRecord, error) {
	subname := c.relative("")
	var sets []desecSet
	query := url.Values{"subname": {subname}}
	if err := a.ask(ctx, http.MethodGet, "/domains/"+c.Zone+"/rrsets/?"+query.Encode(), nil, &sets); err != nil {
		return nil, err
	}
	if sets == nil {
		return nil, malformed(errors.New("no list")) // is not an empty one
	}
	var found []txtRecord
	for _, set := range sets {
		switch {
		case set.Subname != subname:
			return nil, faultf(KindUnavailable, "malformed answer of the API: records of %q", set.Subname)
		case set.Type == "CNAME" && len(set.Records) == 1:
			return nil, faultf(KindCNAME, "the name is a CNAME to %q", unfqdn(set.Records[0]))
		case set.Type == "TXT":
			for _, data := range set.Records {
				found = append(found, txtRecord{data: data, text: textOf(data), ttl: set.TTL})
			}
		}
	}
	return found, nil
}

func (a *desec) write(ctx context.Context, c Change, found []txtRecord, p plan) error {
	data, ttl := p.whole(c, found, `"`+c.Add+`"`)
	set := desecSet{Subname: c.relative(""), Type: "TXT", Records: append([]string{}, data...)} // an empty set is a deletion
	if p.add {
		least, err := a.leastTTL(ctx, c.Zone)
		if err != nil {
			return err
		}
		set.TTL = max(ttl, least)
	}
	// The set is made, replaced or deleted, whatever is there.
	return a.ask(ctx, http.MethodPatch, "/domains/"+c.Zone+"/rrsets/", []desecSet{set}, nil)
}

// leastTTL is the lowest TTL that the domain may have: an hour, unless deSEC's support has lowered it.
func (a *desec) leastTTL(ctx context.Context, zone string) (int, error) {
	if ttl, known := a.minTTL.get(zone); known {
		return ttl, nil
	}
	var domain struct {
		MinimumTTL int `json:"minimum_ttl"`
	}
	if err := a.ask(ctx, http.MethodGet, "/domains/"+zone+"/", nil, &domain); err != nil {
		return 0, err
	}
	a.minTTL.put(zone, domain.MinimumTTL)
	return domain.MinimumTTL, nil
}
