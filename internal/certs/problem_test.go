package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

const kindPrefix = "urn:ietf:params:acme:error:"

func TestExplain(t *testing.T) {
	t.Parallel()
	sub := []acme.Subproblem{
		{Type: kindPrefix + "caa", Detail: "CAA record for a.test\nprevents issuance", Identifier: &acme.AuthzID{Type: "dns", Value: "a.test"}},
		{Type: kindPrefix + "dns", Detail: "SERVFAIL"},
	}
	jsonHeader := http.Header{"Content-Type": {"application/problem+json"}, "Retry-After": {"120"}}
	for _, tt := range []struct {
		name string
		err  error
		want string
		p    Problem
	}{
		{
			"a refused request", &acme.Error{StatusCode: 429, ProblemType: kindPrefix + "rateLimited", Detail: "too many", Header: jsonHeader},
			"too many (rateLimited)",
			Problem{Type: kindPrefix + "rateLimited", Detail: "too many", Status: 429, RetryAfter: 2 * time.Minute},
		},
		{
			"subproblems", &acme.Error{StatusCode: 403, ProblemType: kindPrefix + "compound", Detail: "two errors", Subproblems: sub},
			"two errors a.test: CAA record for a.test prevents issuance (caa) SERVFAIL (dns) (compound)",
			Problem{
				Type: kindPrefix + "compound", Status: 403,
				Detail: "two errors a.test: CAA record for a.test prevents issuance (caa) SERVFAIL (dns)",
			},
		},
		{
			"a page of a proxy", &acme.Error{StatusCode: 502, Detail: "<html>\nBad Gateway", Header: http.Header{"Content-Type": {"text/html"}}},
			"answered 502 Bad Gateway",
			Problem{Status: 502, Detail: "answered 502 Bad Gateway"},
		},
		{
			"control codes", &acme.Error{StatusCode: 403, ProblemType: kindPrefix + "caa", Detail: "got \"\x1b[31m\t\u202ebücher\x00\xff\""},
			"got \"�[31m �bücher��\" (caa)",
			Problem{Type: kindPrefix + "caa", Status: 403, Detail: "got \"�[31m �bücher��\""},
		},
		{
			"a flood", &acme.Error{StatusCode: 403, Detail: strings.Repeat("ü", 1<<20), Header: jsonHeader},
			strings.Repeat("ü", maxWords/2) + "…",
			Problem{Status: 403, Detail: strings.Repeat("ü", maxWords/2) + "…", RetryAfter: 2 * time.Minute},
		},
		{
			"a problem without type", &acme.Error{StatusCode: 400, Detail: "no", Header: http.Header{"Content-Type": {"application/json"}}},
			"no",
			Problem{Status: 400, Detail: "no"},
		},
		{
			"terms to be read", &acme.Error{StatusCode: 403, ProblemType: kindPrefix + "userActionRequired", Detail: "new terms", Instance: "https://ca.test/terms"},
			"new terms see https://ca.test/terms (userActionRequired)",
			Problem{Type: kindPrefix + "userActionRequired", Status: 403, Detail: "new terms see https://ca.test/terms"},
		},
		{
			"a challenge", &acme.AuthorizationError{Errors: []error{
				&acme.Error{StatusCode: 400, ProblemType: kindPrefix + "connection", Detail: "refused"},
				&acme.Error{StatusCode: 400, ProblemType: kindPrefix + "connection", Detail: "refused"},
			}},
			"http-01: refused (connection)",
			Problem{Type: kindPrefix + "connection", Detail: "refused", Challenge: http01},
		},
		{
			"a challenge with two errors", &acme.AuthorizationError{Errors: []error{
				&acme.Error{ProblemType: kindPrefix + "dns", Detail: "one"}, &acme.Error{ProblemType: kindPrefix + "caa", Detail: "two"},
			}},
			"http-01: one (dns); http-01: two (caa)",
			Problem{Type: kindPrefix + "dns", Detail: "one", Challenge: http01},
		},
		{"a challenge without a word", &acme.AuthorizationError{}, "http-01: refused", Problem{Challenge: http01}},
		{
			"an order", &acme.OrderError{Status: "invalid", Problem: &acme.Error{ProblemType: kindPrefix + "caa", Detail: "no"}},
			"no (caa)",
			Problem{Type: kindPrefix + "caa", Detail: "no"},
		},
		{"an order without a word", &acme.OrderError{Status: "invalid"}, "the order became invalid", Problem{Detail: "the order became invalid"}},
	} {
		err := fmt.Errorf("outer: %w", explain(t.Context(), fmt.Errorf("inner: %w", tt.err), http01))
		p, ok := errors.AsType[*Problem](err)
		if !ok || *p != tt.p || err.Error() != "outer: "+tt.want {
			t.Errorf("%s: %q, %+v, want %q, %+v", tt.name, err, p, tt.want, tt.p)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := explain(ctx, errors.New("no matter"), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		p    Problem
		want string // a part
	}{
		{Problem{Type: kindPrefix + "caa"}, "CAA records"},
		{Problem{Type: kindPrefix + "dns"}, "authoritative server"},
		{Problem{Type: kindPrefix + "connection", Challenge: http01}, "reach port 80 at every address"},
		{Problem{Type: kindPrefix + "connection", Challenge: tlsALPN01}, "reach port 443 at every address"},
		{Problem{Type: kindPrefix + "connection"}, "reach port 80 or 443 at every address"},
		{Problem{Type: kindPrefix + "unauthorized", Challenge: tlsALPN01}, "lead to port 443 of stspub"},
		{Problem{Type: kindPrefix + "unauthorized", Status: 403}, "does not accept the account"},
		{Problem{Type: kindPrefix + "rateLimited", Status: 429}, "when the CA allows"},
		{Problem{Type: kindPrefix + "rejectedIdentifier"}, "never issues for this name"},
		{Problem{Type: kindPrefix + "externalAccountRequired"}, "eab_kid"},
		{Problem{Type: kindPrefix + "serverInternal", Status: 500}, "trouble of its own"},
		{Problem{Status: 502}, "trouble of its own"},
		{Problem{Type: "urn:acme:error:caa"}, ""},
		{Problem{Type: kindPrefix + "badCSR", Status: 400}, ""},
	} {
		got := tt.p.Advice()
		if !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") || strings.ContainsAny(got, "\n.") && !strings.Contains(got, "[acme.NAME]") {
			t.Errorf("advice for %+v is %q, want %q in one sentence", tt.p, got, tt.want)
		}
	}
}

// TestCertIDOfTheRFC is the example of RFC 9773, Section 4.1.
func TestCertIDOfTheRFC(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	akid := []byte{
		0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3,
		0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01, 0xC8, 0xD4,
	}
	for serial, want := range map[int64]string{
		0x87654321: "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
		0x07654321: "aYhba4dGQEHhs3uEe6CuLN4ByNQ.B2VDIQ",
	} {
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), AuthorityKeyId: akid}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := certID(der); err != nil || got != want {
			t.Errorf("certID of serial %x = %q, %v, want %q", serial, got, err, want)
		}
	}
}

func TestWaysTurn(t *testing.T) {
	t.Parallel()
	offered := []*acme.Challenge{{Type: "dns-01"}, {Type: http01}, {Type: tlsALPN01}}
	w := newWays(true)
	pick := func(name, want string) {
		t.Helper()
		if got := w.pick(name, offered); got == nil || got.Type != want {
			t.Errorf("%s is to be validated by %+v, want %s", name, got, want)
		}
	}
	pick("a", tlsALPN01)
	if !w.worked("a", tlsALPN01) || w.worked("b", tlsALPN01) {
		t.Error("what works first is kept once")
	}
	w.failed("c", tlsALPN01)
	pick("c", http01)
	pick("d", tlsALPN01)
	// One name that goes the other way is its own matter, and three with one between them are as well.
	for _, name := range []string{"c", "c2"} {
		if w.worked(name, http01) {
			t.Errorf("turned after %s", name)
		}
	}
	w.worked("a", tlsALPN01)
	for i, name := range []string{"c", "c2", "c3"} {
		if turned := w.worked(name, http01); turned != (i == 2) {
			t.Errorf("after %s: turned is %v", name, turned)
		}
	}
	pick("d", http01)
	if got := w.pick("a", offered[:1]); got != nil {
		t.Errorf("picked %+v", got)
	}
	if got := w.pick("a", offered[2:]); got == nil || got.Type != tlsALPN01 {
		t.Errorf("of one that is offered picked %+v", got)
	}
	// What fails is remembered within bounds.
	for i := range 3 * maxTurned {
		w.failed(fmt.Sprint(i), http01)
	}
	if len(w.turned) > maxTurned {
		t.Errorf("%d names are remembered", len(w.turned))
	}
}
