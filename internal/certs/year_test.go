package certs_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
)

// yearBudget is the default, in proportion to the number of names.
func yearBudget(scale int) config.Budget {
	b := config.DefaultBudget()
	b.Orders /= scale
	return b
}

// year runs a crowd of customers through a year, certificates of 90 days until day 190 and of 45 days from then on.
func year(t *testing.T, set func(m *modelCA), check func(t *testing.T, m *modelCA, k *certs.Keeper)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const scale = 20_000 / crowd
		m := newModelCA(t, scale)
		m.life = func(now time.Time) time.Duration {
			if m.day(now) < 190 {
				return 90 * day
			}
			return 45 * day
		}
		set(m)
		k := certs.New(certs.Config{
			Store: newBooks(), Authorities: one(m), Budgets: []config.Budget{yearBudget(scale)}, Log: slog.New(slog.DiscardHandler),
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
		m.mu.Lock()
		defer m.mu.Unlock()
		for n := range crowd {
			name := host(n)
			if v, found := m.valid[name]; !found || v.to.Before(time.Now()) && !recently(m, name, time.Now()) {
				t.Errorf("%s is %v at the end of the year", name, v)
			}
		}
		check(t, m, k)
	})
}

// recently says that a name was broken within the last days.
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

func report(t *testing.T, m *modelCA) {
	t.Helper()
	var line string
	for d := 0; d < 365; d += 5 {
		line += fmt.Sprintf(" %d", m.renewals[d]+m.first[d])
	}
	t.Logf("orders every fifth day:%s", line)
	t.Logf("counted %d, exempt %d, failed %d, lost %d, questions %d", m.counted, m.exempt, m.failures, m.lost, m.questions)
}

func TestYear(t *testing.T) {
	year(t, func(*modelCA) {}, func(t *testing.T, m *modelCA, _ *certs.Keeper) {
		report(t, m)
		if len(m.expired) > 0 {
			t.Errorf("%d expired: %.5q", len(m.expired), m.expired)
		}
		for _, days := range [][2]int{{90, 190}, {90, 365}, {270, 365}} {
			mean, most, on := spread(m.renewals, days[0], days[1])
			t.Logf("days %d to %d: %.0f renewals a day, at most %d, on day %d", days[0], days[1], mean, most, on)
			if float64(most) > 2*mean {
				t.Errorf("days %d to %d: %d renewals on day %d, more than twice the mean of %.0f", days[0], days[1], most, on, mean)
			}
		}
		issued := 0
		for d := range 10 {
			issued += m.first[d]
		}
		if issued != crowd {
			t.Errorf("%d of %d names had their first certificate within 10 days; the budget allows 2240 a day of 20,000", issued, crowd)
		}
	})
}
