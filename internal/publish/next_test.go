package publish_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// look is a state of the world in which all is right, for cases to change one thing of.
type look struct {
	w    publish.Want
	s    store.State
	seen publish.Seen
}

func right() look {
	policy := policygen.Policy{Mode: policygen.Enforce, MaxAge: 86400, MX: []string{"mx.test"}}.Text()
	return look{
		w: publish.Want{
			Name: one, Policy: policy, Announced: true, Record: one.RecordName(),
			Settle: 5 * time.Minute, TTL: 5 * time.Minute, FreshID: "fresh",
		},
		s: store.State{Served: policy, ID: "id1", Step: publish.StepLive, Record: one.RecordName(), Zone: "one.test"},
		seen: publish.Seen{
			Prior: &publish.Prior{Existed: true}, Host: &publish.Host{Ours: true},
			Cert: &publish.Cert{Valid: true, NotAfter: now().Add(60 * 24 * time.Hour)}, Body: &publish.Body{Live: true, LiveFor: time.Hour},
			TXT: servers("v=STSv1; id=id1;", "v=STSv1; id=id1;"), MX: &publish.MX{Known: true}, Delegation: &publish.Delegation{Ours: true},
			Quota: &publish.Quota{},
		},
	}
}

func now() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

// servers are name servers with one STSv1 value each; "" is none, and "!" a server that does not answer.
func servers(values ...string) *publish.TXT {
	t := &publish.TXT{Zone: "one.test"}
	for i, v := range values {
		s := publish.Server{Name: []string{"ns1", "ns2", "ns3"}[i], STS: []string{v}}
		switch v {
		case "":
			s.STS = nil
		case "!":
			s.STS, s.Err = nil, "time-out"
		}
		t.Servers = append(t.Servers, s)
	}
	return t
}

// waits are the ends of a pass that an operator reads.
func TestNextWaits(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*look)
		step   string
		reason string
		fault  bool
	}{
		{"all is right", func(*look) {}, publish.StepLive, "", false},
		{
			"a server that lags", func(l *look) { l.seen.TXT = servers("v=STSv1; id=id1;", "v=STSv1; id=id0;") }, publish.StepVerify,
			`waiting for every name server to answer the new record; ns2: ["v=STSv1; id=id0;"]`, false,
		},
		{
			"a server that does not answer", func(l *look) { l.seen.TXT = servers("v=STSv1; id=id1;", "!") }, publish.StepVerify,
			`waiting for every name server to answer the new record; ns2: time-out`, false,
		},
		{
			"no server answers", func(l *look) { l.seen.TXT = servers("!", "!") }, publish.StepVerify,
			`waiting for every name server to answer the new record; ns1: time-out; ns2: time-out`, false,
		},
		{
			"a server that never catches up", func(l *look) {
				l.seen.TXT, l.s.Step, l.s.Since = servers("v=STSv1; id=id1;", ""), publish.StepVerify, now().Add(-11*time.Minute)
				l.s.Wrote = now().Add(-time.Second)
			}, publish.StepVerify,
			`waiting for every name server to answer the new record; ns2: no record`, true,
		},
		{
			"settling", func(l *look) { l.s.Dirty, l.seen.Body.LiveFor = true, time.Minute }, publish.StepSettle,
			"the policy is live; senders may hold the old answer until 12:04:00 UTC", false,
		},
		{
			"settling for a place that it left", func(l *look) { l.s.Dirty, l.s.Settle = true, now().Add(time.Hour) }, publish.StepSettle,
			"the policy is live; senders may hold the old answer until 13:00:00 UTC", false,
		},
		{
			"settling for addresses that were ours", func(l *look) { l.s.Dirty, l.seen.Host.TTL = true, 30*time.Minute }, publish.StepSettle,
			"the policy is live; senders may hold the old answer until 12:30:00 UTC", false,
		},
		{
			"an MX that the policy leaves out", func(l *look) { l.seen.MX.Uncovered = []string{"a.test", "b.test"} }, publish.StepLive,
			"senders refuse the MX a.test, b.test of one.test: the policy does not cover it; add it to the MX set or remove it from DNS", true,
		},
		{
			"a policy to be, whose MX are not known", func(l *look) {
				l.w.Policy = strings.Replace(l.w.Policy, "mx: mx.test", "mx: mx2.test", 1)
				l.seen.MX = &publish.MX{Reason: "SERVFAIL"}
			}, publish.StepMX,
			"held: the MX of one.test cannot be looked up (SERVFAIL), so whether the new policy covers them is not known", true,
		},
		{
			"a name server silent before the first id", func(l *look) {
				l.s.ID, l.s.Dirty, l.seen.TXT = "", true, servers("", "!")
			}, publish.StepTXT,
			"waiting for every name server to answer the new record; ns1: no record; ns2: time-out", false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := right()
			c.change(&l)
			d := publish.Next(l.w, l.s, l.seen, now())
			if !d.Wait || d.Look != 0 || d.Do != publish.DoNothing {
				t.Fatalf("Next = %+v, want a wait", d)
			}
			if s := d.State; s.Step != c.step || s.Reason != c.reason || s.Fault != c.fault {
				t.Errorf("step %s, reason %q, fault %v; want %s, %q, %v", s.Step, s.Reason, s.Fault, c.step, c.reason, c.fault)
			}
		})
	}
}

// acts are what Next has done, and commits before.
func TestNextActs(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*look)
		do     publish.Effect
		add    string
		remove []string
		dirty  bool
	}{
		{"a changed policy", func(l *look) { l.w.Policy += "mx: mx2.test\r\n" }, publish.DoServe, "", nil, true},
		{
			"a changed policy in testing needs no covered MX", func(l *look) {
				l.w.Policy = policygen.Policy{Mode: policygen.Testing, MaxAge: 1, MX: []string{"x.test"}}.Text()
				l.seen.MX = nil
			}, publish.DoServe, "", nil, true,
		},
		{"a record that is gone", func(l *look) { l.seen.TXT = servers("", "") }, publish.DoWrite, "v=STSv1; id=id1;", nil, false},
		{"a duplicate", func(l *look) {
			l.seen.TXT.Servers[0].STS = []string{"v=STSv1; id=id1;", "v=STSv1; id=x;"}
		}, publish.DoWrite, "v=STSv1; id=id1;", []string{"v=STSv1; id=x;"}, false},
		{"an id that nobody here wrote", func(l *look) { l.seen.TXT = servers("v=STSv1; id=x;", "!") }, publish.DoNothing, "", nil, true},
		{"an old id that landed late", func(l *look) {
			l.seen.TXT = servers("v=STSv1; id=id0;", "v=STSv1; id=id0;")
			l.seen.TXT.Ours = []string{"v=STSv1; id=id0;"}
		}, publish.DoNothing, "", nil, true},
		{
			"an intended id", func(l *look) { l.s.Dirty, l.s.Intended = true, "id2" }, publish.DoWrite, "v=STSv1; id=id2;",
			[]string{"v=STSv1; id=id1;"},
			true,
		},
		{"an intended id with one server silent", func(l *look) {
			l.s.Dirty, l.s.Intended, l.seen.TXT = true, "id2", servers("v=STSv1; id=id1;", "!")
		}, publish.DoWrite, "v=STSv1; id=id2;", []string{"v=STSv1; id=id1;"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := right()
			c.change(&l)
			d := publish.Next(l.w, l.s, l.seen, now())
			if d.Wait || d.Look != 0 || d.Do != c.do || d.Add != c.add || !slices.Equal(d.Remove, c.remove) || d.State.Dirty != c.dirty {
				t.Errorf("Next = %+v, want effect %d, add %q, remove %q, dirty %v", d, c.do, c.add, c.remove, c.dirty)
			}
		})
	}
}

// What is not needed is not looked at: a sight costs DNS queries and handshakes.
func TestNextLooksInOrder(t *testing.T) {
	l := right()
	l.w.Alias = true
	l.seen = publish.Seen{}
	full := right().seen
	want := []publish.Look{publish.LookHost, publish.LookCert, publish.LookBody, publish.LookTXT, publish.LookDelegation, publish.LookMX}
	var got []publish.Look
	for range 20 {
		d := publish.Next(l.w, l.s, l.seen, now())
		if d.Wait {
			break
		}
		got = append(got, d.Look)
		switch d.Look {
		case publish.LookHost:
			l.seen.Host = full.Host
		case publish.LookCert:
			l.seen.Cert = full.Cert
		case publish.LookBody:
			l.seen.Body = full.Body
		case publish.LookTXT:
			l.seen.TXT = full.TXT
		case publish.LookDelegation:
			l.seen.Delegation = full.Delegation
		case publish.LookMX:
			l.seen.MX = full.MX
		default:
			t.Fatalf("Next = %+v", d)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("looks %v, want %v", got, want)
	}
}
