package publish

import (
	"context"

	"github.com/stspub/stspub/internal/policygen"
)

// TenantOf returns whose domain it is, or store.ErrNotFound, and takes as long for the one as for the other.
func (r *Reconciler) TenantOf(ctx context.Context, name policygen.Name) (string, error) {
	return r.cfg.Store.TenantOf(ctx, string(name))
}

// SharedOf returns the shared records of a tenant by name, without history.
func (r *Reconciler) SharedOf(ctx context.Context, tenant string) ([]Status, error) {
	records, err := r.cfg.Store.SharedOf(ctx, tenant)
	if err != nil {
		return nil, err
	}
	set := r.settings.Load()
	all := make([]Status, len(records))
	for i, d := range records {
		all[i] = r.status(set, d)
	}
	return all, nil
}
