package httpd

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/stspub/stspub/internal/publish"
)

// DomainQuery says which domains are meant. What is empty does not count.
type DomainQuery struct {
	Faults bool   // only those that need a human
	MXSet  string // only those of this MX set
	Step   string // only those at this step
	Prefix string // only those whose names begin so
	Limit  int    // how many at most, up to 1000; 0: all
}

func (q DomainQuery) values() url.Values {
	v := url.Values{}
	for key, value := range map[string]string{"mxset": q.MXSet, "step": q.Step, "prefix": q.Prefix} {
		if value != "" {
			v.Set(key, value)
		}
	}
	if q.Faults {
		v.Set("faults", "1")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// Find calls f for every domain that is meant, by name, until f returns an error, which it returns.
func (c *Client) Find(ctx context.Context, q DomainQuery, f func(publish.Status) error) error {
	return lines(ctx, c, c.scoped("/v1/domains", q.values()), "list domains", f)
}

// PutDomain adds a domain, or changes what is wanted of it; with dryRun it says what would become of it.
func (c *Client) PutDomain(ctx context.Context, name string, spec DomainSpec, dryRun bool) (DomainResult, error) {
	return ask[DomainResult](ctx, c, http.MethodPut, c.scoped("/v1/domains/"+url.PathEscape(name), dry(dryRun)), spec, "add domain")
}

// RemoveOptions say how a domain is removed.
type RemoveOptions struct {
	DryRun  bool // say what would become of it, and change nothing
	Confirm bool // also where so many were removed in the last hour that it looks like a mistake
}

// RemoveDomain lets a domain drain, or takes back the claim to it.
func (c *Client) RemoveDomain(ctx context.Context, name string, o RemoveOptions) (DomainResult, error) {
	q := url.Values{}
	if o.DryRun {
		q.Set("dry_run", "1")
	}
	if o.Confirm {
		q.Set("confirm", "1")
	}
	return ask[DomainResult](ctx, c, http.MethodDelete, c.scoped("/v1/domains/"+url.PathEscape(name), q), nil, "remove domain")
}

func dry(run bool) url.Values {
	if !run {
		return nil
	}
	return url.Values{"dry_run": {"1"}}
}

// Records returns what the owner of a domain puts into DNS. The domain may be claimed only.
func (c *Client) Records(ctx context.Context, name string) (RecordsToSet, error) {
	return ask[RecordsToSet](ctx, c, http.MethodGet, c.scoped("/v1/records/"+url.PathEscape(name), nil), nil, "show records")
}

// MXSets returns the MX sets by name.
func (c *Client) MXSets(ctx context.Context) ([]publish.MXSet, error) {
	return ask[[]publish.MXSet](ctx, c, http.MethodGet, c.scoped("/v1/mxsets", nil), nil, "list mx sets")
}

// MXSet returns one.
func (c *Client) MXSet(ctx context.Context, name string) (publish.MXSet, error) {
	return ask[publish.MXSet](ctx, c, http.MethodGet, c.scoped("/v1/mxsets/"+url.PathEscape(name), nil), nil, "show mx set")
}

// PutMXSet adds or changes an MX set.
func (c *Client) PutMXSet(ctx context.Context, name string, spec MXSetSpec) (publish.MXSet, error) {
	return ask[publish.MXSet](ctx, c, http.MethodPut, c.scoped("/v1/mxsets/"+url.PathEscape(name), nil), spec, "put mx set")
}

// PlanMXSet says what a change of an MX set would do.
func (c *Client) PlanMXSet(ctx context.Context, name string, spec MXSetSpec) (publish.Plan, error) {
	return ask[publish.Plan](ctx, c, http.MethodPost, c.scoped("/v1/mxsets/"+url.PathEscape(name)+"/plan", nil), spec, "plan mx set")
}

// RemoveMXSet removes an MX set that no domain is on.
func (c *Client) RemoveMXSet(ctx context.Context, name string) error {
	return c.tell(ctx, http.MethodDelete, c.scoped("/v1/mxsets/"+url.PathEscape(name), nil), "remove mx set")
}

// Accounts returns the accounts by name.
func (c *Client) Accounts(ctx context.Context) ([]publish.Account, error) {
	return ask[[]publish.Account](ctx, c, http.MethodGet, c.scoped("/v1/accounts", nil), nil, "list accounts")
}

// PutAccount adds or replaces an account.
func (c *Client) PutAccount(ctx context.Context, name string, spec AccountSpec) (AccountPut, error) {
	return ask[AccountPut](ctx, c, http.MethodPut, c.scoped("/v1/accounts/"+url.PathEscape(name), nil), spec, "put account")
}

// RemoveAccount removes an account that no domain needs.
func (c *Client) RemoveAccount(ctx context.Context, name string) error {
	return c.tell(ctx, http.MethodDelete, c.scoped("/v1/accounts/"+url.PathEscape(name), nil), "remove account")
}

// Claims returns the first thousand domains that are claimed and not proven, by name.
func (c *Client) Claims(ctx context.Context) ([]publish.Claim, error) {
	return ask[[]publish.Claim](ctx, c, http.MethodGet, c.scoped("/v1/claims", nil), nil, "list claims")
}

// Release lets another tenant have a domain as soon as he proves that it is his; withdraw takes that back.
func (c *Client) Release(ctx context.Context, name string, withdraw bool) error {
	if withdraw {
		return c.act(ctx, "release", name, url.Values{"withdraw": {"1"}})
	}
	return c.act(ctx, "release", name, nil)
}
