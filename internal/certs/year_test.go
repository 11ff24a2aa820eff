package certs_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
)

// year is one of a crowd of customers, certificates of 90 days until day 190 and of 45 days from then on.
type year struct {
	t      *testing.T
	ca     *modelCA
	books  *books
	budget config.Budget
	mortal *mortal       // what the running process writes to
	keeper *certs.Keeper // that process
	stop   func() error
}

// newYear begins one. The limits that count orders, and the budgets, are those for 20,000, or a part of them.
func newYear(t *testing.T, scale int) *year {
	t.Helper()
	y := &year{t: t, ca: newModelCA(t, scale), books: newBooks(), budget: config.DefaultBudget()}
	y.ca.life = func(now time.Time) time.Duration {
		if y.ca.day(now) < 190 {
			return 90 * day
		}
		return 45 * day
	}
	y.ca.held = y.books.leaf
	y.budget.Orders /= scale
	return y
}

// start starts a process.
func (y *year) start() {
	y.t.Helper()
	y.mortal = &mortal{books: y.books, dead: make(chan struct{})}
	y.keeper = certs.New(certs.Config{
		Store: y.mortal, Authorities: one(departed{y.ca, y.mortal.dead}), Budgets: []config.Budget{y.budget}, Log: slog.New(slog.DiscardHandler),
	})
	if err := y.keeper.Load(y.t.Context()); err != nil {
		y.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(y.t.Context())
	ended := make(chan error)
	go func() { ended <- y.keeper.Run(ctx) }()
	y.stop = func() error { cancel(); return <-ended }
	for n := range crowd {
		y.keeper.Want(host(n), false)
	}
}

// until lets time pass until the begin of a day.
func (y *year) until(d int) { time.Sleep(time.Until(y.ca.begun.Add(time.Duration(d) * day))) }

// end ends the year.
func (y *year) end() *modelCA {
	y.t.Helper()
	y.until(365)
	if err := y.stop(); err != nil {
		y.t.Error(err)
	}
	synctest.Wait()
	m := y.ca
	for n := range crowd {
		name := host(n)
		if v, found := m.valid[name]; !found || v.to.Before(time.Now()) && !recently(m, name, time.Now()) {
			y.t.Errorf("%s is %v at the end of the year", name, v)
		}
	}
	if len(m.expired) > 0 {
		y.t.Errorf("%d expired: %q", len(m.expired), m.expired[:min(5, len(m.expired))])
	}
	var line string
	for d := 0; d < 365; d += 5 {
		line += fmt.Sprintf(" %d", m.renewals[d]+m.first[d])
	}
	y.t.Logf("orders every fifth day:%s", line)
	y.t.Logf("counted %d, exempt %d, failed %d, lost %d, questions %d", m.counted, m.exempt, m.failures, m.lost, m.questions)
	return m
}

// recently says that a name was broken within the last days, or is not issued to because of that.
func recently(m *modelCA, name string, at time.Time) bool {
	for d := range 3 {
		if m.broken(name, at.Add(-time.Duration(d)*day)) {
			return true
		}
	}
	return false
}

// spread returns the mean and the most of what happened on days.
func spread(days map[int]int, from, to int) (mean float64, most, day int) {
	sum := 0
	for d := from; d < to; d++ {
		if sum += days[d]; days[d] > most {
			most, day = days[d], d
		}
	}
	return float64(sum) / float64(to-from), most, day
}

// even checks that no day has more than so many times the mean of the renewals of its season.
func (m *modelCA) even(t *testing.T, times float64, from, to int) {
	t.Helper()
	mean, most, on := spread(m.renewals, from, to)
	t.Logf("days %d to %d: %.0f renewals a day, at most %d, on day %d", from, to, mean, most, on)
	limit := times * mean
	if mean < 90 {
		limit += 3 * math.Sqrt(mean) // so few are never even
	}
	if float64(most) > limit {
		t.Errorf("days %d to %d: %d renewals on day %d, more than %.2f times the mean of %.0f", from, to, most, on, times, mean)
	}
}

func TestYear(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := newYear(t, 20_000/crowd)
		y.start()
		m := y.end()
		m.even(t, 2, 90, 190) // the second cycle begins on day 90
		m.even(t, 2, 90, 365)
		m.even(t, 2, 270, 365)
		issued := 0
		for d := range 10 {
			issued += m.first[d]
		}
		if issued != crowd { // 2240 a day
			t.Errorf("%d of %d names had their first certificate within 10 days", issued, crowd)
		}
		if m.counted != crowd {
			t.Errorf("%d orders were counted, want only the first of each name", m.counted)
		}
	})
}

// TestYearWithBrokenCustomers: at any time 5 % of the names cannot be validated, for a week on end.
func TestYearWithBrokenCustomers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := newYear(t, 20_000/crowd)
		y.ca.broken = func(name string, now time.Time) bool { return share(name, now, 7*day, 20) }
		y.start()
		m := y.end()
		issued := 0
		for d := range 10 {
			issued += m.first[d]
		}
		if good := crowd * 93 / 100; issued < good {
			t.Errorf("%d names had their first certificate within 10 days, want the good ones, more than %d", issued, good)
		}
		if m.worst < 5 || m.worst > 13 { // six within the first day, and one a day
			t.Errorf("%d orders of one broken name in a week, want some and at most 13", m.worst)
		}
	})
}

// TestYearWithAnOutage: for a week nobody gets anything, while everything is due that was put off until then. What waits
// in the end is made up for within hours, and what expires first comes first.
func TestYearWithAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const from, to = 240, 247
		y := newYear(t, 20_000/crowd)
		y.ca.down = func(now time.Time) bool { d := y.ca.day(now); return d >= from && d < to }
		y.ca.traced = func(now time.Time) bool { return y.ca.day(now) == to }
		y.start()
		y.until(to)
		waiting := y.waiting()
		m := y.end()
		if most := (to - from) * 24 * 7; m.lost == 0 || m.lost > most {
			t.Errorf("%d requests while the authority was down, want some and at most %d", m.lost, most)
		}
		if n := m.renewals[from] + m.renewals[to-1]; n > 0 {
			t.Errorf("%d renewals while it was down", n)
		}
		m.even(t, 2, 90, 190)
		m.even(t, 2, 275, 365)
		m.caughtUp(t, waiting)
	})
}

// waiting are the names that wait for their turn.
func (y *year) waiting() map[string]bool {
	waiting := make(map[string]bool)
	for n := range crowd {
		if y.keeper.Status(host(n)).Place > 0 {
			waiting[host(n)] = true
		}
	}
	return waiting
}

// caughtUp sees that names which waited were ordered by the ends of their certificates. Those that were tried while nobody
// answered may still have been in their pauses when it was their turn.
func (m *modelCA) caughtUp(t *testing.T, waiting map[string]bool) {
	t.Helper()
	slices.SortFunc(m.seen, func(a, b sight) int { return cmp.Or(a.at.Compare(b.at), a.expiry.Compare(b.expiry)) })
	var last, reached time.Time // the latest end of those that were ordered before
	n, late := 0, 0
	for _, s := range m.seen {
		if !waiting[s.name] {
			continue
		}
		n++
		switch last = s.at; {
		case m.tried[s.name]:
		case s.expiry.Before(reached):
			late++
		default:
			reached = s.expiry
		}
	}
	took := last.Sub(m.begun.Add(time.Duration(m.day(last)) * day))
	t.Logf("%d names waited, %d had been tried, all had their turn %v after the outage", len(waiting), len(m.tried), took)
	if n != len(waiting) || len(waiting) < crowd/20 || took > 6*time.Hour {
		t.Errorf("%d of %d names that waited were ordered, the last after %v", n, len(waiting), took)
	}
	if late > 0 || len(m.tried) > 40 {
		t.Errorf("%d names were ordered after others whose certificates end later; %d had been tried", late, len(m.tried))
	}
}
