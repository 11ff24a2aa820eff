package dnsupdate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
)

const (
	// powerDNSChanges go into one PATCH.
	powerDNSChanges = 1000
	// powerDNSReaders ask at the same time.
	powerDNSReaders = 4
	// powerDNSBody is the size of a PATCH, in octets; the server takes 2 MB by default.
	powerDNSBody = 1 << 20
	// powerDNSTimeout bounds one request.
	powerDNSTimeout = 15 * time.Second
	// powerDNSTries is how often a request is made that the server answers with an internal error.
	powerDNSTries = 4
	// powerDNSPenalty is the pause after a 429 that names none. The server has no such limit; a proxy before it may.
	powerDNSPenalty = time.Minute
)

// powerDNS writes through the HTTP API of PowerDNS Authoritative. A PATCH replaces whole record sets, as many as it has,
// in one transaction. It cannot compare: the account looks first, with one writer per name in the process.
//
// On a database that takes one writer at a time, two requests at once end in "database is locked", a status of 500 like
// any other internal error. So one batch is made at a time, and such requests are made again.
type powerDNS struct {
	guard  *guard
	key    string
	base   *url.URL // of the server's zones
	client *http.Client
	turn   chan struct{} // holds a token while a batch is made
}

func newPowerDNS(a config.Account, g *guard, rt http.RoundTripper) (backend, error) {
	// The server is the operator's own. The limit only keeps a mass roll-out from taking all of it.
	g.limit = rate.NewLimiter(1000, 1000)
	g.perChange = 1 + 1.0/powerDNSChanges // a look; the write
	if a.APIKey == "" {
		return nil, errors.New("no API key: set api_key_file or api_key_env")
	}
	base, err := url.Parse(strings.TrimSuffix(a.Server, "/"))
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("server %q: not an URL", a.Server)
	}
	p := &powerDNS{
		guard: g, key: string(a.APIKey), turn: make(chan struct{}, 1),
		base: base.JoinPath("api/v1/servers", cmp.Or(a.ServerID, "localhost"), "zones"),
		client: &http.Client{
			Transport: rt,
			Timeout:   powerDNSTimeout,
			// The key goes to nobody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	return newBatches(g, powerDNSChanges, p.applyAll), nil
}

// rrset is a record set as the API has it. Content is in zone-file format.
type rrset struct {
	Name       string     `json:"name"`
	Type       string     `json:"type"`
	TTL        int        `json:"ttl,omitempty"`
	ChangeType string     `json:"changetype,omitempty"`
	Records    []pdRecord `json:"records,omitempty"`
}

type pdRecord struct {
	Content  string `json:"content"`
	Disabled bool   `json:"disabled"`
}

// text is the value without quotes and escapes.
func (r pdRecord) text() string {
	if s, err := parseTXT(r.Content); err == nil {
		return s
	}
	return r.Content
}

func (p *powerDNS) applyAll(ctx context.Context, cs []Change) []error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return slices.Repeat([]error{limited(callTimeout, errors.New("too many changes are waiting"))}, len(cs))
	}
	errs, sets := make([]error, len(cs)), make([]*rrset, len(cs))
	var readers errgroup.Group
	readers.SetLimit(powerDNSReaders)
	for i, c := range cs {
		readers.Go(func() error {
			sets[i], errs[i] = p.look(ctx, c)
			return nil
		})
	}
	_ = readers.Wait()
	var write []int
	for i, set := range sets {
		if set != nil {
			write = append(write, i)
		}
	}
	p.write(ctx, cs[0].Zone, sets, write, errs)
	return errs
}

// look reads what is at the name and returns what is to be there; nil: there is nothing to write.
func (p *powerDNS) look(ctx context.Context, c Change) (*rrset, error) {
	query := url.Values{"rrset_name": {c.Name + "."}}
	body, err := p.send(ctx, http.MethodGet, c.Zone, query, nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		RRsets *[]rrset `json:"rrsets"`
	}
	err = json.Unmarshal(body, &answer)
	if err == nil && answer.RRsets == nil {
		err = errors.New("no record sets") // is not an empty list: there may be some
	}
	if err != nil {
		return nil, faultf(KindUnavailable, "malformed answer of the API: %w", err)
	}
	found := rrset{Name: c.Name + ".", Type: "TXT"}
	for _, set := range *answer.RRsets {
		switch {
		case unfqdn(set.Name) != c.Name: // servers before 4.6 answer with the whole zone
		case set.Type == "CNAME" && len(set.Records) > 0:
			return nil, faultf(KindCNAME, "the name is a CNAME to %q", unfqdn(set.Records[0].Content))
		case set.Type == "TXT":
			found = set
		}
	}
	return found.with(c)
}

// with returns what the change makes of a record set; nil: nothing.
func (s rrset) with(c Change) (*rrset, error) {
	texts := make([]string, len(s.Records))
	for i, r := range s.Records {
		texts[i] = r.text()
	}
	p, err := c.plan(texts)
	if err != nil || p.empty() {
		return nil, err
	}
	out := rrset{Name: s.Name, Type: s.Type, TTL: s.TTL, ChangeType: "REPLACE"}
	for i, r := range s.Records {
		if !slices.Contains(p.remove, i) {
			out.Records = append(out.Records, r)
		}
	}
	if c.Add != "" {
		out.TTL = int(c.TTL / time.Second)
	}
	if p.add {
		out.Records = append(out.Records, pdRecord{Content: `"` + c.Add + `"`})
	}
	if len(out.Records) == 0 {
		out.ChangeType = "DELETE"
	}
	return &out, nil
}

// write replaces record sets. A request that is too large, or that the server does not take for the sake of some of them,
// is halved.
func (p *powerDNS) write(ctx context.Context, zone string, sets []*rrset, which []int, errs []error) {
	if len(which) == 0 {
		return
	}
	request := make(map[string][]*rrset)
	for _, i := range which {
		request["rrsets"] = append(request["rrsets"], sets[i])
	}
	body, err := json.Marshal(request)
	halve := len(which) > 1 && len(body) > powerDNSBody
	if err == nil && !halve {
		_, err = p.send(ctx, http.MethodPatch, zone, nil, body)
		f, ok := errors.AsType[*fault](err)
		halve = len(which) > 1 && ok && (f.kind == KindRefused || f.kind == KindCNAME)
	}
	switch {
	case halve:
		half := len(which) / 2
		p.write(ctx, zone, sets, which[:half], errs)
		p.write(ctx, zone, sets, which[half:], errs)
	case err != nil:
		err = writing(err)
		for _, i := range which {
			errs[i] = err
		}
	}
}

// send makes one request about a zone and returns the body of its success; anything else is a fault. All requests of the
// account come through here. In a dry run those that write do not pass.
func (p *powerDNS) send(ctx context.Context, method, zone string, query url.Values, body []byte) ([]byte, error) {
	if p.guard.dryRun && method != http.MethodGet {
		return nil, faultf(KindDryRun, "%w", ErrDryRun)
	}
	for try := 0; ; try++ {
		if err := p.guard.permit(ctx); err != nil {
			return nil, err
		}
		status, answer, err := p.request(ctx, method, zone, query, body)
		if status != http.StatusInternalServerError || try == powerDNSTries-1 {
			return answer, err
		}
		if sleep(ctx, rand.N(50*time.Millisecond)<<try) != nil {
			return nil, err
		}
	}
}
