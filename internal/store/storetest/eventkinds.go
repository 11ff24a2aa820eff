package storetest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// How a domain of [domain], and the MX sets of [sets], are shown in events.
const (
	shownZone = `{"mxset":"eu","publish":"zone","account":"main","owner":"file"}`
	shownEU   = `{"owner":"file","mode":"enforce","max_age":604800,"mx":["mx1.example.net","*.eu.mx.example.net"]}`
	shownUS   = `{"owner":"file","mode":"testing","max_age":86400,"mx":["mx.us.example.net"]}`
)

func eventsDeclared(e *env) {
	declare := func(d store.Declaration, i int) {
		e.Helper()
		_, err := e.Declare(e.by("file"), d, at(i))
		e.must(err)
	}
	d := file(domain("a.example"), domain("b.example"))
	d.Digest = "abc"
	declare(d, 1)
	last := e.told(0,
		`/ configuration.taken by file is {"digest":"abc"}`,
		"default/eu mxset.added by file is "+shownEU,
		"default/us mxset.added by file is "+shownUS,
		"default/a.example domain.added by file is "+shownZone,
		"default/b.example domain.added by file is "+shownZone)
	e.equal("time", e.all()[0].At, at(1))
	e.equal("text", e.all()[3].Text, "added")

	moved := domain("a.example")
	moved.MXSet, moved.Adopt = "us", true
	d = file(moved)
	d.MXSets[0].Policy.MaxAge = 86400
	declare(d, 2)
	last = e.told(last,
		"default/eu mxset.changed by file was "+shownEU+" is "+strings.Replace(shownEU, "604800", "86400", 1),
		`default/a.example domain.changed by file was `+shownZone+` is {"mxset":"us","publish":"zone","account":"main","owner":"file","adopt":true}`,
		"default/b.example domain.removed by file was "+shownZone)
	d = file(moved, domain("b.example"))
	d.MXSets[0].Policy.MaxAge = 86400
	declare(d, 3)
	last = e.told(last, "default/b.example domain.restored by file was "+shownZone+" is "+shownZone)
	declare(d, 4)
	last = e.told(last)

	bad := file(domain("a.example"), domain("a.example"))
	bad.Digest = "bad"
	if _, err := e.Declare(e.ctx(), bad, at(5)); err == nil {
		e.Error("a domain that is declared twice was taken")
	}
	last = e.told(last)
	declare(store.Declaration{Owner: store.OwnerFile}, 6)
	if got := e.events(store.EventFilter{Tenant: "default"}, last); len(got) != 4 {
		e.Errorf("events of an empty declaration are %+v, want 2 MX sets and 2 domains", got)
	}
}

func eventsApplied(e *env) {
	e.start()
	last := e.newest()
	apply := func(i int, changes ...store.DomainChange) {
		e.Helper()
		_, err := e.ApplyDomains(e.by("token x (panel)"), store.Batch{Owner: store.OwnerAPI, Changes: changes}, at(i))
		e.must(err)
	}
	const owned = `{"mxset":"eu","publish":"zone","account":"main","owner":"api"}`
	nowhere := domain("c.example")
	nowhere.MXSet = "nowhere"
	apply(1, put(domain("a.example")), put(domain("b.example")), put(nowhere), gone("d.example"))
	last = e.told(last,
		"default/a.example domain.added by token x (panel) is "+owned, "default/b.example domain.added by token x (panel) is "+owned)
	us := domain("a.example")
	us.MXSet = "us"
	apply(2, put(us), put(domain("b.example")), gone("b.example"), gone("b.example"))
	const asUS = `{"mxset":"us","publish":"zone","account":"main","owner":"api"}`
	last = e.told(last,
		"default/a.example domain.changed by token x (panel) was "+owned+" is "+asUS,
		"default/b.example domain.removed by token x (panel) was "+owned)
	apply(3, put(domain("b.example")))
	last = e.told(last, "default/b.example domain.restored by token x (panel) was "+owned+" is "+owned)
	e.applied(4, store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{gone("a.example")}, DryRun: true})
	last = e.told(last)
	e.must(e.ReleaseDomain(e.by("socket"), "default", "a.example", true))
	e.must(e.ReleaseDomain(e.by("socket"), "default", "a.example", true))
	e.must(e.ReleaseDomain(e.by("socket"), "default", "a.example", false))
	e.is(e.ReleaseDomain(e.ctx(), "other", "a.example", true), store.ErrNotFound)
	e.told(last, `default/a.example domain.released by socket was {"released":false} is {"released":true}`,
		`default/a.example domain.released by socket was {"released":true} is {"released":false}`)
}

func eventsClaims(e *env) {
	e.tenants("a", "b")
	last := e.newest()
	const wished = `{"mxset":"eu","publish":"zone","account":"own"}`
	const has = `{"mxset":"eu","publish":"zone","account":"own","owner":"api"}`
	e.apply(1, want(1, wish("a", "x.example")), want(1, wish("a", "y.example")), want(1, wish("b", "x.example")))
	e.apply(2, want(2, wish("a", "x.example")), store.DomainChange{Domain: wish("a", "y.example"), Remove: true})
	last = e.told(last,
		"a/x.example claim.made by stspub is "+wished, "a/y.example claim.made by stspub is "+wished,
		"b/x.example claim.made by stspub is "+wished, "a/y.example claim.withdrawn by stspub was "+wished)
	e.apply(3, proven(wish("a", "x.example")))
	e.told(last, "a/x.example domain.added by stspub is "+has)
	// The old tenant lets it go, and neither is told who the other is.
	e.must(e.ReleaseDomain(e.ctx(), "a", "x.example", true))
	last = e.newest()
	e.apply(4, proven(wish("b", "x.example")))
	told := e.events(store.EventFilter{All: true}, last)
	e.told(last, "a/x.example domain.moved by stspub was "+has, "b/x.example domain.moved by stspub is "+has)
	for _, v := range told {
		if strings.Contains(v.Text+v.Actor, `"a"`) || strings.Contains(v.Text+v.Actor, `"b"`) {
			e.Errorf("event %+v names a tenant", v)
		}
	}
	e.apply(5, want(5, wish("a", "z.example")))
	last = e.newest()
	n, err := e.ExpireClaims(e.ctx(), at(20_000))
	e.must(err)
	e.equal("expired", n, 1)
	e.told(last, "a/z.example claim.expired by stspub was "+wished)
}

func eventsOwned(e *env) {
	ctx := e.by("socket")
	m := apiSet("t", "eu")
	putSet := func() {
		e.Helper()
		_, err := e.PutMXSet(ctx, m, nil, at(1))
		e.must(err)
	}
	putSet()
	putSet()
	m.Rollout = time.Hour
	putSet()
	e.must(e.DeleteMXSet(ctx, "t", "eu", store.OwnerAPI, nil))
	kinds := func(events []store.Event) (all []string) {
		for _, v := range events {
			all = append(all, v.Kind+" by "+v.Actor)
		}
		return all
	}
	e.equal("events", kinds(e.all()), []string{"mxset.added by socket", "mxset.changed by socket", "mxset.removed by socket"})
	if got := string(e.all()[1].After); !strings.Contains(got, `"rollout":3600`) {
		e.Errorf("After is %s, want the roll-out in it", got)
	}

	last := e.newest()
	a := store.Account{Tenant: "t", Name: "main", Provider: "desec", Settings: []byte(`{"api_token":"geheim-1"}`)}
	putAccount := func(settings string) {
		e.Helper()
		a.Settings = []byte(settings)
		e.must(e.PutAccount(ctx, a, ""))
	}
	putAccount(`{"api_token":"geheim-1"}`)
	putAccount(`{"api_token":"geheim-1"}`)
	putAccount(`{"api_token":"geheim-2"}`)
	a.Provider = "ovh"
	putAccount(`{"api_token":"geheim-2"}`)
	e.must(e.DeleteAccount(ctx, "t", "main", ""))
	e.is(e.DeleteAccount(ctx, "t", "main", ""), store.ErrNotFound)
	for _, v := range e.all() {
		if strings.Contains(fmt.Sprintf("%s %s %s", v.Text, v.Before, v.After), "geheim") {
			e.Errorf("event %+v has a secret", v)
		}
	}
	e.told(last,
		`t/main account.added by socket is {"provider":"desec"}`,
		`t/main account.changed by socket was {"provider":"desec"} is {"provider":"desec"}`,
		`t/main account.changed by socket was {"provider":"desec"} is {"provider":"desec"}`,
		`t/main account.changed by socket was {"provider":"desec"} is {"provider":"ovh"}`,
		`t/main account.removed by socket was {"provider":"ovh"}`)
}

func eventsTenancy(e *env) {
	e.tenant("acme")
	e.must(e.limit(e.by("socket"), "acme", store.Limits{Domains: 10}, ""))
	e.must(e.limit(e.by("socket"), "acme", store.Limits{Orders: 7}, ""))
	e.is(e.limit(e.ctx(), "nobody", store.Limits{}, ""), store.ErrNotFound)
	last := e.told(0, `/acme tenant.added by stspub is {"domains":10}`,
		`/acme tenant.changed by socket was {"domains":10} is {"orders_a_day":7}`)
	e.token("k1", "acme", 1)
	e.token("k2", "", 1)
	e.must(e.RevokeToken(e.by("socket"), "k1", at(2)))
	e.must(e.RevokeToken(e.by("socket"), "k1", at(3)))
	e.must(e.UseToken(e.ctx(), "k2", at(4)))
	e.is(e.RevokeToken(e.ctx(), "k3", at(3)), store.ErrNotFound)
	until := at(900).Format(time.RFC3339Nano)
	shown := fmt.Sprintf(`{"role":"read","label":"panel ü","expires":%q}`, until)
	last = e.told(last, "acme/k1 token.added by stspub is "+shown, "/k2 token.added by stspub is "+shown,
		"acme/k1 token.revoked by socket was "+shown)
	for _, v := range e.all() {
		if strings.Contains(fmt.Sprintf("%s %s %s", v.Text, v.Before, v.After), "hash of") {
			e.Errorf("event %+v has a hash", v)
		}
	}
	e.must(e.DeleteTenant(e.by("socket"), "acme", "", at(5)))
	e.is(e.DeleteTenant(e.ctx(), "acme", "", at(5)), store.ErrNotFound)
	e.told(last, "/acme tenant.removed by socket")
}

func eventsSteps(e *env) {
	e.start("a.example")
	last := e.newest()
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Step, s.Reason = "dns", "waiting for: CNAME\nof it" })
	e.equal("text", e.all()[len(e.all())-1].Text, "dns: waiting for: CNAME of it")
	e.equal("time", e.all()[len(e.all())-1].At, at(1))
	e.save(&d, 2, func(s *store.State) { s.Reason = "waiting for something else" })
	e.save(&d, 3, func(s *store.State) { s.Served, s.Dirty = "policy", true })
	e.save(&d, 4, func(s *store.State) { s.Step, s.Reason, s.ID = "live", "", "id1" })
	stale := d
	e.save(&d, 5, func(s *store.State) { s.Promoted = at(5) })
	stale.State.Step = "dns"
	e.is(e.Save(e.ctx(), &stale, at(6)), store.ErrStale)
	e.told(last,
		`default/a.example domain.step by stspub is {"step":"dns","reason":"waiting for: CNAME\nof it"}`,
		`default/a.example domain.step by stspub was {"step":"dns"} is {"step":"live","id":"id1"}`,
		`default/a.example domain.promoted by stspub`)
}

// finding is one since minute i.
func finding(code string, fault bool, i int) store.Finding {
	return store.Finding{Code: code, Fault: fault, Since: at(i), Text: code + " is wrong"}
}

func eventsFaults(e *env) {
	e.start("a.example")
	last := e.newest()
	d := e.domain("a.example")
	find := func(i int, all ...store.Finding) {
		e.Helper()
		e.save(&d, i, func(s *store.State) { s.Findings = all })
	}
	shown := func(f store.Finding) string {
		text, err := json.Marshal(f)
		e.must(err)
		return string(text)
	}
	one, two, held := finding("one", true, 1), finding("two", false, 1), finding(store.CodePromotion, true, 3)
	find(1, one, two)
	find(2, one, two)
	one.Text = "one is wrong in other words"
	find(3, one, held)
	two.Fault = true
	find(4, two, finding(store.CodePromotion, false, 4))
	find(5)
	one.Text = "one is wrong"
	e.told(last,
		"default/a.example domain.fault by stspub is "+shown(one),
		"default/a.example domain.promotion-held by stspub is "+shown(held),
		"default/a.example domain.fault-cleared by stspub was "+strings.Replace(shown(one), "is wrong", "is wrong in other words", 1),
		"default/a.example domain.fault-cleared by stspub was "+shown(held),
		"default/a.example domain.fault by stspub is "+shown(two),
		"default/a.example domain.fault-cleared by stspub was "+shown(two))
}

func eventsCommands(e *env) {
	e.start("a.example")
	last := e.newest()
	d := e.domain("a.example")
	for i, f := range []func(*store.Domain){
		func(d *store.Domain) { d.Adopt = true },
		func(d *store.Domain) { d.State.Pinned = true },
		func(d *store.Domain) { d.State.Pinned, d.State.Promoted = false, at(2) },
		func(d *store.Domain) { d.State.Forced = "policy" },
		func(d *store.Domain) { d.State.Forced = "another" },
		func(d *store.Domain) { d.State.Forced = "" },
		func(d *store.Domain) { d.State.Expelled = true },
		func(d *store.Domain) { d.State.Expelled = false },
	} {
		f(&d)
		e.must(e.Save(e.by("socket"), &d, at(i)))
	}
	e.told(last,
		`default/a.example domain.command by socket is {"command":"adopt"}`,
		`default/a.example domain.command by socket is {"command":"demote"}`,
		`default/a.example domain.promoted by socket`,
		`default/a.example domain.command by socket is {"command":"force"}`,
		`default/a.example domain.command by socket is {"command":"force"}`,
		`default/a.example domain.command by socket is {"command":"expel"}`)
}

func eventsCertificates(e *env) {
	e.start("a.example")
	last := e.newest()
	c := certificate("mta-sts.a.example")
	service := certificate("mta-sts.hoster.example")
	o := store.Order{
		Name: c.Name, Failures: 1, Tried: at(1), Since: at(1), Problem: "dns: no\nsuch name", Advice: "mend it", Authority: "le",
	}
	e.must(e.SaveOrder(e.ctx(), o))
	o.Failures, o.Problem = 2, "dns: no such name, again"
	e.must(e.SaveOrder(e.ctx(), o))
	away := store.Order{Name: "mta-sts.b.example", Failures: 1, Tried: at(1), Since: at(1), Problem: "the CA is away", Outage: true}
	e.must(e.SaveOrder(e.ctx(), away))
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: service.Name, Tried: at(1), Next: at(5)}))
	e.must(e.SaveCertificate(e.ctx(), c))
	e.must(e.SaveCertificate(e.ctx(), c))
	e.must(e.SaveCertificate(e.ctx(), service))
	events := e.events(store.EventFilter{All: true}, last)
	shown := func(c store.Certificate) string {
		return fmt.Sprintf(`{"authority":%q,"not_after":%q}`, c.Authority, c.NotAfter.Format(time.RFC3339))
	}
	last = e.told(last,
		`default/a.example certificate.failing by stspub is {"problem":"dns: no\nsuch name","advice":"mend it","authority":"le"}`,
		"default/a.example certificate.issued by stspub is "+shown(c),
		"/mta-sts.hoster.example certificate.issued by stspub is "+shown(service))
	e.equal("the CA's words", events[0].Text, "dns: no such name (mend it)")
	if got := events[1].Text; !strings.Contains(got, "failed since "+at(1).Format(time.DateTime)) {
		e.Errorf("text is %q, want since when orders failed", got)
	}
	o.Failures = 1
	e.must(e.SaveOrder(e.ctx(), o))
	if got := e.events(store.EventFilter{All: true}, last); len(got) != 1 || got[0].Kind != store.KindFailing {
		e.Errorf("events of a failure after a certificate are %+v, want one", got)
	}
	renewed := certificate(c.Name)
	renewed.Chain = [][]byte{{9}}
	last = e.newest()
	e.must(e.SaveCertificate(e.ctx(), renewed))
	e.told(last, "default/a.example certificate.issued by stspub is "+shown(renewed))
}

func eventsGone(e *env) {
	e.start("a.example")
	last := e.newest()
	e.must(e.Beat(e.ctx(), store.Node{ID: "n1"}))
	e.must(e.Deregister(e.by("socket"), "n1"))
	e.must(e.Deregister(e.by("socket"), "n1"))
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	e.told(last, "/n1 node.gone by socket", "default/a.example domain.drained by stspub was "+shownZone)
}

// eventsNone has nothing told of what no operator asked for and nobody has to hear of.
func eventsNone(e *env) {
	e.start("a.example")
	last := e.newest()
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Failures, s.Checked, s.Reason = 3, at(1), "x" })
	e.claim(10, time.Hour, 1)
	e.must(e.Wake(e.ctx(), "", at(11)))
	e.must(e.SetValue(e.ctx(), "k", []byte("v")))
	e.must(e.Beat(e.ctx(), store.Node{ID: "n"}))
	e.must(e.AddForeign(e.ctx(), "a.example", "p", at(1)))
	e.start("a.example")
	e.told(last)
}

// eventsShared turns the text of a shared record: it tells for those that are attached.
func eventsShared(e *env) {
	e.shared("a.example", "b.example")
	record := e.domain("*.eu.s.default.sts.example")
	last := e.newest()
	e.save(&record, 5, func(s *store.State) { s.Served, s.Dirty, s.Step, s.Promoted = "another policy", true, "body", at(5) })
	name := string(record.Name)
	for _, v := range e.events(store.EventFilter{All: true}, last) {
		if v.Name != name || v.Tenant != record.Tenant {
			e.Errorf("event %+v is not of %q", v, name)
		}
	}
	e.equal("events", len(e.events(store.EventFilter{All: true, Name: name}, last)), 2)
	if n := policygen.Name(name); e.domain(n).State.Served != e.domain("a.example").State.Served {
		e.Error("the attached domain did not follow")
	}
}

func eventsMany(e *env) {
	const n = 2500
	domains := make([]store.Domain, n)
	for i := range domains {
		domains[i] = domain(policygen.Name(fmt.Sprintf("d%05d.example", i)))
	}
	e.declare(file(domains...), at(0))
	got := e.events(store.EventFilter{Tenant: "default", Kinds: []string{store.KindDomainAdded}}, 0)
	if len(got) != n {
		e.Fatalf("%d events, want %d", len(got), n)
	}
	for i, v := range got {
		if v.Name != string(domains[i].Name) || i > 0 && v.Seq != got[i-1].Seq+1 {
			e.Fatalf("event %d is %+v", i, v)
		}
	}
	if last := e.lastChange(); last < got[n-1].Seq {
		e.Errorf("LastChange is %d, and the last event %d", last, got[n-1].Seq)
	}
}
