package config

import (
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// What [server] and [store] are when they say nothing.
const (
	defaultHTTPS = ":443"
	defaultHTTP  = ":80"
	defaultAdmin = "unix:/run/stspub/admin.sock"
	defaultStore = "/var/lib/stspub/stspub.db"

	defaultKeepEvents = 90 * day
)

// maxNode is how long the name of a node may be, in octets.
const maxNode = 253

// maxSocketPath is what fits into sun_path of unix(7).
const maxSocketPath = 107

// server reads [server].
func (l *loader) server() {
	t, s := l.doc.Server, &l.cfg.Server
	if !t.Hostname.given() {
		l.problem(t.Line, "server.hostname", `missing; write hostname = "mta-sts.example.com", `+
			"the name that customers point their CNAMEs to")
	} else {
		s.Hostname = string(l.aLabel("server.hostname", t.Hostname))
	}
	for _, a := range t.Addresses.items {
		addr, err := netip.ParseAddr(a.v)
		if err != nil || addr.Zone() != "" {
			l.problem(a.line, "server.addresses", `%q is no IP address; write one like "192.0.2.1" or "2001:db8::1"`, a.v)
			continue
		}
		s.Addresses = append(s.Addresses, addr.Unmap())
	}
	s.Proxies = l.networks("server.proxies", t.Proxies, `"192.0.2.1" or "10.0.0.0/8"`)
	s.HTTPS = l.listen("server.https", t.HTTPS, defaultHTTPS)
	if t.HTTP.v != "off" {
		s.HTTP = l.listen("server.http", t.HTTP, defaultHTTP)
	}
	s.Health = l.listen("server.health", t.Health, "")
	s.Admin = l.admin(t.Admin)
	l.adminTLS()
	s.Linger = l.duration("server.linger", t.Linger, 0, 0, 5*time.Minute, `"0s" to "5m"`)
	if t.State.v != "" {
		s.State = l.path(t.State.v)
	}
	l.node()
	l.clashes()
}

// aLabel returns a name of our own, which is only checked, not converted: it stands in customers' DNS.
func (l *loader) aLabel(key string, t text) policygen.Name {
	name, err := policygen.ParseName(t.v)
	if err != nil {
		l.problem(t.line, key, "%s", policygen.Reason(err))
		return ""
	}
	if !isASCII(t.v) {
		l.problem(t.line, key, "%q has U-labels; write %q", t.v, name)
		return ""
	}
	return name
}

// listen returns the address of a listener.
func (l *loader) listen(key string, t text, without string) string {
	if !t.given() {
		return without
	}
	host, port, err := net.SplitHostPort(t.v)
	if err == nil && host != "" {
		_, err = netip.ParseAddr(host)
	}
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		l.problem(t.line, key, `%q is no address to listen at; write ":443" or "192.0.2.1:443"`, t.v)
		return without
	}
	return t.v
}

// admin returns the address of the admin listener, which anybody who can reach it may use.
func (l *loader) admin(t text) string {
	if !t.given() {
		return defaultAdmin
	}
	if path, found := strings.CutPrefix(t.v, "unix:"); found {
		path = l.path(path)
		if path == l.dir {
			l.problem(t.line, "server.admin", `"unix:" has no path; write %q`, defaultAdmin)
		} else if len(path) > maxSocketPath {
			l.problem(t.line, "server.admin", "%q is too long for a socket; at most %d bytes", path, maxSocketPath)
		}
		return "unix:" + path
	}
	if addr, err := netip.ParseAddrPort(t.v); err != nil || !addr.Addr().IsLoopback() {
		l.problem(t.line, "server.admin", `%q is neither a socket nor a loopback address; write %q or "127.0.0.1:8420"; `+
			"for other machines there is admin_tls", t.v, defaultAdmin)
	}
	return t.v
}

// adminTLS reads the listener for control panels elsewhere, and checks that its certificate and key belong together.
func (l *loader) adminTLS() {
	t, s := l.doc.Server, &l.cfg.Server
	files := []struct {
		key  string
		t    text
		into *string
	}{{"server.admin_cert_file", t.AdminCertFile, &s.AdminCertFile}, {"server.admin_key_file", t.AdminKeyFile, &s.AdminKeyFile}}
	if s.AdminTLS = l.listen("server.admin_tls", t.AdminTLS, ""); !t.AdminTLS.given() {
		for _, f := range files {
			if f.t.given() {
				l.problem(f.t.line, f.key, `does nothing without admin_tls = ":8420"; write that, or leave this out`)
			}
		}
		return
	}
	for _, f := range files {
		if !f.t.given() {
			l.problem(t.AdminTLS.line, f.key, "missing; admin_tls needs a certificate and its key, in PEM")
			continue
		}
		*f.into = l.path(f.t.v)
	}
	if s.AdminCertFile == "" || s.AdminKeyFile == "" {
		return
	}
	if err := checkKeyPair(s.AdminCertFile, s.AdminKeyFile); err != nil {
		l.lacking(t.AdminCertFile.line, "server.admin_cert_file", err)
	}
}

// node reads what this server is to others on its store.
func (l *loader) node() {
	t, s := l.doc.Server, &l.cfg.Server
	s.Node = t.Node.v
	if strings.ContainsFunc(s.Node, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) || len(s.Node) > maxNode {
		l.problem(t.Node.line, "server.node", `%q is no name of a node; write one like "node1", of ASCII without spaces and slashes`, s.Node)
	}
	if !t.NodeAddress.given() {
		return
	}
	addr, err := netip.ParseAddrPort(t.NodeAddress.v)
	if err != nil || addr.Addr().IsUnspecified() || addr.Port() == 0 {
		l.problem(t.NodeAddress.line, "server.node_address", `%q is no address that other nodes can connect to; write one like "192.0.2.1:443"`,
			t.NodeAddress.v)
	}
	s.NodeAddress = t.NodeAddress.v
}

// clashes finds two listeners at one address.
func (l *loader) clashes() {
	t, s := l.doc.Server, l.cfg.Server
	listeners := []struct {
		key, addr string
		line      int
	}{
		{"server.https", s.HTTPS, t.HTTPS.line},
		{"server.http", s.HTTP, t.HTTP.line},
		{"server.admin", s.Admin, t.Admin.line},
		{"server.admin_tls", s.AdminTLS, t.AdminTLS.line},
		{"server.health", s.Health, t.Health.line},
	}
	for i, b := range listeners {
		for _, a := range listeners[:i] {
			if overlap(a.addr, b.addr) {
				l.problem(max(a.line, b.line, t.Line), b.key, "%q is taken by %s; write another port", b.addr, a.key)
			}
		}
	}
}

// overlap reports whether two listeners cannot be open at once.
func overlap(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	all := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return hostA == hostB || all(hostA) || all(hostB)
}

// dns reads [dns].
func (l *loader) dns() {
	t := l.doc.DNS
	l.cfg.DNS.Resolvers = l.servers("dns.resolvers", t.Resolvers)
	for _, raw := range slices.Sorted(maps.Keys(t.Stub)) {
		servers := t.Stub[raw]
		if !servers.given() {
			continue // of a wrong type
		}
		zone := strings.ToLower(strings.TrimSuffix(raw, "."))
		if raw == "." {
			zone = raw
		}
		if zone != "." && !isZone(zone) {
			l.problem(servers.line, "dns.stub", `%q is no zone; write one in A-labels like "example.com", or "." for all`, raw)
		}
		if _, twice := l.cfg.DNS.Stub[zone]; twice {
			l.problem(servers.line, "dns.stub", "zone %q is there twice; write all its servers into one list", zone)
		}
		if l.cfg.DNS.Stub == nil {
			l.cfg.DNS.Stub = make(map[string][]string)
		}
		l.cfg.DNS.Stub[zone] = l.servers("dns.stub", servers)
	}
}

// servers returns addresses of DNS servers with their ports.
func (l *loader) servers(key string, addrs list) []string {
	if addrs.given() && len(addrs.items) == 0 {
		l.problem(addrs.line, key, `is empty; write at least one address like "192.0.2.53", or leave it out`)
	}
	var servers []string
	for _, a := range addrs.items {
		addr, err := netip.ParseAddrPort(a.v)
		if err != nil {
			var ip netip.Addr
			ip, err = netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(a.v, "["), "]"))
			addr = netip.AddrPortFrom(ip, 53)
		}
		if err != nil || addr.Port() == 0 {
			l.problem(a.line, key, `%q is no address of a DNS server; write one like "192.0.2.53" or "[2001:db8::53]:5353"`, a.v)
			continue
		}
		servers = append(servers, addr.String())
	}
	return servers
}

// url returns an HTTPS URL. On loopback it may be HTTP where insecure says so. It is not shown, as it may hold a password.
func (l *loader) url(key string, t text, insecure bool) string {
	u := l.absolute(key, t)
	if u == nil {
		return ""
	}
	if u.Scheme != "https" && !(insecure && u.Scheme == "http" && isLoopback(u)) {
		l.problem(t.line, key, "is not HTTPS; write a URL that begins with https://")
		return ""
	}
	return t.v
}

// absolute returns a URL that names a host and no user, or nil after a problem.
func (l *loader) absolute(key string, t text) *url.URL {
	u, err := url.Parse(t.v)
	if err != nil || u.Host == "" || u.Opaque != "" {
		l.problem(t.line, key, `is no URL; write one like "https://api.example.com/path"`)
		return nil
	}
	if u.User != nil {
		l.problem(t.line, key, "has a user or password in it, which does not belong into this file")
		return nil
	}
	return u
}

func isLoopback(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback() || u.Hostname() == "localhost"
}

// caFile returns the path of a file with CA certificates, and checks that there are any; "" where there are none.
func (l *loader) caFile(key string, t text) string {
	if !t.given() {
		return ""
	}
	path := l.path(t.v)
	if err := checkCAFile(path); err != nil {
		l.lacking(t.line, key, err)
		return ""
	}
	return path
}
