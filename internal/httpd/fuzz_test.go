package httpd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
)

// FuzzPlanRequest sends any body to /v1/plan: what is planned is what the body says, and nothing else makes a plan or
// an internal error.
func FuzzPlanRequest(f *testing.F) {
	for _, body := range []string{
		"", "{}", "null", "{", "[]", `{"path":"/etc/stspub.toml","files":{"/etc/stspub.toml":"W3NlcnZlcl0K"}}`,
		`{"path":"\ud800","files":{"":null}}`, `{"path":1}`, `{"files":{"a":"?"}}`, `{"FILES":{"a":"YQ==","a":"Yg=="},"path":"a","path":"b"}`,
		`{"path":"a"} {"path":"b"}`, "{\"path\":\"a\x00\xff\"}", `{"files":[]}`, `{"path":"a","more":1}`,
	} {
		f.Add([]byte(body), true)
		f.Add([]byte(body), false)
	}
	tenancy := newTenancy(f)
	f.Fuzz(func(t *testing.T, body []byte, lines bool) {
		manager := newFakeManager()
		health := HealthConfig{Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)}
		server := NewAdmin(AdminConfig{HealthConfig: health, Manager: manager, Tenancy: tenancy})
		r := httptest.NewRequest(http.MethodPost, "http://localhost/v1/plan", bytes.NewReader(body))
		r.Header.Set("Content-Type", jsonType)
		if lines {
			r.Header.Set("Accept", linesType)
		}
		rec := httptest.NewRecorder()
		server.http.Handler.ServeHTTP(rec, r)
		var want PlanRequest
		err := json.NewDecoder(bytes.NewReader(body)).Decode(&want)
		if !json.Valid(rec.Body.Bytes()) || rec.Body.Len() > 16<<10 {
			t.Errorf("%q = %d with %.300q", body, rec.Code, rec.Body)
		}
		switch {
		case rec.Code == http.StatusOK:
			var got PlanRequest
			manager.with(func(m *fakeManager) { got = m.asked })
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("a plan was made of %q, %v, -want +got:\n%s", body, err, diff)
			}
		case rec.Code < 400 || rec.Code >= 500 || rec.Header().Get("Content-Type") != problemType:
			t.Errorf("%q = %d %s", body, rec.Code, rec.Header())
		}
	})
}
