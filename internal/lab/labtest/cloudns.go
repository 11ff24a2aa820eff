package labtest

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
)

const cloudnsUser, cloudnsPassword = "1234", "fake-ClouDNS-password-56"

type cloudnsAPI struct{}

// StartClouDNS starts a fake of ClouDNS's HTTP API: forms by POST, refusals with HTTP 200, numbers as strings, "[]" in
// place of no records, TXT without outer quotes, and TTLs from a list only. A sub-user has the same number and password.
func StartClouDNS(t testing.TB, zones ...string) *Cloud {
	t.Helper()
	return startCloud(t, cloudnsAPI{}, zones)
}

func (cloudnsAPI) account(string) config.Account {
	return config.Account{Provider: "cloudns", KeyID: cloudnsUser, Secret: cloudnsPassword}
}

func (cloudnsAPI) writes(r *http.Request) bool { return r.URL.Path != "/records.json" }

func (cloudnsAPI) limited(time.Duration) cloudAnswer {
	return cloudAnswer{status: 429, body: `{"status":"Failed","statusDescription":"Too many requests."}`}
}

func cloudnsFailed(why string) cloudAnswer {
	return jsonAnswer(map[string]string{"status": "Failed", "statusDescription": why})
}

func cloudnsDone(what string) cloudAnswer {
	return jsonAnswer(map[string]string{"status": "Success", "statusDescription": "The record was " + what + " successfully."})
}

func (cloudnsAPI) handle(c *Cloud, r *http.Request, body []byte) cloudAnswer {
	form, err := url.ParseQuery(string(body))
	if err != nil || r.Method != http.MethodPost {
		return cloudAnswer{status: 400}
	}
	switch {
	case form.Get("auth-password") == cloudnsPassword && form.Get("auth-id")+form.Get("sub-auth-id") == cloudnsUser && !c.revoked:
	case form.Has("sub-auth-id"):
		return cloudnsFailed("Invalid authentication, incorrect sub-auth-id, sub-auth-user or auth-password.")
	default:
		return cloudnsFailed("Invalid authentication, incorrect auth-id or auth-password.")
	}
	z := c.zone(form.Get("domain-name"))
	if z == nil {
		return cloudnsFailed("Missing domain-name")
	}
	if r.URL.Path == "/records.json" {
		return cloudnsRecords(z, form)
	}
	return cloudnsWrite(c, z, r.URL.Path, form)
}

func cloudnsRecords(z *cloudZone, form url.Values) cloudAnswer {
	found := make(map[string]map[string]string)
	for _, rec := range z.records {
		host := z.relative(rec.name, "")
		if form.Get("host") != "" && form.Get("host") != host || form.Get("type") != "" && form.Get("type") != rec.typ {
			continue
		}
		data := rec.data
		if rec.typ == "TXT" && strings.HasPrefix(data, `"`) {
			data = data[1 : len(data)-1]
		}
		id := strconv.Itoa(rec.id)
		found[id] = map[string]string{
			"id": id, "type": rec.typ, "host": host, "record": strings.TrimSuffix(data, "."), "ttl": strconv.Itoa(rec.ttl),
			"failover": "0", "status": "1", "dynamicurl_status": "0",
		}
		if rec.typ == "TXT" {
			found[id]["record"] = data
		}
	}
	if len(found) == 0 {
		return cloudAnswer{status: 200, body: "[]"}
	}
	return jsonAnswer(found)
}

func cloudnsWrite(c *Cloud, z *cloudZone, path string, form url.Values) cloudAnswer {
	at := slices.IndexFunc(z.records, func(rec cloudRecord) bool { return strconv.Itoa(rec.id) == form.Get("record-id") })
	if path != "/add-record.json" && at < 0 {
		return cloudnsFailed("Invalid record-id param.")
	}
	if path == "/delete-record.json" {
		z.records = slices.Delete(z.records, at, at+1)
		c.publish(z)
		return cloudnsDone("deleted")
	}
	ttl, _ := strconv.Atoi(form.Get("ttl"))
	name := z.absolute(form.Get("host"), "")
	rec := cloudRecord{id: c.newID(), name: name, typ: form.Get("record-type"), data: form.Get("record"), ttl: ttl}
	if path == "/mod-record.json" {
		if rec.typ != "" {
			return cloudnsFailed("The record type cannot be changed.")
		}
		rec.id, rec.typ = z.records[at].id, z.records[at].typ
	}
	valid := []int{60, 300, 900, 1800, 3600, 21600, 43200, 86400, 172800, 259200, 604800, 1209600, 2592000}
	switch {
	case rec.data == "":
		return cloudnsFailed("Missing record")
	case !slices.Contains(valid, ttl):
		return cloudnsFailed("Invalid TTL. Choose from the list of the values we support.")
	case slices.ContainsFunc(z.at(name), func(o cloudRecord) bool { return o.typ == "CNAME" }):
		return cloudnsFailed("You already have a CNAME record with that host.")
	}
	switch path {
	case "/add-record.json":
		z.records = append(z.records, rec)
		c.publish(z)
		return cloudnsDone("added")
	case "/mod-record.json":
		z.records[at] = rec
		c.publish(z)
		return cloudnsDone("modified")
	}
	return cloudAnswer{status: 404}
}
