package dnsupdate_test

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
)

const prefixPD = `TXT "_mta-sts.example.org" in zone "example.org" by account "main" (powerdns): `

// TestPowerDNSMessages wants what an operator reads, word for word, whether the look fails or the write.
func TestPowerDNSMessages(t *testing.T) {
	t.Parallel()
	const compare = "; compare the API key with api-key in the server's configuration, and webserver-allow-from"
	tests := map[string]struct {
		trouble
		times int
		kind  dnsupdate.Kind
		wait  time.Duration
		want  string
	}{
		"401": {trouble{status: 401, body: "Unauthorized"}, 1, dnsupdate.KindAuth, 0, "the API says HTTP 401 Unauthorized" + compare},
		"404": {
			trouble{status: 404, body: "Not Found"},
			1, dnsupdate.KindNoZone, 0,
			"the API says HTTP 404 Not Found; add the zone to the server, and compare server and server_id",
		},
		"422": {
			trouble{status: 422, body: `{"error": "RRset _mta-sts.example.org. IN TXT: Conflicts with pre-existing RRset"}`},
			1, dnsupdate.KindCNAME, 0,
			`the API says HTTP 422 Unprocessable Entity, "RRset _mta-sts.example.org. IN TXT: Conflicts with pre-existing RRset"` +
				"; delete the CNAME, or publish the domain as alias",
		},
		"422 else": {
			trouble{status: 422, body: `{"error": "Record too long"}`},
			1, dnsupdate.KindRefused, 0,
			`the API says HTTP 422 Unprocessable Entity, "Record too long"`,
		},
		"429 without Retry-After": {
			trouble{status: 429}, 1, dnsupdate.KindRateLimited, time.Minute, "the API says HTTP 429 Too Many Requests; asking again in 1m0s",
		},
		"500 for good": {
			trouble{status: 500, body: `{"error": "database is locked"}`},
			4, dnsupdate.KindUnavailable, 0,
			`the API says HTTP 500 Internal Server Error, "database is locked"; trying again later`,
		},
		"503": {
			trouble{status: 503, after: "30"},
			1, dnsupdate.KindUnavailable, 30 * time.Second,
			"the API says HTTP 503 Service Unavailable; trying again later",
		},
		"200 without a zone": {
			trouble{status: 200, body: `{"result": "ok"}`},
			1, dnsupdate.KindUnavailable, 0,
			"the API says HTTP 200 OK; trying again later",
		},
		"moved": {trouble{status: 301}, 1, dnsupdate.KindRefused, 0, "the API says HTTP 301 Moved Permanently"},
	}
	for _, op := range []string{"read", "write"} {
		p := apiPlace(labtest.StartPowerDNS(t, lab.Zone{Name: zone}))
		for name, tt := range tests {
			t.Run(name+"/"+op, func(t *testing.T) {
				p.set(t, record, "TXT", quoted(sts("old")), `"stranger"`)
				tt.write = op == "write"
				a := p.open(t, dnsupdate.Options{})
				p.wire.order(slices.Repeat([]trouble{tt.trouble}, tt.times)...)
				e := p.fails(t, a.Apply(t.Context(), change(record, sts("now"), sts("old"))), tt.kind)
				says(t, e, op+" "+prefixPD+tt.want)
				if e.RetryAfter != tt.wait {
					t.Errorf("RetryAfter = %v, want %v", e.RetryAfter, tt.wait)
				}
				p.wantData(t, record, quoted(sts("old")), `"stranger"`)
			})
		}
	}
}

// TestPowerDNSSecret has the API repeat the key.
func TestPowerDNSSecret(t *testing.T) {
	t.Parallel()
	p := apiPlace(labtest.StartPowerDNS(t, lab.Zone{Name: zone}))
	p.wire.order(trouble{status: 400, body: `{"error": "bad key ` + string(p.config.APIKey) + `"}`})
	err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(record, sts("now")))
	says(t, p.fails(t, err, dnsupdate.KindRefused), "read "+prefixPD+`the API says HTTP 400 Bad Request, "bad key [secret]"`)
}

// TestPowerDNSLocked has the database locked for a while, which is not worth an error.
func TestPowerDNSLocked(t *testing.T) {
	t.Parallel()
	p := apiPlace(labtest.StartPowerDNS(t, lab.Zone{Name: zone}))
	locked := trouble{status: 500, body: `{"error": "database is locked"}`}
	late := locked
	late.write = true
	p.wire.order(locked, locked, late, late, late)
	apply(t, p.open(t, dnsupdate.Options{}), change(record, sts("now")))
	p.wantData(t, record, quoted(sts("now")))
	if got := p.wire.count(); got != 4 {
		t.Errorf("%d writes, want 4", got)
	}
}

// TestPowerDNSMalformed wants nothing written where it is not known what is there.
func TestPowerDNSMalformed(t *testing.T) {
	t.Parallel()
	p := apiPlace(labtest.StartPowerDNS(t, lab.Zone{Name: zone}))
	a := p.open(t, dnsupdate.Options{})
	for _, body := range []string{
		"", "null", "[]", "{}", `"`, `{"rrsets":null}`, `{"rrsets":{}}`, `{"rrsets":[1]}`, `{"rrsets":[{"records":7}]}`, strings.Repeat("x", 2<<20),
	} {
		p.wire.order(trouble{status: 200, body: body})
		p.fails(t, a.Apply(t.Context(), change(record, sts("now"))), dnsupdate.KindUnavailable)
	}
	if got := p.wire.count(); got != 0 {
		t.Errorf("%d writes, want none", got)
	}
	// A record set of another name is none of this one.
	p.wire.order(trouble{status: 200, body: `{"rrsets":[{"name":"other.example.org.","type":"CNAME","records":[{"content":"x."}]}]}`})
	apply(t, a, change(record, sts("now")))
}

// TestPowerDNSRival has another process write between the look and the write, which the API cannot prevent: the last one
// stands, alone.
func TestPowerDNSRival(t *testing.T) {
	t.Parallel()
	p := apiPlace(labtest.StartPowerDNS(t, lab.Zone{Name: zone}))
	rival := p.open(t, dnsupdate.Options{HTTP: http.DefaultTransport})
	once := false
	a := p.open(t, dnsupdate.Options{HTTP: roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodPatch && !once {
			once = true
			apply(t, rival, change(record, sts("rival")))
		}
		return http.DefaultTransport.RoundTrip(r)
	})})
	apply(t, a, change(record, sts("now")))
	p.wantData(t, record, quoted(sts("now")))
}

// TestOpenPowerDNS refuses what cannot work.
func TestOpenPowerDNS(t *testing.T) {
	t.Parallel()
	for want, a := range map[string]config.Account{
		`open account "main": no API key: set api_key_file or api_key_env`: {Server: "http://127.0.0.1:8081"},
		`open account "main": server "localhost": not an URL`:              {APIKey: "secret", Server: "localhost"},
	} {
		a.Name, a.Provider = "main", "powerdns"
		if _, err := dnsupdate.Open(a, dnsupdate.Options{}); err == nil || err.Error() != want {
			t.Errorf("Open = %v, want %s", err, want)
		}
	}
}

// TestRate wants what an account says of its speed to be what its limits let through.
func TestRate(t *testing.T) {
	t.Parallel()
	for want, a := range map[dnsupdate.Rate]config.Account{
		{Changes: 15_000, Batch: 300}:        {Provider: "rfc2136", Server: "127.0.0.1"},
		{Changes: 3.5 / 3, Batch: 1}:         {Provider: "cloudflare", APIToken: "token"},
		{Changes: 1.5, Batch: 1}:             {Provider: "route53", KeyID: "key", Secret: "secret"},
		{Changes: 0.2, Batch: 1}:             {Provider: "desec", APIToken: "token"},
		{Changes: 8.0 / 3, Batch: 1}:         {Provider: "cloudns", KeyID: "1", Secret: "secret"},
		{Changes: 2.0 / 6, Batch: 1}:         {Provider: "ovh", KeyID: "key", Secret: "secret", ConsumerKey: "key"},
		{Changes: 2.0 / 3, Batch: 1}:         {Provider: "mythicbeasts", KeyID: "key", Secret: "secret"},
		{Changes: 1000 / 1.001, Batch: 1000}: {Provider: "powerdns", Server: "http://127.0.0.1", APIKey: "key"},
	} {
		account, err := dnsupdate.Open(a, dnsupdate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := account.Rate(); math.Abs(got.Changes-want.Changes) > 0.01 || got.Batch != want.Batch {
			t.Errorf("%s: Rate() = %+v, want %+v", a.Provider, got, want)
		}
	}
}
