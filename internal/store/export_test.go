package store

import (
	"context"
	"time"
)

// OpenPostgresWithin is [OpenPostgres] with another limit of what is small.
func OpenPostgresWithin(ctx context.Context, url string, limit time.Duration) (*Postgres, error) {
	return openPostgres(ctx, url, nil, limit)
}

// Hear waits for a notification as [Postgres.Wait] does between two looks.
func (p *Postgres) Hear(ctx context.Context, while time.Duration) { p.ear.hear(ctx, while) }
