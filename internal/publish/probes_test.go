package publish

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/sender"
)

// prober is an MX whose probes take a second each.
type prober struct {
	probes   int
	err      error
	notAfter time.Time
}

func (p *prober) probe(ctx context.Context) (sender.Probed, error) {
	p.probes++
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return sender.Probed{}, ctx.Err()
	}
	return sender.Probed{Certificate: &x509.Certificate{NotAfter: p.notAfter}}, p.err
}

func TestProbesAreBelievedForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c probes
		p := &prober{notAfter: time.Now().Add(1000 * time.Hour)}
		get := func() probed {
			t.Helper()
			seen, err := c.get(t.Context(), "mx.test", p.probe)
			if err != nil {
				t.Fatal(err)
			}
			return seen
		}
		want := func(when string, seen probed, probes int, since time.Time) {
			t.Helper()
			if p.probes != probes || !seen.since.Equal(since) || !errors.Is(seen.err, p.err) {
				t.Errorf("%s: %d probes, failing since %v (%v), want %d and %v", when, p.probes, seen.since, seen.err, probes, since)
			}
		}
		want("first", get(), 1, time.Time{})
		time.Sleep(59 * time.Minute)
		want("after 59 min", get(), 1, time.Time{})
		p.err = errors.New("no STARTTLS")
		time.Sleep(time.Minute)
		seen := get()
		since := time.Now()
		want("after 60 min", seen, 2, since)
		time.Sleep(9 * time.Minute)
		want("bad for 9 min", get(), 2, since)
		time.Sleep(time.Minute)
		p.err = errors.New("no connection")
		want("bad for 10 min, in another way", get(), 3, since)
		p.err = nil
		time.Sleep(10 * time.Minute)
		want("mended", get(), 4, time.Time{})

		p.notAfter = time.Now().Add(time.Hour + 5*time.Minute)
		time.Sleep(time.Hour)
		want("its certificate ends soon", get(), 5, time.Time{})
		time.Sleep(5 * time.Minute)
		p.err = errors.New("expired")
		seen = get()
		want("its certificate has ended", seen, 6, time.Now())
	})
}

// Who asks first probes; who gives up leaves it to the next one.
func TestProbesWaitForEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c probes
		p := &prober{notAfter: time.Now().Add(1000 * time.Hour)}
		hasty, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		failed := make(chan error, 1)
		wg.Go(func() {
			_, err := c.get(hasty, "mx.test", p.probe)
			failed <- err
		})
		synctest.Wait()
		for range 1000 {
			wg.Go(func() {
				if seen, err := c.get(t.Context(), "mx.test", p.probe); err != nil || seen.err != nil {
					t.Errorf("get = %+v, %v", seen, err)
				}
			})
		}
		wg.Wait()
		if err := <-failed; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the one that gave up: %v, want its deadline", err)
		}
		if p.probes != 2 {
			t.Errorf("%d probes, want the one that was given up, and one", p.probes)
		}
	})
}

// However many hosts there are: few are probed at once, and few are remembered.
func TestProbesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c probes
		var mu sync.Mutex
		at, most := 0, 0
		probe := func(context.Context) (sender.Probed, error) {
			mu.Lock()
			at++
			most = max(most, at)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			at--
			mu.Unlock()
			return sender.Probed{}, errors.New("bad")
		}
		const hosts = maxProbes + 100
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range hosts {
			wg.Go(func() {
				if _, err := c.get(t.Context(), fmt.Sprintf("mx%d.test", i), probe); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); most != probesTotal || took < hosts/probesTotal*time.Second {
			t.Errorf("%d probes at once, %v in all, want %d at once", most, took, probesTotal)
		}
		if _, err := c.get(t.Context(), "one-more.test", probe); err != nil || len(c.hosts) != maxProbes {
			t.Errorf("%d hosts remembered, %v, want %d", len(c.hosts), err, maxProbes)
		}
	})
}
