package httpd

import (
	"slices"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// BenchmarkNamesOfOthers compares how long a tenant waits for the answer about a domain of another tenant, and about one of
// nobody, in alternating requests. It reports the medians in microseconds.
func BenchmarkNamesOfOthers(b *testing.B) {
	w, m := bulkWorld(b, unixAddr(b))
	if _, err := w.bulked(b, BulkOptions{}, 10_000, added); err != nil {
		b.Fatal(err)
	}
	if err := m.store.AddTenant(b.Context(), store.Tenant{Name: "b", Created: time.Now()}); err != nil {
		b.Fatal(err)
	}
	c := w.As("", "b")
	var took [2][]time.Duration
	for i := range 2 * max(b.N, 2000) {
		n := i / 2 % 10_000
		if i%2 == 1 {
			n += 10_000
		}
		began := time.Now()
		if _, err := c.Domain(b.Context(), added(n).Name); err == nil {
			b.Fatal("a tenant sees a domain of another")
		}
		took[i%2] = append(took[i%2], time.Since(began))
	}
	for i, what := range []string{"another's-µs", "nobody's-µs"} {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2].Nanoseconds())/1e3, what)
	}
}
