package certs

import (
	"strings"
	"time"
)

// Problem is why a certification authority refused something, in its own words (RFC 8555, Section 6.7).
type Problem struct {
	Type       string        // as sent, mostly "urn:ietf:params:acme:error:…"
	Detail     string        // the authority's words
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
	if kind := strings.TrimPrefix(p.Type, "urn:ietf:params:acme:error:"); kind != "" {
		b.WriteString(" (" + kind + ")")
	}
	return b.String()
}

// problems are all that the authority said during one order.
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
