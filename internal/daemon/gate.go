package daemon

import (
	"context"
	"net/netip"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// guard keeps our probes on the public Internet, and at home.
func (d *daemon) guard(outside *publish.Outside) *sender.Guard {
	node, _ := netip.ParseAddrPort(outside.Node) // a listener's own is one
	return &sender.Guard{
		Private: d.conf.Check.AllowPrivate,
		Node:    netip.AddrPortFrom(node.Addr().Unmap().WithZone(""), node.Port()),
		Own: func(ctx context.Context) ([]netip.Addr, error) {
			home, err := outside.Home(ctx)
			return home.Addrs, err
		},
	}
}

// gated is an authority that is sent no order which cannot end well.
type gated struct {
	*certs.ACME
	gate *certs.Gate
}

// Obtain implements [certs.Authority].
func (g gated) Obtain(ctx context.Context, r certs.Request) (store.Certificate, error) {
	if err := g.gate.Check(ctx, r.Name, g.ACME); err != nil {
		return store.Certificate{}, err
	}
	return g.ACME.Obtain(ctx, r)
}
