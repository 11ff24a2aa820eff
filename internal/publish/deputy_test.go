package publish_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// TestAccountsOfTheAPIAreSigned: a primary of the operator takes updates from this machine without a key. A tenant's account
// leads there, and must not have us write the proof of his claim into a zone that is another's.
func TestAccountsOfTheAPIAreSigned(t *testing.T) {
	t.Parallel()
	server := labtest.StartTrustingBIND(t, lab.Zone{Name: "provider.test", Text: "*.sts A 127.0.0.1\nsts A 127.0.0.1"},
		lab.Zone{Name: "victim.test", Text: "@ MX 10 mx.victim.test.\nmta-sts A 192.0.2.7"})
	m := new(dns.Msg).SetUpdate("victim.test.")
	m.Insert([]dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "open.victim.test.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"x"}}})
	if r, _, err := new(dns.Client).Exchange(m, server.Addr); err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("the server takes no update without a key: %v, %v", r, err)
	}
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	settings, err := json.Marshal(map[string]string{"server": server.Addr})
	if err != nil {
		t.Fatal(err)
	}
	old := store.Account{Tenant: "evil", Name: "old", Provider: "rfc2136", Settings: settings}
	if err := st.PutAccount(t.Context(), old, ""); err != nil { // as an earlier version took it
		t.Fatal(err)
	}
	rec := startClaims(t, st, server)
	if why := rec.Faults()["account evil/old"]; !strings.Contains(why, "put key_name and key") {
		t.Errorf("fault of the account that is there: %q", why)
	}
	for _, tenant := range []string{"evil", publish.Tenant} {
		a, err := config.AccountFrom("mine", "rfc2136", map[string]string{"server": server.Addr})
		if err != nil {
			t.Fatal(err)
		}
		var bad *publish.InvalidError
		if _, _, err := rec.PutAccount(t.Context(), tenant, a, "", ""); !errors.As(err, &bad) || bad.Field != "key_name" {
			t.Errorf("PutAccount of tenant %s: %v", tenant, err)
		}
	}
	if _, err := rec.PutMXSet(t.Context(), "evil", own("eu", "mx.evil.test"), ""); err != nil {
		t.Fatal(err)
	}
	victim := publish.Change{Name: "victim.test", MXSet: "eu", Publish: store.PublishZone, Account: "old"}
	if _, err := rec.Apply(t.Context(), "evil", []publish.Change{victim}, publish.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		c, err := rec.Claim(t.Context(), "evil", "victim.test")
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the claim is %+v, %v", c, err)
		}
		if !c.Looked.IsZero() {
			if !strings.Contains(c.Reason, "it is not written by account old") || !strings.Contains(c.Reason, "put key_name and key") {
				t.Errorf("reason of the claim: %s", c.Reason)
			}
			break
		}
	}
	if r, err := server.Query("_stspub-challenge.victim.test", dns.TypeTXT); err != nil || len(r.Answer) > 0 {
		t.Errorf("the challenge is in the zone: %v, %v", r, err)
	}
}
