package certs_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/store"
)

// The paths of Pebble.
const (
	pathNonce     = "/nonce-plz"
	pathAccount   = "/sign-me-up"
	pathOrder     = "/order-plz"
	pathChallenge = "/chalZ/"
	pathAuthz     = "/authZ/"
	pathState     = "/my-order/"
	pathFinalize  = "/finalize-order/"
	pathCert      = "/certZ/"
)

// request is one that a CA got.
type request struct {
	path    string
	payload map[string]any // what was signed; nil: nothing
	status  int            // of the answer
}

// watch stands before a CA: it remembers requests, and makes faults.
type watch struct {
	mu       sync.Mutex
	requests []request
	// fault answers in the CA's place and returns true, or does not. After is what the CA did, where it was asked.
	fault func(r request, w http.ResponseWriter) bool
	// lose has answers of the CA lost: it sees what was asked for and answered.
	lose func(r request) bool
}

// answer is a ResponseWriter that keeps what is written.
type answer struct {
	http.ResponseWriter
	host   string // URL of the CA
	status int
	body   bytes.Buffer
}

func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

func (x *watch) wrap(ca http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		req := request{path: r.URL.Path, payload: signed(body)}
		a := &answer{ResponseWriter: w, host: "https://" + r.Host, status: http.StatusOK}
		x.mu.Lock()
		fault, lose := x.fault, x.lose
		x.mu.Unlock()
		if fault == nil || !fault(req, a) {
			ca.ServeHTTP(a, r)
		}
		req.status = a.status
		if lose != nil && lose(req) {
			req.status = http.StatusBadGateway
			w.Header().Set("Content-Type", "text/html")
			a.body.Reset()
			a.body.WriteString("<html><h1>502 Bad Gateway</h1></html>")
		}
		x.mu.Lock()
		x.requests = append(x.requests, req)
		x.mu.Unlock()
		w.WriteHeader(req.status)
		w.Write(a.body.Bytes())
	})
}

// signed returns the payload of a JWS.
func signed(body []byte) map[string]any {
	var jws struct{ Payload string }
	if json.Unmarshal(body, &jws) != nil {
		return nil
	}
	raw, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	var payload map[string]any
	if json.Unmarshal(raw, &payload) != nil {
		return nil
	}
	return payload
}

// of returns the requests for a path that were answered with a status.
func (x *watch) of(path string, status int) []request {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found []request
	for _, r := range x.requests {
		if strings.HasPrefix(r.path, path) && r.status == status {
			found = append(found, r)
		}
	}
	return found
}

func (x *watch) set(fault func(request, http.ResponseWriter) bool, lose func(request) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fault, x.lose = fault, lose
}

// nth is true for the n-th request for a path that was answered well.
func nth(n int, path string) func(request) bool {
	var mu sync.Mutex
	return func(r request) bool {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(r.path, path) && r.status < 300 {
			n--
			return n == 0
		}
		return false
	}
}

// refuse answers with a problem.
func refuse(w http.ResponseWriter, status int, kind, detail string) bool {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status})
	return true
}

// watched is a world whose CA is watched, and validates by both challenges.
func watched(t *testing.T, o lab.CAOptions) (*world, *watch, *certs.ACME) {
	t.Helper()
	w := newWorld(t, time.Hour)
	x := new(watch)
	o.Wrap = x.wrap
	if o.Lifetime == 0 {
		o.Lifetime = time.Hour
	}
	w.ca = w.startOtherCA(t, o)
	w.acme = w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	w.serveHTTP(t)
	w.serveTLS(t, certs.New(certs.Config{Challenge: w.live.Load().GetCertificate}))
	return w, x, w.acme
}

// table is the [acme.lab] of a world's CA.
func (w *world) table() config.ACME { return config.ACME{Name: "lab", Directory: w.ca.DirectoryURL} }

// obtain gets a certificate that must come.
func obtain(t *testing.T, a *certs.ACME, r certs.Request) store.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := a.Obtain(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// problem is what must come instead.
func problem(t *testing.T, a *certs.ACME, r certs.Request) (*certs.Problem, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := a.Obtain(ctx, r)
	p, ok := errors.AsType[*certs.Problem](err)
	if !ok {
		t.Fatalf("Obtain: %v, want a Problem", err)
	}
	return p, err
}
