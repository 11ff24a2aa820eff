package httpd

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// domainRoutes are those of what is published.
func (a *admin) domainRoutes() {
	list := operation("list-domains", http.MethodGet, "/v1/domains", "List domains, by name and without history")
	register(a, listed[publish.Status](a, list), a.domains)
	register(a, operation("show-domain", http.MethodGet, "/v1/domains/{name}", "Show one domain, with history"), a.domain)
	for _, o := range []struct {
		verb, summary string
		do            func(Manager, context.Context, policygen.Name) error
	}{
		{"adopt", "Let a domain replace the record that somebody else published", Manager.Adopt},
		{"expel", "End the drain of a domain now, whatever senders hold", Manager.Expel},
		{"retry", "Look at a domain now, and order its certificate without a pause", Manager.Retry},
	} {
		op := operation(o.verb+"-domain", http.MethodPost, "/v1/domains/{name}/"+o.verb, o.summary)
		register(a, op, func(ctx context.Context, in *domainInput) (*struct{}, error) {
			return nil, a.act(ctx, in.Scope, in.Name, func(ctx context.Context, name policygen.Name) error { return o.do(a.manager, ctx, name) })
		})
	}
	promote := operation("promote-domain", http.MethodPost, "/v1/domains/{name}/promote", "End the roll-out of a domain")
	register(a, promote, a.promote)
}

// domainInput names one domain.
type domainInput struct {
	Scope
	Name string `path:"name" doc:"the domain, with A-labels or U-labels; or the shared record of an MX set, which begins with *."`
}

type domainsInput struct {
	Scope
	Faults bool `query:"faults" doc:"only those that need a human"`
}

func (a *admin) domains(ctx context.Context, in *domainsInput) (*huma.StreamResponse, error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	return a.list(func(ctx context.Context, add func(any) error) error {
		return a.manager.EachStatus(ctx, func(s publish.Status) error {
			if s.Tenant != tenant || in.Faults && !s.Fault {
				return nil
			}
			return add(s)
		})
	}), nil
}

func (a *admin) domain(ctx context.Context, in *domainInput) (*body[publish.Status], error) {
	name, err := a.owned(ctx, in.Scope, in.Name)
	if err != nil {
		return nil, err
	}
	status, err := a.manager.Status(ctx, name)
	if err != nil {
		return nil, notFound(name, err)
	}
	return &body[publish.Status]{status}, nil
}

type promoteInput struct {
	Scope
	Name    string `path:"name" doc:"the domain or shared record"`
	Testing bool   `query:"testing" doc:"go back to mode testing instead, until it is promoted by hand"`
}

func (a *admin) promote(ctx context.Context, in *promoteInput) (*struct{}, error) {
	return nil, a.act(ctx, in.Scope, in.Name, func(ctx context.Context, name policygen.Name) error {
		return a.manager.Promote(ctx, name, in.Testing)
	})
}

// act does something with a domain.
func (a *admin) act(ctx context.Context, scope Scope, raw string, do func(context.Context, policygen.Name) error) error {
	name, err := a.owned(ctx, scope, raw)
	if err != nil {
		return err
	}
	return refusal(notFound(name, do(ctx, name)))
}

// owned returns the domain of a path. One of another tenant is not there.
func (a *admin) owned(ctx context.Context, scope Scope, raw string) (policygen.Name, error) {
	name, err := parseName(raw)
	if err != nil {
		return "", err
	}
	tenant, err := scope.of(ctx, a)
	if err != nil {
		return "", err
	}
	owner, err := a.manager.TenantOf(ctx, name)
	if err == nil && owner != tenant {
		err = store.ErrNotFound
	}
	return name, notFound(name, err)
}

// parseName returns the domain of a path, which may be written in every way that [policygen.ParseName] takes.
func parseName(raw string) (policygen.Name, error) {
	if strings.HasPrefix(raw, "*.") {
		return policygen.Name(strings.ToLower(raw)), nil // a shared record
	}
	name, err := policygen.ParseName(raw)
	if err != nil {
		return "", &Problem{Status: http.StatusBadRequest, Detail: err.Error()}
	}
	return name, nil
}
