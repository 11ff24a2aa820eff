package httpd

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/stspub/stspub/internal/store"
)

// Tenants returns all tenants by name.
func (c *Client) Tenants(ctx context.Context) ([]TenantInfo, error) {
	var all []TenantInfo
	if err := c.call(ctx, http.MethodGet, "/v1/tenants", &all); err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	return all, nil
}

// AddTenant adds a tenant.
func (c *Client) AddTenant(ctx context.Context, t NewTenant) (TenantInfo, error) {
	var info TenantInfo
	if err := c.put(ctx, http.MethodPost, "/v1/tenants", t, &info); err != nil {
		return TenantInfo{}, fmt.Errorf("add tenant: %w", err)
	}
	return info, nil
}

// LimitTenant changes what a tenant may take.
func (c *Client) LimitTenant(ctx context.Context, name string, l store.Limits) (TenantInfo, error) {
	var info TenantInfo
	if err := c.put(ctx, http.MethodPut, "/v1/tenants/"+url.PathEscape(name), l, &info); err != nil {
		return TenantInfo{}, fmt.Errorf("limit tenant: %w", err)
	}
	return info, nil
}

// RemoveTenant removes a tenant that has nothing, and revokes its tokens.
func (c *Client) RemoveTenant(ctx context.Context, name string) error {
	if err := c.call(ctx, http.MethodDelete, "/v1/tenants/"+url.PathEscape(name), nil); err != nil {
		return fmt.Errorf("remove tenant: %w", err)
	}
	return nil
}

// Tokens returns the tokens of the client's tenant, or without one those of the service, oldest first.
func (c *Client) Tokens(ctx context.Context) ([]TokenInfo, error) {
	var all []TokenInfo
	if err := c.call(ctx, http.MethodGet, c.scoped("/v1/tokens", nil), &all); err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return all, nil
}

// AddToken makes a token of the client's tenant, or without one of the service. The answer has its text.
func (c *Client) AddToken(ctx context.Context, t NewToken) (TokenInfo, error) {
	var info TokenInfo
	if err := c.put(ctx, http.MethodPost, c.scoped("/v1/tokens", nil), t, &info); err != nil {
		return TokenInfo{}, fmt.Errorf("add token: %w", err)
	}
	return info, nil
}

// RevokeToken ends a token, and those that were made with it.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	if err := c.call(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), nil); err != nil {
		return fmt.Errorf("revoke token: %w", err)
	}
	return nil
}
