package daemon

import (
	"context"
	"fmt"
	"strings"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/publish"
)

// certView shows certs to package publish.
type certView struct {
	keeper *certs.Keeper
	// hostname is the service's own. Its certificate stays, also where it was the policy host of a domain that left.
	hostname string
}

// Want has a certificate ordered and kept.
func (v certView) Want(host, tenant string, live bool) {
	if host == v.hostname {
		tenant = ""
	}
	v.keeper.WantFirst(host, tenant, live)
}

// Unwant stops orders.
func (v certView) Unwant(host string) {
	if host != v.hostname {
		v.keeper.Unwant(host)
	}
}

// Retry has it ordered without a pause.
func (v certView) Retry(host string) { v.keeper.Retry(host) }

// Drop deletes certificate and key.
func (v certView) Drop(ctx context.Context, host string) error {
	if host == v.hostname {
		return nil
	}
	return v.keeper.Drop(ctx, host)
}

// Cert puts into words how it stands with a certificate. One of a staging CA is none: no sender would trust it.
func (v certView) Cert(host string) publish.Cert {
	s := v.keeper.Status(host)
	c := publish.Cert{
		Valid: s.State == certs.StateValid && !s.Staging, NotAfter: s.NotAfter, Problem: s.Problem, Late: s.Late, Queue: queued(s),
	}
	if s.Advice != "" {
		c.Problem += "; " + s.Advice
	}
	switch {
	case c.Valid:
	case s.State == certs.StateValid:
		c.Fault = true
		c.Reason = fmt.Sprintf("the certificate for %s is of the staging CA %q, which no sender trusts, so nothing is announced: "+
			"name another CA in [acme.NAME]", host, s.Authority)
	case s.Problem != "":
		c.Fault = true
		c.Reason = fmt.Sprintf("no certificate for %s: %s", host, c.Problem)
		if !s.NextTry.IsZero() && s.Place == 0 && s.Expected.IsZero() {
			c.Reason += "; next try at " + s.NextTry.UTC().Format("15:04:05 MST")
		}
	default:
		c.Reason = "waiting for the certificate of " + host
	}
	if !c.Valid && c.Queue != "" {
		c.Reason += "; " + c.Queue
		c.Queue = ""
	}
	return c
}

// queued says whose turn an order waits for.
func queued(s certs.Status) string {
	var words []string
	switch expected := s.Expected.UTC().Format("2006-01-02 15:04 MST"); {
	case s.Place > 0:
		words = append(words, fmt.Sprintf("its order is number %d in the queue, expected to be sent at %s", s.Place, expected))
	case !s.Expected.IsZero(): // a limit of its own holds it, and others go before it
		words = append(words, "its order is expected to be sent at "+expected)
	}
	if s.Waiting != "" {
		words = append(words, s.Waiting)
	}
	return strings.Join(words, "; ")
}

// manager is the reconciler for those who reload it.
type manager struct {
	*publish.Reconciler
	d *daemon
}

// Certificates is for the admin API.
func (m manager) Certificates() certs.Overview { return m.d.keeper.Overview() }

// EachCertificate is for the admin API.
func (m manager) EachCertificate(f func(certs.Named) error) error { return m.d.keeper.Each(f) }

// Reload has what stspub stands on looked at once more when a configuration was taken: it may say otherwise what that is,
// or be the answer to a fault.
func (m manager) Reload(ctx context.Context, hash string) (publish.ReloadReport, error) {
	report, err := m.Reconciler.Reload(ctx, hash)
	if err == nil {
		select {
		case m.d.reloaded <- struct{}{}:
		default: // it will be
		}
	}
	return report, err
}

func trimPolicyHost(host string) string { return strings.TrimPrefix(host, "mta-sts.") }
