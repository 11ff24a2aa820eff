package sender

import (
	"context"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Addresses is where a host is: all its A and AAAA records.
type Addresses struct {
	Addrs    []netip.Addr  // IPv4 first, in the order of the answers
	Chain    []string      // CNAME targets on the way, in order, lower case, without trailing dot
	NXDomain bool          // the host, or the target of its last CNAME, does not exist
	TTL      time.Duration // how long caches may still hold what was answered: the largest TTL along the chain
}

// Addrs asks for A and AAAA. Where one of the two questions stays without answer there is an error, and Addresses holds
// what the other one found. TTL is what was left of it where a recursive server answered from its cache.
func (r *Resolver) Addrs(ctx context.Context, host string) (Addresses, error) {
	var v4, v6 Answer
	var err4, err6 error
	var g errgroup.Group
	g.Go(func() error { v4, err4 = r.Lookup(ctx, host, dns.TypeA); return nil })
	g.Go(func() error { v6, err6 = r.Lookup(ctx, host, dns.TypeAAAA); return nil })
	_ = g.Wait()

	var out Addresses
	for _, a := range []Answer{v4, v6} {
		for _, rr := range a.RRs {
			if addr, ok := address(rr); ok {
				out.Addrs = append(out.Addrs, addr)
			}
		}
		if len(out.Chain) == 0 {
			out.Chain = a.Chain
		}
	}
	for _, a := range []Answer{v4, v6} {
		// That a host has no AAAA is held by caches too, but sends nobody to a wrong place.
		if len(a.RRs) > 0 || len(out.Addrs) == 0 {
			out.TTL = max(out.TTL, a.MaxTTL)
		}
	}
	out.NXDomain = len(out.Addrs) == 0 && (v4.NXDomain || v6.NXDomain)
	switch {
	case err4 != nil:
		return out, err4
	case err6 != nil:
		return out, err6
	}
	return out, nil
}

func address(rr dns.RR) (netip.Addr, bool) {
	var addr netip.Addr
	var ok bool
	switch rr := rr.(type) {
	case *dns.A:
		addr, ok = netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		addr, ok = netip.AddrFromSlice(rr.AAAA)
	}
	return addr, ok
}
