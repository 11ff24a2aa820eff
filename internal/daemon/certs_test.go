package daemon

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/publish"
)

// What a staging CA issues is served and not announced; once the same table names a real one, it is replaced at once.
func TestStagingIsNotAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("stspub.toml", w.config("[acme.lab]", "[acme.lab]\nstaging = true"))
	r := w.start(w.path("stspub.toml"))
	const why = `the certificate for mta-sts.zoned.test is of the staging CA "lab", which no sender trusts`
	until(t, "hold", func() error {
		s, err := r.admin.Domain(context.Background(), zoned)
		if err == nil && (s.Step != publish.StepCert || !s.Fault || !strings.HasPrefix(s.Reason, why)) {
			err = fmt.Errorf("step %s, fault %v: %s", s.Step, s.Fault, s.Reason)
		}
		if err == nil && (s.ID != "" || s.Intended != "") {
			t.Errorf("announced: %+v", s)
		}
		return err
	})
	var lines []certs.Named
	err := r.admin.CertificateNames(context.Background(), true, func(n certs.Named) error {
		lines = append(lines, n)
		return nil
	})
	if err != nil || len(lines) != 2 || !lines[0].Staging || lines[0].State != certs.StateValid {
		t.Errorf("certificates %+v, %v", lines, err)
	}
	r.stop()

	w.file("stspub.toml", w.config())
	r = w.start(w.path("stspub.toml"))
	r.live(time.Time{})
	w.serves()
	o, err := r.admin.Certificates(context.Background())
	if err != nil || o.Names != 2 || o.Accounts[0].Staging {
		t.Errorf("overview %+v, %v", o, err)
	}
	r.stop()
}
