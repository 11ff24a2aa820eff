package publish

import (
	"context"

	"github.com/stspub/stspub/internal/policygen"
)

// Ready is whether a domain may be promoted to mode enforce.
type Ready struct {
	Clean  bool
	Reason string // which check of which host does not pass, since when
}

// Ready implements [Sight].
func (o *Outside) Ready(ctx context.Context, name policygen.Name, text string) Ready {
	v := o.MX(ctx, name, text)
	return Ready{Clean: v.Known && len(v.Uncovered) == 0, Reason: v.Reason}
}
