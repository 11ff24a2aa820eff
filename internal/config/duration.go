package config

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// day is 24 hours: configuration knows no time zones.
const day = 24 * time.Hour

var errDuration = errors.New(`is no duration; write it like "90s", "36h", "10d" or "1w2d"`)

// ParseDuration reads durations of Go's syntax with d and w besides, each with a whole or fractional number before it. Its
// error says how one is written.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errDuration
	}
	var sum time.Duration
	for s != "" {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789."))
		count, rest := s[:digits], s[digits:]
		letters := len(rest) - len(strings.TrimLeft(rest, "nuµμmshdw"))
		unit := rest[:letters]
		part, err := parseUnit(count, unit)
		if err != nil || sum > math.MaxInt64-part {
			return 0, errDuration
		}
		sum += part
		s = rest[letters:]
	}
	return sum, nil
}

func parseUnit(count, unit string) (time.Duration, error) {
	factor := time.Duration(1)
	switch unit {
	case "d":
		factor, unit = 24, "h"
	case "w":
		factor, unit = 7*24, "h"
	}
	d, err := time.ParseDuration(count + unit)
	if err != nil || count == "" || d > math.MaxInt64/factor {
		return 0, errDuration
	}
	return d * factor, nil
}

// duration returns the value of a key, or what it is without one. Limits are said as an operator writes them.
func (l *loader) duration(key string, s span, without, least, most time.Duration, limits string) time.Duration {
	if !s.given() {
		return without
	}
	if s.isInt {
		l.problem(s.line, key, `is an integer, want a duration with its unit: "%ds"`, s.integer)
		return without
	}
	d, err := ParseDuration(s.text)
	switch {
	case err != nil:
		l.problem(s.line, key, "%q %v", s.text, err)
	case d < least || d > most:
		l.problem(s.line, key, "%q is out of range; %s", s.text, limits)
	default:
		return d
	}
	return without
}

// maxAge returns a max_age in seconds, or 0 after a problem. RFC 8461, Section 3.2.
func (l *loader) maxAge(key string, s span) int {
	seconds, shown := s.integer, fmt.Sprint(s.integer)
	if !s.isInt {
		shown = fmt.Sprintf("%q", s.text)
		d, err := ParseDuration(s.text)
		if err != nil {
			l.problem(s.line, key, "%s %v", shown, err)
			return 0
		}
		if d%time.Second != 0 {
			l.problem(s.line, key, "%s has a fraction of a second; write whole seconds", shown)
			return 0
		}
		seconds = int64(d / time.Second)
	}
	if seconds < 1 || seconds > policygen.MaxAgeLimit {
		l.problem(s.line, key, `%s is out of range; 1 to %d seconds, about a year (RFC 8461, Section 3.2); "2w" is a good start`,
			shown, policygen.MaxAgeLimit)
		return 0
	}
	if seconds < int64(day/time.Second) {
		l.warn(s.line, key, "%s is less than a day; a sender that has no mail for the domain within that time has no policy "+
			"when it is attacked (RFC 8461, Section 10.2)", shown)
	}
	return int(seconds)
}
