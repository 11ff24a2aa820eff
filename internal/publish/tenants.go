package publish

import (
	"context"
	"fmt"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// StatusOf is [Reconciler.Status] for a tenant. A domain of another one is store.ErrNotFound, in the same words and as soon
// as one that is not there.
func (r *Reconciler) StatusOf(ctx context.Context, tenant string, name policygen.Name) (Status, error) {
	d, err := r.domainOf(ctx, tenant, name)
	if err != nil {
		return Status{}, err
	}
	return r.whole(ctx, d)
}

// StatusesOf returns a page of a tenant's domains by name, without history and shared records; see
// [store.Store.DomainsOf].
func (r *Reconciler) StatusesOf(
	ctx context.Context, tenant string, f store.DomainFilter, after policygen.Name, n int,
) ([]Status, error) {
	page, err := r.cfg.Store.DomainsOf(ctx, tenant, f, after, n)
	if err != nil {
		return nil, err
	}
	set := r.settings.Load()
	all := make([]Status, len(page))
	for i, d := range page {
		all[i] = r.status(set, d)
	}
	return all, nil
}

// Owns says whether a domain is a tenant's: store.ErrNotFound if not, in the same words as for one that is not there.
func (r *Reconciler) Owns(ctx context.Context, tenant string, name policygen.Name) error {
	_, err := r.domainOf(ctx, tenant, name)
	return err
}

func (r *Reconciler) domainOf(ctx context.Context, tenant string, name policygen.Name) (store.Domain, error) {
	d, err := r.cfg.Store.Domain(ctx, name)
	if err == nil && d.Tenant != tenant {
		err = fmt.Errorf("read domain %q: %w", name, store.ErrNotFound) // the store's words
	}
	if err != nil {
		return store.Domain{}, fmt.Errorf("read %s: %w", name, err)
	}
	return d, nil
}
