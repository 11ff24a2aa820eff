package publish

import (
	"context"

	"github.com/stspub/stspub/internal/policygen"
)

// TenantOf returns whose domain it is, or store.ErrNotFound, and takes as long for the one as for the other.
func (r *Reconciler) TenantOf(ctx context.Context, name policygen.Name) (string, error) {
	return r.cfg.Store.TenantOf(ctx, string(name))
}
