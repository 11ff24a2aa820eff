package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// Plan says what a configuration changes, before anything is changed, and what is held at that moment. It is the answer
// of the admin API. Times are estimates, which count from the moment of the plan.
type Plan struct {
	// Hash stands for the configuration, the one that it replaces, who leaves, who would be stranded and what is held.
	// [Reconciler.Reload] with it lets these through, and only these. Empty: no force helps; see Refused.
	Hash     string `json:"hash,omitempty"`
	Digest   string `json:"digest"`   // of the configuration
	Accepted string `json:"accepted"` // digest of the one that it replaces

	MXSets   []PlanMXSet `json:"mxsets"` // those that differ, by name
	Added    Names       `json:"added"`
	Changed  Names       `json:"changed"`
	Removed  Names       `json:"removed"`
	Restored Names       `json:"restored"`         // removed before, and still draining
	Owned    int         `json:"owned"`            // domains that the file declared so far
	Drained  time.Time   `json:"drained,omitzero"` // when the last removed domain's policy has expired at every sender

	Enforced Names `json:"enforced"` // they come to mode enforce, some of them from a roll-out
	Restaged Names `json:"restaged"` // in mode testing, of which their roll-out makes more or less
	TLSRPT   Names `json:"tlsrpt"`   // their TLSRPT record changes
	ByHand   Names `json:"by_hand"`  // their customers have to write a TXT themselves

	Rotations int           `json:"rotations"`  // domains that get a new id, or their first
	Writes    []PlanWrites  `json:"writes"`     // of DNS, by account
	Leaving   []PlanLeaving `json:"mx_removed"` // until when removed MX are needed
	Arriving  []PlanArrival `json:"mx_added"`   // from when added MX may be used
	Stranded  []PlanDomain  `json:"stranded"`   // their MX in DNS are not covered by their new policy, which is enforced
	Unknown   []PlanReason  `json:"unknown"`    // whether they would be stranded cannot be looked up
	Held      []PlanReason  `json:"held"`       // what waits for a confirmation already
	Advice    []string      `json:"advice,omitempty"`
	Refused   []string      `json:"refused,omitempty"` // why a reload is refused without Hash, or in any case
	Warnings  []string      `json:"warnings,omitempty"`

	hold string            // why deletions are held; empty: they are not
	held []policygen.Name  // domains that are held at StepMX
	errs []error           // why a reload is refused in any case
	gone [sha256.Size]byte // of all names in Removed
}

// Names are domains: how many, and the first few by name.
type Names struct {
	Count int              `json:"count"`
	First []policygen.Name `json:"first,omitempty"` // ten at most
}

// PlanMXSet is an MX set whose policy differs, as policy texts, or its roll-out. Before is empty for one that is new, After
// for one that goes.
type PlanMXSet struct {
	Name   string `json:"name"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`

	// For how many seconds its domains begin in mode testing; 0: they do not.
	RolloutBefore int64 `json:"rollout_before,omitempty"`
	RolloutAfter  int64 `json:"rollout_after,omitempty"`
}

// PlanWrites is what a change costs at one account.
type PlanWrites struct {
	Account  string  `json:"account"`
	Provider string  `json:"provider"`
	Writes   int     `json:"writes"`
	Seconds  float64 `json:"seconds,omitzero"` // at the account's rate and the reconciler's; 0: the former is not known
}

// PlanLeaving is an MX pattern that leaves the policies of an MX set's domains. Senders that hold one of these deliver
// nowhere else until it expires.
type PlanLeaving struct {
	MXSet string    `json:"mxset"`
	MX    string    `json:"mx"`
	Until time.Time `json:"until"`
}

// PlanArrival is an MX pattern that comes into the policies of an MX set's domains. Before, senders refuse such an MX.
type PlanArrival struct {
	MXSet string    `json:"mxset"`
	MX    string    `json:"mx"`
	From  time.Time `json:"from"`
}

// PlanDomain is a domain that would be stranded, with those of its MX in DNS that the new policy does not cover.
type PlanDomain struct {
	Name policygen.Name `json:"name"`
	MX   []string       `json:"mx"`
}

// PlanReason says something of a domain, or of what is named instead of one.
type PlanReason struct {
	Subject string `json:"subject"`
	Reason  string `json:"reason"`
}

const (
	someNames = 10  // domains named where there are many
	mxLooks   = 128 // look-ups of MX at the same time; they wait for answers
	mxGiveUp  = 128 // look-ups without an answer in a row after which the rest is not tried
)

// mxTime bounds one look-up. Many domains of a hoster may be dead, and a reload waits for them all.
const mxTime = 5 * time.Second

// errOtherPlan is wrapped where a hash is not that of what would be done.
var errOtherPlan = errors.New("not the hash of what would be done now")

// Plan says what [Reconciler.Reload] would do with a configuration. Progress, if not nil, is told about once a second
// how many of the domains whose MX are looked up are done.
func (r *Reconciler) Plan(ctx context.Context, conf *config.Config, progress func(done, total int)) (Plan, error) {
	next, err := r.mean(conf, r.settings.Load().owned)
	if err != nil {
		return Plan{}, err
	}
	return r.plan(ctx, conf, next, progress)
}

func (r *Reconciler) plan(ctx context.Context, conf *config.Config, next *settings, progress func(done, total int)) (Plan, error) {
	set := r.settings.Load()
	s := newSurvey(set.conf.Digest, set.conf.MXSets, conf)
	s.owned = set.owned
	err := r.cfg.Store.EachDomain(ctx, func(have store.Domain) error {
		return s.add(have, func() ([]store.Served, error) { return r.cfg.Store.History(ctx, have.Name) })
	})
	if err != nil {
		return Plan{}, fmt.Errorf("plan: read the domains: %w", err)
	}
	hold, err := r.cfg.Store.Value(ctx, keyHold)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Plan{}, fmt.Errorf("plan: read what is held: %w", err)
	}
	s.hold(string(hold))
	p := s.end(r.now(), func(name string) float64 {
		if a := next.accounts[key{Tenant, name}]; a != nil {
			return a.Rate().Changes
		}
		return 0
	})
	if len(p.errs) == 0 {
		if err := r.strand(ctx, s.asks, p, progress); err != nil {
			return Plan{}, fmt.Errorf("plan: look up MX: %w", err)
		}
	}
	p.judge()
	p.Warnings = restartNeeded(set.conf, conf)
	return *p, nil
}

// ask is a domain whose MX may be left out by the policy text it is to get.
type ask struct {
	name policygen.Name
	text string
}

// strand looks up the MX of those who may be stranded. Where DNS as a whole does not answer it gives up soon: a reload
// waits for it, and the reconciler holds every domain that it cannot look up.
func (r *Reconciler) strand(ctx context.Context, asks []ask, p *Plan, progress func(done, total int)) error {
	found := make([]MX, len(asks))
	var failed atomic.Int32
	var mu sync.Mutex // guards done and told
	done, told := 0, time.Now()
	var g errgroup.Group
	g.SetLimit(mxLooks)
	for i, a := range asks {
		g.Go(func() error {
			found[i] = MX{Reason: fmt.Sprintf("not tried, after %d that could not be looked up", mxGiveUp)}
			if failed.Load() < mxGiveUp {
				look, cancel := context.WithTimeout(ctx, mxTime)
				defer cancel()
				found[i] = r.cfg.Sight.MX(look, a.name, a.text)
			}
			if found[i].Known {
				failed.Store(0)
			} else {
				failed.Add(1)
			}
			mu.Lock()
			defer mu.Unlock()
			if done++; progress != nil && time.Since(told) >= time.Second {
				progress(done, len(asks))
				told = time.Now()
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, a := range asks {
		switch mx := found[i]; {
		case !mx.Known:
			p.Unknown = append(p.Unknown, PlanReason{string(a.name), mx.Reason})
		case len(mx.Uncovered) > 0:
			p.Stranded = append(p.Stranded, PlanDomain{a.name, mx.Uncovered})
		}
	}
	return nil
}

// judge says what of the plan is refused, and names the plan.
func (p *Plan) judge() {
	for _, err := range p.errs {
		p.Refused = append(p.Refused, err.Error())
	}
	if len(p.errs) > 0 {
		return
	}
	if massRemoval(p.Removed.Count, p.Owned) {
		p.Refused = append(p.Refused, fmt.Sprintf("%d of %d domains would be removed (%s), which looks like a truncated file",
			p.Removed.Count, p.Owned, p.Removed))
	}
	if n := len(p.Stranded); n > 0 {
		names := Names{}
		for _, d := range p.Stranded {
			names.add(d.Name)
		}
		p.Refused = append(p.Refused, fmt.Sprintf("senders would refuse the mail of %s (%s): MX in DNS are not covered by the new policy",
			count(n, "domain"), names))
	}
	h := sha256.New()
	part := func(kind, value string) { fmt.Fprintf(h, "%s %d %s\n", kind, len(value), value) }
	part("digest", p.Digest)
	part("accepted", p.Accepted)
	part("removed", string(p.gone[:]))
	for _, d := range p.Stranded {
		part("stranded", string(d.Name))
	}
	part("hold", p.hold)
	for _, name := range p.held {
		part("held", string(name))
	}
	p.Hash = hex.EncodeToString(h.Sum(nil)[:8])
}

// allows says why the plan is not to be carried out with a hash, which may be empty.
func (p *Plan) allows(hash string) error {
	switch {
	case len(p.errs) > 0:
		return fmt.Errorf("%w: %w", ErrRefused, errors.Join(p.errs...))
	case hash != "" && hash != p.Hash:
		return fmt.Errorf("%w: %q is %w; nothing is changed; look at it: stspub plan", ErrRefused, hash, errOtherPlan)
	case hash == "" && len(p.Refused) > 0:
		return fmt.Errorf("%w: %s; nothing is changed; look at stspub plan, and if it is meant, run: stspub reload --force %s",
			ErrRefused, strings.Join(p.Refused, "; "), p.Hash)
	}
	return nil
}

func (n *Names) add(name policygen.Name) {
	if n.Count++; n.Count <= someNames {
		n.First = append(n.First, name)
	}
}

// String names the first few, and says how many more there are.
func (n Names) String() string {
	var b strings.Builder
	for i, name := range n.First {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(name))
	}
	if more := n.Count - len(n.First); more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// uncovered returns the patterns for which a policy has none.
func uncovered(patterns []string, by policygen.Policy) []string {
	return slices.DeleteFunc(slices.Clone(patterns), func(p string) bool { return covers(by, p) })
}

// covers says whether every host that a pattern matches is covered by a policy.
func covers(p policygen.Policy, pattern string) bool {
	return slices.Contains(p.MX, pattern) || !strings.HasPrefix(pattern, "*") && p.Covers(pattern)
}
