package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

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
		o.Dial = (&sender.Guard{Private: d.conf.Check.AllowPrivate, Closed: d.ours}).Dial
	}
	return o
}

// ownAddresses are those of the service, of this machine and of the other nodes.
func (d *daemon) ownAddresses(outside *publish.Outside) func(context.Context) ([]netip.Addr, error) {
	return func(ctx context.Context) ([]netip.Addr, error) {
		home, err := outside.Home(ctx)
		if err != nil {
			return nil, err
		}
		local, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("read the addresses of this machine: %w", err)
		}
		all := append(home.Addrs, d.node.addrs()...)
		for _, a := range local {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				all = append(all, prefix.Addr().Unmap())
			}
		}
		return all, nil
	}
}

// checkAccount has an account read in a zone.
func (d *daemon) checkAccount(ctx context.Context, tenant string, a config.Account, zone string) error {
	return dnsupdate.Check(ctx, a, zone, d.accountOptions(tenant))
}
