package certs_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// An operator who has put something right does not wait out the pause; one who has not gains no hot loop by it.
func TestRetryEndsThePause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: refused}
		k, stop := run(t, newBooks(), m)
		defer stop()
		k.Retry("a.test") // nobody knows it
		k.Want("a.test", false)
		time.Sleep(3 * time.Hour) // tries: 0, 5 min, 20 min, 65 min
		if got := len(m.of("a.test")); got != 4 {
			t.Fatalf("%d tries in three hours: %v", got, m.of("a.test"))
		}
		k.Retry("A.test.")
		synctest.Wait()
		times := m.of("a.test")
		if len(times) != 5 || !times[4].Equal(time.Now()) {
			t.Fatalf("tries after Retry: %v, want one more now, at %v", times, time.Now())
		}
		if next := k.Status("a.test").NextTry; time.Until(next) < 4*time.Hour {
			t.Errorf("the next try is at %v, want the pause to go on growing", next)
		}
	})
}
