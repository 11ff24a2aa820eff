package httpd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// ChangeLine is a line of POST /v1/domains:bulk.
type ChangeLine struct {
	Name string `json:"name"`
	DomainSpec
	Remove  bool   `json:"remove,omitempty" doc:"let it drain, or take back the claim to it; the rest does not count then"`
	IfMatch string `json:"if_match,omitempty" doc:"the etag that it must have, or *"`
}

const (
	maxLine      = 64 << 10    // bytes of a line
	bulkBatch    = 1000        // lines that are one transaction
	bulkPatience = time.Minute // with a client that neither sends nor reads
	maxAnswers   = 64 << 20    // bytes of answers that wait to be read
)

type bulkInput struct {
	Scope
	DryRun    bool   `query:"dry_run" doc:"say what would become of each line, and change nothing"`
	Confirm   bool   `query:"confirm" doc:"remove more than ten domains, and more than one in a hundred, within an hour, which looks like a mistake otherwise"`
	RequestID string `header:"Request-Id" maxLength:"100" doc:"the caller's name for the whole: sent again with it within a day, what was done is answered as it was, and nothing is done twice"`
	Key       string `header:"Idempotency-Key" maxLength:"100" doc:"the same as Request-Id"`
}

func (a *admin) bulk(ctx context.Context, in *bulkInput) (*huma.StreamResponse, error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	b := &bulkRun{a: a, tenant: tenant, who: callerOf(ctx), o: publish.ApplyOptions{DryRun: in.DryRun, Confirmed: in.Confirm}, counts: make(map[string]int)}
	b.id = cmp.Or(in.RequestID, in.Key)
	if b.resume.begun = time.Now(); !in.DryRun {
		b.resume.id = b.id
	}
	return a.stream(b.serve), nil
}

// bulkRun is one bulk request.
type bulkRun struct {
	a      *admin
	tenant string
	who    caller
	id     string
	o      publish.ApplyOptions
	counts map[string]int // of results, and "" of errors
	resume resume
}

// bulkLine is a line as it was read.
type bulkLine struct {
	change publish.Change
	err    error // why it is none
	sum    string
}

// serve reads lines, makes changes and answers, all at the same time: who reads the answers only after the last line gets
// them too.
func (b *bulkRun) serve(w http.ResponseWriter, r *http.Request) error {
	if b.who.tenant != "" {
		leave, err := b.a.shares.bulks.enter(b.who.tenant)
		if err != nil {
			return err
		}
		defer leave()
		b.who.leave()
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	w.Header().Set("Content-Type", linesType)
	if b.id != "" {
		w.Header().Set("Request-Id", b.id)
	}
	w.WriteHeader(http.StatusOK)
	_ = rc.Flush() // an error shows again with the first answer
	out := newSpool(w, rc, cancel)
	lines := make(chan bulkLine, bulkBatch)
	var readErr error
	var g sync.WaitGroup
	g.Go(out.run)
	g.Go(func() {
		defer close(lines)
		readErr = readLines(ctx, patient{rc, r.Body}, lines)
	})
	err := b.apply(ctx, lines, out)
	if err != nil {
		cancel()
		_ = rc.SetReadDeadline(time.Now()) // ends the reader
		for range lines {                  // it may be sending
		}
	}
	out.close()
	g.Wait()
	b.a.log.Info("changed domains in bulk", "tenant", b.tenant, "request_id", b.id, "dry_run", b.o.DryRun, "counts", b.counts)
	if err = errors.Join(err, readErr, out.err); err == nil {
		return nil
	}
	if r.Context().Err() == nil && out.err == nil {
		b.a.log.Warn("cut a bulk change short", "request_id", b.id, "err", err)
	}
	panic(http.ErrAbortHandler) // so that nobody takes the answers for all
}

// apply makes the changes, as many at once as have come.
func (b *bulkRun) apply(ctx context.Context, lines <-chan bulkLine, out *spool) error {
	for first := range lines {
		batch := append(make([]bulkLine, 0, bulkBatch), first)
	fill:
		for len(batch) < bulkBatch {
			select {
			case l, more := <-lines:
				if !more {
					break fill
				}
				batch = append(batch, l)
			default:
				break fill
			}
		}
		if err := b.a.stillIn(ctx, b.who); err != nil {
			return err
		}
		results, err := b.answer(ctx, batch)
		if err != nil {
			return err
		}
		for _, r := range results {
			b.counts[r.Result]++
		}
		if err := out.add(results); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// applyBatch returns a result for every line. Where the removals look like a mistake, they alone are left out.
func (b *bulkRun) applyBatch(ctx context.Context, batch []bulkLine) ([]DomainResult, error) {
	results := make([]DomainResult, len(batch))
	batch = slices.Clone(batch) // the caller may have to try again
	refused, err := b.tryBatch(ctx, batch, results)
	if err == nil && refused != nil {
		for i, l := range batch {
			if l.err == nil && l.change.Remove {
				batch[i].err = refused
			}
		}
		refused, err = b.tryBatch(ctx, batch, results)
	}
	if err == nil {
		err = refused
	}
	for _, r := range results {
		if err == nil && r.Result == string(store.ResultRemoved) {
			b.o.Removed++
		}
	}
	return results, err
}

// tryBatch fills in the results, unless the batch is refused.
func (b *bulkRun) tryBatch(ctx context.Context, batch []bulkLine, results []DomainResult) (refused, err error) {
	var changes []publish.Change
	for _, l := range batch {
		if l.err == nil {
			changes = append(changes, l.change)
		}
	}
	fill := func(done []publish.Outcome) ([]DomainResult, error) {
		for i, l := range batch {
			o := publish.Outcome{Name: l.change.Name, Err: l.err}
			if l.err == nil {
				o, done = done[0], done[1:]
			}
			var err error
			if results[i], err = b.result(o); err != nil {
				return nil, err
			}
		}
		return results, nil
	}
	o := b.o
	b.part(&o, batch, fill)
	done, err := b.a.manager.Apply(ctx, b.tenant, changes, o)
	if errors.Is(err, publish.ErrRefused) {
		return err, nil
	}
	if err == nil {
		_, err = fill(done)
	}
	return nil, err
}

func (b *bulkRun) result(o publish.Outcome) (DomainResult, error) {
	r := DomainResult{Name: o.Name, Result: string(o.Result), ETag: o.ETag}
	if o.Err == nil {
		return r, nil
	}
	problem, ok := errors.AsType[*Problem](wrong(o.Name, o.Err))
	if !ok {
		return r, o.Err
	}
	r.Error, r.Status = problem.Detail, problem.Status
	return r, nil
}

// readLines sends what it reads, until the end or ctx's.
func readLines(ctx context.Context, r io.Reader, lines chan<- bulkLine) error {
	b := bufio.NewReaderSize(r, maxLine)
	for {
		l, found, err := nextLine(b)
		if found {
			select {
			case lines <- l:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read lines: %w", err)
		}
	}
}

// nextLine reads a line. An empty one, and what a broken connection leaves of one, is none.
func nextLine(b *bufio.Reader) (l bulkLine, found bool, err error) {
	text, err := b.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = b.ReadSlice('\n')
		}
		l.sum = sumOf(text)
		l.err = &Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf("the line is longer than %d bytes", maxLine)}
		return l, true, err
	}
	text = bytes.TrimSpace(text)
	if err != nil && err != io.EOF || len(text) == 0 {
		return l, false, err
	}
	l.change, l.err = parseLine(text)
	l.sum = sumOf(text)
	return l, true, err
}

// parseLine reads a line. The error is a [Problem].
func parseLine(text []byte) (publish.Change, error) {
	var l ChangeLine
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&l)
	if err == nil && dec.More() {
		err = errors.New("there is more behind the value")
	}
	if err != nil {
		return publish.Change{Name: l.Name}, &Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf("the line is no change of a domain: %v", err)}
	}
	c := l.change(l.Name)
	c.Remove, c.IfMatch = l.Remove, l.IfMatch
	return c, nil
}

// patient reads from a client as long as it sends.
type patient struct {
	rc   *http.ResponseController
	body io.Reader
}

// Read implements [io.Reader].
func (p patient) Read(b []byte) (int, error) {
	// Where there are no deadlines, the server's own limits hold.
	_ = p.rc.SetReadDeadline(time.Now().Add(bulkPatience))
	return p.body.Read(b)
}

// spool writes answers beside the reading of requests. A client that reads nothing before it has sent everything would
// otherwise wait for the server, and the server for it.
type spool struct {
	w      io.Writer
	rc     *http.ResponseController
	cancel context.CancelFunc // called when nobody reads any more

	mu      sync.Mutex // guards the fields below
	changed sync.Cond
	waiting bytes.Buffer
	closed  bool
	err     error
}

func newSpool(w io.Writer, rc *http.ResponseController, cancel context.CancelFunc) *spool {
	s := &spool{w: w, rc: rc, cancel: cancel}
	s.changed.L = &s.mu
	return s
}

// add has results written, and waits only where very many wait already.
func (s *spool) add(results []DomainResult) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.waiting.Len() > maxAnswers && s.err == nil {
		s.changed.Wait()
	}
	e := json.NewEncoder(&s.waiting)
	for _, r := range results {
		if err := e.Encode(r); err != nil {
			return err
		}
	}
	s.changed.Broadcast()
	return s.err
}

// close ends run when everything is written.
func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.changed.Broadcast()
}

// run writes until close.
func (s *spool) run() {
	var piece bytes.Buffer
	for {
		s.mu.Lock()
		for s.waiting.Len() == 0 && !s.closed {
			s.changed.Wait()
		}
		piece.Reset()
		piece, s.waiting = s.waiting, piece
		s.changed.Broadcast()
		s.mu.Unlock()
		if piece.Len() == 0 {
			return
		}
		// Where there are no deadlines, the server's own limits hold.
		_ = s.rc.SetWriteDeadline(time.Now().Add(bulkPatience))
		_, err := s.w.Write(piece.Bytes())
		if err == nil {
			err = s.rc.Flush()
		}
		if err != nil {
			s.mu.Lock()
			s.err = err
			s.changed.Broadcast()
			s.mu.Unlock()
			s.cancel()
			return
		}
	}
}
