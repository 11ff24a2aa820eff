package daemon

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
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

// admit says whether an order may be sent.
func (d *daemon) admit(ctx context.Context, name string, by certs.Authority) error {
	for _, issuer := range d.issuers {
		if issuer.Name() == by.Name() {
			return d.gate.Check(ctx, name, issuer)
		}
	}
	return fmt.Errorf("order from %s: no such authority", by.Name())
}
