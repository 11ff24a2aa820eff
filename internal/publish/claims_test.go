package publish

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func TestJudgeClaim(t *testing.T) {
	t.Parallel()
	p := proofOf("sts.provider.test", store.DomainClaim{Domain: store.Domain{Name: "a.example", Tenant: "b"}, Token: "T"})
	if want := (Proof{"mta-sts.a.example", "b.sts.provider.test", "_stspub-challenge.a.example", "stspub-claim=T"}); p != want {
		t.Fatalf("proof is %+v, want %+v", p, want)
	}
	chain := func(names ...string) Led { return Led{Chain: names} }
	ours, theirs, other := chain("b.sts.provider.test"), chain("c.sts.provider.test"), chain("elsewhere.test")
	addr := Led{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	const zone, shared = store.PublishZone, store.PublishShared
	good, bad := []string{"spf", "stspub-claim=T"}, []string{"stspub-claim=t", "stspub-claim=T ", "stspub-claim=TT"}
	for _, c := range []struct {
		name    string
		seen    Proven
		publish string
		wrote   bool
		want    string // "proven", "write", or the end of the reason
	}{
		{"nothing looked up", Proven{}, shared, false, "last seen no such record"},
		{"nothing there", Proven{Hosts: []Led{{}, {}}, Texts: [][]string{nil, nil}}, shared, false, "last seen no such record"},
		{"CNAME", Proven{Hosts: []Led{ours, ours}}, shared, false, "proven"},
		{"CNAME and no answer about the TXT", Proven{Hosts: []Led{ours}, TextErr: "time-out"}, shared, false, "proven"},
		{"longer chain", Proven{Hosts: []Led{chain("x.customer.test", "b.sts.provider.test", "edge.provider.test")}}, shared, false, "proven"},
		{"target is itself a CNAME to the service", Proven{Hosts: []Led{chain("b.sts.provider.test", "sts.provider.test")}}, shared, false, "proven"},
		{"chain by another tenant's target", Proven{Hosts: []Led{chain("c.sts.provider.test", "b.sts.provider.test")}}, shared, false, "last seen CNAME c.sts.provider.test"},
		{"chain by the service's name", Proven{Hosts: []Led{chain("sts.provider.test", "b.sts.provider.test")}}, shared, false, "last seen CNAME sts.provider.test"},
		{"another tenant's", Proven{Hosts: []Led{theirs}}, shared, false, "last seen CNAME c.sts.provider.test"},
		{"below the target", Proven{Hosts: []Led{chain("x.b.sts.provider.test")}}, shared, false, "last seen CNAME x.b.sts.provider.test"},
		{"ends like the target", Proven{Hosts: []Led{chain("xb.sts.provider.test")}}, shared, false, "last seen CNAME xb.sts.provider.test"},
		{"not at every server", Proven{Hosts: []Led{ours, other}}, shared, false, "not every name server answers the CNAME"},
		{"not every server answers", Proven{Hosts: []Led{ours}, HostErr: "no answer (ns2)"}, shared, false, "not every name server answers the CNAME; no answer (ns2)"},
		{"address", Proven{Hosts: []Led{addr}}, shared, false, "last seen addresses 192.0.2.1, which prove nothing: all tenants have the same"},
		{"TXT", Proven{Hosts: []Led{other}, Texts: [][]string{good, good}}, shared, false, "proven"},
		{"TXT and no answer about the host", Proven{HostErr: "time-out", Texts: [][]string{good}}, shared, false, "proven"},
		{"TXT not at every server", Proven{Hosts: []Led{other}, Texts: [][]string{good, bad}}, shared, false, "not every name server answers the TXT"},
		{"TXT and a silent server", Proven{Texts: [][]string{good}, TextErr: "no answer (ns2)"}, shared, false, "not every name server answers the TXT; no answer (ns2)"},
		{"another token", Proven{Texts: [][]string{bad, bad}}, shared, false, "last seen no such record"},
		{"half a CNAME and half a TXT", Proven{Hosts: []Led{ours, other}, Texts: [][]string{good, nil}}, shared, false, "not every name server answers the CNAME"},
		{"zone to write in", Proven{Hosts: []Led{other}, Zone: "a.example"}, zone, false, "write"},
		{"zone, written before", Proven{Hosts: []Led{other}, Zone: "a.example"}, zone, true, "last seen CNAME elsewhere.test"},
		{"zone that is not found", Proven{HostErr: "SERVFAIL"}, zone, false, "last seen no such record; SERVFAIL"},
		{"zone, and it is there", Proven{Texts: [][]string{good}, Zone: "a.example"}, zone, false, "proven"},
		{"zone, and half of it is there", Proven{Texts: [][]string{good, nil}, Zone: "a.example"}, zone, false, "not every name server answers the TXT"},
		{"zone, and a CNAME", Proven{Hosts: []Led{ours}, Zone: "a.example"}, zone, false, "proven"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := judgeClaim(p, c.seen, c.publish, c.wrote)
			got := v.reason
			switch {
			case v.proven && !v.write && v.reason == "":
				got = "proven"
			case v.write && !v.proven && v.reason == "":
				got = "write"
			}
			if !strings.HasSuffix(got, c.want) || len(c.want) > len("proven") && !strings.HasPrefix(got, "waiting for: CNAME mta-sts.a.example → b.sts.provider.test, or ") {
				t.Errorf("judgeClaim = %+v, want %s", v, c.want)
			}
		})
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	for tenant, want := range map[string]string{"": "sts.test", "default": "sts.test", "b": "b.sts.test"} {
		if got := Target("sts.test", tenant); got != want {
			t.Errorf("Target(%q) = %s, want %s", tenant, got, want)
		}
		d := store.Domain{Name: "a.example", Tenant: tenant, Publish: store.PublishManual}
		if got := Records(d, "sts.test", ""); got[0] != "mta-sts.a.example. 300 IN CNAME "+want+"." {
			t.Errorf("Records of tenant %q: %q", tenant, got)
		}
	}
	own := store.Domain{Name: policygen.Name("test"), Tenant: "b", Publish: store.PublishManual}
	if got := Records(own, "mta-sts.test", ""); !strings.HasPrefix(got[0], "; mta-sts.test. is this server's own name") {
		t.Errorf("Records of the service's own domain: %q", got)
	}
}
