package dnsupdate

import (
	"cmp"
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
	"github.com/stspub/stspub/internal/policygen"
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
// all records of the name, lets the library patch, create or delete exactly the one record it means, and looks again.
// A patch replaces the value in one step.
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

// text is the value without quotes and escapes. The API keeps what it was given, in quotes or not.
func (r cfRecord) text() string { return textOf(r.Content) }

func newCloudflare(a config.Account, g *guard, rt http.RoundTripper) (*cloudflareAccount, error) {
	g.limit = rate.NewLimiter(cloudflareRate, cloudflareBurst)
	if a.APIToken == "" {
		return nil, errors.New("no API token: set api_token_file or api_token_env")
	}
	api, err := newAPI(a, g, rt, cloudflareURL)
	if err != nil {
		return nil, err
	}
	api.judge, api.penalty = judgeCloudflare, cloudflarePenalty
	return &cloudflareAccount{api: api, token: string(a.APIToken)}, nil
}

func (a *cloudflareAccount) apply(ctx context.Context, c Change) error {
	zone, known := a.zones.get(c.Zone)
	if known {
		err := a.change(ctx, c, zone)
		f, ok := errors.AsType[*fault](err)
		// A zone that was deleted and made again has another id, and the API says so in several ways.
		if !ok || f.op != opRead || f.kind != KindNoZone && f.kind != KindAuth {
			return err
		}
		a.zones.forget(c.Zone)
	}
	zone, err := a.findZone(ctx, c.Zone)
	if err != nil {
		return err
	}
	a.zones.put(c.Zone, zone)
	return a.change(ctx, c, zone)
}

// findZone asks for one zone by name, so it does not matter how many there are.
func (a *cloudflareAccount) findZone(ctx context.Context, name string) (cfZone, error) {
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
	return zones[0], nil
}

func (a *cloudflareAccount) change(ctx context.Context, c Change, zone cfZone) error {
	found, err := a.look(ctx, zone, c.Name)
	if err != nil {
		return err
	}
	p, err := c.plan(found.texts())
	if err != nil || p.empty() {
		return err
	}
	created, err := a.write(ctx, c, zone, found, p)
	if err != nil {
		return writing(err)
	}
	if err := a.confirm(ctx, c, zone, created); err != nil {
		return writing(err)
	}
	return nil
}

// write makes the change. Where a record can be patched, all others go before, so that there is always one.
func (a *cloudflareAccount) write(ctx context.Context, c Change, zone cfZone, found cfRecords, p plan) (created bool, err error) {
	var remove, patch cfRecords
	for _, i := range p.remove {
		remove = append(remove, found[i])
	}
	if p.add && len(remove) > 0 {
		at := max(0, slices.IndexFunc(remove, func(r cfRecord) bool { return policygen.IsSTSv1(r.text()) }))
		patch = remove[at : at+1 : at+1]
		remove = slices.Concat(remove[:at], remove[at+1:])
	}
	for _, r := range remove {
		if err := a.delete(ctx, zone, r); err != nil {
			return false, err
		}
	}
	if !p.add {
		return false, nil
	}
	// The library joins names without a final dot to the zone in its questions only, and the API wants whole names.
	txt := libdns.TXT{Name: c.Name, TTL: c.TTL, Text: c.Add}
	_, err = a.library(zone, patch).SetRecords(ctx, zone.Name, []libdns.Record{txt})
	return len(patch) == 0, err
}

func (a *cloudflareAccount) delete(ctx context.Context, zone cfZone, r cfRecord) error {
	txt := libdns.TXT{Name: r.Name, Text: r.Content}
	_, err := a.library(zone, cfRecords{r}).DeleteRecords(ctx, zone.Name, []libdns.Record{txt})
	return err
}

func (a *cloudflareAccount) library(zone cfZone, shown cfRecords) *cloudflare.Provider {
	return &cloudflare.Provider{APIToken: a.token, HTTPClient: &session{account: a, zone: zone, shown: shown}}
}

// confirm looks again: the API may have acknowledged and not done it, and another process may have written as well.
func (a *cloudflareAccount) confirm(ctx context.Context, c Change, zone cfZone, created bool) error {
	found, err := a.look(ctx, zone, c.Name)
	if err != nil {
		return err
	}
	p, conflict := c.plan(found.texts())
	if conflict == nil && p.empty() {
		return nil
	}
	if conflict == nil {
		return faultf(KindUnavailable, "the API acknowledged the change and does not show it")
	}
	if created {
		// Two that create at once both see two records now. The younger one goes again, by whoever made it.
		if ours, late := found.late(c.Add); late {
			if err := a.delete(ctx, zone, ours); err != nil {
				return err
			}
		}
	}
	return conflict
}

// look returns the TXT records at a name, or the fault that there is a CNAME.
func (a *cloudflareAccount) look(ctx context.Context, zone cfZone, name string) (cfRecords, error) {
	query := url.Values{"name": {name}, "per_page": {"100"}}
	var found cfRecords
	for page := 1; page <= cloudflarePages; page++ {
		query.Set("page", strconv.Itoa(page))
		var records cfRecords
		pages, err := a.get(ctx, "/zones/"+zone.ID+"/dns_records", query, &records)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			switch {
			case !strings.EqualFold(r.Name, name):
				return nil, faultf(KindUnavailable, "malformed answer of the API: a record of %q", r.Name)
			case r.Type == "CNAME":
				return nil, faultf(KindCNAME, "the name is a CNAME to %q", unfqdn(r.Content))
			case r.Type == "TXT":
				found = append(found, r)
			}
		}
		if page >= pages {
			return found, nil
		}
	}
	return nil, faultf(KindRefused, "there are more than %d records at the name", 100*cloudflarePages)
}

// cfRecords are TXT records at one name.
type cfRecords []cfRecord

func (rs cfRecords) texts() []string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.text()
	}
	return out
}

// late returns the record with a value, and whether another STSv1 record is older.
func (rs cfRecords) late(value string) (ours cfRecord, late bool) {
	sts := slices.DeleteFunc(slices.Clone(rs), func(r cfRecord) bool { return !policygen.IsSTSv1(r.text()) })
	slices.SortFunc(sts, func(x, y cfRecord) int {
		return cmp.Or(cmp.Compare(x.CreatedOn, y.CreatedOn), cmp.Compare(x.ID, y.ID))
	})
	i := slices.IndexFunc(sts, func(r cfRecord) bool { return r.text() == value })
	if i < 0 {
		return cfRecord{}, false
	}
	return sts[i], i > 0
}
