package httpd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/store"
)

// TestTenantsLeaveRoom counts a tenant's requests, and no other's.
func TestTenantsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shares{requests: requestsASecond}
		for i := range requestsAtOnce {
			if err := s.request("loud"); err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
		}
		if got := status(t, s.request("loud")); got != http.StatusTooManyRequests {
			t.Errorf("one more: %d", got)
		}
		if err := s.request("quiet"); err != nil {
			t.Errorf("another tenant: %v", err)
		}
		time.Sleep(time.Second)
		for i := range requestsASecond {
			if err := s.request("loud"); err != nil {
				t.Fatalf("request %d a second later: %v", i, err)
			}
		}
		if got := status(t, s.request("loud")); got != http.StatusTooManyRequests {
			t.Errorf("more than that: %d", got)
		}
	})
}

// oneToken is a tenancy with tokens that are made as they are asked for: of the tenant of their id, or of the service.
type oneToken struct {
	store.Tenancy

	hash []byte
}

func (o oneToken) Token(_ context.Context, id string) (store.Token, error) {
	tenant, _ := strings.CutPrefix(id, "service")
	return store.Token{ID: id, Tenant: tenant, Role: store.RoleAdmin, Hash: o.hash, Used: time.Now()}, nil
}

// TestRequestsOfATenantAreLimited, and those of the service are not.
func TestRequestsOfATenantAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, id, hash, err := newToken()
		if err != nil {
			t.Fatal(err)
		}
		a := &admin{
			tenancy: oneToken{hash: hash}, log: slog.New(slog.DiscardHandler),
			failures: failures{from: make(map[netip.Prefix]*rate.Limiter)}, shares: shares{requests: requestsASecond},
		}
		served := a.authenticate(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		ask := func(who string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/mxsets", nil)
			r.Header.Set("Authorization", "Bearer "+strings.Replace(text, id, who, 1))
			w := httptest.NewRecorder()
			served.ServeHTTP(w, r)
			return w
		}
		for i := range requestsAtOnce {
			if got := ask("acme"); got.Code != http.StatusOK {
				t.Fatalf("request %d: %d, %s", i, got.Code, got.Body)
			}
		}
		got := ask("acme")
		if got.Code != http.StatusTooManyRequests || got.Header().Get("Retry-After") != "1" || !strings.Contains(got.Body.String(), "domains:bulk") {
			t.Errorf("too many requests are answered %d, %v, %s", got.Code, got.Header(), got.Body)
		}
		for _, other := range []string{"other", "service"} {
			if got := ask(other); got.Code != http.StatusOK {
				t.Errorf("%s is answered %d, %s", other, got.Code, got.Body)
			}
		}
		for range 2 * requestsAtOnce {
			if got := ask("service"); got.Code != http.StatusOK {
				t.Fatalf("the service is answered %d, %s", got.Code, got.Body)
			}
		}
		time.Sleep(time.Second)
		if got := ask("acme"); got.Code != http.StatusOK {
			t.Errorf("a second later: %d, %s", got.Code, got.Body)
		}
	})
}

// TestBulkRequestsOfATenantAreLimited: the third at a time is told to wait, the service's is not, and when one ends there is
// room.
func TestBulkRequestsOfATenantAreLimited(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, "127.0.0.1:0")
	w.tenant(t, "acme")
	acme, service := w.token(t, "acme", store.RoleAdmin, nil), w.token(t, "", store.RoleAdmin, nil)
	begin := func(token string) (*http.Response, io.Closer) {
		t.Helper()
		r, end := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.addr+"/v1/domains:bulk", r)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", linesType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end.Close(); resp.Body.Close() })
		return resp, end
	}
	var ends []io.Closer
	var answers []*http.Response
	for i := range bulksAtOnce {
		resp, end := begin(acme)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("bulk request %d: %s", i, resp.Status)
		}
		ends, answers = append(ends, end), append(answers, resp)
	}
	if resp, _ := begin(acme); resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != fmt.Sprint(int(bulkPatience/time.Second)) {
		t.Errorf("one more: %s, %v", resp.Status, resp.Header)
	}
	if resp, _ := begin(service); resp.StatusCode != http.StatusOK {
		t.Errorf("the service's: %s", resp.Status)
	}
	ends[0].Close()
	if _, err := io.Copy(io.Discard, answers[0].Body); err != nil { // until it has ended
		t.Fatal(err)
	}
	if resp, _ := begin(acme); resp.StatusCode != http.StatusOK {
		t.Errorf("after one has ended: %s", resp.Status)
	}
}
