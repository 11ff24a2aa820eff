package publish

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// WriteText prints the plan for people: nothing where nothing changes and nothing is held. What comes of it, Refused and
// Hash, is left to the caller.
func (p *Plan) WriteText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, line := range p.lines() {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	return w.Flush()
}

// Lines is the same for a log, an item a line.
func (p *Plan) Lines() []string {
	var all []string
	for _, line := range p.lines() {
		all = append(all, line[0]+": "+line[1])
	}
	return all
}

func (p *Plan) lines() [][2]string {
	var all [][2]string
	add := func(key, format string, args ...any) { all = append(all, [2]string{key, fmt.Sprintf(format, args...)}) }
	for _, set := range p.MXSets {
		add("MX set "+set.Name, "%s", set)
	}
	for _, n := range []struct {
		what string
		Names
	}{
		{"added", p.Added},
		{"changed", p.Changed},
		{"removed", p.Removed},
		{"restored", p.Restored},
		{"to enforce", p.Enforced},
		{"another roll-out", p.Restaged},
		{"another TLSRPT", p.TLSRPT},
	} {
		if n.Count > 0 {
			add(n.what, "%s: %s", count(n.Count, "domain"), n.Names)
		}
	}
	if !p.Drained.IsZero() {
		add("removed", "their records stay, with mode none, until %s", moment(p.Drained))
	}
	if p.Rotations > 0 {
		add("new ids", "%s", count(p.Rotations, "domain"))
	}
	for _, w := range p.Writes {
		line := count(w.Writes, "DNS write")
		if w.Seconds > 0 {
			line += fmt.Sprintf(", about %s", max(time.Duration(w.Seconds*float64(time.Second)).Round(time.Second), time.Second))
		}
		add("account "+w.Account, "%s (%s)", line, w.Provider)
	}
	if n := p.ByHand; n.Count > 0 {
		add("by hand", "%s, whose TXT only the customer can write (stspub records DOMAIN): %s", count(n.Count, "domain"), n)
	}
	for _, mx := range p.Leaving {
		add("removed MX", "%s of %s has to stay in service until %s", mx.MX, mx.MXSet, moment(mx.Until))
	}
	for _, mx := range p.Arriving {
		add("added MX", "%s of %s may be put into DNS from %s on, when its domains are live", mx.MX, mx.MXSet, moment(mx.From))
	}
	for _, d := range some(p.Stranded) {
		add("stranded", "%s: MX %s in DNS is not covered", d.Name, strings.Join(d.MX, ", "))
	}
	more(add, "stranded", len(p.Stranded))
	for _, u := range some(p.Unknown) {
		add("unknown", "%s: its MX cannot be looked up: %s", u.Subject, u.Reason)
	}
	more(add, "unknown", len(p.Unknown))
	for _, h := range some(p.Held) {
		add("held", "%s: %s", h.Subject, h.Reason)
	}
	more(add, "held", len(p.Held))
	for _, advice := range p.Advice {
		add("advice", "%s", advice)
	}
	return all
}

func some[T any](all []T) []T { return all[:min(len(all), someNames)] }

func more(add func(key, format string, args ...any), key string, n int) {
	if n > someNames {
		add(key, "and %d more", n-someNames)
	}
}

func moment(t time.Time) string { return t.UTC().Format(time.DateTime + " MST") }

// String says what differs.
func (s PlanMXSet) String() string {
	before, errBefore := policygen.ParsePolicy([]byte(s.Before))
	after, errAfter := policygen.ParsePolicy([]byte(s.After))
	switch {
	case errAfter != nil:
		return "goes"
	case errBefore != nil:
		return fmt.Sprintf("new: mode %s, max_age %s, mx %s", after.Mode, age(after.MaxAge), strings.Join(after.MX, " ")) + s.rollout()
	}
	var parts []string
	if before.Mode != after.Mode {
		parts = append(parts, fmt.Sprintf("mode %s → %s", before.Mode, after.Mode))
	}
	if before.MaxAge != after.MaxAge {
		parts = append(parts, fmt.Sprintf("max_age %s → %s", age(before.MaxAge), age(after.MaxAge)))
	}
	listed := len(parts)
	for _, mx := range after.MX {
		if !slices.Contains(before.MX, mx) {
			parts = append(parts, "mx +"+mx)
		}
	}
	for _, mx := range before.MX {
		if !slices.Contains(after.MX, mx) {
			parts = append(parts, "mx -"+mx)
		}
	}
	if len(parts) == listed && !slices.Equal(before.MX, after.MX) {
		parts = append(parts, "mx in another order")
	}
	if s.RolloutBefore != s.RolloutAfter {
		parts = append(parts, fmt.Sprintf("rollout %s → %s", stageAge(s.RolloutBefore), stageAge(s.RolloutAfter)))
	}
	return strings.Join(parts, ", ")
}

// rollout says of a new MX set how its domains begin.
func (s PlanMXSet) rollout() string {
	if s.RolloutAfter == 0 {
		return ""
	}
	return "; each domain begins in testing, for " + age(int(s.RolloutAfter))
}

// stageAge is the length of a roll-out.
func stageAge(seconds int64) string {
	if seconds == 0 {
		return "none"
	}
	return age(int(seconds))
}

// age is a max_age or roll-out as the configuration has it: the largest unit that fits.
func age(seconds int) string {
	for _, unit := range []struct {
		seconds int
		name    string
	}{{7 * 86400, "w"}, {86400, "d"}, {3600, "h"}, {60, "m"}} {
		if seconds >= unit.seconds && seconds%unit.seconds == 0 {
			return fmt.Sprintf("%d%s", seconds/unit.seconds, unit.name)
		}
	}
	return fmt.Sprintf("%ds", seconds)
}
