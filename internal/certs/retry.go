package certs

import "time"

// Retry ends the pause after a failed order of a name, if there is one: what was in the way is said to be gone.
func (k *Keeper) Retry(name string) {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.items[canonical(name)]
	if i == nil || i.failures == 0 || i.cancel != nil {
		return
	}
	now := time.Now()
	i.next, i.due, i.refused = now, now, 0
	s.put(i, now)
	s.notify()
}
