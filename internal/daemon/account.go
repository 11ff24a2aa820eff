package daemon

import (
	"context"
	"errors"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
)

// openAccount opens a DNS account. One without its secret is opened too: what is published goes on being served.
func (d *daemon) openAccount(tenant string, a config.Account) (dnsupdate.Account, error) {
	if a.Fault != "" {
		return dnsupdate.Unusable(a.Name, a.Provider, errors.New(a.Fault+", and run: stspub reload")), nil
	}
	return dnsupdate.Open(a, d.accountOptions(tenant))
}

// accountOptions has accounts of tenants lead to the public Internet only. That of the operator stands in his own file, and
// his name servers may well be inside.
func (d *daemon) accountOptions(tenant string) dnsupdate.Options {
	o := dnsupdate.Options{Log: d.o.Log, Metrics: d.metrics, DryRun: d.o.DryRun}
	if tenant != publish.Tenant {
		o.Dial = (&sender.Guard{Private: d.conf.Check.AllowPrivate}).Dial
	}
	return o
}

// checkAccount has an account read in a zone.
func (d *daemon) checkAccount(ctx context.Context, tenant string, a config.Account, zone string) error {
	return dnsupdate.Check(ctx, a, zone, d.accountOptions(tenant))
}
