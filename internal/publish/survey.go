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
// add for every domain of the store by name, then hold, then end.
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
	writes   map[string]int  // by account
	shared   map[string]bool // MX sets whose shared record is counted
	gone     hash.Hash
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
		writes: make(map[string]int), shared: make(map[string]bool), gone: sha256.New(),
	}
	for _, w := range conf.Domains {
		s.wanted[w.Name] = w
	}
	all := maps.Clone(s.old)
	maps.Copy(all, s.new)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if before, after := whole(s.old, name), whole(s.new, name); before != after {
			s.plan.MXSets = append(s.plan.MXSets, PlanMXSet{Name: name, Before: before, After: after})
		}
	}
	return s
}

// whole is the policy text of an MX set; empty: there is none of that name.
func whole(sets map[string]config.MXSet, name string) string {
	set, ok := sets[name]
	if !ok {
		return ""
	}
	return set.Policy.Text()
}

// text is what an MX set wants for a domain, at the stage it is in.
func (s *survey) text(sets map[string]config.MXSet, mxset string, have store.Domain) text {
	set, ok := sets[mxset]
	if !ok {
		return text{}
	}
	p, _ := stage(set, have)
	return text{p, p.Text()}
}

// add compares one domain. It asks for the history only of those for which it matters.
func (s *survey) add(have store.Domain, history func() ([]store.Served, error)) error {
	if have.Publish == store.PublishWildcard {
		before, _ := stage(s.old[have.MXSet], have)
		after, _ := stage(s.new[have.MXSet], have)
		if before.Text() == after.Text() {
			s.held(have)
		}
		return nil
	}
	want, found := s.wanted[have.Name]
	delete(s.wanted, have.Name)
	if have.State.Zone != "" || have.State.Report.Text != "" {
		if err := misplaced(s.conf, have, want, found); err != nil {
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
	case !found && !have.Removed.IsZero():
		return nil // it drains on
	case !found: // the API's, on an MX set that the file may change
		want = config.Domain{Name: have.Name, MXSet: have.MXSet, Publish: have.Publish, Account: have.Account}
	}
	return s.keep(have, want, history)
}

// keep compares a domain that stays, or comes back while it drains.
func (s *survey) keep(have store.Domain, want config.Domain, history func() ([]store.Served, error)) error {
	before, after := s.text(s.old, have.MXSet, have), s.text(s.new, want.MXSet, have)
	restored := !have.Removed.IsZero()
	turns := after.text != "" && (restored || before.text != after.text)
	// Whether adoption was declared or allowed by command is not known here, so one that is taken back is no change.
	differs := have.MXSet != want.MXSet || have.Publish != want.Publish || have.Account != want.Account || want.Adopt && !have.Adopt
	switch {
	case restored:
		s.plan.Restored.add(have.Name)
	case differs || turns:
		s.plan.Changed.add(have.Name)
	}
	if !turns {
		s.held(have)
		return nil
	}
	if have.State.Served == after.text {
		return nil // back to what senders hold
	}
	s.rotate(want, !have.State.Detached.IsZero())
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
	s.rotate(config.Domain{MXSet: have.MXSet, Publish: have.Publish, Account: have.Account}, true)
	return nil
}

// held notes what waits for a confirmation.
func (s *survey) held(have store.Domain) {
	if have.State.Step == StepMX {
		s.plan.held = append(s.plan.held, have.Name)
		s.plan.Held = append(s.plan.Held, PlanReason{string(have.Name), have.State.Reason})
	}
}

// rotate counts one domain's new id, which a detached one has of its own.
func (s *survey) rotate(d config.Domain, detached bool) {
	s.plan.Rotations++
	switch {
	case d.Publish == store.PublishManual:
	case d.Publish == store.PublishShared && !detached:
		if !s.shared[d.MXSet] {
			s.shared[d.MXSet] = true
			s.writes[d.Account]++
		}
	default:
		s.writes[d.Account]++
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
	for _, w := range s.conf.Domains {
		if _, added := s.wanted[w.Name]; added {
			p.Added.add(w.Name)
			s.rotate(w, s.new[w.MXSet].Rollout > 0)
		}
	}
	p.gone = [sha256.Size]byte(s.gone.Sum(nil))
	var writing time.Duration
	for _, name := range slices.Sorted(maps.Keys(s.writes)) {
		w := PlanWrites{Account: name, Provider: s.conf.Accounts[name].Provider, Writes: s.writes[name]}
		if perSecond := pace(name); perSecond > 0 {
			w.Seconds = float64(w.Writes) / perSecond
			writing = max(writing, time.Duration(w.Seconds*float64(time.Second)))
		}
		p.Writes = append(p.Writes, w)
	}
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
