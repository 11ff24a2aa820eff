package e2e_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/publish"
)

// TestCloudflareFailures has the API fail in the middle of a change, in each way that it is known to. What passes by
// itself is no fault; in no case a sender sees anything but one good record.
func TestCloudflareFailures(t *testing.T) {
	t.Parallel()
	failures := []struct {
		name  string
		fault labtest.CloudflareFault
		why   string // it says, after the record and the account
		human bool
	}{
		{
			"rate limit",
			labtest.CloudflareFault{Status: http.StatusTooManyRequests, RetryAfter: "61", Body: "slow down"},
			"the API says HTTP 429 Too Many Requests; asking again in 1m1s", false,
		},
		{
			"gateway in HTML",
			labtest.CloudflareFault{Status: http.StatusBadGateway, Body: "<html>Bad gateway</html>"},
			"the API says HTTP 502 Bad Gateway; trying again later", false,
		},
		{
			"forbidden",
			labtest.CloudflareFault{Times: 4, Status: http.StatusForbidden, Body: `{"success":false,"errors":[{"code":10000,"message":"Authentication error"}]}`},
			`the API says HTTP 403 Forbidden, "Authentication error" (10000); give the API token the permissions Zone:Read and DNS:Edit for this zone, or replace it`, true,
		},
		{"lost answer", labtest.CloudflareFault{Method: http.MethodPatch, Cut: true}, "EOF; trying again later", false},
	}
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "Cloudflare")
			w.settings.domains = []string{zoned}
			w.configure()
			watch := w.watch(zoned)
			w.start()
			first := w.policy("enforce", "5")
			before := w.live(zoned, "", first).ID
			w.holder.(cloudflare).Fail(f.fault)
			w.settings.mx = append(w.settings.mx, "mx2.provider.test")
			w.configure()
			w.hangup()
			s := w.step(zoned, publish.StepTXT)
			start := fmt.Sprintf("TXT %q in zone %q by account \"main\" (cloudflare): ", "_mta-sts."+zoned, zoned)
			if !strings.Contains(s.Reason, start) || !strings.HasSuffix(s.Reason, f.why) || s.Fault != f.human {
				t.Errorf("fault %t, reason %q, want %t, %q", s.Fault, s.Reason, f.human, start+f.why)
			}
			second := w.policy("enforce", "5")
			w.until("new id", 2*patience, func() (bool, string) {
				s := w.status(zoned)
				return s.Step == publish.StepLive && s.ID != before, s.Step + " " + s.Reason
			})
			watch.want(first, second)
		})
	}
}

// TestWrongTSIGKey begins with a key that the server knows by another secret.
func TestWrongTSIGKey(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"BIND", "Knot"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind)
			w.settings.domains = []string{zoned}
			w.configure()
			w.file("secret", base64.StdEncoding.EncodeToString([]byte("not the secret of this server...")))
			w.start()
			s := w.step(zoned, publish.StepTXT)
			want := fmt.Sprintf("read TXT \"_mta-sts.zoned.test\" in zone \"zoned.test\" by account \"main\" (rfc2136): server %s has another "+
				"secret for the key \"stspub\"; compare key_name, key_algorithm and key with the server's, and the clocks", w.api.addr)
			if s.Reason != want || !s.Fault {
				t.Errorf("fault %t, reason %q, want %q as a fault", s.Fault, s.Reason, want)
			}
			for name, content := range w.holder.secrets() {
				w.file(name, content)
			}
			w.must("reload") // whoever has mended it need not wait
			w.live(zoned, "", w.policy("enforce", "5"))
			if raw := w.daemon.said(); strings.Contains(raw, w.holder.(primary).Secret) {
				t.Error("the secret is in the log")
			}
		})
	}
}

// TestCNAMEInTheWay finds a CNAME where the record shall be.
func TestCNAMEInTheWay(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.set("_mta-sts."+zoned, "CNAME", "elsewhere.zoned.test.")
		w.settings.domains = []string{zoned}
		w.configure()
		w.start()
		s := w.step(zoned, publish.StepTXT)
		want := "; delete the CNAME, or publish the domain as alias"
		if !strings.HasSuffix(s.Reason, want) || !strings.Contains(s.Reason, "elsewhere.zoned.test") || !s.Fault {
			t.Errorf("fault %t, reason %q, want %q as a fault", s.Fault, s.Reason, want)
		}
		w.set("_mta-sts."+zoned, "CNAME")
		w.live(zoned, "", w.policy("enforce", "5"))
	})
}

// TestUnreachableAuthority starts the daemon while the ACME directory is away: what has a certificate is served.
func TestUnreachableAuthority(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "BIND")
	w.publishAll()
	w.stop()
	w.acme.set(shut)
	w.start()
	for _, domain := range []string{zoned, shop} {
		if body, err := fetch(w.sender(domain), domain); err != nil || body != w.policy("enforce", "5") {
			t.Errorf("%s: %q, %v, want its policy", domain, body, err)
		}
	}
	// A new domain waits, and says for whom.
	const late = "late.zoned.test"
	w.set("mta-sts."+late, "A", w.ip)
	w.set(late, "MX", "10 mx1.provider.test.")
	w.settings.domains = append(w.settings.domains, late)
	w.configure()
	w.must("reload")
	s := w.await(late, "waiting for its certificate", func(s publish.Status) bool { return s.Step == publish.StepCert && s.Fault })
	if !strings.HasPrefix(s.Reason, "no certificate for mta-sts.late.zoned.test: ") || !strings.Contains(s.Reason, w.acme.addr) || !strings.Contains(s.Reason, "; next try at ") {
		t.Errorf("reason %q, want the directory and the next try in it", s.Reason)
	}
	for _, domain := range []string{zoned, shop} {
		if s := w.status(domain); s.Step != publish.StepLive || s.Fault {
			t.Errorf("%s: step %s, fault %t, %q; want live without fault", domain, s.Step, s.Fault, s.Reason)
		}
	}
}

// TestHeldChange leaves an MX out that a domain's DNS names. A reload refuses that; a start, which waits for no DNS, holds
// it for that domain.
func TestHeldChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Knot")
	w.set(shop, "MX", "10 mx9.provider.test.")
	w.settings.mx = []string{"mx1.provider.test", "mx9.provider.test"}
	w.configure()
	zonedID, shopID := w.publishAll()
	old := w.policy("enforce", "5")
	w.settings.mx = []string{"mx1.provider.test"}
	w.configure()
	const refused = "senders would refuse the mail of 1 domain (shop.provider.test): MX in DNS are not covered by the new policy"
	out, errs, code := w.stspub("plan")
	hash := regexp.MustCompile(`stspub reload --force ([0-9a-f]{16})\n$`).FindStringSubmatch(out)
	if code != 1 || hash == nil || !strings.Contains(out, "REFUSED: "+refused+"\n") ||
		!strings.Contains(out, "stranded      shop.provider.test: MX mx9.provider.test in DNS is not covered\n") {
		t.Fatalf("stspub plan: exit code %d, %s%s", code, out, errs)
	}
	want := "stspub: reload: refused: " + refused + "; nothing is changed; look at stspub plan, and if it is meant, run: stspub reload --force " + hash[1] + "\n"
	if out, errs, code := w.stspub("reload"); code != 1 || out != "" || errs != want {
		t.Errorf("stspub reload: exit code %d, %q, %q, want 1, %q", code, out, errs, want)
	}
	w.hangup()
	w.heard(`"msg":"configuration not taken; everything stays as it was"`, hash[1])
	for domain, id := range map[string]string{zoned: zonedID, shop: shopID} {
		if s := w.status(domain); s.Policy != old || s.ID != id {
			t.Errorf("%s: policy %q, id %s, want the old ones", domain, s.Policy, s.ID)
		}
	}

	w.crash()
	w.start()
	w.live(zoned, zonedID, w.policy("enforce", "5")) // it is not concerned
	s := w.step(shop, publish.StepMX)
	want = "held: senders would refuse mail for shop.provider.test: its MX mx9.provider.test in DNS is not covered by the new policy; " +
		"add it to the MX set, remove it from DNS, or have who runs the service force the change, by the command that stspub plan prints"
	if s.Reason != want || !s.Fault || s.Policy != old || s.ID != shopID {
		t.Errorf("id %s, policy %q, fault %t, reason %q; want the old ones, and as a fault %q", s.ID, s.Policy, s.Fault, s.Reason, want)
	}
	if body, err := fetch(w.sender(shop), shop); err != nil || body != old {
		t.Errorf("served is %q, %v, want the old policy", body, err)
	}
	if _, errs, code := w.stspub("reload", "--force", hash[1]); code != 1 || !strings.Contains(errs, "is not the hash of what would be done now") {
		t.Errorf("stspub reload with the hash of a plan that is gone: exit code %d, %q", code, errs)
	}
	out = w.must("reload", "--force", w.hash())
	if !slices.Contains(strings.Split(out, "\n"), "forced: "+shop) {
		t.Errorf("stspub reload --force prints %q, want the domain in it", out)
	}
	s = w.live(shop, shopID, w.policy("enforce", "5"))
	if !s.Fault || !strings.HasPrefix(s.Reason, "senders refuse the MX mx9.provider.test of shop.provider.test") {
		t.Errorf("fault %t, reason %q; want what is wrong now as a fault", s.Fault, s.Reason)
	}
}

// hash is that of the plan for the configuration as it stands.
func (w *world) hash() string {
	w.t.Helper()
	p, err := w.admin.Plan(context.Background(), "", nil, func(int, int) {})
	if err != nil {
		w.t.Fatalf("plan: %v", err)
	}
	return p.Hash
}
