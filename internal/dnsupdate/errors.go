package dnsupdate

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrConflict says that the change would add a value where an STSv1 record is that it did not name, or that the
	// records of the name changed while it was made. Observe the name and decide again.
	ErrConflict = errors.New("another record is there")
	// ErrDryRun says that the account was opened with DryRun, and that there was something to write.
	ErrDryRun = errors.New("dry run: not written")
)

// Kind says what a failed change needs. Its text is the label "result" of the metrics.
type Kind string

// The kinds of failure.
const (
	KindAuth        Kind = "auth"         // wrong or too weak credentials: a human's work
	KindRateLimited Kind = "rate_limited" // try again after [Error].RetryAfter
	KindUnavailable Kind = "unavailable"  // no answer, or a fault of the provider; whether it was written is not known
	KindConflict    Kind = "conflict"     // see [ErrConflict]
	KindCNAME       Kind = "cname"        // the name is a CNAME, so no TXT can be there
	KindNoZone      Kind = "no_zone"      // the account does not hold the zone
	KindRefused     Kind = "refused"      // the provider does not take this change, now or later
	KindQuota       Kind = "quota"        // the zone is full
	KindDryRun      Kind = "dry_run"      // see [ErrDryRun]
	KindInternal    Kind = "internal"     // a fault of ours or of the provider's library
)

// Error is why a change was not made. Its text names account, zone and record, and what to do; it holds no secret.
type Error struct {
	Account, Provider string
	Op                string // "read" or "write": where it failed; nothing was changed before "write"
	Zone, Name        string
	Kind              Kind
	RetryAfter        time.Duration // before that a retry is in vain; 0: not known
	Err               error
}

// Error returns one line.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s TXT %q in zone %q by account %q (%s): %v", e.Op, e.Name, e.Zone, e.Account, e.Provider, e.Err)
	if a := e.advice(); a != "" {
		s += "; " + a
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is lets errors.Is find [ErrConflict] and [ErrDryRun] by kind.
func (e *Error) Is(target error) bool {
	return target == ErrConflict && e.Kind == KindConflict || target == ErrDryRun && e.Kind == KindDryRun
}

// advice is what the operator, or stspub itself, does about it.
func (e *Error) advice() string {
	switch e.Kind {
	case KindRateLimited:
		return fmt.Sprintf("asking again in %v", e.RetryAfter.Round(time.Second))
	case KindUnavailable:
		return "trying again later"
	case KindCNAME:
		return "delete the CNAME, or publish the domain as alias"
	case KindQuota:
		return "delete records, or have the provider raise the limit"
	}
	return adviceOf(e.Provider, e.Kind)
}

func adviceOf(provider string, kind Kind) string {
	switch provider + "/" + string(kind) {
	case "cloudflare/auth":
		return "give the API token the permissions Zone:Read and DNS:Edit for this zone, or replace it"
	case "cloudflare/no_zone":
		return "add the zone to the provider's account, or include it in the API token"
	case "powerdns/auth":
		return "compare the API key with api-key in the server's configuration, and webserver-allow-from"
	case "powerdns/no_zone":
		return "add the zone to the server, and compare server and server_id"
	case "rfc2136/auth":
		return "compare key_name, key_algorithm and key with the server's, and the clocks"
	case "rfc2136/no_zone":
		return "let server be the primary of the zone, and answer questions signed by the key"
	case "rfc2136/refused":
		return "let server be the primary of the zone, and allow the key to update TXT at this name" +
			" (BIND: update-policy; Knot: acl; PowerDNS: TSIG-ALLOW-DNSUPDATE)"
	}
	return ""
}

// fault is an error of a provider before it is known whose: the guard makes an [Error] of it.
type fault struct {
	op         string
	kind       Kind
	retryAfter time.Duration
	err        error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// faultf is a fault while reading.
func faultf(kind Kind, format string, args ...any) *fault {
	return &fault{op: opRead, kind: kind, err: fmt.Errorf(format, args...)}
}

const (
	opRead  = "read"
	opWrite = "write"
)

// writing says that err happened after something may have been sent that changes the zone.
func writing(err error) error {
	if f, ok := errors.AsType[*fault](err); ok {
		f.op = opWrite
		return err
	}
	return &fault{op: opWrite, kind: KindUnavailable, err: err}
}
