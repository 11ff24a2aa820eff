package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// TestPublication is the life of two domains: they come, their MX change, they go.
func TestPublication(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const stranger = `"some-site-verification=a \"b\" c\\d"`
		w.set("_mta-sts."+zoned, "TXT", stranger)
		watchZoned, watchShop := w.watch(zoned, stranger), w.watch(shop)
		first := w.comes(t)
		w.settings.mx = append(w.settings.mx, "mx2.provider.test")
		second := w.changes(t, w.hangup)
		w.settings.mx = append(w.settings.mx, "*.mx.provider.test")
		third := w.changes(t, func() {
			if got, want := w.must("reload"), "0 domains added, 2 changed, 0 removed, 0 restored\n"; !strings.HasPrefix(got, want) || !strings.Contains(got, "\nnew ids       2 domains\n") {
				t.Errorf("stspub reload prints %q, want %q and the plan", got, want)
			}
		})
		none := w.policy("none", "86400")
		w.settings.domains = nil
		w.configure()
		w.must("reload")
		watchZoned.want(first, second, third, none)
		watchShop.want(first, second, third, none)
		w.goes(t, watchZoned, watchShop)
		w.until("stranger alone", patience, func() (bool, string) {
			got := strings.Join(w.txt("_mta-sts."+zoned), " ")
			return got == stranger, got
		})
		w.stop()
		w.checkStore(t, 0, first, second, third, none)
	})
}

// comes publishes both domains and returns their policy.
func (w *world) comes(t *testing.T) string {
	t.Helper()
	policy := w.policy("enforce", "5")
	w.start()
	s := w.step(shop, publish.StepDelegation)
	if want := "waiting for: CNAME _mta-sts." + shop + " → " + s.Record + ", last seen NXDOMAIN"; s.Reason != want {
		t.Errorf("reason %q, want %q", s.Reason, want)
	}
	// The record is there before the customer is asked for the CNAME, so that no sender meets one that leads nowhere.
	if got := w.txt(s.Record); len(got) != 1 || got[0] != value(s.ID) {
		t.Errorf("%s TXT = %q, want %q", s.Record, got, value(s.ID))
	}
	line := "_mta-sts." + shop + ". 300 IN CNAME " + s.Record + ".\n"
	if got := w.must("records", shop); !strings.HasSuffix(got, "\n"+line) {
		t.Errorf("stspub records prints %q, want %q at its end", got, line)
	}
	w.delegate()
	id := w.live(shop, "", policy).ID
	if !regexp.MustCompile(`^20\d{12}[0-9a-f]{8}$`).MatchString(id) {
		t.Errorf("id %q, want YYYYMMDDhhmmss and 8 hex digits", id)
	}
	s = w.live(zoned, "", policy)
	if want := "another TXT stands beside the record at _mta-sts." + zoned; !s.Fault || !strings.HasPrefix(s.Reason, want) {
		t.Errorf("%s: fault %t, reason %q, want %q", zoned, s.Fault, s.Reason, want)
	}
	return policy
}

// changes has the configuration read again, and returns the policy that follows from it when it is out.
func (w *world) changes(t *testing.T, reload func()) string {
	t.Helper()
	before := map[string]string{zoned: w.status(zoned).ID, shop: w.status(shop).ID}
	w.configure()
	reload()
	policy := w.policy("enforce", "5")
	for _, domain := range []string{zoned, shop} {
		s := w.step(domain, publish.StepSettle)
		if s.ID != before[domain] || s.Policy != policy {
			t.Errorf("%s while settling: id %s, policy %q, want the old id %s and the new policy", domain, s.ID, s.Policy, before[domain])
		}
	}
	for _, domain := range []string{zoned, shop} {
		w.live(domain, before[domain], policy)
	}
	return policy
}

// goes sees both domains off. RFC 8461, Section 8.3: the record stays until every policy served before has expired.
func (w *world) goes(t *testing.T, watched ...*watcher) {
	t.Helper()
	var horizon time.Time
	for _, s := range watched {
		status := w.await(s.domain, "draining", func(s publish.Status) bool { return s.Draining && !s.Horizon.IsZero() })
		if last := time.Until(status.Horizon); last < 55*time.Second || last > 65*time.Second {
			t.Errorf("%s: horizon in %v, want TTL and max_age, 65s", s.domain, last)
		}
		horizon = status.Horizon
	}
	for _, s := range watched {
		s.pace(true)
	}
	w.until("horizon", 70*time.Second, func() (bool, string) { return time.Now().After(horizon.Add(-time.Second)), "" })
	for _, s := range watched {
		s.mayGo() // not a moment before
	}
	for _, s := range watched {
		w.until(s.domain+" without record", patience, func() (bool, string) {
			values := sts(w.txt("_mta-sts." + s.domain))
			return len(values) == 0, strings.Join(values, " ")
		})
		if body, err := fetch(w.sender(s.domain), s.domain); err != nil || !strings.Contains(body, "mode: none\r\n") {
			t.Errorf("%s with its record gone: %q, %v; want mode none until the record's TTL has passed", s.domain, body, err)
		}
	}
	for _, s := range watched {
		s.pace(true)
		s.pace(true)
		w.forgotten(s.domain)
		_, stderr, code := w.stspub("domain", "show", s.domain)
		if want := "stspub: show domain: domain " + s.domain + " is not configured here\n"; code != 1 || stderr != want {
			t.Errorf("stspub domain show: exit code %d, %q, want 1, %q", code, stderr, want)
		}
		_, err := fetch(w.sender(s.domain), s.domain)
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s when forgotten: %v, want the TLS alert unrecognized_name", s.domain, err)
		}
	}
}

// forgotten waits until there is no such domain.
func (w *world) forgotten(domain string) {
	w.t.Helper()
	w.until(domain+" forgotten", 60*time.Second+patience, func() (bool, string) {
		_, err := w.admin.Domain(context.Background(), domain)
		return errors.Is(err, store.ErrNotFound), fmt.Sprint(err)
	})
}

// checkStore looks into the store when the daemon is gone: ids and history stay, rows and keys do not. There is an id for
// each policy, and as many more as again says.
func (w *world) checkStore(t *testing.T, again int, policies ...string) {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), w.path("stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.EachDomain(t.Context(), func(d store.Domain) error { t.Errorf("row of %s is left", d.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	err = st.EachCertificate(t.Context(), func(c store.Certificate) error {
		if c.Name != hostname {
			t.Errorf("certificate of %s is left", c.Name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, domain := range []policygen.Name{zoned, shop} {
		history, err := st.History(t.Context(), domain)
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, h := range history {
			texts = append(texts, h.Text)
		}
		if strings.Join(texts, "\n") != strings.Join(policies, "\n") {
			t.Errorf("history of %s: %q, want %q", domain, texts, policies)
		}
	}
	ids, err := st.IDs(t.Context(), "_mta-sts."+zoned)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(policies) + again; len(ids) != want {
		t.Errorf("%d ids were intended for %s, want %d", len(ids), zoned, want)
	}
}

// TestDryRun lets a server loose that has everything to write, and may not.
func TestDryRun(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		serial := w.serials()
		w.start("--dry-run")
		for _, domain := range []string{zoned, shop} {
			s := w.step(domain, publish.StepTXT)
			if !strings.HasSuffix(s.Reason, "dry run: not written") || s.Fault {
				t.Errorf("%s: fault %t, reason %q", domain, s.Fault, s.Reason)
			}
			w.heard(`"msg":"dry run: would write TXT"`, `"record":"`+s.Record+`"`, `"add":"v=STSv1; id=`+s.Intended+`;"`, `"ttl":60000000000`)
		}
		if err := w.daemon.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		w.daemon.end(t)
		if got := w.serials(); got != serial {
			t.Errorf("serials of the zones were %s and are %s", serial, got)
		}
		if c, ok := w.holder.(cloudflare); ok && c.Writes() > 0 {
			t.Errorf("the API was asked for %q", c.Requests())
		}
	})
}
