package httpd

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"
)

// proxyTimeout is how long a proxy may take to say for whom it connects; no proxy needs a second.
const proxyTimeout = 5 * time.Second

// BehindProxies returns a listener that believes what proxies say by the PROXY protocol, version 1 or 2, about who connects.
// They need not say it: their probes of this server are connections of their own. From other addresses the protocol is
// not understood. Without proxies it is ln itself.
func BehindProxies(ln net.Listener, proxies []netip.Prefix) net.Listener {
	if len(proxies) == 0 {
		return ln
	}
	return &proxyproto.Listener{
		Listener:          ln,
		ReadHeaderTimeout: proxyTimeout,
		ConnPolicy: func(c proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			from, ok := c.Upstream.(*net.TCPAddr)
			if !ok {
				return proxyproto.SKIP, nil
			}
			addr := from.AddrPort().Addr().Unmap()
			if slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				return proxyproto.USE, nil
			}
			return proxyproto.SKIP, nil
		},
	}
}
