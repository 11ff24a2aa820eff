package httpd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// exchange is a request in one line, with headers and body behind, and what the answer is to be.
type exchange struct {
	request string // METHOD TARGET
	header  string
	body    string
	status  int
	answer  string // it is in the answer
}

// exchange makes a request and returns the answer.
func (w *adminWorld) exchange(t *testing.T, x exchange) reply {
	t.Helper()
	method, target, _ := strings.Cut(x.request, " ")
	header := x.header
	if header != "" {
		header += "\n"
	}
	got := w.ask(t, method, fmt.Sprintf("%s %s HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: %d\n%s\n%s",
		method, target, len(x.body), header, x.body))
	if got.status != x.status || !strings.Contains(got.body, x.answer) {
		t.Errorf("%s %s %s = %d %s, want %d and %s", x.request, x.header, x.body, got.status, got.body, x.status, x.answer)
	}
	if got.status >= 400 && got.header.Get("Content-Type") != problemType {
		t.Errorf("%s = %d of type %q, want a problem", x.request, got.status, got.header.Get("Content-Type"))
	}
	return got
}

const (
	euSet    = `{"mode":"enforce","max_age":604800,"mx":["mx1.example.net"]}`
	inEU     = `{"mxset":"eu","publish":"alias"}`
	notThere = `"detail":"domain nobody.example is not configured here"`
)

func TestDomainsByTheAPI(t *testing.T) {
	t.Parallel()
	w, m := runAPI(t, unixAddr(t))
	added := DomainResult{}
	for _, x := range []exchange{
		{"PUT /v1/domains/a.example", "", inEU, 409, `mx set \"eu\": no such mx set`},
		{"PUT /v1/mxsets/eu", "", euSet, 201, `"name":"eu","owner":"api"`},
		{"PUT /v1/domains/a.example?dry_run=1", "", inEU, 200, `"result":"added"`},
		{"GET /v1/domains/a.example", "", "", 404, "domain a.example is not configured here"},
		{"PUT /v1/domains/a.example", "If-Match: *", inEU, 412, "a.example was changed since it was read, or is gone"},
		{"PUT /v1/domains/A.example.", "", inEU, 201, `{"name":"a.example","result":"added","etag":"`},
		{"PUT /v1/domains/a.example", "", inEU, 200, `"result":"unchanged"`},
		{"PUT /v1/domains/a.example", "", `{"mxset":"eu","publish":"manual"}`, 200, `"result":"changed"`},
		{"PUT /v1/domains/a.example", "If-Match: eu", inEU, 400, `If-Match: \"eu\" is no ETag`},
		{"PUT /v1/domains/a.example", `If-Match: "0123"`, inEU, 412, "was changed since"},
		{"PUT /v1/domains/b.example", "", `{"mxset":"eu","publish":"zone"}`, 400, `b.example: account: \"\" is no account of the tenant`},
		{"PUT /v1/domains/b.example", "", `{"mxset":"eu","publish":"nowhere"}`, 400, "body.publish: expected value to be one of"},
		{"PUT /v1/domains/b.example", "", `{"mxset":"eu","publish":"alias","colour":"red"}`, 400, "body.colour: unexpected property"},
		{"PUT /v1/domains/b.example", "", `{`, 400, "body: unexpected end of JSON input"},
		{"PUT /v1/domains/b.example", "", "", 400, "request body is required"},
		{"PUT /v1/domains/192.0.2.1", "", inEU, 400, "192.0.2.1: name: "},
		{"PUT /v1/domains/filed.example", "", inEU, 409, `domain \"filed.example\" belongs to the configuration file: change it there`},
		{"DELETE /v1/domains/filed.example", "", "", 409, `belongs to the configuration file: change it there`},
		{"DELETE /v1/domains/nobody.example", "", "", 404, `"detail":"nobody.example is not here"`},
		{"GET /v1/domains/nobody.example", "", "", 404, notThere},
		{"DELETE /v1/mxsets/eu", "", "", 409, `mx set \"eu\" is needed by domain \"a.example\"`},
		{"GET /v1/records/a.example", "", "", 200, `mta-sts.a.example. `},
		{"GET /v1/records/nobody.example", "", "", 404, notThere},
		{"DELETE /v1/domains/a.example?dry_run=1", "", "", 200, `"result":"removed"`},
		{"DELETE /v1/domains/a.example", "", "", 202, `"result":"removed"`},
		{"DELETE /v1/domains/a.example", "", "", 200, `"result":"unchanged"`},
		{"GET /v1/domains/a.example", "", "", 200, `"draining":true`},
		{"PUT /v1/domains/a.example", "", inEU, 200, `"result":"restored"`},
		{"GET /v1/claims", "", "", 200, "[]"},
		{"GET /v1/claims/a.example", "", "", 404, "domain a.example is not claimed"},
		{"POST /v1/claims/a.example/look", "", "", 404, "domain a.example is not claimed"},
	} {
		got := w.exchange(t, x)
		if strings.Contains(x.answer, `"result":"added","etag":"`) {
			if err := json.Unmarshal([]byte(got.body), &added); err != nil || got.header.Get("ETag") != `"`+added.ETag+`"` {
				t.Errorf("%s has the ETag %s, and in its body %q", x.request, got.header.Get("ETag"), added.ETag)
			}
		}
	}
	// Who has seen what is there may change it.
	seen := w.exchange(t, exchange{"GET /v1/domains/a.example", "", "", 200, ""}).header.Get("ETag")
	if seen == "" {
		t.Fatal("a domain has no ETag")
	}
	w.exchange(t, exchange{"PUT /v1/domains/a.example", "If-Match: " + seen, `{"mxset":"eu","publish":"manual"}`, 200, `"result":"changed"`})
	w.exchange(t, exchange{"DELETE /v1/domains/a.example", "If-Match: " + seen, "", 412, ""})
	d, err := m.store.Domain(t.Context(), "a.example")
	if err != nil || d.Publish != "manual" || d.Owner != store.OwnerAPI || !d.Removed.IsZero() {
		t.Errorf("the store has %+v, %v", d, err)
	}
}

func TestMXSetsAndAccounts(t *testing.T) {
	t.Parallel()
	w, m := runAPI(t, unixAddr(t))
	for _, x := range []exchange{
		{"GET /v1/mxsets", "", "", 200, `[{"name":"filed","owner":"file","mode":"testing","max_age":86400,"mx":["mx.hoster.example"],"rollout":0,"etag":"`},
		{"PUT /v1/mxsets/filed", "", euSet, 409, `mx set \"filed\" belongs to the configuration file: change it there`},
		{"PUT /v1/mxsets/Eu", "", euSet, 400, `mx set \"Eu\": name: `},
		{"PUT /v1/mxsets/eu", "", `{"mode":"enforce","max_age":604800,"mx":["*.*.example.net"]}`, 400, `mx set \"eu\": mx: `},
		{"PUT /v1/mxsets/eu", "", `{"mode":"strict","max_age":0,"mx":[]}`, 400, "body.mode: expected value to be one of"},
		{"PUT /v1/mxsets/eu", "", euSet, 201, `"mode":"enforce"`},
		{"PUT /v1/mxsets/eu", "", euSet, 200, `"mode":"enforce"`},
		{"PUT /v1/mxsets/eu", `If-Match: "0"`, euSet, 412, ""},
		{"POST /v1/mxsets/eu/plan", "", `{"mode":"testing","max_age":604800,"mx":["mx2.example.net"]}`, 200, `"mxsets":[`},
		{"GET /v1/mxsets/us", "", "", 404, `mx set \"us\" is not here`},
		{"DELETE /v1/mxsets/us", "", "", 404, `mx set \"us\" is not here`},
		{"DELETE /v1/mxsets/eu", "", "", 204, ""},

		{"PUT /v1/accounts/own", "", `{"provider":"desec","settings":{}}`, 400, `account \"own\": api_token: missing`},
		{"PUT /v1/accounts/own", "", `{"provider":"desec","settings":{"api_token":["hunter2"]}}`, 400, "body.settings.api_token: expected string"},
		{"PUT /v1/accounts/own", "", `{"provider":"desec","zone":"own.example","settings":{"api_token":"wrong"}}`, 400, `account: the provider refuses the token (401)`},
		{"PUT /v1/accounts/own", "", `{"provider":"desec","zone":"own.example","settings":{"api_token":"hunter2"}}`, 200, `"check":"the account reads the zone own.example"`},
		{"GET /v1/accounts", "", "", 200, `[{"name":"main","owner":"file","provider":"desec"},{"name":"own","owner":"api","provider":"desec","etag":"`},
		{"GET /v1/accounts/own", "", "", 200, `{"name":"own","owner":"api","provider":"desec","etag":"`},
		{"GET /v1/accounts/other", "", "", 404, `account \"other\" is not here`},
		{"PUT /v1/accounts/main", "", `{"provider":"desec","settings":{"api_token":"x"}}`, 409, `account \"main\" belongs to the configuration file`},
		{"DELETE /v1/accounts/main", "", "", 409, `belongs to the configuration file`},
		{"PUT /v1/domains/own.example", "", `{"mxset":"filed","publish":"zone","account":"own"}`, 201, `"added"`},
		{"DELETE /v1/accounts/own", "", "", 409, `account \"own\" is needed by domain \"own.example\"`},
		{"DELETE /v1/domains/own.example", "", "", 202, `"removed"`},
		{"DELETE /v1/accounts/own", "", "", 409, `account \"own\" is needed by 1 domains that drain`},
	} {
		if got := w.exchange(t, x); strings.Contains(got.body, "hunter2") {
			t.Errorf("%s shows a secret: %s", x.request, got.body)
		}
	}
	if strings.Contains(w.log.String(), "hunter2") {
		t.Errorf("the log shows a secret:\n%s", w.log.String())
	}
	if accounts, err := m.store.Accounts(t.Context()); err != nil || len(accounts) != 1 || !strings.Contains(string(accounts[0].Settings), "hunter2") {
		t.Errorf("the store has %d accounts, %v, want one with its token", len(accounts), err)
	}
}

// listed returns the names that a query lists, and where the next page is.
func (w *adminWorld) listed(t *testing.T, target string) (names []string, next string) {
	t.Helper()
	got := w.exchange(t, exchange{request: "GET " + target, status: 200})
	var all []publish.Status
	if err := json.Unmarshal([]byte(got.body), &all); err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	for _, s := range all {
		names = append(names, string(s.Name))
	}
	link := got.header.Get("Link")
	if link != "" && !strings.HasSuffix(link, `>; rel="next"`) {
		t.Errorf("%s: Link: %s", target, link)
	}
	return names, strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
}

func TestDomainsPageByPage(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, unixAddr(t))
	w.exchange(t, exchange{"PUT /v1/mxsets/eu", "", euSet, 201, ""})
	want := []string{"*.eu.s.default.sts.hoster.example"}
	for i := range 12 {
		name := fmt.Sprintf("d%02d.example", i)
		spec := inEU
		if i%2 == 0 {
			spec = `{"mxset":"eu","publish":"shared"}`
		}
		w.exchange(t, exchange{"PUT /v1/domains/" + name, "", spec, 201, ""})
		want = append(want, name)
	}
	want = append(want, "filed.example")
	if got, next := w.listed(t, "/v1/domains"); !slices.Equal(got, want) || next != "" {
		t.Errorf("all are %q, next %q, want %q", got, next, want)
	}
	for _, limit := range []int{1, 2, 5, 13, 14, 1000} {
		var all []string
		pages := 0
		for next := fmt.Sprintf("/v1/domains?limit=%d", limit); next != ""; pages++ {
			var page []string
			page, next = w.listed(t, next)
			if len(page) > limit {
				t.Errorf("a page of %d has %d", limit, len(page))
			}
			all = append(all, page...)
		}
		if !slices.Equal(all, want) || pages != (len(want)+limit-1)/limit {
			t.Errorf("pages of %d: %d of them, with %q, want %q", limit, pages, all, want)
		}
	}
	for query, want := range map[string][]string{
		"?mxset=filed":                {"filed.example"},
		"?prefix=d1":                  {"d10.example", "d11.example"},
		"?prefix=D1&limit=1":          {"d10.example"},
		"?after=d10.example":          {"d11.example", "filed.example"},
		"?step=live":                  nil,
		"?faults=1":                   nil,
		"?mxset=eu&prefix=d0&limit=2": {"d00.example", "d01.example"},
	} {
		if got, _ := w.listed(t, "/v1/domains"+query); !slices.Equal(got, want) {
			t.Errorf("domains%s are %q, want %q", query, got, want)
		}
	}
	w.exchange(t, exchange{"GET /v1/domains?limit=1001", "", "", 400, "limit"})
}

// A tenant's domain is a claim until it is proven, and the claim is withdrawn like a domain.
func TestClaims(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, unixAddr(t))
	w.tenant(t, "acme")
	for _, x := range []exchange{
		{"PUT /v1/mxsets/eu?tenant=acme", "", euSet, 201, ""},
		{"PUT /v1/domains/a.example?tenant=acme", "", inEU, 202, `"result":"claimed"`},
		{"PUT /v1/domains/a.example?tenant=acme", "", inEU, 200, `"result":"unchanged"`},
		{"GET /v1/domains?tenant=acme", "", "", 200, "[]"},
		{"GET /v1/domains/a.example?tenant=acme", "", "", 404, "domain a.example is claimed, and not proven yet; see /v1/claims/a.example"},
		{"GET /v1/domains/a.example", "", "", 404, "domain a.example is not configured here"},
		{"GET /v1/claims?tenant=acme", "", "", 200, `[{"name":"a.example","tenant":"acme"`},
		{"GET /v1/claims/a.example?tenant=acme", "", "", 200, `mta-sts.a.example. 300 IN CNAME acme.` + serviceHost + `.`},
		{"GET /v1/claims/a.example", "", "", 404, "domain a.example is not claimed"},
		{"GET /v1/records/a.example?tenant=acme", "", "", 200, `_stspub-challenge.a.example.`},
		{"POST /v1/claims/a.example/look?tenant=acme", "", "", 204, ""},
		// What is proven without DNS is what is there already: that of the file.
		{"PUT /v1/domains/filed.example?tenant=acme", "", inEU, 202, `"result":"claimed"`},
		{"DELETE /v1/domains/filed.example?tenant=acme", "", "", 200, `"result":"withdrawn"`},
		{"DELETE /v1/domains/a.example?tenant=acme", "", "", 200, `"result":"withdrawn"`},
		{"GET /v1/claims?tenant=acme", "", "", 200, "[]"},
		{"POST /v1/domains/filed.example/release?tenant=acme", "", "", 404, ""},
		{"POST /v1/domains/filed.example/release", "", "", 204, ""},
		{"POST /v1/domains/filed.example/release?withdraw=1", "", "", 204, ""},
	} {
		w.exchange(t, x)
	}
}

// Every route is described, and whatever it is sent, it answers no 500.
func TestDescription(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, unixAddr(t))
	doc := w.description(t)
	if doc.OpenAPI != "3.1.0" || len(doc.Paths) < 25 {
		t.Errorf("OpenAPI %s with %d paths, want 3.1.0 and all", doc.OpenAPI, len(doc.Paths))
	}
	ids := make(map[string]bool)
	for path, operations := range doc.Paths {
		for method, op := range operations {
			if ids[op.OperationID] || op.OperationID == "" || op.Summary == "" {
				t.Errorf("%s %s has the id %q and the summary %q", method, path, op.OperationID, op.Summary)
			}
			ids[op.OperationID] = true
			target := strings.NewReplacer("{name}", "nobody.example", "{id}", "nobody").Replace(path)
			for _, body := range []string{"", "{}", "[]", "null", `{"name":1}`, "\x00"} {
				if got := w.send(t, "", method, target, body); got.status >= 500 {
					t.Errorf("%s %s with %q = %d %s", method, target, body, got.status, got.body)
				}
			}
		}
	}
	if !ids["change-domains"] || !ids["put-domain"] || !ids["reload"] {
		t.Errorf("operations: %v", ids)
	}
}

// send makes a request with a token, which may be empty.
func (w *adminWorld) send(t *testing.T, token, method, target, body string) reply {
	t.Helper()
	method = strings.ToUpper(method)
	if token != "" {
		token = "Authorization: Bearer " + token + "\n"
	}
	return w.ask(t, method, fmt.Sprintf("%s %s HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: %d\n%s\n%s",
		method, target, len(body), token, body))
}

// description is what /openapi.json says, as far as tests read it.
type description struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Summary     string `json:"summary"`
		Parameters  []struct {
			Name string `json:"name"`
			In   string `json:"in"`
		} `json:"parameters"`
	} `json:"paths"`
}

func (w *adminWorld) description(t *testing.T) (doc description) {
	t.Helper()
	got := w.ask(t, http.MethodGet, "GET /openapi.json HTTP/1.1\nHost: localhost\n\n")
	if err := json.Unmarshal([]byte(got.body), &doc); err != nil {
		t.Fatalf("%v in %s", err, got.body)
	}
	return doc
}
