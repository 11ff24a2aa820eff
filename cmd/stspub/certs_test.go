package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/certs"
)

// TestCertsShowHonestProgress: an operator who brought 100,000 domains reads how far it is, and when it ends.
func TestCertsShowHonestProgress(t *testing.T) {
	t.Parallel()
	end := time.Date(2027, 1, 5, 12, 30, 0, 0, time.UTC)
	var b strings.Builder
	err := writeOverview(&b, certs.Overview{
		Names: 100_000, Valid: 2235, Staging: 5, Waiting: 97_760, Failing: 12, Done: end,
		Accounts: []certs.Account{
			{Name: "letsencrypt", Orders: 280, Limit: 280, Period: "3 hours", Running: 1, Queued: 97_759, Next: end.AddDate(0, -1, 0)},
			{Name: "other", Limit: 280, Period: "3 hours", Closed: "it is out of reach since 2026-12-05 12:00 UTC: no route"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `2235 of 100000 names have a valid certificate, 5 have one of a staging CA, 97760 wait for their first, 12 fail; all will have had their turn by 2027-01-05 12:30 UTC
letsencrypt  280 of 280 orders in 3 hours, 1 running, 97759 waiting; at its budget until 2026-12-05 12:30 UTC
other        0 of 280 orders in 3 hours, 0 running, 0 waiting; it is out of reach since 2026-12-05 12:00 UTC: no route

`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("overview (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		n    certs.Named
		want string
	}{
		{certs.Named{Name: "a", Status: certs.Status{State: certs.StateValid, NotAfter: end, Authority: "le", NextTry: end}}, "a|valid|2027-01-05 12:30Z|le|-|-|"},
		{certs.Named{Name: "a", Status: certs.Status{State: certs.StateOrdering, Place: 41_234, Expected: end}}, "a|ordering|-|-|41234|2027-01-05 12:30Z|"},
		{
			certs.Named{Name: "a", Status: certs.Status{State: certs.StateFailing, NextTry: end, Problem: "no A record (dns)", Advice: "add one"}},
			"a|failing|-|-|-|2027-01-05 12:30Z|no A record (dns); add one",
		},
		{
			certs.Named{Name: "a", Status: certs.Status{State: certs.StateValid, NotAfter: end, Authority: "s", Staging: true, Late: true}},
			"a|valid (staging) !|2027-01-05 12:30Z|s|-|-|",
		},
	} {
		if got := strings.Join(certLine(c.n), "|"); got != c.want {
			t.Errorf("line of %+v = %q, want %q", c.n, got, c.want)
		}
	}
}
