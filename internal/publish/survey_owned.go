package publish

import (
	"context"
	"fmt"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// unchanged is what a configuration wants of a domain that it leaves as it is.
func unchanged(have store.Domain) config.Domain {
	return config.Domain{Name: have.Name, MXSet: have.MXSet, Publish: have.Publish, Account: have.Account, TLSRPT: have.TLSRPT}
}

// readOwned has a survey know what the API declares from the store.
func (s *survey) readOwned(ctx context.Context, st store.Store) error {
	var err error
	s.owned, _, err = readOwned(ctx, st)
	return err
}

// knows says whether the account of a domain is there, as far as a file has a say in it. That of a tenant which is not there
// is a fault of the domain's, and nothing that a file could put back.
func (s *survey) knows(have store.Domain) bool {
	if have.Tenant != Tenant && !inAliasZone(have.Publish) {
		return true
	}
	if _, there := s.owned.accounts[key{have.Tenant, have.Account}]; there {
		return true
	}
	_, known := s.conf.Accounts[have.Account]
	return known && (have.Tenant == Tenant || inAliasZone(have.Publish))
}

// addOwned is for a domain of the API. The file has to leave it what it stands on, and may change the MX set that it is on.
func (s *survey) addOwned(have store.Domain, want config.Domain, found bool, history func() ([]store.Served, error)) error {
	drains := !have.Removed.IsZero()
	refuse := func(format string, args ...any) { s.plan.errs = append(s.plan.errs, fmt.Errorf(format, args...)) }
	if found && (!drains || have.Tenant != Tenant) {
		refuse("domain %s belongs to the API (tenant %q): remove it there first, or leave it out of the file", have.Name, have.Tenant)
		return nil
	}
	published := have.State.Zone != "" || have.State.Report.Text != ""
	switch {
	case found:
		if err := misplaced(s.conf, have, want, true, true); err != nil && published {
			refuse("%w", err)
		}
		return s.keep(have, want, history)
	case drains:
		if err := misplaced(s.conf, have, want, false, s.knows(have)); err != nil && published {
			refuse("%w", err)
		}
		return nil
	}
	want = unchanged(have)
	_, ownSet := s.owned.mxsets[key{have.Tenant, have.MXSet}]
	switch {
	case have.Account != "" && !s.knows(have):
		refuse("account.%s: domain %s of the API needs this account; put it back", have.Account, have.Name)
	case inAliasZone(have.Publish) && s.conf.Alias.Zone == "":
		refuse("alias: domain %s of the API has its record in the alias zone; put the table back", have.Name)
	case published && misplaced(s.conf, have, want, true, true) != nil:
		refuse("%w", misplaced(s.conf, have, want, true, true))
	case ownSet || have.Tenant != Tenant: // the file has no say in its policy
	case s.new[have.MXSet].Name == "":
		refuse("mxset.%s: domain %s of the API is on this MX set; put it back", have.MXSet, have.Name)
	default:
		return s.keep(have, want, history)
	}
	return nil
}
