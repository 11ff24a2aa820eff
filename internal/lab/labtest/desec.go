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

const desecToken = "i-fake-deSEC-token-0123456789"

type desecAPI struct{}

// StartDeSEC starts a fake of deSEC's API, version 1: domains with a minimum TTL of an hour, and record sets, which a PATCH
// of a list makes, replaces and deletes.
func StartDeSEC(t testing.TB, zones ...string) *Cloud {
	t.Helper()
	return startCloud(t, desecAPI{}, zones)
}

func (desecAPI) account(string) config.Account {
	return config.Account{Provider: "desec", APIToken: desecToken}
}

func (desecAPI) writes(r *http.Request) bool { return r.Method != http.MethodGet }

func (desecAPI) limited(wait time.Duration) cloudAnswer {
	detail := fmt.Sprintf(`{"detail":"Request was throttled. Expected available in %s seconds."}`, seconds(wait))
	return cloudAnswer{status: 429, body: detail, retryAfter: seconds(wait)}
}

type desecSet struct {
	Created string   `json:"created"`
	Domain  string   `json:"domain"`
	Subname string   `json:"subname"`
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Records []string `json:"records"`
	TTL     int      `json:"ttl"`
	Touched string   `json:"touched"`
}

func (desecAPI) handle(c *Cloud, r *http.Request, body []byte) cloudAnswer {
	if r.Header.Get("Authorization") != "Token "+desecToken || c.revoked {
		return cloudAnswer{status: 401, body: `{"detail":"Invalid token."}`}
	}
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/domains/"), "/")
	z := c.zone(name)
	switch {
	case z == nil:
		return cloudAnswer{status: 404, body: `{"detail":"Not found."}`}
	case rest == "" && r.Method == http.MethodGet:
		return jsonAnswer(map[string]any{"name": name, "minimum_ttl": 3600, "created": "2024-05-04T16:24:28.660313Z"})
	case rest == "rrsets/" && r.Method == http.MethodGet:
		return jsonAnswer(desecSets(z, r.URL.Query().Get("subname"), r.URL.Query().Get("type")))
	case rest == "rrsets/" && r.Method == http.MethodPatch:
		return desecPatch(c, z, body)
	}
	return cloudAnswer{status: 405, body: `{"detail":"Method not allowed."}`}
}

func desecSets(z *cloudZone, subname, typ string) []desecSet {
	sets := []desecSet{}
	for _, rec := range z.at(z.absolute(subname, "")) {
		if typ != "" && typ != rec.typ {
			continue
		}
		i := slices.IndexFunc(sets, func(s desecSet) bool { return s.Type == rec.typ })
		if i < 0 {
			i = len(sets)
			sets = append(sets, desecSet{Domain: z.name, Subname: subname, Name: rec.name + ".", Type: rec.typ, TTL: rec.ttl})
		}
		sets[i].Records = append(sets[i].Records, rec.data)
	}
	return sets
}

// desecPatch does all that a list says, or nothing.
func desecPatch(c *Cloud, z *cloudZone, body []byte) cloudAnswer {
	var sets []desecSet
	if err := json.Unmarshal(body, &sets); err != nil {
		return cloudAnswer{status: 400, body: `{"non_field_errors":["Expected a list of items but got type \"dict\"."]}`}
	}
	for _, s := range sets {
		there := z.at(z.absolute(s.Subname, ""))
		cname := slices.ContainsFunc(there, func(r cloudRecord) bool { return r.typ == "CNAME" })
		unquoted := func(d string) bool { return s.Type == "TXT" && !strings.HasPrefix(d, `"`) }
		switch {
		case s.TTL == 0 && len(there) == 0 && len(s.Records) > 0:
			return cloudAnswer{status: 400, body: `[{"ttl":["This field is required."]}]`}
		case s.TTL != 0 && s.TTL < 3600:
			return cloudAnswer{status: 400, body: `[{"ttl":["Ensure this value is greater than or equal to 3600."]}]`}
		case slices.ContainsFunc(s.Records, unquoted):
			return cloudAnswer{status: 400, body: `[{"records":["Data for TXT records must be given using quotation marks."]}]`}
		case cname && s.Type != "CNAME":
			return cloudAnswer{status: 400, body: `[{"non_field_errors":["RRset with conflicting type present: database (CNAME)."]}]`}
		}
	}
	for _, s := range sets {
		name := z.absolute(s.Subname, "")
		if there := z.at(name); s.TTL == 0 && len(there) > 0 { // not said
			s.TTL = there[0].ttl
		}
		z.replace(c, name, s.Type, s.TTL, s.Records)
	}
	return jsonAnswer(sets)
}

func jsonAnswer(v any) cloudAnswer {
	body, err := json.Marshal(v)
	if err != nil {
		return cloudAnswer{status: 500, body: err.Error()}
	}
	return cloudAnswer{status: 200, body: string(body)}
}
