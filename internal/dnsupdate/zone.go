package dnsupdate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// remember is how long it is believed where a zone begins and who serves it; parents' TTLs are longer.
	remember = 5 * time.Minute
	// maxRemembered bounds each cache.
	maxRemembered = 10_000
	// maxServers bounds the name servers of a zone, and their addresses: a customer's DNS names them, and all are asked.
	// The root has 26 addresses.
	maxServers = 64
)

// server is one address of a name server.
type server struct {
	host string // empty for a stub's
	addr string // "ADDR:PORT"
	err  error  // the address is not known, or not to be asked
}

func (s server) String() string { return strings.TrimSpace(s.host + " " + s.addr) }

// zoneOf climbs from the name until something has an SOA record. What it passes is remembered, too, so that the next name
// beside this one costs one question.
func (o *Observer) zoneOf(ctx context.Context, name string) (string, error) {
	var passed []string
	for at := name; ; at = parent(at) {
		zone, known := o.zones.get(at)
		if !known {
			a, err := o.Resolver.Lookup(ctx, at, dns.TypeSOA)
			if err != nil && !o.isAlias(ctx, at) {
				return "", fmt.Errorf("find zone: %w", err)
			}
			passed = append(passed, at)
			// With a CNAME it is the SOA of another place.
			if len(a.RRs) > 0 && len(a.Chain) == 0 {
				zone, known = at, true
			}
		}
		if known {
			for _, p := range passed {
				o.zones.put(p, zone)
			}
			return zone, nil
		}
		if at == "." {
			return "", errors.New("find zone: not even the root has an SOA record; see resolvers and stub in [dns]")
		}
	}
}

// isAlias says whether a name is a CNAME. The place that it leads to may be broken; the name's own zone is not there.
func (o *Observer) isAlias(ctx context.Context, name string) bool {
	a, err := o.Resolver.Lookup(ctx, name, dns.TypeCNAME)
	return err == nil && len(a.RRs) > 0
}

func parent(name string) string {
	if _, rest, ok := strings.Cut(name, "."); ok && rest != "" {
		return rest
	}
	return "."
}

// serversOf finds the addresses of the zone's name servers.
func (o *Observer) serversOf(ctx context.Context, zone string) ([]server, error) {
	if _, addrs, ok := o.Resolver.StubFor(zone); ok {
		var out []server
		for _, a := range addrs {
			out = append(out, server{addr: a})
		}
		return out, nil
	}
	if servers, ok := o.servers.get(zone); ok {
		return servers, nil
	}
	ns, err := o.Resolver.Lookup(ctx, zone, dns.TypeNS)
	if err != nil {
		return nil, fmt.Errorf("find name servers of %q: %w", zone, err)
	}
	var out []server
	known, many := true, len(ns.RRs) > maxServers
	for i := 0; i < len(ns.RRs) && !many; i++ {
		found, whole := o.addressesOf(ctx, unfqdn(ns.RRs[i].(*dns.NS).Ns))
		out = append(out, found...)
		known, many = known && whole, len(out) > maxServers
	}
	if many {
		return nil, fmt.Errorf("find name servers of %q: it has more than %d, or they have more addresses", zone, maxServers)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("find name servers of %q: none has an address", zone)
	}
	if known {
		o.servers.put(zone, out)
	}
	return out, nil
}

// addressesOf returns a name server's addresses. One that has none serves nobody, so it is left out; one whose addresses
// cannot be learned may serve others and is kept, as a server that does not answer. whole is whether nothing failed.
func (o *Observer) addressesOf(ctx context.Context, host string) (out []server, whole bool) {
	a, err := o.Resolver.Addrs(ctx, host)
	for _, ip := range a.Addrs {
		out = append(out, server{host: host, addr: netip.AddrPortFrom(ip, cmp.Or(o.Port, 53)).String()})
	}
	if err != nil {
		out = append(out, server{host: host, err: fmt.Errorf("find name server %q: %w", host, err)})
	}
	return out, err == nil
}

// cache remembers a bounded number of answers for a while. The zero value is ready.
type cache[V any] struct {
	mu      sync.Mutex // guards entries
	entries map[string]cached[V]
}

type cached[V any] struct {
	value V
	until time.Time
}

func (c *cache[V]) get(key string) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	return e.value, ok && time.Now().Before(e.until)
}

func (c *cache[V]) put(key string, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = make(map[string]cached[V])
	}
	if len(c.entries) >= maxRemembered {
		clear(c.entries) // all at once: it costs some questions, rarely
	}
	c.entries[key] = cached[V]{value, time.Now().Add(remember)}
}

func (c *cache[V]) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
}
