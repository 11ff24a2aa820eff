package httpd

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// resume is how far a bulk request is that may be sent again: what was done of it is answered as it was.
type resume struct {
	id    string // empty: it may not be
	begun time.Time
	line  int          // the next one, from 0
	kept  []keptAnswer // to the next lines
	last  bool         // nothing was done of the lines behind these
	other bool         // the lines are not those of before
}

// keptAnswer is an answer as the store keeps it.
type keptAnswer struct {
	Sum string `json:"sum"` // of the line
	DomainResult
}

// maxKept bounds what is kept of an error, in octets: it may quote a whole line.
const maxKept = 1000

// sumOf stands for a line, so that another one under the same id shows.
func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// answer returns a result for every line, of those that were done before as it was then.
func (b *bulkRun) answer(ctx context.Context, batch []bulkLine) ([]DomainResult, error) {
	if b.resume.id == "" {
		return b.applyBatch(ctx, batch)
	}
	results := make([]DomainResult, 0, len(batch))
	for len(results) < len(batch) {
		more, err := b.next(ctx, batch[len(results):])
		if errors.Is(err, store.ErrExists) && b.load(ctx) == nil && len(b.resume.kept) > 0 {
			continue // the same request is still under way, and was faster
		}
		if err != nil {
			return nil, err
		}
		b.resume.line += len(more)
		results = append(results, more...)
	}
	return results, nil
}

// next answers as many of the lines as are either done or not.
func (b *bulkRun) next(ctx context.Context, lines []bulkLine) ([]DomainResult, error) {
	r := &b.resume
	if len(r.kept) == 0 && !r.last && !r.other {
		if err := b.load(ctx); err != nil {
			return nil, err
		}
	}
	if len(r.kept) == 0 && !r.other {
		return b.applyBatch(ctx, lines)
	}
	var results []DomainResult
	for i, l := range lines[:min(len(lines), max(len(r.kept), 1))] {
		if r.other = r.other || r.kept[i].Sum != b.sum(l); r.other {
			break
		}
		result := r.kept[i].DomainResult
		if result.Name == "" {
			result.Name = l.change.Name
		}
		results = append(results, result)
	}
	if !r.other {
		r.kept = r.kept[len(results):]
		return results, nil
	}
	for _, l := range lines[len(results):] {
		results = append(results, DomainResult{
			Name: l.change.Name, Status: http.StatusUnprocessableEntity,
			Error: fmt.Sprintf("the lines are not those that were sent as request %q before, so no more is done; send other changes with another Request-Id", r.id),
		})
	}
	return results, nil
}

// load reads what was done from the next line on.
func (b *bulkRun) load(ctx context.Context) error {
	r := &b.resume
	part, err := b.a.tenancy.RequestPart(ctx, b.tenant, r.id, r.line, r.begun)
	if r.last = errors.Is(err, store.ErrNotFound); r.last {
		return nil
	}
	if err == nil {
		r.kept, err = readAnswers(part.Answers)
	}
	if err == nil && len(r.kept) != part.Lines {
		err = fmt.Errorf("read request %q: %d answers to %d lines", r.id, len(r.kept), part.Lines)
	}
	if err == nil {
		r.begun, b.o.Removed = part.Begun, part.Removed
	}
	return err
}

// part is what is kept of the next lines: with o, whose results are those when it is asked for.
func (b *bulkRun) part(o *publish.ApplyOptions, lines []bulkLine, fill func([]publish.Outcome) ([]DomainResult, error)) {
	r := &b.resume
	if r.id == "" {
		return
	}
	o.Part = &store.RequestPart{
		Tenant: b.tenant, ID: r.id, Line: r.line, Lines: len(lines), Removed: o.Removed, Begun: r.begun,
	}
	o.Answers = func(done []publish.Outcome) ([]byte, error) {
		results, err := fill(done)
		if err != nil {
			return nil, err
		}
		kept := make([]keptAnswer, len(lines))
		for i, result := range results {
			if result.Name == lines[i].change.Name {
				result.Name = ""
			}
			if len(result.Error) > maxKept {
				result.Error = result.Error[:maxKept] + "…"
			}
			kept[i] = keptAnswer{b.sum(lines[i]), result}
		}
		return writeAnswers(kept)
	}
}

// sum is that of a line under the options of the request: who confirms sends another one.
func (b *bulkRun) sum(l bulkLine) string {
	if b.o.Confirmed {
		return l.sum + "!"
	}
	return l.sum
}

func writeAnswers(kept []keptAnswer) ([]byte, error) {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err == nil {
		err = json.NewEncoder(w).Encode(kept)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("keep answers: %w", err)
	}
	return packed.Bytes(), nil
}

func readAnswers(packed []byte) (kept []keptAnswer, err error) {
	r := flate.NewReader(bytes.NewReader(packed))
	defer r.Close()
	if err := json.NewDecoder(r).Decode(&kept); err != nil {
		return nil, fmt.Errorf("read kept answers: %w", err)
	}
	return kept, nil
}
