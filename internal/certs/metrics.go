package certs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Collectors returns the metrics: certificates by state, the days they have left, and orders by result. None has a
// label of domains, of which there may be a million.
func (k *Keeper) Collectors() []prometheus.Collector {
	orders := func(result string, count func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "stspub_certs_orders_total",
			Help:        "Orders of certificates that ended, by result.",
			ConstLabels: prometheus.Labels{"result": result},
		}, func() float64 { return float64(count()) })
	}
	return []prometheus.Collector{
		&census{
			keeper: k,
			states: prometheus.NewDesc("stspub_certs_names", "Names by the state of their certificate.",
				[]string{"state"}, nil),
			days: prometheus.NewDesc("stspub_certs_days_left", "Days that certificates of wanted names have left.",
				nil, nil),
		},
		orders("issued", k.issued.Load),
		orders("failed", k.failed.Load),
	}
}

// census counts names when it is asked.
type census struct {
	keeper       *Keeper
	states, days *prometheus.Desc
}

// Describe is for prometheus.Collector.
func (c *census) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.states
	ch <- c.days
}

// Collect is for prometheus.Collector.
func (c *census) Collect(ch chan<- prometheus.Metric) {
	states := map[State]int{StateNone: 0, StateOrdering: 0, StateValid: 0, StateFailing: 0, StateExpired: 0}
	days := map[float64]uint64{0: 0, 1: 0, 3: 0, 7: 0, 14: 0, 21: 0, 30: 0, 60: 0, 90: 0}
	var count uint64
	var sum float64
	now := time.Now()
	add := func(notAfter int64) {
		left := time.Unix(notAfter, 0).Sub(now).Hours() / 24
		count++
		sum += left
		for bound := range days {
			if left <= bound {
				days[bound]++
			}
		}
	}
	c.keeper.memory.each(func(_ []byte, i info) bool {
		if i.notBefore <= now.Unix() && now.Unix() <= i.notAfter {
			states[StateValid]++
		} else {
			states[StateExpired]++
		}
		if i.wanted {
			add(i.notAfter)
		}
		return true
	})
	s := &c.keeper.schedule
	s.mu.Lock()
	for _, i := range s.items {
		switch {
		case !i.notAfter.IsZero():
		case !i.wanted:
			states[StateNone]++
		case i.failures > 0:
			states[StateFailing]++
		default:
			states[StateOrdering]++
		}
	}
	s.mu.Unlock()
	for state, n := range states {
		ch <- prometheus.MustNewConstMetric(c.states, prometheus.GaugeValue, float64(n), string(state))
	}
	ch <- prometheus.MustNewConstHistogram(c.days, count, sum, days)
}
