package certs_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
)

// year runs a crowd of customers through a year, certificates of 90 days until day 190 and of 45 days from then on. The
// limits and budgets are as large as they are for 20,000.
func year(t *testing.T, crowd int, set func(m *modelCA)) (m *modelCA) {
	t.Helper()
	scale := 20_000 / crowd
	m = newModelCA(t, scale)
	m.life = func(now time.Time) time.Duration {
		if m.day(now) < 190 {
			return 90 * day
		}
		return 45 * day
	}
	set(m)
	budget := config.DefaultBudget()
	budget.Orders /= scale
	k := certs.New(certs.Config{
		Store: newBooks(), Authorities: one(m), Budgets: []config.Budget{budget}, Log: slog.New(slog.DiscardHandler),
	})
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- k.Run(ctx) }()
	for n := range crowd {
		k.Want(host(n), false)
	}
	time.Sleep(365 * day)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	synctest.Wait()
	for n := range crowd {
		name := host(n)
		if v, found := m.valid[name]; !found || v.to.Before(time.Now()) && !recently(m, name, time.Now()) {
			t.Errorf("%s is %v at the end of the year", name, v)
		}
	}
	var line string
	for d := 0; d < 365; d += 5 {
		line += fmt.Sprintf(" %d", m.renewals[d]+m.first[d])
	}
	t.Logf("orders every fifth day:%s", line)
	t.Logf("counted %d, exempt %d, failed %d, lost %d, questions %d", m.counted, m.exempt, m.failures, m.lost, m.questions)
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

// even checks that no day has more than twice the mean of the renewals of its season.
func (m *modelCA) even(t *testing.T, from, to int) {
	t.Helper()
	mean, most, on := spread(m.renewals, from, to)
	t.Logf("days %d to %d: %.0f renewals a day, at most %d, on day %d", from, to, mean, most, on)
	limit := 2 * mean
	if mean < 90 {
		limit += 3 * math.Sqrt(mean) // so few are never even
	}
	if float64(most) > limit {
		t.Errorf("days %d to %d: %d renewals on day %d, more than twice the mean of %.0f", from, to, most, on, mean)
	}
}

func TestYear(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := year(t, crowd, func(*modelCA) {})
		if len(m.expired) > 0 {
			t.Errorf("%d expired: %q", len(m.expired), m.expired[:min(5, len(m.expired))])
		}
		m.even(t, 90, 190) // the second cycle begins on day 90
		m.even(t, 90, 365)
		m.even(t, 270, 365)
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
		m := year(t, crowd/4, func(m *modelCA) {
			m.broken = func(name string, now time.Time) bool { return share(name, now, 7*day, 20) }
		})
		if len(m.expired) > 0 {
			t.Errorf("%d expired: %q", len(m.expired), m.expired[:min(5, len(m.expired))])
		}
		issued := 0
		for d := range 10 {
			issued += m.first[d]
		}
		if good := crowd / 4 * 93 / 100; issued < good {
			t.Errorf("%d names had their first certificate within 10 days, want the good ones, more than %d", issued, good)
		}
		if m.worst < 5 || m.worst > 13 { // six within the first day, and one a day
			t.Errorf("%d orders of one broken name in a week, want some and at most 13", m.worst)
		}
	})
}

// TestYearWithAnOutage: for a week nobody gets anything, while everything is due that was put off until then.
func TestYearWithAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := year(t, crowd/4, func(m *modelCA) {
			m.down = func(now time.Time) bool { d := m.day(now); return d >= 240 && d < 247 }
		})
		if len(m.expired) > 0 {
			t.Errorf("%d expired: %q", len(m.expired), m.expired[:min(5, len(m.expired))])
		}
		if most := 7*24*5 + 100; m.lost == 0 || m.lost > most {
			t.Errorf("%d requests while the authority was down, want some and at most %d", m.lost, most)
		}
		if n := m.renewals[240] + m.renewals[246]; n > 0 {
			t.Errorf("%d renewals while it was down", n)
		}
		m.even(t, 90, 190)
		m.even(t, 275, 365)
	})
}
