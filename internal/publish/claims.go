package publish

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// A tenant proves that a domain is his by the domain's DNS, in one of three ways: its policy host is a CNAME to the target
// that is his alone, or a TXT record that only he was told of stands beside it, which he may leave to his own account to
// write. An address proves nothing: all tenants have the same. Nor does a zone in an account: everybody can have a zone of
// any name at some provider. What is written there counts when the name servers answer it that the rest of DNS leads to.

const (
	challengePrefix = "_stspub-challenge."
	challengeText   = "stspub-claim="

	// claimTime is how long a claim waits for its proof.
	claimTime  = 7 * 24 * time.Hour
	claimLease = 3 * time.Minute  // longer than two looks and two writes
	claimPause = time.Minute      // after the first look; it doubles
	claimRest  = 6 * time.Hour    // up to this
	claimEvery = 10 * time.Second // how often is looked which claims are due
	provers    = 256              // claims looked at at the same time; the looks mostly wait for answers
)

// Claim is a domain that a tenant wants and has not proven to be his. It is not served, and no certificate is ordered.
type Claim struct {
	Name    policygen.Name `json:"name"`
	Tenant  string         `json:"tenant"`
	MXSet   string         `json:"mxset"`
	Publish string         `json:"publish"`
	Account string         `json:"account"`
	Created time.Time      `json:"created"`
	Expires time.Time      `json:"expires"`
	Looked  time.Time      `json:"looked,omitzero"`
	Due     time.Time      `json:"due"`              // when it is looked at next
	Reason  string         `json:"reason,omitempty"` // why it is not proven, as seen at the last look
	Records []string       `json:"records"`          // one of them proves it, as zone-file lines
}

// claimOf puts a claim into words.
func claimOf(hostname string, c store.DomainClaim) Claim {
	d := c.Domain
	p := proofOf(hostname, c)
	return Claim{
		Name: d.Name, Tenant: d.Tenant, MXSet: d.MXSet, Publish: d.Publish, Account: d.Account, Created: c.Created,
		Expires: c.Expires, Looked: c.Looked, Due: c.Due, Reason: c.Reason,
		Records: []string{
			fmt.Sprintf("%s. 300 IN CNAME %s.", d.Name.PolicyHost(), p.Target),
			fmt.Sprintf("; or: %s. 300 IN TXT %q", p.Challenge, p.Value),
		},
	}
}

// Proof is what proves a claim: that PolicyHost leads to Target, or that Value stands at Challenge.
type Proof struct {
	PolicyHost, Target string
	Challenge, Value   string // owner name and value of a TXT record
}

func proofOf(hostname string, c store.DomainClaim) Proof {
	name := c.Domain.Name
	return Proof{
		PolicyHost: name.PolicyHost(), Target: Target(hostname, c.Domain.Tenant),
		Challenge: challengePrefix + string(name), Value: challengeText + c.Token,
	}
}

// Prover looks for proofs. [Outside] is the real one.
type Prover interface {
	// Prove asks every authoritative server.
	Prove(ctx context.Context, p Proof) Proven
}

// Proven is what was seen of a [Proof].
type Proven struct {
	// Hosts is where the policy host leads by the answer of each server, and Texts are the TXT values at the challenge.
	Hosts []Led
	Texts [][]string
	// HostErr and TextErr say which servers did not answer; empty: all did.
	HostErr, TextErr string
	Zone             string // of the challenge; empty: not found
}

// Led is one server's answer about a policy host.
type Led struct {
	Chain []string     // targets of CNAMEs, lower case, without trailing dot
	Addrs []netip.Addr // where there is no CNAME
}

// verdict is what is to be done about a claim.
type verdict struct {
	proven bool
	write  bool   // the tenant's account is to write the challenge
	reason string // why it is not proven
}

// judgeClaim decides about a claim by what was seen. It is pure. wrote says that the account wrote the challenge already.
func judgeClaim(p Proof, seen Proven, publish string, wrote bool) verdict {
	texts := 0
	for _, values := range seen.Texts {
		if slices.Contains(values, p.Value) {
			texts++
		}
	}
	hosts := 0
	for _, h := range seen.Hosts {
		if comesBy(p.Target, h.Chain) {
			hosts++
		}
	}
	all := func(n, of int, failed string) bool { return n > 0 && n == of && failed == "" } // one name server may be another's
	switch {
	case all(hosts, len(seen.Hosts), seen.HostErr), all(texts, len(seen.Texts), seen.TextErr):
		return verdict{proven: true}
	case publish == store.PublishZone && !wrote && seen.Zone != "" && texts == 0:
		return verdict{write: true}
	}
	waiting := fmt.Sprintf("waiting for: CNAME %s → %s, or %s TXT %q", p.PolicyHost, p.Target, p.Challenge, p.Value)
	switch {
	case hosts > 0:
		return verdict{reason: waiting + "; not every name server answers the CNAME" + failing(seen.HostErr)}
	case texts > 0:
		return verdict{reason: waiting + "; not every name server answers the TXT" + failing(seen.TextErr)}
	}
	return verdict{reason: waiting + ", last seen " + ledTo(p, seen.Hosts) + failing(seen.HostErr)}
}

func failing(why string) string {
	if why == "" {
		return ""
	}
	return "; " + why
}

// comesBy says whether a chain of CNAMEs comes by a target, and by no other name of the service's before.
func comesBy(target string, chain []string) bool {
	_, hostname, _ := strings.Cut(target, ".")
	for _, name := range chain {
		if name == hostname || strings.HasSuffix(name, "."+hostname) {
			return name == target
		}
	}
	return false
}

// ledTo says in words where a policy host leads.
func ledTo(p Proof, hosts []Led) string {
	for _, h := range hosts {
		switch {
		case len(h.Chain) > 0:
			return "CNAME " + h.Chain[0]
		case len(h.Addrs) > 0:
			return "addresses " + join(h.Addrs) + ", which prove nothing: all tenants have the same"
		}
	}
	return "no such record"
}

// Claims returns a page of a tenant's claims by name.
func (r *Reconciler) Claims(ctx context.Context, tenant string, after policygen.Name, n int) ([]Claim, error) {
	page, err := r.cfg.Store.ClaimsOf(ctx, tenant, after, n)
	all := make([]Claim, len(page))
	for i, c := range page {
		all[i] = claimOf(r.settings.Load().conf.Server.Hostname, c)
	}
	return all, err
}

// Claim returns one claim of a tenant, or store.ErrNotFound.
func (r *Reconciler) Claim(ctx context.Context, tenant string, name policygen.Name) (Claim, error) {
	c, err := r.cfg.Store.DomainClaim(ctx, tenant, name)
	if err != nil {
		return Claim{}, err
	}
	return claimOf(r.settings.Load().conf.Server.Hostname, c), nil
}

// LookAtClaim has a claim looked at now.
func (r *Reconciler) LookAtClaim(ctx context.Context, tenant string, name policygen.Name) error {
	c, err := r.cfg.Store.DomainClaim(ctx, tenant, name)
	if err != nil {
		return err
	}
	c.Due, c.Looks = r.now(), 0
	if err := r.cfg.Store.SaveClaim(ctx, c); err != nil {
		return err
	}
	r.pokeClaims()
	return nil
}

func (r *Reconciler) pokeClaims() {
	select {
	case r.claims <- struct{}{}:
	default: // they will be looked at
	}
}
