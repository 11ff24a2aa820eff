package dnsupdate_test

import (
	"encoding/base64"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/sender"
)

const zone = "example.org"

// place is a provider with the zone example.org, seen from both sides. The zone has wildcards; see zoneText.
type place struct {
	config config.Account
	addr   string // of its DNS server
	set    func(t testing.TB, name, typ string, values ...string)
	writes func() int              // attempts to write that reached the provider; nil: not known
	wire   *wire                   // what HTTP goes over; nil: it is no HTTP API
	spoil  func(a *config.Account) // makes the credentials those of nobody
	alone  bool                    // the provider cannot compare and swap: only one process may write a name
}

const zoneText = `
*.wild 300 TXT "v=spf1 -all"
*.shared 300 TXT "v=STSv1; id=shared;"
*.elsewhere 300 CNAME example.net.
`

// places are what the conformance suite runs on.
func places() map[string]func(t *testing.T) *place {
	server := func(start func(testing.TB, ...lab.Zone) *labtest.DNSServer) func(t *testing.T) *place {
		return func(t *testing.T) *place {
			s := start(t, lab.Zone{Name: zone, Text: zoneText})
			return dnsPlace(s)
		}
	}
	return map[string]func(t *testing.T) *place{
		"BIND":     server(labtest.StartBIND),
		"Knot":     server(labtest.StartKnot),
		"PowerDNS": server(labtest.StartPowerDNS),
		"PowerDNS API": func(t *testing.T) *place {
			s := labtest.StartPowerDNS(t, lab.Zone{Name: zone, Text: zoneText})
			return apiPlace(s)
		},
		"Cloudflare": func(t *testing.T) *place { _, p := cloudflarePlace(t); return p },
	}
}

func dnsPlace(s *labtest.DNSServer) *place {
	return &place{config: s.Account("main"), addr: s.Addr, set: s.Set, spoil: func(a *config.Account) {
		a.Key = config.Secret(base64.StdEncoding.EncodeToString([]byte("another secret of another server")))
	}}
}

func apiPlace(s *labtest.DNSServer) *place {
	w := &wire{}
	return &place{
		config: s.APIAccount("main"), addr: s.Addr, set: s.Set, wire: w, writes: w.count, alone: true,
		spoil: func(a *config.Account) { a.APIKey = "expired-expired-expired" },
	}
}

func cloudflarePlace(t *testing.T) (*labtest.Cloudflare, *place) {
	c := labtest.StartCloudflare(t, "example.com", zone)
	for line := range strings.SplitSeq(strings.TrimSpace(zoneText), "\n") {
		f := strings.SplitN(line, " ", 4)
		c.Put(f[0]+"."+zone, f[2], strings.TrimSuffix(f[3], "."))
	}
	set := func(_ testing.TB, name, typ string, values ...string) {
		c.Remove(name, typ)
		for _, v := range values {
			c.Put(name, typ, v)
		}
	}
	return c, &place{
		config: c.Account("main"), addr: c.DNS.Addr, set: set, writes: c.Writes, alone: true, wire: &wire{},
		spoil: func(a *config.Account) { a.APIToken = "expired-expired-expired-expired-expired-" },
	}
}

// everywhere runs a test on all places at once.
func everywhere(t *testing.T, test func(t *testing.T, p *place)) {
	t.Parallel()
	for name, start := range places() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

func (p *place) open(t *testing.T, o dnsupdate.Options) dnsupdate.Account {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if o.HTTP == nil && p.wire != nil {
		o.HTTP = p.wire
	}
	a, err := dnsupdate.Open(p.config, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// observe asks the place's server as publication does.
func (p *place) observe(t testing.TB, name string) dnsupdate.View {
	t.Helper()
	o := &dnsupdate.Observer{Resolver: &sender.Resolver{Stub: map[string][]string{".": {p.addr}}}}
	v, err := o.Observe(t.Context(), name, dns.TypeTXT)
	if err != nil {
		t.Fatal(err)
	}
	if !v.Complete() {
		t.Fatalf("Observe(%s): %v", name, v.Failed()[0].Err)
	}
	return v
}

// data returns the TXT records at a name as the server answers them, byte for byte, in zone-file format, sorted.
func (p *place) data(t testing.TB, name string) []string {
	t.Helper()
	out := []string{}
	for _, rr := range p.observe(t, name).Answers[0].RRs {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return out
}

func (p *place) wantData(t testing.TB, name string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(append([]string{}, want...), p.data(t, name)); diff != "" {
		t.Errorf("TXT at %s (-want +got):\n%s", name, diff)
	}
}

func sts(id string) string { return "v=STSv1; id=" + id + ";" }

func quoted(s string) string { return `"` + s + `"` }

func change(name string, add string, remove ...string) dnsupdate.Change {
	return dnsupdate.Change{Zone: zone, Name: name, TTL: 2 * time.Minute, Remove: remove, Add: add}
}

// apply wants success.
func apply(t *testing.T, a dnsupdate.Account, c dnsupdate.Change) {
	t.Helper()
	if err := a.Apply(t.Context(), c); err != nil {
		t.Fatalf("Apply(%+v): %v", c, err)
	}
}

// fails wants an error of a kind. No error may show a secret.
func (p *place) fails(t *testing.T, err error, kind dnsupdate.Kind) *dnsupdate.Error {
	t.Helper()
	e, ok := errors.AsType[*dnsupdate.Error](err)
	if !ok || e.Kind != kind {
		t.Fatalf("error = %v, want kind %s", err, kind)
	}
	for _, secret := range []config.Secret{p.config.APIToken, p.config.APIKey, p.config.Key} {
		if secret != "" && strings.Contains(err.Error(), string(secret)) {
			t.Errorf("error shows a secret: %v", err)
		}
	}
	if got := errors.Is(err, dnsupdate.ErrConflict); got != (kind == dnsupdate.KindConflict) {
		t.Errorf("errors.Is(%v, ErrConflict) = %t", err, got)
	}
	return e
}

// says wants the exact text.
func says(t *testing.T, err error, want string) {
	t.Helper()
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

// metrics returns counters, and how often histograms counted, by name and labels.
func metrics(t testing.TB, m *dnsupdate.Metrics) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			key := f.GetName()
			for _, l := range metric.GetLabel() {
				key += " " + l.GetName() + "=" + l.GetValue()
			}
			values[key] = metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return values
}
