package httpd

import (
	"context"
	"fmt"
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
	a.changeRoutes()
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
	Page
	Faults bool   `query:"faults" doc:"only those that need a human"`
	MXSet  string `query:"mxset" doc:"only those of this MX set"`
	Step   string `query:"step" doc:"only those at this step"`
	Prefix string `query:"prefix" doc:"only those whose names begin so"`
}

func (a *admin) domains(ctx context.Context, in *domainsInput) (*huma.StreamResponse, error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	f := store.DomainFilter{MXSet: in.MXSet, Step: in.Step, Fault: in.Faults, Prefix: strings.ToLower(in.Prefix)}
	after := policygen.Name(strings.ToLower(in.After))
	if in.Limit == 0 {
		return a.list(func(ctx context.Context, add func(any) error) error { return a.eachStatus(ctx, tenant, f, after, add) }), nil
	}
	return a.stream(func(w http.ResponseWriter, r *http.Request) error {
		page, err := a.page(r.Context(), tenant, f, after, in.Limit+1)
		if err != nil {
			return err
		}
		if len(page) > in.Limit {
			page = page[:in.Limit]
			q := r.URL.Query()
			q.Set("after", string(page[in.Limit-1].Name))
			w.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`) // RFC 8288
		}
		return a.writeList(w, r, func(_ context.Context, add func(any) error) error {
			for _, s := range page {
				if err := add(s); err != nil {
					return err
				}
			}
			return nil
		})
	}), nil
}

// eachStatus adds all domains behind a name.
func (a *admin) eachStatus(ctx context.Context, tenant string, f store.DomainFilter, after policygen.Name, add func(any) error) error {
	for {
		page, err := a.page(ctx, tenant, f, after, pageSize)
		if err != nil {
			return err
		}
		for _, s := range page {
			if err := add(s); err != nil {
				return err
			}
		}
		if len(page) < pageSize {
			return nil
		}
		after = page[len(page)-1].Name
	}
}

// page returns at most n domains behind a name, shared records first: "*" sorts before all names.
func (a *admin) page(ctx context.Context, tenant string, f store.DomainFilter, after policygen.Name, n int) ([]publish.Status, error) {
	var page []publish.Status
	if after == "" || strings.HasPrefix(string(after), "*") {
		shared, err := a.manager.SharedOf(ctx, tenant)
		if err != nil {
			return nil, err
		}
		for _, s := range shared {
			if s.Name > after && strings.HasPrefix(string(s.Name), f.Prefix) && (f.MXSet == "" || s.MXSet == f.MXSet) &&
				(f.Step == "" || s.Step == f.Step) && (s.Fault || !f.Fault) {
				page = append(page, s)
			}
		}
		after = ""
	}
	if len(page) >= n {
		return page[:n], nil
	}
	rest, err := a.manager.StatusesOf(ctx, tenant, f, after, n-len(page))
	return append(page, rest...), err
}

func (a *admin) domain(ctx context.Context, in *domainInput) (*tagged[publish.Status], error) {
	name, err := a.owned(ctx, in.Scope, in.Name)
	if err != nil {
		return nil, a.orClaim(ctx, in, err)
	}
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	status, err := a.manager.StatusOf(ctx, tenant, name)
	if err != nil {
		return nil, notFound(name, err)
	}
	return &tagged[publish.Status]{quoted(status.ETag), status}, nil
}

// orClaim says of a domain that is not there where to look for it, if it is claimed.
func (a *admin) orClaim(ctx context.Context, in *domainInput, missing error) error {
	tenant, name, err := a.named(ctx, in.Scope, in.Name)
	if err != nil {
		return missing
	}
	if _, err := a.manager.Claim(ctx, tenant, name); err != nil {
		return missing
	}
	return &Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("domain %s is claimed, and not proven yet; see /v1/claims/%[1]s", name)}
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
