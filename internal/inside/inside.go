// Package inside tells addresses of the public Internet from those inside of networks, and takes the latter out of texts.
//
// What a tenant's names lead to is asked of our resolvers, which may know names that the rest of the world does not. A tenant
// who reads the addresses in what is said of his domains would learn what our network looks like.
package inside

import (
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// Address stands in a text for an address that is not told.
const Address = "[inside address]"

// Is says whether an address is none of the public Internet: one of the special-purpose registries of IANA (RFC 6890), of
// multicast, or of what is not allocated.
func Is(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	in := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return netip.MustParsePrefix(p).Contains(addr) })
	}
	if addr.Is4() {
		return in("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
			"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3")
	}
	if inner := BehindNAT64(addr); inner.IsValid() {
		return Is(inner)
	}
	// 2000::/3 is all that is allocated; 2002::/16, 6to4, and 2001::/32, Teredo, lead to IPv4 addresses of any kind.
	return !in("2000::/3") || in("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
}

// BehindNAT64 returns the IPv4 address that an address of NAT64 leads to, which is in its last 32 bits (RFC 6052), or else
// the zero value.
func BehindNAT64(addr netip.Addr) netip.Addr {
	if !netip.MustParsePrefix("64:ff9b::/96").Contains(addr) {
		return netip.Addr{}
	}
	b := addr.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// Hide puts [Address] in the place of every address in a text that is none of the public Internet.
func Hide(text string) string {
	var out strings.Builder
	for text != "" {
		n := strings.IndexFunc(text, inAddress)
		if n < 0 {
			break
		}
		out.WriteString(text[:n])
		text = text[n:]
		if n = strings.IndexFunc(text, func(r rune) bool { return !inAddress(r) }); n < 0 {
			n = len(text)
		}
		hide(&out, text[:n], text[n:])
		text = text[n:]
	}
	out.WriteString(text)
	return strings.ReplaceAll(out.String(), "["+Address+"]", Address)
}

// inAddress says whether an address may have a rune, the zone of IPv6 left out.
func inAddress(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F' || r == '.' || r == ':'
}

// hide writes a run of what addresses have, which may be one with something before it, and a port or the end of a sentence
// behind it. Then comes more.
func hide(out *strings.Builder, run, more string) {
	bare := strings.TrimRight(run, ".:")
	first, last := strings.IndexByte(bare, ':')+1, max(strings.LastIndexByte(bare, ':'), 0)
	for _, candidate := range []string{run, bare, bare[:last], bare[first:], bare[min(first, last):last]} {
		addr, err := netip.ParseAddr(candidate)
		if err != nil || addr.Is6() && more != "" && unicode.IsLetter(rune(more[0])) { // like the middle of a::fool
			continue
		}
		if Is(addr) {
			run = strings.Replace(run, candidate, Address, 1)
		}
		break
	}
	out.WriteString(run)
}
