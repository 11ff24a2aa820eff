package labtest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
)

// Cloud is a fake of a DNS provider with an HTTP API: its records, served by DNS, and what can go wrong. What requests
// and answers look like is the part of one file for each provider. Its methods may be called at any time.
type Cloud struct {
	URL string // for api_url
	DNS *lab.DNS

	t      testing.TB
	api    cloudAPI
	server *httptest.Server

	mu       sync.Mutex // guards the fields below
	zones    []*cloudZone
	lastID   int
	revoked  bool
	requests []string
	writes   int
	faults   []*CloudFault
	limit    int // requests in window; 0: any number
	window   time.Duration
	recent   []time.Time
}

// cloudAPI is one provider's way of asking and answering. The caller holds Cloud.mu.
type cloudAPI interface {
	account(url string) config.Account
	// writes says whether a request is to change records.
	writes(r *http.Request) bool
	// handle carries a request out. c.revoked is that the credentials are valid no longer.
	handle(c *Cloud, r *http.Request, body []byte) cloudAnswer
	// limited is the documented answer to too many requests.
	limited(wait time.Duration) cloudAnswer
}

type cloudAnswer struct {
	status     int
	body       string
	retryAfter string
}

// CloudFault is something that goes wrong with requests to come.
type CloudFault struct {
	Writes bool // it befalls requests that are to change records; else those that are not
	Skip   int  // how many of these pass before
	Times  int  // how many it befalls; 0: one

	Delay time.Duration // answer late, or never if the client is gone before
	Do    func()        // called before the request is carried out
	Cut   bool          // carry the request out, then cut the connection

	// Limited answers, as documented, that there were too many requests, in place of carrying the request out.
	Limited bool
	// Status, if not 0, is answered in place of carrying the request out, with Body and RetryAfter (the header).
	Status     int
	Body       string
	RetryAfter string
}

type cloudZone struct {
	id      int
	name    string
	records []cloudRecord
}

type cloudRecord struct {
	id        int
	name, typ string
	data      string // TXT: as in a zone file, or without quotes
	ttl       int
}

func startCloud(t testing.TB, api cloudAPI, zones []string) *Cloud {
	t.Helper()
	d, err := lab.StartDNS(t.Context(), lab.DNSOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("stop DNS server: %v", err)
		}
	})
	c := &Cloud{DNS: d, t: t, api: api, lastID: 997} // so that ids get longer soon
	c.server = httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.server.Close)
	c.URL = c.server.URL
	for _, z := range zones {
		c.AddZone(z)
	}
	return c
}

// Account is an account with credentials that may do everything.
func (c *Cloud) Account(name string) config.Account {
	a := c.api.account(c.URL)
	a.Name, a.APIURL = name, c.URL
	return a
}

// AddZone adds an empty zone; a zone that was removed comes back with another id.
func (c *Cloud) AddZone(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	z := &cloudZone{id: c.newID(), name: name}
	c.zones = append(c.zones, z)
	c.publish(z)
}

// RemoveZone removes a zone from the API.
func (c *Cloud) RemoveZone(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.zones = slices.DeleteFunc(c.zones, func(z *cloudZone) bool { return z.name == name })
}

// Put adds a record as somebody else would, and publishes it. TXT data is as in a zone file.
func (c *Cloud) Put(name, typ, data string) {
	name = strings.ToLower(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, z := range c.zones {
		if strings.HasSuffix(name, "."+z.name) {
			z.records = append(z.records, cloudRecord{id: c.newID(), name: name, typ: typ, data: data, ttl: 300})
			c.publish(z)
			return
		}
	}
	c.t.Errorf("put %s: no zone holds it", name)
}

// Remove removes the records of a name and type as somebody else would.
func (c *Cloud) Remove(name, typ string) {
	name = strings.ToLower(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, z := range c.zones {
		z.records = slices.DeleteFunc(z.records, func(r cloudRecord) bool { return r.name == name && r.typ == typ })
		c.publish(z)
	}
}

// Revoke has the credentials expire.
func (c *Cloud) Revoke() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revoked = true
}

// Fail orders a fault for requests to come. Several befall in their order.
func (c *Cloud) Fail(f CloudFault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.Times = max(f.Times, 1)
	c.faults = append(c.faults, &f)
}

// SetLimit sets how many requests are answered in a window, which slides.
func (c *Cloud) SetLimit(n int, window time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit, c.window, c.recent = n, window, nil
}

// Requests returns the requests so far, as "METHOD PATH?QUERY", whatever became of them.
func (c *Cloud) Requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Writes counts the requests so far that were to change records.
func (c *Cloud) Writes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// serve carries one request out, with the fault that is due.
func (c *Cloud) serve(w http.ResponseWriter, r *http.Request) {
	// That the client is gone is seen only after the body is read.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	f, wait := c.record(r)
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
	}
	if f.Do != nil {
		f.Do()
	}
	var a cloudAnswer
	switch {
	case f.Status != 0:
		a = cloudAnswer{status: f.Status, body: f.Body, retryAfter: f.RetryAfter}
	case wait > 0:
		a = c.api.limited(wait)
	default:
		c.mu.Lock()
		a = c.api.handle(c, r, body)
		c.mu.Unlock()
	}
	if f.Cut {
		panic(http.ErrAbortHandler) // cuts the connection
	}
	if a.retryAfter != "" {
		w.Header().Set("Retry-After", a.retryAfter)
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body) // a client that is gone needs no answer
}

// record notes a request and returns the fault for it, and for how long it is refused by the rate limit.
func (c *Cloud) record(r *http.Request) (CloudFault, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r.Method+" "+r.URL.RequestURI())
	writes := c.api.writes(r)
	if writes {
		c.writes++
	}
	for i, f := range c.faults {
		if f.Writes != writes {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times--; f.Times == 0 {
			c.faults = slices.Delete(c.faults, i, i+1)
		}
		if f.Limited {
			return *f, 17 * time.Second
		}
		return *f, 0
	}
	now := time.Now()
	c.recent = slices.DeleteFunc(c.recent, func(t time.Time) bool { return now.Sub(t) >= c.window })
	if c.limit > 0 && len(c.recent) >= c.limit {
		return CloudFault{}, c.window - now.Sub(c.recent[0])
	}
	c.recent = append(c.recent, now)
	return CloudFault{}, 0
}

// newID returns the next id. The caller holds mu, or is the only one yet.
func (c *Cloud) newID() int {
	c.lastID++
	return c.lastID
}

// zone returns a zone by name, or nil.
func (c *Cloud) zone(name string) *cloudZone {
	for _, z := range c.zones {
		if z.name == name {
			return z
		}
	}
	return nil
}

// at returns the records of a name, oldest first.
func (z *cloudZone) at(name string) []cloudRecord {
	return slices.DeleteFunc(slices.Clone(z.records), func(r cloudRecord) bool { return r.name != name })
}

// replace puts other records of a name and type in place of those that are there.
func (z *cloudZone) replace(c *Cloud, name, typ string, ttl int, data []string) {
	z.records = slices.DeleteFunc(z.records, func(r cloudRecord) bool { return r.name == name && r.typ == typ })
	for _, d := range data {
		z.records = append(z.records, cloudRecord{id: c.newID(), name: name, typ: typ, data: d, ttl: ttl})
	}
	c.publish(z)
}

// absolute joins a name relative to the zone; apex stands for the zone itself.
func (z *cloudZone) absolute(name, apex string) string {
	if name == apex {
		return z.name
	}
	return strings.ToLower(name) + "." + z.name
}

// relative is the reverse of absolute.
func (z *cloudZone) relative(name, apex string) string {
	if name == z.name {
		return apex
	}
	return strings.TrimSuffix(name, "."+z.name)
}

// publish has the DNS server answer what the zone holds.
func (c *Cloud) publish(z *cloudZone) {
	var text strings.Builder
	for _, r := range z.records {
		data := r.data
		switch {
		case r.typ == "TXT" && !strings.HasPrefix(data, `"`):
			data = strconv.Quote(data)
		case r.typ == "CNAME":
			data = strings.TrimSuffix(data, ".") + "."
		}
		fmt.Fprintf(&text, "%s. %d IN %s %s\n", r.name, r.ttl, r.typ, data)
	}
	if err := c.DNS.AddZone(lab.Zone{Name: z.name, Text: text.String()}); err != nil {
		c.t.Errorf("serve zone %s: %v", z.name, err)
	}
}

// seconds is a time for the header Retry-After.
func seconds(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }
