package publish

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// ErrRefused says that a configuration was not accepted as it stands, and that nothing was changed.
var ErrRefused = errors.New("refused")

// Declare takes a configuration as what is wanted from now on. What would end in lost mail if it were a mistake is
// refused with [ErrRefused]: a mass removal, and policies that leave out MX in DNS. The hash of the [Plan] lets it through
// all the same, and confirms what is held; a hash of another plan is refused. What no force helps against, for example
// taking away the account that a draining domain still needs, is refused in any case.
func (r *Reconciler) Declare(ctx context.Context, conf *config.Config, hash string) (ReloadReport, error) {
	r.reload.Lock()
	defer r.reload.Unlock()
	next, err := r.mean(conf, r.settings.Load().owned)
	if err != nil {
		return ReloadReport{}, err
	}
	plan, err := r.plan(ctx, conf, next, nil)
	if err != nil {
		return ReloadReport{}, err
	}
	if err := plan.allows(hash); err != nil {
		return ReloadReport{Plan: &plan}, err
	}
	report, err := r.take(ctx, conf, next)
	report.Plan = &plan
	if err == nil {
		report.Changed = max(report.Changed, plan.Changed.Count) // the store knows nothing of roll-outs
	}
	if err == nil && hash != "" {
		report.Forced, err = r.force(ctx, plan)
	}
	if err == nil {
		r.poke()
	}
	return report, err
}

// keyDeclared is where it stands of which configuration the store's domains are, while no other is being declared.
const keyDeclared = "publish/declared"

// declaredAs is what stands there. Its number changes when the same files come to mean another declaration.
func declaredAs(conf *config.Config) string { return "1 " + conf.Digest }

// isDeclared says whether the store's domains are those of a configuration, so that nothing would come of declaring it.
// Most starts find it so, and a million domains need not be compared then.
func isDeclared(ctx context.Context, st store.Store, conf *config.Config) (bool, error) {
	value, err := st.Value(ctx, keyDeclared)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, fmt.Errorf("read which configuration was declared: %w", err)
	}
	done := conf.Digest != "" && string(value) == declaredAs(conf)
	if !done && conf.Unread { // it would be taken for one without domains
		return false, errors.New("take the configuration: another one was taken since the start of this process; start it again")
	}
	return done, nil
}

// IsDeclared says whether the domains of a store are those of a configuration, so that they need not be read.
func IsDeclared(ctx context.Context, st store.Store, conf *config.Config) bool {
	read := *conf
	read.Unread = false
	done, err := isDeclared(ctx, st, &read)
	return err == nil && done
}

// take replaces the configuration in force. r.reload is held.
func (r *Reconciler) take(ctx context.Context, conf *config.Config, next *settings) (ReloadReport, error) {
	if r.settings.Load() == nil {
		done, err := isDeclared(ctx, r.cfg.Store, conf)
		if done {
			r.settings.Store(next)
		}
		if err != nil || done {
			return ReloadReport{}, err
		}
		if old, err := r.outdated(ctx, next.meaning); err != nil || old {
			r.settings.Store(next) // the faults say it, and nothing is claimed
			return ReloadReport{}, err
		}
	}
	if err := r.cfg.Store.DeleteValue(ctx, keyDeclared); err != nil {
		return ReloadReport{}, fmt.Errorf("declare the configuration's domains: %w", err)
	}
	if err := r.cfg.Accepted(ctx, conf); err != nil {
		return ReloadReport{}, err
	}
	d := declaration(conf)
	if old := r.settings.Load(); old == nil || old.conf.Digest != conf.Digest {
		d.Digest = conf.Digest
	}
	r.declaring.Lock()
	err := r.mark(ctx, next.meaning)
	var change store.Change
	if err == nil {
		change, err = r.cfg.Store.Declare(ctx, d, r.now())
	}
	if err != nil {
		r.declaring.Unlock()
		return ReloadReport{}, fmt.Errorf("declare the configuration's domains: %w", err)
	}
	old := r.settings.Swap(next)
	r.declaring.Unlock()
	if err := r.cfg.Store.SetValue(ctx, keyDeclared, []byte(declaredAs(conf))); err != nil {
		// The domains are as they are to be. Only the next start takes longer.
		r.cfg.Log.Warn("not kept which configuration was declared", "err", err)
	}
	report := ReloadReport{Added: change.Added, Changed: change.Changed, Removed: change.Removed, Restored: change.Restored}
	if old == nil {
		return report, nil
	}
	report.Warnings = restartNeeded(old.conf, conf)
	if old.conf.Publish != conf.Publish || old.conf.Check.Every != conf.Check.Every {
		// The times of the next looks were drawn with the old settings.
		if err := r.cfg.Store.Wake(ctx, "", r.now()); err != nil {
			return report, fmt.Errorf("have all domains looked at: %w", err)
		}
		return report, nil
	}
	return report, r.wakeConcerned(ctx, old, next)
}

// wakeConcerned has those looked at for whom the settings changed and the store knows nothing of it: they wait for an
// account, or are in a roll-out. Who is attached to a shared record goes with that.
func (r *Reconciler) wakeConcerned(ctx context.Context, old, next *settings) error {
	restaged := make(map[string]bool) // MX sets
	for name, set := range next.conf.MXSets {
		restaged[name] = rollout(set) != rollout(old.conf.MXSets[name])
	}
	var names []policygen.Name
	err := r.cfg.Store.EachDomain(ctx, func(d store.Domain) error {
		before, _ := old.account(d)
		after, _ := next.account(d)
		refused := d.State.Failures+d.State.Report.Failures > 0 && before != after
		if refused || d.Tenant == Tenant && restaged[d.MXSet] && d.Removed.IsZero() && !enforced(d.State.Served) && !(attached(d) && d.State.Served != "") {
			names = append(names, d.Name)
		}
		return nil
	})
	var g errgroup.Group // the store commits what comes at the same time in one transaction
	g.SetLimit(atOnce)
	for _, name := range names {
		g.Go(func() error {
			err := r.Wake(ctx, name)
			if errors.Is(err, store.ErrNotFound) { // it is gone meanwhile
				return nil
			}
			return err
		})
	}
	return errors.Join(err, g.Wait())
}

// declaration translates the MX sets and domains of a configuration.
func declaration(conf *config.Config) store.Declaration {
	d := store.Declaration{Owner: store.OwnerFile}
	for name, m := range conf.MXSets {
		d.MXSets = append(d.MXSets, store.MXSet{Tenant: Tenant, Name: name, Policy: m.Policy, Rollout: m.Rollout})
	}
	shared := make(map[string]bool)
	for _, c := range conf.Domains {
		if c.Publish == store.PublishShared && !shared[c.MXSet] {
			shared[c.MXSet] = true
			d.Domains = append(d.Domains, store.Domain{
				Name: policygen.Name(sharedName(Tenant, c.MXSet, conf.Alias.Zone)), Tenant: Tenant, MXSet: c.MXSet,
				Publish: store.PublishWildcard, Account: c.Account, Owner: store.OwnerFile,
			})
		}
		d.Domains = append(d.Domains, store.Domain{
			Name: c.Name, Tenant: Tenant, MXSet: c.MXSet, Publish: c.Publish, Account: c.Account, Owner: store.OwnerFile, Adopt: c.Adopt,
			TLSRPT: c.TLSRPT,
		})
	}
	return d
}

// massRemoval is how many removals at once are taken for a mistake: more than ten, and more than one in a hundred.
func massRemoval(removed, owned int) bool { return removed > max(10, owned/100) }

// Refused says why [Reconciler.Start] would refuse a configuration, with [ErrRefused]; nil: it would not.
func Refused(ctx context.Context, st store.Store, conf *config.Config) error {
	if done, err := isDeclared(ctx, st, conf); err != nil || done {
		return err // it was judged when it was taken
	}
	s := newSurvey(conf.Digest, conf.MXSets, conf)
	if err := s.readOwned(ctx, st); err != nil {
		return err
	}
	err := st.EachDomain(ctx, func(have store.Domain) error {
		return s.add(have, func() ([]store.Served, error) { return nil, nil })
	})
	if err != nil {
		return fmt.Errorf("read the domains: %w", err)
	}
	p := s.end(time.Time{}, func(string) float64 { return 0 })
	p.judge()
	if err := p.allows(p.Hash); err != nil || len(p.Refused) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s; nothing is changed; look at stspub plan, which prints the command if it is meant",
		ErrRefused, strings.Join(p.Refused, "; "))
}

// misplaced says why a domain with a record cannot become what is declared: its record would be left behind. known says
// that its account is there, found that it stays.
func misplaced(conf *config.Config, have store.Domain, want config.Domain, found, known bool) error {
	draining, record := "it drains", have.State.Record
	if have.State.Zone == "" {
		record = have.State.Report.Record
	}
	if !have.State.Horizon.IsZero() {
		draining += " until " + have.State.Horizon.UTC().Format(time.DateTime+" MST")
	}
	switch {
	case !found && !known && have.Account != "":
		return fmt.Errorf("account.%s: account is needed for the record of %s until that is gone (%s); put it back",
			have.Account, have.Name, draining)
	case !found:
		return nil
	case want.Publish != have.Publish:
		return fmt.Errorf("domain %s: publish cannot change from %q to %q while its record is at %s; remove the domain, and add it "+
			"again when it has drained", have.Name, have.Publish, want.Publish, record)
	case inAliasZone(have.Publish) && !strings.HasSuffix(record, "."+conf.Alias.Zone):
		return fmt.Errorf("alias.zone: %q is not the zone of the record %s that %s uses; customers' CNAMEs lead there; put it back",
			conf.Alias.Zone, record, have.Name)
	}
	return nil
}

// inAliasZone says whether a record lies in the alias zone.
func inAliasZone(publish string) bool {
	return publish == store.PublishAlias || publish == store.PublishShared || publish == store.PublishWildcard
}

// force lets through what a plan lists: the policies that strand mail, and deletions.
func (r *Reconciler) force(ctx context.Context, p Plan) ([]string, error) {
	var forced []string
	if p.Removed.Count > 0 {
		forced = append(forced, "removal of "+count(p.Removed.Count, "domain"))
	}
	if p.hold != "" {
		if err := r.release(ctx, p.hold); err != nil {
			return forced, err
		}
		forced = append(forced, p.hold)
	}
	names := slices.Clone(p.held)
	for _, d := range p.Stranded {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	for _, name := range names {
		err := r.update(ctx, name, func(d *store.Domain) { d.State.Forced = r.policyOf(*d) })
		if err != nil {
			return forced, err
		}
		forced = append(forced, string(name))
	}
	return forced, nil
}

// policyOf is the text that the configuration wants for a domain.
func (r *Reconciler) policyOf(d store.Domain) string {
	policy, _, ok := r.settings.Load().policy(d)
	if !d.Removed.IsZero() || !ok {
		return d.State.Served
	}
	return policy.Text()
}

// update changes a domain between two passes, and has it looked at now.
func (r *Reconciler) update(ctx context.Context, name policygen.Name, f func(*store.Domain)) error {
	for {
		d, err := r.cfg.Store.Domain(ctx, name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		f(&d)
		d.Due = r.now()
		switch err := r.cfg.Store.Save(ctx, &d, r.now()); {
		case err == nil:
			r.poke()
			return nil
		case !errors.Is(err, store.ErrStale):
			return fmt.Errorf("keep the state of %s: %w", name, err)
		}
	}
}

// restartNeeded names the tables that changed and are read only at start.
func restartNeeded(old, new *config.Config) []string {
	var tables []string
	for _, t := range []struct {
		name     string
		old, new any
	}{
		{"server", old.Server, new.Server},
		{"store", old.Store, new.Store},
		{"dns", old.DNS, new.DNS},
		{"acme", old.ACME, new.ACME},
		{"check (but every)", withoutEvery(old.Check), withoutEvery(new.Check)},
	} {
		if !reflect.DeepEqual(t.old, t.new) {
			tables = append(tables, t.name)
		}
	}
	if len(tables) == 0 {
		return nil
	}
	slices.Sort(tables)
	return []string{"changes in " + strings.Join(tables, ", ") + " take effect after a restart"}
}

func withoutEvery(c config.Check) config.Check {
	c.Every = 0
	return c
}
