package publish

import (
	"context"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// ClockMoved lets a test say that the wall clock jumped, which a bubble of testing/synctest cannot.
func ClockMoved(r *Reconciler, ctx context.Context, jump time.Duration) error { //nolint:revive // the receiver is first
	return r.clockMoved(ctx, jump)
}

// KeepReport lets a test take the steps of a TLSRPT record one by one.
func KeepReport(r *Reconciler, ctx context.Context, d *store.Domain) error { //nolint:revive // the receiver is first
	if _, err := r.keepReport(ctx, r.settings.Load(), d); err != nil {
		return err
	}
	return r.save(ctx, d)
}

// Tracks is of how many domains something is remembered in memory.
func Tracks(r *Reconciler) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tracks)
}

// Restored says what is made of records with unknown ids, by their tenants, when so many of each are compared. The
// first few have an id from after the copy of the store, and are reached as publish says.
func Restored(sampled map[string]int, unknown []string, newer int, publish string) bool {
	s := startup{tenants: len(sampled), strange: make(map[string]bool), newer: make(map[string]bool)}
	for _, n := range sampled {
		s.sampled += n
	}
	s.compared = s.sampled
	for i, tenant := range unknown {
		s.found(store.Domain{Tenant: tenant, Publish: publish}, true, publish != "" && i < newer)
	}
	return s.restored()
}

// Sample is what a start compares of domains.
func Sample(domains []store.Domain) []policygen.Name {
	var s sample
	for _, d := range domains {
		s.add(d)
	}
	return s.names()
}
