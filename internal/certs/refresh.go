package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// Refresh takes in the certificates that other processes saved or deleted after a change of the store, and returns up to
// which one all are in memory then. What this one did itself is in there already.
func (k *Keeper) Refresh(ctx context.Context, after int64) (int64, error) {
	last, err := k.refresh(ctx, after)
	if err == nil {
		k.refreshed.Store(last)
	}
	return last, err
}

func (k *Keeper) refresh(ctx context.Context, after int64) (int64, error) {
	last, err := k.store.CertificatesAfter(ctx, after, k.takeIn)
	if !errors.Is(err, store.ErrNotFound) {
		return last, err
	}
	if last, err = k.store.LastChange(ctx); err != nil {
		return 0, err
	}
	var gone map[string]bool
	if after <= last { // else it is an older store: what that lacks stays, whether it is wanted is for others to say
		gone = k.names()
	}
	err = k.leaveOut(k.store.EachCertificate(ctx, func(c store.Certificate) error {
		delete(gone, c.Name)
		return k.takeIn(c)
	}))
	if err != nil {
		return 0, fmt.Errorf("read certificates: %w", err)
	}
	for name := range gone {
		_, err := k.store.Certificate(ctx, name)
		switch _, damaged := errors.AsType[*store.DamagedError](err); {
		case errors.Is(err, store.ErrNotFound):
			k.leave(name)
		case err != nil && !damaged:
			return 0, err
		}
	}
	return last, nil
}

// names are those that have a certificate in memory, and so had one in the store.
func (k *Keeper) names() map[string]bool {
	all := make(map[string]bool, k.memory.len())
	k.memory.each(func(name []byte, _ info) bool {
		all[string(name)] = true
		return true
	})
	return all
}

// takeIn takes in what became of a name in another process.
func (k *Keeper) takeIn(c store.Certificate) error {
	gone := len(c.Key) == 0 && len(c.Chain) == 0
	known, found := k.memory.find(c.Name)
	if gone {
		k.leave(c.Name)
		return nil
	}
	if found && len(c.Chain) > 0 && bytes.Equal(k.memory.leaf(c.Name), c.Chain[0]) {
		return nil // mostly our own
	}
	p, err := k.memory.pack(c)
	if err != nil {
		k.log.Error("left out a certificate of the store", "domain", c.Name, "err", err)
		return nil
	}
	p.renew = c.Renew.Unix()
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.items[c.Name]
	if i != nil && i.dropped {
		return nil // it is being deleted here
	}
	if i == nil {
		k.unplan(c.Name)
		k.memory.set(c.Name, p)
		if known.wanted {
			known, _ = k.memory.find(c.Name)
			k.keep(c.Name, known, time.Now())
		}
		return nil
	}
	k.renewed(i, p)
	i.due = time.Time{}
	if i.wanted {
		known, _ = k.memory.find(c.Name)
		i.due = k.keep(c.Name, known, time.Now())
	}
	if i.cancel == nil { // else the order that runs sees to the rest, and finds the new one in the store
		s.put(i, time.Now())
		k.retire(i)
	}
	return nil
}

// leave is Drop for a name that another process has dropped: nothing may be ordered for it from here either. The next look
// at the domain wants it again if that is needed.
func (k *Keeper) leave(name string) {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	k.unplan(name)
	k.memory.remove(name)
	i := s.items[name]
	if i == nil || i.dropped {
		return
	}
	i.wanted, i.live, i.failures, i.unsaved = false, false, 0, nil
	i.notBefore, i.notAfter = time.Time{}, time.Time{}
	if i.cancel != nil {
		i.cancel()
		return
	}
	s.put(i, time.Now())
	k.retire(i)
}
