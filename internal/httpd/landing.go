package httpd

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strings"
)

//go:embed landing.html
var landingHTML string

// newLanding returns the start page of the service: for people who were told to point a CNAME here and look what it is.
func newLanding(hostname, target string) (*answer, error) {
	t, err := template.New("landing").Parse(landingHTML)
	if err != nil {
		return nil, fmt.Errorf("read start page: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, struct{ Hostname, Target string }{hostname, target}); err != nil {
		return nil, fmt.Errorf("make start page: %w", err)
	}
	page := b.String()
	_, rest, _ := strings.Cut(page, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	hash := sha256.Sum256([]byte(style))

	a := newAnswer(http.StatusOK, "text/html; charset=utf-8", page)
	a.header.Set("Content-Security-Policy", "default-src 'none'; "+
		"style-src 'sha256-"+base64.StdEncoding.EncodeToString(hash[:])+"'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	a.header.Set("Referrer-Policy", "no-referrer")
	return a, nil
}
