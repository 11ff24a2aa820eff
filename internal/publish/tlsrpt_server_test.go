package publish_test

import (
	"log/slog"
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

// reportLife is one domain with its TLSRPT record on a real name server. Steps are taken one by one.
type reportLife struct {
	*testing.T
	server *labtest.DNSServer
	store  store.Store
	rec    *publish.Reconciler
	conf   *config.Config
	name   policygen.Name
}

func newReportLife(t *testing.T, way string, start func(testing.TB, ...lab.Zone) *labtest.DNSServer) *reportLife {
	l := &reportLife{T: t, name: one}
	l.server = start(t, lab.Zone{Name: "one.test"}, lab.Zone{Name: "a.provider.test"})
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	l.store, l.conf = st, configuration()
	l.conf.Accounts["main"] = l.server.Account("main")
	l.conf.Domains = []config.Domain{{Name: one, MXSet: "eu", Publish: way, Account: "main", TLSRPT: rpt}}
	resolver := &sender.Resolver{Stub: map[string][]string{".": {l.server.Addr}}}
	w := newWorld(t)
	l.rec = publish.New(publish.Config{
		Store: st, Snapshot: publish.NewSnapshot(), Certs: w, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Sight:    &publish.Outside{Client: &sender.Client{Resolver: resolver}, Observer: &dnsupdate.Observer{Resolver: resolver}},
		Load:     func() (*config.Config, []string, error) { return l.conf, nil, nil },
		Accepted: w.accept,
		OpenAccount: func(_ string, a config.Account) (dnsupdate.Account, error) {
			return dnsupdate.Open(a, dnsupdate.Options{})
		},
	})
	if _, err := l.rec.Start(t.Context(), l.conf); err != nil {
		t.Fatal(err)
	}
	return l
}

// want declares what is wanted of the record; "gone" declares that the domain leaves.
func (l *reportLife) want(text string) {
	l.Helper()
	if text == "gone" {
		l.conf.Domains = nil
	} else {
		l.conf.Domains[0].TLSRPT = text
	}
	if _, err := l.rec.Reload(l.Context(), ""); err != nil {
		l.Fatal(err)
	}
}

// step lets some minutes go by for the record, and has it looked at until nothing more is to be done at once.
func (l *reportLife) step() store.Report {
	l.Helper()
	d, err := l.store.Domain(l.Context(), l.name)
	if err != nil {
		l.Fatal(err)
	}
	s := &d.State.Report
	for _, at := range []*time.Time{&s.Wrote, &s.Verified} {
		if !at.IsZero() {
			*at = at.Add(-7 * time.Hour)
		}
	}
	for range 3 {
		if err := publish.KeepReport(l.rec, l.Context(), &d); err != nil {
			l.Fatal(err)
		}
	}
	return d.State.Report
}

// at returns the TXT values at a name, CNAMEs not followed, sorted.
func (l *reportLife) at(name string) []string {
	m, err := l.server.Query(name, dns.TypeTXT)
	if err != nil {
		l.Error(err)
		return nil
	}
	var all []string
	for _, rr := range m.Answer {
		if txt, ok := rr.(*dns.TXT); ok && rr.Header().Name == dns.Fqdn(name) {
			all = append(all, strings.Join(txt.Txt, ""))
		}
	}
	slices.Sort(all)
	return all
}

func (l *reportLife) wantAt(when, name string, want ...string) {
	l.Helper()
	slices.Sort(want)
	if got := l.at(name); !slices.Equal(got, want) {
		l.Errorf("%s: %s has %q, want %q", when, name, got, want)
	}
}

// poll asks for a name until f returns, and wants exactly one TLSRPTv1 record in each answer.
func (l *reportLife) poll(name string, f func()) {
	var stop atomic.Bool
	var asked atomic.Int32
	var g sync.WaitGroup
	for range 2 {
		g.Go(func() {
			for asked.Add(1) <= 50 || !stop.Load() {
				ours := slices.DeleteFunc(l.at(name), func(v string) bool { return !policygen.IsTLSRPTv1(v) })
				if len(ours) != 1 {
					l.Errorf("an answer holds %q, want exactly one record", ours)
				}
			}
		})
	}
	f()
	stop.Store(true)
	g.Wait()
}

// The whole life of a TLSRPT record in the domain's own zone.
func TestReportOnServers(t *testing.T) {
	for program, start := range map[string]func(testing.TB, ...lab.Zone) *labtest.DNSServer{"BIND": labtest.StartBIND, "Knot": labtest.StartKnot} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			l := newReportLife(t, store.PublishZone, start)
			const record, stranger, theirs = "_smtp._tls.one.test", "site-verification=1", "v=TLSRPTv1; rua=mailto:theirs@one.test"
			quote := func(v string) string { return `"` + v + `"` }

			l.server.Set(t, record, "TXT", quote(stranger), quote(theirs))
			if s := l.step(); !strings.HasPrefix(s.Problem, "somebody else's TLSRPT record stands at "+record) || s.Text != "" {
				t.Errorf("beside somebody else's: %+v, want that said", s)
			}
			l.wantAt("beside somebody else's", record, stranger, theirs)

			l.server.Set(t, record, "TXT", quote(stranger))
			if s := l.step(); s.Problem != "" || s.Verified.IsZero() || s.Zone != "one.test" {
				t.Errorf("absent: %+v, want it verified", s)
			}
			l.wantAt("absent", record, stranger, rpt)

			l.poll(record, func() {
				for i := range 6 {
					text := "v=TLSRPTv1; rua=mailto:" + string(rune('a'+i)) + "@one.test"
					l.want(text)
					l.step()
					l.wantAt("changed", record, stranger, text)
				}
			})
			last := l.conf.Domains[0].TLSRPT

			l.server.Set(t, record, "TXT")
			l.step()
			l.wantAt("deleted by hand", record, last)

			l.server.Set(t, record, "TXT", quote("v=TLSRPTv1; rua=mailto:c@one.test")) // from a backup
			l.step()
			l.wantAt("an old one of ours", record, last)

			l.server.Set(t, record, "TXT", quote(last), quote(theirs), quote(stranger))
			if s := l.step(); !strings.Contains(s.Problem, "beside ours, so senders ignore both") {
				t.Errorf("somebody else's beside ours: %+v, want that said", s)
			}
			l.want("")
			l.step()
			if s := l.step(); s != (store.Report{}) {
				t.Errorf("not wanted any more: %+v, want nothing left", s)
			}
			l.wantAt("not wanted any more", record, theirs, stranger)
		})
	}
}

// The alias way: the record is in our zone, and counts when the customer's CNAME leads there.
func TestReportByAlias(t *testing.T) {
	t.Parallel()
	l := newReportLife(t, store.PublishAlias, labtest.StartBIND)
	record := one.Label() + ".t.default.a.provider.test"
	waiting := "waiting for: CNAME _smtp._tls.one.test → " + record + ", last seen "
	if s := l.step(); s.Problem != waiting+"NXDOMAIN" || s.Verified.IsZero() || s.Record != record || s.Zone != "a.provider.test" {
		t.Errorf("without the CNAME: %+v, want the problem %q", s, waiting+"NXDOMAIN")
	}
	l.wantAt("without the CNAME", record, rpt)

	const theirs = "v=TLSRPTv1; rua=mailto:theirs@one.test"
	l.server.Set(t, "_smtp._tls.one.test", "TXT", `"`+theirs+`"`)
	if s := l.step(); s.Problem != waiting+`a TXT record "`+theirs+`" there: replace it by the CNAME` {
		t.Errorf("with a record of the customer's: problem %q", s.Problem)
	}
	l.server.Set(t, "_smtp._tls.one.test", "TXT")
	l.server.Set(t, "_smtp._tls.one.test", "CNAME", record+".")
	if s := l.step(); s.Problem != "" {
		t.Errorf("with the CNAME: problem %q", s.Problem)
	}

	l.want("gone") // it was never announced, so nothing drains
	l.step()
	l.wantAt("the domain left", record)
	if s := l.step(); s != (store.Report{}) {
		t.Errorf("the domain left: %+v, want nothing left", s)
	}
}

// Where the policy is behind a shared record, the TLSRPT record is the domain's own, as an alias one is.
func TestReportOfShared(t *testing.T) {
	t.Parallel()
	l := newReportLife(t, store.PublishShared, labtest.StartKnot)
	record := one.Label() + ".t.default.a.provider.test"
	l.server.Set(t, "*.eu.s.default.a.provider.test", "TXT", `"v=STSv1; id=shared;"`)
	waiting := "waiting for: CNAME _smtp._tls.one.test → " + record + ", last seen NXDOMAIN"
	if s := l.step(); s.Problem != waiting || s.Verified.IsZero() || s.Record != record || s.Zone != "a.provider.test" {
		t.Errorf("without the CNAME: %+v, want the problem %q", s, waiting)
	}
	l.wantAt("without the CNAME", record, rpt)
	l.server.Set(t, "_smtp._tls.one.test", "CNAME", record+".")
	l.poll(record, func() {
		if s := l.step(); s.Problem != "" {
			t.Errorf("with the CNAME: problem %q", s.Problem)
		}
		const changed = "v=TLSRPTv1; rua=mailto:changed@provider.test"
		l.want(changed)
		l.step()
		l.wantAt("changed", record, changed)
	})
	l.want("gone") // it was never announced, so nothing drains
	l.step()
	l.wantAt("the domain left", record)
	l.wantAt("the domain left", "*.eu.s.default.a.provider.test", "v=STSv1; id=shared;")
	if s := l.step(); s != (store.Report{}) {
		t.Errorf("the domain left: %+v, want nothing left", s)
	}
}

// The manual way: what the customer has to write is said until it is there, and nothing is ever written or deleted for him.
func TestReportByHand(t *testing.T) {
	t.Parallel()
	l := newReportLife(t, store.PublishManual, labtest.StartBIND)
	const record, old = "_smtp._tls.one.test", "v=TLSRPTv1; rua=mailto:old@one.test"
	waiting := func(text, seen string) string {
		return "waiting for: " + record + ` TXT "` + text + `", last seen ` + seen
	}
	s, err := l.rec.Status(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	if line := record + `. 300 IN TXT "` + rpt + `"`; s.Records[len(s.Records)-1] != line {
		t.Errorf("records %q, want the last to be %q", s.Records, line)
	}
	if s := l.step(); s.Problem != waiting(rpt, "no such record") || !s.Verified.IsZero() {
		t.Errorf("before it is written: %+v, want the problem %q", s, waiting(rpt, "no such record"))
	}
	l.server.Set(t, record, "TXT", `"`+old+`"`)
	if s := l.step(); s.Problem != waiting(rpt, `["`+old+`"]`) {
		t.Errorf("with another record: problem %q", s.Problem)
	}
	l.wantAt("with another record", record, old)
	l.server.Set(t, record, "TXT", `"`+rpt+`"`)
	if s := l.step(); s.Problem != "" || s.Verified.IsZero() {
		t.Errorf("written: %+v, want it verified", s)
	}
	const changed = "v=TLSRPTv1; rua=mailto:changed@provider.test"
	l.want(changed)
	if s := l.step(); s.Problem != waiting(changed, `["`+rpt+`"]`) || !s.Verified.IsZero() {
		t.Errorf("stale: %+v, want the problem %q", s, waiting(changed, `["`+rpt+`"]`))
	}
	l.want("")
	if s := l.step(); s != (store.Report{}) {
		t.Errorf("not wanted any more: %+v, want nothing left", s)
	}
	l.wantAt("not wanted any more", record, rpt)
}
