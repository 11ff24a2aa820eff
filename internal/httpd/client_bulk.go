package httpd

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// BulkOptions say how [Client.Bulk] changes domains.
type BulkOptions struct {
	DryRun  bool // say what would become of each line, and change nothing
	Confirm bool // remove also so many that it looks like a mistake
	// RequestID is the caller's name for the whole; empty: one at random. What was done under it within a day is answered as
	// it was, and not done again.
	RequestID string
}

// bulkTries is how often in a row a connection may break without any progress.
const bulkTries = 5

// Bulk makes n changes of domains, of which line returns each, and calls each with what became of them, in their order, as
// it happens. When the connection breaks it goes on in a new one, which knows from the id what was done. It ends when each returns an error, which it returns.
func (c *Client) Bulk(ctx context.Context, o BulkOptions, n int, line func(i int) ChangeLine, each func(DomainResult) error) error {
	o.RequestID = cmp.Or(o.RequestID, rand.Text())
	done, tries, reached := 0, 0, false
	for {
		before := done
		begun, err := c.bulk(ctx, o, n, line, func(i int, r DomainResult) error {
			if i < done { // it was read before the connection broke
				return nil
			}
			done++
			return each(r)
		})
		reached = reached || begun
		problem, refused := errors.AsType[*Problem](err)
		if refused && reached && problem.Status == http.StatusTooManyRequests { // the broken one is still under way
			refused = false
		}
		stopped, byCaller := errors.AsType[callerError](err)
		switch {
		case byCaller:
			return stopped.error
		case err == nil:
			return nil
		case done > before:
			tries = 0
		default:
			tries++
		}
		if refused || ctx.Err() != nil || tries == bulkTries || !reached {
			return fmt.Errorf("change domains: line %d: %w", done+1, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(tries) * time.Second):
		}
	}
}

// callerError is one that the caller's function returned.
type callerError struct{ error }

// bulk sends all lines, and reads as many answers. Begun says that the server has taken the request.
func (c *Client) bulk(
	ctx context.Context, o BulkOptions, n int, line func(i int) ChangeLine, each func(int, DomainResult) error,
) (begun bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := url.Values{}
	if o.DryRun {
		q.Set("dry_run", "1")
	}
	if o.Confirm {
		q.Set("confirm", "1")
	}
	body, pipe := io.Pipe()
	defer body.Close()
	go func() { pipe.CloseWithError(writeChanges(pipe, n, line)) }() // ends with body
	resp, err := c.bulkRequest(ctx, c.scoped("/v1/domains:bulk", q), o.RequestID, body)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for i := range n {
		var r DomainResult
		if err := dec.Decode(&r); err != nil {
			return true, fmt.Errorf("read answer: %w", noEOF(err))
		}
		if err := each(i, r); err != nil {
			return true, callerError{err}
		}
	}
	return true, nil
}

// noEOF is io.EOF where something was to come.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeChanges(w io.Writer, n int, line func(i int) ChangeLine) error {
	b := bufio.NewWriterSize(w, 64<<10)
	e := json.NewEncoder(b)
	for i := range n {
		if err := e.Encode(line(i)); err != nil {
			return err
		}
	}
	return b.Flush()
}

func (c *Client) bulkRequest(ctx context.Context, path, id string, body io.Reader) (*http.Response, error) {
	req, err := c.request(ctx, http.MethodPost, path, linesType, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", linesType)
	if id != "" {
		req.Header.Set("Request-Id", id)
	}
	return c.receive(req)
}
