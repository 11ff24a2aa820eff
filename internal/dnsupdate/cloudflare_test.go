package dnsupdate_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab/labtest"
)

const (
	record   = "_mta-sts." + zone
	prefixCF = `TXT "_mta-sts.example.org" in zone "example.org" by account "main" (cloudflare): `
)

// refusal is one way of the API to say no.
type refusal struct {
	fault labtest.CloudflareFault
	kind  dnsupdate.Kind
	wait  time.Duration // RetryAfter
	want  string        // after the prefix
}

func refusals() map[string]refusal {
	api := func(code int, message string) string {
		return fmt.Sprintf(`{"success":false,"errors":[{"code":%d,"message":%q}],"messages":[],"result":null}`, code, message)
	}
	const give = "; give the API token the permissions Zone:Read and DNS:Edit for this zone, or replace it"
	return map[string]refusal{
		"401": {
			labtest.CloudflareFault{Status: 401, Body: api(1000, "Invalid API Token")},
			dnsupdate.KindAuth, 0,
			`the API says HTTP 401 Unauthorized, "Invalid API Token" (1000)` + give,
		},
		"403": {
			labtest.CloudflareFault{Status: 403, Body: api(9109, "Unauthorized to access requested resource")},
			dnsupdate.KindAuth, 0,
			`the API says HTTP 403 Forbidden, "Unauthorized to access requested resource" (9109)` + give,
		},
		"429": {
			labtest.CloudflareFault{Status: 429, Body: api(10429, "Rate limited."), RetryAfter: "127"},
			dnsupdate.KindRateLimited, 127 * time.Second,
			`the API says HTTP 429 Too Many Requests, "Rate limited." (10429); asking again in 2m7s`,
		},
		"429 without Retry-After": {
			labtest.CloudflareFault{Status: 429, Body: "slow down"},
			dnsupdate.KindRateLimited, 5 * time.Minute,
			`the API says HTTP 429 Too Many Requests; asking again in 5m0s`,
		},
		"500": {
			labtest.CloudflareFault{Status: 500, Body: api(7500, "internal error")},
			dnsupdate.KindUnavailable, 0,
			`the API says HTTP 500 Internal Server Error, "internal error" (7500); trying again later`,
		},
		"502 in HTML": {
			labtest.CloudflareFault{Status: 502, Body: html502},
			dnsupdate.KindUnavailable, 0,
			`the API says HTTP 502 Bad Gateway; trying again later`,
		},
		"503": {
			labtest.CloudflareFault{Status: 503, RetryAfter: "30"},
			dnsupdate.KindUnavailable, 30 * time.Second,
			`the API says HTTP 503 Service Unavailable; trying again later`,
		},
		"no success, no reason": {
			labtest.CloudflareFault{Status: 200, Body: `{"success":false,"errors":[],"result":null}`},
			dnsupdate.KindUnavailable, 0,
			`the API says HTTP 200 OK; trying again later`,
		},
		"200 in HTML": {
			labtest.CloudflareFault{Status: 200, Body: html502},
			dnsupdate.KindUnavailable, 0,
			`the API says HTTP 200 OK; trying again later`,
		},
		"no zone": {
			labtest.CloudflareFault{Status: 404, Body: api(7003, "Could not route to /zones/0, perhaps your object identifier is invalid?")},
			dnsupdate.KindNoZone, 0,
			`the API says HTTP 404 Not Found, "Could not route to /zones/0, perhaps your object identifier is invalid?" (7003)` +
				"; add the zone to the provider's account, or include it in the API token",
		},
		"quota": {
			labtest.CloudflareFault{Status: 400, Body: api(81045, "Record quota exceeded.")},
			dnsupdate.KindQuota, 0,
			`the API says HTTP 400 Bad Request, "Record quota exceeded." (81045); delete records, or have the provider raise the limit`,
		},
		"CNAME": {
			labtest.CloudflareFault{Status: 400, Body: api(81053, "An A, AAAA, or CNAME record with that host already exists.")},
			dnsupdate.KindCNAME, 0,
			`the API says HTTP 400 Bad Request, "An A, AAAA, or CNAME record with that host already exists." (81053)` +
				`; delete the CNAME, or publish the domain as alias`,
		},
		"gone meanwhile": {
			labtest.CloudflareFault{Status: 404, Body: api(81044, "Record does not exist.")},
			dnsupdate.KindConflict, 0,
			`the API says HTTP 404 Not Found, "Record does not exist." (81044)`,
		},
		"refused, with the cause in the chain": {
			labtest.CloudflareFault{Status: 400, Body: `{"success":false,"errors":[{"code":1004,"message":"DNS Validation Error","error_chain":[{"code":9021,"message":"Invalid TTL."}]}]}`},
			dnsupdate.KindRefused, 0, `the API says HTTP 400 Bad Request, "Invalid TTL." (9021)`,
		},
		"moved": {
			labtest.CloudflareFault{Status: 301}, dnsupdate.KindRefused, 0, `the API says HTTP 301 Moved Permanently`,
		},
	}
}

// TestCloudflareMessages wants what an operator reads, word for word, whether the look fails or the write.
func TestCloudflareMessages(t *testing.T) {
	t.Parallel()
	for name, tt := range refusals() {
		for _, op := range []struct{ name, method string }{{"read", http.MethodGet}, {"write", http.MethodPatch}} {
			t.Run(name+"/"+op.name, func(t *testing.T) {
				t.Parallel()
				c, p := cloudflarePlace(t)
				c.Put(record, "TXT", quoted(sts("old")))
				c.Put(record, "TXT", "stranger")
				fault := tt.fault
				fault.Method = op.method
				c.Fail(fault)
				a := p.open(t, dnsupdate.Options{})
				err := a.Apply(t.Context(), change(record, sts("now"), sts("old")))
				e := p.fails(t, err, tt.kind)
				says(t, e, op.name+" "+prefixCF+tt.want)
				if e.RetryAfter != tt.wait {
					t.Errorf("RetryAfter = %v, want %v", e.RetryAfter, tt.wait)
				}
				p.wantData(t, record, quoted(sts("old")), `"stranger"`)
				if tt.kind == dnsupdate.KindRateLimited {
					return // see TestPause
				}
				apply(t, a, change(record, sts("now"), sts("old"))) // it has passed
				p.wantData(t, record, quoted(sts("now")), `"stranger"`)
			})
		}
	}
}

// TestCloudflareDelete has the deletion of a duplicate fail, which the library itself would not notice.
func TestCloudflareDelete(t *testing.T) {
	t.Parallel()
	c, p := cloudflarePlace(t)
	c.Put(record, "TXT", quoted(sts("old")))
	c.Put(record, "TXT", sts("older")) // without quotes
	c.Fail(labtest.CloudflareFault{Method: http.MethodDelete, Status: 502, Body: html502})
	a := p.open(t, dnsupdate.Options{})
	err := a.Apply(t.Context(), change(record, sts("now"), sts("old"), sts("older")))
	says(t, p.fails(t, err, dnsupdate.KindUnavailable), "write "+prefixCF+"the API says HTTP 502 Bad Gateway; trying again later")
	p.wantData(t, record, quoted(sts("old")), quoted(sts("older")))
	apply(t, a, change(record, sts("now"), sts("old"), sts("older")))
	p.wantData(t, record, quoted(sts("now")))
}

// TestCloudflareToken has tokens that are wrong, malformed or too weak.
func TestCloudflareToken(t *testing.T) {
	t.Parallel()
	c, p := cloudflarePlace(t)
	const give = "; give the API token the permissions Zone:Read and DNS:Edit for this zone, or replace it"
	for token, want := range map[string]string{
		"wrong-wrong-wrong-wrong-wrong-wrong-wron": "read " + prefixCF + `the API says HTTP 403 Forbidden, "Invalid access token" (9109)` + give,
		"malformed": "read " + prefixCF + `the API says HTTP 400 Bad Request, "Invalid format for Authorization header" (6111)` + give,
		c.ReadToken: "write " + prefixCF + `the API says HTTP 403 Forbidden, "Authentication error" (10000)` + give,
	} {
		q := *p
		q.config.APIToken = config.Secret(token)
		says(t, q.fails(t, q.open(t, dnsupdate.Options{}).Apply(t.Context(), change(record, sts("now"))), dnsupdate.KindAuth), want)
	}
	// An API that repeats the token.
	c.Fail(labtest.CloudflareFault{Status: 403, Body: `{"success":false,"errors":[{"code":9109,"message":"bad token ` + c.Token + `"}]}`})
	err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(record, sts("now")))
	says(t, p.fails(t, err, dnsupdate.KindAuth), "read "+prefixCF+`the API says HTTP 403 Forbidden, "bad token [secret]" (9109)`+give)
}

// TestCloudflareLostAnswer cuts the connection after the API has done its work.
func TestCloudflareLostAnswer(t *testing.T) {
	t.Parallel()
	for method, before := range map[string][]string{http.MethodPost: nil, http.MethodPatch: {quoted(sts("old"))}} {
		c, p := cloudflarePlace(t)
		p.set(t, record, "TXT", append(before, "stranger")...)
		c.Fail(labtest.CloudflareFault{Method: method, Cut: true})
		a := p.open(t, dnsupdate.Options{})
		err := a.Apply(t.Context(), change(record, sts("now"), sts("old")))
		host := strings.TrimSuffix(strings.TrimPrefix(c.URL, "http://"), "/client/v4")
		says(t, p.fails(t, err, dnsupdate.KindUnavailable), "write "+prefixCF+"ask "+host+": EOF; trying again later")
		p.wantData(t, record, quoted(sts("now")), `"stranger"`)
		apply(t, a, change(record, sts("now"), sts("old")))
		p.wantData(t, record, quoted(sts("now")), `"stranger"`)
		if got := c.Writes(); got != 1 {
			t.Errorf("%s: %d writes, want 1", method, got)
		}
	}
}

// TestCloudflareSlow has answers that do not come.
func TestCloudflareSlow(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		c, p := cloudflarePlace(t)
		c.Fail(labtest.CloudflareFault{Method: method, Delay: time.Hour})
		a := p.open(t, dnsupdate.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		p.fails(t, a.Apply(ctx, change(record, sts("now"))), dnsupdate.KindUnavailable)
		cancel()
		apply(t, a, change(record, sts("now")))
		p.wantData(t, record, quoted(sts("now")))
	}
}

// TestCloudflareQuota fills the zone; rotations go on, as they create nothing.
func TestCloudflareQuota(t *testing.T) {
	t.Parallel()
	c, p := cloudflarePlace(t)
	a := p.open(t, dnsupdate.Options{})
	apply(t, a, change(record, sts("old")))
	c.SetQuota(1)
	err := a.Apply(t.Context(), change("_mta-sts.second."+zone, sts("now")))
	p.fails(t, err, dnsupdate.KindQuota)
	apply(t, a, change(record, sts("now"), sts("old")))
	p.wantData(t, record, quoted(sts("now")))
}

// TestCloudflareZones has more zones than a page, and one that comes back with another id.
func TestCloudflareZones(t *testing.T) {
	t.Parallel()
	names := make([]string, 120)
	for i := range names {
		names[i] = fmt.Sprintf("z%d.example", i)
	}
	c := labtest.StartCloudflare(t, append(names, zone)...)
	p := &place{config: c.Account("main"), addr: c.DNS.Addr}
	a := p.open(t, dnsupdate.Options{})
	apply(t, a, change(record, sts("old")))
	c.RemoveZone(zone)
	p.fails(t, a.Apply(t.Context(), change(record, sts("now"), sts("old"))), dnsupdate.KindNoZone)
	c.AddZone(zone)
	apply(t, a, change(record, sts("now"), sts("old")))
	c.RemoveZone(zone)
	c.AddZone(zone)
	apply(t, a, change(record, sts("later"), sts("now"))) // the id that is remembered is stale
	p.wantData(t, record, quoted(sts("later")))
}

// TestCloudflareNames has a name that the API would take for another one if it were written relative to the zone.
func TestCloudflareNames(t *testing.T) {
	t.Parallel()
	_, p := cloudflarePlace(t)
	a := p.open(t, dnsupdate.Options{})
	apply(t, a, change("_mta-sts.example.org.example.org", sts("inner")))
	p.wantData(t, "_mta-sts.example.org.example.org", quoted(sts("inner")))
	p.wantData(t, record)
	apply(t, a, change("_MTA-STS.Example.ORG.", sts("outer")))
	p.wantData(t, record, quoted(sts("outer")))
}

// TestCloudflarePages has many strangers at the name, and ours behind the first page.
func TestCloudflarePages(t *testing.T) {
	t.Parallel()
	c, p := cloudflarePlace(t)
	for i := range 130 {
		c.Put(record, "TXT", fmt.Sprintf("stranger %d", i))
	}
	c.Put(record, "TXT", quoted(sts("old")))
	apply(t, p.open(t, dnsupdate.Options{}), change(record, sts("now"), sts("old")))
	if got := c.Contents(record, "TXT"); len(got) != 131 || got[130] != quoted(sts("now")) {
		t.Errorf("%d records, the last %q, want 131 with ours in its place", len(got), got[len(got)-1])
	}
}

// TestCloudflareRequests counts what a change costs of the allowance.
func TestCloudflareRequests(t *testing.T) {
	t.Parallel()
	c, p := cloudflarePlace(t)
	m := dnsupdate.NewMetrics()
	a := p.open(t, dnsupdate.Options{Metrics: m})
	apply(t, a, change(record, sts("a")))
	apply(t, a, change(record, sts("b"), sts("a")))
	got := c.Requests()
	for i, r := range got {
		got[i], _, _ = strings.Cut(r, "?")
	}
	records := got[1]
	want := []string{
		"GET /zones", records, "POST" + strings.TrimPrefix(records, "GET"), records, // cold
		records, got[5], records, // warm
	}
	if !slices.Equal(got, want) || !strings.HasPrefix(got[5], "PATCH ") {
		t.Errorf("requests = %q, want %q", got, want)
	}
	// The first refusal may be due to a stale zone id, so the zone is asked for again.
	c.Fail(labtest.CloudflareFault{Status: 403, Times: 2})
	p.fails(t, a.Apply(t.Context(), change(record, sts("c"), sts("b"))), dnsupdate.KindAuth)
	values := metrics(t, m)
	for key, want := range map[string]float64{
		"stspub_dns_writes_total account=main result=ok":   2,
		"stspub_dns_writes_total account=main result=auth": 1,
		"stspub_dns_requests_total account=main":           float64(len(c.Requests())),
		"stspub_dns_write_seconds account=main":            3,
	} {
		if values[key] != want {
			t.Errorf("%s = %v, want %v", key, values[key], want)
		}
	}
}

// TestCloudflareRival has another process create its record between the look and the write. One of the two stays.
func TestCloudflareRival(t *testing.T) {
	t.Parallel()
	t.Run("the rival was first", func(t *testing.T) {
		c, p := cloudflarePlace(t)
		c.Fail(labtest.CloudflareFault{Method: http.MethodPost, Do: func() { c.Put(record, "TXT", quoted(sts("rival"))) }})
		err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(record, sts("now")))
		says(t, p.fails(t, err, dnsupdate.KindConflict), "write "+prefixCF+`the STSv1 record "v=STSv1; id=rival;" is there, too`)
		p.wantData(t, record, quoted(sts("rival")))
	})
	t.Run("both at once", func(t *testing.T) {
		c, p := cloudflarePlace(t)
		first, second := p.open(t, dnsupdate.Options{}), p.open(t, dnsupdate.Options{})
		var inner error
		c.Fail(labtest.CloudflareFault{Method: http.MethodPost, Do: func() {
			// The second one has looked, created and found itself alone before the first one creates.
			inner = second.Apply(context.WithoutCancel(t.Context()), change(record, sts("second")))
		}})
		err := first.Apply(t.Context(), change(record, sts("first")))
		if inner != nil {
			t.Fatalf("second: %v", inner)
		}
		p.fails(t, err, dnsupdate.KindConflict)
		p.wantData(t, record, quoted(sts("second")))
	})
	t.Run("the rival is late", func(t *testing.T) {
		c, p := cloudflarePlace(t)
		a := p.open(t, dnsupdate.Options{})
		apply(t, a, change("_mta-sts.warm."+zone, sts("now"))) // so that the zone is known
		c.Fail(labtest.CloudflareFault{Method: http.MethodGet})
		c.Fail(labtest.CloudflareFault{Method: http.MethodGet, Do: func() { c.Put(record, "TXT", quoted(sts("rival"))) }})
		p.fails(t, a.Apply(t.Context(), change(record, sts("now"))), dnsupdate.KindConflict)
		p.wantData(t, record, quoted(sts("now")), quoted(sts("rival"))) // it is the rival's to delete
	})
	t.Run("ours leaves", func(t *testing.T) {
		c, p := cloudflarePlace(t)
		c.Put(record, "TXT", quoted(sts("old")))
		// The rival's is without quotes, as the API keeps what it is given; nobody may tidy this.
		c.Fail(labtest.CloudflareFault{Method: http.MethodDelete, Do: func() { c.Put(record, "TXT", sts("rival")) }})
		apply(t, p.open(t, dnsupdate.Options{}), change(record, "", sts("old")))
		if got, want := c.Contents(record, "TXT"), []string{sts("rival")}; !slices.Equal(got, want) {
			t.Errorf("records = %q, want %q", got, want)
		}
	})
}

// TestCloudflareForgetful acknowledges a write and does not do it.
func TestCloudflareForgetful(t *testing.T) {
	t.Parallel()
	c, p := cloudflarePlace(t)
	c.Fail(labtest.CloudflareFault{Method: http.MethodPost, Status: 200, Body: `{"success":true,"errors":[],"result":{}}`})
	err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(record, sts("now")))
	says(t, p.fails(t, err, dnsupdate.KindUnavailable), "write "+prefixCF+
		"the API acknowledged the change and does not show it; trying again later")
}

// TestOpenCloudflare refuses what cannot work.
func TestOpenCloudflare(t *testing.T) {
	t.Parallel()
	for want, a := range map[string]config.Account{
		`open account "main": no API token: set api_token_file or api_token_env`: {},
		`open account "main": api_url "localhost": not an URL`:                   {APIToken: "secret", APIURL: "localhost"},
	} {
		a.Name, a.Provider = "main", "cloudflare"
		if _, err := dnsupdate.Open(a, dnsupdate.Options{}); err == nil || err.Error() != want {
			t.Errorf("Open = %v, want %s", err, want)
		}
	}
}
