package certs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// verdict is what a failed order means for the name, and for the account.
type verdict struct {
	outage  bool          // the name is not to blame
	stop    bool          // the authority wants no orders of the account for wait
	wait    time.Duration // how long the authority wants to be left alone, by the name alone if stop is not set
	failed  bool          // a validation failed
	refuses bool          // the authority itself does not want to; another may
	advice  string
}

// errOutOfTime is in the error of an order whose own time is over. A way to the authority that is too slow has errors that
// are [context.DeadlineExceeded] as well, and says nothing of the name.
var errOutOfTime = errors.New("the order took too long")

// overdue adds errOutOfTime to the error of an order if its context says so.
func overdue(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", errOutOfTime, err)
	}
	return err
}

// judge says what the error of an order for a name means. Errors without a [*Problem] are about the way to the authority,
// but for an order that ran out of time: that is the name's own.
func judge(err error, name, domain string) verdict {
	var p *Problem
	if !errors.As(err, &p) {
		return verdict{outage: !errors.Is(err, errOutOfTime)}
	}
	v := verdict{failed: p.Challenge != "", wait: min(p.RetryAfter, longestRetryAfter), advice: p.Advice()}
	limited := p.Status == http.StatusTooManyRequests || strings.HasSuffix(p.Type, ":rateLimited")
	switch {
	case limited && about(p.Detail, name, domain):
		v.refuses = true
	case limited:
		v.outage, v.stop = true, v.wait > 0 // else the pauses grow, and names move as from one that is away
	case p.Status >= 500:
		v.outage = true
	default:
		v.refuses = p.Challenge == "" && !ofName(p.Type) || strings.HasSuffix(p.Type, ":caa")
	}
	return v
}

// barred says what it means that the gate holds an order. What was not seen to be in the way need not be the name's fault.
func barred(err error, name, domain string) verdict {
	v := verdict{outage: true}
	if u, ok := errors.AsType[*Unanswered](err); ok {
		v = judge(u.Err, name, domain)
	}
	var h held
	if !errors.As(err, &h) {
		return v
	}
	for _, reason := range h {
		if r, ok := errors.AsType[*Refusal](reason); ok && r.Proven {
			v.outage = false
			v.refuses = v.refuses || r.Check == CheckCAA || r.Check == CheckSpecialUse // which another authority may pass
		}
	}
	return v
}

// answeredGate says that the gate held an order, and that the authority answered it.
func answeredGate(err error) bool {
	r, held := errors.AsType[*Refusal](err)
	_, inVain := errors.AsType[*Unanswered](err)
	return held && r.Answered && !inVain
}

// about says that a limit is that of one name, or of its registered domain, and not of the account. An authority has no
// other way to say so than its words.
func about(detail, name, domain string) bool {
	detail = strings.ToLower(detail)
	for _, of := range []string{"exact set of", "this domain", "registered domain"} {
		if strings.Contains(detail, of) {
			return true
		}
	}
	return mentions(detail, name) || mentions(detail, domain)
}

// mentions says that a name stands in a text, whole, and not as the host of a URL: those lead to the authority's own pages.
func mentions(text, name string) bool {
	if name == "" {
		return false
	}
	for {
		before, after, found := strings.Cut(text, name)
		if !found {
			return false
		}
		end := strings.TrimLeft(after, ".")
		if !inName(before, len(before)-1) && !inName(end, 0) {
			return true
		}
		text = "-" + after
	}
}

// inName says that the byte at a place belongs to a name, or to a URL with one.
func inName(text string, at int) bool {
	if at < 0 || at >= len(text) {
		return false
	}
	c := text[at]
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("-._/@", c) >= 0
}

// ofName says that any authority would have the same problem with a name (RFC 8555, Section 6.7).
func ofName(kind string) bool {
	switch strings.TrimPrefix(kind, "urn:ietf:params:acme:error:") {
	case "connection", "dns", "incorrectResponse", "tls", "unauthorized":
		return true
	}
	return false
}
