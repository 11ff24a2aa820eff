package daemon

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// A probe takes away what a crash left of an earlier one, and nothing else.
func TestProbeAfterCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const record = "_stspub-probe.alias.test"
	if err := w.dns.Set(record, "TXT", fmt.Sprintf("%q", probeText+"1"), fmt.Sprintf("%q", probeText+"2"), `"stspub is here"`); err != nil {
		t.Fatal(err)
	}
	r := w.start(w.path("stspub.toml"))
	until(t, "old probes gone", func() error {
		if diff := cmp.Diff([]string{"stspub is here"}, w.dns.Values(record, "TXT")); diff != "" {
			return fmt.Errorf("TXT at %s, -want +got:\n%s", record, diff)
		}
		return nil
	})
	r.fault("alias zone", "")
	r.stop()
	if got := w.dns.Values(record, "TXT"); len(got) != 1 {
		t.Errorf("TXT at %s = %q, want one", record, got)
	}
}

// The alias zone, its account and the account's secret are those of the configuration in force.
func TestPreflightAfterReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("customers.txt", "elsewhere.test\n") // nobody else writes
	w.file("tsig.key", wrongKey)
	r := w.start(w.path("stspub.toml"))
	r.fault("alias zone", `alias.zone: write a probe record: read TXT "_stspub-probe.alias.test" in zone "alias.test" by account "main" (rfc2136): `)

	// Another secret, by the admin listener.
	w.file("tsig.key", goodKey)
	r.reload()
	r.fault("alias zone", "")
	if got := w.dns.Updates(); got != 2 {
		t.Errorf("%d updates, want the probe and its removal", got)
	}

	// Another zone of another account, by signal.
	w.file("other.key", wrongKey)
	other := w.config("[alias]\nzone = \"alias.test\"\naccount = \"main\"", "[alias]\nzone = \"other.test\"\naccount = \"second\"") +
		fmt.Sprintf("[account.second]\nprovider = \"rfc2136\"\nserver = %q\nkey_name = \"stspub\"\nkey_file = \"other.key\"\n", w.dns.Addr)
	w.file("stspub.toml", other)
	w.hangup <- os.Interrupt
	r.fault("alias zone", `alias.zone: write a probe record: read TXT "_stspub-probe.other.test" in zone "other.test" by account "second" (rfc2136): `)

	// A good zone is not probed at every reload.
	w.file("other.key", goodKey)
	w.hangup <- os.Interrupt
	r.fault("alias zone", "")
	for range 3 {
		asked := w.dns.Queries(hostname, "CAA")
		r.reload()
		until(t, "look after the reload", func() error {
			if w.dns.Queries(hostname, "CAA") == asked {
				return fmt.Errorf("%s is not asked for", hostname)
			}
			return nil
		})
	}
	r.stop()
	if got := w.dns.Updates(); got != 4 {
		t.Errorf("%d updates, want two probes and their removals", got)
	}
	for _, zone := range []string{"alias.test", "other.test"} {
		if got := w.dns.Values("_stspub-probe."+zone, "TXT"); len(got) > 0 {
			t.Errorf("TXT at _stspub-probe.%s = %q, want none", zone, got)
		}
	}
}

// The customers of a tenant point to a name below that of the service.
func TestTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	st, err := store.OpenSQLite(t.Context(), w.path("stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = st.PutMXSet(t.Context(), store.MXSet{
		Tenant: "b", Name: "eu", Owner: store.OwnerAPI, Policy: policygen.Policy{Mode: "none", MaxAge: 86400, MX: []string{"mx.test"}},
	}, nil, time.Now())
	if err := errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
	r := w.start(w.path("stspub.toml"))
	r.fault("targets", fmt.Sprintf(`server.hostname: b.%s, the target of tenant "b", has no A or AAAA record; add *.%[1]s with the addresses of %[1]s`, hostname))
	if err := w.dns.Set("b."+hostname, "A", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	r.reload()
	r.fault("targets", "")
	r.stop()
}
