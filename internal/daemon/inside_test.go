package daemon

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// TestNameServersInside: a name server that only our network reaches is asked about what the operator's accounts write, and
// about nothing of others without leave.
func TestNameServersInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	zones := func(names ...string) (all []lab.Zone) {
		for _, name := range names {
			all = append(all, lab.Zone{Name: name, Text: "@ NS ns\n@ MX 10 mx1.provider.test.\nns A " + w.ip + "\nmta-sts A " + w.ip + "\n"})
		}
		return all
	}
	names := []string{zoned, "alias.test", "manual.test", "claimed.test"}
	for _, z := range zones(names...) { // a resolver sees them, too
		if err := w.dns.AddZone(z); err != nil {
			t.Fatal(err)
		}
	}
	inside, err := lab.StartDNS(context.Background(), lab.DNSOptions{
		Addr: net.JoinHostPort(w.ip, "53"), Keys: map[string]string{"stspub.": goodKey}, Zones: zones(names...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	config := w.config("stub = {", "#stub = {", fmt.Sprintf("server = %q", w.dns.Addr), fmt.Sprintf("server = %q", inside.Addr)) +
		"[[domain]]\nname = \"manual.test\"\nmxset = \"main\"\npublish = \"manual\"\n"
	w.file("stspub.toml", config)
	r := w.start(w.path("stspub.toml"))
	if _, err := r.admin.AddTenant(t.Context(), httpd.NewTenant{Name: "acme", Limits: store.Limits{Domains: 1}}); err != nil {
		t.Fatal(err)
	}
	acme := r.admin.As("", "acme")
	if _, err := acme.PutMXSet(t.Context(), "own", httpd.MXSetSpec{Mode: "enforce", MaxAge: 86400, MX: []string{"mx1.provider.test"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := acme.PutDomain(t.Context(), "claimed.test", httpd.DomainSpec{MXSet: "own", Publish: store.PublishAlias}, false); err != nil {
		t.Fatal(err)
	}
	claim := func(admin *httpd.Client, want string) {
		t.Helper()
		until(t, "claim", func() error {
			claims, err := admin.As("", "acme").Claims(t.Context())
			if err == nil && (len(claims) != 1 || !strings.Contains(claims[0].Reason, want)) {
				err = fmt.Errorf("%+v, want %q", claims, want)
			}
			if err == nil && strings.Contains(claims[0].Reason, inside.Addr) {
				t.Errorf("the tenant is told of %s: %s", inside.Addr, claims[0].Reason)
			}
			return err
		})
	}
	manual := func(admin *httpd.Client, good func(publish.Status) bool) {
		t.Helper()
		until(t, "manual.test", func() error {
			s, err := admin.Domain(t.Context(), "manual.test")
			if err == nil && !good(s) {
				err = fmt.Errorf("step %s: %s", s.Step, s.Reason)
			}
			return err
		})
	}
	r.live(time.Time{})
	r.fault("alias zone", "")
	if inside.Queries("_stspub-probe.alias.test", "TXT") == 0 || inside.Queries("_mta-sts."+zoned, "TXT") == 0 {
		t.Error("the inside server was not asked about our own records")
	}
	const why = "no answer (ns.%s: its address is outside of the public Internet, so it is not asked; "
	claim(r.admin, fmt.Sprintf(why, "claimed.test"))
	manual(r.admin, func(s publish.Status) bool { return strings.Contains(s.Reason, fmt.Sprintf(why, "manual.test")) })
	asked := func() (n int) {
		for _, name := range []string{"manual.test", "claimed.test"} {
			for _, label := range []string{"_mta-sts.", "mta-sts.", "_stspub-challenge."} {
				n += inside.Queries(label+name, "TXT") + inside.Queries(label+name, "A")
			}
		}
		return n
	}
	if n := asked(); n != 0 {
		t.Errorf("%d questions about others' zones at an inside server", n)
	}
	r.stop()

	w.file("stspub.toml", strings.Replace(config, "[check]\n", "[check]\nallow_private = [\""+w.ip+"\"]\n", 1))
	r = w.start(w.path("stspub.toml"))
	manual(r.admin, func(s publish.Status) bool { return s.Step == publish.StepTXT })
	if asked() == 0 {
		t.Error("with leave it is not asked")
	}
	r.stop()
}
