package publish

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// MXSet is an MX set as the API has it.
type MXSet struct {
	Name    string         `json:"name"`
	Owner   string         `json:"owner"` // "file" or "api"
	Mode    policygen.Mode `json:"mode"`
	MaxAge  int            `json:"max_age"` // seconds
	MX      []string       `json:"mx"`      // patterns
	Rollout int64          `json:"rollout"` // seconds in mode testing before mode enforce; 0: none
	ETag    string         `json:"etag"`    // of all that; only read
}

func (m MXSet) etag() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %d %q %d", m.Name, m.Owner, m.Mode, m.MaxAge, m.MX, m.Rollout) // a hash takes everything
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func mxsetOf(set config.MXSet, owner string) MXSet {
	m := MXSet{
		Name: set.Name, Owner: owner, Mode: set.Policy.Mode, MaxAge: set.Policy.MaxAge, MX: slices.Clone(set.Policy.MX),
		Rollout: int64(set.Rollout / time.Second),
	}
	m.ETag = m.etag()
	return m
}

// MXSets returns the MX sets of a tenant by name.
func (r *Reconciler) MXSets(tenant string) []MXSet {
	set := r.settings.Load()
	all := []MXSet{}
	for k, m := range set.owned.mxsets {
		if k.tenant == tenant {
			all = append(all, mxsetOf(m, store.OwnerAPI))
		}
	}
	if tenant == Tenant {
		for name, m := range set.conf.MXSets {
			m.Name = name
			all = append(all, mxsetOf(m, store.OwnerFile))
		}
	}
	slices.SortFunc(all, func(a, b MXSet) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// MXSet returns one, or store.ErrNotFound.
func (r *Reconciler) MXSet(tenant, name string) (MXSet, error) {
	for _, m := range r.MXSets(tenant) {
		if m.Name == name {
			return m, nil
		}
	}
	return MXSet{}, fmt.Errorf("mx set %q: %w", name, store.ErrNotFound)
}

// PutMXSet declares an MX set of a tenant by the API, and says whether that changed anything; Owner is not read. Its domains
// are looked at then: a policy that would strand mail is held domain by domain. What is wrong with the set is an
// [*InvalidError], an MX set of the file a [*store.OwnedError]. With ifMatch, if it is not empty, the set must have this
// ETag ("*": be there), else the error is store.ErrMismatch.
func (r *Reconciler) PutMXSet(ctx context.Context, tenant string, m MXSet, ifMatch string) (bool, error) {
	r.reload.Lock()
	defer r.reload.Unlock()
	set, err := r.checkMXSet(tenant, m)
	if err != nil {
		return false, err
	}
	next := r.settings.Load().with(func(o *owned) { o.mxsets[key{tenant, m.Name}] = set })
	changed, err := r.swap(next, func() (bool, error) {
		return r.cfg.Store.PutMXSet(ctx, store.MXSet{
			Tenant: tenant, Name: m.Name, Owner: store.OwnerAPI, Policy: set.Policy, Rollout: set.Rollout,
		}, matching(ifMatch), r.now())
	})
	if err != nil {
		return false, err
	}
	r.poke()
	return changed, nil
}

// DeleteMXSet forgets an MX set of the API. While a domain that does not drain is on it that is a [*store.InUseError].
func (r *Reconciler) DeleteMXSet(ctx context.Context, tenant, name, ifMatch string) error {
	r.reload.Lock()
	defer r.reload.Unlock()
	next := r.settings.Load().with(func(o *owned) { delete(o.mxsets, key{tenant, name}) })
	_, err := r.swap(next, func() (bool, error) {
		return true, r.cfg.Store.DeleteMXSet(ctx, tenant, name, store.OwnerAPI, matching(ifMatch))
	})
	return err
}

// swap changes the store and the settings at once. r.reload is held.
func (r *Reconciler) swap(next *settings, change func() (bool, error)) (bool, error) {
	r.declaring.Lock()
	defer r.declaring.Unlock()
	changed, err := change()
	if err == nil {
		r.settings.Store(next)
	}
	return changed, err
}

// matching says whether an MX set of the store has an ETag. What this node has in memory may be older than that.
func matching(ifMatch string) func(*store.MXSet) bool {
	if ifMatch == "" {
		return nil
	}
	return func(have *store.MXSet) bool {
		return have != nil && (ifMatch == "*" || mxsetOf(ownedSet(*have), have.Owner).ETag == ifMatch)
	}
}

// InvalidError says what is wrong with what the API was given.
type InvalidError struct {
	Field string // as the API names it
	Why   string
}

// Error names both.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Why }

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Why: fmt.Sprintf(format, args...)}
}

// invalidBy is invalid for what package policygen says, but for its name of the field.
func invalidBy(field string, err error) error { return invalid(field, "%s", policygen.Reason(err)) }

// checkLabel refuses names that cannot stand in a DNS name, for they come there or into paths.
func checkLabel(field, name string) error {
	if !config.IsLabel(name) {
		return invalid(field, "%q is no name; up to 63 lower-case letters, digits and hyphens, none of these first or last", name)
	}
	return nil
}

// checkMXSet turns an MX set of the API into one as the file has it.
func (r *Reconciler) checkMXSet(tenant string, m MXSet) (config.MXSet, error) {
	set := config.MXSet{Name: m.Name, Policy: policygen.Policy{MaxAge: m.MaxAge}}
	if err := cmp.Or(checkLabel("tenant", tenant), checkLabel("name", m.Name)); err != nil {
		return set, err
	}
	if zone := r.settings.Load().conf.Alias.Zone; zone != "" {
		if longest := labelOctets + len(sharedName(tenant, m.Name, zone)) - len("*"); longest > maxNameOctets {
			return set, invalid("name", "%q is too long; records of publish = \"shared\" would have names of %d octets, and %d is the most",
				m.Name, longest, maxNameOctets)
		}
	}
	mode, err := policygen.ParseMode(string(m.Mode))
	if err != nil {
		return set, invalidBy("mode", err)
	}
	set.Policy.Mode = mode
	for _, raw := range m.MX {
		pattern, _, err := policygen.ParsePattern(raw)
		if err != nil {
			return set, invalidBy("mx", err)
		}
		if slices.Contains(set.Policy.MX, pattern) {
			return set, invalid("mx", "%q is there twice; leave one out", pattern)
		}
		set.Policy.MX = append(set.Policy.MX, pattern)
	}
	if len(set.Policy.MX) == 0 {
		return set, invalid("mx", "is empty; write at least one MX")
	}
	if err := set.Policy.Validate(); err != nil {
		field := "mx"
		if fe, ok := errors.AsType[*policygen.FieldError](err); ok {
			field = fe.Field
		}
		return set, invalidBy(field, err)
	}
	if m.Rollout < 0 || m.Rollout > int64(config.MaxRollout/time.Second) {
		return set, invalid("rollout", "%d is out of range; 0 to %d seconds", m.Rollout, int64(config.MaxRollout/time.Second))
	}
	set.Rollout = time.Duration(m.Rollout) * time.Second
	return set, nil
}

// PlanMXSet says what [Reconciler.PutMXSet] would do with the domains of an MX set: which rotate, until when an MX that
// leaves is needed, and who would be held since their MX in DNS are not covered.
func (r *Reconciler) PlanMXSet(ctx context.Context, tenant string, m MXSet) (Plan, error) {
	set, err := r.checkMXSet(tenant, m)
	if err != nil {
		return Plan{}, err
	}
	in := r.settings.Load()
	before := make(map[string]config.MXSet)
	if old, there := in.mxset(tenant, m.Name); there {
		before[m.Name] = old
	}
	conf := *in.conf
	conf.MXSets, conf.Domains, conf.Digest = map[string]config.MXSet{m.Name: set}, nil, ""
	s := newSurvey("", before, &conf)
	s.owned = &owned{accounts: in.owned.accounts} // the set itself is that of conf
	err = r.eachOf(ctx, tenant, store.DomainFilter{MXSet: m.Name}, func(have store.Domain) error {
		if !have.Removed.IsZero() {
			return nil
		}
		return s.keep(have, unchanged(have), func() ([]store.Served, error) { return r.cfg.Store.History(ctx, have.Name) })
	})
	if err != nil {
		return Plan{}, fmt.Errorf("plan: read the domains: %w", err)
	}
	p := s.end(r.now(), func(name string) float64 {
		if a := in.accounts[key{tenant, name}]; a != nil {
			return a.Rate().Changes
		}
		return 0
	})
	if err := r.strand(ctx, s.asks, p, nil); err != nil {
		return Plan{}, fmt.Errorf("plan: look up MX: %w", err)
	}
	for i := range p.Unknown {
		p.Unknown[i].Reason = toTenant(tenant, p.Unknown[i].Reason)
	}
	p.judge()
	return *p, nil
}
