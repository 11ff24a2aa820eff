package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// DomainSpec is what is wanted of a domain.
type DomainSpec struct {
	MXSet   string   `json:"mxset,omitempty" doc:"the MX set that its policy is made of"`
	Publish string   `json:"publish,omitempty" enum:"zone,alias,shared,manual" doc:"how its _mta-sts record is reached"`
	Account string   `json:"account,omitempty" doc:"with publish zone, and only there: the account that holds the zone"`
	Adopt   bool     `json:"adopt,omitempty" doc:"a record that somebody else published may be replaced"`
	TLSRPT  []string `json:"tlsrpt,omitempty" doc:"where senders report failures (RFC 8460): addresses, as mailto: or https:"`
}

// change is that of a domain to what is wanted of it.
func (s DomainSpec) change(name string) publish.Change {
	return publish.Change{Name: name, MXSet: s.MXSet, Publish: s.Publish, Account: s.Account, Adopt: s.Adopt, TLSRPT: s.TLSRPT}
}

// DomainResult is what became of one change of a domain.
type DomainResult struct {
	Name string `json:"name"`
	// Result is "added", "changed", "restored", "removed", "unchanged", "moved", "claimed" or "withdrawn"; empty with Error.
	Result string `json:"result,omitempty" doc:"added, changed, restored, removed (it drains), unchanged, moved (from another tenant), claimed (until it is proven), withdrawn (the claim)"`
	ETag   string `json:"etag,omitempty" doc:"of the domain as it is then"`
	Error  string `json:"error,omitempty" doc:"why nothing was changed"`
	Status int    `json:"status,omitempty" doc:"as of HTTP, with an error"`
}

// tag returns the ETag that is meant, or "*". RFC 9110, Section 13.1.1.
func tag(header string) (string, error) {
	text := strings.TrimPrefix(header, "W/")
	bare := strings.TrimSuffix(strings.TrimPrefix(text, `"`), `"`)
	if text != "" && text != "*" && (len(text) != len(bare)+2 || strings.ContainsAny(bare, `", `)) {
		return "", &Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(`If-Match: %q is no ETag; write one, with its quotes, or *`, header)}
	}
	return bare, nil
}

// quoted is an ETag as headers have it.
func quoted(etag string) string {
	if etag == "" {
		return ""
	}
	return `"` + etag + `"`
}

// changed is the answer to a change.
type changed[T any] struct {
	Status int
	ETag   string `header:"ETag"`
	Body   T
}

func (a *admin) changeRoutes() {
	put := operation("put-domain", http.MethodPut, "/v1/domains/{name}", "Add a domain, or change what is wanted of it")
	put.Description = "201: it is added; 202: it is claimed, see /v1/claims; 200: it is changed, or as it is wanted already."
	register(a, put, a.putDomain)
	remove := operation("remove-domain", http.MethodDelete, "/v1/domains/{name}", "Let a domain drain, or take back the claim to it")
	remove.Description = "202: it drains until senders have forgotten its policies; 200: it does so already, or was only claimed."
	register(a, remove, a.removeDomain)
	register(a, operation("release-domain", http.MethodPost, "/v1/domains/{name}/release",
		"Let another tenant have a domain as soon as he proves that it is his"), a.release)
	a.bulkRoute()
	register(a, operation("list-claims", http.MethodGet, "/v1/claims", "List domains that are claimed and not proven"), a.claims)
	register(a, operation("show-claim", http.MethodGet, "/v1/claims/{name}", "Show what proves a claim"), a.claim)
	register(a, operation("look-at-claim", http.MethodPost, "/v1/claims/{name}/look", "Look for the proof of a claim now"), a.lookAtClaim)
	register(a, operation("show-records", http.MethodGet, "/v1/records/{name}", "Show what the owner of a domain puts into DNS"), a.records)
}

type putDomainInput struct {
	Scope
	Name    string `path:"name"`
	IfMatch string `header:"If-Match" doc:"the ETag that it must have, or *: it must be there; else the answer is 412"`
	DryRun  bool   `query:"dry_run" doc:"say what would become of it, and change nothing"`
	Body    DomainSpec
}

func (a *admin) putDomain(ctx context.Context, in *putDomainInput) (*changed[DomainResult], error) {
	return a.change(ctx, in.Scope, in.IfMatch, publish.ApplyOptions{DryRun: in.DryRun}, in.Body.change(in.Name))
}

type removeDomainInput struct {
	Scope
	Name    string `path:"name"`
	IfMatch string `header:"If-Match" doc:"the ETag that it must have, or *: it must be there; else the answer is 412"`
	DryRun  bool   `query:"dry_run" doc:"say what would become of it, and change nothing"`
	Confirm bool   `query:"confirm" doc:"remove it also where so many were removed in the last hour that it looks like a mistake"`
}

func (a *admin) removeDomain(ctx context.Context, in *removeDomainInput) (*changed[DomainResult], error) {
	o := publish.ApplyOptions{DryRun: in.DryRun, Confirmed: in.Confirm}
	return a.change(ctx, in.Scope, in.IfMatch, o, publish.Change{Name: in.Name, Remove: true})
}

// change makes one change.
func (a *admin) change(
	ctx context.Context, scope Scope, match string, options publish.ApplyOptions, c publish.Change,
) (*changed[DomainResult], error) {
	tenant, err := scope.of(ctx, a)
	if err != nil {
		return nil, err
	}
	if c.IfMatch, err = tag(match); err != nil {
		return nil, err
	}
	done, err := a.manager.Apply(ctx, tenant, []publish.Change{c}, options)
	if err != nil {
		return nil, refusal(err)
	}
	o := done[0]
	if o.Err != nil {
		return nil, wrong(o.Name, o.Err)
	}
	status := http.StatusOK
	switch {
	case options.DryRun:
	case o.Result == store.ResultAdded:
		status = http.StatusCreated
	case o.Result == store.ResultClaimed || o.Result == store.ResultRemoved:
		status = http.StatusAccepted
	}
	return &changed[DomainResult]{status, quoted(o.ETag), DomainResult{Name: o.Name, Result: string(o.Result), ETag: o.ETag}}, nil
}

// wrong makes a problem of why a domain, MX set or account was not changed; other errors stay internal.
func wrong(name string, err error) error {
	if name == "" {
		name = "domain"
	}
	problem := func(status int, format string, args ...any) error {
		return &Problem{Status: status, Detail: fmt.Sprintf(format, args...)}
	}
	_, owned := errors.AsType[*store.OwnedError](err)
	_, used := errors.AsType[*store.InUseError](err)
	full, isFull := errors.AsType[*store.FullError](err)
	switch invalid, isInvalid := errors.AsType[*publish.InvalidError](err); {
	case err == nil:
		return nil
	case isInvalid:
		return problem(http.StatusBadRequest, "%s: %s", name, invalid)
	case owned, used:
		return problem(http.StatusConflict, "%s", innermost(err))
	case isFull:
		return problem(http.StatusConflict, "%s: %s", name, full)
	case errors.Is(err, store.ErrTaken):
		return problem(http.StatusConflict, "%s is taken", name)
	case errors.Is(err, store.ErrMismatch):
		return problem(http.StatusPreconditionFailed, "%s was changed since it was read, or is gone; read it again", name)
	case errors.Is(err, store.ErrNotFound):
		return problem(http.StatusNotFound, "%s is not here", name)
	case errors.Is(err, store.ErrUnknownMXSet), errors.Is(err, store.ErrUnknownAccount), errors.Is(err, store.ErrStale),
		errors.Is(err, store.ErrLimit), errors.Is(err, publish.ErrRefused):
		return problem(http.StatusConflict, "%s: %s", name, err)
	}
	return err
}

// innermost is what an error says that needs no more words before it.
func innermost(err error) string {
	if owned, ok := errors.AsType[*store.OwnedError](err); ok {
		return owned.Error()
	}
	if used, ok := errors.AsType[*store.InUseError](err); ok {
		return used.Error()
	}
	return err.Error()
}

type releaseInput struct {
	Scope
	Name     string `path:"name"`
	Withdraw bool   `query:"withdraw" doc:"take that back, while no other tenant has it"`
}

func (a *admin) release(ctx context.Context, in *releaseInput) (*struct{}, error) {
	return nil, a.act(ctx, in.Scope, in.Name, func(ctx context.Context, name policygen.Name) error {
		tenant, err := in.of(ctx, a)
		if err != nil {
			return err
		}
		return a.manager.Release(ctx, tenant, name, !in.Withdraw)
	})
}

// Page is part of what a list takes that is read in pieces.
type Page struct {
	After string `query:"after" doc:"begin behind this name: the last one of the page before"`
	Limit int    `query:"limit" minimum:"0" maximum:"1000" doc:"how many at most; the header Link leads to the next page. Without it, all"`
}

type claimsInput struct {
	Scope
	Page
}

// pageSize is how many are read at once where all are wanted.
const pageSize = 1000

func (a *admin) claims(ctx context.Context, in *claimsInput) (*body[[]publish.Claim], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	n := in.Limit
	if n == 0 {
		n = pageSize
	}
	claims, err := a.manager.Claims(ctx, tenant, policygen.Name(in.After), n)
	if err != nil {
		return nil, err
	}
	return &body[[]publish.Claim]{claims}, nil
}

func (a *admin) claim(ctx context.Context, in *domainInput) (*body[publish.Claim], error) {
	tenant, name, err := a.named(ctx, in.Scope, in.Name)
	if err != nil {
		return nil, err
	}
	claim, err := a.manager.Claim(ctx, tenant, name)
	if err != nil {
		return nil, noClaim(name, err)
	}
	return &body[publish.Claim]{claim}, nil
}

func (a *admin) lookAtClaim(ctx context.Context, in *domainInput) (*struct{}, error) {
	tenant, name, err := a.named(ctx, in.Scope, in.Name)
	if err != nil {
		return nil, err
	}
	return nil, noClaim(name, a.manager.LookAtClaim(ctx, tenant, name))
}

func noClaim(name policygen.Name, err error) error {
	return missing(err, "domain %s is not claimed", name)
}

// RecordsToSet is what the owner of a domain puts into DNS.
type RecordsToSet struct {
	Name    string   `json:"name"`
	Records []string `json:"records" doc:"lines of a zone file; what must wait is a comment that says for what"`
	Record  string   `json:"record,omitempty" doc:"the TXT record that serves the domain"`
	ID      string   `json:"id,omitempty" doc:"the id in it, as seen at every name server"`
}

func (a *admin) records(ctx context.Context, in *domainInput) (*body[RecordsToSet], error) {
	tenant, name, err := a.named(ctx, in.Scope, in.Name)
	if err != nil {
		return nil, err
	}
	s, err := a.manager.StatusOf(ctx, tenant, name)
	if errors.Is(err, store.ErrNotFound) {
		claim, err := a.manager.Claim(ctx, tenant, name)
		if err != nil {
			return nil, notFound(name, err)
		}
		return &body[RecordsToSet]{RecordsToSet{Name: string(name), Records: claim.Records}}, nil
	}
	if err != nil {
		return nil, err
	}
	return &body[RecordsToSet]{RecordsToSet{string(s.Name), s.Records, s.Record, s.ID}}, nil
}

// named returns the tenant and the domain that a request is about, whether or not there is one.
func (a *admin) named(ctx context.Context, scope Scope, raw string) (tenant string, name policygen.Name, err error) {
	if name, err = parseName(raw); err == nil {
		tenant, err = scope.of(ctx, a)
	}
	return tenant, name, err
}

// bulkRoute adds the route of bulk.go, which reads and writes by itself.
func (a *admin) bulkRoute() {
	op := operation("change-domains", http.MethodPost, "/v1/domains:bulk", "Change any number of domains, a line each")
	op.Description = "Each line of the answer is what became of that line of the request, in order, as it happens. " +
		"A request that broke off is sent again: what was done is unchanged then."
	op.Responses = map[string]*huma.Response{"200": {
		Description: http.StatusText(http.StatusOK),
		Content:     map[string]*huma.MediaType{linesType: {Schema: schema[DomainResult](a)}},
	}}
	register(a, op, a.bulk)
	a.takes(http.MethodPost, op.Path, linesType, schema[ChangeLine](a))
}
