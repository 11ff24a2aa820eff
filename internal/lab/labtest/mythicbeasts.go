package labtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
)

const mythicKey, mythicSecret = "fakekey1234", "fake-mythic-secret-56778"

type mythicAPI struct{}

// StartMythicBeasts starts a fake of Mythic Beasts' primary DNS API, version 2: records selected by host and type, which a
// PUT replaces as a whole and a DELETE removes as a whole. TXT data is kept as it was given.
func StartMythicBeasts(t testing.TB, zones ...string) *Cloud {
	t.Helper()
	return startCloud(t, mythicAPI{}, zones)
}

func (mythicAPI) account(string) config.Account {
	return config.Account{Provider: "mythicbeasts", KeyID: mythicKey, Secret: mythicSecret}
}

func (mythicAPI) writes(r *http.Request) bool { return r.Method != http.MethodGet }

func (mythicAPI) limited(time.Duration) cloudAnswer {
	return cloudAnswer{status: 429, body: `{"error":"Too many requests"}`}
}

type mythicRecord struct {
	Host string `json:"host"`
	Type string `json:"type"`
	Data string `json:"data"`
	TTL  int    `json:"ttl"`
}

func (mythicAPI) handle(c *Cloud, r *http.Request, body []byte) cloudAnswer {
	key, secret, _ := r.BasicAuth()
	if key != mythicKey || secret != mythicSecret || c.revoked {
		return cloudAnswer{status: 401, body: `{"error":"Invalid credentials"}`}
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/zones/"), "/")
	z := c.zone(parts[0])
	switch {
	case z == nil:
		return cloudAnswer{status: 404, body: `{"error":"Zone not found"}`}
	case len(parts) < 3 || parts[1] != "records":
		return cloudAnswer{status: 404, body: `{"error":"Not found"}`}
	}
	host, typ := parts[2], strings.Join(parts[3:], "/")
	selected := slices.DeleteFunc(z.at(z.absolute(host, "@")), func(rec cloudRecord) bool { return typ != "" && rec.typ != typ })
	if r.Method == http.MethodGet {
		records := []mythicRecord{}
		for _, rec := range selected {
			records = append(records, mythicRecord{z.relative(rec.name, "@"), rec.typ, rec.data, rec.ttl})
		}
		return jsonAnswer(map[string]any{"records": records})
	}
	var set struct{ Records []mythicRecord }
	if r.Method != http.MethodDelete && json.Unmarshal(body, &set) != nil || typ == "" {
		return cloudAnswer{status: 400, body: `{"errors":["Invalid request body"]}`}
	}
	return mythicReplace(c, z, r.Method, host, typ, selected, set.Records)
}

func mythicReplace(c *Cloud, z *cloudZone, method, host, typ string, selected []cloudRecord, records []mythicRecord) cloudAnswer {
	var data []string
	ttl := 300
	for _, rec := range records {
		if rec.Host != host || rec.Type != typ {
			return cloudAnswer{status: 400, body: `{"errors":["Record does not match selector"]}`}
		}
		data, ttl = append(data, rec.Data), rec.TTL
	}
	if (method == http.MethodPut) != (len(data) > 0) {
		return cloudAnswer{status: 400, body: `{"errors":["No records"]}`}
	}
	if slices.ContainsFunc(z.at(z.absolute(host, "@")), func(rec cloudRecord) bool { return rec.typ == "CNAME" }) && len(data) > 0 {
		return cloudAnswer{status: 400, body: `{"errors":["CNAME and other data"]}`}
	}
	z.replace(c, z.absolute(host, "@"), typ, ttl, data)
	return jsonAnswer(map[string]any{
		"message": fmt.Sprintf("%d records added", len(data)), "records_added": len(data), "records_removed": len(selected),
	})
}
