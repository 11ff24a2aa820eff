package httpd

import (
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
)

func TestStartPageTellsWhatToSet(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	for _, version := range []int{1, 2} {
		got := w.fetch(t, version, "GET", serviceHost, serviceHost, "/")
		if got.status != 200 || got.header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Fatalf("start page = %d %v, want 200 text/html", got.status, got.header)
		}
		for _, want := range []string{
			"mta-sts.example.org.  CNAME  default.mta-sts.hoster.example.",
			"_mta-sts.example.org.  CNAME",
			"<title>MTA-STS at mta-sts.hoster.example</title>",
		} {
			if !strings.Contains(got.body, want) {
				t.Errorf("start page lacks %q", want)
			}
		}
		for _, unwanted := range []string{"<script", "<form", "<img", "style=", "http:", "{{"} {
			if strings.Contains(got.body, unwanted) {
				t.Errorf("start page has %q", unwanted)
			}
		}
		style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(got.body)
		if style == nil {
			t.Fatal("start page has no style")
		}
		hash := sha256.Sum256([]byte(style[1]))
		want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
		if csp := got.header.Get("Content-Security-Policy"); csp != want {
			t.Errorf("Content-Security-Policy = %q, want %q", csp, want)
		}
	}
}

func TestStartPageIsOnlyAtTheServiceHost(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	tests := []struct {
		sni, host string
		status    int
	}{
		{serviceHost, serviceHost, 200},
		{serviceHost, strings.ToUpper(serviceHost) + ".:443", 200},
		{"mta-sts.a.example", serviceHost, 421},
		{"mta-sts.a.example", "mta-sts.a.example", 404},
		{serviceHost, "mta-sts.a.example", 404},
		{serviceHost, "hoster.example", 404},
	}
	for _, tt := range tests {
		if got := w.fetch(t, 1, "GET", tt.sni, tt.host, "/"); got.status != tt.status {
			t.Errorf("start page as %s for SNI %s = %d, want %d", tt.host, tt.sni, got.status, tt.status)
		}
	}
}

func TestStartPageEscapesNames(t *testing.T) {
	t.Parallel()
	a, err := newLanding("<x>", "<y>")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(a.body, "<x>") || strings.Contains(a.body, "<y>") {
		t.Error("start page does not escape the names in it")
	}
}
