package labtest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/lab/labtest"
)

// TestCloudStrangers asks each fake without credentials, and too often: it refuses in its provider's words.
func TestCloudStrangers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		start         func(testing.TB, ...string) *labtest.Cloud
		method, path  string
		status        int
		unknown, busy string
		busyStatus    int
		retryAfter    string
	}{
		"route53":      {labtest.StartRoute53, "GET", "/2013-04-01/hostedzonesbyname", 403, "MissingAuthenticationToken", "Throttling", 400, ""},
		"desec":        {labtest.StartDeSEC, "GET", "/domains/example.org/", 401, "Invalid token.", "throttled", 429, "3600"},
		"cloudns":      {labtest.StartClouDNS, "POST", "/records.json", 200, "Invalid authentication", "Too many requests", 429, ""},
		"ovh":          {labtest.StartOVH, "GET", "/domain/zone/example.org/record", 403, "INVALID_KEY", "TooManyRequests", 429, ""},
		"mythicbeasts": {labtest.StartMythicBeasts, "GET", "/zones/example.org/records/a", 401, "Invalid credentials", "Too many requests", 429, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := tt.start(t, "example.org")
			c.SetLimit(1, time.Hour)
			ask := func(status int, words string) http.Header {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), tt.method, c.URL+tt.path, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != status || !strings.Contains(string(body), words) {
					t.Errorf("HTTP %d %s, %v, want %d %s", resp.StatusCode, body, err, status, words)
				}
				return resp.Header
			}
			ask(tt.status, tt.unknown)
			if got := ask(tt.busyStatus, tt.busy).Get("Retry-After"); got != tt.retryAfter {
				t.Errorf("Retry-After = %q, want %q", got, tt.retryAfter)
			}
			if n := len(c.Requests()); n != 2 || c.Writes() != 0 {
				t.Errorf("%d requests, %d writes, want 2, 0", n, c.Writes())
			}
		})
	}
}
