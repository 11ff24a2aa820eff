package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// pollEvery is how long a change may go unheard.
const pollEvery = 500 * time.Millisecond

// Wait implements [Store]. One caller at a time hears of changes at once; another, or who cannot listen, looks every half
// second.
func (p *Postgres) Wait(ctx context.Context, after int64) error {
	for {
		if last, err := p.LastChange(ctx); err != nil || last > after {
			return err
		}
		p.ear.hear(ctx, pollEvery)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for a change: %w", err)
		}
	}
}

// ear is a connection that hears of changes.
type ear struct {
	conf *pgx.ConnConfig
	slot chan struct{} // capacity 1; who has put something in has conn
	conn *pgx.Conn     // nil: none
}

// hear returns when it heard of a change, began to listen, or after a while.
func (e *ear) hear(ctx context.Context, while time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, while)
	defer cancel()
	select {
	case e.slot <- struct{}{}:
		defer func() { <-e.slot }()
	default:
		<-ctx.Done()
		return
	}
	if e.conn == nil || e.conn.IsClosed() {
		if e.listen(ctx) != nil {
			<-ctx.Done() // whoever needs the database is told soon enough
		}
		return
	}
	// That the time is over does not harm the connection; what else is wrong closes it.
	_, _ = e.conn.WaitForNotification(ctx)
}

func (e *ear) listen(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, e.conf)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `LISTEN `+channel); err != nil {
		_ = conn.Close(ctx)
		return err
	}
	e.conn = conn
	return nil
}

// close is called when nobody hears any more.
func (e *ear) close(ctx context.Context) {
	if e.conn != nil {
		_ = e.conn.Close(ctx) // nothing is lost with it
	}
}
