package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/publish"
)

// TestRollout takes two domains through mode testing: one goes to enforce by itself, the other is held by its MX, until an
// operator promotes it.
func TestRollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Knot")
	good := w.mx(t, lab.MXOptions{Addr: w.ip + ":0", Names: []string{"mx1.provider.test"}})
	_, port, _ := net.SplitHostPort(good.Addr)
	failing := w.mx(t, lab.MXOptions{Addr: net.JoinHostPort(loopback(t), port), Names: []string{"mx9.provider.test"}, Plain: true})
	ip, _, _ := net.SplitHostPort(failing.Addr)
	w.set("mx9.provider.test", "A", ip)
	w.set(shop, "MX", "10 mx9.provider.test.")
	w.settings.mx, w.settings.mxsetTail = []string{"mx1.provider.test", "mx9.provider.test"}, "rollout = \"6s\""
	w.settings.checkTail = fmt.Sprintf("smtp_port = %s\nallow_private = [%q]\n", port, ip)
	w.configure()
	tried, enforce := w.policy("testing", "5"), w.policy("enforce", "5")
	watchZoned, watchShop := w.watch(zoned), w.watch(shop)

	w.start()
	w.step(shop, publish.StepDelegation)
	w.delegate()
	first := w.live(zoned, "", tried)
	if !strings.HasPrefix(first.Stage, "testing ") {
		t.Errorf("stage %q in the roll-out", first.Stage)
	}
	w.live(zoned, first.ID, enforce)
	watchZoned.want(tried, enforce)

	held := w.await(shop, "held", func(s publish.Status) bool { return len(s.Findings) == 1 && s.Policy == tried })
	f := held.Findings[0]
	want := regexp.MustCompile(`^the promotion to mode enforce is held: MX mx9\.provider\.test \(mx-starttls\): .*, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC`)
	if f.Code != "promotion" || !f.Fault || f.Since.IsZero() || !want.MatchString(f.Text) {
		t.Errorf("finding %+v, want one of the promotion that matches %s", f, want)
	}
	now := held.Checked
	held = w.await(shop, "looked at after its roll-out", func(s publish.Status) bool {
		return s.Checked.After(now) && !s.Since.IsZero() && strings.HasPrefix(s.Stage, "testing until ") && s.Checked.Sub(f.Since).Seconds() > 8
	})
	if held.Policy != tried || len(held.Findings) != 1 || !held.Findings[0].Since.Equal(f.Since) {
		t.Errorf("policy %q, findings %+v when the time is over; want mode testing, held since %v", held.Policy, held.Findings, f.Since)
	}
	if got := w.must("domain", "show", shop); !strings.Contains(got, "fault promotion") || !strings.Contains(got, f.Text) {
		t.Errorf("stspub domain show prints %q, want %q", got, f.Text)
	}
	if got := w.must("domain", "list", "--faults"); !strings.Contains(got, "mx9.provider.test") || strings.Contains(got, zoned) {
		t.Errorf("stspub domain list --faults prints %q, want %s alone, with its MX", got, shop)
	}
	if got, want := w.must("domain", "promote", shop), shop+" goes to mode enforce\n"; got != want {
		t.Errorf("stspub domain promote prints %q, want %q", got, want)
	}
	w.live(shop, held.ID, enforce)
	watchShop.want(tried, enforce)
}

// mx starts a mail server, and has the daemon that starts next trust its certificate.
func (w *world) mx(t *testing.T, o lab.MXOptions) *lab.MX {
	t.Helper()
	m, err := lab.StartMXWith(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	trusted, err := os.ReadFile(w.path("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	w.file("ca.pem", string(trusted)+string(m.RootPEM))
	return m
}
