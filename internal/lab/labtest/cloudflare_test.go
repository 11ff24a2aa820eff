package labtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/lab/labtest"
)

// client speaks to the fake as any client of the API would.
type client struct {
	t     *testing.T
	c     *labtest.Cloudflare
	token string
}

type result struct {
	status     int
	RetryAfter string
	Success    bool
	Errors     []struct{ Code int }
	Result     json.RawMessage
	ResultInfo struct {
		Page, Count int
		PerPage     int `json:"per_page"`
		TotalCount  int `json:"total_count"`
		TotalPages  int `json:"total_pages"`
	} `json:"result_info"`
}

func (r result) code() int {
	if len(r.Errors) == 0 {
		return 0
	}
	return r.Errors[0].Code
}

func (c client) do(method, path, body string) result {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.c.URL+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	r := result{status: resp.StatusCode, RetryAfter: resp.Header.Get("Retry-After")}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	if r.Success != (r.status == 200) || r.Success != (len(r.Errors) == 0) {
		c.t.Errorf("%s %s: HTTP %d, success %t, errors %v", method, path, r.status, r.Success, r.Errors)
	}
	return r
}

// wants does a request and compares status and code.
func (c client) wants(status, code int, method, path, body string) result {
	c.t.Helper()
	r := c.do(method, path, body)
	if r.status != status || r.code() != code {
		c.t.Errorf("%s %s %s = HTTP %d, code %d, want %d, %d", method, path, body, r.status, r.code(), status, code)
	}
	return r
}

// records is the path of the records of a zone.
func (c client) records(zone string) string {
	c.t.Helper()
	var zones []struct{ ID string }
	if err := json.Unmarshal(c.wants(200, 0, "GET", "/zones?name="+zone, "").Result, &zones); err != nil || len(zones) != 1 {
		c.t.Fatalf("zone %s: %v %v", zone, zones, err)
	}
	return "/zones/" + zones[0].ID + "/dns_records"
}

func startClient(t *testing.T) (*labtest.Cloudflare, client, string) {
	c := labtest.StartCloudflare(t, "example.com", "example.org")
	cl := client{t: t, c: c, token: c.Token}
	return c, cl, cl.records("example.org")
}

// id returns the id of the record in a result.
func (c client) id(r result) string {
	c.t.Helper()
	var rec struct{ ID string }
	if err := json.Unmarshal(r.Result, &rec); err != nil || rec.ID == "" {
		c.t.Fatalf("record %s: %v", r.Result, err)
	}
	return rec.ID
}

func TestCloudflareTokens(t *testing.T) {
	t.Parallel()
	c, _, records := startClient(t)
	body := `{"type":"TXT","name":"a","content":"\"a\""}`
	client{t, c, "short"}.wants(400, 6003, "GET", "/zones", "")
	client{t, c, strings.Repeat("x", 40)}.wants(403, 9109, "GET", "/zones", "")
	client{t, c, c.ReadToken}.wants(200, 0, "GET", records, "")
	client{t, c, c.ReadToken}.wants(403, 10000, "POST", records, body)
	client{t, c, c.Token}.wants(404, 7003, "GET", "/zones/0/dns_records", "")
	client{t, c, c.Token}.wants(404, 7003, "GET", "/user", "")
}

// TestCloudflareRecords writes in every way that the API has.
func TestCloudflareRecords(t *testing.T) {
	t.Parallel()
	c, cl, records := startClient(t)
	id := cl.id(cl.wants(200, 0, "POST", records, `{"type":"TXT","name":"_mta-sts","content":"v=STSv1; id=a;","ttl":120}`))
	want := func(name string, contents ...string) {
		t.Helper()
		if got := c.Contents(name, "TXT"); !slices.Equal(got, contents) {
			t.Errorf("contents of %s = %q, want %q", name, got, contents)
		}
	}
	want("_mta-sts.example.org", "v=STSv1; id=a;") // as it was given, without quotes
	cl.wants(400, 81058, "POST", records, `{"type":"TXT","name":"_mta-sts.example.org","content":"\"v=STSv1; id=a;\""}`)
	cl.wants(200, 0, "PATCH", records+"/"+id, `{"content":"\"v=STSv1; id=b;\""}`)
	want("_mta-sts.example.org", `"v=STSv1; id=b;"`)
	if ttl := c.TTL("_mta-sts.example.org", "TXT"); ttl != 120 {
		t.Errorf("TTL = %d after PATCH, want 120", ttl)
	}
	cl.wants(200, 0, "PUT", records+"/"+id, `{"type":"TXT","name":"_mta-sts.example.org","content":"\"c\""}`)
	if ttl := c.TTL("_mta-sts.example.org", "TXT"); ttl != 1 {
		t.Errorf("TTL = %d after PUT, want 1", ttl)
	}
	for _, bad := range []string{`{"content":""}`, `{"ttl":59}`, `{"ttl":86401}`, `{"name":""}`, `{"type":""}`} {
		cl.wants(400, 1004, "PATCH", records+"/"+id, bad)
	}
	cl.wants(400, 9207, "POST", records, `{`)

	cl.wants(400, 81058, "POST", records+"/batch", `{"deletes":[{"id":"`+id+`"}],
		"posts":[{"type":"TXT","name":"x","content":"x"},{"type":"TXT","name":"x","content":"x"}]}`)
	want("_mta-sts.example.org", `"c"`) // nothing of the batch was done
	cl.wants(200, 0, "POST", records+"/batch", `{"posts":[{"type":"TXT","name":"x","content":"x"}],"deletes":[{"id":"`+id+`"}]}`)
	want("_mta-sts.example.org")
	want("x.example.org", "x")
	cl.wants(404, 81044, "DELETE", records+"/"+id, "")
	cl.wants(404, 81044, "PATCH", records+"/"+id, `{"ttl":60}`)
	cl.wants(405, 10405, "PUT", records, `{}`)
	c.SetQuota(1)
	cl.wants(400, 81045, "POST", records, `{"type":"TXT","name":"y","content":"y"}`)
}

// TestCloudflareNeighbours puts records of several types at one name.
func TestCloudflareNeighbours(t *testing.T) {
	t.Parallel()
	c, cl, records := startClient(t)
	post := func(status, code int, typ, name, content string) {
		t.Helper()
		cl.wants(status, code, "POST", records, fmt.Sprintf(`{"type":%q,"name":%q,"content":%q,"ttl":60}`, typ, name, content))
	}
	post(200, 0, "A", "a", "192.0.2.1")
	post(400, 81053, "CNAME", "a", "b.example.org")
	post(200, 0, "CNAME", "c", "b.example.org")
	post(400, 81053, "CNAME", "c", "d.example.org")
	post(400, 81054, "AAAA", "c", "2001:db8::1")
	post(400, 81056, "NS", "c", "ns.example.net")
	post(200, 0, "TXT", "c", "beside the CNAME")
	m := new(dns.Msg).SetQuestion("c.example.org.", dns.TypeTXT)
	r, err := dns.Exchange(m, c.DNS.Addr)
	if err != nil || len(r.Answer) != 1 || r.Answer[0].Header().Rrtype != dns.TypeCNAME || r.Answer[0].Header().Ttl != 60 {
		t.Errorf("DNS: %v %v, want the CNAME alone", r, err)
	}
}

// TestCloudflarePaging counts pages as the API does.
func TestCloudflarePaging(t *testing.T) {
	t.Parallel()
	c, cl, records := startClient(t)
	for i := range 58 {
		c.AddZone(fmt.Sprintf("z%d.example", i))
	}
	for i := range 130 {
		c.Put("_mta-sts.example.org", "TXT", fmt.Sprintf("stranger %d", i))
	}
	for path, want := range map[string][4]int{ // page, on it, pages, all
		"/zones":                      {1, 20, 3, 60},
		"/zones?page=3":               {3, 20, 3, 60},
		"/zones?per_page=1000&page=2": {2, 10, 2, 60}, // 50 at most
		"/zones?name=example.net":     {1, 0, 0, 0},
		records:                       {1, 100, 2, 130},
		records + "?page=2":           {2, 30, 2, 130},
		records + "?page=3":           {3, 0, 2, 130},
		records + "?per_page=1000":    {1, 130, 1, 130},
		records + "?type=A":           {1, 0, 0, 0},
		records + "?name=_MTA-STS.example.org&content.contains=stranger+1": {1, 41, 1, 41},
		records + "?content.exact=stranger+1":                              {1, 1, 1, 1},
	} {
		info := cl.wants(200, 0, "GET", path, "").ResultInfo
		if got := [4]int{info.Page, info.Count, info.TotalPages, info.TotalCount}; got != want {
			t.Errorf("%s: page, count, pages, total = %v, want %v", path, got, want)
		}
	}
}

// TestCloudflareLimit exceeds the rate limit: then nothing is answered for a whole window.
func TestCloudflareLimit(t *testing.T) {
	t.Parallel()
	c, cl, records := startClient(t)
	c.SetLimit(2, time.Minute)
	cl.wants(200, 0, "GET", records, "")
	cl.wants(200, 0, "GET", records, "")
	for range 2 {
		if r := cl.wants(429, 10429, "GET", records, ""); r.RetryAfter != "60" {
			t.Errorf("Retry-After = %q, want 60", r.RetryAfter)
		}
	}
	if n := len(c.Requests()); n != 5 || c.Writes() != 0 {
		t.Errorf("%d requests, %d writes, want 5, 0", n, c.Writes())
	}
}
