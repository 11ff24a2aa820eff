package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
)

// list answers with what each adds.
func (a *admin) list(each func(ctx context.Context, add func(any) error) error) *huma.StreamResponse {
	return a.stream(func(w http.ResponseWriter, r *http.Request) error { return a.writeList(w, r, each) })
}

// writeList is list for a handler.
func (a *admin) writeList(w http.ResponseWriter, r *http.Request, each func(ctx context.Context, add func(any) error) error) error {
	list := &listing{w: w, lines: strings.Contains(r.Header.Get("Accept"), linesType)}
	err := each(r.Context(), list.add)
	if err == nil {
		err = list.end()
	}
	if err == nil || !list.begun {
		return err
	}
	// The status 200 is out already. Only a connection that breaks tells the client that the list is not whole.
	if r.Context().Err() == nil {
		a.log.Error("cut a listing short", "err", err)
	}
	panic(http.ErrAbortHandler)
}

// stream is an answer that f writes by itself.
func (a *admin) stream(f func(http.ResponseWriter, *http.Request) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humachi.Unwrap(ctx)
		a.handle(f)(w, r)
	}}
}

// listed describes the answer of a list.
func listed[T any](a *admin, op huma.Operation) huma.Operation {
	op.Responses = map[string]*huma.Response{"200": {
		Description: http.StatusText(http.StatusOK),
		Content: map[string]*huma.MediaType{
			jsonType:  {Schema: &huma.Schema{Type: huma.TypeArray, Items: schema[T](a)}},
			linesType: {Schema: schema[T](a)}, // of a line
		},
	}}
	return op
}

// linesType is the media type of one JSON value a line.
const linesType = "application/x-ndjson"

// listing writes values as they come, so that a million need no memory: one a line, or as a JSON array.
type listing struct {
	w     http.ResponseWriter
	lines bool
	begun bool
}

func (l *listing) add(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	switch {
	case l.lines:
		return l.write("", text, "\n")
	case !l.begun:
		return l.write("[\n", text, "")
	}
	return l.write(",\n", text, "")
}

func (l *listing) end() error {
	switch {
	case l.lines:
		return l.write("", nil, "")
	case !l.begun:
		return l.write("[", nil, "]\n")
	}
	return l.write("\n", nil, "]\n")
}

func (l *listing) write(before string, text []byte, after string) error {
	if !l.begun {
		l.begun = true
		kind := jsonType
		if l.lines {
			kind = linesType
		}
		l.w.Header().Set("Content-Type", kind)
		l.w.Header().Set("Cache-Control", "no-store")
	}
	_, err := fmt.Fprintf(l.w, "%s%s%s", before, text, after)
	return err
}
