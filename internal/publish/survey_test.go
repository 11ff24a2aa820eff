package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

const (
	week      = 7 * 86400
	policyA   = "version: STSv1\r\nmode: enforce\r\nmax_age: 604800\r\nmx: a.mx.test\r\n"
	policyAB  = "version: STSv1\r\nmode: enforce\r\nmax_age: 604800\r\nmx: a.mx.test\r\nmx: b.mx.test\r\n"
	testingA  = "version: STSv1\r\nmode: testing\r\nmax_age: 86400\r\nmx: a.mx.test\r\n"
	longerA   = "version: STSv1\r\nmode: enforce\r\nmax_age: 2419200\r\nmx: a.mx.test\r\n"
	noneA     = "version: STSv1\r\nmode: none\r\nmax_age: 31557600\r\nmx: a.mx.test\r\n"
	wildcards = "version: STSv1\r\nmode: enforce\r\nmax_age: 604800\r\nmx: *.mx.test\r\n"
)

// planNow is the moment of every plan here. Settling takes 5 minutes, twice, and the TTL is 5 minutes.
func planNow() time.Time { return time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC) }

// stored is a domain of the store that is live in MX set eu, with the policies that were served before.
type stored struct {
	store.Domain
	past []store.Served
}

func live(name, served string, change ...func(*stored)) stored {
	d := stored{Domain: store.Domain{
		Name: policygen.Name(name), Tenant: "default", MXSet: "eu", Publish: store.PublishZone, Account: "main", Owner: store.OwnerFile,
		State: store.State{Served: served, ID: "1", Zone: "test", Record: "_mta-sts." + name, Step: StepLive},
	}, past: []store.Served{{Text: served, From: planNow().Add(-time.Hour)}}}
	for _, f := range change {
		f(&d)
	}
	return d
}

// parsePolicy is for texts of this test.
func parsePolicy(t *testing.T, text string) policygen.Policy {
	t.Helper()
	p, err := policygen.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSurvey(t *testing.T) {
	t.Parallel()
	moved := func(d *stored) { d.MXSet = "us" }
	removed := func(d *stored) { d.Removed = planNow().Add(-time.Hour) }
	unannounced := func(d *stored) { d.State.ID, d.State.Zone, d.State.Step = "", "", StepDNS }
	before := func(text string, ended time.Duration, foreign bool) func(*stored) {
		return func(d *stored) {
			d.past = append(d.past, store.Served{Text: text, Foreign: foreign, To: planNow().Add(-ended)})
		}
	}
	way := func(publish string) func(*stored) { return func(d *stored) { d.Publish = publish } }
	reports := func(text string) func(*stored) {
		return func(d *stored) {
			d.TLSRPT, d.State.Report = text, store.Report{Record: "_smtp._tls." + string(d.Name), Zone: "test", Text: text}
		}
	}
	const through = 15 * time.Minute
	at := func(d time.Duration) string { return moment(planNow().Add(d)) }

	for _, c := range []struct {
		name     string
		old, new map[string]string // policies
		have     []stored
		want     []config.Domain
		lines    []string
		asks     []policygen.Name // whose MX are looked up
		rotates  int
	}{
		{
			name: "nothing", old: map[string]string{"eu": policyA}, new: map[string]string{"eu": policyA},
			have: []stored{live("one.test", policyA)}, want: declared("one.test"),
		},
		{
			name: "an MX comes", old: map[string]string{"eu": policyA}, new: map[string]string{"eu": policyAB},
			have: []stored{live("one.test", policyA), live("two.test", policyA)}, want: declared("one.test", "two.test"),
			lines: []string{
				"MX set eu: mx +b.mx.test", "changed: 2 domains: one.test, two.test", "new ids: 2 domains",
				"account main: 2 DNS writes (test)",
				"added MX: b.mx.test of eu may be put into DNS from " + at(through) + " on, when its domains are live",
			},
			rotates: 2,
		},
		{
			name: "an MX goes", old: map[string]string{"eu": policyAB}, new: map[string]string{"eu": policyA},
			have: []stored{live("one.test", policyAB)}, want: declared("one.test"),
			lines: []string{
				"MX set eu: mx -b.mx.test", "changed: 1 domain: one.test", "new ids: 1 domain", "account main: 1 DNS write (test)",
				"removed MX: b.mx.test of eu has to stay in service until " + at(through+week*time.Second),
			},
			asks: []policygen.Name{"one.test"}, rotates: 1,
		},
		{
			name: "a pattern is covered by another", old: map[string]string{"eu": policyA}, new: map[string]string{"eu": wildcards},
			have: []stored{live("one.test", policyA)}, want: declared("one.test"),
			lines: []string{
				"MX set eu: mx +*.mx.test, mx -a.mx.test", "changed: 1 domain: one.test", "new ids: 1 domain", "account main: 1 DNS write (test)",
				"added MX: *.mx.test of eu may be put into DNS from " + at(through) + " on, when its domains are live",
			},
			rotates: 1,
		},
		{
			name: "a longer policy ended lately, and one long ago", old: map[string]string{"eu": policyA}, new: map[string]string{"eu": strings.ReplaceAll(policyA, "a.mx", "c.mx")},
			have: []stored{
				live("one.test", policyA, before(longerA, 20*24*time.Hour, false)),
				live("two.test", policyA, before(longerA, 300*24*time.Hour, false), before(noneA, time.Hour, false)),
			}, want: declared("one.test", "two.test"),
			lines: []string{
				"MX set eu: mx +c.mx.test, mx -a.mx.test", "changed: 2 domains: one.test, two.test", "new ids: 2 domains", "account main: 2 DNS writes (test)",
				"removed MX: a.mx.test of eu has to stay in service until " + at(through+8*24*time.Hour),
				"added MX: c.mx.test of eu may be put into DNS from " + at(through) + " on, when its domains are live",
			},
			asks: []policygen.Name{"one.test", "two.test"}, rotates: 2,
		},
		{
			name: "a policy that nobody knows", old: map[string]string{"eu": policyAB}, new: map[string]string{"eu": policyA},
			have: []stored{live("one.test", policyAB, before("", 0, true))}, want: declared("one.test"),
			lines: []string{
				"MX set eu: mx -b.mx.test", "changed: 1 domain: one.test", "new ids: 1 domain", "account main: 1 DNS write (test)",
				"removed MX: b.mx.test of eu has to stay in service until " + at(through+policygen.MaxAgeLimit*time.Second),
			},
			asks: []policygen.Name{"one.test"}, rotates: 1,
		},
		{
			name: "a long max_age", old: map[string]string{"eu": longerA}, new: map[string]string{"eu": strings.ReplaceAll(longerA, "a.mx", "c.mx")},
			have: []stored{live("one.test", longerA)}, want: declared("one.test"),
			lines: []string{
				"MX set eu: mx +c.mx.test, mx -a.mx.test", "changed: 1 domain: one.test", "new ids: 1 domain", "account main: 1 DNS write (test)",
				"removed MX: a.mx.test of eu has to stay in service until " + at(through+4*week*time.Second),
				"added MX: c.mx.test of eu may be put into DNS from " + at(through) + " on, when its domains are live",
				"advice: to be done with a.mx.test within a day or so of the change, first set only max_age = \"1d\" in [mxset.eu], reload, and change mx after " +
					at(through+4*week*time.Second),
			},
			asks: []policygen.Name{"one.test"}, rotates: 1,
		},
		{
			name: "from testing to enforce", old: map[string]string{"eu": testingA}, new: map[string]string{"eu": policyA},
			have: []stored{live("one.test", testingA)}, want: declared("one.test"),
			lines: []string{
				"MX set eu: mode testing → enforce, max_age 1d → 1w", "changed: 1 domain: one.test", "to enforce: 1 domain: one.test", "new ids: 1 domain",
				"account main: 1 DNS write (test)",
			},
			asks: []policygen.Name{"one.test"}, rotates: 1,
		},
		{
			name: "out of enforce", old: map[string]string{"eu": policyA}, new: map[string]string{"eu": testingA},
			have:  []stored{live("one.test", policyA)},
			want:  declared("one.test"),
			lines: []string{"MX set eu: mode enforce → testing, max_age 1w → 1d", "changed: 1 domain: one.test", "new ids: 1 domain", "account main: 1 DNS write (test)"}, rotates: 1,
		},
		{
			name: "to another MX set", old: map[string]string{"eu": policyA, "us": policyAB}, new: map[string]string{"eu": policyA, "us": policyAB},
			have: []stored{live("one.test", policyAB, moved)}, want: declared("one.test"),
			lines: []string{
				"changed: 1 domain: one.test", "new ids: 1 domain", "account main: 1 DNS write (test)",
				"removed MX: b.mx.test of us has to stay in service until " + at(through+week*time.Second),
			},
			asks: []policygen.Name{"one.test"}, rotates: 1,
		},
		{
			name: "back to what is served, while the change is held", old: map[string]string{"eu": policyAB}, new: map[string]string{"eu": policyA},
			have: []stored{live("one.test", policyA)}, want: declared("one.test"),
			lines: []string{"MX set eu: mx -b.mx.test", "changed: 1 domain: one.test"},
		},
		{
			name: "domains come and go", old: map[string]string{"eu": policyA}, new: map[string]string{"eu": policyA},
			have: []stored{
				live("back.test", noneA, removed), live("drains.test", noneA, removed), live("leaves.test", policyA, before(longerA, 300*24*time.Hour, false)),
				live("never.test", policyA, unannounced), live("one.test", policyA),
			}, want: declared("back.test", "new.test", "one.test"),
			lines: []string{
				"added: 1 domain: new.test", "removed: 2 domains: leaves.test, never.test", "restored: 1 domain: back.test",
				"removed: their records stay, with mode none, until " + at(through+4*week*time.Second),
				"new ids: 3 domains", "account main: 3 DNS writes (test)",
			},
			asks: []policygen.Name{"back.test"}, rotates: 3,
		},
		{
			name: "MX sets come and go", old: map[string]string{"eu": policyA, "us": policyA}, new: map[string]string{"asia": policyAB, "eu": policyA},
			have: []stored{live("one.test", policyA)}, want: declared("one.test"),
			lines: []string{"MX set asia: new: mode enforce, max_age 1w, mx a.mx.test b.mx.test", "MX set us: goes"},
		},
		{
			name: "shared and manual", old: map[string]string{"eu": policyA}, new: map[string]string{"eu": policyAB},
			have: []stored{
				live("*.eu.test", policyA, way(store.PublishWildcard)), live("a.test", policyA, way(store.PublishShared)), live("b.test", policyA, way(store.PublishShared)), live("c.test", policyA, way(store.PublishManual)),
				live("d.test", policyA),
			},
			want: []config.Domain{
				{Name: "a.test", MXSet: "eu", Publish: store.PublishShared, Account: "main"},
				{Name: "b.test", MXSet: "eu", Publish: store.PublishShared, Account: "main"},
				{Name: "c.test", MXSet: "eu", Publish: store.PublishManual, Account: "main"},
				{Name: "d.test", MXSet: "eu", Publish: store.PublishZone, Account: "main"},
			},
			lines: []string{
				"MX set eu: mx +b.mx.test", "changed: 4 domains: a.test, b.test, c.test, d.test", "new ids: 4 domains", "account main: 2 DNS writes (test)",
				"by hand: 1 domain, whose TXT only the customer can write (stspub records DOMAIN): c.test",
				"added MX: b.mx.test of eu may be put into DNS from " + at(through) + " on, when its domains are live",
			},
			rotates: 4,
		},
		{
			name: "TLSRPT comes, changes and goes", old: map[string]string{"eu": policyA}, new: map[string]string{"eu": policyA},
			have: []stored{
				live("comes.test", policyA), live("differs.test", policyA, reports("v=TLSRPTv1; rua=mailto:old@test")),
				live("goes.test", policyA, reports("v=TLSRPTv1; rua=mailto:a@test")), live("hand.test", policyA, way(store.PublishManual)),
				live("never.test", policyA, func(d *stored) { d.TLSRPT = "v=TLSRPTv1; rua=mailto:a@test" }),
				live("stays.test", policyA, reports("v=TLSRPTv1; rua=mailto:a@test")),
			},
			want: []config.Domain{
				{Name: "comes.test", MXSet: "eu", Publish: store.PublishZone, Account: "main", TLSRPT: "v=TLSRPTv1; rua=mailto:a@test"},
				{Name: "differs.test", MXSet: "eu", Publish: store.PublishZone, Account: "main", TLSRPT: "v=TLSRPTv1; rua=mailto:a@test"},
				{Name: "goes.test", MXSet: "eu", Publish: store.PublishZone, Account: "main"},
				{Name: "hand.test", MXSet: "eu", Publish: store.PublishManual, Account: "main", TLSRPT: "v=TLSRPTv1; rua=mailto:a@test"},
				{Name: "never.test", MXSet: "eu", Publish: store.PublishZone, Account: "main"},
				{Name: "new.test", MXSet: "eu", Publish: store.PublishManual, TLSRPT: "v=TLSRPTv1; rua=mailto:a@test"},
				{Name: "stays.test", MXSet: "eu", Publish: store.PublishZone, Account: "main", TLSRPT: "v=TLSRPTv1; rua=mailto:a@test"},
			},
			lines: []string{
				"added: 1 domain: new.test", "changed: 5 domains: comes.test, differs.test, goes.test, hand.test, never.test",
				"another TLSRPT: 6 domains: comes.test, differs.test, goes.test, hand.test, never.test, new.test", "new ids: 1 domain",
				"account main: 3 DNS writes (test)",
				"by hand: 2 domains, whose TXT only the customer can write (stspub records DOMAIN): hand.test, new.test",
			},
			rotates: 1,
		},
		{
			name: "the API's domains", old: map[string]string{"eu": policyAB}, new: map[string]string{"eu": policyA},
			have: []stored{live("one.test", policyAB, func(d *stored) { d.Owner = store.OwnerAPI })},
			lines: []string{
				"MX set eu: mx -b.mx.test", "changed: 1 domain: one.test", "new ids: 1 domain", "account main: 1 DNS write (test)",
				"removed MX: b.mx.test of eu has to stay in service until " + at(through+week*time.Second),
			},
			asks: []policygen.Name{"one.test"}, rotates: 1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			old := make(map[string]policygen.Policy)
			for name, text := range c.old {
				old[name] = parsePolicy(t, text)
			}
			conf := &config.Config{
				Accounts: map[string]config.Account{"main": {Name: "main", Provider: "test"}}, Domains: c.want, MXSets: make(map[string]config.MXSet),
				Publish: config.Publish{Settle: 5 * time.Minute, TTL: 5 * time.Minute},
			}
			for name, text := range c.new {
				conf.MXSets[name] = config.MXSet{Name: name, Policy: parsePolicy(t, text)}
			}
			p, asks := surveyed(t, old, conf, c.have, 0)
			if diff := cmp.Diff(c.lines, p.Lines()); diff != "" {
				t.Errorf("plan, -want +got:\n%s", diff)
			}
			if !slices.Equal(asks, c.asks) || p.Rotations != c.rotates {
				t.Errorf("%d rotations, looked up are %q; want %d, %q", p.Rotations, asks, c.rotates, c.asks)
			}
		})
	}
}

// declared are domains of MX set eu in the configuration.
func declared(names ...policygen.Name) []config.Domain {
	var all []config.Domain
	for _, name := range names {
		all = append(all, config.Domain{Name: name, MXSet: "eu", Publish: store.PublishZone, Account: "main"})
	}
	return all
}

// surveyed runs a survey; pace is that of every account.
func surveyed(
	t *testing.T, old map[string]policygen.Policy, conf *config.Config, have []stored, pace float64,
) (*Plan, []policygen.Name) {
	t.Helper()
	sets := make(map[string]config.MXSet)
	for name, policy := range old {
		sets[name] = config.MXSet{Name: name, Policy: policy}
	}
	s := newSurvey("accepted", sets, conf)
	for _, d := range have {
		if err := s.add(d.Domain, func() ([]store.Served, error) { return d.past, nil }); err != nil {
			t.Fatal(err)
		}
	}
	s.hold("")
	p := s.end(planNow(), func(string) float64 { return pace })
	var asks []policygen.Name
	for _, a := range s.asks {
		asks = append(asks, a.name)
	}
	return p, asks
}

// The time of the writes is part of when an MX may come and go.
func TestSurveyCountsWriting(t *testing.T) {
	t.Parallel()
	var have []stored
	var names []policygen.Name
	for _, c := range "abcdefghijkl" {
		names = append(names, policygen.Name(string(c)+".test"))
		have = append(have, live(string(c)+".test", policyA))
	}
	conf := &config.Config{
		Accounts: map[string]config.Account{"main": {Name: "main", Provider: "test"}}, Domains: declared(names...),
		MXSets:  map[string]config.MXSet{"eu": {Name: "eu", Policy: parsePolicy(t, policyAB)}},
		Publish: config.Publish{Settle: 5 * time.Minute, TTL: 5 * time.Minute},
	}
	p, _ := surveyed(t, map[string]policygen.Policy{"eu": parsePolicy(t, policyA)}, conf, have, 0.1)
	want := []string{
		"MX set eu: mx +b.mx.test",
		"changed: 12 domains: a.test, b.test, c.test, d.test, e.test, f.test, g.test, h.test, i.test, j.test and 2 more",
		"new ids: 12 domains", "account main: 12 DNS writes, about 2m0s (test)",
		"added MX: b.mx.test of eu may be put into DNS from 2026-12-01 12:17:00 UTC on, when its domains are live",
	}
	if diff := cmp.Diff(want, p.Lines()); diff != "" {
		t.Errorf("plan, -want +got:\n%s", diff)
	}
}

// However fast an account is, the reconciler is not, and accounts share it.
func TestSurveyKnowsItsOwnPace(t *testing.T) {
	t.Parallel()
	conf := &config.Config{Publish: config.Publish{Settle: 5 * time.Minute, TTL: 5 * time.Minute}}
	s := newSurvey("", nil, conf)
	s.writes = map[string]int{"fast": 50_000, "faster": 50_000, "slow": 10}
	s.arriving = map[setMX]bool{{"eu", "mx.test"}: true}
	p := s.end(planNow(), func(name string) float64 { return map[string]float64{"fast": 1000, "faster": 15_000, "slow": 1}[name] })
	var seconds []float64
	for _, w := range p.Writes {
		seconds = append(seconds, w.Seconds)
	}
	if !slices.Equal(seconds, []float64{100, 100, 10}) {
		t.Errorf("50,000, 50,000 and 10 writes take %v s, want 100, 100, 10", seconds)
	}
	if got := p.Arriving[0].From.Sub(planNow()); got != 15*time.Minute+200020*time.Millisecond {
		t.Errorf("an MX may come after %s, want 15m0s and a little more than 200 s for all writes", got)
	}
}

// The hash changes with everything that it stands for, and with nothing else.
func TestHash(t *testing.T) {
	t.Parallel()
	hash := func(change func(*Plan)) string {
		p := &Plan{Digest: "new", Accepted: "old", Owned: 3, Stranded: []PlanDomain{{"one.test", []string{"mx.test"}}}, hold: "clock", held: []policygen.Name{"two.test"}}
		change(p)
		p.judge()
		return p.Hash
	}
	seen := map[string]string{hash(func(*Plan) {}): "nothing"}
	for name, change := range map[string]func(*Plan){
		"the configuration":    func(p *Plan) { p.Digest = "newer" },
		"the accepted one":     func(p *Plan) { p.Accepted = "older" },
		"who leaves":           func(p *Plan) { p.gone[0]++ },
		"one more stranded":    func(p *Plan) { p.Stranded = append(p.Stranded, PlanDomain{Name: "three.test"}) },
		"another one stranded": func(p *Plan) { p.Stranded[0].Name = "three.test" },
		"what is held":         func(p *Plan) { p.hold = "another" },
		"who is held":          func(p *Plan) { p.held = nil },
		"held, not stranded":   func(p *Plan) { p.Stranded, p.held = nil, append(p.held, "one.test") },
	} {
		h := hash(change)
		if other, twice := seen[h]; twice || len(h) != 16 {
			t.Errorf("the hash with another %s is %q, as with another %s", name, h, other)
		}
		seen[h] = name
	}
	if got := seen[hash(func(p *Plan) {
		p.Unknown = []PlanReason{{"x", "SERVFAIL"}}
		p.Advice = []string{"y"}
		p.Drained = planNow()
	})]; got != "nothing" {
		t.Errorf("estimates and unknown domains change the hash")
	}
}

// slowDNS is a [Sight] that looks up nothing but MX, each in two seconds.
type slowDNS struct {
	Sight
	down  bool
	looks atomic.Int32
}

func (s *slowDNS) MX(ctx context.Context, name policygen.Name, _ string) MX {
	s.looks.Add(1)
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Second):
	}
	switch {
	case s.down:
		return MX{Reason: "SERVFAIL"}
	case strings.HasSuffix(string(name), "7.test"):
		return MX{Known: true, Uncovered: []string{"mx.test"}}
	}
	return MX{Known: true}
}

// While DNS is down a change of MX is not waited for domain by domain.
func TestStrandGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asks []ask
		for i := range 600 {
			asks = append(asks, ask{name: policygen.Name(fmt.Sprintf("d%03d.test", i))})
		}
		dns := &slowDNS{down: true}
		r := &Reconciler{cfg: Config{Sight: dns}}
		var p Plan
		var told []int
		progress := func(done, total int) {
			told = append(told, done)
			if total != 600 {
				t.Errorf("%d of %d are done, want of 600", done, total)
			}
		}
		begun := time.Now()
		if err := r.strand(t.Context(), asks, &p, progress); err != nil || len(p.Unknown) != 600 || len(p.Stranded) > 0 {
			t.Errorf("without DNS: %v, %d unknown, %d stranded; want all unknown", err, len(p.Unknown), len(p.Stranded))
		}
		if n, took := dns.looks.Load(), time.Since(begun); n >= 2*mxGiveUp || took > 4*time.Second {
			t.Errorf("%d of 600 look-ups in %s, want it to give up", n, took)
		}
		if last := p.Unknown[599]; last != (PlanReason{"d599.test", "not tried, after 128 that could not be looked up"}) {
			t.Errorf("the last one: %+v", last)
		}
		dns.down, p, told = false, Plan{}, nil
		if err := r.strand(t.Context(), asks, &p, progress); err != nil || len(p.Unknown) > 0 || len(p.Stranded) != 60 || p.Stranded[1].Name != "d017.test" {
			t.Errorf("with DNS: %v, %d unknown, stranded %v; want every tenth", err, len(p.Unknown), p.Stranded)
		}
		if len(told) < 3 || !slices.IsSorted(told) {
			t.Errorf("told of progress %v, want it every other second", told)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.strand(ctx, asks, &p, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("when nobody waits any more: %v", err)
		}
	})
}
