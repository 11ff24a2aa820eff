package certs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	orderTimeout = 5 * time.Minute
	// saveTimeout bounds a write that goes on after the order's context has ended: what was obtained is not thrown away.
	saveTimeout = 10 * time.Second
)

// Run orders and renews until ctx ends; then it ends the running orders, waits for them, and returns nil. Errors of
// single names are kept in their [Status].
func (k *Keeper) Run(ctx context.Context) error {
	var orders sync.WaitGroup
	defer orders.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.schedule.wake:
		case <-timer.C:
		}
		timer.Reset(k.start(ctx, &orders))
	}
}

// start begins all orders that are due and have a place, and returns when to look again.
func (k *Keeper) start(ctx context.Context, orders *sync.WaitGroup) time.Duration {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for i := s.take(now); i != nil; i = s.take(now) {
		octx, cancel := context.WithTimeout(ctx, orderTimeout)
		i.cancel, i.done = cancel, make(chan struct{})
		free := s.occupy(i.failures > 0)
		unsaved := i.unsaved
		orders.Go(func() {
			defer cancel()
			k.order(octx, i, unsaved)
			free()
		})
	}
	return s.wait(now)
}

// occupy takes a place for an order and returns what frees it. The caller holds mu.
func (s *schedule) occupy(failing bool) (free func()) {
	n := 0
	if failing {
		n = 1
	}
	s.running++
	s.quick++
	s.quickFailing += n
	quick := true
	leave := func() {
		if quick {
			quick = false
			s.quick--
			s.quickFailing -= n
		}
	}
	slow := time.AfterFunc(slowAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		leave()
		s.notify()
	})
	return func() {
		slow.Stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		leave()
		s.running--
		s.notify()
	}
}

// order obtains one certificate, or takes one that was obtained before and not saved, and saves and serves it.
func (k *Keeper) order(ctx context.Context, i *item, unsaved *store.Certificate) {
	e, c, err := k.obtain(ctx, i.name, unsaved)
	s := &k.schedule
	s.mu.Lock()
	dropped := i.dropped
	s.mu.Unlock()
	if err == nil && !dropped {
		err = k.save(ctx, c)
	}

	s.mu.Lock()
	var failed *store.Order
	switch {
	case i.dropped:
	case err == nil:
		k.memory.set(i.name, e)
		i.notBefore, i.notAfter = time.Unix(e.notBefore, 0), time.Unix(e.notAfter, 0)
		i.failures, i.tried, i.next, i.problem, i.unsaved = 0, time.Now(), time.Time{}, "", nil
	case errors.Is(ctx.Err(), context.Canceled):
		// We are stopping: that is no failure of the name.
	default:
		i.fail(k.first, err)
		if i.unsaved = nil; e != nil {
			i.unsaved = &c
		}
		failed = &store.Order{Name: i.name, Failures: i.failures, Tried: i.tried, Next: i.next, Problem: i.problem}
	}
	stopped := i.dropped || err != nil && failed == nil
	s.mu.Unlock()

	k.tell(ctx, i.name, err, failed, stopped)

	s.mu.Lock()
	defer s.mu.Unlock()
	i.cancel = nil
	close(i.done)
	s.put(i)
}

// fail notes a failed order. The schedule's lock is held.
func (i *item) fail(first time.Duration, err error) {
	var p *Problem
	outage := !errors.As(err, &p) || p.Status >= 500
	i.failures++
	i.tried = time.Now()
	i.problem = err.Error()
	wait := pause(first, i.failures, outage)
	if p != nil {
		wait = max(wait, min(p.RetryAfter, longestRetryAfter))
	}
	i.next = i.tried.Add(wait)
}

// tell counts how an order ended, keeps its failure in the store and says it.
func (k *Keeper) tell(ctx context.Context, name string, err error, failed *store.Order, stopped bool) {
	switch {
	case stopped:
		return
	case failed != nil:
		k.failed.Add(1)
		k.log.Warn("no certificate", "domain", name, "err", err)
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		if err := k.store.SaveOrder(sctx, *failed); err != nil {
			k.log.Error("did not keep a failed order", "domain", name, "err", err)
		}
	default:
		k.issued.Add(1)
		k.log.Info("obtained a certificate", "domain", name)
	}
	k.onChange(name)
}

// obtain returns a certificate that fits its name and key and is valid now, and as the memory takes it.
func (k *Keeper) obtain(ctx context.Context, name string, unsaved *store.Certificate) (*packed, store.Certificate, error) {
	var c store.Certificate
	if unsaved != nil {
		c = *unsaved
	} else {
		var err error
		if c, err = k.issuers[0].Obtain(ctx, Request{Name: name}); err != nil {
			return nil, c, err
		}
	}
	e, err := k.memory.pack(c)
	if err != nil {
		return nil, c, fmt.Errorf("refuse the certificate that came: %w", err)
	}
	if now := time.Now().Unix(); now < e.notBefore || now > e.notAfter {
		return nil, c, fmt.Errorf("refuse the certificate that came: it is valid from %s to %s, check the clock",
			time.Unix(e.notBefore, 0).UTC().Format(time.DateTime), time.Unix(e.notAfter, 0).UTC().Format(time.DateTime))
	}
	return e, c, nil
}

// save writes a certificate, also while we are stopping.
func (k *Keeper) save(ctx context.Context, c store.Certificate) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	return k.store.SaveCertificate(ctx, c)
}
