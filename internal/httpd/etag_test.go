package httpd

import (
	"slices"
	"strings"
	"testing"
)

// TestETags: what was read may be sent back as If-Match, of everything that can be changed.
func TestETags(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, unixAddr(t))
	for _, x := range []struct {
		list, name    string
		first, second string // two ways that it may be
		gone          int    // the status when it is removed
	}{
		{"/v1/domains", "own.example", `{"mxset":"filed","publish":"alias"}`, `{"mxset":"filed","publish":"manual"}`, 202},
		{"/v1/mxsets", "own", euSet, `{"mode":"testing","max_age":604800,"mx":["mx1.example.net"]}`, 204},
		{"/v1/accounts", "own", `{"provider":"desec","settings":{"api_token":"hunter1"}}`, `{"provider":"desec","settings":{"api_token":"hunter2"}}`, 204},
		{"/v1/webhooks", "own", `{"url":"https://one.example/"}`, `{"url":"https://two.example/"}`, 204},
		{"/v1/tenants", "own", `{"domains":1}`, `{"domains":2}`, 204},
	} {
		at := x.list + "/" + x.name
		do := func(method, match, body string, status int) string {
			t.Helper()
			if match != "" {
				match = "If-Match: " + match
			}
			answer := ""
			switch status {
			case 400:
				answer = "is no ETag; write one, with its quotes, or *"
			case 412:
				answer = " was changed since it was read, or is gone; read it again"
			}
			return w.exchange(t, exchange{method + " " + at, match, body, status, answer}).header.Get("ETag")
		}
		for _, match := range []string{"*", `"0123"`} { // there is none
			do("PUT", match, x.first, 412)
			do("DELETE", match, "", 412)
		}
		if x.list == "/v1/tenants" {
			w.exchange(t, exchange{"POST " + x.list, "", `{"name":"own"}`, 201, `"etag":"`})
		} else if got := w.exchange(t, exchange{"PUT " + at, "", x.first, w.created(x.list), ""}); got.header.Get("ETag") == "" {
			t.Errorf("PUT %s has no ETag: %s", at, got.body)
		}
		first := do("GET", "", "", 200)
		if got := w.exchange(t, exchange{"GET " + x.list, "", "", 200, ""}); first == "" || !strings.Contains(got.body, `"etag":`+first) {
			t.Errorf("%s has the ETag %q, which is not in the list: %s", at, first, got.body)
		}
		for _, match := range []string{"own", `"`, `""own"`, `"one", "two"`} {
			do("PUT", match, x.second, 400)
			do("DELETE", match, "", 400)
		}
		do("PUT", `"0123"`, x.second, 412)
		second := do("PUT", first, x.second, 200)
		if now := do("GET", "", "", 200); second == first || now != second {
			t.Errorf("%s had the ETag %s; the change says %s, and a look %s", at, first, second, now)
		}
		do("PUT", first, x.first, 412)
		do("DELETE", first, "", 412)
		if now := do("GET", "", "", 200); now != second {
			t.Errorf("%s has the ETag %s after what was refused, want %s", at, now, second)
		}
		third := do("PUT", "*", x.first, 200)
		do("DELETE", second, "", 412)
		do("DELETE", third, "", x.gone)
		if x.gone == 204 {
			do("DELETE", third, "", 412)
			do("DELETE", "*", "", 412)
			do("DELETE", "", "", 404)
		}
	}
}

// created is the status of a PUT that adds something.
func (*adminWorld) created(list string) int {
	if list == "/v1/accounts" {
		return 200
	}
	return 201
}

// TestETagsOfAccountsAreNew: the same credentials again have another ETag, so that it tells nothing of them; an account of the
// file, which the API does not change, has none.
func TestETagsOfAccountsAreNew(t *testing.T) {
	t.Parallel()
	w, m := runAPI(t, unixAddr(t))
	var seen []string
	for range 3 {
		got := w.exchange(t, exchange{"PUT /v1/accounts/own", "", `{"provider":"desec","settings":{"api_token":"hunter2"}}`, 200, `"etag":"`})
		seen = append(seen, got.header.Get("ETag"))
	}
	slices.Sort(seen)
	if len(slices.Compact(seen)) != 3 {
		t.Errorf("ETags of the same credentials are %q, want others each time", seen)
	}
	if err := m.RefreshOwned(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.exchange(t, exchange{"GET /v1/accounts/own", "", "", 200, ""}); !slices.Contains(seen, got.header.Get("ETag")) {
		t.Errorf("as read from the store, the ETag is %s, want one of %q", got.header.Get("ETag"), seen)
	}
	if got := w.exchange(t, exchange{"GET /v1/accounts/main", "", "", 200, `"owner":"file"`}); got.header.Get("ETag") != "" || strings.Contains(got.body, "etag") {
		t.Errorf("an account of the file has the ETag %q: %s", got.header.Get("ETag"), got.body)
	}
	w.exchange(t, exchange{"PUT /v1/accounts/main", "If-Match: *", `{"provider":"desec","settings":{"api_token":"x"}}`, 409, "belongs to the configuration file"})
	w.exchange(t, exchange{"DELETE /v1/accounts/main", "If-Match: *", "", 409, "belongs to the configuration file"})
}

// TestEveryChangeTakesIfMatch walks over the description of the API: a new PUT or DELETE takes If-Match, or stands here with why.
func TestEveryChangeTakesIfMatch(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, unixAddr(t))
	without := map[string]string{
		"revoke-token": "nothing of a token is ever changed but that it is revoked, which may be said again",
		"remove-node":  "nobody declares a node; that it is gone may be said again",
	}
	changes := 0
	for path, operations := range w.description(t).Paths {
		for method, op := range operations {
			if method != "put" && method != "delete" {
				continue
			}
			changes++
			takes := false
			for _, p := range op.Parameters {
				takes = takes || p.Name == "If-Match" && p.In == "header"
			}
			if _, excused := without[op.OperationID]; takes == excused {
				t.Errorf("%s %s (%s) takes If-Match: %v", method, path, op.OperationID, takes)
			}
			delete(without, op.OperationID)
		}
	}
	if changes < 12 || len(without) > 0 {
		t.Errorf("%d PUT and DELETE are described, and not %v", changes, without)
	}
}
