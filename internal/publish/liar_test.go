package publish_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// deceived is a server whose resolver names, for the second name server of every zone, the one that is there, a Knot, or
// an address where somebody else answers. Policy hosts and records are looked for in that DNS; the rest is played.
type deceived struct {
	*world
	knot     *labtest.DNSServer
	resolver *lab.DNS
	wrong    *lab.DNS
	ip       string // of wrong
	sight    atomic.Pointer[publish.Outside]

	asked sync.Map // record → *atomic.Int64: looks
	calls atomic.Int64
	last  atomic.Int64
}

// liesAbout are the domains, and what the wrong address answers about each.
func liesAbout() map[policygen.Name]string {
	const host = "mta-sts CNAME sts.provider.test.\n"
	return map[policygen.Name]string{
		"stale.test": host, "leaving.test": host, // the old id as well
		"foreign.test": host + `_mta-sts TXT "v=STSv1; id=foreign;"`,
		"empty.test":   host,
		"moved.test":   "mta-sts A 192.0.2.1\n",
		"silent.test":  host,
		"refused.test": "", // the zone is not there
		"new.test":     host + `_mta-sts TXT "v=STSv1; id=foreign;"`,
		"unseen.test":  "",
	}
}

func newDeceived(t *testing.T, names ...policygen.Name) *deceived {
	t.Helper()
	d := &deceived{world: newWorld(t), ip: loopback()}
	d.prior = false // so that nothing settles
	var real, seen, wrong []lab.Zone
	for name, text := range liesAbout() {
		real = append(real, lab.Zone{Name: string(name), Text: "mta-sts CNAME sts.provider.test.\n"})
		seen = append(seen, lab.Zone{Name: string(name), Text: "@ NS ns1\n@ NS ns2\nns1 A 127.0.0.1\nns2 A 127.0.0.1\n"})
		if text != "" {
			wrong = append(wrong, lab.Zone{Name: string(name), Text: text})
		}
	}
	d.knot = labtest.StartKnot(t, real...)
	_, port, err := net.SplitHostPort(d.knot.Addr)
	if err != nil {
		t.Fatal(err)
	}
	start := func(addr string, zones []lab.Zone) *lab.DNS {
		server, err := lab.StartDNS(t.Context(), lab.DNSOptions{Addr: addr, Zones: zones})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		return server
	}
	d.resolver = start("", append(seen, lab.Zone{Name: "test"}, lab.Zone{Name: "provider.test", Text: "sts A 127.0.0.1\n"}))
	d.wrong = start(net.JoinHostPort(d.ip, port), wrong)
	d.wrong.SetFault("silent.test", lab.FaultSilent)

	st, err := store.OpenSQLite(t.Context(), filepath.Join(memory(t), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	d.ctx, d.store, d.snapshot = t.Context(), st, publish.NewSnapshot()
	d.conf = configuration(names...)
	d.conf.Publish.Settle, d.conf.Check.Every = 50*time.Millisecond, 150*time.Millisecond
	d.conf.Accounts["main"] = d.knot.Account("main")
	d.look()
	d.rec = publish.New(publish.Config{
		Store: st, Snapshot: d.snapshot, Sight: d, Certs: d, Log: slog.New(slog.NewTextHandler(quiet{t}, nil)),
		Load:     func() (*config.Config, []string, error) { return d.conf, nil, nil },
		Accepted: func(context.Context, *config.Config) error { return nil },
		OpenAccount: func(_ string, a config.Account) (dnsupdate.Account, error) {
			open, err := dnsupdate.Open(a, dnsupdate.Options{})
			return countingAccount{open, &d.calls, &d.last}, err
		},
	})
	if _, err := d.rec.Start(t.Context(), d.conf); err != nil {
		t.Fatal(err)
	}
	running(t, d.rec)
	return d
}

// look begins to look with nothing remembered: which servers a zone has is believed for minutes.
func (d *deceived) look() {
	port := d.wrong.Port()
	resolver := &sender.Resolver{Servers: []string{d.resolver.Addr}, Timeout: 120 * time.Millisecond}
	d.sight.Store(&publish.Outside{
		Client: &sender.Client{Resolver: resolver}, Hostname: "sts.provider.test", Values: d.store,
		Observer: &dnsupdate.Observer{Resolver: resolver, Port: uint16(port)},
	})
}

// name has the resolver name an address for every second name server.
func (d *deceived) name(ip string) {
	d.t.Helper()
	for name := range liesAbout() {
		if err := d.resolver.Set("ns2."+string(name), "A", ip); err != nil {
			d.t.Fatal(err)
		}
	}
	d.look()
}

func (d *deceived) Host(ctx context.Context, name policygen.Name, target string) publish.Host {
	d.looks(name.PolicyHost()).Add(1)
	return d.sight.Load().Host(ctx, name, target)
}

func (d *deceived) TXT(ctx context.Context, record string) publish.TXT {
	return d.sight.Load().TXT(ctx, record)
}

func (d *deceived) looks(host string) *atomic.Int64 {
	n, _ := d.asked.LoadOrStore(host, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// await waits for a domain to be as it should.
func (d *deceived) await(name policygen.Name, what string, good func(publish.Status) bool) publish.Status {
	d.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		s, err := d.rec.Status(d.ctx, name)
		if err == nil && good(s) {
			return s
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("%s is not %s: %+v, %v", name, what, s, err)
		}
	}
}

// record are the TXT values at a domain's record on the Knot.
func (d *deceived) record(name policygen.Name) []string {
	d.t.Helper()
	r, err := d.knot.Query(name.RecordName(), dns.TypeTXT)
	if err != nil {
		d.t.Fatal(err)
	}
	var values []string
	for _, rr := range r.Answer {
		values = append(values, strings.Join(rr.(*dns.TXT).Txt, ""))
	}
	return values
}

// TestResolverThatLies has the resolver name a wrong address for one name server of every zone: nothing is verified then,
// nothing deleted, no policy announced for the first time, and what is waited for names that server.
func TestResolverThatLies(t *testing.T) {
	t.Parallel()
	old := []policygen.Name{"stale.test", "foreign.test", "empty.test", "moved.test", "silent.test", "refused.test", "leaving.test"}
	d := newDeceived(t, old...)
	before := make(map[policygen.Name]publish.Status)
	for _, name := range old {
		before[name] = d.await(name, "live", func(s publish.Status) bool { return s.Step == publish.StepLive })
	}
	for _, name := range []policygen.Name{"stale.test", "leaving.test"} {
		if err := d.wrong.Set(name.RecordName(), "TXT", fmt.Sprintf("%q", policygen.RecordText(before[name].ID))); err != nil {
			t.Fatal(err)
		}
	}
	d.name(d.ip)
	first := d.calls.Load()
	conf := configuration("stale.test", "foreign.test", "empty.test", "moved.test", "silent.test", "refused.test", "new.test", "unseen.test")
	conf.Publish, conf.Check, conf.Accounts = d.conf.Publish, d.conf.Check, d.conf.Accounts
	setMX(policygen.Enforce, "mx2.provider.test")(conf)
	d.conf = conf
	if _, err := d.reload(""); err != nil {
		t.Fatal(err)
	}

	waiting := map[policygen.Name]struct{ step, sees string }{
		"stale.test":   {publish.StepVerify, fmt.Sprintf("%q", []string{policygen.RecordText(before["stale.test"].ID)})},
		"leaving.test": {publish.StepVerify, fmt.Sprintf("%q", []string{policygen.RecordText(before["leaving.test"].ID)})},
		"foreign.test": {publish.StepVerify, `["v=STSv1; id=foreign;"]`},
		"empty.test":   {publish.StepVerify, "no record"},
		"silent.test":  {publish.StepVerify, "no answer within 120ms"},
		"refused.test": {publish.StepVerify, "REFUSED"},
		"moved.test":   {publish.StepDNS, "last seen no CNAME at "},
		"new.test":     {publish.StepAdopt, "(only at "},
		"unseen.test":  {publish.StepTXT, "REFUSED"},
	}
	for name, want := range waiting {
		server := fmt.Sprintf("ns2.%s %s", name, d.wrong.Addr)
		d.await(name, "at step "+want.step+", because "+server+" says "+want.sees, func(s publish.Status) bool {
			alone := want.step == publish.StepTXT || !strings.Contains(s.Reason, "ns1.")
			return s.Step == want.step && strings.Contains(s.Reason, server) && strings.Contains(s.Reason, want.sees) && alone
		})
		looks := d.looks(name.PolicyHost())
		n := looks.Load()
		d.await(name, "looked at again", func(publish.Status) bool { return looks.Load() >= n+2 })
	}
	intended := make(map[policygen.Name]string)
	written := 0
	for name, want := range waiting {
		s := d.await(name, "there", func(publish.Status) bool { return true })
		if s.ID != before[name].ID || !s.Horizon.IsZero() {
			t.Errorf("%s: id %s is verified, horizon %v; want still %q, and none", name, s.ID, s.Horizon, before[name].ID)
		}
		record := []string{policygen.RecordText(s.Intended)}
		switch {
		case want.step == publish.StepVerify:
			written++
			intended[name] = s.Intended
		case before[name].ID != "":
			record[0] = policygen.RecordText(before[name].ID)
		default:
			record = nil
		}
		if got := d.record(name); !slices.Equal(got, record) {
			t.Errorf("%s: record %q, want %q", name, got, record)
		}
	}
	if n := d.calls.Load() - first; n != int64(written) || d.wrong.Updates() > 0 {
		t.Errorf("%d writes at the account, %d at the wrong address; want %d and none", n, d.wrong.Updates(), written)
	}

	d.name("127.0.0.1")
	for name := range waiting {
		if name == "leaving.test" {
			d.await(name, "draining", func(s publish.Status) bool { return s.ID == intended[name] && !s.Horizon.IsZero() })
			continue
		}
		s := d.await(name, "live", func(s publish.Status) bool { return s.Step == publish.StepLive && strings.Contains(s.Policy, "mx2.") })
		if id, was := intended[name]; was && s.ID != id {
			t.Errorf("%s is live under id %s, want %s, which was written before", name, s.ID, id)
		}
		if got := d.record(name); !slices.Equal(got, []string{policygen.RecordText(s.ID)}) {
			t.Errorf("%s: record %q, want id %s", name, got, s.ID)
		}
	}
}
