package publish_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

const scaleSettle = time.Second

// manyDomains is how many; -short is for a first look.
func manyDomains() int {
	if testing.Short() {
		return 10_000
	}
	return 100_000
}

// many are 100,000 domains that are live, with their records at a real Knot.
type many struct {
	crowd
	b       *testing.B
	account counted
	begun   atomic.Int64 // passes: each looks at the host first
	open    func(context.Context) (store.Store, error)
	cancel  context.CancelFunc
	done    chan error
}

// counted is an account, what it was asked for, and for how long it was busy.
type counted struct {
	dnsupdate.Account
	applied atomic.Int64

	mu    sync.Mutex // guards the fields below
	under int
	since time.Time
	busy  time.Duration
}

func (c *counted) Apply(ctx context.Context, change dnsupdate.Change) error {
	c.applied.Add(1)
	c.enter(1)
	defer c.enter(-1)
	return c.Account.Apply(ctx, change)
}

func (c *counted) enter(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.under == 0 {
		c.since = time.Now()
	}
	if c.under += n; c.under == 0 {
		c.busy += time.Since(c.since)
	}
}

// Host counts: a pass begins with it.
func (m *many) Host(context.Context, policygen.Name, string) publish.Host {
	m.begun.Add(1)
	return publish.Host{Ours: true}
}

func (m *many) Delegation(context.Context, policygen.Name, string) publish.Delegation {
	return publish.Delegation{Ours: true}
}

func (m *many) MX(context.Context, policygen.Name, string) publish.MX { return publish.MX{Known: true} }

// onEngines runs a benchmark on each, with a store that it may close and open again.
func onEngines(b *testing.B, bench func(*testing.B, func(context.Context) (store.Store, error))) {
	b.Run("sqlite", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "stspub.db")
		bench(b, func(ctx context.Context) (store.Store, error) { return store.OpenSQLite(ctx, path) })
	})
	b.Run("postgres", func(b *testing.B) {
		server := labtest.StartPostgreSQL(b)
		url := server.Database(b)
		bench(b, func(ctx context.Context) (store.Store, error) { return store.OpenPostgres(ctx, url, nil) })
	})
}

// newMany fills zone and store with what is there when all are live: due, evenly, in the next day.
func newMany(b *testing.B, way string, open func(context.Context) (store.Store, error)) *many {
	b.Helper()
	conf := configuration()
	conf.Publish.Settle, conf.Check.Every = scaleSettle, 24*time.Hour
	for i := range manyDomains() {
		conf.Domains = append(conf.Domains, config.Domain{Name: policygen.Name(fmt.Sprintf("customer%06d.example", i)), MXSet: "eu", Publish: way, Account: "main"})
	}
	id := func(i int) string { return fmt.Sprintf("20261101000000%08x", i) }
	var text strings.Builder
	if way == store.PublishShared {
		fmt.Fprintf(&text, "*.eu.s.default 300 TXT \"%s\"\n", policygen.RecordText(id(0)))
	} else {
		for i, d := range conf.Domains {
			fmt.Fprintf(&text, "%s.d.default 300 TXT \"%s\"\n", d.Name.Label(), policygen.RecordText(id(i)))
		}
	}
	ns := labtest.StartKnot(b, lab.Zone{Name: crowdZone, Text: text.String()})
	conf.Accounts["main"] = ns.Account("main")
	m := &many{b: b, open: open}
	m.ns, m.conf = ns, conf
	m.outside.Observer = &dnsupdate.Observer{Resolver: &sender.Resolver{Stub: map[string][]string{".": {ns.Addr}}}}
	begun := time.Now()
	m.declare()
	m.fill(id)
	b.Logf("filled in %.1f s", time.Since(begun).Seconds())
	if err := m.store.Close(); err != nil {
		b.Fatal(err)
	}
	return m
}

// fill has the store remember that all are live.
func (m *many) fill(id func(int) string) {
	m.b.Helper()
	text := m.conf.MXSets["eu"].Policy.Text()
	if d, err := m.store.Domain(m.ctx, wildcard); err == nil {
		if err := m.keep(d, text, id(0), time.Hour); err != nil {
			m.b.Fatal(err)
		}
	}
	next := make(chan int)
	var wg sync.WaitGroup
	for range 500 {
		wg.Go(func() {
			for i := range next {
				d, err := m.store.Domain(m.ctx, m.conf.Domains[i].Name)
				if err == nil {
					err = m.keep(d, text, id(i), time.Duration(i*7919%manyDomains())*24*time.Hour/time.Duration(manyDomains()))
				}
				if err != nil {
					m.b.Error(err)
				}
			}
		})
	}
	for i := range m.conf.Domains {
		next <- i
	}
	close(next)
	wg.Wait()
	if m.b.Failed() {
		m.b.FailNow()
	}
}

// declare opens the store and has a reconciler take the configuration; it returns how long that took.
func (m *many) declare() time.Duration {
	m.b.Helper()
	var err error
	if m.store, err = m.open(context.Background()); err != nil {
		m.b.Fatal(err)
	}
	m.snapshot = publish.NewSnapshot()
	m.rec = publish.New(publish.Config{
		Store: m.store, Snapshot: m.snapshot, Sight: m, Certs: m, Log: slog.New(slog.DiscardHandler),
		Load:     func() (*config.Config, []string, error) { return m.conf, nil, nil },
		Accepted: func(context.Context, *config.Config) error { return nil },
		OpenAccount: func(_ string, a config.Account) (dnsupdate.Account, error) {
			if m.account.Account != nil {
				return &m.account, nil
			}
			var err error
			m.account.Account, err = dnsupdate.Open(a, dnsupdate.Options{})
			return &m.account, err
		},
	})
	m.ctx, m.cancel = context.WithCancel(context.Background())
	begun := time.Now()
	if _, err := m.rec.Start(m.ctx, m.conf); err != nil {
		m.b.Fatal(err)
	}
	return time.Since(begun)
}

// start is declare, and has the reconciler run.
func (m *many) start() time.Duration {
	m.b.Helper()
	took := m.declare()
	m.done = make(chan error)
	go func() { m.done <- m.rec.Run(m.ctx) }() // ends by stop
	return took
}

// stop ends the reconciler and closes the store.
func (m *many) stop() {
	m.b.Helper()
	m.cancel()
	if err := <-m.done; err != nil {
		m.b.Fatal(err)
	}
	if err := m.store.Close(); err != nil {
		m.b.Fatal(err)
	}
}

// until waits for a condition.
func (m *many) until(what string, limit time.Duration, good func() bool) {
	m.b.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !good() {
		if time.Now().After(deadline) {
			m.b.Fatalf("not %s within %v", what, limit)
		}
		<-tick.C
	}
}

// rotate changes the MX set.
func (m *many) rotate(mx string) (began time.Time) {
	m.b.Helper()
	next := *m.conf
	next.MXSets = map[string]config.MXSet{"eu": mxset(policygen.Enforce, mx)}
	m.conf = &next
	began = time.Now()
	if _, err := m.rec.Reload(m.ctx, ""); err != nil {
		m.b.Fatal(err)
	}
	return began
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc)
}

// BenchmarkAlias100k has 100,000 alias records on Knot. It measures a restart, then half a minute in which nothing changes
// (one look a domain a day), then a change of the MX set.
func BenchmarkAlias100k(b *testing.B) { onEngines(b, benchAlias) }

func benchAlias(b *testing.B, open func(context.Context) (store.Store, error)) {
	m := newMany(b, store.PublishAlias, open)
	for b.Loop() {
		m.conf.Domains = append([]config.Domain(nil), m.conf.Domains...)
		names := m.conf.Domains
		before := heap()
		began := time.Now()
		took := m.start()
		m.until("steady", time.Minute, func() bool {
			next, err := m.store.NextDue(m.ctx)
			return err == nil && m.begun.Load() >= 100 && time.Until(next) > 100*time.Millisecond
		})
		steady := time.Since(began)
		grown := heap() - before
		if n := m.account.applied.Load(); n > 0 {
			b.Errorf("%d writes to DNS by a restart", n)
		}
		used, at, passes := cpu(b), time.Now(), m.begun.Load()
		<-time.After(30 * time.Second) // what is measured is that nothing happens
		idle := float64(cpu(b)-used) / float64(time.Since(at))
		b.Logf("restart: Start %.1f s, steady after %.1f s; idle: %.2f %% CPU at %d passes in 30 s, %.0f B a domain",
			took.Seconds(), steady.Seconds(), 100*idle, m.begun.Load()-passes, grown/float64(manyDomains()))

		passes = m.begun.Load()
		used, at = cpu(b), m.rotate("mx2.provider.test")
		m.until("rotated", 10*time.Minute, func() bool {
			next, err := m.store.NextDue(m.ctx)
			return err == nil && m.account.applied.Load() >= int64(manyDomains()) && time.Until(next) > 30*time.Minute
		})
		total := time.Since(at)
		live := 0
		if err := m.store.EachDomain(m.ctx, func(d store.Domain) error {
			if d.State.Step == publish.StepLive && strings.Contains(d.State.Served, "mx2") && !d.State.Dirty {
				live++
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		if n := m.account.applied.Load(); live != manyDomains() || n != int64(live) {
			b.Errorf("%d of %d are live after %d writes", live, manyDomains(), n)
		}
		b.Logf("rotation: %.1f s, CPU %.1f s, %.2f passes a domain, account busy %.1f s; heap afterwards %+.0f B a domain",
			total.Seconds(), (cpu(b) - used).Seconds(), float64(m.begun.Load()-passes)/float64(manyDomains()), m.account.busy.Seconds(),
			(heap()-before-grown)/float64(manyDomains()))
		if n := publish.Tracks(m.rec); n > 0 {
			b.Errorf("something is remembered of %d domains that are live", n)
		}
		runtime.KeepAlive(names)
		m.stop()
	}
}

// BenchmarkShared100k has 100,000 domains behind one shared record on Knot, and measures a change of their MX set.
func BenchmarkShared100k(b *testing.B) { onEngines(b, benchShared) }

func benchShared(b *testing.B, open func(context.Context) (store.Store, error)) {
	m := newMany(b, store.PublishShared, open)
	for b.Loop() {
		took := m.start()
		used, began := cpu(b), m.rotate("mx2.provider.test")
		reloaded := time.Since(began)
		m.until("verified", 10*time.Minute, func() bool {
			d, err := m.store.Domain(m.ctx, wildcard)
			return err == nil && strings.Contains(d.State.Served, "mx2") && !d.State.Dirty
		})
		verified := time.Since(began)
		m.until("at rest", 10*time.Minute, func() bool {
			next, err := m.store.NextDue(m.ctx)
			return err == nil && time.Until(next) > 30*time.Minute
		})
		if n := m.account.applied.Load(); n != 1 {
			b.Errorf("%d writes to DNS, want one", n)
		}
		last := m.conf.Domains[manyDomains()-1].Name
		page, ok := m.snapshot.Policy(last.PolicyHost())
		r, err := m.ns.Query(below(last), dns.TypeTXT)
		if err != nil || len(r.Answer) != 1 || !ok || !strings.Contains(page.Text, "mx2") {
			b.Errorf("the last customer has %v, %v, %v", page, r, err)
		}
		b.Logf("Start %.1f s, reload %.1f s, verified after %.1f s of which settle %v; at rest after %.1f s, CPU %.1f s",
			took.Seconds(), reloaded.Seconds(), verified.Seconds(), scaleSettle, time.Since(began).Seconds(), (cpu(b) - used).Seconds())
		m.stop()
	}
}
