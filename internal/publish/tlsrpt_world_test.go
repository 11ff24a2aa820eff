package publish_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// Report implements [publish.Sight] with the records that the world's account holds.
func (w *world) Report(_ context.Context, record string) publish.TXT {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Clone(w.txt[record])
	ours := slices.DeleteFunc(slices.Clone(all), func(v string) bool { return !policygen.IsTLSRPTv1(v) })
	return publish.TXT{Zone: "test", Servers: []publish.Server{{Name: "ns1", STS: ours, Others: len(all) - len(ours), TTL: w.ttl}}}
}

// ReportDelegation implements [publish.Sight]; the delegation of one.test is that of the name _smtp._tls.one.test.
func (w *world) ReportDelegation(_ context.Context, name policygen.Name, record string) publish.Delegation {
	w.mu.Lock()
	defer w.mu.Unlock()
	owner := policygen.Name(name.ReportName())
	return publish.Delegation{Ours: w.delegation[owner], Reason: "waiting for: CNAME " + string(owner) + " → " + record}
}

const rpt = "v=TLSRPTv1; rua=mailto:tls@provider.test"

// wantsReport makes every domain of a configuration want a TLSRPT record, or none.
func (w *world) wantsReport(text string) {
	w.change(func() {
		for i := range w.conf.Domains {
			w.conf.Domains[i].TLSRPT = text
		}
	})
}

func (w *world) reportOf(name policygen.Name) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.txt[name.ReportName()])
}

// A TLSRPT record comes without waiting for MTA-STS, survives a restart, is changed in one step, and goes when it is not
// wanted any more.
func TestReport(t *testing.T) {
	w := newWorld(t, one, two)
	w.wantsReport(rpt)
	w.host[one] = publish.Host{Proven: true, Reason: "elsewhere"} // which is for MTA-STS alone
	run(t, w, func(w *world) {
		w.reach(two, publish.StepLive, 10*time.Minute)
		if got := w.reportOf(one); !slices.Equal(got, []string{rpt}) {
			t.Fatalf("at step %s the TLSRPT record is %q, want %q", w.status(one).Step, got, rpt)
		}
		s := w.status(two)
		if s.TLSRPT == nil || s.TLSRPT.Record != "_smtp._tls.two.test" || s.TLSRPT.Text != rpt || s.TLSRPT.Verified.IsZero() || s.TLSRPT.Problem != "" {
			t.Errorf("status %+v, want it verified", s.TLSRPT)
		}
		if want := "; _smtp._tls.two.test. TXT is written by stspub"; s.Records[len(s.Records)-1] != want {
			t.Errorf("records %q, want the last to be %q", s.Records, want)
		}
		writes := w.writes()
		w.stop()
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.pass(24 * time.Hour)
		if w.writes() != writes {
			t.Errorf("%d writes in the day after a restart, want none: %+v", w.writes()-writes, w.applied[writes:])
		}

		w.change(func() { w.txt[two.ReportName()] = nil })
		w.pass(14 * time.Hour)
		if got := w.reportOf(two); !slices.Equal(got, []string{rpt}) {
			t.Errorf("after it was deleted by hand the record is %q, want it to be put back", got)
		}

		const other = "v=TLSRPTv1; rua=https://r.test/v1"
		w.wantsReport(other)
		if r, err := w.reload(""); err != nil || r.Changed != 2 {
			t.Fatalf("reload = %+v, %v, want 2 changed", r, err)
		}
		w.pass(time.Minute)
		if got := w.reportOf(two); !slices.Equal(got, []string{other}) {
			t.Errorf("after a change the record is %q, want %q", got, other)
		}
		last := w.applied[len(w.applied)-1]
		if last.Add != other || !slices.Equal(last.Remove, []string{rpt}) {
			t.Errorf("last change %+v, want the one replaced by the other", last)
		}

		w.change(func() { w.txt[two.ReportName()] = append(w.txt[two.ReportName()], "a stranger") })
		w.wantsReport("")
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Minute)
		if got := w.reportOf(two); !slices.Equal(got, []string{"a stranger"}) {
			t.Errorf("not wanted any more, the record is %q, want the stranger alone", got)
		}
		if s := w.status(two); s.TLSRPT != nil || s.Step != publish.StepLive {
			t.Errorf("status %+v at step %s, want nothing of TLSRPT", s.TLSRPT, s.Step)
		}
	})
}

// Somebody else's record, a CNAME that is missing and an account that refuses are findings, and hold nothing.
func TestReportFindings(t *testing.T) {
	const three policygen.Name = "three.test"
	w := newWorld(t, one, two)
	w.conf.Domains = append(w.conf.Domains, config.Domain{Name: three, MXSet: "eu", Publish: store.PublishAlias, Account: "main"})
	w.wantsReport(rpt)
	const theirs = "v=TLSRPTv1; rua=mailto:theirs@one.test"
	w.txt[one.ReportName()] = []string{theirs}
	w.delegation[three] = true
	run(t, w, func(w *world) {
		for _, name := range []policygen.Name{one, two, three} {
			if s := w.reach(name, publish.StepLive, 20*time.Minute); s.Fault {
				t.Errorf("%s: fault %q", name, s.Reason)
			}
		}
		want := `somebody else's TLSRPT record stands at _smtp._tls.one.test: "` + theirs + `"; it is not touched: delete it, or leave tlsrpt out`
		if s := w.status(one).TLSRPT; s.Problem != want {
			t.Errorf("problem %q, want %q", s.Problem, want)
		}
		record := three.Label() + ".t.default.a.provider.test"
		s := w.status(three)
		if want := "waiting for: CNAME _smtp._tls.three.test → " + record; s.TLSRPT.Problem != want || s.TLSRPT.Record != record {
			t.Errorf("alias: %+v, want the problem %q", s.TLSRPT, want)
		}
		if want := "_smtp._tls.three.test. 300 IN CNAME " + record + "."; s.Records[len(s.Records)-1] != want {
			t.Errorf("records %q, want the last to be %q", s.Records, want)
		}
		if got := w.at(record); !slices.Equal(got, []string{rpt}) {
			t.Errorf("record %q in the alias zone, want %q", got, rpt)
		}
		w.change(func() { w.delegation[policygen.Name(three.ReportName())] = true })
		w.pass(14 * time.Hour)
		if s := w.status(three).TLSRPT; s.Problem != "" || s.Verified.IsZero() {
			t.Errorf("with its CNAME: %+v, want it right", s)
		}

		looks := w.writes()
		w.change(func() {
			w.txt[two.ReportName()] = nil
			w.applyErr = &dnsupdate.Error{Account: "main", Op: "write", Kind: dnsupdate.KindUnavailable, Err: errors.New("502")}
		})
		w.pass(24 * time.Hour)
		s = w.status(two)
		if s.Step != publish.StepLive || s.Fault || !strings.Contains(s.TLSRPT.Problem, "502") || !s.TLSRPT.Verified.IsZero() {
			t.Errorf("with an account that is down: step %s, fault %t, TLSRPT %+v; want live, and its reason", s.Step, s.Fault, s.TLSRPT)
		}
		if n := w.writes() - looks; n < 3 || n > 60 {
			t.Errorf("%d writes in a day of an account that is down, want some dozens at most", n)
		}
		w.change(func() { w.applyErr = nil })
		w.pass(14 * time.Hour)
		if got := w.reportOf(two); !slices.Equal(got, []string{rpt}) || w.status(two).TLSRPT.Problem != "" {
			t.Errorf("record %q, %+v after the account was mended, want %q", got, w.status(two).TLSRPT, rpt)
		}
		if got := w.reportOf(one); !slices.Equal(got, []string{theirs}) {
			t.Errorf("somebody else's record is %q, want it untouched", got)
		}
	})
}

// A domain that leaves keeps its record while it drains, and is not forgotten before that is gone.
func TestReportOfADomainThatLeaves(t *testing.T) {
	w := newWorld(t, one, two)
	w.wantsReport(rpt)
	eu := w.conf.MXSets["eu"]
	eu.Policy.MaxAge = 86400 // to be done sooner
	w.conf.MXSets["eu"] = eu
	w.host[two] = publish.Host{Proven: true, Reason: "elsewhere"}
	run(t, w, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		moved := slices.Clone(w.conf.Domains)
		moved[1].Publish = store.PublishAlias
		all := w.conf.Domains
		w.change(func() { w.conf.Domains = moved })
		const refused = `refused: domain two.test: publish cannot change from "zone" to "alias" while its record is at _smtp._tls.two.test; ` +
			"remove the domain, and add it again when it has drained"
		if _, err := w.reload(""); err == nil || err.Error() != refused {
			t.Errorf("reload = %v, want %s", err, refused)
		}

		w.change(func() {
			w.conf.Domains = nil
			w.applyErr = &dnsupdate.Error{Account: "main", Op: "write", Kind: dnsupdate.KindUnavailable, Err: errors.New("502")}
		})
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if s := w.status(two); s.Step != publish.StepDrain || !strings.Contains(s.Reason, "the TLSRPT record at _smtp._tls.two.test goes first") {
			t.Errorf("never announced, and its account down: step %s (%s), want it to wait for the record", s.Step, s.Reason)
		}
		w.change(func() { w.applyErr = nil })
		w.pass(time.Hour)
		if _, err := w.rec.Status(w.ctx, two); !errors.Is(err, store.ErrNotFound) || len(w.reportOf(two)) > 0 {
			t.Errorf("Status = %v, record %q, want both gone", err, w.reportOf(two))
		}
		s := w.reach(one, publish.StepDrain, 30*time.Minute)
		w.pass(time.Until(s.Horizon) - time.Minute)
		if got := w.reportOf(one); !slices.Equal(got, []string{rpt}) {
			t.Errorf("while it drains the TLSRPT record is %q, want %q", got, rpt)
		}
		w.pass(3 * time.Hour)
		if _, err := w.rec.Status(w.ctx, one); !errors.Is(err, store.ErrNotFound) || len(w.reportOf(one)) > 0 {
			t.Errorf("after the drain: Status = %v, record %q, want both gone", err, w.reportOf(one))
		}
		w.change(func() { w.conf.Domains = all })
	})
}

func (w *world) accept(context.Context, *config.Config) error { return nil }
