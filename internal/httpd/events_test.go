package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/store"
)

// happened returns events in short.
func (w *adminWorld) happened(t *testing.T, c *Client, q EventQuery) (all []string) {
	t.Helper()
	err := c.Events(t.Context(), q, func(e store.Event) error {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s/%s by %s", e.Kind, e.Tenant, e.Name, e.Actor)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestEventsOfChanges makes every change that the API can make, and finds each told once, with who made it.
func TestEventsOfChanges(t *testing.T) {
	t.Parallel()
	w, m := runAPI(t, unixAddr(t))
	want := []string{
		"configuration.taken / by file", "mxset.added default/filed by file", "domain.added default/filed.example by file",
	}
	if diff := cmp.Diff(want, w.happened(t, w.Client, EventQuery{})); diff != "" {
		t.Errorf("events of a start (-want +got):\n%s", diff)
	}
	admin := w.token(t, "", store.RoleAdmin, func(k *store.Token) { k.Label = "panel\nof ü" })
	var last int64
	if err := w.Events(t.Context(), EventQuery{}, func(e store.Event) error { last = e.Seq; return nil }); err != nil {
		t.Fatal(err)
	}
	const owned = `{"mxset":"eu","publish":"alias"}`
	for _, x := range []struct{ token, request, body string }{
		{"", "PUT /v1/mxsets/eu", euSet},
		{admin, "PUT /v1/mxsets/eu", strings.Replace(euSet, "604800", "86400", 1)},
		{admin, "PUT /v1/mxsets/eu", strings.Replace(euSet, "604800", "86400", 1)},
		{"", "PUT /v1/domains/a.example", owned},
		{"", "PUT /v1/domains/a.example?dry_run=1", `{"mxset":"filed","publish":"alias"}`},
		{"", "PUT /v1/domains/a.example", `{"mxset":"filed","publish":"alias"}`},
		{"", "POST /v1/domains/a.example/adopt", ""},
		{"", "POST /v1/domains/a.example/retry", ""},
		{"", "POST /v1/domains/a.example/release", ""},
		{admin, "PUT /v1/domains/a.example", owned},
		{"", "POST /v1/domains/a.example/promote?testing=1", ""},
		{"", "POST /v1/domains/a.example/promote", ""},
		{"", "DELETE /v1/domains/a.example", ""},
		{"", "POST /v1/domains/a.example/expel", ""},
		{"", "PUT /v1/domains/a.example", owned},
		{"", "PUT /v1/accounts/desec", `{"provider":"desec","settings":{"api_token":"geheim"}}`},
		{"", "PUT /v1/accounts/desec", `{"provider":"desec","settings":{"api_token":"geheimer"}}`},
		{"", "DELETE /v1/accounts/desec", ""},
		{"", "POST /v1/tenants", `{"name":"acme"}`},
		{"", "PUT /v1/tenants/acme", `{"domains":5}`},
		{"", "PUT /v1/mxsets/own?tenant=acme", euSet},
		{"", "PUT /v1/domains/claimed.example?tenant=acme", `{"mxset":"own","publish":"alias"}`},
		{"", "DELETE /v1/domains/claimed.example?tenant=acme", ""},
		{"", "DELETE /v1/mxsets/own?tenant=acme", ""},
		{"", "DELETE /v1/tenants/acme", ""},
		{"", "DELETE /v1/domains/nobody.example", ""},
	} {
		method, target, _ := strings.Cut(x.request, " ")
		if got := w.send(t, x.token, method, target, x.body); got.status >= 400 && !strings.Contains(target, "nobody") {
			t.Fatalf("%s: %d %s", x.request, got.status, got.body)
		}
	}
	token := "by token " + strings.Split(admin, "_")[1] + " (panel of ü)"
	want = []string{
		"mxset.added default/eu by socket", "mxset.changed default/eu " + token,
		"domain.added default/a.example by socket", "domain.changed default/a.example by socket",
		"domain.command default/a.example by socket", "domain.command default/a.example by socket",
		"domain.released default/a.example by socket", "domain.changed default/a.example " + token,
		"domain.command default/a.example by socket", "domain.promoted default/a.example by socket",
		"domain.removed default/a.example by socket", "domain.command default/a.example by socket",
		"domain.restored default/a.example by socket",
		"account.added default/desec by socket", "account.changed default/desec by socket", "account.removed default/desec by socket",
		"tenant.added /acme by socket", "tenant.changed /acme by socket", "mxset.added acme/own by socket",
		"claim.made acme/claimed.example by socket", "claim.withdrawn acme/claimed.example by socket",
		"mxset.removed acme/own by socket", "tenant.removed /acme by socket",
	}
	if diff := cmp.Diff(want, w.happened(t, w.Client, EventQuery{After: last})); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	got := w.send(t, "", "GET", "/v1/events", "")
	if got.status != 200 || strings.Contains(got.body, "geheim") || !strings.HasPrefix(got.body, "[\n{\"seq\":") {
		t.Errorf("GET /v1/events: %d %s", got.status, got.body)
	}
	if _, err := m.Reload(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, w.happened(t, w.Client, EventQuery{After: last})); diff != "" {
		t.Errorf("events after a reload that changed nothing (-want +got):\n%s", diff)
	}
}

// TestEventsAreTheTenants shows a tenant its own events alone, and the service all.
func TestEventsAreTheTenants(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, unixAddr(t))
	w.tenant(t, "a")
	w.tenant(t, "b")
	for _, target := range []string{"/v1/mxsets/one?tenant=a", "/v1/mxsets/two?tenant=b"} {
		if got := w.send(t, "", "PUT", target, euSet); got.status != 201 {
			t.Fatalf("%s: %d %s", target, got.status, got.body)
		}
	}
	a, reader := w.As(w.token(t, "a", store.RoleAdmin, nil), ""), w.As(w.token(t, "", store.RoleRead, nil), "")
	for what, c := range map[string]struct {
		client *Client
		q      EventQuery
		want   string
	}{
		"a":                 {a, EventQuery{Kinds: []string{"mxset"}}, "mxset.added a/one by socket"},
		"a of another name": {a, EventQuery{Name: "two"}, ""},
		"a of the service":  {a, EventQuery{Kinds: []string{"tenant", "configuration"}}, ""},
		"service":           {w.Client, EventQuery{Kinds: []string{"mxset"}, Name: "two"}, "mxset.added b/two by socket"},
		"service about a":   {w.As("", "a"), EventQuery{Kinds: []string{"mxset"}}, "mxset.added a/one by socket"},
		"reader":            {reader, EventQuery{Name: "one"}, "mxset.added a/one by socket"},
	} {
		if got := strings.Join(w.happened(t, c.client, c.q), ", "); got != c.want {
			t.Errorf("%s is shown %q, want %q", what, got, c.want)
		}
	}
	w.exchange(t, exchange{"GET /v1/events?tenant=nobody", "", "", 404, `there is no tenant`})
	if got := w.send(t, a.token, "GET", "/v1/events?tenant=b", ""); got.status != 403 {
		t.Errorf("tenant a about b: %d %s", got.status, got.body)
	}
}

func TestEventsInPages(t *testing.T) {
	t.Parallel()
	w, m := runAPI(t, unixAddr(t))
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	var events []store.Event
	for i := range 5 {
		events = append(events, store.Event{At: at.Add(time.Duration(i) * time.Minute), Kind: store.KindDomainFault, Name: "x.example", Text: fmt.Sprint(i)})
	}
	if err := m.store.AppendEvents(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for target := "/v1/events?name=X.example.&limit=2"; target != ""; {
		got := w.send(t, "", "GET", target, "")
		var page []store.Event
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || len(page) > 2 {
			t.Fatalf("%s: %d %s", target, got.status, got.body)
		}
		for _, e := range page {
			texts = append(texts, e.Text)
		}
		target, _, _ = strings.Cut(strings.TrimPrefix(got.header.Get("Link"), "<"), ">")
	}
	if got := strings.Join(texts, ""); got != "01234" {
		t.Errorf("pages have %q", got)
	}
	for query, want := range map[string]int{
		"kind=domain.fault&since=2026-11-22T08:03:00Z&name=x.example": 2,
		"kind=domain&name=x.example":                                  5,
		"kind=mxset,domain.fault&name=x.example":                      5,
		"kind=node":                                                   0,
	} {
		got := w.send(t, "", "GET", "/v1/events?"+query, "")
		if n := strings.Count(got.body, `"seq":`); got.status != 200 || n != want {
			t.Errorf("%s: %d with %d events, want %d", query, got.status, n, want)
		}
	}
	w.exchange(t, exchange{"GET /v1/events?kind=domain.faults", "", "", 400, `there is no such kind; there are account.added, `})
	w.exchange(t, exchange{"GET /v1/events?since=yesterday", "", "", 400, `since`})
	w.exchange(t, exchange{"GET /v1/events?after=-1", "", "", 400, `after`})
}

// follower is one that runs.
type follower struct {
	mu    sync.Mutex // guards the fields below
	texts []string
	lost  int
	back  int

	putBack int // how often it was back on a copy
}

func (f *follower) run(t *testing.T, c *Client, q EventQuery) (stop func()) {
	return background(t, func(ctx context.Context) error {
		err := c.Follow(ctx, q, func(e store.Event) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.texts = append(f.texts, e.Text)
			return nil
		}, func(error) { f.count(&f.lost) }, func(putBack bool) {
			f.count(&f.back)
			if putBack {
				f.count(&f.putBack)
			}
		})
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
}

func (f *follower) count(n *int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*n++
}

// await waits until a follower is as it should be.
func (f *follower) await(t *testing.T, what string, good func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		f.mu.Lock()
		ok := good()
		state := fmt.Sprintf("%q, lost %d times, back %d times", f.texts, f.lost, f.back)
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("a follower does not see %s: %s", what, state)
		case <-tick.C:
		}
	}
}

// TestFollowOverARestart hears of what happens, soon, and of what happened while the server was away. A follower keeps no
// server from stopping.
func TestFollowOverARestart(t *testing.T) {
	t.Parallel()
	m := newRealManager(t, openStore(t))
	w := &adminWorld{addr: unixAddr(t), tenancy: m.store}
	stop := w.serve(t, m)
	w.Client = NewClient(w.addr)
	tell := func(text string) {
		t.Helper()
		if err := m.store.AppendEvents(t.Context(), []store.Event{{Kind: store.KindDomainStep, Name: "n", Text: text}}); err != nil {
			t.Fatal(err)
		}
	}
	tell("before")
	var now, all follower
	since := time.Now().Add(-time.Hour)
	now.run(t, w.Client, EventQuery{Name: "n"})
	all.run(t, w.Client, EventQuery{Name: "n", Since: since})
	all.await(t, "what was before", func() bool { return len(all.texts) == 1 })
	// It is not to be known from outside whether somebody follows already, so this one is told something until he does.
	for heard := false; !heard; {
		tell("x")
		now.mu.Lock()
		heard = len(now.texts) > 0
		now.mu.Unlock()
	}
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > drainTime/2 {
		t.Errorf("the server took %v to stop with followers", took)
	}
	for _, f := range []*follower{&now, &all} {
		f.await(t, "that the server is gone", func() bool { return f.lost == 1 })
	}
	tell("meanwhile")
	w.serve(t, m)
	tell("after")
	for _, f := range []*follower{&now, &all} {
		f.await(t, "what happened meanwhile", func() bool {
			n := len(f.texts)
			return n > 1 && f.texts[n-1] == "after" && f.texts[n-2] == "meanwhile" && f.back == 1
		})
	}
	if all.texts[0] != "before" || now.texts[0] != "x" {
		t.Errorf("followers began with %q and %q", all.texts[0], now.texts[0])
	}
}

// TestFollowOverARestore goes on when the store was put back to a copy, in which the follower's number comes later or never. Who
// asks with such a number is told, whether he follows or not.
func TestFollowOverARestore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, backup := filepath.Join(dir, "stspub.db"), filepath.Join(dir, "copy.db")
	open := func() *realManager {
		st, err := store.OpenSQLite(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		return newRealManager(t, st)
	}
	m := open()
	tell := func(text string) {
		t.Helper()
		if err := m.store.AppendEvents(t.Context(), []store.Event{{Kind: store.KindDomainStep, Name: "n", Text: text}}); err != nil {
			t.Fatal(err)
		}
	}
	tell("before")
	if err := store.BackupSQLite(t.Context(), db, backup); err != nil {
		t.Fatal(err)
	}
	w := &adminWorld{addr: unixAddr(t), tenancy: m.store}
	stop := w.serve(t, m)
	w.Client = NewClient(w.addr)
	for range 20 {
		tell("lost")
	}
	var heard follower
	heard.run(t, w.Client, EventQuery{Name: "n", Since: time.Now().Add(-time.Hour)})
	heard.await(t, "what happened", func() bool { return len(heard.texts) == 21 })
	var last int64
	if err := w.Events(t.Context(), EventQuery{Name: "n"}, func(e store.Event) error { last = e.Seq; return nil }); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.RestoreSQLite(t.Context(), db, backup); err != nil {
		t.Fatal(err)
	}
	m = open()
	tell("since")
	w.serve(t, m)
	heard.await(t, "what happens since", func() bool {
		return len(heard.texts) == 22 && heard.texts[21] == "since" && heard.putBack == 1
	})
	for _, query := range []string{"", "&follow=true", "&limit=5"} {
		w.exchange(t, exchange{fmt.Sprintf("GET /v1/events?after=%d%s", last, query), "", "", 410, `begin again without after`})
	}
}

// TestFollowRefused says at once why there is nothing to follow.
func TestFollowRefused(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, unixAddr(t))
	ignore := func(error) { t.Error("lost what was never there") }
	err := w.Follow(t.Context(), EventQuery{Kinds: []string{"nothing"}}, func(store.Event) error { return nil }, ignore, func(bool) {})
	if status(t, err) != 400 {
		t.Errorf("Follow of an unknown kind: %v", err)
	}
	err = NewClient(unixAddr(t)).Follow(t.Context(), EventQuery{}, func(store.Event) error { return nil }, ignore, func(bool) {})
	if err == nil || !strings.Contains(err.Error(), "no such socket") {
		t.Errorf("Follow of no server: %v", err)
	}
}
