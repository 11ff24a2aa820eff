package publish_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

const (
	crowdSize   = 1000
	crowdZone   = "a.provider.test"
	crowdRounds = 2
	// patience is how long anything may take on a crowded machine with the race detector.
	patience = 3 * time.Minute
)

// crowd is 1,000 customers of one server, whose records are at a real name server. Their hosts, certificates, MX and
// CNAMEs are played: the policy is what the snapshot serves.
type crowd struct {
	t        *testing.T
	ns       *labtest.DNSServer
	ctx      context.Context
	store    store.Store
	snapshot *publish.Snapshot
	rec      *publish.Reconciler
	conf     *config.Config
	outside  publish.Outside

	mu        sync.Mutex                // guards the fields below
	home      map[policygen.Name]string // the MX set below whose shared record the customer's CNAME leads
	delegated map[policygen.Name]bool   // the CNAME is there
	stranded  map[policygen.Name]bool   // its MX cannot be looked up
	elsewhere map[policygen.Name]bool   // its policy host is not ours
	leaving   map[policygen.Name]bool   // removed, and not live again since: the record may end
}

func startCrowd(t *testing.T, ns *labtest.DNSServer, conf *config.Config) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	st, err := store.OpenSQLite(ctx, filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	stub := &sender.Resolver{Stub: map[string][]string{".": {ns.Addr}}}
	c := &crowd{
		t: t, ns: ns, ctx: ctx, store: st, snapshot: publish.NewSnapshot(), conf: conf,
		outside: publish.Outside{Observer: &dnsupdate.Observer{Resolver: stub}},
		home:    make(map[policygen.Name]string), delegated: make(map[policygen.Name]bool),
		stranded: make(map[policygen.Name]bool), elsewhere: make(map[policygen.Name]bool), leaving: make(map[policygen.Name]bool),
	}
	for _, d := range conf.Domains {
		c.home[d.Name] = d.MXSet
	}
	c.rec = publish.New(publish.Config{
		Store: st, Snapshot: c.snapshot, Sight: c, Certs: c, Log: slog.New(slog.NewTextHandler(quiet{t}, &slog.HandlerOptions{Level: slog.LevelError})),
		Load:     func() (*config.Config, []string, error) { return c.conf, nil, nil },
		Accepted: func(context.Context, *config.Config) error { return nil },
		OpenAccount: func(_ string, a config.Account) (dnsupdate.Account, error) {
			return dnsupdate.Open(a, dnsupdate.Options{})
		},
		OnStep: c.customer,
	})
	if _, err := c.rec.Start(ctx, conf); err != nil {
		t.Fatal(err)
	}
	c.settle()
	done := make(chan error)
	go func() { done <- c.rec.Run(ctx) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

// crowdID is the id of the shared record of an MX set at the beginning.
func crowdID(mxset string) string {
	return "20261101000000" + map[string]string{"eu": "00000001", "us": "00000002"}[mxset]
}

// settle has the store remember that all are live already.
func (c *crowd) settle() {
	c.t.Helper()
	for _, publishes := range []string{store.PublishWildcard, store.PublishShared} { // who is attached needs the shared text
		for name, d := range c.domains() {
			if d.Publish != publishes {
				continue
			}
			if err := c.keep(d, c.conf.MXSets[d.MXSet].Policy.Text(), crowdID(d.MXSet), time.Hour); err != nil {
				c.t.Fatal(err)
			}
			c.snapshot.Set(name, c.conf.MXSets[d.MXSet].Policy.Text())
			c.delegated[name] = true
		}
	}
}

// keep saves a domain as live, with the steps that the books are kept of.
func (c *crowd) keep(d store.Domain, text, id string, due time.Duration) error {
	now := time.Now()
	s := &d.State
	s.Served, s.Zone, s.Step, s.Since, s.Checked = text, crowdZone, publish.StepLive, now, now
	s.Record = string(d.Name)
	switch d.Publish {
	case store.PublishAlias:
		s.Record = d.Name.Label() + ".d.default." + crowdZone
	case store.PublishShared:
		s.Record, id = d.Name.Label()+"."+d.MXSet+".s.default."+crowdZone, ""
	}
	d.Due = now.Add(due)
	if id != "" {
		s.Intended = id
		if err := c.store.Save(c.ctx, &d, now); err != nil {
			return err
		}
		s.ID, s.Intended = id, ""
	}
	return c.store.Save(c.ctx, &d, now)
}

// quiet passes on what is written while the test runs.
type quiet struct{ t *testing.T }

func (q quiet) Write(b []byte) (int, error) {
	if q.t.Context().Err() != nil {
		return len(b), nil
	}
	return q.t.Output().Write(b)
}

// customer sets his CNAME when he is told to.
func (c *crowd) customer(name policygen.Name, step, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case step == publish.StepDelegation && strings.HasPrefix(message, "waiting for"):
		c.delegated[name] = true
	case step == publish.StepLive && message == "all is right":
		delete(c.leaving, name)
	}
}

// record is where a customer's CNAME leads, if it is set.
func (c *crowd) record(name policygen.Name) (record string, delegated, mayEnd bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return name.Label() + "." + c.home[name] + ".s.default." + crowdZone, c.delegated[name], c.leaving[name]
}

func (c *crowd) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// declare makes conf the configuration in force.
func (c *crowd) declare(conf *config.Config) {
	c.t.Helper()
	c.conf = conf
	if _, err := c.rec.Reload(c.ctx, ""); err != nil {
		c.t.Fatal(err)
	}
}

func (c *crowd) wake(names ...policygen.Name) {
	c.t.Helper()
	for _, name := range names {
		if err := c.rec.Wake(c.ctx, name); err != nil {
			c.t.Fatal(err)
		}
	}
}

// until waits for something to be so of each of the names, and wakes those that rest meanwhile.
func (c *crowd) until(what string, names []policygen.Name, good func(d store.Domain) bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		all := c.domains()
		var left []policygen.Name
		for _, name := range names {
			if d, there := all[name]; !there || !good(d) {
				left = append(left, name)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			d := all[left[0]]
			c.t.Fatalf("%d of %d are not %s; %s is at %q (%s): %+v", len(left), len(names), what, left[0], d.State.Step, d.State.Reason, d.State)
		}
		<-tick.C
		for _, name := range left {
			if d := all[name]; live(d) && time.Until(d.Due) > time.Minute || d.State.Step == publish.StepDNS || d.State.Step == publish.StepMX {
				c.wake(name)
			}
		}
	}
}

// domains is what the store holds.
func (c *crowd) domains() map[policygen.Name]store.Domain {
	c.t.Helper()
	all := make(map[policygen.Name]store.Domain)
	err := c.store.EachDomain(c.ctx, func(d store.Domain) error {
		all[d.Name] = d
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

// The crowd as [publish.Sight]; its TXT is the name server's.

func (c *crowd) TXT(ctx context.Context, record string) publish.TXT {
	return c.outside.TXT(ctx, record)
}

func (c *crowd) Prior(context.Context, policygen.Name) publish.Prior {
	return publish.Prior{Existed: true}
}

func (c *crowd) Host(_ context.Context, name policygen.Name, _ string) publish.Host {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.elsewhere[name] {
		return publish.Host{TTL: time.Second, Reason: "it is elsewhere"}
	}
	return publish.Host{Ours: true}
}

func (c *crowd) Body(_ context.Context, name policygen.Name, text string) publish.Body {
	page, ok := c.snapshot.Policy(name.PolicyHost())
	return publish.Body{Live: ok && page.Text == text, Reason: "not seen"}
}

func (c *crowd) MX(_ context.Context, name policygen.Name, _ string) publish.MX {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stranded[name] {
		return publish.MX{Reason: "SERVFAIL"} // a reload that surely strands would be refused
	}
	return publish.MX{Known: true}
}

func (c *crowd) Ready(_ context.Context, name policygen.Name, _ string) publish.Ready {
	c.mu.Lock()
	defer c.mu.Unlock()
	return publish.Ready{Clean: !c.stranded[name], Reason: "its MX is not covered"}
}

// No domain of the crowd has a TLSRPT record.

func (c *crowd) Report(context.Context, string) publish.TXT { return publish.TXT{} }

func (c *crowd) ReportDelegation(context.Context, policygen.Name, string) publish.Delegation {
	return publish.Delegation{}
}

func (c *crowd) Foreign(context.Context, policygen.Name) string { return "" }

func (c *crowd) Delegation(_ context.Context, name policygen.Name, record string) publish.Delegation {
	at, delegated, _ := c.record(name)
	return publish.Delegation{Ours: delegated && at == record, Reason: "waiting for: CNAME → " + record}
}

// The crowd as [publish.Certs].

func (c *crowd) Want(string, string, bool) {}

func (c *crowd) Unwant(string) {}

func (c *crowd) Retry(string) {}

func (c *crowd) Drop(context.Context, string) error { return nil }

func (c *crowd) Cert(string) publish.Cert {
	return publish.Cert{Valid: true, NotAfter: time.Now().Add(60 * 24 * time.Hour)}
}

// roles are the customers by what befalls them, round by round.
type roles struct {
	moved, last               []policygen.Name   // from MX set us to eu: at first, and at last, which ends the shared record of us
	stranded, away, left, new [][]policygen.Name // new ones come in a round, the others are there from the start
	early                     []policygen.Name   // of the new: they set the CNAME before the policy is there
	plain                     []policygen.Name
}

// dotted are names that, used as owner names below the wildcard, would switch it off for each other.
func dotted() []policygen.Name {
	return []policygen.Name{"shop.co.uk", "co.uk", "a.b.c.example", "b.c.example", "c.example", "x.a.b.c.example"}
}

func cast() roles {
	next := 0
	names := func(n int) []policygen.Name {
		var out []policygen.Name
		for range n {
			if d := dotted(); next%40 == 0 && next/40 < len(d) { // all over the roles
				out = append(out, d[next/40])
			} else {
				out = append(out, policygen.Name(fmt.Sprintf("c%03d.example", next)))
			}
			next++
		}
		return out
	}
	r := roles{moved: names(30), last: names(10)}
	for range crowdRounds {
		r.stranded = append(r.stranded, names(25))
		r.away = append(r.away, names(10))
		r.left = append(r.left, names(10))
		r.new = append(r.new, names(15))
		r.early = append(r.early, r.new[len(r.new)-1][:5]...)
	}
	r.plain = names(crowdSize - next)
	return r
}

// crowdConfig is the configuration of some domains on MX set eu and others on us.
func crowdConfig(account config.Account, mx string, eu, us []policygen.Name) *config.Config {
	set := func(name, mx string, rollout time.Duration) config.MXSet {
		// A max_age that the crowd can wait for; it does not matter elsewhere.
		return config.MXSet{Name: name, Rollout: rollout, Policy: policygen.Policy{Mode: policygen.Enforce, MaxAge: 2, MX: []string{mx}}}
	}
	c := &config.Config{
		Server:   config.Server{Hostname: "sts.provider.test"},
		Publish:  config.Publish{Settle: time.Second, TTL: time.Second},
		Check:    config.Check{Every: time.Hour},
		Accounts: map[string]config.Account{"main": account},
		Alias:    config.Alias{Zone: crowdZone, Account: "main"},
		MXSets:   map[string]config.MXSet{"eu": set("eu", mx, 2*time.Second), "us": set("us", "mx.us.provider.test", 0)},
	}
	for mxset, names := range map[string][]policygen.Name{"eu": eu, "us": us} {
		for _, name := range names {
			c.Domains = append(c.Domains, config.Domain{Name: name, MXSet: mxset, Publish: store.PublishShared, Account: "main"})
		}
	}
	return c
}

// TestCrowd changes the MX set of 1,000 customers behind one shared record, of which 50 and more are detached at any time,
// under senders that ask all the time.
func TestCrowd(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for _, start := range []func(testing.TB, ...lab.Zone) *labtest.DNSServer{labtest.StartBIND, labtest.StartKnot, labtest.StartPowerDNS} {
		text := ""
		for _, mxset := range []string{"eu", "us"} {
			text += fmt.Sprintf("*.%s.s.default 1 TXT %q\n", mxset, policygen.RecordText(crowdID(mxset)))
		}
		ns := start(t, lab.Zone{Name: crowdZone, Text: text})
		// They mostly wait, so they are not counted against the tests that may run at the same time.
		wg.Go(func() { t.Run(ns.Program, func(t *testing.T) { testCrowd(t, ns) }) })
	}
	wg.Wait()
}

func live(d store.Domain) bool { return d.State.Step == publish.StepLive && !d.State.Fault }

func without(from []policygen.Name, names ...policygen.Name) []policygen.Name {
	return slices.DeleteFunc(slices.Clone(from), func(n policygen.Name) bool { return slices.Contains(names, n) })
}

func testCrowd(t *testing.T, ns *labtest.DNSServer) {
	begun := time.Now()
	phase := func(what string) { t.Logf("%5.1f s: %s", time.Since(begun).Seconds(), what) }
	r := cast()
	us := slices.Concat(r.moved, r.last)
	eu := slices.Concat(slices.Concat(r.stranded...), slices.Concat(r.away...), slices.Concat(r.left...), r.plain)
	account := ns.Account("main")
	c := startCrowd(t, ns, crowdConfig(account, "mx0.provider.test", eu, us))
	ask := c.ask(slices.Concat(us, slices.Concat(r.stranded...), slices.Concat(r.away...), slices.Concat(r.left...), slices.Concat(r.new...)), r.plain)
	eu, us = slices.Concat(eu, r.moved), r.last
	for i := range crowdRounds {
		mx := fmt.Sprintf("mx%d.provider.test", i+1)
		eu = slices.Concat(eu, r.new[i])
		if i > 0 { // they come back, whether they still drain or have ended
			eu = append(eu, r.left[i-1]...)
		}
		eu = without(eu, r.left[i]...)
		c.change(func() {
			for _, name := range r.new[i] {
				c.home[name], c.delegated[name] = "eu", slices.Contains(r.early, name)
			}
			for _, name := range r.left[i] {
				c.leaving[name] = true
			}
			for _, name := range r.stranded[i] {
				c.stranded[name] = true
			}
			for _, name := range r.away[i] {
				c.elsewhere[name] = true
			}
		})
		c.declare(crowdConfig(account, mx, eu, us))
		c.wake(r.away[i]...)
		c.until("away", r.away[i], func(d store.Domain) bool { return d.State.Step == publish.StepDNS })
		c.change(func() { clear(c.elsewhere) })
		c.until("changed", []policygen.Name{wildcard}, func(d store.Domain) bool {
			return live(d) && !d.State.Dirty && strings.Contains(d.State.Served, mx) && strings.Contains(d.State.Served, "enforce")
		})
		c.until("stranded", r.stranded[i], func(d store.Domain) bool { return d.State.Step == publish.StepMX && d.State.ID != "" })
		c.until("detached", r.moved, func(d store.Domain) bool { return live(d) && !d.State.Detached.IsZero() })
		c.until("live", slices.Concat(r.away[i], r.new[i]), live)
		phase("changed to " + mx)
		ask.wantDetached(50)
		c.change(func() { clear(c.stranded) })
	}

	// The shared record of us ends when nobody is left there.
	eu, us = slices.Concat(eu, us), nil
	c.declare(crowdConfig(account, "mx9.provider.test", eu, us))
	c.until("changed", []policygen.Name{wildcard}, func(d store.Domain) bool { return live(d) && strings.Contains(d.State.Served, "mx9") })
	c.until("live", eu, live)
	c.until("attached", r.plain, func(d store.Domain) bool { return d.State.Detached.IsZero() })
	phase("moved")
	c.untilGone(slices.Concat(r.left[crowdRounds-1], []policygen.Name{"*.us.s.default." + crowdZone}))
	phase("those who leave are gone")
	ask.wantDetached(30) // those who were moved
	ask.catchUp()
	ask.stop()
	ask.judge(slices.Sorted(maps.Keys(c.home)))
	c.wantRecords(eu, r.left[crowdRounds-1])
}

// untilGone waits until the store has forgotten domains.
func (c *crowd) untilGone(names []policygen.Name) {
	c.t.Helper()
	left := names
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		all := c.domains()
		left = slices.DeleteFunc(left, func(n policygen.Name) bool { _, there := all[n]; return !there })
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%d are not gone; %s is at %q (%s)", len(left), left[0], all[left[0]].State.Step, all[left[0]].State.Reason)
		}
		<-tick.C
		for _, name := range left {
			if err := c.rec.Wake(c.ctx, name); err != nil && c.ctx.Err() == nil {
				continue // it went just now
			}
		}
	}
}
