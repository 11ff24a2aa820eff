package httpd

import (
	"context"
	"net/http"
	"net/url"

	"github.com/stspub/stspub/internal/store"
)

// Tenants returns all tenants by name.
func (c *Client) Tenants(ctx context.Context) ([]TenantInfo, error) {
	return ask[[]TenantInfo](ctx, c, http.MethodGet, "/v1/tenants", nil, "list tenants")
}

// AddTenant adds a tenant.
func (c *Client) AddTenant(ctx context.Context, t NewTenant) (TenantInfo, error) {
	return ask[TenantInfo](ctx, c, http.MethodPost, "/v1/tenants", t, "add tenant")
}

// LimitTenant changes what a tenant may take.
func (c *Client) LimitTenant(ctx context.Context, name string, l store.Limits) (TenantInfo, error) {
	return ask[TenantInfo](ctx, c, http.MethodPut, "/v1/tenants/"+url.PathEscape(name), l, "limit tenant")
}

// RemoveTenant removes a tenant that has nothing, and revokes its tokens.
func (c *Client) RemoveTenant(ctx context.Context, name string) error {
	return c.tell(ctx, http.MethodDelete, "/v1/tenants/"+url.PathEscape(name), "remove tenant")
}

// Tokens returns the tokens of the client's tenant, or without one those of the service, oldest first.
func (c *Client) Tokens(ctx context.Context) ([]TokenInfo, error) {
	return ask[[]TokenInfo](ctx, c, http.MethodGet, c.scoped("/v1/tokens", nil), nil, "list tokens")
}

// AddToken makes a token of the client's tenant, or without one of the service. The answer has its text.
func (c *Client) AddToken(ctx context.Context, t NewToken) (TokenInfo, error) {
	return ask[TokenInfo](ctx, c, http.MethodPost, c.scoped("/v1/tokens", nil), t, "add token")
}

// RevokeToken ends a token, and those that were made with it.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.tell(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), "revoke token")
}
