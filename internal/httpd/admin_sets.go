package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// MXSetSpec is what is wanted of an MX set.
type MXSetSpec struct {
	Mode    string   `json:"mode" enum:"enforce,testing,none"`
	MaxAge  int      `json:"max_age" minimum:"1" maximum:"31557600" doc:"seconds (RFC 8461, Section 3.2)"`
	MX      []string `json:"mx" doc:"host names, or patterns like *.example.net"`
	Rollout int64    `json:"rollout,omitempty" minimum:"0" maximum:"31536000" doc:"seconds that a domain is in mode testing before mode enforce; without it, none"`
}

// set is the MX set of a name.
func (s MXSetSpec) set(name string) publish.MXSet {
	return publish.MXSet{Name: name, Mode: policygen.Mode(s.Mode), MaxAge: s.MaxAge, MX: s.MX, Rollout: s.Rollout}
}

// AccountSpec is an account at a DNS provider. The keys beside provider and zone are those that the configuration file has
// in an account, with secrets in place of the files that hold them.
type AccountSpec struct {
	Provider string            `json:"provider" doc:"as in docs/providers.md"`
	Zone     string            `json:"zone,omitempty" doc:"a zone that it must be able to read, as a test; nothing is written there"`
	Settings map[string]string `json:"settings" doc:"the keys of the provider in docs/providers.md; a secret by its key without _file or _env. They are never shown again"`
}

// AccountPut says what came of an account.
type AccountPut struct {
	publish.Account
	Check string `json:"check" doc:"what came of reading the zone"`
}

// setRoutes are those of MX sets and accounts.
func (a *admin) setRoutes() {
	register(a, operation("list-mxsets", http.MethodGet, "/v1/mxsets", "List MX sets, by name"), a.mxsets)
	register(a, operation("show-mxset", http.MethodGet, "/v1/mxsets/{name}", "Show one MX set"), a.mxset)
	put := operation("put-mxset", http.MethodPut, "/v1/mxsets/{name}", "Add or change an MX set")
	put.Description = "201: it is added; 200: it is changed, or as it is wanted already. A policy that would strand mail is " +
		"held domain by domain; plan-mxset says which."
	register(a, put, a.putMXSet)
	register(a, operation("plan-mxset", http.MethodPost, "/v1/mxsets/{name}/plan", "Say what a change of an MX set would do"), a.planMXSet)
	register(a, operation("remove-mxset", http.MethodDelete, "/v1/mxsets/{name}", "Remove an MX set that no domain is on"), a.removeMXSet)

	register(a, operation("list-accounts", http.MethodGet, "/v1/accounts", "List accounts, by name and without their secrets"), a.accounts)
	register(a, operation("show-account", http.MethodGet, "/v1/accounts/{name}", "Show one account, without its secrets"), a.account)
	register(a, operation("put-account", http.MethodPut, "/v1/accounts/{name}", "Add or replace an account"), a.putAccount)
	register(a, operation("remove-account", http.MethodDelete, "/v1/accounts/{name}", "Remove an account that no domain needs"), a.removeAccount)
}

type scopeInput struct{ Scope }

type namedInput struct {
	Scope
	Name string `path:"name"`
}

// matching returns the tenant that a change is about, and the ETag that it expects.
func (a *admin) matching(ctx context.Context, scope Scope, header string) (tenant, ifMatch string, err error) {
	if tenant, err = scope.of(ctx, a); err == nil {
		ifMatch, err = tag(header)
	}
	return tenant, ifMatch, err
}

func (a *admin) mxsets(ctx context.Context, in *scopeInput) (*body[[]publish.MXSet], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	return &body[[]publish.MXSet]{a.manager.MXSets(tenant)}, nil
}

// tagged is an answer with its ETag.
type tagged[T any] struct {
	ETag string `header:"ETag"`
	Body T
}

func (a *admin) mxset(ctx context.Context, in *namedInput) (*tagged[publish.MXSet], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	m, err := a.manager.MXSet(tenant, in.Name)
	if err != nil {
		return nil, wrong(fmt.Sprintf("mx set %q", in.Name), err)
	}
	return &tagged[publish.MXSet]{quoted(m.ETag), m}, nil
}

type putMXSetInput struct {
	Scope
	Name    string `path:"name"`
	IfMatch string `header:"If-Match" doc:"the ETag that it must have, or *: it must be there; else the answer is 412"`
	Body    MXSetSpec
}

func (a *admin) putMXSet(ctx context.Context, in *putMXSetInput) (*changed[publish.MXSet], error) {
	tenant, match, err := a.matching(ctx, in.Scope, in.IfMatch)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("mx set %q", in.Name)
	_, before := a.manager.MXSet(tenant, in.Name)
	if _, err := a.manager.PutMXSet(ctx, tenant, in.Body.set(in.Name), match); err != nil {
		return nil, wrong(what, err)
	}
	m, err := a.manager.MXSet(tenant, in.Name)
	if err != nil {
		return nil, wrong(what, err)
	}
	status := http.StatusOK
	if errors.Is(before, store.ErrNotFound) {
		status = http.StatusCreated
	}
	return &changed[publish.MXSet]{status, quoted(m.ETag), m}, nil
}

type planMXSetInput struct {
	Scope
	Name string `path:"name"`
	Body MXSetSpec
}

func (a *admin) planMXSet(ctx context.Context, in *planMXSetInput) (*body[publish.Plan], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	p, err := a.manager.PlanMXSet(ctx, tenant, in.Body.set(in.Name))
	if err != nil {
		return nil, wrong(fmt.Sprintf("mx set %q", in.Name), err)
	}
	return &body[publish.Plan]{p}, nil
}

type removeInput struct {
	Scope
	Name    string `path:"name"`
	IfMatch string `header:"If-Match" doc:"the ETag that it must have, or *: it must be there; else the answer is 412"`
}

func (a *admin) removeMXSet(ctx context.Context, in *removeInput) (*struct{}, error) {
	tenant, match, err := a.matching(ctx, in.Scope, in.IfMatch)
	if err != nil {
		return nil, err
	}
	return nil, wrong(fmt.Sprintf("mx set %q", in.Name), a.manager.DeleteMXSet(ctx, tenant, in.Name, match))
}

func (a *admin) accounts(ctx context.Context, in *scopeInput) (*body[[]publish.Account], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	return &body[[]publish.Account]{a.manager.Accounts(tenant)}, nil
}

func (a *admin) account(ctx context.Context, in *namedInput) (*tagged[publish.Account], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	for _, account := range a.manager.Accounts(tenant) {
		if account.Name == in.Name {
			return &tagged[publish.Account]{quoted(account.ETag), account}, nil
		}
	}
	return nil, wrong(fmt.Sprintf("account %q", in.Name), store.ErrNotFound)
}

type putAccountInput struct {
	Scope
	Name    string `path:"name"`
	IfMatch string `header:"If-Match" doc:"the ETag that it must have, or *: it must be there; else the answer is 412"`
	Body    AccountSpec
}

func (a *admin) putAccount(ctx context.Context, in *putAccountInput) (*tagged[AccountPut], error) {
	tenant, match, err := a.matching(ctx, in.Scope, in.IfMatch)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("account %q", in.Name)
	account, err := config.AccountFrom(in.Name, in.Body.Provider, in.Body.Settings)
	if err != nil {
		return nil, &Problem{Status: http.StatusBadRequest, Detail: what + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	put, check, err := a.manager.PutAccount(ctx, tenant, account, in.Body.Zone, match)
	if err != nil {
		return nil, wrong(what, err)
	}
	return &tagged[AccountPut]{quoted(put.ETag), AccountPut{put, check}}, nil
}

func (a *admin) removeAccount(ctx context.Context, in *removeInput) (*struct{}, error) {
	tenant, match, err := a.matching(ctx, in.Scope, in.IfMatch)
	if err != nil {
		return nil, err
	}
	return nil, wrong(fmt.Sprintf("account %q", in.Name), a.manager.DeleteAccount(ctx, tenant, in.Name, match))
}
