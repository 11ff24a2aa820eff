package webhook

import (
	"fmt"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// BenchmarkIdle is one look at webhooks that have nothing to do, among a hundred thousand events.
func BenchmarkIdle(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			st := openSQLite(b)
			w := newWorld(b, st, hasty(), nil)
			for i := range n / 10 {
				tenant := fmt.Sprintf("t%d", i)
				w.addTenants(tenant)
				events := make([]store.Event, 100_000/(n/10))
				for i := range events {
					events[i] = store.Event{Tenant: tenant, Kind: store.KindDomainStep, Name: "a.example", Text: "it happened"}
				}
				w.happens(events...)
				for k := range 10 {
					w.put(tenant, fmt.Sprintf("w%d", k), "https://hooks.example/", nil)
				}
			}
			last, err := st.LastChange(b.Context())
			w.must(err)
			claimed, _, err := st.ClaimWebhooks(b.Context(), time.Hour, n)
			w.must(err)
			for _, hook := range claimed {
				hook.Delivery.Reached = last
				w.must(st.SaveWebhook(b.Context(), hook, 0))
			}
			for b.Loop() {
				if claimed, _, err = st.ClaimWebhooks(b.Context(), time.Hour, n); err != nil || len(claimed) > 0 {
					b.Fatalf("%d are claimed, %v", len(claimed), err)
				}
			}
		})
	}
}
