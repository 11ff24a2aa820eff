package dnsupdate

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libdns/cloudflare"
	"github.com/libdns/libdns"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
)

const (
	cloudflareURL = "https://api.cloudflare.com/client/v4" // as in the library
	// 1200 requests are allowed in 5 minutes, then none for 5 minutes. Others use the same user's allowance.
	cloudflareRate, cloudflareBurst = 3.5, 50
	cloudflarePenalty               = 5 * time.Minute
	// cloudflarePages bounds the reading of one name; 100 records a page.
	cloudflarePages = 20
)

// cloudflareAccount writes through the library libdns/cloudflare. The API has no compare-and-swap: the account looks at
// all records of the name, lets the library patch, create or delete exactly the one record it means, and looks again; see
// [cloud]. A patch replaces the value in one step. The API keeps content as it was given, in quotes or not.
//
// The library would patch whatever single TXT it finds, and gives up on two. So it never reads by itself: its one seam,
// the HTTP client, answers its questions from what the account has seen; see [session].
type cloudflareAccount struct {
	api   *api
	token string
	zones cache[cfZone] // by name
}

type cfZone struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
}

type cfRecord struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Name      string `json:"name"`
	Content   string `json:"content"`
	TTL       int    `json:"ttl"`
	CreatedOn string `json:"created_on,omitempty"` // RFC 3339, UTC, so it sorts as text
}

func newCloudflare(a config.Account, g *guard, rt http.RoundTripper) (*cloud, error) {
	g.limit = rate.NewLimiter(cloudflareRate, cloudflareBurst)
	if a.APIToken == "" {
		return nil, errors.New("no API token: set api_token_file or api_token_env")
	}
	api, err := newAPI(a, g, rt, cloudflareURL)
	if err != nil {
		return nil, err
	}
	api.judge, api.penalty = judgeCloudflare, cloudflarePenalty
	return &cloud{api: recordwise{&cloudflareAccount{api: api, token: string(a.APIToken)}}}, nil
}

func (a *cloudflareAccount) look(ctx context.Context, c Change) ([]txtRecord, error) {
	_, known := a.zones.get(c.Zone)
	found, err := a.list(ctx, c)
	// A zone that was deleted and made again has another id, and the API says so in several ways.
	if f, ok := errors.AsType[*fault](err); known && ok && (f.kind == KindNoZone || f.kind == KindAuth) {
		a.zones.forget(c.Zone)
		return a.list(ctx, c)
	}
	return found, err
}

// findZone asks for one zone by name, so it does not matter how many there are.
func (a *cloudflareAccount) findZone(ctx context.Context, name string) (cfZone, error) {
	if zone, known := a.zones.get(name); known {
		return zone, nil
	}
	var zones []cfZone
	if _, err := a.get(ctx, "/zones", url.Values{"name": {name}, "per_page": {"50"}}, &zones); err != nil {
		return cfZone{}, err
	}
	zones = slices.DeleteFunc(zones, func(z cfZone) bool { return !strings.EqualFold(z.Name, name) })
	if len(zones) > 1 {
		// Zones that are moved between accounts are there twice for a while; one of them is served.
		zones = slices.DeleteFunc(zones, func(z cfZone) bool { return z.Status != "active" })
	}
	if len(zones) != 1 {
		return cfZone{}, faultf(KindNoZone, "the API token sees %d zones of this name", len(zones))
	}
	a.zones.put(name, zones[0])
	return zones[0], nil
}

func (a *cloudflareAccount) create(ctx context.Context, c Change) error { return a.set(ctx, c, nil) }

func (a *cloudflareAccount) modify(ctx context.Context, c Change, r txtRecord) error {
	return a.set(ctx, c, cfRecords{{ID: r.id, Type: "TXT", Name: c.Name, Content: r.data}})
}

// set has the library patch the record that it is shown, or create one if there is none.
func (a *cloudflareAccount) set(ctx context.Context, c Change, shown cfRecords) error {
	zone, err := a.findZone(ctx, c.Zone)
	if err != nil {
		return err
	}
	// The library joins names without a final dot to the zone in its questions only, and the API wants whole names.
	txt := libdns.TXT{Name: c.Name, TTL: c.TTL, Text: c.Add}
	_, err = a.library(zone, shown).SetRecords(ctx, zone.Name, []libdns.Record{txt})
	return err
}

func (a *cloudflareAccount) remove(ctx context.Context, c Change, r txtRecord) error {
	zone, err := a.findZone(ctx, c.Zone)
	if err != nil {
		return err
	}
	shown := cfRecords{{ID: r.id, Type: "TXT", Name: c.Name, Content: r.data}}
	_, err = a.library(zone, shown).DeleteRecords(ctx, zone.Name, []libdns.Record{libdns.TXT{Name: c.Name, Text: r.data}})
	return err
}

func (a *cloudflareAccount) library(zone cfZone, shown cfRecords) *cloudflare.Provider {
	return &cloudflare.Provider{APIToken: a.token, HTTPClient: &session{account: a, zone: zone, shown: shown}}
}

// list returns the TXT records at a name, or the fault that there is a CNAME.
func (a *cloudflareAccount) list(ctx context.Context, c Change) ([]txtRecord, error) {
	zone, err := a.findZone(ctx, c.Zone)
	if err != nil {
		return nil, err
	}
	query := url.Values{"name": {c.Name}, "per_page": {"100"}}
	var found []txtRecord
	for page := 1; page <= cloudflarePages; page++ {
		query.Set("page", strconv.Itoa(page))
		var records cfRecords
		pages, err := a.get(ctx, "/zones/"+zone.ID+"/dns_records", query, &records)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			switch {
			case !strings.EqualFold(r.Name, c.Name):
				return nil, faultf(KindUnavailable, "malformed answer of the API: a record of %q", r.Name)
			case r.Type == "CNAME":
				return nil, faultf(KindCNAME, "the name is a CNAME to %q", unfqdn(r.Content))
			case r.Type == "TXT":
				found = append(found, txtRecord{id: r.ID, made: r.CreatedOn, data: r.Content, text: textOf(r.Content)})
			}
		}
		if page >= pages {
			return found, nil
		}
	}
	return nil, faultf(KindRefused, "there are more than %d records at the name", 100*cloudflarePages)
}

// cfRecords are records at one name.
type cfRecords []cfRecord
