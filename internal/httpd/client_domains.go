package httpd

import (
	"context"
	"fmt"
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
	var r DomainResult
	if err := c.put(ctx, http.MethodPut, c.scoped("/v1/domains/"+url.PathEscape(name), dry(dryRun)), spec, &r); err != nil {
		return DomainResult{}, fmt.Errorf("add domain: %w", err)
	}
	return r, nil
}

// RemoveDomain lets a domain drain, or takes back the claim to it; with dryRun it says what would become of it.
func (c *Client) RemoveDomain(ctx context.Context, name string, dryRun bool) (DomainResult, error) {
	var r DomainResult
	if err := c.call(ctx, http.MethodDelete, c.scoped("/v1/domains/"+url.PathEscape(name), dry(dryRun)), &r); err != nil {
		return DomainResult{}, fmt.Errorf("remove domain: %w", err)
	}
	return r, nil
}

func dry(run bool) url.Values {
	if !run {
		return nil
	}
	return url.Values{"dry_run": {"1"}}
}

// Records returns what the owner of a domain puts into DNS. The domain may be claimed only.
func (c *Client) Records(ctx context.Context, name string) (RecordsToSet, error) {
	var r RecordsToSet
	if err := c.call(ctx, http.MethodGet, c.scoped("/v1/records/"+url.PathEscape(name), nil), &r); err != nil {
		return RecordsToSet{}, fmt.Errorf("show records: %w", err)
	}
	return r, nil
}

// MXSets returns the MX sets by name.
func (c *Client) MXSets(ctx context.Context) ([]publish.MXSet, error) {
	var all []publish.MXSet
	if err := c.call(ctx, http.MethodGet, c.scoped("/v1/mxsets", nil), &all); err != nil {
		return nil, fmt.Errorf("list mx sets: %w", err)
	}
	return all, nil
}

// MXSet returns one.
func (c *Client) MXSet(ctx context.Context, name string) (publish.MXSet, error) {
	var m publish.MXSet
	if err := c.call(ctx, http.MethodGet, c.scoped("/v1/mxsets/"+url.PathEscape(name), nil), &m); err != nil {
		return publish.MXSet{}, fmt.Errorf("show mx set: %w", err)
	}
	return m, nil
}

// PutMXSet adds or changes an MX set.
func (c *Client) PutMXSet(ctx context.Context, name string, spec MXSetSpec) (publish.MXSet, error) {
	var m publish.MXSet
	if err := c.put(ctx, http.MethodPut, c.scoped("/v1/mxsets/"+url.PathEscape(name), nil), spec, &m); err != nil {
		return publish.MXSet{}, fmt.Errorf("put mx set: %w", err)
	}
	return m, nil
}

// PlanMXSet says what a change of an MX set would do.
func (c *Client) PlanMXSet(ctx context.Context, name string, spec MXSetSpec) (publish.Plan, error) {
	var p publish.Plan
	if err := c.put(ctx, http.MethodPost, c.scoped("/v1/mxsets/"+url.PathEscape(name)+"/plan", nil), spec, &p); err != nil {
		return publish.Plan{}, fmt.Errorf("plan mx set: %w", err)
	}
	return p, nil
}

// RemoveMXSet removes an MX set that no domain is on.
func (c *Client) RemoveMXSet(ctx context.Context, name string) error {
	if err := c.call(ctx, http.MethodDelete, c.scoped("/v1/mxsets/"+url.PathEscape(name), nil), nil); err != nil {
		return fmt.Errorf("remove mx set: %w", err)
	}
	return nil
}

// Accounts returns the accounts by name.
func (c *Client) Accounts(ctx context.Context) ([]publish.Account, error) {
	var all []publish.Account
	if err := c.call(ctx, http.MethodGet, c.scoped("/v1/accounts", nil), &all); err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return all, nil
}

// PutAccount adds or replaces an account.
func (c *Client) PutAccount(ctx context.Context, name string, spec AccountSpec) (AccountPut, error) {
	var p AccountPut
	if err := c.put(ctx, http.MethodPut, c.scoped("/v1/accounts/"+url.PathEscape(name), nil), spec, &p); err != nil {
		return AccountPut{}, fmt.Errorf("put account: %w", err)
	}
	return p, nil
}

// RemoveAccount removes an account that no domain needs.
func (c *Client) RemoveAccount(ctx context.Context, name string) error {
	if err := c.call(ctx, http.MethodDelete, c.scoped("/v1/accounts/"+url.PathEscape(name), nil), nil); err != nil {
		return fmt.Errorf("remove account: %w", err)
	}
	return nil
}

// Claims returns the first thousand domains that are claimed and not proven, by name.
func (c *Client) Claims(ctx context.Context) ([]publish.Claim, error) {
	var all []publish.Claim
	if err := c.call(ctx, http.MethodGet, c.scoped("/v1/claims", nil), &all); err != nil {
		return nil, fmt.Errorf("list claims: %w", err)
	}
	return all, nil
}

// Release lets another tenant have a domain as soon as he proves that it is his; withdraw takes that back.
func (c *Client) Release(ctx context.Context, name string, withdraw bool) error {
	if withdraw {
		return c.act(ctx, "release", name, url.Values{"withdraw": {"1"}})
	}
	return c.act(ctx, "release", name, nil)
}
