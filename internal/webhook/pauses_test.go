package webhook

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// seldom is how often is looked in tests that last for days.
const seldom = 30 * time.Second

// bubble is a world whose clock runs as fast as it can, and whose receiver needs no network. Look 0: as often as always.
func bubble(t *testing.T, look time.Duration, answer func(call) (int, http.Header)) (*world, *receiver) {
	t.Helper()
	r := newReceiver(t, answer)
	s := New(Config{}).schedule
	s.look = cmp.Or(look, s.look)
	w := newWorld(t, openSQLite(t), s, nil)
	w.client = &http.Client{Transport: r}
	return w, r
}

// at sleeps until a time after begin, and until everything waits.
func at(begin time.Time, d time.Duration) {
	time.Sleep(time.Until(begin.Add(d)))
	synctest.Wait()
}

// An event that is not taken is tried again after pauses that grow, and given up after three days. The next one of its
// domain waits for that, those of others do not.
func TestPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, r := bubble(t, seldom, func(c call) (int, http.Header) {
			if c.Data.Name == "bad.example" && c.Data.Text == "1" {
				return 422, nil
			}
			return 200, nil
		})
		w.put("", "x", "https://hooks.example/", r)
		w.start()
		begin := time.Now()
		w.step("", "bad.example", 1)
		w.step("", "bad.example", 2)
		for hour := range 80 {
			w.step("", "good.example", hour+1)
			at(begin, time.Duration(hour+1)*time.Hour)
		}
		all, _ := r.got()
		var tries []time.Time
		var last call
		for _, c := range all {
			if c.Data.Name == "bad.example" {
				last = c
				if c.Data.Text == "1" {
					tries = append(tries, c.at)
				}
			}
		}
		want := 5 * time.Second
		for i := 1; i < len(tries); i++ {
			// Who looks now and then is so much late.
			if gap := tries[i].Sub(tries[i-1]); gap < want*3/4-time.Millisecond || gap > want+seldom+time.Second {
				t.Errorf("the pause before try %d was %s, want %s, or up to a quarter less", i+1, gap, want)
			}
			want = min(2*want, time.Hour)
		}
		took := tries[len(tries)-1].Sub(tries[0])
		if took < 72*time.Hour || took > 73*time.Hour {
			t.Errorf("it was given up after %s and %d tries", took, len(tries))
		}
		if last.Data.Text != "2" || !last.taken {
			t.Errorf("the last call about bad.example is %s", last.body)
		}
		i := w.info("", "x")
		if i.Lost != 1 || i.State != StateGood {
			t.Errorf("webhook %+v, want one lost event", i)
		}
		good := 0
		for _, c := range all {
			if c.Data.Name == "good.example" && c.taken {
				good++
			}
		}
		if good != 80 {
			t.Errorf("%d events of another domain were taken, want 80", good)
		}
		w.stop()
	})
}

// A receiver that is down for a day is asked less and less, and gets everything afterwards.
func TestReceiverThatIsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		w, r := bubble(t, seldom, func(call) (int, http.Header) {
			if time.Since(begin) < 24*time.Hour {
				return 502, nil
			}
			return 200, nil
		})
		w.put("", "x", "https://hooks.example/", r)
		w.start()
		names := domains(300)
		for n := 1; n <= 3; n++ {
			for _, name := range names {
				w.step("", name, n)
			}
		}
		at(begin, 24*time.Hour-time.Second)
		tries, taken := r.got()
		if len(tries) > 150 || len(tries) < 40 || len(taken) > 0 {
			t.Errorf("%d calls in a day, %d taken", len(tries), len(taken))
		}
		if i := w.info("", "x"); i.State != StateFailing || i.Since.Sub(begin) > time.Minute || i.Problem != "it answered 502 Bad Gateway" {
			t.Errorf("webhook %+v", i)
		}
		at(begin, 25*time.Hour+time.Minute)
		if repeated := inOrder(t, r, 3, names...); repeated > 0 {
			t.Errorf("%d events came twice", repeated)
		}
		if i := w.info("", "x"); i.State != StateGood || i.Lost != 0 {
			t.Errorf("webhook %+v", i)
		}
		w.stop()
	})
}

// Events that a receiver does not like, however many in a row, keep no others from it.
func TestManyBadEventsHoldNoOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, r := bubble(t, seldom, func(c call) (int, http.Header) {
			if c.Data.Name < "d0.example" {
				return 422, nil
			}
			return 200, nil
		})
		w.put("", "x", "https://hooks.example/", r)
		w.start()
		for i := range 40 {
			w.step("", fmt.Sprintf("bad%d.example", i), 1)
		}
		names := domains(50)
		for _, name := range names {
			w.step("", name, 1)
		}
		at(time.Now(), time.Minute)
		if _, taken := r.got(); len(taken) != len(names) {
			t.Errorf("%d of %d good events were taken within a minute", len(taken), len(names))
		}
		w.stop()
	})
}

// Retry-After is heeded, between five seconds and an hour, and holds everything.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		says      string
		low, high time.Duration
	}{
		{"600", 10 * time.Minute, 10*time.Minute + seldom + time.Second},
		{"0", 3 * time.Second, 15 * time.Second},
		{"86400", time.Hour, time.Hour + seldom + time.Second},
		{"Sat, 01 Jan 2000 00:20:00 GMT", 20 * time.Minute, 20*time.Minute + seldom + time.Second}, // where the clock begins
		{"soon", 3 * time.Second, 15 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int32 // calls may come at the same time
			w, r := bubble(t, seldom, func(call) (int, http.Header) {
				if n.Add(1) == 1 {
					return 429, http.Header{"Retry-After": {tt.says}}
				}
				return 200, nil
			})
			w.put("", "x", "https://hooks.example/", r)
			w.start()
			w.step("", "a.example", 1)
			at(time.Now(), time.Second)
			w.step("", "b.example", 1)
			at(time.Now(), 2*time.Hour)
			all, taken := r.got()
			if len(taken) != 2 || len(all) != 3 {
				t.Fatalf("Retry-After %q: %d calls, %d taken", tt.says, len(all), len(taken))
			}
			if tt.low < time.Minute {
				return // the other one need not wait
			}
			for _, c := range taken {
				if pause := c.at.Sub(all[0].at); pause < tt.low || pause > tt.high {
					t.Errorf("Retry-After %q: the next call came after %s, want %s", tt.says, pause, tt.low)
				}
			}
		})
	}
}

// A webhook of the service that fails for an hour is a fault, until it does not.
func TestFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		w, r := bubble(t, seldom, func(call) (int, http.Header) {
			if time.Since(begin) < 3*time.Hour {
				return 500, nil
			}
			return 200, nil
		})
		var mu sync.Mutex // guards faults
		faults := make(map[string]string)
		w.cfg.Fault = func(subject, reason string) {
			mu.Lock()
			defer mu.Unlock()
			faults[subject] = reason
		}
		known := func() map[string]string {
			mu.Lock()
			defer mu.Unlock()
			return maps.Clone(faults)
		}
		w.addTenants("acme")
		w.put("", "ops", "https://hooks.example/", r)
		w.put("acme", "own", "https://hooks.example/", nil)
		w.start()
		w.step("", "a.example", 1)
		at(begin, 50*time.Minute)
		if all := known(); len(all) != 0 {
			t.Errorf("faults after 50 minutes: %v", all)
		}
		at(begin, 2*time.Hour)
		want := "it takes not all events since 2000-01-01 00:00:00 UTC (it answered 500 Internal Server Error): stspub webhook show ops"
		if all := known(); all["webhook ops"] != want || len(all) != 1 {
			t.Errorf("faults %v, want %q", all, want)
		}
		at(begin, 5*time.Hour)
		if all := known(); all["webhook ops"] != "" {
			t.Errorf("faults %v when it works", all)
		}
		w.stop()
	})
}

// counting counts what is asked of a store.
type counting struct {
	store.Store
	mu    sync.Mutex // guards asked
	asked map[string]int
}

func (c *counting) ClaimWebhooks(ctx context.Context, lease time.Duration, n int) ([]store.Webhook, time.Time, error) {
	c.mu.Lock()
	c.asked["claim"]++
	c.mu.Unlock()
	return c.Store.ClaimWebhooks(ctx, lease, n)
}

func (c *counting) SaveWebhook(ctx context.Context, w store.Webhook, lease time.Duration) error {
	c.mu.Lock()
	c.asked["save"]++
	c.mu.Unlock()
	return c.Store.SaveWebhook(ctx, w, lease)
}

// A thousand webhooks that have nothing to do are looked at together.
func TestIdleCostsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, r := bubble(t, 0, nil)
		for i := range 50 {
			tenant := fmt.Sprintf("t%d", i)
			w.addTenants(tenant)
			for k := range store.MaxWebhooks {
				w.put(tenant, fmt.Sprintf("w%d", k), "https://hooks.example/", nil)
			}
		}
		r.expect("whsec_")
		count := &counting{Store: w.store, asked: make(map[string]int)}
		w.cfg.Store = count
		w.start()
		at(time.Now(), time.Minute) // their own beginnings are looked at once
		count.mu.Lock()
		clear(count.asked)
		count.mu.Unlock()
		at(time.Now(), time.Hour)
		w.stop()
		count.mu.Lock()
		defer count.mu.Unlock()
		if total := count.asked["claim"] + count.asked["save"]; total > 3600/5+10 {
			t.Errorf("an idle hour of 1000 webhooks asks the store %d times: %v", total, count.asked)
		}
	})
}
