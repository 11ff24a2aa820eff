package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
)

// newAPI has huma read requests, check them and describe them; answers and problems are written as everywhere else here.
func newAPI(r chi.Router, version string, authorize func(huma.Context, func(huma.Context))) huma.API {
	registry := huma.NewMapRegistry("#/components/schemas/", schemaName)
	registry.RegisterTypeAlias(reflect.TypeFor[huma.ErrorModel](), reflect.TypeFor[Problem]())
	format := huma.Format{Marshal: marshal, Unmarshal: json.Unmarshal}
	api := humachi.New(r, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "stspub admin API", Version: version},
			Components: &huma.Components{Schemas: registry, SecuritySchemes: map[string]*huma.SecurityScheme{
				"token": {Type: "http", Scheme: "bearer", Description: "needed but on the admin socket"},
			}},
			Security: []map[string][]string{{"token": {}}},
		},
		Formats: map[string]huma.Format{jsonType: format, "json": format}, DefaultFormat: jsonType,
		// A misspelt dry_run would do the thing.
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{asProblem},
	})
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
		ctx.SetHeader("Cache-Control", "no-store")
		next(plainStatus{ctx})
	}, authorize)
	return api
}

// schemaName names a type with its package, unless that is this one.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := huma.DefaultSchemaNamer(t, hint)
	at := strings.LastIndexByte(t.PkgPath(), '/') + 1
	if pkg := t.PkgPath()[at:]; pkg != "" && pkg != "httpd" {
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	return name
}

// marshal writes a value with a newline behind it, for people.
func marshal(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// An error is the client's going away.
	_, _ = w.Write(append(text, '\n'))
	return nil
}

// plainStatus is an answer where what was not understood is 400, whether it was the syntax or a value.
type plainStatus struct{ innerContext }

// innerContext has another name than the method Context.
type innerContext interface{ huma.Context }

// SetStatus implements [huma.Context].
func (p plainStatus) SetStatus(code int) { p.innerContext.SetStatus(plain(code)) }

// Unwrap is for [humachi.Unwrap].
func (p plainStatus) Unwrap() huma.Context { return p.innerContext }

func plain(code int) int {
	if code == http.StatusUnprocessableEntity {
		return http.StatusBadRequest
	}
	return code
}

// asProblem makes a [Problem] of what huma says, and completes one that a handler returned.
func asProblem(_ huma.Context, _ string, v any) (any, error) {
	switch e := v.(type) {
	case *Problem:
		return e.complete(), nil
	case *huma.ErrorModel:
		return (&Problem{Status: plain(e.Status), Detail: whatIsWrong(e)}).complete(), nil
	}
	return v, nil
}

// whatIsWrong puts into a line what is wrong with a request. Values of a body may be secrets, and stay out.
func whatIsWrong(e *huma.ErrorModel) string {
	var all []string
	for _, d := range e.Errors {
		at, param := strings.CutPrefix(d.Location, "query.")
		if text, ok := d.Value.(string); ok && param && text != "" {
			at = fmt.Sprintf("%s=%q", at, text)
		}
		if at != "" {
			at += ": "
		}
		all = append(all, at+d.Message)
	}
	if len(all) == 0 {
		return e.Detail
	}
	slices.Sort(all) // huma goes over a map
	return strings.Join(all, "; ")
}

// operation describes one route; id is its name for machines.
func operation(id, method, path, summary string) huma.Operation {
	group, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	group, _, _ = strings.Cut(group, ":")
	return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{group}}
}

// register adds a route. Errors of f that are no [Problem] are logged, and stay inside.
func register[I, O any](a *admin, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	huma.Register(a.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, problemOf(ctx, a.log, err)
		}
		return out, nil
	})
}

// body is a JSON answer of any type.
type body[T any] struct{ Body T }

// takes describes the body of a route whose handler reads it by itself. The route must be registered.
func (a *admin) takes(method, path, mediaType string, schema *huma.Schema) {
	item := a.api.OpenAPI().Paths[path]
	op := item.Post
	if method == http.MethodPut {
		op = item.Put
	}
	op.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{mediaType: {Schema: schema}}}
}

// schema describes a type.
func schema[T any](a *admin) *huma.Schema {
	return a.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
}

// describe serves the description of all routes, OpenAPI 3.1.
func (a *admin) describe(r chi.Router) {
	text := sync.OnceValues(func() ([]byte, error) {
		text, err := json.Marshal(a.api.OpenAPI())
		return append(text, '\n'), err
	})
	r.Get("/openapi.json", a.handle(func(w http.ResponseWriter, _ *http.Request) error {
		document, err := text()
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		w.Header().Set("Cache-Control", "no-store")
		// An error is the client's going away.
		_, _ = w.Write(document)
		return nil
	}))
}
