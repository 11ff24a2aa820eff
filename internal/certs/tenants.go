package certs

import (
	"context"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	// tenantPeriod is that of a tenant's limit of orders.
	tenantPeriod = 24 * time.Hour
	// limitsEvery is how often the limits are read.
	limitsEvery = time.Minute
)

// tenant is what the schedule knows of one whose first certificates are counted. It is none of an authority's limits: the
// orders of all count together.
type tenant struct {
	limit  int // of orders in a day; 0: none
	orders window
	held   int // items that its limit holds
}

// next is when one more order may begin after n others that wait; now, where nothing limits it.
func (t *tenant) next(now time.Time, n int) time.Time {
	if t == nil || t.limit == 0 {
		return now
	}
	return t.orders.nth(now, n)
}

// full says why no more may be ordered for a tenant of a name; empty: it may.
func (t *tenant) full(name string, now time.Time) string {
	if !t.next(now, 0).After(now) {
		return ""
	}
	return fmt.Sprintf("tenant %s has used up its %d orders of first certificates in a day", name, t.limit)
}

// tenant returns that of a name; a new one has no limit. The caller holds mu.
func (s *schedule) tenant(name string) *tenant {
	t := s.tenants[name]
	if t == nil {
		t = &tenant{orders: window{period: tenantPeriod}}
		s.tenants[name] = t
	}
	return t
}

// spend counts an order for its tenant, and refund takes that back. The caller holds mu.
func (s *schedule) spend(at time.Time, c claim) {
	if c.tenant != "" {
		s.tenant(c.tenant).orders.add(at)
	}
}

func (s *schedule) refund(at time.Time, c claim) {
	if c.tenant != "" {
		s.tenant(c.tenant).orders.takeBack(at)
	}
}

// replay counts what the journal says of an order that this process did not make, as [budget.replay] does. The caller holds
// mu.
func (s *schedule) replay(e, before store.JournalEntry) {
	c := claim{tenant: e.Tenant}
	switch {
	case before.Seq == 0 && !e.Exempt:
		s.spend(e.Begun, c)
	case before.Seq != 0 && e.Exempt && !before.Exempt: // it was not sent after all
		s.refund(before.Begun, c)
	}
}

// overspent says that more orders of a tenant are counted than are allowed, with one that is counted already. The caller
// holds mu.
func (s *schedule) overspent(now time.Time, c claim) bool {
	t := s.tenants[c.tenant]
	if c.tenant == "" || t == nil || t.limit == 0 {
		return false
	}
	t.orders.fresh(now)
	return len(t.orders.times) > t.limit
}

// withhold has an item wait until it is its turn among those of its tenant, and says whether it has to. Who comes first goes
// first, but for names that senders look for. The caller holds mu.
func (s *schedule) withhold(i *item, now time.Time) bool {
	if i.tenant == "" || !i.notAfter.IsZero() {
		return false
	}
	t, ahead := s.tenants[i.tenant], 0
	if t != nil && !i.waited && i.urgent == urgencyNew {
		ahead = t.held
	}
	due := t.next(now, ahead)
	if ahead == 0 && !due.After(now) || t == nil || t.limit == 0 {
		return false
	}
	i.due = latest(due, now.Add(time.Second))
	s.put(i, now)
	i.held, i.spent, i.waited = true, true, true
	t.held++
	return true
}

// sweepTenants forgets what counts for nothing any more. The caller holds mu.
func (s *schedule) sweepTenants(now time.Time) {
	for name, t := range s.tenants {
		if t.orders.fresh(now); len(t.orders.times) == 0 && t.limit == 0 && t.held == 0 {
			delete(s.tenants, name)
		}
	}
}

// limits reads what tenants may order. Those that wait for a limit that is another one now have their turns anew.
func (k *Keeper) limits(ctx context.Context) error {
	all, err := k.store.Tenants(ctx)
	if err != nil {
		return fmt.Errorf("read the limits of tenants: %w", err)
	}
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	set := make(map[string]int)
	for _, t := range all {
		if t.Limits.Orders > 0 {
			set[t.Name] = t.Limits.Orders
		}
	}
	changed := make(map[string]bool)
	for name := range set {
		s.tenant(name) // those that are new
	}
	for name, t := range s.tenants {
		if t.limit != set[name] {
			t.limit, t.orders.limit = set[name], set[name]
			if t.held > 0 {
				changed[name] = true
			}
		}
	}
	if len(changed) == 0 {
		return nil
	}
	now := time.Now()
	for _, i := range s.items {
		if i.spent && changed[i.tenant] {
			i.due = now
			s.put(i, now)
		}
	}
	s.notify()
	return nil
}

// keepLimits reads the limits of tenants until ctx ends.
func (k *Keeper) keepLimits(ctx context.Context) {
	tick := time.NewTicker(limitsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := k.limits(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("limits of tenants not read; those that are known hold", "err", err)
		}
	}
}
