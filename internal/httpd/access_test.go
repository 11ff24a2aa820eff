package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/store"
)

// runAdminTLS serves the admin API by TLS.
func runAdminTLS(t *testing.T) *adminWorld {
	t.Helper()
	ca := newTestCA(t, "localhost")
	w := &adminWorld{manager: newFakeManager(), tenancy: newTenancy(t)}
	health := HealthConfig{Version: "v1.2.3", Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(&w.log, nil))}
	server := NewAdmin(AdminConfig{
		HealthConfig: health, Manager: w.manager, Tenancy: w.tenancy, Webhooks: newWebhooks(t, w.tenancy), TLS: &tls.Config{GetCertificate: ca.certificate},
	})
	ln := listen(t)
	background(t, func(ctx context.Context) error { return server.Run(ctx, ln) })
	w.addr = strings.Replace("https://"+ln.Addr().String(), "127.0.0.1", "localhost", 1)
	w.Client = NewClient(w.addr)
	transport, ok := w.http.Transport.(*http.Transport)
	if !ok {
		t.Fatal("the client has no transport of net/http")
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: ca.roots}
	return w
}

// token makes a token by hand, as there may be nobody who is let in.
func (w *adminWorld) token(t *testing.T, tenant, role string, change func(*store.Token)) string {
	t.Helper()
	text, id, hash, err := newToken()
	if err != nil {
		t.Fatal(err)
	}
	token := store.Token{ID: id, Tenant: tenant, Role: role, Hash: hash, Created: time.Now()}
	if change != nil {
		change(&token)
	}
	if err := w.tenancy.AddToken(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	return text
}

// tenant adds one.
func (w *adminWorld) tenant(t *testing.T, name string) {
	t.Helper()
	if err := w.tenancy.AddTenant(t.Context(), store.Tenant{Name: name, Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

// status returns that of an answer, 200 for all that went well.
func status(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return http.StatusOK
	}
	problem, ok := errors.AsType[*Problem](err)
	if !ok {
		t.Fatalf("%v, want a problem", err)
	}
	return problem.Status
}

func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	socket, loopback, secure := runAdmin(t, unixAddr(t), false), runAdmin(t, "127.0.0.1:0", false), runAdminTLS(t)
	for _, w := range []*adminWorld{socket, loopback, secure} {
		_, err := w.Faults(t.Context())
		if got := status(t, err); (got == 200) != (w != secure) {
			t.Errorf("%s without a token, and there was never one: %d", w.addr, got)
		}
		if err := w.Healthz(t.Context()); err != nil {
			t.Errorf("%s: Healthz = %v without a token", w.addr, err)
		}
		text := w.token(t, "", store.RoleAdmin, nil)
		_, err = w.As(text, "").Faults(t.Context())
		if got := status(t, err); got != 200 {
			t.Errorf("%s with a token of the service: %v", w.addr, err)
		}
		if _, err := w.Faults(t.Context()); (status(t, err) == 200) != (w == socket) {
			t.Errorf("%s without a token, and there is one: %v", w.addr, err)
		}
		_, err = w.As(text[:len(text)-1]+"0", "").Faults(t.Context())
		if text[len(text)-1] != '0' && status(t, err) != 401 {
			t.Errorf("%s with a token that is wrong by its last digit: %v", w.addr, err)
		}
		// Who revokes the only one is not let in again without.
		id := strings.Split(text, "_")[1]
		if err := w.As(text, "").RevokeToken(t.Context(), id); err != nil {
			t.Errorf("%s: %v", w.addr, err)
		}
		_, err = w.As(text, "").Faults(t.Context())
		if status(t, err) != 401 || !strings.Contains(err.Error(), "the token was revoked at ") {
			t.Errorf("%s with a revoked token: %v", w.addr, err)
		}
		if _, err := w.Faults(t.Context()); (status(t, err) == 200) != (w == socket) {
			t.Errorf("%s without a token, and there was one: %v", w.addr, err)
		}
	}
}

func TestTokensThatAreNone(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, "127.0.0.1:0", false)
	good := w.token(t, "", store.RoleAdmin, nil)
	id := strings.Split(good, "_")[1]
	expired := w.token(t, "", store.RoleAdmin, func(k *store.Token) { k.Expires = time.Now().Add(-time.Second) })
	const unknown = "the token is not known here"
	for _, tt := range []struct{ header, want string }{
		{"", `a token is needed here, as "Authorization: Bearer TOKEN"; "stspub token add" makes one`},
		{"Basic " + good, `only "Authorization: Bearer TOKEN" is understood`},
		{"Bearer", unknown},
		{"Bearer stspub", unknown},
		{"Bearer stspub__", unknown},
		{"Bearer stspub_" + id, unknown},
		{"Bearer stspub_" + id + "_", unknown},
		{"Bearer stspub_" + id + "_" + strings.Repeat("0", 64), unknown},
		{"Bearer stspub_" + id + "_" + strings.Repeat("z", 64), unknown},
		{"Bearer stspub_nobody_" + strings.Repeat("0", 64), unknown},
	} {
		header := ""
		if tt.header != "" {
			header = "Authorization: " + tt.header + "\n"
		}
		got := w.ask(t, "GET", "GET /v1/faults HTTP/1.1\nHost: localhost\n"+header+"\n")
		if got.status != 401 || !strings.Contains(got.body, strings.ReplaceAll(tt.want, `"`, `\"`)) || got.header.Get("WWW-Authenticate") != `Bearer realm="stspub"` {
			t.Errorf("Authorization: %q: %d %s, want 401 and %s", tt.header, got.status, got.body, tt.want)
		}
	}
	// Eight were wrong. The ninth and tenth are looked at, and no more from there. Who has a good one, or one that has ended, is
	// none of those who guess.
	wrong := "stspub_nobody_" + strings.Repeat("0", 64)
	for i := range 20 {
		_, ended := w.As(expired, "").Faults(t.Context())
		if status(t, ended) != 401 || !strings.Contains(ended.Error(), "the token expired at ") {
			t.Errorf("an expired token after %d more wrong ones: %v", i, ended)
		}
		if _, err := w.As(good, "").Faults(t.Context()); err != nil {
			t.Errorf("a good token after %d more wrong ones: %v", i, err)
		}
		_, err := w.As(wrong, "").Faults(t.Context())
		if want := map[bool]int{true: 401, false: 429}[i < 2]; status(t, err) != want {
			t.Errorf("wrong token %d: %v, want %d", 9+i, err, want)
		}
		if i >= 2 && !strings.Contains(err.Error(), "too many tokens from 127.0.0.1/32 were wrong; try again in ") {
			t.Errorf("wrong token %d: %v", 9+i, err)
		}
	}
	if log := w.log.String(); strings.Contains(log, id) || strings.Contains(log, "stspub_") || strings.Count(log, "refused a token") != 10+20 {
		t.Errorf("the log has\n%s\nwant 30 refusals and no token", log)
	}
}

func TestFailuresAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := failures{from: make(map[netip.Prefix]*rate.Limiter)}
		origin := netip.MustParsePrefix("192.0.2.1/32")
		for range failuresAtOnce {
			if wait := f.wait(origin); wait != 0 {
				t.Fatalf("wait = %v within the first failures", wait)
			}
			f.note(origin)
		}
		if wait := f.wait(origin); wait != failuresEvery {
			t.Errorf("wait = %v after %d failures, want %v", wait, failuresAtOnce, failuresEvery)
		}
		if wait := f.wait(netip.MustParsePrefix("192.0.2.2/32")); wait != 0 {
			t.Errorf("wait = %v elsewhere", wait)
		}
		time.Sleep(failuresEvery)
		if wait := f.wait(origin); wait > 0 {
			t.Errorf("wait = %v after %v", wait, failuresEvery)
		}
		for i := range 2 * failuresKept {
			f.note(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32))
		}
		if n := len(f.from); n > failuresKept {
			t.Errorf("%d origins are remembered, want at most %d", n, failuresKept)
		}
	})
}

func TestLastUseIsNotedOnceAMinute(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, "127.0.0.1:0", false)
	text := w.token(t, "", store.RoleRead, nil)
	used := func() time.Time {
		if _, err := w.As(text, "").Faults(t.Context()); err != nil {
			t.Fatal(err)
		}
		token, err := w.tenancy.Token(t.Context(), strings.Split(text, "_")[1])
		if err != nil {
			t.Fatal(err)
		}
		return token.Used
	}
	first := used()
	if first.IsZero() || time.Since(first) > time.Minute/2 {
		t.Errorf("used = %v after the first use", first)
	}
	if again := used(); again != first {
		t.Errorf("used = %v, and right afterwards %v", first, again)
	}
}

// Roles, by what each may do of three things: look at his own, change his own, and look at the service.
func TestRoles(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	w.tenant(t, "acme")
	w.manager.with(func(m *fakeManager) { m.domains[0].Tenant = "acme" })
	for _, tt := range []struct {
		tenant, role, query string
		want                [3]int
	}{
		{"", store.RoleAdmin, "acme", [3]int{200, 200, 200}},
		{"", store.RoleAdmin, "", [3]int{404, 404, 200}},
		{"", store.RoleAdmin, "nobody", [3]int{404, 404, 200}},
		{"", store.RoleRead, "acme", [3]int{200, 403, 200}},
		{"acme", store.RoleAdmin, "", [3]int{200, 200, 403}},
		{"acme", store.RoleAdmin, "acme", [3]int{200, 200, 403}},
		{"acme", store.RoleAdmin, "default", [3]int{403, 403, 403}},
		{"acme", store.RoleAdmin, "nobody", [3]int{403, 403, 403}},
		{"acme", store.RoleRead, "", [3]int{200, 403, 403}},
		{"default", store.RoleAdmin, "", [3]int{404, 404, 403}},
	} {
		c := w.As(w.token(t, tt.tenant, tt.role, nil), tt.query)
		_, look := c.Domain(t.Context(), "example.org")
		change := c.Retry(t.Context(), "example.org")
		_, service := c.Faults(t.Context())
		got := [3]int{status(t, look), status(t, change), status(t, service)}
		if got != tt.want {
			t.Errorf("role %q of tenant %q with ?tenant=%s: %d, want %d (%v; %v; %v)", tt.role, tt.tenant, tt.query, got, tt.want, look, change, service)
		}
	}
}

func TestTenantsAndTokens(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	ctx := t.Context()
	info, err := w.AddTenant(ctx, NewTenant{Name: "acme", Limits: store.Limits{Domains: 5}})
	if err != nil || info.Name != "acme" || info.Domains != 5 || time.Since(info.Created) > time.Minute {
		t.Fatalf("AddTenant = %+v, %v", info, err)
	}
	_, err = w.AddTenant(ctx, NewTenant{Name: "acme"})
	if want := `add tenant: there is a tenant "acme" already`; err == nil || err.Error() != want || status(t, err) != 409 {
		t.Errorf("AddTenant again = %v, want %s", err, want)
	}
	_, err = w.AddTenant(ctx, NewTenant{Name: "Acme.de"})
	if err == nil || status(t, err) != 400 || !strings.Contains(err.Error(), "lower-case letters, digits and hyphens") {
		t.Errorf("AddTenant of a name that is none = %v", err)
	}
	if info, err = w.LimitTenant(ctx, "acme", store.Limits{Writes: 7}); err != nil || info.Domains != 0 || info.Writes != 7 {
		t.Errorf("LimitTenant = %+v, %v", info, err)
	}
	for range 2 {
		if err := w.tenancy.CountWrite(ctx, "acme", false, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if used, err := w.Tenants(ctx); err != nil || used[0].Name != "acme" || used[0].Used != (store.Spent{Writes: 2}) || used[1].Used != (store.Spent{}) {
		t.Errorf("Tenants = %+v, %v, want 2 writes of acme", used, err)
	}
	if _, err = w.LimitTenant(ctx, "nobody", store.Limits{}); status(t, err) != 404 {
		t.Errorf("LimitTenant of nobody = %v", err)
	}

	made, err := w.As("", "acme").AddToken(ctx, NewToken{Role: store.RoleAdmin, Label: "panel", Expires: time.Now().Add(time.Hour)})
	if err != nil || made.Tenant != "acme" || !strings.HasPrefix(made.Token, "stspub_"+made.ID+"_") {
		t.Fatalf("AddToken = %+v, %v", made, err)
	}
	acme := w.As(made.Token, "")
	own, err := acme.AddToken(ctx, NewToken{Role: store.RoleRead})
	if err != nil || own.Tenant != "acme" {
		t.Errorf("AddToken by a tenant = %+v, %v", own, err)
	}
	for _, tt := range []struct {
		client *Client
		token  NewToken
		want   string
	}{
		{w.As("", "nobody"), NewToken{Role: "admin"}, `add token: there is no tenant "nobody"`},
		{w.Client, NewToken{Role: "root"}, `add token: body.role: expected value to be one of "admin, read"`},
		{w.Client, NewToken{Role: "read", Expires: time.Now()}, "add token: body.expires: is over; write a time to come, or leave it out"},
		{w.As(made.Token, "default"), NewToken{Role: "read"}, `add token: the token is of tenant "acme"; leave ?tenant= out`},
	} {
		if _, err := tt.client.AddToken(ctx, tt.token); err == nil || err.Error() != tt.want {
			t.Errorf("AddToken of %+v = %v, want %s", tt.token, err, tt.want)
		}
	}
	all, err := acme.Tokens(ctx)
	if err != nil || len(all) != 2 || all[0].ID != made.ID || all[0].Token != "" || all[0].Used.IsZero() {
		t.Errorf("Tokens = %+v, %v, want both, without their text", all, err)
	}
	service, err := w.AddToken(ctx, NewToken{Role: store.RoleAdmin})
	if err != nil || service.Tenant != "" {
		t.Errorf("AddToken of the service = %+v, %v", service, err)
	}
	// A token of somebody else, and one of nobody.
	for _, id := range []string{service.ID, "nobody"} {
		if err := acme.RevokeToken(ctx, id); err == nil || err.Error() != fmt.Sprintf("revoke token: there is no token %q", id) {
			t.Errorf("RevokeToken of another = %v", err)
		}
	}
	if err := w.RemoveTenant(ctx, "acme"); err != nil {
		t.Error(err)
	}
	if _, err := acme.Tokens(ctx); status(t, err) != 401 {
		t.Errorf("the token of a tenant that was removed: %v", err)
	}
	if err := w.RemoveTenant(ctx, "default"); status(t, err) != 409 {
		t.Errorf("RemoveTenant of the default = %v", err)
	}
	tenants, err := w.Tenants(ctx)
	var names []string
	for _, i := range tenants {
		names = append(names, i.Name)
	}
	if diff := cmp.Diff([]string{"default"}, names); diff != "" || err != nil {
		t.Errorf("Tenants (-want +got):\n%s%v", diff, err)
	}
}
