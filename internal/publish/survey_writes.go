package publish

import (
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// maxPace is how many domains in a second the reconciler brings through a rotation, whatever an account can take: looks,
// commits and writes together. BenchmarkAlias100k, with 100,000 records at a Knot beside it on two cores, makes 260 to
// 1,000.
const maxPace = 500

// addShared is for a shared record, which is no domain: it is written once when its text changes, for all who are attached.
func (s *survey) addShared(have store.Domain) {
	if !have.Removed.IsZero() {
		return // if it is wanted again, it counts as one that is not there
	}
	if zone := s.conf.Alias.Zone; have.Owner == store.OwnerAPI && string(have.Name) != sharedName(have.Tenant, have.MXSet, zone) {
		s.plan.errs = append(s.plan.errs, fmt.Errorf("alias.zone: %q is not the zone of %s, which domains of the API share; put it back",
			zone, have.Name))
	}
	if have.Tenant != Tenant {
		return
	}
	s.records[have.MXSet] = have
	before, _ := stage(s.old[have.MXSet], have)
	after, _ := stage(s.new[have.MXSet], have)
	if before.Text() == after.Text() {
		s.held(have)
	}
	switch account, wanted := s.sharing[have.MXSet]; {
	case !wanted && have.State.Zone != "" && have.Owner == store.OwnerFile:
		s.writes[have.Account]++ // it is deleted when its domains have records of their own
	case wanted && have.State.Served != after.Text() && before.Text() != after.Text():
		s.writes[account]++
	}
}

// endAdded is for what is not there yet.
func (s *survey) endAdded() {
	for mxset, account := range s.sharing {
		if _, there := s.records[mxset]; !there {
			s.writes[account]++
		}
	}
	for _, w := range s.conf.Domains {
		if _, added := s.wanted[w.Name]; added {
			s.plan.Added.add(w.Name)
			have := store.Domain{Name: w.Name}
			s.rotate(have, w, s.text(s.new, w.MXSet, have))
			s.report(have, w)
		}
	}
}

// leads says that a customer's CNAME leads to the shared record of an MX set that the domain leaves, so that it gets a
// record of its own there, whatever its policy.
func leads(have store.Domain, want config.Domain) bool {
	return attached(have) && have.State.Zone != "" && have.Removed.IsZero() && want.Publish == store.PublishShared && have.MXSet != want.MXSet
}

// rotate counts one domain's new id, and its write if the shared record's is not the same.
func (s *survey) rotate(have store.Domain, want config.Domain, after text) {
	s.plan.Rotations++
	if want.Publish == store.PublishShared && have.State.Detached.IsZero() && !leads(have, want) {
		if shared, _ := stage(s.new[want.MXSet], s.records[want.MXSet]); shared.Text() == after.text {
			return
		}
	}
	s.write(want.Name, want.Publish, want.Account)
}

// write counts a write of DNS, which may be the customer's.
func (s *survey) write(name policygen.Name, publish, account string) {
	if publish == store.PublishManual {
		if s.byHand != name { // he may write two records
			s.plan.ByHand.add(name)
		}
		s.byHand = name
		return
	}
	s.writes[account]++
}

// report counts what becomes of a TLSRPT record, and says whether anything does.
func (s *survey) report(have store.Domain, want config.Domain) bool {
	if have.TLSRPT == want.TLSRPT {
		return false
	}
	s.plan.TLSRPT.add(want.Name)
	switch r := have.State.Report; {
	case want.TLSRPT == "" && r.Text == "": // none of ours stands there
	case want.TLSRPT != "" && current(r, want.TLSRPT):
	default:
		s.write(want.Name, want.Publish, want.Account)
	}
	return true
}

// restaged notes a domain in mode testing whose roll-out lasts longer, or not so long, from now on.
func (s *survey) restaged(have store.Domain, want config.Domain) bool {
	if attached(have) && have.State.Served != "" || have.MXSet != want.MXSet {
		return false
	}
	_, before := stage(s.old[have.MXSet], have)
	_, after := stage(s.new[want.MXSet], have)
	if before == after || have.State.Pinned {
		return false
	}
	s.plan.Restaged.add(have.Name)
	return true
}

// rollout is how long the domains of an MX set begin in mode testing; zero: they do not.
func rollout(set config.MXSet) time.Duration {
	if set.Policy.Mode != policygen.Enforce {
		return 0
	}
	return set.Rollout
}
