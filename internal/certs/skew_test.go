package certs_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// TestSlowClockWastesNoCertificate: an authority whose clock is two hours ahead of ours has its certificates begin an hour
// in the past.
func TestSlowClockWastesNoCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const names = 50
		m, mint := &model{}, newMint(t)
		var right atomic.Bool
		m.answer = func(_ context.Context, name string) (store.Certificate, error) {
			from := time.Now().Add(-time.Hour)
			if !right.Load() {
				from = from.Add(2 * time.Hour)
			}
			return mint.issueBy(m.Name(), name, from, from.Add(90*day)), nil
		}
		k, stop := run(t, newBooks(), m)
		defer stop()
		for n := range names {
			k.Want(host(n), true)
		}
		time.Sleep(time.Minute)
		first := m.count()
		if o := k.Overview(); first == 0 || first > 8 || o.Failing > 0 || o.Early != first || o.Expired > 0 || !strings.Contains(o.Accounts[0].Closed, "check the clock") {
			t.Errorf("after a minute and %d orders: %v, %v", first, o, o.Accounts[0])
		}
		if err := k.Clock(); err == nil || !strings.HasPrefix(err.Error(), "order certificates from model: it issues") {
			t.Errorf("Clock: %v", err)
		}
		time.Sleep(50 * time.Minute)
		if n := m.count(); n != first {
			t.Errorf("%d orders were sent with the clock wrong, and %d more", first, n-first)
		}
		right.Store(true) // it is set right, which is the same as that this hour is over
		time.Sleep(20 * time.Minute)
		if o := k.Overview(); o.Valid != names || m.count() != names || k.Clock() != nil {
			t.Errorf("when the clock is right: %v after %d orders, %v", o, m.count(), k.Clock())
		}
		time.Sleep(100 * day)
		if o := k.Overview(); o.Valid != names || o.Accounts[0].Closed != "" {
			t.Errorf("after 100 days: %v, %v", o, o.Accounts[0])
		}
	})
}

// TestFastClockIsNotTheNamesFault: what comes has expired by our clock.
func TestFastClockIsNotTheNamesFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, mint := &model{}, newMint(t)
		m.answer = func(_ context.Context, name string) (store.Certificate, error) {
			return mint.issueBy(m.Name(), name, time.Now().Add(-100*day), time.Now().Add(-10*day)), nil
		}
		k, stop := run(t, newBooks(), m)
		defer stop()
		for n := range 50 {
			k.Want(host(n), true)
		}
		time.Sleep(3 * day)
		if n := m.count(); n == 0 || n > 8 {
			t.Errorf("%d orders in three days", n)
		}
		o := k.Overview()
		if a := o.Accounts[0]; k.Clock() == nil || !strings.Contains(a.Closed, "check the clock") || !a.Since.IsZero() {
			t.Errorf("%v, %v, Clock: %v", o, a, k.Clock())
		}
		if s := k.Status(host(49)); s.State != certs.StateOrdering || !strings.Contains(s.Waiting, "check the clock") {
			t.Errorf("%+v", s)
		}
	})
}
