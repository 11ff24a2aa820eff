package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/webhook"
)

// TestTenantsLeaveRoom counts a tenant's requests, and no other's.
func TestTenantsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares(requestsASecond)
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

// TestFollowersAreFew refuses those beyond the limit of a tenant or of all tenants, until another one ends. The service has
// places of its own.
func TestFollowersAreFew(t *testing.T) {
	t.Parallel()
	f := &newShares(requestsASecond).followers
	var leave []func()
	enter := func(tenant string, want bool) {
		t.Helper()
		l, err := f.enter(tenant)
		if (err == nil) != want {
			t.Fatalf("enter(%q) = %v after %d", tenant, err, len(leave))
		}
		if err == nil {
			leave = append(leave, l)
		} else if status(t, err) != http.StatusTooManyRequests {
			t.Errorf("refused with %v", err)
		}
	}
	for i := range followersAll / followersEach {
		for range followersEach {
			enter(fmt.Sprint(i), true)
		}
		enter(fmt.Sprint(i), false)
	}
	enter("another", false)
	for range followersEach {
		enter("", true)
	}
	enter("", false)
	leave[0]()
	leave[0]() // counts once
	enter("another", true)
	enter("another", false)
	for _, l := range leave[1:] {
		l()
	}
	if len(f.of) > 0 || f.taken != 0 {
		t.Errorf("%d, %v after all have left", f.taken, f.of)
	}
}

// TestRequestsUnderWayOfATenant: those beyond the limit are told to come again, and hold no connection. Neither another tenant
// nor the service is in their way, nor the tenant's own requests that follow.
func TestRequestsUnderWayOfATenant(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, "127.0.0.1:0")
	w.tenant(t, "loud")
	w.tenant(t, "quiet")
	loud, quiet, service := w.token(t, "loud", store.RoleAdmin, nil), w.token(t, "quiet", store.RoleAdmin, nil), w.token(t, "", store.RoleAdmin, nil)
	send := func(ctx context.Context, token, method, target, body string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+w.addr+target, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", jsonType)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			t.Cleanup(func() { resp.Body.Close() })
		}
		return resp, err
	}
	get := func(token string) *http.Response {
		t.Helper()
		resp, err := send(t.Context(), token, "GET", "/v1/mxsets", "")
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for range followersEach { // which have places of their own
		if resp, err := send(t.Context(), loud, "GET", "/v1/events?follow=true", ""); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("a follower is answered %+v, %v", resp, err)
		}
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var g errgroup.Group
	for i := range underWayEach { // a provider that does not answer
		g.Go(func() error {
			_, err := send(ctx, loud, "PUT", fmt.Sprintf("/v1/accounts/a%d", i), `{"provider":"desec","settings":{"api_token":"silent"}}`)
			return err
		})
	}
	resp := get(loud)
	for ; resp.StatusCode == http.StatusOK; resp = get(loud) { // until all have come
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" || !resp.Close {
		t.Errorf("one more is answered %+v", resp)
	}
	for _, token := range []string{quiet, service} {
		if resp := get(token); resp.StatusCode != http.StatusOK {
			t.Errorf("another is answered %+v", resp)
		}
	}
	end()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("who has a place is answered before: %v", err)
	}
	for get(loud).StatusCode != http.StatusOK { // until the server knows that they are gone
		if t.Context().Err() != nil {
			t.Fatal("no place is given back")
		}
	}
}

// TestTestsOfWebhooksAreFew has a tenant test a receiver that is silent, on more connections than the listener takes. Others
// are answered, and may test theirs.
func TestTestsOfWebhooksAreFew(t *testing.T) {
	t.Parallel()
	m := newRealManager(t, openStore(t))
	events, ok := m.store.(webhook.Store)
	if !ok {
		t.Fatalf("%T has no webhooks", m.store)
	}
	w := &adminWorld{addr: "127.0.0.1:0", tenancy: m.store}
	w.serveWith(t, m, webhook.New(webhook.Config{
		Store: events, Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "silent") {
				<-ctx.Done()
			}
			return nil, errors.New("nobody is there")
		},
	}))
	w.tenant(t, "loud")
	w.tenant(t, "quiet")
	loud, quiet, service := w.token(t, "loud", store.RoleAdmin, nil), w.token(t, "quiet", store.RoleAdmin, nil), w.token(t, "", store.RoleAdmin, nil)
	for token, host := range map[string]string{loud: "silent.example", quiet: "gone.example", service: "gone.example"} {
		if got := w.send(t, token, "PUT", "/v1/webhooks/x", `{"url":"https://`+host+`/"}`); got.status != http.StatusCreated {
			t.Fatalf("PUT: %d %s", got.status, got.body)
		}
	}
	ctx, end := context.WithCancel(t.Context())
	var g errgroup.Group
	var refused atomic.Int32
	const crowd = internalConns + 50
	for range crowd {
		g.Go(func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.addr+"/v1/webhooks/x/test", http.NoBody)
			if err != nil {
				return err
			}
			req.Header.Set("Authorization", "Bearer "+loud)
			resp, err := http.DefaultClient.Do(req)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return err
			case resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "":
				refused.Add(1)
			}
			return resp.Body.Close()
		})
	}
	deadline := time.Now().Add(time.Minute)
	for int(refused.Load()) < crowd-2 { // there is nothing to wait on but the answers
		if time.Now().After(deadline) {
			t.Fatalf("of %d at a time, %d are refused, want all but 2", crowd, refused.Load())
		}
		runtime.Gosched()
	}
	for token, who := range map[string]string{quiet: "another tenant", service: "the service"} {
		if got := w.send(t, token, "POST", "/v1/webhooks/x/test", ""); got.status != http.StatusOK {
			t.Errorf("the test of %s: %d %s", who, got.status, got.body)
		}
	}
	end()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
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
			failures: failures{from: make(map[netip.Prefix]*rate.Limiter)}, shares: newShares(requestsASecond),
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
