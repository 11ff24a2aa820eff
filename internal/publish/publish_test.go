package publish_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

const (
	one policygen.Name = "one.test"
	two policygen.Name = "two.test"
)

func TestFirstPublicationAndChange(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		first := w.reach(one, publish.StepLive, 10*time.Minute)
		want := []string{"serve", "dns", "cert", "body", "settle", "txt", "verify", "live"}
		if got := w.happened(one); !slices.Equal(got, want) {
			t.Errorf("first publication: steps %v, want %v", got, want)
		}
		if got := w.record(one); !slices.Equal(got, []string{policygen.RecordText(first.ID)}) {
			t.Errorf("record = %q, want id %s", got, first.ID)
		}
		const nothing = "refused: one.test is at step live, where there is nothing to adopt"
		if err := w.rec.Adopt(w.ctx, one); !errors.Is(err, publish.ErrRefused) || err.Error() != nothing {
			t.Errorf("Adopt = %v, want %s", err, nothing)
		}

		w.change(func() { w.conf.MXSets["eu"] = mxset(policygen.Enforce, "mx2.provider.test"); w.steps = nil })
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		if got := w.record(one); !slices.Equal(got, []string{policygen.RecordText(first.ID)}) {
			t.Errorf("while the change settles, record = %q, want id %s", got, first.ID)
		}
		second := w.reach(one, publish.StepLive, 10*time.Minute)
		if second.ID == first.ID || !strings.Contains(second.Policy, "mx2.provider.test") {
			t.Errorf("after the change: id %s (before: %s), policy %q", second.ID, first.ID, second.Policy)
		}
		if got := w.happened(one); !slices.Equal(got, want) {
			t.Errorf("change: steps %v, want %v", got, want)
		}
		if len(second.History) != 2 || !second.History[1].To.IsZero() || second.History[0].To.IsZero() {
			t.Errorf("history = %+v, want two policies, the first one closed", second.History)
		}
	})
}

// Nobody can hold an older answer where nothing existed, so nothing needs to settle.
func TestFreshDomainDoesNotSettle(t *testing.T) {
	w := newWorld(t, one)
	w.prior = false
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		defer func() { w.stop() }()
		w.reach(one, publish.StepLive, 10*time.Second)
	})
}

func TestAliasIsDelegatedLast(t *testing.T) {
	w := newWorld(t)
	w.conf.Domains = []config.Domain{{Name: one, MXSet: "eu", Publish: store.PublishAlias, Account: "main"}}
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		defer func() { w.stop() }()
		s := w.reach(one, publish.StepDelegation, 10*time.Minute)
		record := one.Label() + ".d.default.a.provider.test"
		if want := "_mta-sts.one.test. 300 IN CNAME " + record + "."; s.Fault || s.Records[1] != want {
			t.Errorf("at delegation: fault %v, records %q, want the second to be %q", s.Fault, s.Records, want)
		}
		if got := w.at(record); !slices.Equal(got, []string{policygen.RecordText(s.ID)}) {
			t.Errorf("record = %q before the customer is told, want id %s", got, s.ID)
		}
		w.change(func() { w.delegation[one] = true })
		w.reach(one, publish.StepLive, time.Hour)
		w.change(func() { w.delegation[one] = false })
		if s := w.reach(one, publish.StepDelegation, 8*time.Hour); !s.Fault {
			t.Error("a customer's CNAME that went is no fault, want one")
		}
	})
}

func TestDrain(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() {
			w.txt[one.RecordName()] = append(w.txt[one.RecordName()], "a stranger")
			w.conf.Domains = w.conf.Domains[1:]
			w.ttl = time.Hour // of the last old id: it was written with another configuration
		})
		report, err := w.reload("")
		if err != nil || report.Removed != 1 {
			t.Fatalf("reload = %+v, %v, want 1 removed", report, err)
		}
		begun := time.Now()
		s := w.reach(one, publish.StepDrain, 15*time.Minute)
		if !strings.Contains(s.Policy, "mode: none") || !strings.Contains(s.Policy, "mx: mx1.provider.test") {
			t.Errorf("draining policy = %q, want mode none with its mx lines", s.Policy)
		}
		horizon := 7*24*time.Hour + time.Hour // the largest max_age, and the TTL of the last old id
		if got := s.Horizon.Sub(begun); got < horizon || got > horizon+15*time.Minute {
			t.Errorf("horizon %s after the removal, want %s and the time until mode none was verified", got, horizon)
		}
		w.pass(time.Until(s.Horizon) - time.Minute)
		if len(w.record(one)) != 2 {
			t.Errorf("before the horizon the record is %q, want it and the stranger", w.record(one))
		}
		w.pass(4 * time.Minute)
		if got := w.record(one); !slices.Equal(got, []string{"a stranger"}) {
			t.Errorf("after the horizon the record is %q, want the stranger alone", got)
		}
		if _, ok := w.snapshot.Policy(one.PolicyHost()); !ok {
			t.Error("the policy is gone while caches may hold the record")
		}
		w.pass(90 * time.Minute)
		if _, ok := w.snapshot.Policy(one.PolicyHost()); ok || !slices.Equal(w.dropped, []string{one.PolicyHost()}) {
			t.Errorf("after the drain: policy served %v, certificates dropped %v", ok, w.dropped)
		}
		if _, err := w.rec.Status(w.ctx, one); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Status = %v, want ErrNotFound", err)
		}
		if s := w.status(two); s.Step != publish.StepLive {
			t.Errorf("the other domain is at %s (%s), want live", s.Step, s.Reason)
		}
	})
}

func TestDrainIsTakenBack(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		first := w.reach(one, publish.StepLive, 10*time.Minute)
		all := w.conf.Domains
		w.change(func() { w.conf.Domains = all[1:] })
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		draining := w.reach(one, publish.StepDrain, 15*time.Minute)
		w.change(func() { w.conf.Domains = all })
		if r, err := w.reload(""); err != nil || r.Restored != 1 {
			t.Fatalf("reload = %+v, %v, want 1 restored", r, err)
		}
		back := w.reach(one, publish.StepLive, 15*time.Minute)
		if back.ID == first.ID || back.ID == draining.ID || back.Policy != first.Policy || back.Draining {
			t.Errorf("back = %+v, want the first policy under a third id", back)
		}
		w.pass(10 * 24 * time.Hour)
		if got := w.record(one); len(got) != 1 {
			t.Errorf("record = %q long after, want it to be there", got)
		}
	})
}

// A customer that removed the CNAMEs first is released after a week in which every look proved it, not before.
func TestDrainOfACustomerWhoLeft(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() {
			w.host[one] = publish.Host{Proven: true, Reason: "elsewhere"}
			w.conf.Domains = w.conf.Domains[1:]
		})
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.pass(6 * 24 * time.Hour)
		if len(w.record(one)) != 1 {
			t.Errorf("record = %q after six days, want it to be there", w.record(one))
		}
		w.pass(2 * 24 * time.Hour)
		if got := w.record(one); len(got) != 0 {
			t.Errorf("record = %q after eight days, want none", got)
		}
	})
}

func TestAway(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		first := w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() { w.host[one] = publish.Host{Reason: "time-out"} })
		w.pass(10 * 24 * time.Hour)
		if s := w.status(one); s.Step != publish.StepDNS || !s.Fault {
			t.Errorf("after ten days of time-outs: step %s, fault %v, want dns and a fault: they prove nothing", s.Step, s.Fault)
		}
		w.change(func() { w.host[one] = publish.Host{Proven: true, TTL: time.Hour, Reason: "elsewhere"} })
		w.pass(6*24*time.Hour + 12*time.Hour)
		if s := w.status(one); s.Step != publish.StepDNS || !s.Fault || w.isWanted(one.PolicyHost()) {
			t.Errorf("after six days elsewhere: step %s, fault %v, certificate wanted %v; want dns, a fault, no order", s.Step, s.Fault,
				w.isWanted(one.PolicyHost()))
		}
		w.pass(2 * 24 * time.Hour)
		s := w.status(one)
		if s.Step != publish.StepAway || len(w.record(one)) != 1 {
			t.Errorf("after eight days: step %s, record %q; want away, and what is there stays", s.Step, w.record(one))
		}
		w.change(func() { delete(w.host, one) })
		back := w.reach(one, publish.StepLive, 9*time.Hour)
		if back.ID == first.ID {
			t.Error("the id is the same, want a fresh one: senders may hold the other place's policy under it")
		}
	})
}

func TestDrift(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		s := w.reach(one, publish.StepLive, 10*time.Minute)
		record := one.RecordName()
		for _, c := range []struct {
			name  string
			to    []string
			fresh bool
		}{
			{"deleted", nil, false},
			{"duplicate", []string{policygen.RecordText(s.ID), "v=STSv1; id=another;"}, false},
			{"changed", []string{"v=STSv1; id=byhand;"}, true},
			{"malformed", []string{"v=STSv1 ; id=" + s.ID}, true},
		} {
			w.change(func() { w.txt[record], w.steps = append(slices.Clone(c.to), "a stranger"), nil })
			w.pass(7 * time.Hour)
			if !slices.Contains(w.happened(one), publish.StepTXT) {
				t.Errorf("%s: steps %v, want the drift said", c.name, w.happened(one))
			}
			now := w.status(one)
			want := []string{"a stranger", policygen.RecordText(now.ID)}
			if got := w.record(one); !slices.Equal(got, want) || now.Step != publish.StepLive {
				t.Errorf("%s: record %q at step %s (%s), want %q", c.name, got, now.Step, now.Reason, want)
			}
			if (now.ID != s.ID) != c.fresh {
				t.Errorf("%s: id %s, before %s; want a fresh one: %v", c.name, now.ID, s.ID, c.fresh)
			}
			s = now
		}
		if !s.Fault || !strings.Contains(s.Reason, "another TXT stands beside the record") {
			t.Errorf("a stranger beside: fault %v, reason %q", s.Fault, s.Reason)
		}
	})
}

func TestAdopt(t *testing.T) {
	w := newWorld(t, one)
	const foreign = "v=STSv1; id=theirs;"
	w.txt[one.RecordName()] = []string{foreign}
	w.host[one] = publish.Host{Proven: true, TTL: time.Hour, Reason: "elsewhere"}
	w.foreign = "version: STSv1\r\nmode: enforce\r\nmax_age: 1209600\r\nmx: old.test\r\n"
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		defer func() { w.stop() }()
		w.reach(one, publish.StepDNS, time.Minute)
		w.change(func() { delete(w.host, one) })
		s := w.reach(one, publish.StepAdopt, 3*time.Hour)
		want := `somebody else's record stands at _mta-sts.one.test: "v=STSv1; id=theirs;"; if this server is to take over, run: ` +
			`stspub domain adopt one.test (or set adopt = true)`
		if s.Reason != want || !s.Fault || w.writes() != 0 {
			t.Errorf("reason %q, fault %v, %d writes; want %q, a fault, none", s.Reason, s.Fault, w.writes(), want)
		}
		if len(s.History) < 1 || !slices.ContainsFunc(s.History, func(p publish.Past) bool { return p.Foreign && p.Policy == w.foreign }) {
			t.Errorf("history %+v, want the foreign policy in it", s.History)
		}
		if err := w.rec.Adopt(w.ctx, one); err != nil {
			t.Fatal(err)
		}
		w.reach(one, publish.StepLive, 3*time.Hour)
		if c := w.applied[0]; c.Add == "" || !slices.Equal(c.Remove, []string{foreign}) || len(w.applied) != 1 {
			t.Errorf("changes %+v, want one that replaces theirs by ours", w.applied)
		}
	})
}

func TestRetryLooksNow(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.pass(48 * time.Hour) // the looks of the first day are over
		before := w.status(one).Checked
		if err := w.rec.Retry(w.ctx, one); err != nil {
			t.Fatal(err)
		}
		w.pass(0)
		if after := w.status(one).Checked; !after.After(before) || !slices.Equal(w.retried, []string{one.PolicyHost()}) {
			t.Errorf("last looked at %v, before %v; orders again: %q, want a look, and %s", after, before, w.retried, one.PolicyHost())
		}
		if err := w.rec.Retry(w.ctx, "nobody.test"); !errors.Is(err, store.ErrNotFound) || len(w.retried) != 1 {
			t.Errorf("Retry(nobody.test) = %v, want store.ErrNotFound", err)
		}
	})
}

func TestStrandingIsRefused(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		first := w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() {
			w.uncovered = []string{"mx1.provider.test"}
			w.conf.MXSets["eu"] = mxset(policygen.Enforce, "mx2.provider.test")
		})
		p := w.plan()
		want := "refused: senders would refuse the mail of 1 domain (one.test): MX in DNS are not covered by the new policy; nothing is changed; " +
			"look at stspub plan, and if it is meant, run: stspub reload --force " + p.Hash
		if _, err := w.reload(""); !errors.Is(err, publish.ErrRefused) || err.Error() != want {
			t.Errorf("reload = %v, want %s", err, want)
		}
		if got := w.faults(); !slices.Equal(got, []string{"configuration: " + want}) {
			t.Errorf("faults = %q, want that of the configuration", got)
		}
		if _, err := w.reload("0123456789abcdef"); !errors.Is(err, publish.ErrRefused) || !strings.HasPrefix(err.Error(), `refused: "0123456789abcdef" is not the hash `) {
			t.Errorf("reload with another hash = %v, want it refused", err)
		}
		w.pass(24 * time.Hour)
		if s := w.status(one); s.Policy != first.Policy || s.ID != first.ID || !slices.Equal(w.record(one), []string{policygen.RecordText(first.ID)}) {
			t.Errorf("refused: policy %q, id %s, record %q; want the old ones", s.Policy, s.ID, w.record(one))
		}
		r, err := w.reload(p.Hash)
		if err != nil || !slices.Equal(r.Forced, []string{"one.test"}) || len(w.faults()) != 0 {
			t.Fatalf("reload --force = %+v, %v, faults %q; want one.test forced", r, err, w.faults())
		}
		w.pass(20 * time.Minute)
		if s := w.status(one); !strings.Contains(s.Policy, "mx2.provider.test") || s.ID == first.ID {
			t.Errorf("forced: policy %q, id %s", s.Policy, s.ID)
		}
	})
}

// What cannot be looked up does not refuse a reload; the domain is held then, until it can be.
func TestStrandingIsHeld(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		first := w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() {
			w.uncovered, w.unknownMX = []string{"mx1.provider.test"}, "SERVFAIL"
			w.conf.MXSets["eu"] = mxset(policygen.Enforce, "mx2.provider.test")
		})
		if p := w.plan(); len(p.Unknown) != 1 || p.Unknown[0] != (publish.PlanReason{Subject: "one.test", Reason: "SERVFAIL"}) || len(p.Refused) > 0 {
			t.Errorf("plan: unknown %q, refused %q", p.Unknown, p.Refused)
		}
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		s := w.reach(one, publish.StepMX, time.Minute)
		if want := "held: the MX of one.test cannot be looked up (SERVFAIL), so whether the new policy covers them is not known"; s.Reason != want {
			t.Errorf("reason %q, want %q", s.Reason, want)
		}
		w.change(func() { w.unknownMX = "" })
		w.pass(time.Hour)
		s = w.status(one)
		want := "held: senders would refuse mail for one.test: its MX mx1.provider.test in DNS is not covered by the new policy; " +
			"add it to the MX set, remove it from DNS, or have who runs the service force the change, by the command that stspub plan prints"
		if s.Reason != want || !s.Fault || s.Policy != first.Policy {
			t.Errorf("reason %q, fault %v, policy %q; want %q, a fault, and the old policy", s.Reason, s.Fault, s.Policy, want)
		}
		if _, err := w.reload(""); err != nil { // no news, so nothing to refuse
			t.Errorf("reload = %v", err)
		}
		w.pass(24 * time.Hour)
		if got := w.record(one); !slices.Equal(got, []string{policygen.RecordText(first.ID)}) {
			t.Errorf("record %q while held, want id %s", got, first.ID)
		}
		p := w.plan()
		if len(p.Held) != 1 || p.Held[0] != (publish.PlanReason{Subject: "one.test", Reason: want}) || len(p.Refused)+len(p.Stranded) > 0 {
			t.Errorf("plan: held %q, refused %q, stranded %v", p.Held, p.Refused, p.Stranded)
		}
		r, err := w.reload(p.Hash)
		if err != nil || !slices.Equal(r.Forced, []string{"one.test"}) {
			t.Fatalf("reload --force = %+v, %v, want one.test forced", r, err)
		}
		w.pass(20 * time.Minute)
		if s := w.status(one); !strings.Contains(s.Policy, "mx2.provider.test") || s.ID == first.ID {
			t.Errorf("forced: policy %q, id %s", s.Policy, s.ID)
		}
	})
}

func TestMassRemovalIsRefused(t *testing.T) {
	var names []policygen.Name
	for i := range 30 {
		names = append(names, policygen.Name(fmt.Sprintf("d%02d.test", i)))
	}
	inBubble(t, names, func(w *world) {
		w.reach(names[0], publish.StepLive, 20*time.Minute)
		all := w.conf.Domains
		for left, removed := range map[int]int{0: 30, 12: 18, 19: 11} { // emptied, truncated
			w.change(func() { w.conf.Domains = all[:left] })
			var first []string
			for i := range 10 {
				first = append(first, fmt.Sprintf("d%02d.test", left+i))
			}
			want := fmt.Sprintf("refused: %d of 30 domains would be removed (%s and %d more), which looks like a truncated file; nothing is changed; "+
				"look at stspub plan, and if it is meant, run: stspub reload --force %s", removed, strings.Join(first, ", "), removed-10, w.plan().Hash)
			if _, err := w.reload(""); !errors.Is(err, publish.ErrRefused) || err.Error() != want {
				t.Errorf("reload with %d domains = %v, want %s", left, err, want)
			}
		}
		if got := w.faults(); len(got) != 1 || !strings.HasPrefix(got[0], "configuration: refused: ") {
			t.Errorf("faults = %q, want that of the configuration", got)
		}
		w.pass(3 * 24 * time.Hour)
		for _, name := range names {
			if s := w.status(name); s.Draining || s.Step != publish.StepLive {
				t.Fatalf("%s: draining %v, step %s; want live", name, s.Draining, s.Step)
			}
		}
		w.change(func() { w.conf.Domains = all[:20] })
		if r, err := w.reload(""); err != nil || r.Removed != 10 {
			t.Errorf("reload with 20 domains = %+v, %v, want 10 removed", r, err)
		}
		w.change(func() { w.conf.Domains = all[:1] })
		if r, err := w.reload(w.plan().Hash); err != nil || !slices.Equal(r.Forced, []string{"removal of 19 domains"}) {
			t.Errorf("reload --force with 1 domain = %+v, %v", r, err)
		}
		if got := w.faults(); len(got) != 0 {
			t.Errorf("faults = %q, want none", got)
		}
	})
}

func TestBrokenConfigurationChangesNothing(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() { w.loadErr = errors.New("stspub.toml:3: no") })
		if _, err := w.reload(""); !errors.Is(err, publish.ErrRefused) || err.Error() != "refused: stspub.toml:3: no" {
			t.Errorf("reload = %v", err)
		}
		if got := w.faults(); !slices.Equal(got, []string{"configuration: stspub.toml:3: no"}) {
			t.Errorf("faults = %q", got)
		}
		w.pass(24 * time.Hour)
		if s := w.status(one); s.Step != publish.StepLive {
			t.Errorf("step %s, want live", s.Step)
		}
	})
}

func TestWhatADrainNeedsStays(t *testing.T) {
	inBubble(t, []policygen.Name{one, two}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.reach(two, publish.StepLive, 10*time.Minute)
		all, accounts := w.conf.Domains, w.conf.Accounts
		w.change(func() { w.conf.Domains = all[1:] })
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		until := w.reach(one, publish.StepDrain, 15*time.Minute).Horizon.UTC().Format("2006-01-02 15:04:05 MST")
		w.change(func() {
			w.conf.Domains = []config.Domain{{Name: two, MXSet: "eu", Publish: store.PublishZone, Account: "other"}}
			w.conf.Accounts = map[string]config.Account{"other": {Name: "other"}}
		})
		want := "refused: account.main: account is needed for the record of one.test until that is gone (it drains until " + until + "); put it back"
		if _, err := w.reload(w.plan().Hash); err == nil || err.Error() != want {
			t.Errorf("reload without the account = %v, want %s", err, want)
		}
		w.change(func() {
			w.conf.Accounts = accounts
			w.conf.Domains = []config.Domain{{Name: two, MXSet: "eu", Publish: store.PublishAlias, Account: "main"}}
		})
		want = `refused: domain two.test: publish cannot change from "zone" to "alias" while its record is at _mta-sts.two.test; ` +
			`remove the domain, and add it again when it has drained`
		if _, err := w.reload(w.plan().Hash); err == nil || err.Error() != want {
			t.Errorf("reload with another way to publish = %v, want %s", err, want)
		}
	})
}

// The provider is down or says no: the reason is shown, nobody hammers it, and it goes on by itself.
func TestWritesThatFail(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		fault bool
		most  int // writes in an hour
	}{
		{"unavailable", &dnsupdate.Error{Account: "main", Kind: dnsupdate.KindUnavailable, Err: errors.New("502")}, false, 8},
		{"rate limited", &dnsupdate.Error{Account: "main", Kind: dnsupdate.KindRateLimited, RetryAfter: 20 * time.Minute, Err: errors.New("429")}, false, 4},
		{"credentials", &dnsupdate.Error{Account: "main", Kind: dnsupdate.KindAuth, Err: errors.New("403")}, true, 25},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, one)
			w.applyErr = c.err
			synctest.Test(t, func(t *testing.T) {
				w.t = t
				if err := w.start(); err != nil {
					t.Fatal(err)
				}
				defer func() { w.stop() }()
				w.pass(time.Hour)
				s := w.status(one)
				if !strings.Contains(s.Reason, c.err.Error()) && s.Step == publish.StepTXT || s.Fault != c.fault && s.Step == publish.StepTXT {
					t.Errorf("step %s, reason %q, fault %v; want %q, %v", s.Step, s.Reason, s.Fault, c.err, c.fault)
				}
				if n := w.writes(); n == 0 || n > c.most {
					t.Errorf("%d writes in an hour, want 1 to %d", n, c.most)
				}
				w.change(func() { w.applyErr = nil })
				w.reach(one, publish.StepLive, 2*time.Hour)
				if ids := map[string]bool{}; len(w.applied) > 0 {
					for _, a := range w.applied {
						ids[a.Add] = true
					}
					if len(ids) != 1 {
						t.Errorf("%d ids were tried for one policy, want one", len(ids))
					}
				}
			})
		})
	}
}

func TestRestartGoesOn(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		w.reach(one, publish.StepSettle, time.Minute)
		w.pass(4 * time.Minute)
		w.stop()
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.pass(4 * time.Minute) // the settle time began anew
		if n := w.writes(); n != 0 {
			t.Errorf("%d writes before the policy settled after the restart, want none", n)
		}
		s := w.reach(one, publish.StepLive, 5*time.Minute)
		w.stop()
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		if _, ok := w.snapshot.Policy(one.PolicyHost()); !ok {
			t.Error("nothing is served right after the restart")
		}
		w.pass(24 * time.Hour)
		if again := w.status(one); again.ID != s.ID || w.writes() != 1 {
			t.Errorf("after a restart: id %s, %d writes; want %s, 1", again.ID, w.writes(), s.ID)
		}
	})
}

func TestRenewalThatFailsIsAFault(t *testing.T) {
	inBubble(t, []policygen.Name{one}, func(w *world) {
		w.reach(one, publish.StepLive, 10*time.Minute)
		w.change(func() {
			w.cert[one.PolicyHost()] = publish.Cert{Valid: true, NotAfter: time.Now().Add(10 * 24 * time.Hour), Late: true, Problem: "CAA forbids"}
		})
		w.pass(7 * time.Hour)
		want := "the certificate of mta-sts.one.test ends in 9 days and is not renewed: CAA forbids"
		if s := w.status(one); s.Step != publish.StepLive || !s.Fault || s.Reason != want {
			t.Errorf("step %s, fault %v, reason %q, want live, a fault, %q", s.Step, s.Fault, s.Reason, want)
		}
	})
}
