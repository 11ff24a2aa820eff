package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/crypto/acme"
)

// maxWords bounds what is kept of an authority's words, in bytes; some quote what they were answered.
const maxWords = 4000

// Problem is why a certification authority refused something, in its own words (RFC 8555, Section 6.7).
type Problem struct {
	Type       string        // as sent, mostly "urn:ietf:params:acme:error:…"
	Detail     string        // the authority's words, those of subproblems included
	Status     int           // of the HTTP answer; 0: the problem is that of a challenge or an order
	Challenge  string        // the challenge that failed: "http-01" or "tls-alpn-01"; empty: it was none
	RetryAfter time.Duration // how long the authority wants to be left alone; 0: it did not say
}

// Error gives the authority's words, with the challenge before and the type after them.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Challenge != "" {
		b.WriteString(p.Challenge + ": ")
	}
	b.WriteString(p.Detail)
	if p.Detail == "" {
		b.WriteString("refused")
	}
	if kind := p.kind(); kind != "" {
		b.WriteString(" (" + kind + ")")
	}
	return b.String()
}

// kind is the type without what all types of ACME begin with.
func (p *Problem) kind() string { return strings.TrimPrefix(p.Type, "urn:ietf:params:acme:error:") }

// is says whether a problem is of a type of RFC 8555, Section 6.7. Authorities differ in capitals.
func (p *Problem) is(kinds ...string) bool {
	return slices.ContainsFunc(kinds, func(k string) bool { return strings.EqualFold(k, p.kind()) })
}

// Advice says in one sentence what an operator can do about the frequent types; empty: we do not know.
func (p *Problem) Advice() string {
	switch {
	case p.is("caa"):
		return "have the domain's CAA records, or those of the name its CNAME leads to, allow this CA, or remove them"
	case p.is("dns"):
		return "see that every authoritative server of the domain answers for the policy host, with valid DNSSEC if it is signed"
	case p.is("connection"):
		return "let the whole internet reach " + port(p.Challenge) + " at every address that the policy host has in DNS, IPv6 included"
	case p.is("unauthorized", "incorrectResponse", "tls") && p.Challenge != "":
		return "somebody else answered: let every address that the policy host has in DNS, IPv6 included, lead to " +
			port(p.Challenge) + " of stspub, with no proxy, redirect or CDN before it"
	case p.is("unauthorized"):
		return "the CA does not accept the account: see at the CA whether it was deactivated, and whether its key id and HMAC key are right"
	case p.is("rateLimited"):
		return "nothing: it is tried again when the CA allows; if this comes often, lower orders in [acme.NAME], or ask the CA for a higher limit"
	case p.is("rejectedIdentifier"):
		return "the CA never issues for this name: see its policy for reserved and blocked names, or add another CA as a second [acme.NAME]"
	case p.is("externalAccountRequired"):
		return "register at the CA's web site, and write the key id and HMAC key that it gives you as eab_kid and eab_hmac_file"
	case p.Status >= http.StatusInternalServerError:
		return "nothing: the CA has trouble of its own, and is tried again"
	}
	return ""
}

// port is where a challenge is validated.
func port(challenge string) string {
	switch challenge {
	case http01:
		return "port 80"
	case tlsALPN01:
		return "port 443"
	}
	return "port 80 or 443"
}

// problems are all that the authority said about one order.
type problems []*Problem

// Error joins what was said.
func (ps problems) Error() string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = p.Error()
	}
	return strings.Join(words, "; ")
}

// Unwrap gives the single problems.
func (ps problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// explain turns an error of package acme into what an operator is told: a [*Problem], or several, if the authority said
// something. Challenge is the one that was tried; empty: none yet.
func explain(ctx context.Context, err error, challenge string) error {
	if a, ok := errors.AsType[*acme.AuthorizationError](err); ok {
		return refusal(challenge, a.Errors...)
	}
	if o, ok := errors.AsType[*acme.OrderError](err); ok {
		if o.Problem == nil {
			return &Problem{Detail: "the order became " + o.Status}
		}
		return refusal("", o.Problem)
	}
	if e, ok := errors.AsType[*acme.Error](err); ok {
		return answered(e)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("wait for the authority: %w", ctx.Err())
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err // the URL has a path that says nothing to anybody
	}
	return err
}

// refusal is why an authorization or an order became invalid.
func refusal(challenge string, errs ...error) error {
	var ps problems
	for _, err := range errs {
		e, ok := errors.AsType[*acme.Error](err)
		if !ok {
			continue
		}
		p := &Problem{Type: e.ProblemType, Detail: words(e), Challenge: challenge}
		if !slices.ContainsFunc(ps, func(old *Problem) bool { return *old == *p }) {
			ps = append(ps, p)
		}
	}
	switch len(ps) {
	case 0:
		return &Problem{Challenge: challenge}
	case 1:
		return ps[0]
	}
	return ps
}

// answered is why a request was refused.
func answered(e *acme.Error) *Problem {
	p := &Problem{Type: e.ProblemType, Status: e.StatusCode, RetryAfter: retryAfter(e.Header.Get("Retry-After"))}
	if e.ProblemType == "" && !strings.Contains(e.Header.Get("Content-Type"), "json") { // the page of a proxy
		p.Detail = "answered " + strings.TrimSpace(strconv.Itoa(e.StatusCode)+" "+http.StatusText(e.StatusCode))
		return p
	}
	p.Detail = words(e)
	return p
}

// words is what an authority said, in one line.
func words(e *acme.Error) string {
	said := []string{e.Detail}
	for _, sub := range e.Subproblems {
		p := Problem{Type: sub.Type, Detail: oneLine(sub.Detail)}
		if sub.Identifier != nil {
			p.Detail = sub.Identifier.Value + ": " + p.Detail
		}
		said = append(said, p.Error())
	}
	if e.Instance != "" { // a page on which a human must do something (RFC 8555, Section 7.3.3)
		said = append(said, "see "+e.Instance)
	}
	return oneLine(strings.Join(said, " "))
}

// oneLine makes words from outside fit for a line of a terminal.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "…"
	}
	return s
}

// readProblem makes a Problem of an answer that is not what was asked for.
func readProblem(res *http.Response, body []byte) *Problem {
	var e struct {
		Type, Detail string
		Subproblems  []acme.Subproblem
	}
	header := res.Header
	if json.Unmarshal(body, &e) != nil {
		header = nil // whatever it says it is
	}
	p := answered(&acme.Error{
		StatusCode: res.StatusCode, ProblemType: e.Type, Detail: e.Detail, Subproblems: e.Subproblems, Header: header,
	})
	p.RetryAfter = retryAfter(res.Header.Get("Retry-After"))
	return p
}

// retryAfter reads the header of RFC 9110, Section 10.2.3; 0 is what cannot be read.
func retryAfter(v string) time.Duration {
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return min(time.Duration(n), 1<<31) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}
