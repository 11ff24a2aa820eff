package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// heard is up to where this process knows what the API declares beside its domains. Reconciler.reload guards it.
type heard struct {
	change int64     // the last change that is known
	all    time.Time // when all of it was read last
}

const (
	// ownedEvery is how often all of it is read, whatever the events say.
	ownedEvery = 5 * time.Minute
	// ownedPage is how many events are read at once.
	ownedPage = 256
)

// RefreshOwned takes in what other processes changed of the MX sets and accounts that the API declares: it reads those that
// events tell of, and only now and then all of them. While a configuration is being taken it does nothing; call it every few
// seconds.
func (r *Reconciler) RefreshOwned(ctx context.Context) error {
	if !r.reload.TryLock() {
		return nil
	}
	defer r.reload.Unlock()
	set := r.settings.Load()
	if set == nil {
		return nil
	}
	last, err := r.cfg.Store.LastChange(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read what the API declares: %w", err)
	case last < r.heard.change, time.Since(r.heard.all) >= ownedEvery: // before: the store was put back
		return r.rereadOwned(ctx, set)
	case last == r.heard.change:
		return nil
	}
	if err := r.hearOwned(ctx, set); err != nil {
		return fmt.Errorf("read what the API changed: %w", err)
	}
	r.heard.change = last
	return nil
}

// rereadOwned reads all of it.
func (r *Reconciler) rereadOwned(ctx context.Context, set *settings) error {
	fresh, err := r.loadOwned(ctx, set.owned)
	if err != nil {
		return err
	}
	if reflect.DeepEqual(fresh.mxsets, set.owned.mxsets) && maps.Equal(fresh.marks, set.owned.marks) {
		return nil
	}
	r.settings.Store(set.with(func(o *owned) { *o = *fresh }))
	r.poke()
	return nil
}

// hearOwned reads what events tell of.
func (r *Reconciler) hearOwned(ctx context.Context, set *settings) error {
	sets, accounts, err := r.toldOwned(ctx)
	if err != nil || len(sets)+len(accounts) == 0 {
		return err
	}
	var changes []func(*owned)
	for k := range sets {
		m, err := r.cfg.Store.MXSet(ctx, k.tenant, k.name)
		switch {
		case errors.Is(err, store.ErrNotFound), err == nil && m.Owner != store.OwnerAPI:
			changes = append(changes, func(o *owned) { delete(o.mxsets, k) })
		case err != nil:
			return err
		case !reflect.DeepEqual(ownedSet(m), set.owned.mxsets[k]):
			changes = append(changes, func(o *owned) { o.mxsets[k] = ownedSet(m) })
		}
	}
	for k := range accounts {
		a, err := r.cfg.Store.Account(ctx, k.tenant, k.name)
		switch {
		case errors.Is(err, store.ErrNotFound):
			changes = append(changes, func(o *owned) {
				delete(o.accounts, k)
				delete(o.marks, k)
			})
		case err != nil:
			return err
		case markOf(a) != set.owned.marks[k]:
			changes = append(changes, func(o *owned) {
				o.marks[k] = markOf(a)
				r.openInto(o, a, set.owned)
			})
		}
	}
	if len(changes) == 0 { // it was changed here
		return nil
	}
	r.settings.Store(set.with(func(o *owned) {
		for _, change := range changes {
			change(o)
		}
	}))
	r.poke()
	return nil
}

// toldOwned returns the MX sets and accounts that events tell of since the last change that is known.
func (r *Reconciler) toldOwned(ctx context.Context) (sets, accounts map[key]bool, err error) {
	sets, accounts = make(map[key]bool), make(map[key]bool)
	f := store.EventFilter{All: true, Kinds: []string{
		store.KindMXSetAdded, store.KindMXSetChanged, store.KindMXSetRemoved,
		store.KindAccountAdded, store.KindAccountChanged, store.KindAccountRemoved,
	}}
	for after := r.heard.change; ; {
		page, err := r.cfg.Store.Events(ctx, f, after, ownedPage)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range page {
			about := accounts
			if strings.HasPrefix(e.Kind, "mxset.") {
				about = sets
			}
			about[key{e.Tenant, e.Name}] = true
			after = e.Seq
		}
		if len(page) < ownedPage {
			return sets, accounts, nil
		}
	}
}
