package publish_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
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

// startClaims starts a reconciler that looks for proofs of claims at a server, and opens the accounts of tenants.
func startClaims(t *testing.T, st store.Store, at *labtest.DNSServer) *publish.Reconciler {
	t.Helper()
	w := newWorld(t)
	w.snapshot = publish.NewSnapshot()
	resolver := &sender.Resolver{Stub: map[string][]string{".": {at.Addr}}}
	outside := &publish.Outside{
		Client: &sender.Client{Resolver: resolver}, Observer: &dnsupdate.Observer{Resolver: resolver}, Hostname: "sts.provider.test", Values: st,
	}
	conf := configuration()
	rec := publish.New(publish.Config{
		Store: st, Snapshot: w.snapshot, Certs: w, Log: slog.New(slog.DiscardHandler), Sight: w, Prover: outside,
		Load:     func() (*config.Config, []string, error) { return conf, nil, nil },
		Accepted: func(context.Context, *config.Config) error { return nil },
		OpenAccount: func(tenant string, a config.Account) (dnsupdate.Account, error) {
			if tenant == publish.Tenant {
				return w.open(tenant, a)
			}
			return dnsupdate.Open(a, dnsupdate.Options{})
		},
		CheckAccount: func(ctx context.Context, _ string, a config.Account, zone string) error {
			return dnsupdate.Check(ctx, a, zone, dnsupdate.Options{})
		},
	})
	if _, err := rec.Start(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	running(t, rec)
	return rec
}

// TestClaimsAtRealServers has the customers' zones at a Knot, which the rest of DNS leads to, and one of them once more at
// a BIND of somebody who would like to have it.
func TestClaimsAtRealServers(t *testing.T) {
	t.Parallel()
	real := labtest.StartKnot(t, lab.Zone{Name: "provider.test", Text: "*.sts A 127.0.0.1\nsts A 127.0.0.1"},
		lab.Zone{Name: "cname.test"}, lab.Zone{Name: "addr.test"}, lab.Zone{Name: "text.test"}, lab.Zone{Name: "zone.test"},
		lab.Zone{Name: "stolen.test"})
	rogue := labtest.StartBIND(t, lab.Zone{Name: "stolen.test"})
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	rec, ctx := startClaims(t, st, real), t.Context()
	if _, err := rec.PutMXSet(ctx, "b", own("eu", "mx.b.test"), ""); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]*labtest.DNSServer{"real": real, "rogue": rogue} {
		zone := map[string]string{"real": "zone.test", "rogue": "stolen.test"}[name]
		if _, said, err := rec.PutAccount(ctx, "b", at.Account(name), zone, ""); err != nil || !strings.Contains(said, zone) {
			t.Fatalf("PutAccount(%s): %q, %v", name, said, err)
		}
	}
	wrong := real.Account("wrong")
	wrong.Key = "d3Jvbmc="
	if _, _, err := rec.PutAccount(ctx, "b", wrong, "zone.test", ""); err == nil || strings.Contains(err.Error(), "d3Jvbmc=") {
		t.Errorf("PutAccount with a wrong key: %v", err)
	}
	if r, err := real.Query("_stspub-probe.zone.test", dns.TypeTXT); err != nil || len(r.Answer) > 0 {
		t.Errorf("the check of the account wrote: %v, %v", r, err)
	}

	zone := func(name, account string) publish.Change {
		return publish.Change{Name: name, MXSet: "eu", Publish: store.PublishZone, Account: account}
	}
	outcomes, err := rec.Apply(t.Context(), "b", []publish.Change{
		sharing("cname.test", "eu"), sharing("addr.test", "eu"), sharing("text.test", "eu"), zone("zone.test", "real"), zone("stolen.test", "rogue"),
	}, publish.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if o.Err != nil || o.Result != store.ResultClaimed {
			t.Fatalf("outcome is %+v", o)
		}
	}
	// wait has a claim looked at until it is good.
	wait := func(name policygen.Name, what string, good func(publish.Claim, bool) bool) {
		t.Helper()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(patience); ; <-tick.C {
			c, err := rec.Claim(t.Context(), "b", name)
			if good(c, err == nil) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the claim to %s is not %s: %+v, %v", name, what, c, err)
			}
		}
	}
	looked := func(c publish.Claim, there bool) bool { return there && !c.Looked.IsZero() }
	gone := func(_ publish.Claim, there bool) bool { return !there }
	wait("zone.test", "proven", gone) // its account did it
	if s, err := rec.StatusOf(t.Context(), "b", "zone.test"); err != nil || s.Tenant != "b" {
		t.Errorf("zone.test is %+v, %v", s, err)
	}
	for _, name := range []policygen.Name{"cname.test", "addr.test", "text.test", "stolen.test"} {
		wait(name, "looked at", looked)
	}
	// BIND took the challenge, and nobody is led to that BIND.
	if r, err := rogue.Query("_stspub-challenge.stolen.test", dns.TypeTXT); err != nil || len(r.Answer) != 1 {
		t.Errorf("the challenge at the other server: %v, %v", r, err)
	}
	text, err := rec.Claim(t.Context(), "b", "text.test")
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(text.Records[1], "TXT ")
	real.Set(t, "mta-sts.cname.test", "CNAME", "b.sts.provider.test.")
	real.Set(t, "mta-sts.addr.test", "A", "127.0.0.1")
	real.Set(t, "_stspub-challenge.text.test", "TXT", value)
	var before [2]publish.Claim
	for i, name := range []policygen.Name{"addr.test", "stolen.test"} {
		if before[i], err = rec.Claim(t.Context(), "b", name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []policygen.Name{"cname.test", "addr.test", "text.test", "stolen.test"} {
		if err := rec.LookAtClaim(t.Context(), "b", name); err != nil {
			t.Fatal(err)
		}
	}
	wait("cname.test", "proven", gone)
	wait("text.test", "proven", gone)
	again := func(i int) func(publish.Claim, bool) bool {
		return func(c publish.Claim, there bool) bool { return there && c.Looked.After(before[i].Looked) }
	}
	wait("addr.test", "held for its address", again(0))
	wait("stolen.test", "held", again(1))
	if c, err := rec.Claim(t.Context(), "b", "addr.test"); err != nil || !strings.Contains(c.Reason, "addresses [inside address], which prove nothing") {
		t.Errorf("addr.test: %+v, %v", c, err)
	}
	for _, name := range []policygen.Name{"addr.test", "stolen.test"} {
		if _, err := st.Domain(t.Context(), name); err == nil {
			t.Errorf("%s is published", name)
		}
	}
	wait("zone.test", "tidied up after", func(publish.Claim, bool) bool {
		r, err := real.Query("_stspub-challenge.zone.test", dns.TypeTXT)
		return err == nil && len(r.Answer) == 0
	})
}
