package httpd

import (
	"bufio"
	"context"
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
	DryRun    bool   // say what would become of each line, and change nothing
	Confirm   bool   // remove also so many that it looks like a mistake
	RequestID string // for the log of the server; empty: none
}

// bulkTries is how often in a row a connection may break without any progress.
const bulkTries = 5

// Bulk makes n changes of domains, of which line returns each, and calls each with what became of them, in their order, as
// it happens. When the connection breaks after the first of them it goes on in a new one; what the server has done already
// is unchanged then. It ends when each returns an error, which it returns.
func (c *Client) Bulk(ctx context.Context, o BulkOptions, n int, line func(i int) ChangeLine, each func(DomainResult) error) error {
	done, tries := 0, 0
	for {
		before := done
		err := c.bulk(ctx, o, done, n, line, func(r DomainResult) error {
			done++
			return each(r)
		})
		_, refused := errors.AsType[*Problem](err)
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
		if refused || ctx.Err() != nil || tries == bulkTries || done == 0 {
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

// bulk sends the lines from the first one on, and reads as many answers.
func (c *Client) bulk(
	ctx context.Context, o BulkOptions, first, n int, line func(i int) ChangeLine, each func(DomainResult) error,
) error {
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
	go func() { pipe.CloseWithError(writeChanges(pipe, first, n, line)) }() // ends with body
	resp, err := c.bulkRequest(ctx, c.scoped("/v1/domains:bulk", q), o.RequestID, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for i := first; i < n; i++ {
		var r DomainResult
		if err := dec.Decode(&r); err != nil {
			return fmt.Errorf("read answer: %w", noEOF(err))
		}
		if err := each(r); err != nil {
			return callerError{err}
		}
	}
	return nil
}

// noEOF is io.EOF where something was to come.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeChanges(w io.Writer, first, n int, line func(i int) ChangeLine) error {
	b := bufio.NewWriterSize(w, 64<<10)
	e := json.NewEncoder(b)
	for i := first; i < n; i++ {
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
