package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"

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

// domainOf reads a domain by its tenant and name, so that it takes as long for a domain of another tenant as for none.
func (r *Reconciler) domainOf(ctx context.Context, tenant string, name policygen.Name) (store.Domain, error) {
	page, err := r.cfg.Store.DomainsOf(ctx, tenant, store.DomainFilter{Prefix: string(name)}, "", 1)
	if strings.HasPrefix(string(name), "*") { // the name of a shared record says whose it is
		var d store.Domain
		d, err = r.cfg.Store.Domain(ctx, name)
		page = []store.Domain{d}
	}
	switch {
	case err == nil && (len(page) == 0 || page[0].Name != name || page[0].Tenant != tenant):
		err = store.ErrNotFound
	case err == nil:
		return page[0], nil
	case errors.Is(err, store.ErrNotFound):
		err = store.ErrNotFound
	}
	return store.Domain{}, fmt.Errorf("read %s: %w", name, err)
}
