package publish

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// survey compares what is with what a configuration wants, domain by domain, and knows neither network nor clock: call
// add for every domain of the store by name, so that shared records come first, then hold, then end.
type survey struct {
	old, new map[string]config.MXSet
	conf     *config.Config
	wanted   map[policygen.Name]config.Domain // those that add has not met
	plan     *Plan
	asks     []ask // whose MX are to be looked up

	parsed   map[string]parsed
	leaving  map[setMX]cached
	arriving map[setMX]bool
	drain    time.Duration // the largest max_age of a removed domain
	drains   bool
	writes   map[string]int // by account
	byHand   policygen.Name // whose writes were counted last
	gone     hash.Hash

	owned   *owned                  // its accounts need not be open
	sharing map[string]string       // account of the shared record that is wanted, by MX set
	records map[string]store.Domain // shared records that are there, by MX set
}

// text is a policy, and as it is served.
type text struct {
	policy policygen.Policy
	text   string
}

// parsed is a policy text of the store. One that is not known may have been any policy.
type parsed struct {
	policy policygen.Policy
	known  bool
}

// setMX is an MX pattern in an MX set.
type setMX struct{ mxset, mx string }

// cached is for how long senders hold policies that list an MX.
type cached struct {
	current time.Duration // the largest max_age of those that are served
	until   time.Time     // when the last of those that are not served any more expires
}

// newSurvey is for a configuration in place of an accepted one, of which the digest and the MX sets are given.
func newSurvey(accepted string, old map[string]config.MXSet, conf *config.Config) *survey {
	s := &survey{
		old: old, new: conf.MXSets, conf: conf, wanted: make(map[policygen.Name]config.Domain, len(conf.Domains)),
		plan: &Plan{
			Digest: conf.Digest, Accepted: accepted, MXSets: []PlanMXSet{}, Writes: []PlanWrites{}, Leaving: []PlanLeaving{},
			Arriving: []PlanArrival{}, Stranded: []PlanDomain{}, Unknown: []PlanReason{}, Held: []PlanReason{},
		},
		parsed: make(map[string]parsed), leaving: make(map[setMX]cached), arriving: make(map[setMX]bool),
		writes: make(map[string]int), gone: sha256.New(), owned: &owned{}, sharing: make(map[string]string), records: make(map[string]store.Domain),
	}
	for _, w := range conf.Domains {
		s.wanted[w.Name] = w
		if w.Publish == store.PublishShared {
			s.sharing[w.MXSet] = w.Account
		}
	}
	all := maps.Clone(s.old)
	maps.Copy(all, s.new)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		set := PlanMXSet{Name: name, Before: policyText(s.old, name), After: policyText(s.new, name)}
		before, after := rollout(s.old[name]), rollout(s.new[name])
		set.RolloutBefore, set.RolloutAfter = int64(before.Seconds()), int64(after.Seconds())
		if set.Before != set.After || before != after {
			s.plan.MXSets = append(s.plan.MXSets, set)
		}
	}
	return s
}

// policyText is that of an MX set; empty: there is none of that name.
func policyText(sets map[string]config.MXSet, name string) string {
	set, ok := sets[name]
	if !ok {
		return ""
	}
	return set.Policy.Text()
}

// text is what an MX set wants for a domain, at the stage it is in. Who is attached to the shared record goes with it, as
// long as nobody said otherwise.
func (s *survey) text(sets map[string]config.MXSet, mxset string, have store.Domain) text {
	set, ok := sets[mxset]
	if !ok {
		return text{}
	}
	if attached(have) && have.MXSet == mxset && have.State.Served != "" && !have.State.Pinned && have.State.Promoted.IsZero() {
		have = s.records[mxset]
	}
	p, _ := stage(set, have)
	return text{p, p.Text()}
}

// attached says that the shared record answers for a domain, or is to.
func attached(d store.Domain) bool {
	return d.Publish == store.PublishShared && d.State.Detached.IsZero()
}

// add compares one domain. It asks for the history only of those for which it matters.
func (s *survey) add(have store.Domain, history func() ([]store.Served, error)) error {
	if have.Publish == store.PublishWildcard {
		s.addShared(have)
		return nil
	}
	want, found := s.wanted[have.Name]
	delete(s.wanted, have.Name)
	if have.Owner == store.OwnerAPI {
		return s.addOwned(have, want, found, history)
	}
	if have.State.Zone != "" || have.State.Report.Text != "" {
		if err := misplaced(s.conf, have, want, found, s.knows(have)); err != nil {
			s.plan.errs = append(s.plan.errs, err)
		}
	}
	declared := have.Owner == store.OwnerFile && have.Removed.IsZero()
	if declared {
		s.plan.Owned++
	}
	switch {
	case declared && !found:
		return s.remove(have, history)
	case !found:
		return nil // it drains on
	}
	return s.keep(have, want, history)
}

// keep compares a domain that stays, or comes back while it drains.
func (s *survey) keep(have store.Domain, want config.Domain, history func() ([]store.Served, error)) error {
	before, after := s.text(s.old, have.MXSet, have), s.text(s.new, want.MXSet, have)
	restored := !have.Removed.IsZero()
	turns := after.text != "" && (restored || before.text != after.text)
	moves := leads(have, want)
	// Whether adoption was declared or allowed by command is not known here, so one that is taken back is no change.
	differs := have.MXSet != want.MXSet || have.Publish != want.Publish || have.Account != want.Account || want.Adopt && !have.Adopt
	reported := s.report(have, want)
	staged := !turns && s.restaged(have, want)
	switch {
	case restored:
		s.plan.Restored.add(have.Name)
	case differs || turns || reported || staged:
		s.plan.Changed.add(have.Name)
	}
	if !turns {
		s.held(have)
		if moves {
			s.rotate(have, want, after)
		}
		return nil
	}
	if before.policy.Mode != policygen.Enforce && after.policy.Mode == policygen.Enforce && !enforced(have.State.Served) {
		s.plan.Enforced.add(have.Name)
	}
	if have.State.Served == after.text && !moves {
		return nil // back to what senders hold
	}
	s.rotate(have, want, after)
	if have.State.Served == "" {
		return nil
	}
	served := s.parse(have.State.Served)
	lost := uncovered(served.policy.MX, after.policy)
	if after.policy.Mode == policygen.Enforce && (served.policy.Mode != policygen.Enforce || len(lost) > 0) {
		s.asks = append(s.asks, ask{have.Name, after.text})
	}
	if served.policy.Mode == policygen.Enforce {
		for _, mx := range uncovered(after.policy.MX, served.policy) {
			s.arriving[setMX{want.MXSet, mx}] = true
		}
	}
	return s.leave(have, lost, history)
}

// leave keeps for how long senders hold policies that list the MX which leave.
func (s *survey) leave(have store.Domain, lost []string, history func() ([]store.Served, error)) error {
	if len(lost) == 0 {
		return nil
	}
	served, err := history()
	if err != nil {
		return fmt.Errorf("read the history of %s: %w", have.Name, err)
	}
	for _, mx := range lost {
		at := setMX{have.MXSet, mx}
		h, listed := s.leaving[at]
		for _, past := range served {
			p := s.parse(past.Text)
			if p.known && (p.policy.Mode == policygen.None || !covers(p.policy, mx)) {
				continue
			}
			listed = true
			age := time.Duration(p.policy.MaxAge) * time.Second
			if past.To.IsZero() {
				h.current = max(h.current, age)
			} else {
				h.until = later(h.until, past.To.Add(age))
			}
		}
		if listed {
			s.leaving[at] = h
		}
	}
	return nil
}

// remove is for a domain that leaves.
func (s *survey) remove(have store.Domain, history func() ([]store.Served, error)) error {
	s.plan.Removed.add(have.Name)
	_, _ = io.WriteString(s.gone, string(have.Name)+"\n") // a hash takes everything
	if have.State.Zone == "" && have.State.ID == "" {
		return nil // no sender ever heard of it
	}
	served, err := history()
	if err != nil {
		return fmt.Errorf("read the history of %s: %w", have.Name, err)
	}
	s.drain, s.drains = max(s.drain, largestMaxAge(served)), true
	s.plan.Rotations++
	s.write(have.Name, have.Publish, have.Account) // mode none, at a name of its own
	return nil
}

// held notes what waits for a confirmation.
func (s *survey) held(have store.Domain) {
	if have.State.Step == StepMX {
		s.plan.held = append(s.plan.held, have.Name)
		s.plan.Held = append(s.plan.Held, PlanReason{string(have.Name), have.State.Reason})
	}
}

func (s *survey) parse(policy string) parsed {
	p, ok := s.parsed[policy]
	if !ok {
		var err error
		p.policy, err = policygen.ParsePolicy([]byte(policy))
		if p.known = err == nil; !p.known {
			p.policy = policygen.Policy{MaxAge: policygen.MaxAgeLimit}
		}
		s.parsed[policy] = p
	}
	return p
}

// hold notes why deletions are held, if they are.
func (s *survey) hold(reason string) {
	if s.plan.hold = reason; reason != "" {
		s.plan.Held = append([]PlanReason{{"deletions", reason}}, s.plan.Held...)
	}
}

// end adds up. Pace returns the writes in a second that an account can make; 0: that is not known.
func (s *survey) end(now time.Time, pace func(account string) float64) *Plan {
	p := s.plan
	s.endAdded()
	p.gone = [sha256.Size]byte(s.gone.Sum(nil))
	var writing time.Duration
	all := 0
	for _, name := range slices.Sorted(maps.Keys(s.writes)) {
		w := PlanWrites{Account: name, Provider: s.conf.Accounts[name].Provider, Writes: s.writes[name]}
		if perSecond := pace(name); perSecond > 0 {
			w.Seconds = float64(w.Writes) / min(perSecond, maxPace)
			writing = max(writing, time.Duration(w.Seconds*float64(time.Second)))
		}
		all += w.Writes
		p.Writes = append(p.Writes, w)
	}
	writing = max(writing, time.Duration(float64(all)/maxPace*float64(time.Second))) // of all accounts together
	settle := s.conf.Publish.Settle
	// The body settles, the records are written, caches hold the old ones for their TTL, and senders what they fetched
	// last for another settle time.
	through := now.Add(settle + writing + s.conf.Publish.TTL + settle)
	if s.drains {
		p.Drained = through.Add(s.drain).UTC()
	}
	s.endMX(now, through)
	return p
}

// endMX says until when MX are needed that leave, and from when those may be used that come.
func (s *survey) endMX(now, through time.Time) {
	bySet := func(a, b setMX) int { return cmp.Or(strings.Compare(a.mxset, b.mxset), strings.Compare(a.mx, b.mx)) }
	for _, at := range slices.SortedFunc(maps.Keys(s.leaving), bySet) {
		h := s.leaving[at]
		until := later(through.Add(h.current), h.until.Add(through.Sub(now))).UTC()
		s.plan.Leaving = append(s.plan.Leaving, PlanLeaving{MXSet: at.mxset, MX: at.mx, Until: until})
		if h.current > longMaxAge {
			s.plan.Advice = append(s.plan.Advice, fmt.Sprintf("to be done with %s within a day or so of the change, first set only max_age = \"1d\" in "+
				"[mxset.%s], reload, and change mx after %s", at.mx, at.mxset, until.Format(time.DateTime+" MST")))
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(s.arriving), bySet) {
		s.plan.Arriving = append(s.plan.Arriving, PlanArrival{MXSet: at.mxset, MX: at.mx, From: through.UTC()})
	}
}

// longMaxAge is what a removed MX should not have to stay for.
const longMaxAge = 7 * 24 * time.Hour
