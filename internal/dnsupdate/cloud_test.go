package dnsupdate_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab/labtest"
)

// clouds are the providers that are faked by [labtest.Cloud], by name.
func clouds() map[string]func(testing.TB, ...string) *labtest.Cloud {
	return map[string]func(testing.TB, ...string) *labtest.Cloud{
		"route53":      labtest.StartRoute53,
		"desec":        labtest.StartDeSEC,
		"cloudns":      labtest.StartClouDNS,
		"ovh":          labtest.StartOVH,
		"mythicbeasts": labtest.StartMythicBeasts,
	}
}

func cloudPlace(t *testing.T, name string) (*labtest.Cloud, *place) {
	c := clouds()[name](t, "example.com", zone)
	c.Put("*.wild."+zone, "TXT", `"v=spf1 -all"`)
	c.Put("*.shared."+zone, "TXT", `"v=STSv1; id=shared;"`)
	c.Put("*.elsewhere."+zone, "CNAME", "example.net.")
	set := func(_ testing.TB, name, typ string, values ...string) {
		c.Remove(name, typ)
		for _, v := range values {
			c.Put(name, typ, v)
		}
	}
	p := &place{
		config: c.Account("main"), addr: c.DNS.Addr, set: set, writes: c.Writes, alone: name != "route53", wire: &wire{},
		spoil: func(a *config.Account) { a.Secret, a.APIToken = "wrong-wrong-wrong", "wrong-wrong-wrong" },
	}
	if name == "desec" {
		p.minTTL = time.Hour
	}
	return c, p
}

// inClouds runs a test on all fakes at once.
func inClouds(t *testing.T, test func(t *testing.T, c *labtest.Cloud, p *place)) {
	t.Parallel()
	for name := range clouds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := cloudPlace(t, name)
			test(t, c, p)
		})
	}
}

// TestCloudRefusals has the look and the write refused in every way: the kind is right, and nothing is changed.
func TestCloudRefusals(t *testing.T) {
	const html503 = "<html><body><h1>503 Service Unavailable</h1></body></html>"
	faults := map[string]struct {
		fault labtest.CloudFault
		kind  dnsupdate.Kind
		wait  time.Duration
	}{
		"502 in HTML":    {labtest.CloudFault{Status: 502, Body: html502}, dnsupdate.KindUnavailable, 0},
		"500":            {labtest.CloudFault{Status: 500}, dnsupdate.KindUnavailable, 0},
		"503":            {labtest.CloudFault{Status: 503, Body: html503, RetryAfter: "30"}, dnsupdate.KindUnavailable, 30 * time.Second},
		"429 of a proxy": {labtest.CloudFault{Status: 429, Body: html503, RetryAfter: "127"}, dnsupdate.KindRateLimited, 127 * time.Second},
		"401":            {labtest.CloudFault{Status: 401}, dnsupdate.KindAuth, 0},
		"403":            {labtest.CloudFault{Status: 403, Body: html503}, dnsupdate.KindAuth, 0},
		"200 in HTML":    {labtest.CloudFault{Status: 200, Body: html503}, dnsupdate.KindUnavailable, 0},
		"moved":          {labtest.CloudFault{Status: 301}, dnsupdate.KindRefused, 0},
	}
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		for _, name := range slices.Sorted(maps.Keys(faults)) {
			tt := faults[name]
			for _, op := range []string{"read", "write"} {
				t.Run(name+"/"+op, func(t *testing.T) {
					p.set(t, record, "TXT", quoted(sts("old")), `"stranger"`)
					a := p.open(t, dnsupdate.Options{})
					apply(t, a, change("_mta-sts.warm."+zone, sts("now"), sts("now"))) // what is asked once is known
					tt.fault.Writes = op == "write"
					c.Fail(tt.fault)
					e := p.fails(t, a.Apply(t.Context(), change(record, sts("now"), sts("old"))), tt.kind)
					if e.Op != op || e.RetryAfter != tt.wait {
						t.Errorf("Op = %s, RetryAfter = %v, want %s, %v: %v", e.Op, e.RetryAfter, op, tt.wait, e)
					}
					p.wantData(t, record, quoted(sts("old")), `"stranger"`)
					if tt.kind != dnsupdate.KindRateLimited { // see TestPause
						apply(t, a, change(record, sts("now"), sts("old"))) // it has passed
						p.wantData(t, record, quoted(sts("now")), `"stranger"`)
					}
				})
			}
		}
	})
}

// TestCloudMessages wants what an operator reads, word for word.
func TestCloudMessages(t *testing.T) {
	const access = "; give the access key the permissions route53:ListHostedZonesByName, route53:ListResourceRecordSets and" +
		" route53:ChangeResourceRecordSets, or replace it"
	const add = "; add the zone to the provider's account, or give the credentials access to it"
	type words struct{ limited, secret, revoked, zone string }
	messages := map[string]words{
		"route53": {
			`the API says HTTP 400 Bad Request, "Rate exceeded" (Throttling); asking again in 2s`,
			`the API says HTTP 403 Forbidden, "The request signature we calculated does not match the signature you provided." (SignatureDoesNotMatch)` + access,
			`the API says HTTP 403 Forbidden, "User: arn:aws:iam::123456789012:user/stspub is not authorized to perform this" (AccessDenied)` + access,
			`the access key sees 0 public hosted zones of this name` + add,
		},
		"desec": {
			`the API says HTTP 429 Too Many Requests, "Request was throttled. Expected available in 17 seconds."; asking again in 17s`,
			`the API says HTTP 401 Unauthorized, "Invalid token."; give the API token a policy with perm_write for TXT in this domain, or replace it`,
			`the API says HTTP 401 Unauthorized, "Invalid token."; give the API token a policy with perm_write for TXT in this domain, or replace it`,
			`the API says HTTP 404 Not Found, "Not found."` + add,
		},
		"cloudns": {
			`the API says HTTP 429 Too Many Requests, "Too many requests."; asking again in 1m0s`,
			`the API says HTTP 200 OK, "Invalid authentication, incorrect auth-id or auth-password."; compare auth_id or sub_auth_id and the password with the API user's, and its addresses with this machine's`,
			`the API says HTTP 200 OK, "Invalid authentication, incorrect auth-id or auth-password."; compare auth_id or sub_auth_id and the password with the API user's, and its addresses with this machine's`,
			`the API says HTTP 200 OK, "Missing domain-name"` + add,
		},
		"ovh": {
			`the API says HTTP 429 Too Many Requests, "Too many requests, please retry later"; asking again in 1m0s`,
			`the API says HTTP 400 Bad Request, "Invalid signature" (INVALID_SIGNATURE); grant the consumer key GET, POST, PUT and DELETE on /domain/zone/example.org/*, or replace it`,
			`the API says HTTP 403 Forbidden, "This credential is not valid" (INVALID_CREDENTIAL); grant the consumer key GET, POST, PUT and DELETE on /domain/zone/example.org/*, or replace it`,
			`the API says HTTP 404 Not Found, "This service does not exist"` + add,
		},
		"mythicbeasts": {
			`the API says HTTP 429 Too Many Requests, "Too many requests"; asking again in 1m0s`,
			`the API says HTTP 401 Unauthorized, "Invalid credentials"; give the API key the permission to change TXT records of this zone, or replace it`,
			`the API says HTTP 401 Unauthorized, "Invalid credentials"; give the API key the permission to change TXT records of this zone, or replace it`,
			`the API says HTTP 404 Not Found, "Zone not found"` + add,
		},
	}
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		want, provider := messages[p.config.Provider], p.config.Provider
		prefix := `read TXT "_mta-sts.example.org" in zone "example.org" by account "main" (` + provider + `): `
		p.set(t, record, "TXT", quoted(sts("old")))
		rotate := change(record, sts("now"), sts("old"))
		c.Fail(labtest.CloudFault{Limited: true})
		err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), rotate)
		says(t, p.fails(t, err, dnsupdate.KindRateLimited), prefix+want.limited)
		c.Fail(labtest.CloudFault{Limited: true, Writes: true})
		err = p.open(t, dnsupdate.Options{}).Apply(t.Context(), rotate)
		says(t, p.fails(t, err, dnsupdate.KindRateLimited), strings.Replace(prefix, "read", "write", 1)+want.limited)
		elsewhere := dnsupdate.Change{Zone: "example.net", Name: "_mta-sts.example.net", TTL: time.Hour, Add: sts("now")}
		err = p.open(t, dnsupdate.Options{}).Apply(t.Context(), elsewhere)
		says(t, p.fails(t, err, dnsupdate.KindNoZone), strings.ReplaceAll(prefix, "example.org", "example.net")+want.zone)

		wrong := *p
		wrong.spoil(&wrong.config)
		err = wrong.open(t, dnsupdate.Options{}).Apply(t.Context(), rotate)
		says(t, wrong.fails(t, err, dnsupdate.KindAuth), prefix+want.secret)
		a := p.open(t, dnsupdate.Options{})
		apply(t, a, rotate)
		c.Revoke() // between two changes
		err = a.Apply(t.Context(), change(record, sts("later"), sts("now")))
		says(t, p.fails(t, err, dnsupdate.KindAuth), prefix+want.revoked)
		p.wantData(t, record, quoted(sts("now")))
	})
}

// TestCloudSecrets has an API repeat the credentials.
func TestCloudSecrets(t *testing.T) {
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		secret := string(p.config.Secret + p.config.APIToken)
		quote := `"bad secret ` + secret + `"`
		c.Fail(labtest.CloudFault{Times: 9, Status: 400, Body: map[string]string{
			"route53":      "<ErrorResponse><Error><Code>Bad</Code><Message>" + quote + "</Message></Error></ErrorResponse>",
			"desec":        `{"detail":` + quote + `}`,
			"cloudns":      quote,
			"ovh":          `{"message":` + quote + `}`,
			"mythicbeasts": `{"error":` + quote + `}`,
		}[p.config.Provider]})
		err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(record, sts("now")))
		e := p.fails(t, err, dnsupdate.KindRefused)
		if p.config.Provider != "cloudns" && !strings.Contains(e.Error(), "[secret]") {
			t.Errorf("error = %v, want the API's words with [secret]", e)
		}
	})
}

// TestCloudLostAnswer cuts the connection after the API has done its work; the change is repeated and writes nothing more.
func TestCloudLostAnswer(t *testing.T) {
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		for i, before := range [][]string{nil, {`"stranger"`}, {quoted(sts("old")), `"stranger"`}} {
			name := "_mta-sts.n" + string(rune('0'+i)) + "." + zone
			p.set(t, name, "TXT", before...)
			a := p.open(t, dnsupdate.Options{})
			c.Fail(labtest.CloudFault{Writes: true, Cut: true})
			written := c.Writes()
			e := p.fails(t, a.Apply(t.Context(), change(name, sts("now"), sts("old"))), dnsupdate.KindUnavailable)
			if e.Op != "write" {
				t.Errorf("Op = %s, want write: %v", e.Op, e)
			}
			apply(t, a, change(name, sts("now"), sts("old")))
			want := []string{quoted(sts("now"))}
			if before != nil {
				want = append(want, `"stranger"`)
			}
			p.wantData(t, name, want...)
			if got := c.Writes() - written; got != 1 {
				t.Errorf("%d writes, want 1", got)
			}
		}
	})
}

// TestOVHRefresh loses the request that publishes: the record is in the database, and a repetition has it served.
func TestOVHRefresh(t *testing.T) {
	t.Parallel()
	c, p := cloudPlace(t, "ovh")
	p.set(t, record, "TXT", quoted(sts("old")))
	a := p.open(t, dnsupdate.Options{})
	rotate := change(record, sts("now"), sts("old"))
	// time, list, record; PUT; list, record; refresh
	c.Fail(labtest.CloudFault{Skip: 5, Status: 500})
	p.fails(t, a.Apply(t.Context(), rotate), dnsupdate.KindUnavailable)
	p.wantData(t, record, quoted(sts("old"))) // not served
	apply(t, a, rotate)
	p.wantData(t, record, quoted(sts("now")))
	if got := c.Writes(); got != 1 {
		t.Errorf("%d writes, want 1", got)
	}
}

// TestCloudSlow has answers that do not come.
func TestCloudSlow(t *testing.T) {
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		for _, writes := range []bool{false, true} {
			c.Fail(labtest.CloudFault{Writes: writes, Delay: time.Hour})
			a := p.open(t, dnsupdate.Options{})
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			p.fails(t, a.Apply(ctx, change(record, sts("now"))), dnsupdate.KindUnavailable)
			cancel()
			apply(t, a, change(record, sts("now")))
			p.wantData(t, record, quoted(sts("now")))
			p.set(t, record, "TXT")
		}
	})
}

// TestCloudForgetful acknowledges a write and does not do it.
func TestCloudForgetful(t *testing.T) {
	bodies := map[string]string{
		"desec": "[]", "cloudns": `{"status":"Success","statusDescription":"ok"}`, "ovh": "{}", "mythicbeasts": "{}",
	}
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		body, looks := bodies[p.config.Provider]
		if !looks {
			return // what Route 53 acknowledges is there
		}
		c.Fail(labtest.CloudFault{Writes: true, Status: 200, Body: body})
		err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(record, sts("now")))
		if e := p.fails(t, err, dnsupdate.KindUnavailable); e.Err.Error() != "the API acknowledged the change and does not show it" {
			t.Errorf("error = %v", e)
		}
	})
}

// TestCloudRival has another process write between the look and the write. Never do two records of a kind stay.
func TestCloudRival(t *testing.T) {
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		whole := p.config.Provider == "desec" || p.config.Provider == "mythicbeasts" // sets are replaced
		for name, value := range map[string]func(string) string{record: sts, "_smtp._tls." + zone: rpt} {
			c.Fail(labtest.CloudFault{Writes: true, Do: func() { c.Put(name, "TXT", quoted(value("rival"))) }})
			err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(name, value("now")))
			if whole {
				if err != nil {
					t.Fatal(err)
				}
				p.wantData(t, name, quoted(value("now")))
				continue
			}
			p.fails(t, err, dnsupdate.KindConflict)
			apply(t, p.open(t, dnsupdate.Options{}), change("_mta-sts.other."+zone, "", sts("old"))) // publishes at OVHcloud
			p.wantData(t, name, quoted(value("rival")))
		}
		if whole {
			return
		}

		// Another stranger comes meanwhile.
		name := "_mta-sts.stranger." + zone
		p.set(t, name, "TXT", quoted(sts("old")))
		c.Fail(labtest.CloudFault{Writes: true, Do: func() { c.Put(name, "TXT", `"stranger"`) }})
		apply(t, p.open(t, dnsupdate.Options{}), change(name, sts("now"), sts("old")))
		p.wantData(t, name, quoted(sts("now")), `"stranger"`)
	})
}

// TestCloudRivalWins has a rival's whole change happen before ours is written.
func TestCloudRivalWins(t *testing.T) {
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		first, second := p.open(t, dnsupdate.Options{}), p.open(t, dnsupdate.Options{})
		var inner error
		c.Fail(labtest.CloudFault{Writes: true, Do: func() {
			inner = second.Apply(context.WithoutCancel(t.Context()), change(record, sts("second")))
		}})
		err := first.Apply(t.Context(), change(record, sts("first")))
		if inner != nil {
			t.Fatalf("second: %v", inner)
		}
		want := sts("second")
		if err == nil && p.alone { // the set was replaced: the last one wins, and there is one
			want = sts("first")
		} else {
			p.fails(t, err, dnsupdate.KindConflict)
		}
		p.wantData(t, record, quoted(want))
	})
}

// TestCloudZones has a zone come back with another id.
func TestCloudZones(t *testing.T) {
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		a := p.open(t, dnsupdate.Options{})
		apply(t, a, change(record, sts("old")))
		c.RemoveZone(zone)
		p.fails(t, a.Apply(t.Context(), change(record, sts("now"), sts("old"))), dnsupdate.KindNoZone)
		c.AddZone(zone)
		apply(t, a, change(record, sts("now"), sts("old")))
		c.RemoveZone(zone)
		c.AddZone(zone)
		apply(t, a, change(record, sts("later"), sts("now"))) // what is remembered is stale
		p.wantData(t, record, quoted(sts("later")))
	})
}

// TestCloudNames has names that some would take for others.
func TestCloudNames(t *testing.T) {
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		a := p.open(t, dnsupdate.Options{})
		apply(t, a, change("_mta-sts.example.org.example.org", sts("inner")))
		p.wantData(t, "_mta-sts.example.org.example.org", quoted(sts("inner")))
		p.wantData(t, record)
		apply(t, a, change("_MTA-STS.Example.ORG.", sts("outer")))
		p.wantData(t, record, quoted(sts("outer")))
	})
}

// TestCloudRequests counts what a rotation costs; docs/providers.md repeats it.
func TestCloudRequests(t *testing.T) {
	want := map[string][2]int{ // the first change of an account; a rotation after it
		"route53": {3, 2}, "desec": {4, 3}, "cloudns": {3, 3}, "ovh": {6, 6}, "mythicbeasts": {3, 3},
	}
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		a := p.open(t, dnsupdate.Options{})
		apply(t, a, change(record, sts("a")))
		first := len(c.Requests())
		apply(t, a, change(record, sts("b"), sts("a")))
		got := [2]int{first, len(c.Requests()) - first}
		if got != want[p.config.Provider] {
			t.Errorf("requests = %v, want %v: %q", got, want[p.config.Provider], c.Requests())
		}
		for _, r := range c.Requests() {
			if strings.Contains(r, string(p.config.Secret+p.config.APIToken)) {
				t.Errorf("a URL shows a secret: %s", r)
			}
		}
	})
}

// TestClouDNSSubUser has the credentials of a sub-user.
func TestClouDNSSubUser(t *testing.T) {
	t.Parallel()
	_, p := cloudPlace(t, "cloudns")
	p.config.SubUser = true
	apply(t, p.open(t, dnsupdate.Options{}), change(record, sts("now")))
	p.wantData(t, record, quoted(sts("now")))
	p.config.KeyID = "5"
	e := p.fails(t, p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(record, "", sts("now"))), dnsupdate.KindAuth)
	if !strings.Contains(e.Error(), "incorrect sub-auth-id") {
		t.Errorf("error = %v, want that of a sub-user", e)
	}
}

// TestClouDNSTTL rounds up to a TTL that the API takes.
func TestClouDNSTTL(t *testing.T) {
	t.Parallel()
	_, p := cloudPlace(t, "cloudns")
	apply(t, p.open(t, dnsupdate.Options{}), change(record, sts("now"))) // 2 minutes
	if got := p.observe(t, record).MaxTTL(); got != 5*time.Minute {
		t.Errorf("TTL = %v, want 5m", got)
	}
}

// TestOpenCloud refuses what cannot work.
func TestOpenCloud(t *testing.T) {
	t.Parallel()
	for provider, why := range map[string]string{
		"route53":      "no access key: set access_key_id, and secret_access_key_file or secret_access_key_env",
		"desec":        "no API token: set api_token_file or api_token_env",
		"cloudns":      "no API user: set auth_id or sub_auth_id, and auth_password_file or auth_password_env",
		"ovh":          "no credentials: set application_key, application_secret_file and consumer_key_file",
		"mythicbeasts": "no API key: set key_id, and secret_file or secret_env",
	} {
		_, err := dnsupdate.Open(config.Account{Name: "main", Provider: provider}, dnsupdate.Options{})
		if want := `open account "main": ` + why; err == nil || err.Error() != want {
			t.Errorf("Open = %v, want %s", err, want)
		}
		_, err = dnsupdate.Open(config.Account{
			Name: "main", Provider: provider, KeyID: "key", Secret: "secret-0123", ConsumerKey: "consumer-0123", APIToken: "token-0123", APIURL: "localhost",
		}, dnsupdate.Options{})
		if want := `open account "main": api_url "localhost": not an URL`; err == nil || err.Error() != want {
			t.Errorf("Open = %v, want %s", err, want)
		}
	}
}

// nothing answers as each API does where the name has no records; what needs no write succeeds there.
func nothing(provider, path string) string {
	switch {
	case provider == "route53" && strings.HasSuffix(path, "hostedzonesbyname"):
		return `<ListHostedZonesByNameResponse><HostedZones><HostedZone><Id>/hostedzone/Z1</Id><Name>example.org.</Name></HostedZone></HostedZones></ListHostedZonesByNameResponse>`
	case provider == "route53":
		return `<ListResourceRecordSetsResponse><ResourceRecordSets/></ListResourceRecordSetsResponse>`
	case provider == "mythicbeasts":
		return `{"records":[]}`
	case strings.HasSuffix(path, "/auth/time"):
		return "1700000000"
	}
	return "[]"
}

// TestRates asks without pause for an hour: no window may hold more requests than the provider documents.
func TestRates(t *testing.T) {
	t.Parallel()
	type window struct {
		most int
		in   time.Duration
	}
	for provider, limits := range map[string][]window{
		"route53": {{5, time.Second}},
		"desec":   {{10, time.Second}, {50, time.Minute}}, // two of three requests of a change are reads: see docs/providers.md
		"cloudns": {{20, time.Second}, {600, time.Minute}, {36_000, time.Hour}},
		// Not documented: what is promised in docs/providers.md.
		"ovh":          {{12, time.Second}, {130, time.Minute}},
		"mythicbeasts": {{12, time.Second}, {130, time.Minute}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var at []time.Time
			a, err := dnsupdate.Open(config.Account{
				Name: "main", Provider: provider, KeyID: "key", Secret: "secret-0123", ConsumerKey: "consumer-0123", APIToken: "token-0123",
			}, dnsupdate.Options{HTTP: roundTrip(func(r *http.Request) (*http.Response, error) {
				at = append(at, time.Now())
				return answer(200, nothing(provider, r.URL.Path), nil), nil
			})})
			if err != nil {
				t.Fatal(err)
			}
			for start := time.Now(); time.Since(start) < time.Hour; {
				apply(t, a, change(record, "", sts("old")))
			}
			if len(at) < 2000 {
				t.Errorf("%s: %d requests in an hour: the allowance is not used", provider, len(at))
			}
			for _, l := range limits {
				for i := range max(0, len(at)-l.most) {
					if at[i+l.most].Sub(at[i]) < l.in {
						t.Fatalf("%s: %d requests in %v", provider, l.most+1, at[i+l.most].Sub(at[i]))
					}
				}
			}
		})
	}
}

// TestCloudMalformed has APIs answer with anything: the account neither panics nor writes without knowing what is there.
func TestCloudMalformed(t *testing.T) {
	t.Parallel()
	bodies := []string{
		"", "null", "[]", "{}", `"`, "true", "[null]", `[{"type":1}]`, `{"records":null}`, `{"records":[{"host":"other"}]}`, `{"1":null}`,
		"<x/>", "<ListResourceRecordSetsResponse/>", "<ListHostedZonesByNameResponse/>", `{"status":"Failed"}`, `[1]`, strings.Repeat("x", 2<<20),
	}
	// These say, in the API's own way, that there is nothing.
	nothing := map[string][]string{
		"desec": {"[]"}, "cloudns": {"[]", "{}"}, "mythicbeasts": {`{"records":[]}`}, "ovh": {"[]"},
		"route53": {"<ListResourceRecordSetsResponse/>"},
	}
	for provider := range clouds() {
		for _, body := range bodies {
			writes := 0
			a, err := dnsupdate.Open(config.Account{
				Name: "main", Provider: provider, KeyID: "key", Secret: "secret-0123", ConsumerKey: "consumer-0123", APIToken: "token-0123",
			}, dnsupdate.Options{HTTP: roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "/records.json") && !strings.HasSuffix(r.URL.Path, "/refresh") {
					writes++
				}
				if strings.HasSuffix(r.URL.Path, "/auth/time") && body == "[]" {
					return answer(200, "1700000000", nil), nil
				}
				return answer(200, body, nil), nil
			})})
			if err != nil {
				t.Fatal(err)
			}
			dnsupdate.Unlimit(a)
			err = a.Apply(t.Context(), change(record, sts("now")))
			kind := (&place{}).kindOf(err)
			if kind == dnsupdate.KindInternal || kind == dnsupdate.KindConflict || err == nil {
				t.Errorf("%s %.60q: %v", provider, body, err)
			}
			if writes > 0 && !slices.Contains(nothing[provider], body) {
				t.Errorf("%s %.60q: wrote without knowing what is there", provider, body)
			}
		}
	}
}

// TestCloudDelete has ours removed where a foreign record is, by APIs that replace whole sets, too.
func TestCloudDelete(t *testing.T) {
	inClouds(t, func(t *testing.T, c *labtest.Cloud, p *place) {
		p.set(t, record, "TXT", quoted(sts("old")), quoted(sts("foreign")), `"a" "b"`)
		apply(t, p.open(t, dnsupdate.Options{}), change(record, "", sts("old")))
		if diff := cmp.Diff([]string{`"a" "b"`, quoted(sts("foreign"))}, p.data(t, record)); diff != "" {
			t.Errorf("TXT (-want +got):\n%s", diff)
		}
		if got := p.observe(t, record).MaxTTL(); got != 5*time.Minute {
			t.Errorf("TTL = %v, want that of the set as it was", got)
		}
	})
}

// TestOVHSignature signs what the tests of OVHcloud's own Go client (go-ovh v1.7.0) sign.
func TestOVHSignature(t *testing.T) {
	t.Parallel()
	a := config.Account{Secret: "9ufkBmLaTQ9nz5yMUlg79taH0GNnzDjk", ConsumerKey: "5mBuy6SUQcRw2ZUxg0cG68BoDKpED4KY"}
	for _, tt := range []struct{ method, body, want string }{
		{"GET", "", "$1$e9556054b6309771395efa467c22e627407461ad"},
		{"PUT", `{"a":"b","c":"d"}`, "$1$8a75a9e7c8e7296c9dbeda6a2a735eb6bd58ec4b"},
	} {
		if got := dnsupdate.OVHSignature(a, tt.method, "https://eu.api.ovh.com/1.0/auth", tt.body, 1457018875); got != tt.want {
			t.Errorf("signature of %s = %s, want %s", tt.method, got, tt.want)
		}
	}
}
