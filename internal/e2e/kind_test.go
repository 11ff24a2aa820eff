package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
)

// kinds are the places where zones are held.
func kinds() []string { return []string{"BIND", "Knot", "Cloudflare"} }

// each runs a story at every kind, side by side.
func each(t *testing.T, story func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			story(t, newWorld(t, kind))
		})
	}
}

// holder is who holds the zones: the hand of the zones' owners, and the keys for stspub.
type holder interface {
	// set replaces the records of a name and type by values in zone-file format; without any it removes them.
	set(t *testing.T, name, typ string, values ...string)
	// dns is the address of the name server.
	dns() string
	// api is the address that takes changes, and account the body of its [account.NAME] table when reached at addr.
	api() string
	account(addr string) string
	// secrets are the files that account names, by name.
	secrets() map[string]string
}

// hold starts the holder of a kind with empty zones.
func hold(t *testing.T, kind string, zones ...string) holder {
	t.Helper()
	var empty []lab.Zone
	for _, z := range zones {
		empty = append(empty, lab.Zone{Name: z})
	}
	switch kind {
	case "BIND":
		return primary{labtest.StartBIND(t, empty...)}
	case "Knot":
		return primary{labtest.StartKnot(t, empty...)}
	}
	return cloudflare{labtest.StartCloudflare(t, zones...)}
}

// primary is BIND or Knot.
type primary struct{ *labtest.DNSServer }

func (p primary) set(t *testing.T, name, typ string, values ...string) {
	t.Helper()
	p.Set(t, name, typ, values...)
}

func (p primary) dns() string { return p.Addr }
func (p primary) api() string { return p.Addr }

func (p primary) account(addr string) string {
	return fmt.Sprintf("provider = \"rfc2136\"\nserver = %q\nkey_name = %q\nkey_file = \"secret\"\n", addr, p.KeyName)
}

func (p primary) secrets() map[string]string { return map[string]string{"secret": p.Secret + "\n"} }

// cloudflare is the fake.
type cloudflare struct{ *labtest.Cloudflare }

func (c cloudflare) set(_ *testing.T, name, typ string, values ...string) {
	c.Remove(name, typ)
	for _, v := range values {
		c.Put(name, typ, v)
	}
}

func (c cloudflare) dns() string { return c.DNS.Addr }

func (c cloudflare) api() string {
	return strings.TrimSuffix(strings.TrimPrefix(c.URL, "http://"), "/client/v4")
}

func (c cloudflare) account(addr string) string {
	return fmt.Sprintf("provider = \"cloudflare\"\napi_token_file = \"secret\"\napi_url = \"http://%s/client/v4\"\n", addr)
}

func (c cloudflare) secrets() map[string]string { return map[string]string{"secret": c.Token + "\n"} }

// serials tells whether a zone was changed: the serial number of its SOA record goes up with every update (RFC 2136,
// Section 3.6).
func (w *world) serials() string {
	w.t.Helper()
	var serials []string
	for _, zone := range []string{zoned, aliasZone} {
		q := new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA)
		r, err := dns.Exchange(q, w.holder.dns())
		if err != nil || len(r.Answer) != 1 {
			w.t.Fatalf("SOA of %s: %v %v", zone, r, err)
		}
		serials = append(serials, fmt.Sprint(r.Answer[0].(*dns.SOA).Serial))
	}
	return strings.Join(serials, " ")
}
