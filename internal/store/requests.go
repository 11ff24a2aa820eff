package store

import (
	"context"
	"fmt"
	"time"
)

// RequestKept is how long a request may be sent again, from its first part on.
const RequestKept = 24 * time.Hour

// RequestPart is what was done in one transaction of a request with many changes. Its parts follow one another without a
// gap, so who finds none at a line knows that nothing was done from there on.
type RequestPart struct {
	Tenant, ID string
	Line       int       // the first of the part, from 0
	Lines      int       // how many it has
	Removed    int       // how many domains the request removed, this part included
	Begun      time.Time // when its first part was done
	Answers    []byte    // to the lines, as the caller wrote them
}

// RequestPart implements [Tenancy].
func (t *tables) RequestPart(ctx context.Context, tenant, id string, line int, now time.Time) (RequestPart, error) {
	scan := func(r row) (RequestPart, error) {
		p := RequestPart{Tenant: tenant, ID: id, Line: line}
		err := r.Scan(&p.Lines, &p.Removed, stamp{&p.Begun}, &p.Answers)
		return p, err
	}
	return one(ctx, t, fmt.Sprintf("read request %q", id), scan,
		`SELECT lines, removed, begun, answers FROM requests WHERE tenant = $1 AND id = $2 AND line = $3 AND begun > $4`,
		tenant, id, line, micros(now.Add(-RequestKept)))
}

// keepPart keeps the part of a request that a batch is, and with a first one forgets requests that are too old.
func (b *Batch) keepPart(ctx context.Context, tx transaction, outcomes []DomainOutcome, now time.Time) error {
	if b.Part == nil {
		return nil
	}
	p := *b.Part
	for _, o := range outcomes {
		if o.Result == ResultRemoved {
			p.Removed++
		}
	}
	answers, err := b.Answers(outcomes)
	if err == nil && p.Line == 0 {
		_, err = tx.exec(ctx, `DELETE FROM requests WHERE begun <= $1`, micros(now.Add(-RequestKept)))
	}
	if err != nil {
		return err
	}
	return changed(ErrExists)(tx.exec(ctx, `INSERT INTO requests (tenant, id, line, lines, removed, begun, answers)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant, id, line) DO NOTHING`,
		p.Tenant, p.ID, p.Line, p.Lines, p.Removed, micros(p.Begun), blob(answers)))
}
