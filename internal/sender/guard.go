package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/stspub/stspub/internal/inside"
)

// ErrPrivate is wrapped by the errors of connections that a [Guard] refused.
var ErrPrivate = errors.New("no address of the public Internet, so it is not connected to; if it is meant, " +
	"add it to allow_private in [check]")

// ErrOurs is wrapped by the errors of connections to an address that is closed for being our own.
var ErrOurs = errors.New("an address of this service, and nobody else's accounts lead there")

// Guard keeps connections on the public Internet. Where they lead is said by other people's DNS, and without a guard
// anybody's MX or policy host could have us knock at the doors of the network that we stand in.
//
// Its fields must not change after the first call. It is safe for concurrent use; the zero value lets public addresses
// through.
type Guard struct {
	// Private are addresses outside of the public Internet that are connected to all the same.
	Private []netip.Prefix
	// Node is a listener of our own, which is reached however private it is. The zero value is none.
	Node netip.AddrPort
	// Peer says whether an address is that of a listener of another node of ours, which is reached likewise. Nil: none is.
	Peer func(netip.AddrPort) bool
	// Own returns the addresses that are ours, which are reached too. It is asked about private ones only. Nil: none are.
	Own func(context.Context) ([]netip.Addr, error)
	// Closed returns public addresses that are not connected to, but for those in Private: whoever listens there may trust
	// what comes from ourselves. After an error nothing public is connected to. Nil: none are.
	Closed func(context.Context) ([]netip.Addr, error)
}

// Dial connects to "ADDR:PORT"; it is for [Client.Dial]. An address that is not let through is refused before the first
// packet, with [ErrPrivate].
func (g *Guard) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	// It is called with the address that is connected to, after all resolving.
	d := net.Dialer{ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error { return g.Lets(ctx, address) }}
	return d.DialContext(ctx, network, address)
}

// Lets says why "ADDR:PORT" is not let through, by an error that wraps [ErrPrivate] or [ErrOurs]; nil: it is. No packet is
// sent.
func (g *Guard) Lets(ctx context.Context, address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	addr := to.Addr().Unmap().WithZone("")
	switch {
	case slices.ContainsFunc(g.Private, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return nil
	case !inside.Is(addr):
		return g.closed(ctx, addr)
	case netip.AddrPortFrom(addr, to.Port()) == g.Node, g.Peer != nil && g.Peer(netip.AddrPortFrom(addr, to.Port())):
		return nil
	}
	if g.Own != nil {
		own, err := g.Own(ctx)
		if slices.Contains(own, addr) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s is %w; our own addresses are not known: %w", addr, ErrPrivate, err)
		}
	}
	return fmt.Errorf("%s is %w", addr, ErrPrivate)
}

// closed says why a public address is not let through.
func (g *Guard) closed(ctx context.Context, addr netip.Addr) error {
	if g.Closed == nil {
		return nil
	}
	closed, err := g.Closed(ctx)
	if err != nil {
		return fmt.Errorf("%s is not connected to: our own addresses are not known: %w", addr, err)
	}
	if slices.Contains(closed, addr) || slices.Contains(closed, inside.BehindNAT64(addr)) {
		return fmt.Errorf("%s is %w", addr, ErrOurs)
	}
	return nil
}
