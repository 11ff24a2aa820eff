package httpd

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// What tenant A has. Every name is of the same length as one that nobody has, so that answers can be compared.
func ofA() map[string]string {
	return map[string]string{
		"name": "alpha.example", "mxset": "alphaset", "account": "alphaacct", "id": "", "tenant": "alpha", "label": "alphalabel",
	}
}

func ofNobody() map[string]string {
	return map[string]string{
		"name": "bravo.example", "mxset": "bravoset", "account": "bravoacct", "id": "", "tenant": "bravo", "label": "bravolabel",
	}
}

// apart is a world where tenant A has one of everything, and tenant B nothing but tokens.
func apart(t *testing.T) (w *adminWorld, tokens []string, a map[string]string) {
	t.Helper()
	w, m := runAPI(t, unixAddr(t))
	a = ofA()
	w.tenant(t, a["tenant"])
	w.tenant(t, "b")
	as := "?tenant=" + a["tenant"]
	for _, x := range []exchange{
		{"PUT /v1/mxsets/" + a["mxset"] + as, "", euSet, 201, ""},
		{"PUT /v1/accounts/" + a["account"] + as, "", `{"provider":"desec","settings":{"api_token":"x"}}`, 200, ""},
		{"PUT /v1/domains/claimed-by-alpha.example" + as, "", `{"mxset":"` + a["mxset"] + `","publish":"alias"}`, 202, ""},
		{"PUT /v1/webhooks/" + a["label"] + as, "", `{"url":"https://hooks.example/` + a["label"] + `"}`, 201, `"secret":"whsec_`},
		{"POST /v1/tokens" + as, "", `{"role":"read","label":"` + a["label"] + `"}`, 201, ""},
	} {
		w.exchange(t, x)
	}
	// A proven domain, and its shared record.
	zone := "*." + a["mxset"] + ".s." + a["tenant"] + ".sts.hoster.example"
	outcomes, err := m.store.ApplyDomains(t.Context(), store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{{
		Domain: store.Domain{Name: "alpha.example", Tenant: a["tenant"], MXSet: a["mxset"], Publish: store.PublishShared},
		Shared: &store.Domain{Name: "*.alphaset.s.alpha.sts.hoster.example", Tenant: a["tenant"], MXSet: a["mxset"]},
	}}}, time.Now())
	if err != nil || outcomes[0].Err != nil {
		t.Fatal(err, outcomes)
	}
	got := w.exchange(t, exchange{"GET /v1/domains" + as, "", "", 200, `"name":"alpha.example"`})
	if !strings.Contains(got.body, zone) {
		t.Fatalf("tenant A has %s, want %s among it", got.body, zone)
	}
	all, err := m.store.Tokens(t.Context(), a["tenant"])
	if err != nil {
		t.Fatal(err)
	}
	a["id"] = all[0].ID
	return w, []string{w.token(t, "b", store.RoleAdmin, nil), w.token(t, "b", store.RoleRead, nil)}, a
}

// bodies are requests that name what somebody has. The empty one is for routes without a body.
func bodies(of map[string]string) []string {
	return []string{
		"",
		fmt.Sprintf(`{"mxset":%q,"publish":"alias"}`, of["mxset"]),
		fmt.Sprintf(`{"mxset":"own","publish":"zone","account":%q}`, of["account"]),
		fmt.Sprintf(`{"name":%q,"mxset":"own","publish":"alias"}`, of["name"]),
		fmt.Sprintf(`{"name":%q,"remove":true}`, of["name"]),
		fmt.Sprintf(`{"name":%q}`, of["tenant"]),
		euSet,
		`{"provider":"desec","settings":{"api_token":"x"}}`,
		`{"url":"https://hooks.example/"}`,
	}
}

// TestTenantsAreApart walks over all that the API describes with tokens of a tenant. It is asked about what another tenant
// has, and in the same words about what nobody has: the answers are the same to the byte, but for these names, and none of
// them names what was not asked for. A new route is tried without a change here.
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	w, tokens, a := apart(t)
	nobody := ofNobody()
	nobody["id"] = strings.Repeat("z", len(a["id"]))
	w.exchange(t, exchange{"PUT /v1/mxsets/own?tenant=b", "", euSet, 201, ""})
	var looks, changes []probe
	for path, operations := range w.description(t).Paths {
		for method, op := range operations {
			queries := []string{""}
			for _, p := range op.Parameters {
				if p.In == "query" {
					queries = append(queries, p.Name)
				}
			}
			for _, query := range queries {
				for _, p := range probes(method, path, query, len(bodies(a))) {
					if method == "get" {
						looks = append(looks, p)
					} else {
						changes = append(changes, p)
					}
				}
			}
		}
	}
	// Looks come first: then the tenant has made nothing yet that another has a namesake of.
	for _, p := range append(looks, changes...) {
		for i, token := range tokens {
			if i == 0 || p.body < 2 {
				compare(t, w, token, p, a, nobody)
			}
		}
	}
	if len(looks) < 60 || len(changes) < 300 {
		t.Errorf("%d looks and %d changes were tried, want those of all routes", len(looks), len(changes))
	}
	// None of it changed anything of A's.
	got := w.exchange(t, exchange{"GET /v1/domains/alpha.example?tenant=alpha", "", "", 200, `"mxset":"alphaset"`})
	if !strings.Contains(got.body, `"draining":false`) {
		t.Errorf("tenant A has %s", got.body)
	}
	for _, target := range []string{"/v1/mxsets/alphaset", "/v1/accounts/alphaacct", "/v1/claims/claimed-by-alpha.example", "/v1/webhooks/alphalabel"} {
		w.exchange(t, exchange{"GET " + target + "?tenant=alpha", "", "", 200, ""})
	}
}

// probe is a request but for what it names: of that, the kind.
type probe struct {
	method, path, query, kind string
	body                      int
}

// probes are those of a route with a query parameter.
func probes(method, path, query string, bodies int) (all []probe) {
	kinds := []string{"name", "mxset", "account", "tenant", "label"}
	if !strings.Contains(path, "{name}") && query == "" {
		kinds = kinds[:1]
	}
	if method == "get" {
		bodies = 1
	}
	for _, kind := range kinds {
		for i := range bodies {
			all = append(all, probe{method, path, query, kind, i})
		}
	}
	return all
}

// of is the request about what somebody has.
func (p probe) of(has map[string]string) (target, body string) {
	target = strings.NewReplacer("{name}", has[p.kind], "{id}", has["id"]).Replace(p.path)
	if p.query != "" {
		target += "?" + p.query + "=" + has[p.kind]
	}
	return target, bodies(has)[p.body]
}

// varying is what differs between two answers in any case: times, ETags and new tokens.
var varying = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z|"etag":"[0-9a-f]{32}"|"id":"[a-z2-7]{12}"|stspub_[a-z2-7]{12}_[0-9a-f]{64}|stspub-claim=[A-Z2-7]{26}|whsec_[A-Za-z0-9+/]{43}=|"id":"msg_[a-z2-7]{26}"|"milliseconds":\d+`)

func compare(t *testing.T, w *adminWorld, token string, p probe, a, nobody map[string]string) {
	t.Helper()
	target, body := p.of(a)
	got := w.send(t, token, p.method, target, body)
	for _, name := range append(slices.Collect(maps.Values(a)), "claimed-by-alpha") {
		if strings.Contains(got.body, name) && !strings.Contains(target+body, name) {
			t.Errorf("%s %s %s of a tenant tells of %q: %s", p.method, target, body, name, got.body)
		}
	}
	other, otherBody := p.of(nobody)
	if other == target && otherBody == body {
		return
	}
	none := w.send(t, token, p.method, other, otherBody)
	want := none.body
	for key, name := range nobody {
		want = strings.ReplaceAll(want, name, a[key])
	}
	have, want := varying.ReplaceAllString(got.body, "…"), varying.ReplaceAllString(want, "…")
	if got.status != none.status || have != want {
		t.Errorf("%s %s %s of a tenant: about what another has\n%d %s\nabout what nobody has\n%d %s",
			p.method, target, body, got.status, have, none.status, want)
	}
}
