package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// panel is the control panel of a tenant on another machine.
type panel struct {
	t     *testing.T
	base  string
	token string
	http  http.Client
}

// ask sends a request, and returns the status and the body of the answer.
func (p *panel) ask(method, path string, body any) (int, string) {
	p.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	if body == nil {
		text = nil
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, bytes.NewReader(text))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// adminTLS puts a certificate beside the configuration, and returns a panel that trusts it.
func (w *world) adminTLS() *panel {
	w.t.Helper()
	lender := httptest.NewTLSServer(nil)
	defer lender.Close()
	key, err := x509.MarshalPKCS8PrivateKey(lender.TLS.Certificates[0].PrivateKey)
	if err != nil {
		w.t.Fatal(err)
	}
	w.file("admin.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: lender.Certificate().Raw})))
	w.file("admin.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	w.file("stspub.toml", w.config(`admin = "unix:admin.sock"`,
		`admin = "unix:admin.sock"`+"\nadmin_tls = \""+w.ip+":8420\"\nadmin_cert_file = \"admin.pem\"\nadmin_key_file = \"admin.key\""))
	roots := x509.NewCertPool()
	roots.AddCert(lender.Certificate())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}, ForceAttemptHTTP2: true}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &panel{t: w.t, base: "https://" + w.ip + ":8420", http: http.Client{Transport: transport, Timeout: patience}}
}

// TestTenantByItsPanel brings a domain of a tenant from the first request to live, over TLS and with a token, while its
// customer does in DNS what he is told.
func TestTenantByItsPanel(t *testing.T) {
	w := newWorld(t)
	p := w.adminTLS()
	r := w.start(w.path("stspub.toml"))
	set := func(name, typ, value string) {
		t.Helper()
		if err := w.dns.Set(name, typ, value); err != nil {
			t.Fatal(err)
		}
	}
	set("acme.sts.provider.test", "A", w.ip)
	set("other.test", "MX", "10 mx1.provider.test.")
	if status, answer := p.ask("GET", "/v1/domains", nil); status != 401 {
		t.Errorf("without a token: %d %s, want 401", status, answer)
	}
	if _, err := r.admin.AddTenant(t.Context(), httpd.NewTenant{Name: "acme", Limits: store.Limits{Domains: 1}}); err != nil {
		t.Fatal(err)
	}
	token, err := r.admin.As("", "acme").AddToken(t.Context(), httpd.NewToken{Role: store.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	p.token = token.Token
	spec := httpd.DomainSpec{MXSet: "own", Publish: store.PublishAlias}
	for _, x := range []struct {
		method, path string
		body         any
		status       int
		want         string
	}{
		{"PUT", "/v1/mxsets/own", httpd.MXSetSpec{Mode: "enforce", MaxAge: 86400, MX: []string{"mx1.provider.test"}}, 201, `"own"`},
		{"PUT", "/v1/domains/other.test", spec, 202, `"claimed"`},
		{"PUT", "/v1/domains/more.test", spec, 409, store.ErrLimit.Error()},
		{"GET", "/v1/domains/" + zoned, nil, 404, "is not configured here"},
		{"GET", "/v1/faults", nil, 403, `tenant \"acme\"`},
		{"GET", "/metrics", nil, 403, `tenant \"acme\"`},
	} {
		if status, answer := p.ask(x.method, x.path, x.body); status != x.status || !strings.Contains(answer, x.want) {
			t.Errorf("%s %s = %d %s, want %d and %s", x.method, x.path, status, answer, x.status, x.want)
		}
	}
	// The customer sets the first CNAME, by which the claim is proven.
	set("mta-sts.other.test", "CNAME", "acme.sts.provider.test.")
	if status, answer := p.ask("POST", "/v1/claims/other.test/look", nil); status != 204 && status != 404 {
		t.Errorf("look at the claim: %d %s", status, answer)
	}
	at := func(step string) publish.Status {
		t.Helper()
		var s publish.Status
		until(t, "other.test at "+step, func() error {
			status, answer := p.ask("GET", "/v1/domains/other.test", nil)
			if err := json.Unmarshal([]byte(answer), &s); err != nil || status != 200 || s.Step != step {
				return fmt.Errorf("%d %s", status, answer)
			}
			return nil
		})
		return s
	}
	s := at(publish.StepDelegation)
	if !strings.HasSuffix(s.Record, ".d.acme.alias.test") {
		t.Errorf("the record is %s, want one of the tenant", s.Record)
	}
	set("_mta-sts.other.test", "CNAME", s.Record+".")
	if s = at(publish.StepLive); s.Tenant != "acme" || s.Owner != store.OwnerAPI || s.Fault {
		t.Errorf("live is %+v", s)
	}
	if got := w.dns.Values(s.Record, "TXT"); len(got) != 1 || !strings.Contains(got[0], s.ID) {
		t.Errorf("DNS has %q, want the id %s", got, s.ID)
	}
	// It does not get into the way of what the file declares, at a restart either.
	r.stop()
	r = w.start(w.path("stspub.toml"))
	if s = at(publish.StepLive); s.Policy == "" {
		t.Error("after a restart nothing is served")
	}
	if status, answer := p.ask("DELETE", "/v1/domains/other.test", nil); status != 202 {
		t.Errorf("remove: %d %s", status, answer)
	}
	if s = at(publish.StepDrain); !s.Draining || !strings.Contains(s.Policy, "mode: none") {
		t.Errorf("it drains as %+v", s)
	}
	if err := r.admin.RevokeToken(context.Background(), token.ID); err != nil {
		t.Fatal(err)
	}
	if status, answer := p.ask("GET", "/v1/domains", nil); status != 401 || !strings.Contains(answer, "was revoked") {
		t.Errorf("with a revoked token: %d %s", status, answer)
	}
}
