package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// More errors that callers branch on.
var (
	// ErrExists says that there is one of that name already.
	ErrExists = errors.New("there is one already")
	// ErrInUse says that something needs it still.
	ErrInUse = errors.New("in use")
	// ErrLimit says that a tenant has all that it may have.
	ErrLimit = errors.New("the tenant has as many domains as it may have, with those that drain and those it claims")
)

// FullError says that a tenant has as many MX sets or accounts as it may have.
type FullError struct {
	What string // "mx set" or "account"
	Most int
}

// Error says what to do about it.
func (e *FullError) Error() string {
	return fmt.Sprintf("the tenant may have %d %ss, and has them, with those that draining domains need; remove one, or have the limit raised",
		e.Most, e.What)
}

// MaxTokens is how many tokens a tenant, or the service, may have, with those that ended in the last 30 days.
const MaxTokens = 1000

// ErrTokens says that there are MaxTokens.
var ErrTokens = fmt.Errorf("there are %d tokens already, with those that ended in the last 30 days", MaxTokens)

// DefaultTenant is the tenant of what the configuration file declares. It is always there.
const DefaultTenant = "default"

// Limits are what a tenant may take. Zero: as much as it likes, but for MXSets and Accounts, of which each node holds all in
// memory; see [Limits.For].
type Limits struct {
	Domains  int `json:"domains,omitempty" minimum:"0" doc:"how many domains it may have, with those that drain and those it claims; without it, any number"`
	MXSets   int `json:"mxsets,omitempty" minimum:"0" doc:"how many MX sets it may have, with those that draining domains need; without it, 1000, and the tenant default any number"`
	Accounts int `json:"accounts,omitempty" minimum:"0" doc:"how many accounts it may have; without it, 100, and the tenant default any number"`
	Orders   int `json:"orders_a_day,omitempty" minimum:"0" doc:"how many first certificates it may order in a day, failed orders counted; renewals are not; without it, any number"`
	Writes   int `json:"writes_a_day,omitempty" minimum:"0" doc:"how many writes to DNS it may cause in a day; what keeps records right is written beyond it too; without it, any number"`
}

// What a tenant other than [DefaultTenant] may have where its limits do not say it.
const (
	UsualMXSets   = 1000
	UsualAccounts = 100
)

// For returns the limits of a tenant with those that hold where they say nothing. Zero is as much as it likes, then.
func (l Limits) For(tenant string) Limits {
	if tenant != DefaultTenant {
		l.MXSets, l.Accounts = cmp.Or(l.MXSets, UsualMXSets), cmp.Or(l.Accounts, UsualAccounts)
	}
	return l
}

// Tenant is who owns domains, MX sets, accounts and tokens.
type Tenant struct {
	Name    string // an LDH label, for ever
	Limits  Limits
	Created time.Time
}

// What a [Token] allows.
const (
	RoleAdmin = "admin" // all of its tenant, or of the service
	RoleRead  = "read"  // to look at that
)

// Token is a key to the admin API. Its secret is not kept.
type Token struct {
	ID      string
	Tenant  string // empty: it is for the service as a whole
	Role    string // RoleAdmin or RoleRead
	Label   string // who has it, for people
	Maker   string // ID of the token that it was made with; empty: it was made on the machine itself
	Hash    []byte // SHA-256 of the secret
	Created time.Time
	Expires time.Time // zero: never
	Used    time.Time // last, to about a minute; zero: never
	Revoked time.Time // zero: it was not
}

// ETag stands for what a tenant is and may take, not for what it took.
func (t Tenant) ETag() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %d %d", t.Name, t.Limits, micros(t.Created)) // a hash takes everything
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Tenancy is the part of a [Store] about tenants and their tokens.
type Tenancy interface {
	// Tenants returns all tenants by name, and Tenant one, or ErrNotFound.
	Tenants(ctx context.Context) ([]Tenant, error)
	Tenant(ctx context.Context, name string) (Tenant, error)
	// AddTenant adds one; if it is there, the error wraps ErrExists.
	AddTenant(ctx context.Context, t Tenant) error
	// SetLimits changes those of a tenant, and returns it as it is then, or ErrNotFound. IfMatch, if not empty, is the ETag
	// that it must have before, or "*"; else the error is ErrMismatch.
	SetLimits(ctx context.Context, name string, l Limits, ifMatch string) (Tenant, error)
	// DeleteTenant forgets a tenant, its claims and webhooks, and revokes its tokens. While it has domains (draining ones too),
	// accounts or MX sets the error wraps ErrInUse and says which. The default tenant is always in use. IfMatch is as in
	// SetLimits.
	DeleteTenant(ctx context.Context, name, ifMatch string, now time.Time) error
	// TenantOf returns the tenant of a domain, or ErrNotFound, and takes as long for the one as for the other.
	TenantOf(ctx context.Context, domain string) (string, error)
	// Spent returns what tenants took in the day before now, by name; who took nothing is not in it.
	Spent(ctx context.Context, now time.Time) (map[string]Spent, error)
	// CountWrite counts one more write to DNS of a tenant, before it is made: of several callers at the same time, in
	// whatever process, no more are let through than the limit allows; others get an error that wraps ErrSpent. What must
	// be written is counted and let through in any case. Without a limit nothing is counted.
	CountWrite(ctx context.Context, tenant string, must bool, now time.Time) error
	// WriteQuota says how it stands with the writes to DNS of a tenant.
	WriteQuota(ctx context.Context, tenant string, now time.Time) (WriteQuota, error)
	// CountStep counts the domains of a tenant at a step whose names come before one (by bytes), no further than most.
	CountStep(ctx context.Context, tenant, step, before string, most int) (int, error)
	// RequestPart returns the part of a tenant's request that begins at a line, or ErrNotFound, also where the request began
	// [RequestKept] before now; see [Batch].
	RequestPart(ctx context.Context, tenant, id string, line int, now time.Time) (RequestPart, error)
	// SharedOf returns the shared records of a tenant by name.
	SharedOf(ctx context.Context, tenant string) ([]Domain, error)

	// Tokens returns the tokens of a tenant, or with "" those of the service, revoked and expired ones too, oldest first.
	Tokens(ctx context.Context, tenant string) ([]Token, error)
	// Token returns one, or ErrNotFound.
	Token(ctx context.Context, id string) (Token, error)
	// HasTokens says whether there ever was a token.
	HasTokens(ctx context.Context) (bool, error)
	// AddToken keeps a token. A tenant that is not there is ErrNotFound, an ID that is there ErrExists, and a Maker that is not
	// there or revoked ErrStale. A tenant, or the service, that has MaxTokens is ErrTokens; those that ended more than 30 days
	// before Created are forgotten. Used and Revoked are not read.
	AddToken(ctx context.Context, t Token) error
	// UseToken notes that a token was used now.
	UseToken(ctx context.Context, id string, now time.Time) error
	// RevokeToken ends a token, or returns ErrNotFound. One that was revoked before stays revoked since then.
	RevokeToken(ctx context.Context, id string, now time.Time) error
	// RevokeMade ends all tokens that were made with a token, and with those. No more come once that one is revoked.
	RevokeMade(ctx context.Context, id string, now time.Time) error
}
