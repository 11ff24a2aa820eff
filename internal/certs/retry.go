package certs

import (
	"math/rand/v2"
	"time"
)

// Retry ends the pause after a failed order of a name, if there is one: what was in the way is said to be gone. An order
// that runs may have met it still, so the name is not paused after that one either.
func (k *Keeper) Retry(name string) {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.items[canonical(name)]
	if i == nil {
		return
	}
	i.again = true
	if i.cancel != nil {
		return
	}
	now := time.Now()
	i.resume(now)
	s.put(i, now)
	s.notify()
}

// resume ends the pause of a name, if that is wanted. The schedule's lock is held.
func (i *item) resume(now time.Time) {
	if i.again && i.failures > 0 {
		i.next, i.due, i.refused = now, now, 0
	}
	i.again = false
}

// pause grows threefold with the n-th failure in a row.
func pause(first, longest time.Duration, n int) time.Duration {
	d := min(first, longest)
	for range n - 1 {
		if d = min(3*d, longest); d == longest {
			break
		}
	}
	return d - rand.N(d/10+1) // so that what failed together does not return together
}
