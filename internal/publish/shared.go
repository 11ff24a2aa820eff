package publish

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

const (
	sampleSize   = 16               // domains of a shared record that are looked at from outside before its id changes
	sweepTime    = 2 * time.Minute  // how long all its domains may be looked at before another policy is enforced, within passLimit
	partTime     = 15 * time.Minute // how long a shared record waits for the own ones of those that leave it
	sweepWorkers = 256              // domains of a shared record whose MX are looked up at the same time
)

// policy is what a domain is to serve by its stage, and how long its roll-out lasts; zero: it is over, or there is none.
func (s *settings) policy(d store.Domain) (policygen.Policy, time.Duration, bool) {
	set, ok := s.mxset(d.Tenant, d.MXSet)
	p, rollout := stage(set, d)
	return p, rollout, ok
}

// stage is settings.policy for the MX set of the domain.
func stage(set config.MXSet, d store.Domain) (policygen.Policy, time.Duration) {
	p := set.Policy
	switch {
	case p.Mode != policygen.Enforce:
		return p, 0
	case d.State.Pinned:
	case set.Rollout == 0, !d.State.Promoted.IsZero(), enforced(d.State.Served): // one who enforces already need not begin anew
		return p, 0
	}
	p.Mode = policygen.Testing
	return p, set.Rollout
}

// promoted is a policy in mode enforce.
func promoted(text string) string {
	p, err := policygen.ParsePolicy([]byte(text))
	if err != nil {
		return text
	}
	p.Mode = policygen.Enforce
	return p.Text()
}

// wantShared adds what is to be known of the shared record.
func (r *Reconciler) wantShared(ctx context.Context, set *settings, d store.Domain, w *Want) error {
	record := d
	if !w.Wildcard {
		var err error
		name := policygen.Name(sharedName(d.Tenant, d.MXSet, set.conf.Alias.Zone))
		if w.Drain { // who moved to another MX set has left his record where it was
			name = policygen.Name(above(w.Record))
		}
		record, err = r.cfg.Store.Domain(ctx, name)
		if errors.Is(err, store.ErrNotFound) && w.Drain {
			return nil // it went before: what is left is an alias record
		}
		if err != nil {
			return fmt.Errorf("read the shared record of MX set %q: %w", d.MXSet, err)
		}
	}
	st := record.State
	w.Shared = &Shared{
		Text: st.Served, Next: st.Served, ID: st.ID, Clean: st.ID != "" && !st.Dirty && st.Intended == "",
		Made: policygen.IDTime(st.ID), Home: below(w.Record, string(record.Name)), Pinned: st.Pinned && record.Removed.IsZero(),
	}
	p, rollout, ok := set.policy(record)
	if ok && record.Removed.IsZero() {
		w.Shared.Next = p.Text()
	}
	if !w.Wildcard {
		return nil
	}
	over := rollout > 0 && !st.Staged.IsZero() && r.since(st.Staged) >= rollout
	count := func(have store.Domain) error {
		s := have.State
		if over && s.Served != "" && s.Detached.IsZero() && have.Removed.IsZero() && !s.Pinned && staging(s, rollout, r.now()) {
			w.Staging++
		}
		if s.Zone != "" && s.ID == "" && s.Dirty && s.Deleted.IsZero() && r.since(s.Detached) < partTime &&
			below(s.Record, string(d.Name)) {
			w.Parting++
		}
		switch {
		case s.Served == "" || !below(RecordName(set.conf.Alias.Zone, have), string(d.Name)):
		case s.Detached.IsZero(), s.Zone != "" && s.ID == "" && (s.Dirty || s.Step == StepAttach) && s.Deleted.IsZero():
			w.Attached++ // or its own record is not there yet, or not any more
		case have.Removed.IsZero() && s.Step == StepLive && s.Served == st.Served && !s.Dirty && !w.Shared.Made.After(s.Detached):
			w.Waiting++
		}
		return nil
	}
	if !w.Drain {
		if !st.Dirty && !over && r.since(w.Shared.Made) < gatherFor {
			return nil // who waits, waits; there may be a hundred thousand to look at
		}
		return r.cfg.Store.EachShared(ctx, d.Tenant, d.MXSet, count)
	}
	return r.cfg.Store.EachDomain(ctx, func(have store.Domain) error { // who moved to another MX set may need it still
		if have.Publish != store.PublishShared {
			return nil
		}
		return count(have)
	})
}

// splitShared tells what the shared record makes up at a name from what stands there. With own, nothing is made up.
func (r *Reconciler) splitShared(ctx context.Context, d store.Domain, t *TXT, own bool) error {
	var made []string
	if !own {
		ids, err := r.cfg.Store.IDs(ctx, above(RecordName(r.settings.Load().conf.Alias.Zone, d)))
		if err != nil {
			return fmt.Errorf("read the ids of the shared record: %w", err)
		}
		made = ours(t.sts(), ids)
		if len(made) < len(t.sts()) {
			made = append(made, r.strange(ctx, above(RecordName(r.settings.Load().conf.Alias.Zone, d)), t)...)
		}
	}
	t.Shared = made
	for i := range t.Servers {
		s := &t.Servers[i]
		before := len(s.STS)
		s.STS = slices.DeleteFunc(s.STS, func(v string) bool { return slices.Contains(made, v) })
		s.Bare = s.Err == "" && before == 0 && s.Others > 0
	}
	return nil
}

// strange returns those of the values seen at a domain's name that nobody here intended, and that a shared record holds all
// the same. Then it is that one which is to be mended, soon.
func (r *Reconciler) strange(ctx context.Context, shared string, t *TXT) []string {
	v := r.cfg.Sight.TXT(ctx, shared)
	found := slices.DeleteFunc(t.sts(), func(value string) bool { return !v.some(value) })
	if len(found) > 0 {
		if err := r.Wake(ctx, policygen.Name(shared)); err != nil && !errors.Is(err, store.ErrNotFound) {
			r.cfg.Log.Warn("shared record not woken", "domain", shared, "err", err)
		}
	}
	return found
}

// lookShared looks at what a shared record stands for: its domains.
func (r *Reconciler) lookShared(ctx context.Context, l Look, w Want, d *store.Domain, seen *Seen) error {
	var err error
	switch l {
	case LookPrior:
		seen.Prior = &Prior{Existed: true} // whoever set a CNAME too early may hold something
	case LookMX:
		var v MX
		v, err = r.sweep(ctx, w, *d)
		seen.MX = &v
	case LookBody:
		if d.State.Dirty { // what is sampled says nothing of the others
			if err := r.serveStored(ctx, d); err != nil {
				return err
			}
		}
		var v Body
		seen.Host = &Host{Ours: true}
		v, err = r.bodyOf(ctx, d, func() (b Body, err error) {
			b, seen.Host.TTL, err = r.sample(ctx, *d)
			return b, err
		})
		seen.Body = &v
		if v.Live {
			r.tell(w.Name, StepBody, "the policy is live at its domains, as far as a sample of them shows")
		}
	case LookQuota:
		var v Quota
		v, err = r.quota(ctx, w, *d)
		seen.Quota = &v
	default:
		err = fmt.Errorf("look %d is not for a shared record; this is a bug", l)
	}
	return err
}

// eachAttached calls f for the domains that serve a shared record's text.
func (r *Reconciler) eachAttached(ctx context.Context, record store.Domain, f func(store.Domain) error) error {
	return r.cfg.Store.EachShared(ctx, record.Tenant, record.MXSet, func(d store.Domain) error {
		if d.State.Served == "" || !d.State.Detached.IsZero() || !below(d.State.Record, string(record.Name)) {
			return nil
		}
		return f(d)
	})
}

// wakeDetached has those looked at that may be attached to a shared record's new id.
func (r *Reconciler) wakeDetached(ctx context.Context, record store.Domain) error {
	return r.cfg.Store.EachShared(ctx, record.Tenant, record.MXSet, func(d store.Domain) error {
		if d.State.Detached.IsZero() || d.State.Step != StepLive || d.State.Served != record.State.Served {
			return nil
		}
		return r.Wake(ctx, d.Name)
	})
}

// sample looks at some domains whose last check was good, and returns for how long caches may hold another address of ours.
// One that is broken is a finding of its own and holds nobody; when half of them are, it is not they. Where none was good,
// any will do that points here: that all are broken at once is more likely to be ours. Where there is none of these either, but
// domains that leave and still share the record, as while drains are held, they are looked at.
func (r *Reconciler) sample(ctx context.Context, record store.Domain) (Body, time.Duration, error) {
	var good, others, leaving chosen
	announced := false
	err := r.eachAttached(ctx, record, func(d store.Domain) error {
		announced = announced || d.State.Zone != ""
		switch d.State.Step {
		case StepLive:
			if !d.State.Fault {
				good.offer(d.Name)
			}
			others.offer(d.Name)
		case StepBody, StepSettle, StepTXT, StepVerify, StepDelegation:
			others.offer(d.Name)
		case StepDrain:
			leaving.offer(d.Name)
		}
		return nil
	})
	if err != nil {
		return Body{}, 0, fmt.Errorf("find domains of %s to look at: %w", record.Name, err)
	}
	names := good.names
	for _, second := range []chosen{others, leaving} {
		if len(names) == 0 {
			names = second.names
		}
	}
	if len(names) == 0 {
		return Body{Live: !announced, Reason: "none of its domains is served here, as far as their last looks showed"}, 0, nil
	}
	target := Target(r.settings.Load().conf.Server.Hostname, record.Tenant)
	bodies, hosts := make([]Body, len(names)), make([]Host, len(names))
	var g errgroup.Group
	for i, name := range names {
		g.Go(func() error {
			hosts[i] = r.cfg.Sight.Host(ctx, name, target)
			bodies[i] = r.cfg.Sight.Body(ctx, name, record.State.Served)
			return nil
		})
	}
	_ = g.Wait() // none of them returns an error
	live, reason, ttl := 0, "", time.Duration(0)
	for i, b := range bodies {
		if b.Live {
			live++
		} else {
			reason = fmt.Sprintf("%s: %s", names[i], b.Reason)
		}
		if hosts[i].Ours {
			ttl = max(ttl, hosts[i].TTL)
		}
	}
	return Body{Live: 2*live >= len(names), Reason: reason}, ttl, nil
}

// chosen are some of the names offered, each with the same chance.
type chosen struct {
	names   []policygen.Name
	offered int
}

func (c *chosen) offer(name policygen.Name) {
	c.offered++
	if len(c.names) < sampleSize {
		c.names = append(c.names, name)
	} else if i := rand.IntN(c.offered); i < sampleSize {
		c.names[i] = name
	}
}

// sweep looks at every domain that a new shared policy would be enforced for, before it is served. Those that it would
// strand, or that are not ready for their promotion, are detached and keep what they have. If those are many, it is
// rather the policy that is wrong, and nobody gets it, unless an operator wants it for the others.
func (r *Reconciler) sweep(ctx context.Context, w Want, record store.Domain) (MX, error) {
	var (
		mu    sync.Mutex
		wrong []string
		apart []policygen.Name
		err   error
	)
	sctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	looked := make(map[policygen.Name]bool)
	for all := -1; err == nil && len(looked) > all; { // once more for those that were attached meanwhile
		all = len(looked)
		g, gctx := errgroup.WithContext(sctx)
		g.SetLimit(sweepWorkers)
		err = r.eachAttached(gctx, record, func(d store.Domain) error {
			if !d.Removed.IsZero() || looked[d.Name] {
				return nil
			}
			looked[d.Name] = true
			g.Go(func() error {
				why, own := r.unfit(gctx, d, record, w.Policy)
				if why == "" {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				if apart = append(apart, d.Name); !own {
					wrong = append(wrong, fmt.Sprintf("%s: %s", d.Name, why))
				}
				return nil
			})
			return gctx.Err()
		})
		_ = g.Wait() // none of them returns an error
	}
	slices.Sort(wrong)
	switch {
	case ctx.Err() != nil:
		return MX{}, ctx.Err()
	case sctx.Err() != nil:
		return MX{Reason: fmt.Sprintf("held: the MX of its domains were not looked up within %s (%d begun); they are tried again", sweepTime, len(looked))}, nil
	case err != nil:
		return MX{}, fmt.Errorf("look at the domains of %s: %w", record.Name, err)
	case len(wrong) > few(len(looked)) && record.State.Forced != w.Policy:
		return MX{Reason: fmt.Sprintf("held: %d of %d domains cannot get the new policy, so nobody does: %s, …; mend that, or have who "+
			"runs the service give it to the others, by the hash that stspub plan prints; these keep theirs then with records of their own",
			len(wrong), len(looked), strings.Join(wrong[:3], "; "))}, nil
	}
	for _, name := range apart {
		err := r.update(ctx, name, func(d *store.Domain) {
			p := pass{w: Want{Record: RecordName(r.settings.Load().conf.Alias.Zone, *d), Shared: w.Shared}, s: d.State, now: r.now()}
			d.State = p.detach("").State
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return MX{}, err
		}
	}
	return MX{Known: true}, nil
}

// unfit says why a domain cannot have a shared policy in mode enforce. Own means that this is its own affair and says
// nothing of the policy.
func (r *Reconciler) unfit(ctx context.Context, d, record store.Domain, policy string) (why string, own bool) {
	set, _ := r.settings.Load().mxset(record.Tenant, record.MXSet)
	switch rollout := set.Rollout; {
	case d.State.Forced == policy:
		return "", false
	case d.State.Pinned:
		return "it is kept in mode testing", true
	case rollout > 0 && d.State.Promoted.IsZero() && !enforced(d.State.Served):
		byHand := record.State.Staged.IsZero()
		if !byHand && staging(d.State, rollout, r.now()) {
			return "its roll-out is not over", true
		}
		for _, f := range d.State.Findings {
			if f.Code == codePromotion { // two looks in a row have to be clean
				return f.Text, false
			}
		}
		if v := r.cfg.Sight.Ready(ctx, d.Name, policy); !v.Clean {
			return v.Reason, false
		}
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, mxTime)
	defer cancel()
	switch v := r.cfg.Sight.MX(ctx, d.Name, policy); {
	case !v.Known:
		return "its MX cannot be looked up: " + v.Reason, false
	case len(v.Uncovered) > 0:
		return "its MX " + strings.Join(v.Uncovered, ", ") + " is not covered", false
	}
	return "", false
}

// staging says that a domain's own roll-out is not over.
func staging(s store.State, rollout time.Duration, now time.Time) bool {
	return s.Promoted.IsZero() && (s.Staged.IsZero() || now.Sub(s.Staged) < rollout)
}
