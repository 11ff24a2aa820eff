package publish_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/inside"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// splitHorizon returns what is said of a domain whose MX and policy host are names that our resolver knows and the world does
// not, and whose names lead to our own name; each names an address inside.
func splitHorizon(t *testing.T) map[string]string {
	t.Helper()
	server, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "test", Text: "" +
		"mail.b MX 10 db.corp\ndb.corp A 10.77.0.5\nmta-sts.mail.b CNAME wiki.corp\nwiki.corp A 10.77.0.6\nmta-sts.ours.b CNAME sts\nsts A 10.77.0.7\n"}}})
	if err != nil {
		t.Fatal(err)
	}
	client := &sender.Client{Resolver: &sender.Resolver{Stub: map[string][]string{".": {server.Addr}}}, Dial: new(sender.Guard).Dial}
	outside := &publish.Outside{Client: client, Node: "127.0.0.1:1", Values: nil}
	dead := &publish.Outside{Hostname: "sts.test", Client: &sender.Client{Resolver: &sender.Resolver{Servers: []string{"127.0.0.1:1"}, Timeout: time.Second}}}
	text := policygen.Policy{Mode: policygen.Enforce, MaxAge: 86400, MX: []string{"db.corp.test"}}.Text()
	_, failed := client.FetchPolicy(t.Context(), "mail.b.test")
	return map[string]string{
		"MX":       outside.Ready(t.Context(), "mail.b.test", text).Reason,
		"host":     failed.Error(),
		"node":     outside.Body(t.Context(), "mail.b.test", text).Reason,
		"resolver": dead.Host(t.Context(), "mail.b.test", "b.sts.test").Reason,
	}
}

// TestInsideIsTheOperators: whatever a tenant reads of its domains, claims and accounts, no address inside is in it. The
// operator reads them of his own.
func TestInsideIsTheOperators(t *testing.T) {
	reasons := splitHorizon(t)
	w, seen := claimsWorld(t)
	w.hangs = "nobody"
	run(t, w, func(w *world) {
		w.tenant("b", "main")
		for what, reason := range reasons {
			if inside.Hide(reason) == reason {
				t.Errorf("%s: %q names no address inside, so it shows nothing", what, reason)
			}
			for tenant, name := range map[string]policygen.Name{"b": policygen.Name(strings.ToLower(what) + ".b.example"), publish.Tenant: policygen.Name(strings.ToLower(what) + ".example")} {
				w.change(func() {
					w.host[name] = publish.Host{Reason: reason}
					w.cert[name.PolicyHost()] = publish.Cert{Fault: true, Reason: reason, Queue: reason}
				})
				w.belonging(tenant, []policygen.Name{name}, "main")
			}
		}
		seen.set(func() { seen.hosts["mta-sts.claim.example"] = "10.77.0.8" })
		w.applyAs("b", publish.ApplyOptions{}, sharing("claim.example", "eu"))
		w.change(func() { w.checkErr = errors.New("ask server 10.77.0.9:53: no answer") })
		_, _, refused := w.rec.PutAccount(w.ctx, "b", config.Account{Name: "other", Provider: "test"}, "zone.example", "")
		w.pass(time.Minute)

		read := func(tenant string) string {
			t.Helper()
			domains, err := w.rec.StatusesOf(w.ctx, tenant, store.DomainFilter{}, "", 100)
			if err != nil || len(domains) != len(reasons) {
				t.Fatalf("%d domains of %s, %v", len(domains), tenant, err)
			}
			claims, err := w.rec.Claims(w.ctx, tenant, "", 100)
			if err != nil {
				t.Fatal(err)
			}
			events, err := w.store.Events(w.ctx, store.EventFilter{Tenant: tenant}, 0, 1000)
			if err != nil || len(events) < len(reasons) {
				t.Fatalf("%d events of %s, %v", len(events), tenant, err)
			}
			all, err := json.Marshal([]any{domains, claims, events})
			if err != nil {
				t.Fatal(err)
			}
			return string(all)
		}
		told := read("b") + fmt.Sprint(refused)
		if hidden := inside.Hide(told); hidden != told {
			t.Errorf("tenant b is told %s", told)
		}
		if n := strings.Count(told, inside.Address); n < 4*len(reasons)+2 {
			t.Errorf("%d addresses were left out of what tenant b is told, want those of reasons, findings, certificates, events, a claim and an account: %s", n, told)
		}
		if all := read(publish.Tenant); !strings.Contains(all, "10.77.0.5") || !strings.Contains(all, "10.77.0.6") || !strings.Contains(all, "127.0.0.1:1") ||
			strings.Contains(all, inside.Address) {
			t.Errorf("the operator is told %s", all)
		}
	})
}

// TestAliasAccountIsTheOperators: of the account that holds the alias zone, tenants hear no more than what it comes to.
func TestAliasAccountIsTheOperators(t *testing.T) {
	var log strings.Builder
	w := newWorld(t)
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	w.applyErr = &dnsupdate.Error{
		Account: "main", Provider: "powerdns", Op: "write", Zone: "a.provider.test", Name: "x.a.provider.test", Kind: dnsupdate.KindAuth,
		Err: errors.New("api_key_file: open /run/secrets/pdns.key: no such file; ask pdns.corp.test:8081"),
	}
	run(t, w, func(w *world) {
		w.tenant("b")
		alias := store.Domain{Name: "a.b.example", Tenant: "b", MXSet: "eu", Publish: store.PublishAlias}
		own := store.Domain{Name: "a.example", Tenant: publish.Tenant, MXSet: "eu", Publish: store.PublishAlias}
		if _, err := w.store.ApplyDomains(w.ctx, store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{{Domain: alias}, {Domain: own}}}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := w.rec.Wake(w.ctx, "a.b.example"); err != nil {
			t.Fatal(err)
		}
		w.pass(10 * time.Minute)
		const said = `write TXT "x.a.provider.test" in zone "a.provider.test" by the service's account: auth`
		if s := w.status("a.b.example"); s.Step != publish.StepTXT || s.Reason != said || !s.Fault {
			t.Errorf("the tenant is told: step %s: %s", s.Step, s.Reason)
		}
		if s := w.status("a.example"); !strings.Contains(s.Reason, "/run/secrets/pdns.key") {
			t.Errorf("the operator is told: step %s: %s", s.Step, s.Reason)
		}
	})
	if n := strings.Count(log.String(), "the service's account refused a tenant's record"); n != 1 || !strings.Contains(log.String(), "pdns.corp.test") {
		t.Errorf("said %d times in the log:\n%s", n, log.String())
	}
}

// TestStoreIsTheOperators: what is wrong with the store, in words that name its server, is not said of domains.
func TestStoreIsTheOperators(t *testing.T) {
	t.Parallel()
	_, trouble := store.OpenPostgres(t.Context(), "postgres://user@127.0.0.1:1/stspub?connect_timeout=1", nil)
	if _, ok := errors.AsType[*store.Trouble](trouble); !ok || !strings.Contains(trouble.Error(), "127.0.0.1:1") {
		t.Fatalf("trouble is %v", trouble)
	}
	server, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "test", Text: "sts A 192.0.2.1\n"}}})
	if err != nil {
		t.Fatal(err)
	}
	outside := &publish.Outside{
		Client:   &sender.Client{Resolver: &sender.Resolver{Stub: map[string][]string{".": {server.Addr}}}},
		Hostname: "sts.test", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Values: lost{fmt.Errorf("read value: %w", trouble)},
	}
	if h := outside.Host(t.Context(), "a.test", "b.sts.test"); !strings.HasSuffix(h.Reason, ": the store does not answer") {
		t.Errorf("the policy host: %s", h.Reason)
	}
}

// lost are values of a store that does not answer.
type lost struct{ err error }

func (l lost) Value(context.Context, string) ([]byte, error) { return nil, l.err }

func (l lost) SetValue(context.Context, string, []byte) error { return l.err }
