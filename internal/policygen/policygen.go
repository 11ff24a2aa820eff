// Package policygen holds what RFC 8461 (MTA-STS) says about names, policies, TXT records and ids, as pure functions.
//
// A domain that receives mail tells sending servers by MTA-STS that its MX hosts speak TLS with trusted certificates, so
// that nobody on the way can strip the encryption off. It does so in two places:
//
//   - The policy is a text at https://mta-sts.<domain>/.well-known/mta-sts.txt ([Name.PolicyHost]). It lists the MX hosts
//     ([Policy.MX]), says what a sender does when it meets another one or a bad certificate ([Mode]), and for how long the
//     sender remembers all that ([Policy.MaxAge]).
//   - The record is a TXT at _mta-sts.<domain> ([Name.RecordName]). It holds an id ([RecordText]). A sender compares the id
//     with the one it remembers, and fetches the policy again only when they differ.
//
// Hence an id stands for one policy text. A changed text needs an id that was never used before ([NewID]), and the id is
// published after the text: a sender that sees the new id with the old text keeps the old one until max_age has passed.
//
// The package reads policies and records of other publishers ([ParsePolicy], [ParseRecord]) as RFC 8461 allows them to be
// written. What it writes itself ([Policy.Text], [RecordText]) is narrower: it keeps to what every known sender accepts.
//
// Nothing here touches the network, the clock or the disk; time and randomness are passed in.
package policygen

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrSyntax is what every error of this package about the form of a name, pattern, policy, record or id wraps.
var ErrSyntax = errors.New("invalid syntax")

// FieldError says which part of a policy, record or name is wrong, and why. It wraps [ErrSyntax].
type FieldError struct {
	Field string // "domain", "mx", "mode", "max_age", "version", "id", "v", or where it is: "line 4", "field"
	Value string // as it was found, whole; empty where the field is missing
	Why   string // what is wrong and what would be right; reads on after the value
}

// Error returns field, value and reason in one line. A value is quoted, and cut where it is long.
func (e *FieldError) Error() string {
	if e.Value == "" {
		return e.Field + ": " + e.Why
	}
	return fmt.Sprintf("%s %q: %s", e.Field, shorten(e.Value), e.Why)
}

// Unwrap returns [ErrSyntax].
func (e *FieldError) Unwrap() error { return ErrSyntax }

// Reason is what is wrong by an error, without the field where that is a [*FieldError]: for callers that name it otherwise.
func Reason(err error) string {
	if fe, ok := errors.AsType[*FieldError](err); ok {
		return strings.TrimLeft(strings.TrimPrefix(fe.Error(), fe.Field), ": ")
	}
	return err.Error()
}

// shorten keeps what strangers wrote from filling a log.
func shorten(s string) string {
	const most = 260 // a whole domain name, and a little
	if len(s) <= most {
		return s
	}
	for i := most; i > most-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i] + "…"
		}
	}
	return s[:most] + "…"
}
