package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// TenantInfo is a tenant as the admin API shows it.
type TenantInfo struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	store.Limits
	Used store.Spent `json:"used" doc:"in the last day"`
	ETag string      `json:"etag" doc:"of what it is and may take, not of what it used"`
}

func tenantInfo(t store.Tenant, used store.Spent) TenantInfo {
	return TenantInfo{t.Name, t.Created, t.Limits, used, t.ETag()}
}

// NewTenant is the body of POST /v1/tenants.
type NewTenant struct {
	Name string `json:"name" maxLength:"63" pattern:"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" patternDescription:"lower-case letters, digits and hyphens, none of these first or last" doc:"it stands in names of DNS, so it never changes"`
	store.Limits
}

// TokenInfo is a token as the admin API shows it.
type TokenInfo struct {
	ID      string    `json:"id"`
	Tenant  string    `json:"tenant,omitempty" doc:"without one it is of the service as a whole"`
	Role    string    `json:"role" enum:"admin,read"`
	Label   string    `json:"label"`
	Maker   string    `json:"maker,omitempty" doc:"the id of the token that made it; without one it was made on the machine itself"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Used    time.Time `json:"used,omitzero" doc:"last, to about a minute"`
	Revoked time.Time `json:"revoked,omitzero"`
	// Token is the text to send. Only the answer that made it has it.
	Token string `json:"token,omitempty" doc:"what to send; it is shown here and never again"`
}

// NewToken is the body of POST /v1/tokens.
type NewToken struct {
	Role    string    `json:"role" enum:"admin,read" doc:"read changes nothing"`
	Label   string    `json:"label,omitempty" maxLength:"200" doc:"who has it, for people"`
	Expires time.Time `json:"expires,omitzero" doc:"without it as the token that makes it, and without that never; no later than that one"`
}

// tenantRoutes are those of tenants and tokens.
func (a *admin) tenantRoutes() {
	register(a, ofService(operation("list-tenants", http.MethodGet, "/v1/tenants", "List tenants, by name")), a.tenants)
	add := ofService(operation("add-tenant", http.MethodPost, "/v1/tenants", "Add a tenant"))
	add.DefaultStatus = http.StatusCreated
	register(a, add, a.addTenant)
	register(a, ofService(operation("show-tenant", http.MethodGet, "/v1/tenants/{name}", "Show one tenant")), a.tenant)
	register(a, ofService(operation("limit-tenant", http.MethodPut, "/v1/tenants/{name}", "Change what a tenant may take")), a.limitTenant)
	register(a, ofService(operation("remove-tenant", http.MethodDelete, "/v1/tenants/{name}",
		"Remove a tenant that has nothing, and revoke its tokens")), a.removeTenant)

	register(a, operation("list-tokens", http.MethodGet, "/v1/tokens", "List tokens, without their secrets"), a.tokens)
	add = operation("add-token", http.MethodPost, "/v1/tokens", "Make a token, and show it this once")
	add.DefaultStatus = http.StatusCreated
	register(a, add, a.addToken)
	revoke := operation("revoke-token", http.MethodDelete, "/v1/tokens/{id}", "Revoke a token, and those made with it, at once")
	revoke.Description = "A token has no ETag: nothing of it is ever changed but this, which is final and may be sent again."
	register(a, revoke, a.revokeToken)
}

func noTenant(name string, err error) error {
	if errors.Is(err, store.ErrMismatch) {
		return wrong(fmt.Sprintf("tenant %q", name), err)
	}
	return missing(err, "there is no tenant %q", name)
}

func (a *admin) tenants(ctx context.Context, _ *struct{}) (*body[[]TenantInfo], error) {
	all, err := a.tenancy.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	used, err := a.tenancy.Spent(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	infos := make([]TenantInfo, 0, len(all))
	for _, t := range all {
		infos = append(infos, tenantInfo(t, used[t.Name]))
	}
	return &body[[]TenantInfo]{infos}, nil
}

type tenantInput struct {
	Name string `path:"name"`
}

func (a *admin) tenant(ctx context.Context, in *tenantInput) (*tagged[TenantInfo], error) {
	t, err := a.tenancy.Tenant(ctx, in.Name)
	if err != nil {
		return nil, noTenant(in.Name, err)
	}
	return a.tenantNow(ctx, t)
}

// tenantNow answers with a tenant, and with what it used.
func (a *admin) tenantNow(ctx context.Context, t store.Tenant) (*tagged[TenantInfo], error) {
	used, err := a.tenancy.Spent(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	return &tagged[TenantInfo]{quoted(t.ETag()), tenantInfo(t, used[t.Name])}, nil
}

func (a *admin) addTenant(ctx context.Context, in *body[NewTenant]) (*tagged[TenantInfo], error) {
	t := store.Tenant{Name: in.Body.Name, Limits: in.Body.Limits, Created: time.Now()}
	err := a.tenancy.AddTenant(ctx, t)
	if errors.Is(err, store.ErrExists) {
		return nil, &Problem{Status: http.StatusConflict, Detail: fmt.Sprintf("there is a tenant %q already", t.Name)}
	}
	if err != nil {
		return nil, err
	}
	return &tagged[TenantInfo]{quoted(t.ETag()), tenantInfo(t, store.Spent{})}, nil
}

type limitInput struct {
	Name    string `path:"name"`
	IfMatch string `header:"If-Match" doc:"the ETag that it must have, or *: it must be there; else the answer is 412"`
	Body    store.Limits
}

func (a *admin) limitTenant(ctx context.Context, in *limitInput) (*tagged[TenantInfo], error) {
	match, err := tag(in.IfMatch)
	if err != nil {
		return nil, err
	}
	t, err := a.tenancy.SetLimits(ctx, in.Name, in.Body, match)
	if err != nil {
		return nil, noTenant(in.Name, err)
	}
	return a.tenantNow(ctx, t)
}

type removeTenantInput struct {
	Name    string `path:"name"`
	IfMatch string `header:"If-Match" doc:"the ETag that it must have, or *: it must be there; else the answer is 412"`
}

func (a *admin) removeTenant(ctx context.Context, in *removeTenantInput) (*struct{}, error) {
	match, err := tag(in.IfMatch)
	if err != nil {
		return nil, err
	}
	err = a.tenancy.DeleteTenant(ctx, in.Name, match, time.Now())
	if errors.Is(err, store.ErrInUse) {
		return nil, &Problem{Status: http.StatusConflict, Detail: err.Error()}
	}
	return nil, noTenant(in.Name, err)
}

type tokensInput struct {
	Tenant string `query:"tenant" doc:"which tenant; without one, the service as a whole, or that of the token"`
}

// of returns the tenant of the tokens that are meant, "" for the service.
func (in tokensInput) of(ctx context.Context, a *admin) (string, error) {
	if in.Tenant == "" && callerOf(ctx).tenant == "" {
		return "", nil
	}
	return Scope(in).of(ctx, a)
}

func (a *admin) tokens(ctx context.Context, in *tokensInput) (*body[[]TokenInfo], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	all, err := a.tenancy.Tokens(ctx, tenant)
	if err != nil {
		return nil, err
	}
	infos := make([]TokenInfo, 0, len(all))
	for _, t := range all {
		infos = append(infos, tokenInfo(t))
	}
	return &body[[]TokenInfo]{infos}, nil
}

func tokenInfo(t store.Token) TokenInfo {
	return TokenInfo{
		ID: t.ID, Tenant: t.Tenant, Role: t.Role, Label: t.Label, Maker: t.Maker, Created: t.Created, Expires: t.Expires, Used: t.Used, Revoked: t.Revoked,
	}
}

type addTokenInput struct {
	Tenant string `query:"tenant" doc:"which tenant; without one, the service as a whole, or that of the token"`
	Body   NewToken
}

func (a *admin) addToken(ctx context.Context, in *addTokenInput) (*body[TokenInfo], error) {
	tenant, err := tokensInput{in.Tenant}.of(ctx, a)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if !in.Body.Expires.IsZero() && !in.Body.Expires.After(now) {
		return nil, &Problem{Status: http.StatusBadRequest, Detail: "body.expires: is over; write a time to come, or leave it out"}
	}
	maker := callerOf(ctx)
	switch {
	case maker.expires.IsZero():
	case in.Body.Expires.IsZero():
		in.Body.Expires = maker.expires
	case in.Body.Expires.After(maker.expires):
		return nil, &Problem{
			Status: http.StatusBadRequest,
			Detail: "body.expires: is after " + maker.expires.UTC().Format(time.RFC3339) + ", when the token ends that makes it",
		}
	}
	text, id, hash, err := newToken()
	if err != nil {
		return nil, err
	}
	t := store.Token{
		ID: id, Tenant: tenant, Role: in.Body.Role, Label: in.Body.Label, Maker: maker.token, Hash: hash, Created: now,
		Expires: in.Body.Expires,
	}
	switch err := a.tenancy.AddToken(ctx, t); {
	case errors.Is(err, store.ErrTokens), errors.Is(err, store.ErrStale):
		return nil, &Problem{Status: http.StatusConflict, Detail: err.Error()}
	case err != nil:
		return nil, noTenant(tenant, err)
	}
	info := tokenInfo(t)
	info.Token = text
	return &body[TokenInfo]{info}, nil
}

type revokeTokenInput struct {
	ID       string `path:"id"`
	KeepMade bool   `query:"keep_made" doc:"leave the tokens that were made with it; without it they end too"`
}

func (a *admin) revokeToken(ctx context.Context, in *revokeTokenInput) (*struct{}, error) {
	t, err := a.tenancy.Token(ctx, in.ID)
	if own := callerOf(ctx).tenant; err == nil && own != "" && t.Tenant != own {
		err = store.ErrNotFound
	}
	if err == nil {
		err = a.tenancy.RevokeToken(ctx, in.ID, time.Now())
	}
	if err == nil && !in.KeepMade { // after it: no more are made then
		err = a.tenancy.RevokeMade(ctx, in.ID, time.Now())
	}
	return nil, missing(err, "there is no token %q", in.ID)
}
