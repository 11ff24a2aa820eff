package sender

import (
	"net/netip"
	"slices"
)

// Home is where the policy hosts of our domains have to lead.
type Home struct {
	Name  string       // ours, the target of customers' CNAMEs; lower case, without trailing dot
	Addrs []netip.Addr // ours
	// Target is the name below ours that the customers of a tenant point to; empty: that of tenant "default".
	Target string
}

// Is says whether a CNAME's target, lower case and without trailing dot, is our name, or the tenant's.
func (h Home) Is(target string) bool {
	return target == h.Name || target == "default."+h.Name || h.Target != "" && target == h.Target
}

// Holds says whether there are addresses and all are ours.
func (h Home) Holds(addrs []netip.Addr) bool {
	return len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !slices.Contains(h.Addrs, a) })
}

// Leads says whether a host is ours: its CNAMEs come by our name, or it has our addresses and no other.
func (h Home) Leads(a Addresses) bool { return slices.ContainsFunc(a.Chain, h.Is) || h.Holds(a.Addrs) }
