package certs_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// TestRestartKeepsARenewalThatFails: a certificate that is to be replaced at once is so after a restart too.
func TestRestartKeepsARenewalThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		announced := time.Now().Add(10 * day)
		m, mint := &model{}, newMint(t)
		m.window = func(leaf []byte) (certs.Window, error) {
			if from, _, _ := mint.times(leaf); time.Now().After(announced) && from.Before(announced) {
				return certs.Window{Start: announced.Add(-2 * time.Hour), End: announced.Add(-time.Hour), Retry: day}, nil
			}
			return certs.Window{Start: announced.Add(50 * day), End: announced.Add(52 * day), Retry: 6 * time.Hour}, nil
		}
		refuses := true
		m.answer = func(_ context.Context, name string) (store.Certificate, error) {
			if refuses && m.count() > 1 {
				return store.Certificate{}, &certs.Problem{Status: 400, Type: "urn:ietf:params:acme:error:malformed"}
			}
			return mint.issueBy(m.Name(), name, time.Now(), time.Now().Add(90*day)), nil
		}
		b := newBooks()
		k, stop := run(t, b, m)
		k.Want(host(1), true)
		time.Sleep(10*day + 8*time.Hour)
		before := k.Status(host(1))
		stop()
		refuses = false
		k, stop = run(t, b, m)
		defer stop()
		k.Want(host(1), true)
		synctest.Wait()
		if s := k.Status(host(1)); !s.NextTry.Equal(before.NextTry) {
			t.Errorf("the next try was at %v, and is at %v after the restart", before.NextTry, s.NextTry)
		}
		time.Sleep(time.Until(before.NextTry) + time.Minute)
		if s := k.Status(host(1)); s.State != certs.StateValid || !s.NotAfter.After(before.NotAfter) {
			t.Errorf("after its time: %+v", s)
		}
	})
}

// TestDailyRestartsPutNoRenewalOff: a machine that starts every morning renews in time too.
func TestDailyRestartsPutNoRenewalOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, b := &model{}, newBooks()
		m.answer = m.good
		k, stop := run(t, b, m)
		begun := time.Now()
		for time.Since(begun) < 65*day {
			for n := range 10 {
				k.Want(host(n), true)
			}
			time.Sleep(day)
			stop()
			k, stop = run(t, b, m)
		}
		stop()
		for n := range 10 {
			times := m.of(host(n))
			if used := times[len(times)-1].Sub(begun); len(times) != 2 || used < 45*day || used > 61*day {
				t.Errorf("%s: %d orders, the last one after %v", host(n), len(times), used)
			}
		}
	})
}
