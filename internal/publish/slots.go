package publish

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// slots are places that tenants share. One may have so many that a part of its own is free: it may take nearly all while it
// is alone, and the more tenants take as much as they may, the less that is. So those who hang, however many accounts they
// have and whatever they wait for, leave room for who comes next.
type slots struct {
	places int

	mu  sync.Mutex // guards the fields below
	of  map[string]int
	all int
}

const (
	// greed is how many times the free places a tenant may have.
	greed = 4
	// aside is the shortest time between two looks for what is due of others than those who are full.
	aside = 50 * time.Millisecond
)

func newSlots(places int) *slots { return &slots{places: places, of: make(map[string]int)} }

// begin takes a place for a tenant.
func (s *slots) begin(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[tenant]++
	s.all++
}

// end gives it back, and says whether there were as many of its tenant as may be.
func (s *slots) end(tenant string) (full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	full = s.isFull(tenant)
	s.all--
	if s.of[tenant]--; s.of[tenant] == 0 {
		delete(s.of, tenant)
	}
	return full
}

// isFull says whether a tenant may have no more. s.mu is held.
func (s *slots) isFull(tenant string) bool { return s.of[tenant] >= greed*(s.places-s.all) }

// full returns the tenants that may have no more places, by name.
func (s *slots) full() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for tenant := range s.of {
		if s.isFull(tenant) {
			all = append(all, tenant)
		}
	}
	slices.Sort(all)
	return all
}

// free is how many places are.
func (s *slots) free() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.places - s.all
}

// claimSome claims n domains that are due, or as many as there are. With a time, nothing is to be claimed for so long.
func (r *Reconciler) claimSome(ctx context.Context, n int) (due []store.Domain, wait time.Duration, err error) {
	full := r.passes.full()
	if len(full) > 0 {
		if wait, err = r.others(ctx, full); err != nil || wait > 0 {
			return nil, wait, err
		}
	}
	r.declaring.RLock()
	defer r.declaring.RUnlock()
	if ok, err := r.agrees(ctx); err != nil || !ok {
		return nil, idleFew, err
	}
	due, err = r.cfg.Store.Claim(ctx, r.now(), lease, n, full...)
	return due, 0, err
}

// others returns how long nothing is due but what is of tenants that are full; 0: something is. The more of theirs is due,
// the longer the look takes; while it finds nothing, it takes a tenth of the time at most.
func (r *Reconciler) others(ctx context.Context, full []string) (time.Duration, error) {
	if wait := time.Until(r.lookAside); wait > 0 {
		return wait, nil
	}
	r.lookAside = time.Now().Add(aside)
	if all, err := r.cfg.Store.Tenants(ctx); err != nil || len(all) == len(full) { // mostly there is but one
		return aside, err
	}
	begun := time.Now()
	next, err := r.cfg.Store.NextDue(ctx, full...)
	none := errors.Is(err, store.ErrNotFound)
	if !none && (err != nil || r.until(next) <= 0) {
		return 0, err
	}
	pause := max(aside, 10*time.Since(begun))
	r.lookAside = time.Now().Add(pause)
	if none {
		return pause, nil
	}
	return max(min(r.until(next), idleFew), pause), nil
}
