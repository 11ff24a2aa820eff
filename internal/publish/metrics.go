package publish

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stspub/stspub/internal/store"
)

// Counts of domains are made once a minute, beside those that ask for metrics: a million take a moment. Who asks when
// nobody did for a while waits for new ones.
const (
	countEvery = time.Minute
	countGood  = 5 * time.Minute
)

// census is how many domains there are, as they were counted last.
type census struct {
	count func(context.Context) (store.Counts, error)
	asked chan struct{} // capacity 1: somebody wants to know it anew

	counting sync.Mutex // held by who counts
	last     atomic.Pointer[counted]
}

type counted struct {
	store.Counts
	at time.Time
}

func newCensus(count func(context.Context) (store.Counts, error)) *census {
	return &census{count: count, asked: make(chan struct{}, 1)}
}

// run counts when it is asked for, until ctx ends.
func (c *census) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.asked:
			c.take(ctx, countEvery)
		}
	}
}

// take counts unless the last time was less than a while ago. What cannot be counted stays as it was.
func (c *census) take(ctx context.Context, while time.Duration) {
	c.counting.Lock()
	defer c.counting.Unlock()
	if last := c.last.Load(); last != nil && time.Since(last.at) < while {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if counts, err := c.count(ctx); err == nil {
		if counts.Draining > 0 {
			counts.Steps[StepDrain] += counts.Draining
		}
		c.last.Store(&counted{counts, time.Now()})
	}
}

// latest returns the last counts; nil: there are none.
func (c *census) latest() *counted {
	last := c.last.Load()
	if last == nil || time.Since(last.at) >= countGood {
		c.take(context.Background(), countGood)
		return c.last.Load()
	}
	if time.Since(last.at) >= countEvery {
		select {
		case c.asked <- struct{}{}:
		default: // somebody has
		}
	}
	return last
}

// Collectors returns the metrics: records by step, and faults of the service as a whole.
func (r *Reconciler) Collectors() []prometheus.Collector {
	return []prometheus.Collector{(*collector)(r)}
}

type collector Reconciler

func stepsDesc() *prometheus.Desc {
	return prometheus.NewDesc("stspub_records", "Records by the step that they are in.", []string{"step"}, nil)
}

func faultyDesc() *prometheus.Desc {
	return prometheus.NewDesc("stspub_records_faulty", "Records with a fault, which needs a human.", nil, nil)
}

func findingsDesc() *prometheus.Desc {
	return prometheus.NewDesc("stspub_findings", "What is wrong with domains, by code.", []string{"code"}, nil)
}

func faultsDesc() *prometheus.Desc {
	return prometheus.NewDesc("stspub_faults", "Faults of the service as a whole, by subject.", []string{"subject"}, nil)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- stepsDesc()
	ch <- faultyDesc()
	ch <- findingsDesc()
	ch <- faultsDesc()
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	r := (*Reconciler)(c)
	if counts := r.count.latest(); counts != nil {
		gauge := func(desc *prometheus.Desc, n int, labels ...string) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), labels...)
		}
		gauge(faultyDesc(), counts.Faulty)
		for step, n := range counts.Steps {
			gauge(stepsDesc(), n, step)
		}
		for code, n := range counts.Findings {
			gauge(findingsDesc(), n, code)
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(r.Faults())) {
		ch <- prometheus.MustNewConstMetric(faultsDesc(), prometheus.GaugeValue, 1, subject)
	}
}
