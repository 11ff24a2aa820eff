package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/store"
)

// runClaims looks at claims that are due, until ctx ends and the last look has.
func (r *Reconciler) runClaims(ctx context.Context) {
	var looks errgroup.Group
	looks.SetLimit(provers)
	defer func() { _ = looks.Wait() }() // none of them returns an error
	tick := time.NewTicker(claimEvery)
	defer tick.Stop()
	for {
		if err := r.dueClaims(ctx, &looks); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("claims not looked at", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.claims:
		case <-tick.C:
		}
	}
}

// dueClaims begins looks at all claims that are due. One whose name servers are silent holds up nobody else, and however many
// a tenant has, the claims of others do not wait for them.
func (r *Reconciler) dueClaims(ctx context.Context, looks *errgroup.Group) error {
	if _, err := r.cfg.Store.ExpireClaims(ctx, r.now()); err != nil {
		return err
	}
	for {
		n := min(atOnce, (r.looks.free()+1)/2) // so that one tenant does not take the last places at once
		if n == 0 {
			return nil // the next look that ends says so
		}
		due, err := r.cfg.Store.DueClaims(ctx, r.now(), claimLease, n, r.looks.full()...)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, c := range due {
			r.looks.begin(c.Domain.Tenant)
			looks.Go(func() error {
				defer func() {
					if r.looks.end(c.Domain.Tenant) {
						r.pokeClaims() // what it had to leave
					}
				}()
				if err := r.lookAtClaim(ctx, c); err != nil && ctx.Err() == nil {
					r.cfg.Log.Error("claim not looked at", "domain", c.Domain.Name, "err", err)
				}
				return nil
			})
		}
	}
}

// lookAtClaim looks for a claim's proof, and keeps what came of it.
func (r *Reconciler) lookAtClaim(ctx context.Context, c store.DomainClaim) error {
	ctx, cancel := context.WithTimeout(ctx, claimLease)
	defer cancel()
	set := r.settings.Load()
	p := proofOf(set.conf.Server.Hostname, c)
	seen := r.cfg.Prover.Prove(ctx, p)
	v := judgeClaim(p, seen, c.Domain.Publish, false)
	if v.write {
		err := r.challenge(ctx, set, c, dnsupdate.Change{Zone: seen.Zone, Name: p.Challenge, Add: p.Value})
		if err == nil {
			seen = r.cfg.Prover.Prove(ctx, p)
		}
		if v = judgeClaim(p, seen, c.Domain.Publish, true); err != nil && !v.proven {
			v.reason += "; it is not written by account " + c.Domain.Account + ": " + err.Error()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.proven {
		settled, err := r.settleClaim(ctx, c)
		if err == nil && settled == "" && c.Domain.Publish == store.PublishZone {
			r.unchallenge(ctx, set, c, seen, p)
		}
		if err != nil || settled == "" {
			return err
		}
		v.reason = settled
	}
	c.Looked, c.Reason, c.Looks = r.now(), toTenant(c.Domain.Tenant, v.reason), c.Looks+1
	if c.Reason != v.reason {
		r.cfg.Log.Debug("claim waits", "domain", c.Domain.Name, "tenant", c.Domain.Tenant, "reason", v.reason)
	}
	c.Due = c.Looked.Add(min(claimPause<<min(c.Looks-1, 16), claimRest))
	err := r.cfg.Store.SaveClaim(ctx, c)
	if errors.Is(err, store.ErrNotFound) {
		return nil // it was withdrawn meanwhile
	}
	return err
}

// settleClaim makes a domain of a claim that is proven. It returns why that waits; empty: it does not.
func (r *Reconciler) settleClaim(ctx context.Context, c store.DomainClaim) (string, error) {
	set := r.settings.Load() // not those of before the look, which may have taken minutes
	if err := set.checkWay(c.Domain); err != nil {
		return "it is proven, and cannot be published as it is wanted: " + err.Error(), nil
	}
	done, err := r.cfg.Store.ApplyDomains(ctx, store.Batch{
		Owner: store.OwnerAPI, Refuse: refuses(set.conf),
		Changes: []store.DomainChange{{Domain: c.Domain, Proven: true, OwnAccount: set.owns(c.Domain), Shared: set.sharedOf(c.Domain)}},
	}, r.now())
	if err != nil {
		return "", err
	}
	switch err := done[0].Err; {
	case err == nil:
		r.cfg.Log.Info("claim proven", "domain", c.Domain.Name, "tenant", c.Domain.Tenant, "result", string(done[0].Result))
		r.poke()
		return "", nil
	case errors.Is(err, store.ErrStale): // it wants something else by now, and is looked at again for that
		return "", nil
	case errors.Is(err, store.ErrTaken):
		return "taken: it is proven, and belongs to another tenant until that one removes or releases it; or its record is needed where it is, " +
			"and it has to be published in the same way until that is gone", nil
	default:
		return "it is proven, and cannot be published as it is wanted: " + err.Error(), nil
	}
}

// challenge has the account of a claim write beside the domain.
func (r *Reconciler) challenge(ctx context.Context, set *settings, c store.DomainClaim, change dnsupdate.Change) error {
	account, ok := set.account(c.Domain)
	if !ok {
		return fmt.Errorf("account %q is not there; put it", c.Domain.Account)
	}
	leave, err := r.enter(ctx, set.accountKey(c.Domain))
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	change.TTL = challengeTTL
	return account.Apply(ctx, change)
}

// unchallenge takes away what an account wrote. What stays behind proves nothing: a token is used once.
func (r *Reconciler) unchallenge(ctx context.Context, set *settings, c store.DomainClaim, seen Proven, p Proof) {
	if !slices.ContainsFunc(seen.Texts, func(values []string) bool { return slices.Contains(values, p.Value) }) {
		return
	}
	err := r.challenge(ctx, set, c, dnsupdate.Change{Zone: seen.Zone, Name: p.Challenge, Remove: []string{p.Value}})
	if err != nil {
		r.cfg.Log.Warn("challenge not removed", "record", p.Challenge, "err", err)
	}
}

// challengeTTL is the least that every provider takes, or rounds up.
const challengeTTL = time.Minute

// Prove implements [Prover].
func (o *Outside) Prove(ctx context.Context, p Proof) Proven {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var seen Proven
	var g errgroup.Group
	g.Go(func() error { seen.Hosts, seen.HostErr = o.led(ctx, p.PolicyHost); return nil })
	g.Go(func() error {
		v, err := o.Observer.Observe(ctx, p.Challenge, dns.TypeTXT)
		if err != nil {
			seen.TextErr = "its zone's name servers were not found: " + err.Error()
			return nil
		}
		seen.Zone = v.Zone
		for _, a := range v.Answers {
			if a.Err == nil {
				seen.Texts = append(seen.Texts, a.TXT)
			}
		}
		if !v.Complete() {
			seen.TextErr = failures(v)
		}
		return nil
	})
	_ = g.Wait() // none of them returns an error
	return seen
}

// led says where each name server has a policy host lead.
func (o *Outside) led(ctx context.Context, host string) ([]Led, string) {
	v, err := o.Observer.Observe(ctx, host, dns.TypeA)
	if err != nil {
		return nil, "its zone's name servers were not found: " + err.Error()
	}
	var all []Led
	ends := make(map[string][]string) // the rest of the chain, by where it begins
	for _, a := range v.Answers {
		if a.Err != nil {
			continue
		}
		l := Led{Addrs: addresses(dnsupdate.View{Answers: []dnsupdate.Answer{a}})}
		if a.CNAME != "" {
			rest, known := ends[a.CNAME]
			if !known {
				if end, err := o.Client.Resolver.Lookup(ctx, a.CNAME, dns.TypeA); err == nil {
					rest = end.Chain
				}
				ends[a.CNAME] = rest
			}
			l.Chain = append([]string{strings.ToLower(a.CNAME)}, rest...)
		}
		all = append(all, l)
	}
	if v.Complete() {
		return all, ""
	}
	return all, failures(v)
}
