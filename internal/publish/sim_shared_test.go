package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// sharedSim is the world of [sim] for shared records: the real driver works in it, several passes at the same time, and
// between any two of their steps anything may happen. It is a [store.Store], an account, a [Sight] and [Certs] at once.
type sharedSim struct {
	*memStore
	t    *testing.T
	rnd  *rand.Rand
	log  []string
	fail bool

	rec    *Reconciler
	life   int // of the process
	passes []*simPass

	sets      []simSet
	customers []*customer
	backups   []*memStore

	zones    [2]map[string][]string
	byHand   [2]map[string]bool // names that somebody else, or a late write, changed since our last write there
	late     []func()
	nsOK     [2]bool
	writes   int // 0: work, 1: fail, 2: work but the answer is lost, 3: land late
	foreign  int
	stands   map[string]string // every id ever intended → its text
	verified map[string]int    // shared record → ids
	written  map[string]int    // name → writes tried
}

type simSet struct {
	name    string
	texts   []policygen.Policy
	want    int
	rollout time.Duration
}

// customer is a domain with its DNS and its senders.
type customer struct {
	name   policygen.Name
	set    int
	wanted bool
	cname  string // where his _mta-sts leads; empty: nowhere

	hostOurs, proven, certOK, bodyOK, fresh, stranded, unready bool

	hostTTL time.Duration
	old     time.Time // until then caches may lead to the place where the policy host was
	away    time.Time // since when every look proved that the host is elsewhere
	served  string    // by the node
	since   time.Time
	senders []watcher
}

// watcher is a sender with all the memories that senders in use have.
type watcher struct {
	id, text string
	until    time.Time
	extends  bool // what it holds, while the id stays the same

	seen      string // the id in its resolver's cache
	seenUntil time.Time
	slow      string // the id that it is about to fetch the policy for
	slowSince time.Time
	memoizes  bool // the HTTPS answer
	memo      string
	memoSince time.Time
}

// memoFor is for how long Halon memoises an HTTPS answer.
const memoFor = 5 * time.Minute

const simZone = "a.test"

// simPass is a pass of the driver. It stops before and after whatever it does, until it is let go on.
type simPass struct {
	life   int
	record bool // of a shared record
	saved  store.Domain
	held   bool // deletions were, when it decided
	resume chan struct{}
	paused chan struct{}
	done   chan struct{}
}

type simPassKey struct{}

var errSimCrash = errors.New("the process is gone")

func passOf(ctx context.Context) *simPass {
	p, _ := ctx.Value(simPassKey{}).(*simPass)
	return p
}

// pause lets others go on.
func (s *sharedSim) pause(ctx context.Context) error {
	p := passOf(ctx)
	if p == nil {
		return nil
	}
	p.paused <- struct{}{}
	<-p.resume
	if p.life != s.life {
		return errSimCrash
	}
	return ctx.Err()
}

func newSharedSim(t *testing.T, seed uint64) *sharedSim {
	s := &sharedSim{
		memStore: newMemStore(), t: t, rnd: rand.New(rand.NewPCG(seed, 2)), //nolint:gosec // a simulation
		zones: [2]map[string][]string{{}, {}}, byHand: [2]map[string]bool{{}, {}}, nsOK: [2]bool{true, true},
		stands: make(map[string]string), verified: make(map[string]int), written: make(map[string]int),
	}
	for i, name := range []string{"eu", "us"}[:1+s.rnd.IntN(2)] {
		set := simSet{name: name}
		for j, mode := range []policygen.Mode{policygen.Testing, policygen.Enforce, policygen.Testing} {
			mx := fmt.Sprintf("mx%d.%s.test", j, name)
			set.texts = append(set.texts, policygen.Policy{Mode: mode, MaxAge: 86400 * (1 + (i+j)%3), MX: []string{mx}})
		}
		if s.rnd.IntN(3) == 0 {
			set.rollout = 36 * time.Hour
		}
		s.sets = append(s.sets, set)
	}
	for i := range 3 + s.rnd.IntN(3) {
		d := &customer{
			name: policygen.Name(fmt.Sprintf("d%d.test", i)), set: s.rnd.IntN(len(s.sets)), wanted: s.rnd.IntN(5) > 0,
			hostOurs: s.rnd.IntN(5) > 0, hostTTL: time.Hour, proven: true, certOK: true, bodyOK: true,
			fresh: s.rnd.IntN(2) == 0, senders: []watcher{{}, {extends: true}, {memoizes: true}},
		}
		if s.rnd.IntN(4) == 0 { // too early
			d.cname = d.name.Label() + s.sharedName(d.set)[1:]
		}
		s.customers = append(s.customers, d)
	}
	s.boot()
	return s
}

func (s *sharedSim) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	for _, d := range s.customers {
		line = strings.ReplaceAll(line, d.name.Label(), "<"+string(d.name)+">")
	}
	s.log = append(s.log, time.Now().UTC().Format("02 15:04:05 ")+line)
}

func (s *sharedSim) bad(format string, args ...any) {
	if s.fail {
		return
	}
	s.fail = true
	for _, l := range s.log[max(0, len(s.log)-400):] {
		s.t.Log(l)
	}
	s.t.Errorf(format, args...)
}

func (s *sharedSim) config() *config.Config {
	c := &config.Config{
		Publish: config.Publish{Settle: simSettle, TTL: simTTL}, Check: config.Check{Every: 6 * time.Hour},
		Accounts: map[string]config.Account{"main": {Name: "main"}}, Alias: config.Alias{Zone: simZone, Account: "main"},
		MXSets: make(map[string]config.MXSet),
	}
	for _, set := range s.sets {
		c.MXSets[set.name] = config.MXSet{Name: set.name, Policy: set.texts[set.want], Rollout: set.rollout}
	}
	for _, d := range s.customers {
		if d.wanted {
			c.Domains = append(c.Domains, config.Domain{Name: d.name, MXSet: s.sets[d.set].name, Publish: store.PublishShared, Account: "main"})
		}
	}
	return c
}

func (s *sharedSim) boot() {
	s.rec = New(Config{
		Store: s, Snapshot: NewSnapshot(), Sight: s, Certs: s, Log: slog.New(slog.DiscardHandler),
		Accepted:    func(context.Context, *config.Config) error { return nil },
		OpenAccount: func(string, config.Account) (dnsupdate.Account, error) { return (*simAccount)(s), nil },
	})
	if _, err := s.rec.Start(context.Background(), s.config()); err != nil {
		s.bad("start: %v", err)
	}
	s.observe()
}

func (s *sharedSim) declare(force bool) {
	ctx, conf, hash := context.Background(), s.config(), ""
	if force {
		plan, err := s.rec.Plan(ctx, conf, nil)
		if err != nil {
			s.bad("plan: %v", err)
		}
		hash = plan.Hash
	}
	if _, err := s.rec.Declare(ctx, conf, hash); err != nil {
		s.bad("declare: %v", err)
	}
}

// observe looks at what the node serves.
func (s *sharedSim) observe() {
	for _, d := range s.customers {
		text := ""
		if page, ok := s.rec.cfg.Snapshot.Policy(d.name.PolicyHost()); ok {
			text = page.Text
		}
		if text != d.served {
			s.say("%s: serve %q", d.name, short(text))
			d.served, d.since = text, time.Now()
		}
	}
}

func (s *sharedSim) sharedName(set int) string { return sharedName(Tenant, s.sets[set].name, simZone) }

// work lets the passes of what is due go on in any order, for at most so many steps.
func (s *sharedSim) work(steps int, crash float64) {
	for range steps {
		if len(s.passes) < 4 {
			s.claim()
		}
		if len(s.passes) == 0 || s.fail {
			return
		}
		i := s.rnd.IntN(len(s.passes))
		s.step(i)
		if s.rnd.Float64() < crash {
			s.crash()
		}
		if s.rnd.IntN(40) == 0 {
			time.Sleep(time.Duration(s.rnd.IntN(20)) * time.Second)
		}
	}
}

func (s *sharedSim) claim() {
	due, err := s.Claim(context.Background(), time.Now(), lease, 1)
	if err != nil {
		s.bad("claim: %v", err)
	}
	if len(due) == 0 {
		return
	}
	d := due[0]
	p := &simPass{
		life: s.life, record: d.Publish == store.PublishWildcard, saved: d,
		resume: make(chan struct{}), paused: make(chan struct{}), done: make(chan struct{}),
	}
	s.passes = append(s.passes, p)
	rec := s.rec
	go func() {
		defer close(p.done)
		<-p.resume
		ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), simPassKey{}, p), passLimit)
		defer cancel()
		err := rec.pass(ctx, d)
		if err != nil && p.life == s.life && ctx.Err() == nil && !errors.Is(err, store.ErrStale) {
			s.bad("pass of %s: %v", d.Name, err)
		}
	}()
}

// step lets a pass go on until it pauses.
func (s *sharedSim) step(i int) {
	p := s.passes[i]
	p.resume <- struct{}{}
	select {
	case <-p.paused:
	case <-p.done:
		s.passes = slices.Delete(s.passes, i, i+1)
	}
	s.observe()
	s.check()
}

// finish ends the passes under way.
func (s *sharedSim) finish() {
	for len(s.passes) > 0 {
		s.step(len(s.passes) - 1)
	}
}

func (s *sharedSim) crash() {
	s.say("crash")
	s.life++
	s.finish()
	s.boot()
}

// The store.

func (s *sharedSim) Save(ctx context.Context, d *store.Domain, now time.Time) error {
	if err := s.pause(ctx); err != nil {
		return err
	}
	old := s.rows[d.Name].Domain
	if left := d.Due.Sub(now); left > 3*time.Hour { // the driver draws lots, which no seed repeats
		d.Due = now.Add(left.Round(2 * time.Hour))
	} else if left > 30*time.Minute {
		d.Due = now.Add(left.Round(time.Hour))
	}
	if err := s.memStore.Save(ctx, d, now); err != nil {
		return err
	}
	s.saved(old, *d)
	if p := passOf(ctx); p != nil && p.saved.Name == d.Name {
		p.saved, p.held = *d, s.values[keyHold] != nil
	}
	return s.pause(ctx)
}

func (s *sharedSim) saved(old, d store.Domain) {
	before, n := old.State, d.State
	if n.Intended != "" && n.Intended != before.Intended {
		if _, used := s.stands[n.Intended]; used {
			s.bad("id %s is intended twice", n.Intended)
		}
		s.stands[n.Intended] = n.Served
		s.say("%s: intend %s for %q", d.Name, n.Intended, short(n.Served))
	}
	if n.Intended != "" && s.stands[n.Intended] != n.Served {
		s.bad("%s: id %s is kept for another text", d.Name, n.Intended)
	}
	apart := d.Publish == store.PublishWildcard || !n.Detached.IsZero()
	if n.Served != before.Served && apart && !n.Dirty {
		s.bad("%s: the text changes and the record is not dirty", d.Name)
	}
	if n.ID != before.ID && n.ID != "" {
		s.say("%s: verified %s", d.Name, n.ID)
		s.verified[string(d.Name)]++
	}
	switch {
	case before.Served != n.Served:
		s.say("%s: commit %q", d.Name, short(n.Served))
	case before.Detached.IsZero() && !n.Detached.IsZero():
		s.say("%s: detached, at %s", d.Name, n.Step)
	case !before.Detached.IsZero() && n.Detached.IsZero():
		s.say("%s: attached", d.Name)
	case before.Step != n.Step:
		s.say("%s: %s (%s)", d.Name, n.Step, n.Reason)
	}
}

func (s *sharedSim) Delete(ctx context.Context, d store.Domain) error {
	if err := s.pause(ctx); err != nil {
		return err
	}
	if err := s.memStore.Delete(ctx, d); err != nil {
		return err
	}
	s.say("%s: forgotten", d.Name)
	if c := s.customer(d.Name); c != nil {
		s.mayDelete(c, d, "forget")
		c.old = time.Time{} // where its policy host was, nobody knows any more
	}
	return s.pause(ctx)
}

func (s *sharedSim) customer(name policygen.Name) *customer {
	for _, d := range s.customers {
		if d.name == name {
			return d
		}
	}
	return nil
}

// right is the id that stands for what a domain serves, as far as the driver knows; empty: none does.
func (s *sharedSim) right(d *customer) (id, text string) {
	r, there := s.rows[d.name]
	st := r.State
	switch {
	case !there, st.Served == "", st.Dirty, st.Handover > 0, !d.hostOurs:
		return "", ""
	case !st.Detached.IsZero() && st.Intended == "":
		return st.ID, st.Served
	case !st.Detached.IsZero(), st.Zone == "", !below(st.Record, sharedName(Tenant, r.MXSet, simZone)):
		return "", "" // it is attached, but will be detached before anything else
	}
	shared := s.rows[policygen.Name(above(st.Record))].State
	if shared.Dirty || shared.Intended != "" {
		return "", ""
	}
	return shared.ID, st.Served
}

// check: whoever holds a policy under an id that is right holds what is served.
func (s *sharedSim) check() {
	for _, d := range s.customers {
		id, text := s.right(d)
		for i, c := range d.senders {
			if id != "" && c.id == id && c.text != text && time.Now().Before(c.until) {
				s.bad("%s: id %s is right for %q, but sender %d holds %q under it", d.name, id, short(text), i, short(c.text))
			}
		}
	}
}

// The name servers.

// answer is what a name server answers, with wildcards as RFC 4592 has them.
func (s *sharedSim) answer(server int, record string) []string {
	if values := s.zones[server][record]; len(values) > 0 || strings.HasPrefix(record, "*.") {
		return values
	}
	return s.zones[server][above(record)]
}

func stsOf(values []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !policygen.IsSTSv1(v) })
}

// set changes a name at one server. No name that a customer's CNAME leads to may come to have no STSv1 record, or two; but
// at the end of a drain, although the domain may have come back when that lands.
func (s *sharedSim) set(server int, record string, values []string, drained bool) {
	before := make([]int, len(s.customers))
	for i, d := range s.customers {
		before[i] = len(stsOf(s.answer(server, d.cname)))
	}
	s.zones[server][record] = values
	for i, d := range s.customers {
		r, there := s.rows[d.name]
		after := len(stsOf(s.answer(server, d.cname)))
		switch {
		case !there || r.State.Zone == "" || d.cname != r.State.Record, s.byHand[server][d.cname], s.byHand[server][above(d.cname)]:
		case after == 0 && before[i] > 0 && r.Removed.IsZero() && record != d.cname:
			s.bad("%s: the record %s goes, and no other stands at %s", d.name, record, d.cname)
		case after == 0 && before[i] > 0 && r.Removed.IsZero() && !drained:
			s.bad("%s: its record goes, and the shared one does not stand", d.name)
		case after == 0 && before[i] > 0 && record != d.cname && r.State.Horizon.IsZero():
			s.bad("%s: the shared record goes while it leaves", d.name)
		case after > 1 && before[i] < 2:
			s.bad("%s: %d STSv1 records at %s", d.name, after, d.cname)
		}
	}
}

// hand changes a name everywhere, without us.
func (s *sharedSim) hand(record string, values ...string) {
	s.byHand[0][record], s.byHand[1][record] = true, true
	s.zones[0][record], s.zones[1][record] = slices.Clone(values), slices.Clone(values)
}

// simAccount is the account of the simulation.
type simAccount sharedSim

func (*simAccount) Name() string     { return "main" }
func (*simAccount) Provider() string { return "sim" }

func (a *simAccount) Rate() dnsupdate.Rate { return dnsupdate.Rate{Changes: 100, Batch: 1} }

func (a *simAccount) Apply(ctx context.Context, c dnsupdate.Change) error {
	s := (*sharedSim)(a)
	unavailable := &dnsupdate.Error{Account: "main", Op: "write", Name: c.Name, Kind: dnsupdate.KindUnavailable, Err: errors.New("time-out")}
	if err := s.pause(ctx); err != nil {
		return err
	}
	s.say("%s: add %q, remove %q", c.Name, c.Add, c.Remove)
	s.written[c.Name]++
	s.mayApply(passOf(ctx), c)
	switch s.writes {
	case 1:
		return unavailable
	case 3:
		s.late = append(s.late, func() { s.clobber(c) })
		return unavailable
	}
	keep := slices.DeleteFunc(slices.Clone(s.zones[0][c.Name]), func(v string) bool { return slices.Contains(c.Remove, v) || v == c.Add })
	if c.Add != "" && len(stsOf(keep)) > 0 {
		return &dnsupdate.Error{Account: "main", Op: "write", Name: c.Name, Kind: dnsupdate.KindConflict, Err: dnsupdate.ErrConflict}
	}
	if c.Add != "" {
		keep = append(keep, c.Add)
	}
	drained := !passOf(ctx).saved.Removed.IsZero()
	s.set(0, c.Name, keep, drained)
	if c.Add != "" {
		delete(s.byHand[0], c.Name)
	}
	follow := func() {
		s.set(1, c.Name, slices.Clone(s.zones[0][c.Name]), drained)
		if !s.byHand[0][c.Name] {
			delete(s.byHand[1], c.Name)
		}
	}
	if s.rnd.IntN(2) == 0 {
		follow()
	} else {
		s.late = append(s.late, follow)
	}
	if s.writes == 2 {
		return unavailable
	}
	return s.pause(ctx)
}

// clobber is a write that lands late, at a provider that changes in place whatever it finds.
func (s *sharedSim) clobber(c dnsupdate.Change) {
	s.say("a late write lands at %s: add %q, remove %q", c.Name, c.Add, c.Remove)
	if c.Add != "" {
		s.hand(c.Name, c.Add)
		return
	}
	s.hand(c.Name, slices.DeleteFunc(slices.Clone(s.zones[0][c.Name]), func(v string) bool { return slices.Contains(c.Remove, v) })...)
}

// mayApply checks a write before it lands.
func (s *sharedSim) mayApply(p *simPass, c dnsupdate.Change) {
	d := p.saved
	switch id, err := policygen.ParseRecord(c.Add); {
	case c.Add == "" || c.Add == Tombstone:
		if customer := s.customer(d.Name); customer != nil && (!d.Removed.IsZero() || c.Add == Tombstone) {
			if p.held {
				s.bad("%s: delete while deletions are held", d.Name)
			}
			s.mayDelete(customer, d, "delete")
		}
	case err != nil:
		s.bad("write %q: %v", c.Add, err)
	case s.stands[id] != d.State.Served:
		s.bad("%s: write %s, which stands for another text", d.Name, id)
	case s.rows[d.Name].Version == d.Version: // else another pass goes another way, and the id is burnt
		for _, x := range s.customers {
			r := s.rows[x.name]
			// Whose customer was not told yet, nobody is sent to the record; if his CNAME is there, he will be detached.
			good := d.Name == x.name || p.record && below(r.State.Record, string(d.Name)) && r.State.Zone != "" && r.State.Detached.IsZero()
			if good && (x.served != s.stands[id] || id != d.State.ID && time.Since(x.since) < simSettle) {
				s.bad("write %s for %q, and %s serves %q since %s", id, short(s.stands[id]), x.name, short(x.served), time.Since(x.since))
			}
		}
	}
}

// mayDelete: no sender holds a policy that asks for anything, unless the customer left a week ago.
func (s *sharedSim) mayDelete(d *customer, row store.Domain, what string) {
	if !d.away.IsZero() && time.Since(d.away) >= awayAfter || row.State.Zone == "" {
		return
	}
	for i, c := range d.senders {
		if _, ours := s.stands[c.id]; ours && c.text != elsewhere && enforcedOrTesting(c.text) && time.Now().Before(c.until) {
			s.bad("%s: %s while sender %d holds %q until %s", d.name, what, i, short(c.text), c.until)
		}
	}
	for server := range s.zones {
		for _, v := range stsOf(s.answer(server, row.State.Record)) {
			id, _ := policygen.ParseRecord(v)
			_, ours := s.stands[id]
			if ours && what == "forget" && !s.byHand[server][row.State.Record] && !s.byHand[server][above(row.State.Record)] {
				s.bad("%s is forgotten, and %s answers %s; %+v", d.name, row.State.Record, id, row)
			}
		}
	}
}
