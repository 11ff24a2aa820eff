package dnsupdate_test

import (
	"errors"
	"testing"

	"github.com/stspub/stspub/internal/dnsupdate"
)

// TestCheckCredentials has them judged where no zone is named, and nothing written.
func TestCheckCredentials(t *testing.T) {
	everywhere(t, func(t *testing.T, p *place) {
		var o dnsupdate.Options
		if p.wire != nil {
			o.HTTP = p.wire
		}
		untold := map[string]bool{"rfc2136": true, "ovh": true, "mythicbeasts": true}[p.config.Provider]
		err := dnsupdate.Check(t.Context(), p.config, "", o)
		if untold {
			if !errors.Is(err, dnsupdate.ErrNeedsZone) {
				t.Errorf("Check without a zone: %v, want that it takes one", err)
			}
			return
		}
		if err != nil {
			t.Errorf("Check of good credentials: %v", err)
		}
		if err := dnsupdate.Check(t.Context(), p.config, zone, o); err != nil {
			t.Errorf("Check in a zone: %v", err)
		}
		if err := dnsupdate.Check(t.Context(), p.config, "other.invalid", o); err == nil {
			t.Error("Check in a zone that is not there: no error")
		}
		q := *p
		q.spoil(&q.config)
		q.fails(t, dnsupdate.Check(t.Context(), q.config, "", o), dnsupdate.KindAuth)
	})
}
