package certs_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// TestOrdersKeepThePaceOfTheirRequests: an order takes some ten requests, so that more of them than the pace of requests
// carries would wait for each other until their time is over. The end that is told comes true.
func TestOrdersKeepThePaceOfTheirRequests(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		inFlight, perSecond, names int
		slow                       time.Duration // an answer of the authority
	}{
		{8, 10, 1000, 200 * time.Millisecond},
		{50, 10, 1000, 200 * time.Millisecond},
		{50, 10, 1000, 20 * time.Second},
		{1000, 20, 1000, 200 * time.Millisecond},
		{8, 1, 300, 200 * time.Millisecond},
		{50, 1, 300, 15 * time.Second},
		{8, 2, 300, 200 * time.Millisecond},
		{1, 1000, 1000, 20 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				mint, late := newMint(t), 0
				pace := rate.NewLimiter(rate.Limit(tt.perSecond), tt.perSecond)
				m := &model{}
				m.answer = func(ctx context.Context, name string) (store.Certificate, error) {
					for range config.RequestsAnOrder {
						if err := pace.Wait(ctx); err != nil {
							m.mu.Lock()
							late++
							m.mu.Unlock()
							return store.Certificate{}, &certs.Taken{Err: err}
						}
						time.Sleep(tt.slow)
					}
					return mint.issueBy(m.Name(), name, time.Now(), time.Now().Add(90*day)), nil
				}
				k, stop := run(t, newBooks(), m, func(c *certs.Config) {
					c.Budgets = []config.Budget{{
						Orders: 10_000, OrdersPeriod: 3 * time.Hour, DomainOrders: 45, DomainPeriod: 7 * day, Failures: 4,
						InFlight: tt.inFlight, PerSecond: tt.perSecond,
					}}
				})
				defer stop()
				begun := time.Now()
				for n := range tt.names {
					k.Want(host(n), true)
				}
				time.Sleep(time.Second)
				promised := k.Overview().Done.Sub(begun)
				for k.Overview().Valid < tt.names && time.Since(begun) < 24*time.Hour {
					time.Sleep(time.Minute)
				}
				took := time.Since(begun)
				t.Logf("promised %v, took %v, %d orders", promised, took, m.count())
				if late > 0 || m.count() != tt.names {
					t.Errorf("%d orders for %d names, %d ran out of time", m.count(), tt.names, late)
				}
				if fast := tt.slow*config.RequestsAnOrder < 10*time.Second; fast && (took > promised+10*time.Minute || promised > took+time.Minute) {
					t.Errorf("it took %v, promised was %v", took, promised)
				}
			})
		})
	}
}
