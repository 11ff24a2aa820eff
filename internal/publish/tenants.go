package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// TenantOf returns whose domain it is, or store.ErrNotFound, and takes as long for the one as for the other.
func (r *Reconciler) TenantOf(ctx context.Context, name policygen.Name) (string, error) {
	return r.cfg.Store.TenantOf(ctx, string(name))
}

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
	return r.statuses(page), nil
}

// SharedOf returns the shared records of a tenant by name, without history.
func (r *Reconciler) SharedOf(ctx context.Context, tenant string) ([]Status, error) {
	records, err := r.cfg.Store.SharedOf(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return r.statuses(records), nil
}

func (r *Reconciler) statuses(domains []store.Domain) []Status {
	set := r.settings.Load()
	all := make([]Status, len(domains))
	for i, d := range domains {
		all[i] = r.status(set, d)
	}
	return all
}

// pageSize is how many domains of a tenant are read at once.
const pageSize = 1000

// eachOf calls f for the domains of a tenant, by name, until f returns an error, which it returns.
func (r *Reconciler) eachOf(ctx context.Context, tenant string, filter store.DomainFilter, f func(store.Domain) error) error {
	for after := policygen.Name(""); ; {
		page, err := r.cfg.Store.DomainsOf(ctx, tenant, filter, after, pageSize)
		if err != nil {
			return err
		}
		for _, d := range page {
			if err := f(d); err != nil {
				return err
			}
			after = d.Name
		}
		if len(page) < pageSize {
			return nil
		}
	}
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
