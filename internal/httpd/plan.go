package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stspub/stspub/internal/publish"
)

// PlanRequest is the body of POST /v1/plan: the configuration to plan, which may lie where only the operator can read
// it. It holds no secret; the server reads those that it names.
type PlanRequest struct {
	Path  string            `json:"path"`  // of the configuration file, absolute
	Files map[string][]byte `json:"files"` // its content and that of its domains files, by path; base64
}

// planLine is a line of a plan with progress: any number with Total, and a last one with one of the others.
type planLine struct {
	Done    int           `json:"done,omitempty"` // look-ups
	Total   int           `json:"total,omitempty"`
	Plan    *publish.Plan `json:"plan,omitempty"`
	Problem *Problem      `json:"problem,omitempty"`
}

// maxPlanRequest is enough for the names of some million domains, in bytes.
const maxPlanRequest = 256 << 20

func (a *admin) plan(context.Context, *struct{}) (*huma.StreamResponse, error) {
	return a.stream(a.writePlan), nil
}

// writePlan answers with the plan, or with "Accept: application/x-ndjson" with lines of which the last has it.
func (a *admin) writePlan(w http.ResponseWriter, r *http.Request) error {
	var q PlanRequest
	body := http.MaxBytesReader(w, r.Body, maxPlanRequest)
	if err := json.NewDecoder(body).Decode(&q); err != nil && !errors.Is(err, io.EOF) {
		return &Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf("read the configuration: %v", err)}
	}
	var progress func(done, total int)
	lines := strings.Contains(r.Header.Get("Accept"), linesType)
	begun := false
	write := func(l planLine) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", linesType)
			w.Header().Set("Cache-Control", "no-store")
		}
		if err := json.NewEncoder(w).Encode(l); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	if lines {
		progress = func(done, total int) { _ = write(planLine{Done: done, Total: total}) } // an error is the client's going away
	}
	p, err := a.manager.Plan(r.Context(), q.Path, q.Files, progress)
	switch {
	case err != nil && begun: // the status 200 is out already
		problem, ok := errors.AsType[*Problem](refusal(err))
		if !ok {
			a.log.Error("cut a plan short", "err", err)
			panic(http.ErrAbortHandler)
		}
		return write(planLine{Problem: problem})
	case err != nil:
		return refusal(err)
	case lines:
		return write(planLine{Plan: &p})
	}
	return writeJSON(w, p)
}

// Plan returns what a configuration would change: with nil files that which the server reads at a reload, else that of
// the files, by path, with the configuration file at path. Progress, if not nil, is told now and then of how
// many look-ups are done.
func (c *Client) Plan(
	ctx context.Context, path string, files map[string][]byte, progress func(done, total int),
) (publish.Plan, error) {
	var body []byte
	if files != nil {
		var err error
		if body, err = json.Marshal(PlanRequest{Path: path, Files: files}); err != nil {
			return publish.Plan{}, fmt.Errorf("plan: %w", err)
		}
	}
	resp, err := c.send(ctx, http.MethodPost, "/v1/plan", linesType, bytes.NewReader(body))
	if err != nil {
		return publish.Plan{}, fmt.Errorf("plan: %w", err)
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var l planLine
		switch err := dec.Decode(&l); {
		case err != nil:
			return publish.Plan{}, fmt.Errorf("plan: read answer: %w", err)
		case l.Problem != nil:
			return publish.Plan{}, fmt.Errorf("plan: %w", l.Problem)
		case l.Plan != nil:
			return *l.Plan, nil
		}
		if progress != nil {
			progress(l.Done, l.Total)
		}
	}
}
