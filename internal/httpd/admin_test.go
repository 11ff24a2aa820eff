package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// fakeManager is a [Manager] that remembers what it was asked to do.
type fakeManager struct {
	Tenants             // nil, but for what is below
	mu       sync.Mutex // guards the fields below
	domains  []publish.Status
	eachErr  error // returned by StatusesOf behind the last
	doErr    error // returned by Adopt, Plan and Reload
	adopted  policygen.Name
	acts     []string // "promote NAME", "demote NAME", "expel NAME", "retry NAME"
	reloads  int
	reported publish.ReloadReport
	planned  publish.Plan
	asked    PlanRequest
	looks    int // that Plan tells of
	faults   map[string]string
}

// with lets f read and change the fields.
func (m *fakeManager) with(f func(m *fakeManager)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

func (m *fakeManager) StatusesOf(
	_ context.Context, tenant string, f store.DomainFilter, after policygen.Name, n int,
) ([]publish.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var page []publish.Status
	for _, s := range m.domains {
		s.History = nil
		if s.Tenant == tenant && s.Name > after && (s.Fault || !f.Fault) && strings.HasPrefix(string(s.Name), f.Prefix) && len(page) < n {
			page = append(page, s)
		}
	}
	if len(page) == 0 {
		return nil, m.eachErr
	}
	return page, nil
}

func (m *fakeManager) SharedOf(context.Context, string) ([]publish.Status, error) { return nil, nil }

func (m *fakeManager) StatusOf(ctx context.Context, _ string, name policygen.Name) (publish.Status, error) {
	return m.status(ctx, name)
}

func (m *fakeManager) Claim(_ context.Context, _ string, name policygen.Name) (publish.Claim, error) {
	return publish.Claim{}, fmt.Errorf("read the claim to %s: %w", name, store.ErrNotFound)
}

// Apply finds none of the domains.
func (m *fakeManager) Apply(_ context.Context, _ string, changes []publish.Change, _ publish.ApplyOptions) ([]publish.Outcome, error) {
	outcomes := make([]publish.Outcome, len(changes))
	for i, c := range changes {
		outcomes[i] = publish.Outcome{Name: c.Name, Err: store.ErrNotFound}
	}
	return outcomes, nil
}

func (m *fakeManager) status(_ context.Context, name policygen.Name) (publish.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.domains {
		if s.Name == name {
			return s, nil
		}
	}
	return publish.Status{}, fmt.Errorf("read %s: %w", name, store.ErrNotFound)
}

func (m *fakeManager) TenantOf(ctx context.Context, name policygen.Name) (string, error) {
	s, err := m.status(ctx, name)
	return s.Tenant, err
}

func (m *fakeManager) Faults() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.faults)
}

func (m *fakeManager) Nodes(context.Context) ([]publish.NodeStatus, error) {
	return []publish.NodeStatus{{ID: "node 1", Address: "192.0.2.1:443", Started: time.Unix(2e9, 0).UTC(), Heartbeat: time.Unix(2e9, 0).UTC()}}, nil
}

func (m *fakeManager) RemoveNode(_ context.Context, id string) error {
	switch id {
	case "node 1":
		return fmt.Errorf("%w: it lives", publish.ErrRefused)
	case "node/2":
		m.with(func(m *fakeManager) { m.acts = append(m.acts, "remove "+id) })
		return nil
	}
	return store.ErrNotFound
}

func (m *fakeManager) Certificates() certs.Overview {
	return certs.Overview{Names: 2, Valid: 1, Waiting: 1, Accounts: []certs.Account{{Name: "lab", Orders: 1, Limit: 280}}}
}

func (m *fakeManager) EachCertificate(f func(certs.Named) error) error {
	for _, n := range namedCertificates() {
		if err := f(n); err != nil {
			return err
		}
	}
	return nil
}

func namedCertificates() []certs.Named {
	return []certs.Named{
		{Name: "mta-sts.example.org", Status: certs.Status{State: certs.StateValid, NotAfter: time.Unix(2e9, 0).UTC()}},
		{Name: "mta-sts.shop.example", Status: certs.Status{State: certs.StateOrdering, Place: 7}},
	}
}

func (m *fakeManager) act(ctx context.Context, what string, name policygen.Name) error {
	if _, err := m.status(ctx, name); err != nil {
		return err
	}
	m.with(func(m *fakeManager) { m.acts = append(m.acts, what+" "+string(name)) })
	return m.doErr
}

func (m *fakeManager) Promote(ctx context.Context, name policygen.Name, testing bool) error {
	if testing {
		return m.act(ctx, "demote", name)
	}
	return m.act(ctx, "promote", name)
}

func (m *fakeManager) Expel(ctx context.Context, name policygen.Name) error {
	return m.act(ctx, "expel", name)
}

func (m *fakeManager) Retry(ctx context.Context, name policygen.Name) error {
	return m.act(ctx, "retry", name)
}

func (m *fakeManager) Adopt(ctx context.Context, name policygen.Name) error {
	if _, err := m.status(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.adopted = name
	return m.doErr
}

func (m *fakeManager) Plan(
	_ context.Context, path string, files map[string][]byte, progress func(done, total int),
) (publish.Plan, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = PlanRequest{Path: path, Files: files}
	for i := range m.looks {
		if progress != nil {
			progress(i+1, m.looks)
		}
	}
	return m.planned, m.doErr
}

func (m *fakeManager) Reload(_ context.Context, hash string) (publish.ReloadReport, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reloads++
	report := m.reported
	if hash != "" {
		report.Forced = []string{hash}
	}
	return report, m.doErr
}

func newFakeManager() *fakeManager {
	return &fakeManager{
		domains: []publish.Status{
			{Name: "example.org", Tenant: "default", Step: "live", Records: []string{}, History: []publish.Past{{Policy: "old"}}},
			{Name: "shop.example", Tenant: "default", Step: "dns", Fault: true, Reason: "waiting for a CNAME", Records: []string{}},
			{Name: "xn--mnchen-3ya.example", Unicode: "münchen.example", Tenant: "default", Step: "live", Records: []string{}},
		},
		reported: publish.ReloadReport{Added: 1, Changed: 2, Removed: 3, Restored: 4},
		planned:  publish.Plan{Hash: "0f", Added: publish.Names{Count: 1, First: []policygen.Name{"example.org"}}},
		faults:   map[string]string{"configuration": "stspub.toml:3 is broken"},
	}
}

// An adminWorld is a running admin server.
type adminWorld struct {
	*Client
	manager *fakeManager
	tenancy store.Tenancy
	ready   atomic.Value // error
	addr    string       // as for NewClient
	log     logBuffer
}

// runAdmin serves at addr, or with health the health listener.
func runAdmin(t *testing.T, addr string, healthOnly bool) *adminWorld {
	t.Helper()
	w := &adminWorld{manager: newFakeManager(), addr: addr}
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "stspub_example_total", Help: "An example."})
	reg.MustRegister(counter)
	counter.Add(7)
	cfg := HealthConfig{
		Version: "v1.2.3", Metrics: reg, Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		Ready: func(context.Context) error {
			err, _ := w.ready.Load().(error)
			return err
		},
	}
	w.tenancy = newTenancy(t)
	server := NewAdmin(AdminConfig{HealthConfig: cfg, Manager: w.manager, Tenancy: w.tenancy, Webhooks: newWebhooks(t, w.tenancy)})
	if healthOnly {
		server = NewHealth(cfg)
	}
	ln, err := Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	if ln.Addr().Network() == "tcp" {
		w.addr = ln.Addr().String()
	}
	background(t, func(ctx context.Context) error { return server.Run(ctx, ln) })
	w.Client = NewClient(w.addr)
	return w
}

// newTenancy is an empty store.
func newTenancy(t testing.TB) store.Tenancy {
	t.Helper()
	s, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask sends a request as text and reads the answer.
func (w *adminWorld) ask(t *testing.T, method, text string) reply {
	t.Helper()
	network, addr := "tcp", w.addr
	if path, ok := strings.CutPrefix(w.addr, "unix:"); ok {
		network, addr = "unix", path
	}
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return raw(t, conn, method, text)
}

// unixAddr returns a socket address in a new directory.
func unixAddr(t testing.TB) string { return "unix:" + filepath.Join(t.TempDir(), "admin.sock") }

func TestAdminAnswers(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	tests := []struct {
		method, target string
		status         int
		contentType    string
		body           string // begins with
	}{
		{"GET", "/healthz", 200, jsonType, `{"status":"ok","version":"v1.2.3"}`},
		{"HEAD", "/healthz", 200, jsonType, ""},
		{"GET", "/readyz", 200, jsonType, `{"status":"ready","version":"v1.2.3"}`},
		{"GET", "/servez", 200, jsonType, `{"status":"serving","version":"v1.2.3"}`},
		{"GET", "/metrics", 200, "text/plain", "# HELP stspub_example_total An example.\n# TYPE stspub_example_total counter\nstspub_example_total 7\n"},
		{"GET", "/v1/domains", 200, jsonType, "[\n{\"name\":\"example.org\""},
		{"GET", "/v1/domains?faults=1", 200, jsonType, "[\n{\"name\":\"shop.example\""},
		{"GET", "/v1/domains?faults=maybe", 400, problemType, `{"type":"about:blank","title":"Bad Request","status":400,"detail":"faults=\"maybe\": invalid boolean"}`},
		{"GET", "/v1/domains?fault=1", 400, problemType, `{"type":"about:blank","title":"Bad Request","status":400,"detail":"fault: unknown query parameter"}`},
		{"GET", "/v1/domains/example.org", 200, jsonType, `{"name":"example.org"`},
		{"GET", "/v1/domains/EXAMPLE.org.", 200, jsonType, `{"name":"example.org"`},
		{"GET", "/v1/domains/m%C3%BCnchen.example", 200, jsonType, `{"name":"xn--mnchen-3ya.example","unicode":"münchen.example"`},
		{"GET", "/v1/domains/%65xample.org", 200, jsonType, `{"name":"example.org"`},
		{"GET", "/v1/domains/nobody.example", 404, problemType, `{"type":"about:blank","title":"Not Found","status":404,"detail":"domain nobody.example is not configured here"}`},
		{"GET", "/v1/domains/192.0.2.1", 400, problemType, `{"type":"about:blank","title":"Bad Request","status":400,"detail":"domain `},
		{"GET", "/v1/domains/a%2Fb", 400, problemType, `{"type":"about:blank","title":"Bad Request"`},
		{"POST", "/v1/domains/nobody.example/adopt", 404, problemType, `{"type":"about:blank","title":"Not Found"`},
		{"POST", "/v1/domains/shop.example/adopt", 204, "", ""},
		{"GET", "/openapi.json", 200, "application/openapi+json", `{"components":{"schemas":{`},
		{"GET", "/v1/faults", 200, jsonType, `{"configuration":"stspub.toml:3 is broken"}` + "\n"},
		{"POST", "/v1/faults", 405, problemType, `{"type":"about:blank","title":"Method Not Allowed"`},
		{"POST", "/v1/reload", 200, jsonType, `{"added":1,"changed":2,"removed":3,"restored":4}` + "\n"},
		{"POST", "/v1/reload?force=0f", 200, jsonType, `{"added":1,"changed":2,"removed":3,"restored":4,"forced":["0f"]}` + "\n"},
		{"POST", "/v1/plan", 200, jsonType, `{"hash":"0f","digest":"","accepted":"","mxsets":null,"added":{"count":1,"first":["example.org"]},`},
		{"GET", "/v1/plan", 405, problemType, `{"type":"about:blank","title":"Method Not Allowed"`},
		{"GET", "/v1/reload", 405, problemType, `{"type":"about:blank","title":"Method Not Allowed","status":405,"detail":"\"/v1/reload\" takes POST only"}`},
		{"DELETE", "/v1/domains", 405, problemType, `{"type":"about:blank","title":"Method Not Allowed","status":405,"detail":"\"/v1/domains\" takes GET, HEAD only"}`},
		{"GET", "/v1", 404, problemType, `{"type":"about:blank","title":"Not Found","status":404,"detail":"there is nothing at \"/v1\""}`},
		{"GET", "/", 404, problemType, `{"type":"about:blank","title":"Not Found"`},
	}
	for _, tt := range tests {
		got := w.ask(t, tt.method, fmt.Sprintf("%s %s HTTP/1.1\nHost: localhost\n\n", tt.method, tt.target))
		contentType, _, _ := strings.Cut(got.header.Get("Content-Type"), ";")
		if got.status != tt.status || contentType != tt.contentType || !strings.HasPrefix(got.body, tt.body) {
			t.Errorf("%s %s = %d %s %q, want %d %s %q", tt.method, tt.target, got.status, contentType, got.body, tt.status, tt.contentType, tt.body)
		}
	}
	w.manager.with(func(m *fakeManager) {
		if m.adopted != "shop.example" || m.reloads != 2 {
			t.Errorf("adopted %q and reloaded %d times, want shop.example and 2", m.adopted, m.reloads)
		}
	})
}

func TestDomainsAreAnArrayOrLines(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	for _, keep := range []int{0, 1, 3} {
		w.manager.with(func(m *fakeManager) { m.domains = newFakeManager().domains[:keep] })

		got := w.ask(t, "GET", "GET /v1/domains HTTP/1.1\nHost: localhost\n\n")
		var array []publish.Status
		if err := json.Unmarshal([]byte(got.body), &array); err != nil || len(array) != keep {
			t.Errorf("%d domains as an array = %q (%v)", keep, got.body, err)
		}
		got = w.ask(t, "GET", "GET /v1/domains HTTP/1.1\nHost: localhost\nAccept: application/x-ndjson\n\n")
		if n := strings.Count(got.body, "\n"); n != keep || got.header.Get("Content-Type") != linesType {
			t.Errorf("%d domains as lines = %q (%s)", keep, got.body, got.header.Get("Content-Type"))
		}
	}
}

func TestReadyzSaysWhyNot(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	w.ready.Store(errors.New("the store cannot be written"))
	got := w.ask(t, "GET", "GET /readyz HTTP/1.1\nHost: localhost\n\n")
	want := `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"not ready: the store cannot be written"}` + "\n"
	if got.status != 503 || got.body != want {
		t.Errorf("readyz = %d %q, want 503 %q", got.status, got.body, want)
	}
	if err := w.Healthz(t.Context()); err != nil {
		t.Errorf("Healthz = %v of a live server that is not ready, want nil", err)
	}
}

func TestInternalErrorsStayInside(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	w.manager.with(func(m *fakeManager) { m.doErr = errors.New("password is hunter2") })
	_, err := w.Reload(t.Context(), "")
	problem, ok := errors.AsType[*Problem](err)
	if !ok || problem.Status != 500 || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("Reload = %v, want a 500 without the cause", err)
	}
	_, id, _ := strings.Cut(problem.Detail, "request_id ")
	if log := w.log.String(); id == "" || strings.Count(log, id) != 1 || !strings.Contains(log, "hunter2") {
		t.Errorf("the log has\n%s\nwant the cause once, with request_id %q", log, id)
	}
}

func TestHealthShowsNothingElse(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, "127.0.0.1:0", true)
	for target, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/servez": 200, "/metrics": 200, "/v1/domains": 404, "/v1/domains/example.org": 404, "/v1/reload": 404, "/": 404,
	} {
		// A load balancer asks under whatever name it knows.
		if got := w.ask(t, "GET", "GET "+target+" HTTP/1.1\nHost: node-3.internal\n\n"); got.status != want {
			t.Errorf("GET %s = %d, want %d", target, got.status, want)
		}
		if got := w.ask(t, "POST", "POST "+target+" HTTP/1.1\nHost: node-3.internal\nContent-Length: 0\n\n"); got.status != 404 && got.status != 405 {
			t.Errorf("POST %s = %d, want 404 or 405", target, got.status)
		}
	}
}

func TestAdminKeepsBrowsersOut(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, "127.0.0.1:0", false)
	tests := []struct {
		method, host, header string
		status               int
	}{
		{"GET", "127.0.0.1:8420", "", 200},
		{"GET", "localhost:8420", "", 200},
		{"GET", "localhost", "", 200},
		{"GET", "[::1]:8420", "", 200},
		{"GET", "[::1]", "", 200},
		{"POST", "localhost", "", 200},
		{"POST", "localhost", "Content-Type: application/json", 200},

		// A name that a stranger made to point to 127.0.0.1.
		{"GET", "rebound.example:8420", "", 403},
		{"GET", "localhost.rebound.example", "", 403},
		{"GET", "192.0.2.1", "", 403},
		{"POST", "rebound.example:8420", "Origin: http://rebound.example:8420\nSec-Fetch-Site: same-origin", 403},
		// Another site's page.
		{"POST", "localhost:8420", "Origin: https://evil.example", 403},
		{"POST", "localhost:8420", "Sec-Fetch-Site: cross-site", 403},
		// Forms.
		{"POST", "localhost:8420", "Content-Type: application/x-www-form-urlencoded", 415},
		{"POST", "localhost:8420", "Content-Type: multipart/form-data; boundary=x", 415},
		{"POST", "localhost:8420", "Content-Type: text/plain; charset=utf-8", 415},
	}
	want := 0
	for _, tt := range tests {
		target := "/v1/domains"
		if tt.method == "POST" {
			target = "/v1/reload"
		}
		header := tt.header
		if header != "" {
			header += "\n"
		}
		got := w.ask(t, tt.method, fmt.Sprintf("%s %s HTTP/1.1\nHost: %s\n%sContent-Length: 0\n\n", tt.method, target, tt.host, header))
		if got.status != tt.status {
			t.Errorf("%s as %s with %q = %d %s, want %d", tt.method, tt.host, tt.header, got.status, got.body, tt.status)
		}
		if tt.method == "POST" && tt.status == 200 {
			want++
		}
		w.manager.with(func(m *fakeManager) {
			if m.reloads != want {
				t.Fatalf("after %s as %s with %q there were %d reloads, want %d", tt.method, tt.host, tt.header, m.reloads, want)
			}
		})
	}
}
