package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// EventQuery says which events are meant. What is empty does not count.
type EventQuery struct {
	Name  string   // the domain, MX set or other thing they are about
	Kinds []string // or groups of them: "domain" for all that begin with "domain."
	Since time.Time
	After int64 // those behind the one with this Seq
}

func (q EventQuery) values(follow bool) url.Values {
	v := url.Values{}
	if q.Name != "" {
		v.Set("name", q.Name)
	}
	if len(q.Kinds) > 0 {
		v.Set("kind", strings.Join(q.Kinds, ","))
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.After > 0 {
		v.Set("after", strconv.FormatInt(q.After, 10))
	}
	if follow {
		v.Set("follow", "true")
	}
	return v
}

// Events calls f for every event that is meant, oldest first, until f returns an error, which it returns.
func (c *Client) Events(ctx context.Context, q EventQuery, f func(store.Event) error) error {
	return lines(ctx, c, c.scoped("/v1/events", q.values(false)), "list events", f)
}

// How long a follower waits before it connects again: at first, and at most.
const (
	followPause    = time.Second
	followPauseMax = 30 * time.Second
)

// Follow is Events, and goes on with those that happen until ctx ends or f returns an error. When the server goes away it
// connects again and goes on where it was: lost is told why, once for each time, and back when it is there again. When the
// store was put back to a copy, whose numbers are smaller, it goes on with what happened since the last event by its time, and
// back is told so. That the first connection fails, or that the server refuses, is an error.
func (c *Client) Follow(ctx context.Context, q EventQuery, f func(store.Event) error, lost func(error), back func(putBack bool)) error {
	pause, begun, away, putBack := followPause, false, false, false
	var last time.Time // of what f has had
	note := func(e store.Event) error {
		last = e.At
		return f(e)
	}
	for {
		err := c.follow(ctx, &q, note, func() {
			if pause, begun = followPause, true; away {
				back(putBack)
				away, putBack = false, false
			}
		})
		problem, isProblem := errors.AsType[*Problem](err)
		stopped, byCaller := errors.AsType[callerError](err)
		switch {
		case begun && isProblem && problem.Status == http.StatusGone:
			putBack, q.After, q.Since = true, 0, last
			if !last.IsZero() {
				q.Since = last.Add(time.Microsecond) // in which times are kept
			}
		case byCaller:
			return stopped.error
		case ctx.Err() != nil:
			return ctx.Err()
		case !begun, isProblem && problem.Status < http.StatusInternalServerError && problem.Status != http.StatusTooManyRequests:
			return fmt.Errorf("follow events: %w", err)
		}
		if !away {
			away = true
			lost(err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		pause = min(2*pause, followPauseMax)
	}
}

// follow reads one answer, and keeps in q where to go on.
func (c *Client) follow(ctx context.Context, q *EventQuery, f func(store.Event) error, begun func()) error {
	resp, err := c.send(ctx, http.MethodGet, c.scoped("/v1/events", q.values(true)), linesType, http.NoBody)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if after, err := strconv.ParseInt(resp.Header.Get(afterHeader), 10, 64); err == nil && q.Since.IsZero() {
		q.After = after
	}
	begun()
	for dec := json.NewDecoder(resp.Body); ; {
		var e store.Event
		switch err := dec.Decode(&e); {
		case err == io.EOF:
			return errors.New("the server has stopped")
		case err != nil:
			return fmt.Errorf("read answer: %w", err)
		}
		if err := f(e); err != nil {
			return callerError{err}
		}
		q.After, q.Since = e.Seq, time.Time{}
	}
}
