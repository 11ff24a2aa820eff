package publish_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

// TestMovedDomainComesHome has a domain prove that it is another tenant's now. It is published where it was until the CNAME
// leads to the new tenant's place, and moves over then; neither tenant is shown what was the other's.
func TestMovedDomainComesHome(t *testing.T) {
	alias := func(name, mxset string) publish.Change {
		c := sharing(name, mxset)
		c.Publish, c.TLSRPT = "alias", []string{"mailto:tls@example.net"}
		return c
	}
	for how, want := range map[string]func(name, mxset string) publish.Change{"shared": sharing, "alias": alias} {
		t.Run(how, func(t *testing.T) {
			w, seen := claimsWorld(t)
			seen.ok["acme.sts.provider.test"], seen.ok["c.sts.provider.test"] = true, true
			run(t, w, func(w *world) { moved(w, want) })
		})
	}
}

func moved(w *world, want func(name, mxset string) publish.Change) {
	const name = policygen.Name("a.example")
	w.putMXSet("acme", own("secretset", "mx.acme.test"))
	w.putMXSet("c", own("eu", "mx.c.test"))
	lead := func(tenant string) string { // the customer sets what he is told to
		s, err := w.rec.StatusOf(w.ctx, tenant, name)
		if err != nil {
			w.t.Fatal(err)
		}
		_, to, found := strings.Cut(s.Records[1], "_mta-sts.a.example. 300 IN CNAME ")
		if to = strings.TrimSuffix(to, "."); !found || strings.Contains(s.Records[1], ";") {
			w.t.Fatalf("records of %s are %q", tenant, s.Records)
		}
		w.change(func() { w.cname[name] = to })
		return to
	}
	w.change(func() { w.cname[name] = "nowhere.test" })
	w.applyAs("acme", publish.ApplyOptions{}, want("a.example", "secretset"), sharing("b.example", "secretset"))
	w.applyAs("c", publish.ApplyOptions{}, sharing("c.example", "eu"))
	w.reach(name, publish.StepDelegation, time.Hour)
	before := lead("acme")
	w.reach(name, publish.StepLive, time.Hour)
	w.applyAs("acme", publish.ApplyOptions{}, publish.Change{Name: "a.example", Remove: true})
	w.pass(time.Hour)
	w.applyAs("c", publish.ApplyOptions{}, want("a.example", "eu"))
	w.pass(3 * time.Hour)

	private := func(when string) publish.Status {
		w.t.Helper()
		s, err := w.rec.StatusOf(w.ctx, "c", name)
		if err != nil {
			w.t.Fatal(err)
		}
		text, err := json.Marshal(s)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, no := range []string{"acme", "secretset"} {
			if strings.Contains(string(text), no) {
				w.t.Errorf("%s, the new tenant is told of %q: %s", when, no, text)
			}
		}
		return s
	}
	s := private("before its CNAME was set")
	if s.Step != publish.StepLive || !strings.Contains(s.Policy, "mx.c.test") || len(s.History) == 0 {
		w.t.Errorf("moved, it is %+v", s)
	}
	if there := w.at(before); !slices.Equal(there, []string{policygen.RecordText(s.ID)}) {
		w.t.Errorf("where the CNAME leads stands %q, want id %s", there, s.ID)
	}
	w.change(func() { w.cname[name] = "nowhere.test" }) // and is not told of the place before
	w.pass(3 * time.Hour)
	if s := private("with a wrong CNAME"); s.Step != publish.StepDelegation || !strings.Contains(s.Reason, s.Record) {
		w.t.Errorf("with a wrong CNAME it is at %s: %s", s.Step, s.Reason)
	}
	w.change(func() { w.cname[name] = before })
	w.reach(name, publish.StepLive, 3*time.Hour)

	after := lead("c")
	if !strings.HasSuffix(after, ".c.a.provider.test") {
		w.t.Errorf("the new place is %s", after)
	}
	w.pass(3 * time.Hour)
	s = private("at home")
	if s.Step != publish.StepLive || s.Record != after {
		w.t.Errorf("at home, it is %+v", s)
	}
	if there := w.at(after); !slices.Equal(there, []string{policygen.RecordText(s.ID)}) {
		w.t.Errorf("at its own place stands %q, want id %s", there, s.ID)
	}
	if there := w.at(before); len(there) > 0 {
		w.t.Errorf("at the place before stands %q", there)
	}
	if want("", "").Publish != "shared" {
		for tenant, there := range map[string][]string{"acme": nil, "c": {"v=TLSRPTv1; rua=mailto:tls@example.net"}} {
			if got := w.at(name.Label() + ".t." + tenant + ".a.provider.test"); !slices.Equal(got, there) {
				w.t.Errorf("at the place of tenant %s for TLSRPT stands %q, want %q", tenant, got, there)
			}
		}
		return
	}
	w.pass(72 * time.Hour) // until others gather
	if s := private("with the others"); !s.Detached.IsZero() || len(w.at(after)) > 0 {
		w.t.Errorf("it does not join the shared record: %+v, %q", s, w.at(after))
	}
}
