package labtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
)

// Cloudflare is a fake of Cloudflare's API, version 4: zones and DNS records, with bearer tokens, envelopes, pagination
// and error codes as documented and as seen. Like the real one it keeps TXT content as it was given, in quotes or not,
// and lets a TXT record stand beside a CNAME. What its zones hold is served by DNS at once. Its methods may be called at
// any time.
type Cloudflare struct {
	URL       string // for api_url
	Token     string // Zone:Read and DNS:Edit
	ReadToken string // Zone:Read and DNS:Read
	DNS       *lab.DNS

	t      testing.TB
	server *httptest.Server

	mu       sync.Mutex // guards the fields below
	zones    []*cloudflareZone
	lastID   int
	requests []string
	faults   []*CloudflareFault
	quota    int
	limit    int
	window   time.Duration
	recent   []time.Time // of requests inside window
	blocked  time.Time   // nothing is answered until then
}

// CloudflareFault is something that goes wrong with requests to come.
type CloudflareFault struct {
	Method string // of the requests it befalls; empty: any
	Path   string // what their path ends with; empty: any
	Times  int    // how many; 0: one

	Delay time.Duration // answer late, or never if the client is gone before
	Do    func()        // called before the request is carried out
	Cut   bool          // carry the request out, then cut the connection

	// Status, if not 0, is answered in place of carrying the request out, with Body and RetryAfter (the header).
	Status     int
	Body       string
	RetryAfter string
}

type cloudflareZone struct {
	ID      string
	Name    string
	Status  string
	records []cloudflareRecord
}

type cloudflareRecord struct {
	ID        string    `json:"id"`
	ZoneID    string    `json:"zone_id"`
	ZoneName  string    `json:"zone_name"`
	Name      string    `json:"name"`
	Type      string    `json:"type"`
	Content   string    `json:"content"`
	Proxiable bool      `json:"proxiable"`
	Proxied   bool      `json:"proxied"`
	TTL       int       `json:"ttl"`
	CreatedOn time.Time `json:"created_on"`
	Modified  time.Time `json:"modified_on"`
}

// StartCloudflare starts the fake with zones of these names. It has a record quota of 200 a zone, as free plans do, and
// the documented rate limit.
func StartCloudflare(t testing.TB, zones ...string) *Cloudflare {
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
	c := &Cloudflare{
		Token: "token-with-DNS-edit-0123456789abcdef0123", ReadToken: "token-that-may-only-read-0123456789abcd",
		DNS: d, t: t, quota: 200, limit: 1200, window: 5 * time.Minute,
	}
	c.server = httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.server.Close)
	c.URL = c.server.URL + "/client/v4"
	for _, z := range zones {
		c.AddZone(z)
	}
	return c
}

// Account is a cloudflare account with [Cloudflare].Token.
func (c *Cloudflare) Account(name string) config.Account {
	return config.Account{Name: name, Provider: "cloudflare", APIToken: config.Secret(c.Token), APIURL: c.URL}
}

// AddZone adds an empty zone; a zone that was removed comes back with another id, as the real one does.
func (c *Cloudflare) AddZone(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.zones = append(c.zones, &cloudflareZone{ID: c.newID(), Name: name, Status: "active"})
	if err := c.DNS.AddZone(lab.Zone{Name: name}); err != nil {
		c.t.Errorf("add zone: %v", err)
	}
}

// RemoveZone removes a zone from the API.
func (c *Cloudflare) RemoveZone(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.zones = slices.DeleteFunc(c.zones, func(z *cloudflareZone) bool { return z.Name == name })
}

// Put adds a record as somebody else would, unchecked, and not counted among the requests. TXT content may have quotes.
func (c *Cloudflare) Put(name, typ, content string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	z := c.zoneOf(name)
	if z == nil {
		c.t.Errorf("put %s: no zone holds it", name)
		return
	}
	z.records = append(z.records, c.newRecord(z, cloudflareRecord{Name: name, Type: typ, Content: content, TTL: 300}))
	c.publish(z)
}

// Remove removes the records of a name and type as somebody else would.
func (c *Cloudflare) Remove(name, typ string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if z := c.zoneOf(name); z != nil {
		z.records = slices.DeleteFunc(z.records, func(r cloudflareRecord) bool { return r.Name == name && r.Type == typ })
		c.publish(z)
	}
}

// Contents returns the contents of a name and type as they are stored, oldest first.
func (c *Cloudflare) Contents(name, typ string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, r := range c.recordsOf(name, typ) {
		out = append(out, r.Content)
	}
	return out
}

// TTL returns the TTL of the first record of a name and type as it is stored, in seconds; 1 is automatic, 0 none there.
func (c *Cloudflare) TTL(name, typ string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.recordsOf(name, typ) {
		return r.TTL
	}
	return 0
}

func (c *Cloudflare) recordsOf(name, typ string) []cloudflareRecord {
	z := c.zoneOf(name)
	if z == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(z.records), func(r cloudflareRecord) bool { return r.Name != name || r.Type != typ })
}

// Fail orders a fault for requests to come. Several befall in their order.
func (c *Cloudflare) Fail(f CloudflareFault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.Times = max(f.Times, 1)
	c.faults = append(c.faults, &f)
}

// SetQuota sets how many records a zone may have.
func (c *Cloudflare) SetQuota(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quota = n
}

// SetLimit sets how many requests are answered in a window. Whoever exceeds it gets 429 for as long as a window.
func (c *Cloudflare) SetLimit(n int, window time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit, c.window, c.recent = n, window, nil
}

// Requests returns the requests so far, as "METHOD PATH?QUERY" below /client/v4, whatever became of them.
func (c *Cloudflare) Requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Writes counts the requests so far that were to change something.
func (c *Cloudflare) Writes() int {
	n := 0
	for _, r := range c.Requests() {
		if !strings.HasPrefix(r, "GET ") {
			n++
		}
	}
	return n
}

// newID returns 32 hex digits. The caller holds mu, or is the only one yet.
func (c *Cloudflare) newID() string {
	c.lastID++
	return fmt.Sprintf("%032x", c.lastID)
}

// zoneOf returns the longest zone that holds a name.
func (c *Cloudflare) zoneOf(name string) *cloudflareZone {
	var found *cloudflareZone
	for _, z := range c.zones {
		if (name == z.Name || strings.HasSuffix(name, "."+z.Name)) && (found == nil || len(z.Name) > len(found.Name)) {
			found = z
		}
	}
	return found
}
