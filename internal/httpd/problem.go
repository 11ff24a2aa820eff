package httpd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// Media types of the admin API. RFC 8259, RFC 9457.
const (
	jsonType    = "application/json"
	problemType = "application/problem+json"
)

// A Problem is an error as the admin API tells it. RFC 9457. [Client] returns what the server answered as one; a 404 is
// store.ErrNotFound to errors.Is.
type Problem struct {
	Type   string `json:"type"`   // "about:blank": the status says it all
	Title  string `json:"title"`  // the status in words
	Status int    `json:"status"` // of the HTTP answer
	Detail string `json:"detail"` // what happened, and what to do, for an operator

	after time.Duration // when to come again; 0: that is not said
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// Is says that a 404 is store.ErrNotFound.
func (p *Problem) Is(target error) bool {
	return p.Status == http.StatusNotFound && target == store.ErrNotFound
}

// GetStatus is for huma, as ContentType is.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of problems, for the JSON that they are.
func (p *Problem) ContentType(string) string { return problemType }

// GetHeaders is for huma too: Retry-After where it is known, in whole seconds. RFC 9110, Section 10.2.3.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.after > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(p.after.Seconds())), 10))
	}
	return h
}

// complete returns the problem with what its status says.
func (p *Problem) complete() *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(p.Status), Status: p.Status, Detail: p.Detail}
}

// newRouter returns a router whose own refusals are problems too, and which takes HEAD for GET: load balancers use it.
func newRouter() chi.Router {
	r := chi.NewRouter()
	r.Use(middleware.GetHead)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, &Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("there is nothing at %q", r.URL.Path)})
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		allowed := allowedMethods(r)
		w.Header().Set("Allow", allowed)
		writeProblem(w, &Problem{Status: http.StatusMethodNotAllowed, Detail: fmt.Sprintf("%q takes %s only", r.URL.Path, allowed)})
	})
	return r
}

func allowedMethods(r *http.Request) string {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
		routed := method
		if method == http.MethodHead {
			routed = http.MethodGet // see newRouter
		}
		if chi.RouteContext(r.Context()).Routes.Match(chi.NewRouteContext(), routed, r.URL.Path) {
			allowed = append(allowed, method)
		}
	}
	return strings.Join(allowed, ", ")
}

// handler makes a handler of a function that returns its error, and is where errors become answers.
func handler(log *slog.Logger, f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil || errors.Is(err, context.Canceled) && r.Context().Err() != nil {
			return // it is answered, or nobody is there to read it
		}
		writeProblem(w, problemOf(r.Context(), log, err))
	}
}

// problemOf returns the problem that an error wraps. Another error is for the log, where the problem says to look.
func problemOf(ctx context.Context, log *slog.Logger, err error) *Problem {
	if problem, ok := errors.AsType[*Problem](err); ok {
		return problem
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return &Problem{Status: http.StatusServiceUnavailable, Detail: "the request was cut off"} // nobody reads it
	}
	id := rand.Text()[:8]
	log.Error("answered internal error", "err", err, "request_id", id)
	return &Problem{
		Status: http.StatusInternalServerError,
		Detail: "internal error; the log of stspub serve says more under request_id " + id,
	}
}

// refusal makes a problem of an error that says why something was not done; other errors stay internal.
func refusal(err error) error {
	if errors.Is(err, publish.ErrRefused) || errors.Is(err, store.ErrStale) {
		return &Problem{Status: http.StatusConflict, Detail: err.Error()}
	}
	return err
}

// notFound is missing for a domain.
func notFound(name policygen.Name, err error) error {
	return missing(err, "domain %s is not configured here", name)
}

// missing makes a problem of store.ErrNotFound that says what is not there; other errors, and nil, stay as they are.
func missing(err error, format string, args ...any) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return &Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf(format, args...)}
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", problemType)
	w.Header().Set("Cache-Control", "no-store")
	maps.Copy(w.Header(), p.GetHeaders())
	w.WriteHeader(p.Status)
	// An error is the client's going away.
	_ = json.NewEncoder(w).Encode(p.complete())
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Cache-Control", "no-store")
	return marshal(w, v)
}
