package certs

import (
	"slices"
	"strings"
)

// specialUse returns the zone of a name that the public DNS does not have, or that nobody's customer can own; "" is for
// all other names. They are in IANA's registry of special-use domain names (RFC 6761), but for "internal", which ICANN
// has set aside, and the reverse zones, for which public authorities have ceased to issue.
func specialUse(name string) string {
	zones := []string{
		"alt",                                     // RFC 9476
		"example", "invalid", "localhost", "test", // RFC 6761
		"example.com", "example.net", "example.org", // RFC 6761
		"home.arpa", "internal", "local", "onion", // RFC 8375, RFC 6762, RFC 7686
		"ipv4only.arpa", "resolver.arpa", // RFC 8880, RFC 9462
		"in-addr.arpa", "ip6.arpa",
	}
	i := slices.IndexFunc(zones, func(zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) })
	if i < 0 {
		return ""
	}
	return zones[i]
}
