package dnsupdate

import (
	"cmp"
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
	mythicURL = "https://api.mythic-beasts.com/dns/v2"
	// No figure is documented.
	mythicRate, mythicBurst = 2, 10
)

// mythicBeasts replaces all TXT records of a name in one step. The API cannot compare and swap: a stranger that somebody
// else writes at the name between the look and the write is lost.
//
// libdns/mythicbeasts speaks through http.DefaultClient only, puts records of a zone below a registered domain into the
// domain's own zone, deletes strangers along with ours, and loses the causes of errors.
type mythicBeasts struct {
	api           *api
	keyID, secret string
}

func newMythicBeasts(a config.Account, g *guard, rt http.RoundTripper) (*cloud, error) {
	g.limit = rate.NewLimiter(mythicRate, mythicBurst)
	if a.KeyID == "" || a.Secret == "" {
		return nil, errors.New("no API key: set key_id, and secret_file or secret_env")
	}
	api, err := newAPI(a, g, rt, mythicURL)
	if err != nil {
		return nil, err
	}
	api.judge = judgeMythicBeasts
	return &cloud{api: &mythicBeasts{api: api, keyID: a.KeyID, secret: string(a.Secret)}}, nil
}

func judgeMythicBeasts(status int, body []byte) (Kind, string) {
	var answer struct {
		Error  string   `json:"error"`
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(body, &answer) != nil { // gateways answer in HTML
		return cmp.Or(kindOfStatus(status), KindUnavailable), ""
	}
	return kindOfStatus(status), worded(cmp.Or(answer.Error, strings.Join(answer.Errors, "; ")))
}

type mythicRecord struct {
	Host string `json:"host"` // "@" for the zone
	Type string `json:"type"`
	Data string `json:"data"` // TXT as it was given
	TTL  int    `json:"ttl"`
}

type mythicRecords struct {
	Records []mythicRecord `json:"records"`
}

// ask makes a request about the records of the name. The key goes along each time: nothing to log in to, nothing to expire.
func (a *mythicBeasts) ask(ctx context.Context, method string, c Change, typ string, body, result any) error {
	path := "/zones/" + url.PathEscape(c.Zone) + "/records/" + url.PathEscape(c.relative("@")) + typ
	return a.api.call(ctx, method, path, body, result, func(r *http.Request, _ []byte) { r.SetBasicAuth(a.keyID, a.secret) })
}

func (a *mythicBeasts) look(ctx context.Context, c Change) ([]txtRecord, error) {
	var answer mythicRecords
	if err := a.ask(ctx, http.MethodGet, c, "", nil, &answer); err != nil {
		return nil, err
	}
	if answer.Records == nil {
		return nil, malformed(errors.New("no records")) // is not an empty list
	}
	var found []txtRecord
	for _, r := range answer.Records {
		switch {
		case !strings.EqualFold(r.Host, c.relative("@")):
			return nil, faultf(KindUnavailable, "malformed answer of the API: a record of %q", r.Host)
		case r.Type == "CNAME":
			return nil, faultf(KindCNAME, "the name is a CNAME to %q", unfqdn(r.Data))
		case r.Type == "TXT":
			found = append(found, txtRecord{data: r.Data, text: textOf(r.Data), ttl: r.TTL})
		}
	}
	return found, nil
}

func (a *mythicBeasts) write(ctx context.Context, c Change, found []txtRecord, p plan) error {
	var set mythicRecords
	data, ttl := p.whole(c, found, c.Add)
	for _, d := range data {
		set.Records = append(set.Records, mythicRecord{Host: c.relative("@"), Type: "TXT", Data: d, TTL: ttl})
	}
	if len(data) == 0 {
		return a.ask(ctx, http.MethodDelete, c, "/TXT", nil, nil)
	}
	return a.ask(ctx, http.MethodPut, c, "/TXT", set, nil)
}
