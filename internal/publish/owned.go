package publish

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/store"
)

// Tenant is the one that everything in the configuration file belongs to.
const Tenant = "default"

// Target is where the customers of a tenant point their policy hosts: the service's own name, or one below it that is the
// tenant's.
func Target(hostname, tenant string) string {
	if tenant == Tenant || tenant == "" {
		return hostname
	}
	return tenant + "." + hostname
}

// key names an MX set or an account of a tenant.
type key struct{ tenant, name string }

// settings is what a configuration and the API's declarations mean here. It is replaced as a whole.
type settings struct {
	conf     *config.Config
	meaning  string                    // where there are several nodes
	accounts map[key]dnsupdate.Account // all of them
	owned    *owned
}

// owned is what the API declares beside its domains. It is not changed once it is in settings.
type owned struct {
	mxsets   map[key]config.MXSet
	accounts map[key]dnsupdate.Account
	marks    map[key]accountMark // of what accounts were opened with, as far as it was read from the store
}

// accountMark tells an account from another one.
type accountMark struct {
	sum     [sha256.Size]byte // of the provider and the settings
	version string            // its ETag
}

func markOf(a store.Account) accountMark {
	return accountMark{sha256.Sum256(slices.Concat([]byte(a.Provider), []byte{0}, a.Settings)), a.Version}
}

// Tenants returns the tenants that have MX sets of their own, by name. Without one there is no domain.
func (r *Reconciler) Tenants() []string {
	all := []string{Tenant}
	for k := range r.settings.Load().owned.mxsets {
		all = append(all, k.tenant)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// mxset returns an MX set of a tenant, whoever declares it.
func (s *settings) mxset(tenant, name string) (config.MXSet, bool) {
	if set, ok := s.conf.MXSets[name]; ok && tenant == Tenant {
		return set, true
	}
	set, ok := s.owned.mxsets[key{tenant, name}]
	return set, ok
}

// accountKey names the account that holds the records of a domain. The alias zone is the service's, for all tenants: what
// the API declares does not name its account.
func (s *settings) accountKey(d store.Domain) key {
	k := key{d.Tenant, d.Account}
	if inAliasZone(d.Publish) {
		k.tenant = Tenant
		if k.name == "" {
			k.name = s.conf.Alias.Account
		}
	}
	return k
}

// account is that of a domain. It is never one of another tenant, but for the alias zone.
func (s *settings) account(d store.Domain) (dnsupdate.Account, bool) {
	a, ok := s.accounts[s.accountKey(d)]
	return a, ok
}

// owns says whether the account of a domain is one that the API declares.
func (s *settings) owns(d store.Domain) bool {
	_, own := s.owned.accounts[key{d.Tenant, d.Account}]
	return own
}

// readOwned reads what the API declares, with accounts that are not open, and what these are opened with.
func readOwned(ctx context.Context, st store.Store) (*owned, []store.Account, error) {
	o := &owned{mxsets: make(map[key]config.MXSet), accounts: make(map[key]dnsupdate.Account), marks: make(map[key]accountMark)}
	sets, err := st.MXSets(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read what the API declares: %w", err)
	}
	for _, m := range sets {
		if m.Owner == store.OwnerAPI {
			o.mxsets[key{m.Tenant, m.Name}] = ownedSet(m)
		}
	}
	accounts, err := st.Accounts(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read what the API declares: %w", err)
	}
	for _, a := range accounts {
		o.accounts[key{a.Tenant, a.Name}] = nil
		o.marks[key{a.Tenant, a.Name}] = markOf(a)
	}
	return o, accounts, nil
}

func ownedSet(m store.MXSet) config.MXSet {
	return config.MXSet{Name: m.Name, Policy: m.Policy, Rollout: m.Rollout}
}

// loadOwned reads what the API declares, and opens its accounts, but for those of old that are open. One that does not open
// is a fault, and no reason not to start. r.reload is held.
func (r *Reconciler) loadOwned(ctx context.Context, old *owned) (*owned, error) {
	change, err := r.cfg.Store.LastChange(ctx) // first: what changes meanwhile is heard of later
	if err != nil {
		return nil, fmt.Errorf("read what the API declares: %w", err)
	}
	o, accounts, err := readOwned(ctx, r.cfg.Store)
	if err != nil {
		return nil, err
	}
	for _, a := range accounts {
		r.openInto(o, a, old)
	}
	r.heard = heard{change: change, all: time.Now()}
	return o, nil
}

// openInto opens an account, unless old has it open.
func (r *Reconciler) openInto(o *owned, a store.Account, old *owned) {
	k := key{a.Tenant, a.Name}
	if old != nil && old.accounts[k] != nil && old.marks[k].sum == o.marks[k].sum {
		o.accounts[k] = old.accounts[k]
		return
	}
	open, err := r.openOwned(a)
	if err != nil {
		r.accountFault(k, err.Error())
		open = dnsupdate.Unusable(a.Name, a.Provider, fmt.Errorf("%w; put the account again", err))
	}
	o.accounts[k] = open
}

// behind says that the MX set of a domain is another one in the store than here: another process has changed it a moment ago.
func (r *Reconciler) behind(ctx context.Context, set *settings, d store.Domain) (bool, error) {
	if _, file := set.conf.MXSets[d.MXSet]; r.cfg.Node == "" || file && d.Tenant == Tenant || !d.Removed.IsZero() {
		return false, nil
	}
	m, err := r.cfg.Store.MXSet(ctx, d.Tenant, d.MXSet)
	if err != nil {
		return false, fmt.Errorf("publish %s: %w", d.Name, err)
	}
	return !reflect.DeepEqual(set.owned.mxsets[key{d.Tenant, d.MXSet}], ownedSet(m)), nil
}

func (r *Reconciler) openOwned(a store.Account) (dnsupdate.Account, error) {
	if a.Err != nil {
		return nil, fmt.Errorf("account %q of tenant %q: %w; set it again, or put the key back", a.Name, a.Tenant, a.Err)
	}
	conf, err := readSettings(a)
	if err != nil {
		return nil, err
	}
	if err := checkOwned(conf); err != nil {
		return nil, err
	}
	return r.cfg.OpenAccount(a.Tenant, conf)
}

// mean returns what a configuration means here, beside what the API declares. It opens the accounts that are new or
// changed: an open one knows when its provider wants to be left alone.
func (r *Reconciler) mean(conf *config.Config, own *owned) (*settings, error) {
	kept := conf.Lean()
	kept.MXSets = maps.Clone(conf.MXSets)
	old := r.settings.Load()
	next := &settings{conf: kept, accounts: maps.Clone(own.accounts), owned: own}
	if r.cfg.Node != "" {
		next.meaning = meaning(conf)
	}
	var errs []error
	for name := range conf.MXSets {
		if _, there := own.mxsets[key{Tenant, name}]; there {
			errs = append(errs, fmt.Errorf("mxset.%s: the API has an MX set of this name; take another, or remove that one", name))
		}
	}
	for name, a := range conf.Accounts {
		k := key{Tenant, name}
		if _, there := own.accounts[k]; there {
			errs = append(errs, fmt.Errorf("account.%s: the API has an account of this name; take another, or remove that one", name))
			continue
		}
		if old != nil && old.conf.Accounts[name] == a {
			next.accounts[k] = old.accounts[k]
			continue
		}
		account, err := r.cfg.OpenAccount(Tenant, a)
		errs = append(errs, err)
		next.accounts[k] = account
	}
	return next, errors.Join(errs...)
}

// with returns settings in which the API declares something else. The caller holds r.reload.
func (s *settings) with(change func(*owned)) *settings {
	own := &owned{mxsets: maps.Clone(s.owned.mxsets), accounts: maps.Clone(s.owned.accounts), marks: maps.Clone(s.owned.marks)}
	change(own)
	next := &settings{conf: s.conf, meaning: s.meaning, accounts: maps.Clone(s.accounts), owned: own}
	for k := range s.owned.accounts {
		delete(next.accounts, k)
	}
	maps.Copy(next.accounts, own.accounts)
	return next
}
