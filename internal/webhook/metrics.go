package webhook

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of all webhooks together: which ones there are is nobody else's business.
type metrics struct {
	calls  *prometheus.CounterVec
	oldest prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stspub_webhook_events_total",
			Help: "Events sent to webhooks by this node: taken (delivered), not taken at a try (failed), given up, or forgotten for their age before they were taken (lost).",
		}, []string{"result"}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stspub_webhook_oldest_undelivered_seconds",
			Help: "How long ago the oldest event that a webhook did not take was tried first; 0: there is none.",
		}),
	}
	for _, result := range []string{"delivered", "failed", "lost"} {
		m.calls.WithLabelValues(result) // so that each is there from the start
	}
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.oldest}
}

func (m *metrics) count(result string) { m.add(result, 1) }

func (m *metrics) add(result string, n int) { m.calls.WithLabelValues(result).Add(float64(n)) }
