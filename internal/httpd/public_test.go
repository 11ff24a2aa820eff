package httpd

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"testing"
)

func TestPolicyIsAnsweredByHost(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	tests := []struct {
		sni, host string
		status    int
		body      string
	}{
		{"mta-sts.a.example", "mta-sts.a.example", 200, textA},
		{"mta-sts.b.example", "mta-sts.b.example", 200, textB},
		{"mta-sts.a.example", "MTA-STS.A.example", 200, textA},
		{"MTA-STS.A.EXAMPLE", "mta-sts.a.example", 200, textA},
		{"mta-sts.a.example", "mta-sts.a.example:8443", 200, textA},
		{"mta-sts.a.example", "mta-sts.a.example.", 200, textA},
		{"mta-sts.a.example", "Mta-Sts.A.Example.:443", 200, textA},

		// Another host that is ours: the connection is not for it.
		{"mta-sts.a.example", "mta-sts.b.example", 421, "421 Misdirected Request\n"},
		{serviceHost, "mta-sts.b.example", 421, "421 Misdirected Request\n"},
		{"mta-sts.bare.example", "mta-sts.a.example", 421, "421 Misdirected Request\n"},
		// A host that is not ours, or has no policy (yet).
		{"mta-sts.a.example", "mta-sts.unknown.example", 404, "404 Not Found\n"},
		{"mta-sts.a.example", "a.example", 404, "404 Not Found\n"},
		{"mta-sts.a.example", "127.0.0.1", 404, "404 Not Found\n"},
		{"mta-sts.a.example", "[::1]:443", 404, "404 Not Found\n"},
		{"mta-sts.bare.example", "mta-sts.bare.example", 404, "404 Not Found\n"},
		{serviceHost, serviceHost, 404, "404 Not Found\n"},
	}
	for _, tt := range tests {
		for _, version := range []int{1, 2} {
			for _, method := range []string{"GET", "HEAD"} {
				got := w.fetch(t, version, method, tt.sni, tt.host, policyPath)
				want := tt.body
				if method == "HEAD" {
					want = ""
				}
				if got.status != tt.status || got.body != want {
					t.Errorf("HTTP/%d %s as %s for SNI %s = %d %q, want %d %q",
						version, method, tt.host, tt.sni, got.status, got.body, tt.status, want)
				}
				got.header.Del("Date")
				wantHeader := http.Header{
					"Content-Type":           {"text/plain; charset=utf-8"},
					"Content-Length":         {fmt.Sprint(len(tt.body))},
					"Cache-Control":          {"no-store"},
					"X-Content-Type-Options": {"nosniff"},
				}
				if !maps.EqualFunc(got.header, wantHeader, func(a, b []string) bool { return a[0] == b[0] && len(a) == len(b) }) {
					t.Errorf("HTTP/%d %s as %s: header %v, want %v", version, method, tt.host, got.header, wantHeader)
				}
			}
		}
	}
	rows := float64(2 * 2)
	for status, want := range map[string]float64{"200": 7 * rows, "421": 3 * rows, "404": 6 * rows, "405": 0} {
		if got := w.counted(t, "stspub_policy_requests_total", status); got != want {
			t.Errorf("counted %v answers %s, want %v", got, status, want)
		}
	}
}

func TestPolicyPathIsExact(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	const host = "mta-sts.a.example"
	tests := []struct {
		method, target string
		status         int
	}{
		{"GET", policyPath, 200},
		{"GET", policyPath + "?", 200},
		{"GET", policyPath + "?x", 200},
		{"GET", policyPath + "?x=/../;a", 200},
		{"GET", "https://" + host + policyPath, 200},
		{"GET", "http://" + host + policyPath, 200},
		{"GET", "https://MTA-STS.a.EXAMPLE:443" + policyPath, 200},
		{"GET", "https://mta-sts.b.example" + policyPath, 421}, // RFC 9112, Section 3.2.2: it goes before Host
		{"GET", "https://mta-sts.nobody.example" + policyPath, 404},

		{"GET", "/", 404},
		{"GET", "//", 404},
		{"GET", "/" + policyPath, 404},
		{"GET", policyPath + "/", 404},
		{"GET", policyPath + "//", 404},
		{"GET", "/.well-known//mta-sts.txt", 404},
		{"GET", "/.well-known/./mta-sts.txt", 404},
		{"GET", "/x/.." + policyPath, 404},
		{"GET", "/.well-known/mta-sts", 404},
		{"GET", "/.well-known/MTA-STS.txt", 404},
		{"GET", "/.well-known/mta-sts.txt%00", 404},
		{"GET", "/.well-known%2Fmta-sts.txt", 404},
		{"GET", "/.well-known/", 404},
		{"GET", "/.well-known", 404},
		{"GET", "/.well-known/acme-challenge/token", 404},
		{"GET", "/index.html", 404},
		{"HEAD", "/", 404},

		{"POST", policyPath, 405},
		{"PUT", policyPath, 405},
		{"DELETE", policyPath, 405},
		{"OPTIONS", policyPath, 405},
		{"TRACE", policyPath, 405},
		{"BREW", policyPath, 405},
		{"POST", "/x", 404},
		{"OPTIONS", "*", 404},
	}
	for _, tt := range tests {
		got := raw(t, w.dial(t, host), tt.method, fmt.Sprintf("%s %s HTTP/1.1\nHost: %s\n\n", tt.method, tt.target, host))
		if got.status != tt.status {
			t.Errorf("%s %s = %d, want %d", tt.method, tt.target, got.status, tt.status)
		}
		if got.status == 200 != (got.body == textA) {
			t.Errorf("%s %s = %d with body %q", tt.method, tt.target, got.status, got.body)
		}
		if allow := got.header.Get("Allow"); (allow == "GET, HEAD") != (tt.status == 405) {
			t.Errorf("%s %s = %d with Allow %q", tt.method, tt.target, got.status, allow)
		}
	}
}

func TestPolicyForOldClients(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)

	got := raw(t, w.dial(t, "mta-sts.a.example"), "GET", "GET "+policyPath+" HTTP/1.0\nHost: mta-sts.a.example\n\n")
	if got.status != 200 || got.body != textA {
		t.Errorf("HTTP/1.0 = %d %q, want the policy", got.status, got.body)
	}
	got = raw(t, w.dial(t, "mta-sts.a.example"), "GET", "GET "+policyPath+" HTTP/1.0\n\n")
	if got.status != 404 {
		t.Errorf("HTTP/1.0 without Host = %d, want 404", got.status)
	}
}

func TestPolicyChangesAtOnce(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	w.snapshot.Set("a.example", textB)
	if got := w.fetch(t, 1, "GET", "mta-sts.a.example", "mta-sts.a.example", policyPath); got.body != textB {
		t.Errorf("changed policy = %q, want %q", got.body, textB)
	}
	w.snapshot.Set("a.example", "")
	if got := w.fetch(t, 2, "GET", "mta-sts.a.example", "mta-sts.a.example", policyPath); got.status != 404 {
		t.Errorf("removed policy = %d, want 404", got.status)
	}
}

// TestServiceHostCanBeAPolicyHost is for the operator of mta-sts.hoster.example, who has mail at hoster.example.
func TestServiceHostCanBeAPolicyHost(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	w.snapshot.Set("hoster.example", textA)
	if got := w.fetch(t, 1, "GET", serviceHost, serviceHost, policyPath); got.status != 200 || got.body != textA {
		t.Errorf("policy at the service's host = %d %q, want 200", got.status, got.body)
	}
	if got := w.fetch(t, 1, "GET", serviceHost, serviceHost, "/"); got.status != 200 {
		t.Errorf("start page = %d, want 200", got.status)
	}
}

func TestPort80AnswersChallengesOnly(t *testing.T) {
	t.Parallel()
	w := newPublic(t, func(cfg *PublicConfig) {
		cfg.Challenges = func(fallback http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != challengePath+"token" {
					fallback.ServeHTTP(w, r)
					return
				}
				_, _ = io.WriteString(w, "token.thumbprint for "+r.Host)
			})
		}
	}).run(t)
	tests := []struct {
		method, host, target string
		status               int
	}{
		{"GET", "mta-sts.a.example", challengePath + "token", 200},
		{"GET", "mta-sts.a.example", challengePath + "other", 404},
		{"GET", "mta-sts.a.example", challengePath, 404},
		{"POST", "mta-sts.a.example", challengePath + "token", 404},
		{"GET", "mta-sts.a.example", policyPath, 404},
		{"HEAD", "mta-sts.a.example", policyPath, 404},
		{"POST", "mta-sts.a.example", policyPath, 404},
		{"BREW", "mta-sts.a.example", policyPath, 404},
		{"GET", "mta-sts.a.example", policyPath + "/", 404},
		{"GET", "mta-sts.a.example", "/", 404},
		{"GET", serviceHost, "/", 404},
		{"OPTIONS", serviceHost, "*", 404},
	}
	for _, tt := range tests {
		conn, err := net.Dial("tcp", w.plain)
		if err != nil {
			t.Fatal(err)
		}
		got := raw(t, conn, tt.method, fmt.Sprintf("%s %s HTTP/1.1\nHost: %s\n\n", tt.method, tt.target, tt.host))
		if got.status != tt.status || got.header.Get("Location") != "" {
			t.Errorf("%s %s = %d %v, want %d without Location", tt.method, tt.target, got.status, got.header, tt.status)
		}
		if got.status == 200 && got.body != "token.thumbprint for mta-sts.a.example" {
			t.Errorf("challenge answered %q", got.body)
		}
		_ = conn.Close()
	}
}

func TestNewPublicRefusesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := NewPublic(PublicConfig{Hostname: serviceHost}); err == nil {
		t.Error("NewPublic without policies = nil, want an error")
	}
}
