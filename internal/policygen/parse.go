package policygen

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxFetchBytes is how much of a policy a sender reads. RFC 8461, Section 3.3.
	maxFetchBytes = 64 << 10
	// maxProblems keeps a page that is no policy at all from filling a screen.
	maxProblems = 10
)

// ParsePolicy reads a policy as a sender does, from whoever published it. RFC 8461, Section 3.2.
//
// It takes what the RFC allows: lines ending in LF or CRLF, the last one perhaps in nothing, keys in any order, white
// space after the colon and at line ends, unknown keys, and no mx in mode none. Of a key that comes twice, but mx, the
// first counts. max_age may be 0. Everything else is an error that names the line, blank lines, underscores and trailing
// dots included: each of them is refused by some sender in use. Patterns are returned in lower case, and need not pass
// [ParsePattern], which asks more.
//
// The problems are joined, the first ten of them. With an error, the policy holds what could be read all the same, a
// max_age that is too large as [MaxAgeLimit]: a more lenient sender may remember that much, so it counts when we wait for
// foreign policies to expire.
func ParsePolicy(text []byte) (Policy, error) {
	if len(text) > maxFetchBytes {
		return Policy{}, fmt.Errorf("parse policy: %w: longer than 64 KiB (RFC 8461, Section 3.3)", ErrSyntax)
	}
	p := policyParser{seen: make(map[string]bool)}
	rest := string(text)
	for n := 1; rest != ""; n++ {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		p.parseLine(n, strings.TrimSuffix(line, "\r"))
	}
	p.finish()
	return p.policy, errors.Join(p.problems...)
}

// policyParser holds what was read of a policy so far.
type policyParser struct {
	policy   Policy
	seen     map[string]bool // keys
	problems []error
}

func (p *policyParser) note(err error) {
	if len(p.problems) < maxProblems {
		p.problems = append(p.problems, fmt.Errorf("parse policy: %w", err))
	}
}

// finish notes what is missing. RFC 8461, Section 3.2: a policy without one of its fields is invalid.
func (p *policyParser) finish() {
	for _, key := range []string{"version", "mode", "max_age"} {
		if !p.seen[key] {
			p.note(&FieldError{Field: key, Why: "is missing; keys are in lower case"})
		}
	}
	if !p.seen["mx"] && p.policy.Mode != None {
		p.note(&FieldError{Field: "mx", Why: "is missing; only mode none does without"})
	}
}

func (p *policyParser) parseLine(n int, line string) {
	if why := checkLine(line); why != "" {
		p.note(&FieldError{Field: fmt.Sprintf("line %d", n), Value: line, Why: why})
		return
	}
	key, value, _ := strings.Cut(line, ":")
	again := p.seen[key]
	p.seen[key] = true
	if again && key != "mx" {
		return
	}
	if err := p.parseField(key, strings.Trim(value, whiteSpace)); err != nil {
		p.note(fmt.Errorf("line %d: %w", n, err))
	}
}

// checkLine says why a line is not a key and a value, whatever the key.
func checkLine(line string) (why string) {
	key, value, found := strings.Cut(line, ":")
	value = strings.Trim(value, whiteSpace)
	switch {
	case strings.Trim(line, whiteSpace) == "":
		return "is blank, which some senders refuse"
	case !utf8.ValidString(line):
		return "is not UTF-8"
	case strings.HasPrefix(line, "\ufeff"):
		return "begins with a byte order mark"
	case !found:
		return "has no colon; write key: value"
	case !isExtensionName(key):
		return "has a bad key; up to 32 letters, digits, and _ - . inside, no space around it"
	case value == "":
		return "has no value"
	case strings.ContainsFunc(value, isControl):
		return "has a control character"
	}
	return ""
}

func (p *policyParser) parseField(key, value string) (err error) {
	switch key {
	case "version":
		if value != "STSv1" {
			err = &FieldError{Field: key, Value: value, Why: "is unknown; there is STSv1 only"}
		}
	case "mode":
		p.policy.Mode, err = ParseMode(value)
	case "max_age":
		p.policy.MaxAge, err = parseMaxAge(value)
	case "mx":
		err = p.parseMX(value)
	}
	return err
}

// parseMaxAge returns a number with the error where it is only too large.
func parseMaxAge(value string) (int, error) {
	const most = 10                                  // digits, by the grammar
	seconds, err := strconv.ParseUint(value, 10, 64) // takes no sign
	if err != nil || len(value) > most {
		return 0, &FieldError{Field: "max_age", Value: value, Why: "is no number of seconds; 1 to 10 digits"}
	}
	if seconds > MaxAgeLimit {
		return MaxAgeLimit, &FieldError{Field: "max_age", Value: value, Why: fmt.Sprintf("is more than %d seconds", MaxAgeLimit)}
	}
	return int(seconds), nil
}

func (p *policyParser) parseMX(value string) error {
	pattern := lower(value)
	if why := checkHost(strings.TrimPrefix(pattern, "*.")); why != "" {
		return &FieldError{Field: "mx", Value: value, Why: why}
	}
	p.policy.MX = append(p.policy.MX, pattern)
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
