package publish

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

const (
	// maxNameOctets is the length of the longest domain name as it is written. RFC 1035, Section 2.3.4.
	maxNameOctets = 253
	// labelOctets is that of [policygen.Name.Label].
	labelOctets = 26
)

// Change is what the API wants of one domain.
type Change struct {
	Name string // as people write it
	// MXSet, Publish ("zone", "alias", "shared", "manual"), Account (only with "zone"), Adopt and TLSRPT (addresses, none:
	// no record) mean what they mean in the configuration file. A removal reads none of them.
	MXSet, Publish, Account string
	Adopt                   bool
	TLSRPT                  []string

	Remove  bool   // it drains, or the claim to it is withdrawn
	IfMatch string // the ETag that the domain must have, "*": it must be there; empty: whatever is there
}

// ApplyOptions say how changes are made.
type ApplyOptions struct {
	DryRun bool
	// Confirmed lets a mass removal through, as the hash of a plan does at a reload.
	Confirmed bool
	// Removed counts the domains that earlier batches of the same request removed.
	Removed int
	// Part, if set, is the part of a request that the changes are. It is kept with them, with what Answers makes of the
	// outcomes; one that is kept already is store.ErrExists. See [store.Batch].
	Part    *store.RequestPart
	Answers func([]Outcome) ([]byte, error)
}

// Outcome is what became of a [Change].
type Outcome struct {
	Name   string       // A-label; where it is no name, as it was given
	Result store.Result // empty with Err
	ETag   string       // of the domain as it is then; empty for a claim, and with Err
	// Err is why nothing was changed: an [*InvalidError], or as in [store.DomainOutcome].
	Err error
}

// Apply makes changes of a tenant's domains by the API, in one transaction, and returns an outcome for each. Another domain
// than tenant "default"'s is a claim first, until the tenant has proven it. Where so many are removed, with what the tenant
// removed within [store.RemovalPeriod] by whatever requests, that it may be a mistake, the changes are refused as a whole,
// with [ErrRefused], unless they are confirmed; what was confirmed does not count later.
func (r *Reconciler) Apply(ctx context.Context, tenant string, changes []Change, o ApplyOptions) ([]Outcome, error) {
	set := r.settings.Load()
	outcomes := make([]Outcome, len(changes))
	batch := store.Batch{Owner: store.OwnerAPI, DryRun: o.DryRun, Refuse: refuses(set.conf), Part: o.Part}
	var which []int // of the outcomes each change of the batch is
	fill := func(done []store.DomainOutcome) {
		for i, d := range done {
			to := &outcomes[which[i]]
			to.Result, to.ETag, to.Err = d.Result, d.ETag, d.Err
		}
	}
	batch.Answers = func(done []store.DomainOutcome) ([]byte, error) {
		fill(done)
		return o.Answers(outcomes)
	}
	if batch.Removed = o.Removed; !o.Confirmed {
		batch.TooMany = massRemoval
	}
	now := r.now()
	for i, c := range changes {
		outcomes[i].Name = c.Name
		change, err := set.change(tenant, c, now)
		if change.Domain.Name != "" {
			outcomes[i].Name = string(change.Domain.Name)
		}
		if err != nil {
			outcomes[i].Err = err
			continue
		}
		batch.Changes, which = append(batch.Changes, change), append(which, i)
	}
	done, err := r.cfg.Store.ApplyDomains(ctx, batch, now)
	if many, ok := errors.AsType[*store.MassRemovalError](err); ok {
		return nil, fmt.Errorf("%w: %w, which looks like a mistake; nothing more is changed; if it is meant, confirm it", ErrRefused, many)
	}
	if err != nil {
		return nil, err
	}
	fill(done)
	if !o.DryRun {
		r.poke()
		if slices.ContainsFunc(done, func(d store.DomainOutcome) bool { return d.Result == store.ResultClaimed }) {
			r.pokeClaims()
		}
	}
	return outcomes, nil
}

// refuses says why a domain that is there cannot become what is wanted.
func refuses(conf *config.Config) func(have, want store.Domain) error {
	return func(have, want store.Domain) error {
		if have.State.Zone == "" && have.State.Report.Text == "" {
			return nil
		}
		err := misplaced(conf, have, config.Domain{Name: want.Name, Publish: want.Publish}, true, true)
		if err != nil {
			return invalid("publish", "%s", err)
		}
		return nil
	}
}

// change checks what the API wants of a domain.
func (s *settings) change(tenant string, c Change, now time.Time) (store.DomainChange, error) {
	change := store.DomainChange{Remove: c.Remove, IfMatch: c.IfMatch, Domain: store.Domain{Tenant: tenant}}
	name, err := policygen.ParseName(c.Name)
	if err != nil {
		return change, invalidBy("name", err)
	}
	d := &change.Domain
	d.Name = name
	if c.Remove {
		return change, nil
	}
	d.MXSet, d.Publish, d.Account, d.Adopt = c.MXSet, c.Publish, c.Account, c.Adopt
	if err := s.checkWay(*d); err != nil {
		return change, err
	}
	if len(c.TLSRPT) > 0 {
		if d.TLSRPT, err = policygen.ReportText(c.TLSRPT); err != nil {
			return change, invalidBy("tlsrpt", err)
		}
		if err := name.CheckReport(); err != nil {
			return change, invalidBy("tlsrpt", err)
		}
	}
	zone := s.conf.Alias.Zone
	if longest := max(len(RecordName(zone, *d)), len(reportRecord(zone, *d))); longest > maxNameOctets {
		return change, invalid("mxset", "the names of the records would have %d octets, and %d is the most", longest, maxNameOctets)
	}
	change.Shared, change.OwnAccount = s.sharedOf(*d), s.owns(*d)
	if tenant != Tenant {
		change.Claim = newClaim(now)
	}
	return change, nil
}

// sharedOf is the shared record that a domain needs; nil: none.
func (s *settings) sharedOf(d store.Domain) *store.Domain {
	if d.Publish != store.PublishShared {
		return nil
	}
	return &store.Domain{Name: policygen.Name(sharedName(d.Tenant, d.MXSet, s.conf.Alias.Zone)), Tenant: d.Tenant, MXSet: d.MXSet}
}

// checkWay says why the record of a domain cannot be reached as is wanted.
func (s *settings) checkWay(d store.Domain) error {
	switch {
	case d.MXSet == "":
		return invalid("mxset", "missing; write the name of an MX set")
	case d.Publish != store.PublishZone && d.Account != "":
		return invalid("account", `only publish = "zone" has one; leave it out`)
	}
	switch d.Publish {
	case store.PublishZone:
		if _, there := s.account(d); !there {
			return invalid("account", `%q is no account of the tenant; publish = "zone" needs the one that holds the zone`, d.Account)
		}
	case store.PublishAlias, store.PublishShared:
		if s.conf.Alias.Zone == "" {
			return invalid("publish", "%q needs an alias zone, and the service has none", d.Publish)
		}
	case store.PublishManual:
	default:
		return invalid("publish", `%q is no way to publish; write "zone", "alias", "shared" or "manual"`, d.Publish)
	}
	return nil
}

// newClaim is a claim that is to be looked at now.
func newClaim(now time.Time) *store.DomainClaim {
	return &store.DomainClaim{Token: rand.Text(), Created: now, Expires: now.Add(claimTime), Due: now}
}

// Release lets another tenant have a domain as soon as he proves that it is his, or takes that back.
func (r *Reconciler) Release(ctx context.Context, tenant string, name policygen.Name, released bool) error {
	if err := r.cfg.Store.ReleaseDomain(ctx, tenant, name, released); err != nil {
		return err
	}
	r.pokeClaims()
	return nil
}
