package labtest

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
)

const ovhKey, ovhSecret, ovhConsumer = "fakeAppKey123456", "fakeAppSecret0123456789abcdef", "fakeConsumerKey0123456789abcd"

type ovhAPI struct{}

// StartOVH starts a fake of OVHcloud's API, version 1.0: signed requests by a clock that is an hour ahead, lists of record
// ids, records in quotes, and changes that are served only after a refresh.
func StartOVH(t testing.TB, zones ...string) *Cloud {
	t.Helper()
	return startCloud(t, ovhAPI{}, zones)
}

func (ovhAPI) account(string) config.Account {
	return config.Account{Provider: "ovh", KeyID: ovhKey, Secret: ovhSecret, ConsumerKey: ovhConsumer}
}

// A refresh changes no records.
func (ovhAPI) writes(r *http.Request) bool {
	return r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "/refresh")
}

func (ovhAPI) limited(time.Duration) cloudAnswer {
	return cloudAnswer{status: 429, body: `{"class":"Client::TooManyRequests","message":"Too many requests, please retry later"}`}
}

// ovhClock is the API's time.
func ovhClock() time.Time { return time.Now().Add(time.Hour) }

func ovhRefuse(status int, code, message string) cloudAnswer {
	a := jsonAnswer(map[string]string{"errorCode": code, "httpCode": fmt.Sprintf("%d %s", status, http.StatusText(status)), "message": message})
	a.status = status
	return a
}

func (ovhAPI) handle(c *Cloud, r *http.Request, body []byte) cloudAnswer {
	if r.URL.Path == "/auth/time" {
		return jsonAnswer(ovhClock().Unix())
	}
	if refused := ovhAuth(c, r, body); refused.status != 0 {
		return refused
	}
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/domain/zone/"), "/")
	z := c.zone(name)
	if z == nil {
		return cloudAnswer{status: 404, body: `{"class":"Client::NotFound","message":"This service does not exist"}`}
	}
	id, single := strings.CutPrefix(rest, "record/")
	at := slices.IndexFunc(z.records, func(rec cloudRecord) bool { return strconv.Itoa(rec.id) == id })
	switch {
	case single && at < 0:
		return cloudAnswer{status: 404, body: `{"class":"Client::NotFound","message":"The requested object (id = ` + id + `) does not exist"}`}
	case single:
		return ovhRecordByID(z, at, r.Method, body)
	case rest == "record" && r.Method == http.MethodGet:
		ids := []int{}
		for _, rec := range z.at(z.absolute(r.URL.Query().Get("subDomain"), "")) {
			if typ := r.URL.Query().Get("fieldType"); typ == "" || typ == rec.typ {
				ids = append(ids, rec.id)
			}
		}
		return jsonAnswer(ids)
	case rest == "record" && r.Method == http.MethodPost:
		z.records = append(z.records, cloudRecord{id: c.newID()})
		answer := ovhRecordByID(z, len(z.records)-1, r.Method, body)
		if answer.status != 200 {
			z.records = z.records[:len(z.records)-1]
		}
		return answer
	case rest == "refresh" && r.Method == http.MethodPost:
		c.publish(z)
		return cloudAnswer{status: 200, body: "null"}
	}
	return cloudAnswer{status: 404, body: `{"message":"Got an invalid (or empty) URL"}`}
}

// ovhAuth checks key, consumer, time and signature.
func ovhAuth(c *Cloud, r *http.Request, body []byte) cloudAnswer {
	at, _ := strconv.ParseInt(r.Header.Get("X-Ovh-Timestamp"), 10, 64)
	text := fmt.Sprintf("%s+%s+%s+%s+%s+%d", ovhSecret, ovhConsumer, r.Method, c.URL+r.URL.RequestURI(), body, at)
	switch {
	case r.Header.Get("X-Ovh-Application") != ovhKey:
		return ovhRefuse(403, "INVALID_KEY", "This application key is invalid")
	case r.Header.Get("X-Ovh-Consumer") != ovhConsumer || c.revoked:
		return ovhRefuse(403, "INVALID_CREDENTIAL", "This credential is not valid")
	case ovhClock().Sub(time.Unix(at, 0)).Abs() > 30*time.Second:
		return ovhRefuse(400, "QUERY_TIME_OUT", "Query out of time")
	case r.Header.Get("X-Ovh-Signature") != fmt.Sprintf("$1$%x", sha1.Sum([]byte(text))):
		return ovhRefuse(400, "INVALID_SIGNATURE", "Invalid signature")
	}
	return cloudAnswer{}
}

type ovhRecord struct {
	ID        int    `json:"id"`
	Zone      string `json:"zone"`
	FieldType string `json:"fieldType"`
	SubDomain string `json:"subDomain"`
	Target    string `json:"target"`
	TTL       int    `json:"ttl"`
}

// ovhRecordByID shows, fills, changes or deletes a record.
func ovhRecordByID(z *cloudZone, at int, method string, body []byte) cloudAnswer {
	rec := &z.records[at]
	said := ovhRecord{ID: rec.id, Zone: z.name, FieldType: rec.typ, SubDomain: z.relative(rec.name, ""), Target: rec.data, TTL: rec.ttl}
	switch method {
	case http.MethodGet:
		return jsonAnswer(said)
	case http.MethodDelete:
		z.records = slices.Delete(z.records, at, at+1)
		return cloudAnswer{status: 200, body: "null"}
	case http.MethodPut:
		var change map[string]any
		if json.Unmarshal(body, &change) != nil || change["fieldType"] != nil {
			return cloudAnswer{status: 400, body: `{"class":"Client::BadRequest","message":"[fieldType] Unknown parameter"}`}
		}
	}
	if json.Unmarshal(body, &said) != nil || said.Target == "" || said.TTL != 0 && said.TTL < 60 {
		return cloudAnswer{status: 400, body: `{"class":"Client::BadRequest","message":"Invalid parameter"}`}
	}
	name := z.absolute(said.SubDomain, "")
	if slices.ContainsFunc(z.at(name), func(o cloudRecord) bool { return o.typ == "CNAME" }) {
		return cloudAnswer{status: 400, body: `{"class":"Client::BadRequest","message":"A CNAME record already exists for this subDomain"}`}
	}
	rec.name, rec.typ, rec.data, rec.ttl = name, said.FieldType, said.Target, said.TTL
	if rec.typ == "TXT" && !strings.HasPrefix(rec.data, `"`) {
		rec.data = strconv.Quote(rec.data)
	}
	if method == http.MethodPut {
		return cloudAnswer{status: 200, body: "null"}
	}
	said.ID, said.Target = rec.id, rec.data
	return jsonAnswer(said)
}
