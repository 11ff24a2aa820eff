package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/publish"
)

// certView shows certs to package publish.
type certView struct{ keeper *certs.Keeper }

func (v certView) Want(host string)                            { v.keeper.Want(host) }
func (v certView) Unwant(host string)                          { v.keeper.Unwant(host) }
func (v certView) Drop(ctx context.Context, host string) error { return v.keeper.Drop(ctx, host) }

// Cert puts into words how it stands with a certificate.
func (v certView) Cert(host string) publish.Cert {
	s := v.keeper.Status(host)
	c := publish.Cert{Valid: !s.NotAfter.IsZero() && time.Now().Before(s.NotAfter), NotAfter: s.NotAfter, Problem: s.Problem}
	switch {
	case c.Valid:
	case s.Problem != "":
		c.Fault = true
		c.Reason = fmt.Sprintf("no certificate for %s: %s", host, s.Problem)
		if !s.NextTry.IsZero() {
			c.Reason += "; next try at " + s.NextTry.UTC().Format("15:04:05 MST")
		}
	default:
		c.Reason = "waiting for the certificate of " + host
	}
	return c
}

func trimPolicyHost(host string) string { return strings.TrimPrefix(host, "mta-sts.") }
