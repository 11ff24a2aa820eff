package certs

import (
	"context"
	"time"
)

const (
	// followEvery is how often the journal is read while another process has orders that run.
	followEvery = 5 * time.Second
	// waitsElsewhere is why its order is not sent.
	waitsElsewhere = "another node orders it"
)

// follow reads the journal while other processes have orders that run, as far as is known, until ctx ends: what such an
// order left, a certificate or a name without one, is taken up soon after its end, and one that was not sent counts no more.
func (k *Keeper) follow(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.schedule.awaits:
			if again != nil {
				continue
			}
		case <-again:
		}
		again = nil
		if k.lookElsewhere(ctx) {
			again = time.After(followEvery)
		}
	}
}

// lookElsewhere has names ordered that no other process orders any more, and says whether there are orders that run.
func (k *Keeper) lookElsewhere(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	j, s := &k.journal, &k.schedule
	j.mu.Lock()
	defer j.mu.Unlock()
	if k.catchUp(ctx) != nil { // an order will say why
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for name := range s.elsewhere {
		if !j.leased(name, now).IsZero() {
			continue
		}
		delete(s.elsewhere, name)
		if i := s.items[name]; i != nil {
			i.due = now
			s.put(i, now)
		}
	}
	s.notify()
	j.forget(now)
	return len(s.elsewhere)+len(j.others) > 0
}

// await has an item looked at again when the process that orders its name has ended that. The caller holds mu.
func (s *schedule) await(i *item) {
	s.elsewhere[i.name] = struct{}{}
	poke(s.awaits)
}

// isElsewhere says that another process is ordering the name of an item. The caller holds mu.
func (s *schedule) isElsewhere(i *item) bool {
	_, is := s.elsewhere[i.name]
	return is
}
