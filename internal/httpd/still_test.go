package httpd

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// open sends a request, and returns what comes line by line.
func (w *adminWorld) open(t *testing.T, token, method, target string, body io.Reader) *bufio.Reader {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+w.addr+target, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", linesType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s", method, target, resp.Status)
	}
	return bufio.NewReader(resp.Body)
}

// TestFollowersEnd: an open stream shows nothing of what happens after its token ended, or with its tenant to the next one
// of that name.
func TestFollowersEnd(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		none bool // there is no token
		end  func(do func(request, body string), id string)
	}{
		"revoked": {end: func(do func(string, string), id string) { do("DELETE /v1/tokens/"+id, "") }},
		"tenant": {end: func(do func(string, string), _ string) {
			do("DELETE /v1/mxsets/before?tenant=acme", "")
			do("DELETE /v1/tenants/acme", "")
			do("POST /v1/tenants", `{"name":"acme"}`)
		}},
		"loopback": {none: true, end: func(func(string, string), string) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := runAPI(t, "127.0.0.1:0")
			service, token, id := "", "", ""
			w.tenant(t, "acme")
			if !x.none {
				service = w.token(t, "", store.RoleAdmin, nil)
				token = w.token(t, "acme", store.RoleRead, nil)
				id = strings.Split(token, "_")[1]
			}
			do := func(request, body string) {
				t.Helper()
				method, target, _ := strings.Cut(request, " ")
				if got := w.send(t, service, method, target, body); got.status >= 300 {
					t.Fatalf("%s: %d %s", request, got.status, got.body)
				}
			}
			r := w.open(t, token, "GET", "/v1/events?follow=true&kind=mxset", http.NoBody)
			do("PUT /v1/mxsets/before?tenant=acme", euSet)
			if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, `"before"`) {
				t.Fatalf("the stream begins with %q, %v", line, err)
			}
			if x.none {
				service = w.token(t, "", store.RoleAdmin, nil)
			}
			x.end(do, id)
			do("PUT /v1/mxsets/behind?tenant=acme", euSet)
			line, err := r.ReadString('\n')
			for err == nil && !strings.Contains(line, "behind") {
				line, err = r.ReadString('\n')
			}
			if err != io.EOF || line != "" {
				t.Errorf("the stream goes on with %q, %v", line, err)
			}
		})
	}
}

// TestBulkRequestsEnd: lines that come after the token ended change nothing, and the answer does not look whole.
func TestBulkRequestsEnd(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, "127.0.0.1:0")
	w.tenant(t, "acme")
	service, token := w.token(t, "", store.RoleAdmin, nil), w.token(t, "acme", store.RoleAdmin, nil)
	body, lines := io.Pipe()
	defer lines.Close()
	r := w.open(t, token, "POST", "/v1/domains:bulk", body)
	if got := w.send(t, service, "PUT", "/v1/mxsets/eu?tenant=acme", euSet); got.status != http.StatusCreated {
		t.Fatalf("PUT: %d %s", got.status, got.body)
	}
	if _, err := io.WriteString(lines, `{"name":"a.example","mxset":"eu","publish":"alias"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, `"claimed"`) {
		t.Fatalf("the first line is answered %q, %v", line, err)
	}
	if got := w.send(t, service, "DELETE", "/v1/tokens/"+strings.Split(token, "_")[1], ""); got.status >= 300 {
		t.Fatalf("DELETE: %d %s", got.status, got.body)
	}
	if _, err := io.WriteString(lines, `{"name":"b.example","mxset":"eu","publish":"alias"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	if rest, err := r.ReadString('\n'); err == nil || len(rest) > 0 {
		t.Errorf("the line after the revocation is answered %q, %v", rest, err)
	}
	if got := w.send(t, service, "GET", "/v1/claims?tenant=acme", ""); !strings.Contains(got.body, "a.example") || strings.Contains(got.body, "b.example") {
		t.Errorf("claims: %s", got.body)
	}
}

// busyAudit is one where something happens every second, and nothing for who is asked for.
type busyAudit struct{ Audit }

func (busyAudit) Events(context.Context, store.EventFilter, int64, int) ([]store.Event, error) {
	return nil, nil
}

func (busyAudit) LastChange(context.Context) (int64, error) { return time.Now().Unix(), nil }

func (busyAudit) Wait(ctx context.Context, _ int64) error {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// oneHour has tokens that end after an hour.
type oneHour struct {
	store.Tenancy

	end time.Time
}

func (o oneHour) Token(context.Context, string) (store.Token, error) {
	return store.Token{Expires: o.end}, nil
}

// TestIdleFollowersEnd: who is told nothing gets an empty line now and then, and an end with his token, whatever else
// happens.
func TestIdleFollowersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		a := &admin{
			tenancy: oneHour{end: begun.Add(time.Hour)}, audit: busyAudit{}, log: slog.New(slog.DiscardHandler), stopping: make(chan struct{}),
		}
		within, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		ctx := context.WithValue(within, callerKey{}, caller{tenant: "acme", token: "k"})
		w := httptest.NewRecorder()
		if err := a.follow(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/events?follow=true", nil), store.EventFilter{}, 0); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < time.Hour || took > time.Hour+2*followBeat {
			t.Errorf("it ended after %v", took)
		}
		if got := w.Body.String(); strings.Trim(got, "\n") != "" || len(got) < 220 || len(got) > 240 {
			t.Errorf("it was sent %d bytes, want an empty line every 15 seconds", len(got))
		}
	})
}
