package daemon

import (
	"testing"
	"time"
)

func TestCheckClock(t *testing.T) {
	t.Parallel()
	at := func(text string) time.Time {
		t.Helper()
		if text == "" {
			return time.Time{}
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct{ now, built, want string }{
		{"2027-03-01T10:00:00Z", "2027-03-01T10:00:00Z", ""},
		{"2027-02-28T12:00:00Z", "2027-03-01T10:00:00Z", ""}, // a developer's clock
		{
			"2027-02-28T09:59:59Z", "2027-03-01T11:00:00+01:00",
			"the clock says 2027-02-28T09:59:59Z, and this program is of 2027-03-01T10:00:00Z; set the clock before starting",
		},
		{"2026-11-22T00:00:00Z", "", ""},
		{
			"1970-01-01T00:00:07Z", "",
			"the clock says 1970-01-01T00:00:07Z, and this program is of 2026-11-22T00:00:00Z; set the clock before starting",
		},
		{
			"2026-01-01T00:00:00Z", "1980-01-01T00:00:00Z", // so that builds can be repeated
			"the clock says 2026-01-01T00:00:00Z, and this program is of 2026-11-22T00:00:00Z; set the clock before starting",
		},
	} {
		got := ""
		if err := checkClock(at(c.now), at(c.built)); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("checkClock(%s, %s) = %q, want %q", c.now, c.built, got, c.want)
		}
	}
}
