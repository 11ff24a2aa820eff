package dnsupdate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count what accounts do. There is no label for domains: their number has no bound.
type Metrics struct {
	writes   *prometheus.CounterVec
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// NewMetrics returns metrics for the Options of any number of accounts.
func NewMetrics() *Metrics {
	return &Metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stspub_dns_writes_total",
			Help: "Changes of TXT records by account and result: ok, or the kind of failure.",
		}, []string{"account", "result"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stspub_dns_requests_total",
			Help: "Requests sent to DNS providers by account, reads and writes; providers limit these.",
		}, []string{"account"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "stspub_dns_write_seconds",
			Help:    "Time that changes of TXT records took by account, waiting for the rate limit included.",
			Buckets: []float64{0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30},
		}, []string{"account"}),
	}
}

// Collectors returns what to register.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.writes, m.requests, m.seconds}
}

func (m *Metrics) wrote(account, result string, took time.Duration) {
	if m == nil {
		return
	}
	m.writes.WithLabelValues(account, result).Inc()
	m.seconds.WithLabelValues(account).Observe(took.Seconds())
}

func (m *Metrics) requested(account string) {
	if m != nil {
		m.requests.WithLabelValues(account).Inc()
	}
}
