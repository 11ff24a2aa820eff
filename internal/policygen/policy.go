package policygen

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mode says what a sender does when no MX host of the domain passes the policy. RFC 8461, Sections 3.2 and 5.
type Mode string

// The modes of RFC 8461, Section 5.
const (
	// Enforce makes senders keep the mail back rather than deliver it to a host that does not match, or has no
	// trusted certificate.
	Enforce Mode = "enforce"
	// Testing makes senders deliver all the same, and report failures where the domain asks for TLSRPT (RFC 8460).
	Testing Mode = "testing"
	// None tells senders to act as if there were no policy. It is how a policy is taken back. RFC 8461, Section 8.3.
	None Mode = "none"
)

// ParseMode returns the mode that raw names. Letter case matters, as it does to senders.
func ParseMode(raw string) (Mode, error) {
	switch mode := Mode(raw); mode {
	case Enforce, Testing, None:
		return mode, nil
	}
	return "", &FieldError{Field: "mode", Value: raw, Why: `is no mode; write "enforce", "testing" or "none"`}
}

// Limits of a policy.
const (
	// MaxAgeLimit is the largest max_age in seconds, about a year. RFC 8461, Section 3.2.
	MaxAgeLimit = 31557600
	// maxTextBytes is where a sender in use cuts a policy off.
	maxTextBytes = 10 << 10
)

// Policy is an MTA-STS policy. RFC 8461, Section 3.2.
type Policy struct {
	Mode   Mode
	MaxAge int      // seconds for which a sender may use the policy without asking again, 1 to [MaxAgeLimit]
	MX     []string // patterns as [ParsePattern] returns them, at least one, in the order of the text
}

// Validate returns everything that keeps the policy from being published, each as a [*FieldError], joined; nil: nothing.
//
// It is narrower than RFC 8461, because senders are: max_age 0 is refused by some, a policy without mx in mode none by
// others, and one cuts off a text of more than 10 KiB.
func (p Policy) Validate() error {
	var problems []error
	add := func(field, value, why string) {
		problems = append(problems, &FieldError{Field: field, Value: value, Why: why})
	}
	if _, err := ParseMode(string(p.Mode)); err != nil {
		problems = append(problems, err)
	}
	if p.MaxAge < 1 || p.MaxAge > MaxAgeLimit {
		add("max_age", strconv.Itoa(p.MaxAge), fmt.Sprintf("is out of range; 1 to %d seconds", MaxAgeLimit))
	}
	if len(p.MX) == 0 {
		add("mx", "", "is missing; list at least one MX host, in mode none too")
	}
	for i, mx := range p.MX {
		pattern, _, err := ParsePattern(mx)
		switch {
		case err != nil:
			problems = append(problems, err)
		case pattern != mx:
			add("mx", mx, fmt.Sprintf("is not in its final form; write %q", pattern))
		case slices.Contains(p.MX[:i], mx):
			add("mx", mx, "is listed twice")
		}
	}
	if n := len(p.Text()); n >= maxTextBytes {
		add("mx", "", fmt.Sprintf("makes a policy of %d bytes, which some senders cut off; "+
			"stay under %d, with fewer patterns or a wildcard", n, maxTextBytes))
	}
	return errors.Join(problems...)
}

// Text returns the policy as it is served, byte for byte: lines ending in CRLF, in the order version, mode, max_age, mx,
// nothing else. RFC 8461, Section 3.2. That order lets a sender that cuts the text off still see max_age. The policy must
// be valid: see [Policy.Validate].
func (p Policy) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\r\nmode: %s\r\nmax_age: %d\r\n", p.Mode, p.MaxAge)
	for _, mx := range p.MX {
		b.WriteString("mx: " + mx + "\r\n")
	}
	return b.String()
}

// Covers reports whether an MX host matches one of the policy's patterns; see [Match].
func (p Policy) Covers(host string) bool {
	return slices.ContainsFunc(p.MX, func(pattern string) bool { return Match(pattern, host) })
}
