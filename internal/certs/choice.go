package certs

import (
	"slices"
	"time"
)

// choose returns the authority to order a name from: the first that is there and does not refuse it, and else the first.
func (s *schedule) choose(i *item, now time.Time) *line {
	for _, l := range s.lines {
		if s.takes(l, i) && (!s.absent(l, i, now) || l.knock(i, now)) {
			return l
		}
	}
	return s.lines[0]
}

// takes says that a name may be ordered from an authority: it does not refuse the name, and is no second one that no sender
// trusts.
func (s *schedule) takes(l *line, i *item) bool {
	return i.refused&(1<<l.number) == 0 && (l.number == 0 || !l.authority.Staging())
}

// another says that there is another authority to order a name from.
func (s *schedule) another(than *line, i *item, now time.Time) bool {
	return slices.ContainsFunc(s.lines, func(l *line) bool { return l != than && s.takes(l, i) && !s.absent(l, i, now) })
}

// absent says that an authority takes no orders for too long to be waited for.
func (s *schedule) absent(l *line, i *item, now time.Time) bool {
	lasts := l.budget.lasts(now, s.move)
	return lasts > 0 && lasts >= s.patience(i, now)
}

// patience is for how long a name waits for an authority, or is refused by it, before it moves to another: where it is
// about to lose its certificate, for no longer than half of what is left.
func (s *schedule) patience(i *item, now time.Time) time.Duration {
	if left := i.notAfter.Sub(now); !i.notAfter.IsZero() && left < s.move {
		return min(s.move, max(left/2, longestOutage))
	}
	return s.move
}

// knock says that a name may find out whether an authority takes orders again. Nobody else would, once all have moved away.
func (l *line) knock(i *item, now time.Time) bool {
	return !l.budget.opens(now).After(now) && (i.line == l || l.running+l.waits() == 0)
}
