package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// guard keeps our probes on the public Internet, and at home.
func (d *daemon) guard(outside *publish.Outside) *sender.Guard {
	node, _ := netip.ParseAddrPort(outside.Node) // a listener's own is one
	return &sender.Guard{
		Private: d.conf.Check.AllowPrivate,
		Peer:    d.node.isPeer,
		Node:    netip.AddrPortFrom(node.Addr().Unmap().WithZone(""), node.Port()),
		Own: func(ctx context.Context) ([]netip.Addr, error) {
			home, err := outside.Home(ctx)
			return home.Addrs, err
		},
	}
}

// writesIn says whether the operator's accounts write in the zone that a name is in: as the alias zone, or for a domain of
// his with publish = "zone". Its name servers may well be inside. Where the store does not answer it is not known.
func (d *daemon) writesIn(ctx context.Context, zone, name string) bool {
	alias, _, _ := d.reconciler.Alias()
	for at, more := name, true; more && dns.IsSubDomain(dns.Fqdn(zone), dns.Fqdn(at)); _, at, more = strings.Cut(at, ".") {
		if alias != "" && at == alias {
			return true
		}
		domain, err := policygen.ParseName(at)
		if err != nil {
			continue // the name of a record
		}
		have, err := d.store.Domain(ctx, domain)
		if err == nil && have.Tenant == publish.Tenant && have.Publish == store.PublishZone {
			return true
		}
	}
	return false
}

// admit says whether an order may be sent.
func (d *daemon) admit(ctx context.Context, name string, by certs.Authority) error {
	for _, issuer := range d.issuers {
		if issuer.Name() == by.Name() {
			return d.gate.Check(ctx, name, issuer)
		}
	}
	return fmt.Errorf("order from %s: no such authority", by.Name())
}
