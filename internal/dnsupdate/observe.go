package dnsupdate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/sender"
)

// atOnce is how many servers are asked about one name at a time.
const atOnce = 8

// Observer asks every address of every authoritative server of a name's zone. Which servers those are is found through
// Resolver and remembered for a few minutes; what they answer is never remembered. Where a stub of the Resolver covers
// the zone, the stub's servers are asked in place of those that the zone names. Its fields must not change after the first
// call. It is safe for concurrent use.
type Observer struct {
	Resolver *sender.Resolver
	// Port is where name servers are asked; zero means 53. Another one is for laboratories.
	Port uint16
	// Guard keeps questions on the public Internet: who owns a zone says where its name servers are. One at an address that
	// is not let through counts as one that does not answer. A stub's are always asked. Nil: all are.
	Guard *sender.Guard
	// Own says whether the servers of a zone that a name is in are asked wherever they are. Nil: those of none are.
	Own func(ctx context.Context, zone, name string) bool

	zones   cache[string] // name → zone
	servers cache[[]server]
}

// Observe asks for the records of a type at a name. An error means that the zone or its servers cannot be found at all;
// servers that do not answer are in the View.
func (o *Observer) Observe(ctx context.Context, name string, qtype uint16) (View, error) {
	v := View{Name: unfqdn(name)}
	var err error
	if v.Zone, err = o.zoneOf(ctx, v.Name); err != nil {
		return v, fmt.Errorf("observe %s %q: %w", dns.TypeToString[qtype], v.Name, err)
	}
	servers, err := o.serversOf(ctx, v.Zone)
	if err != nil {
		return v, fmt.Errorf("observe %s %q: %w", dns.TypeToString[qtype], v.Name, err)
	}
	servers = o.guarded(ctx, v, servers)
	answers := make([]Answer, len(servers))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, s := range servers {
		g.Go(func() error {
			answers[i] = o.ask(ctx, s, v.Name, qtype)
			return nil
		})
	}
	_ = g.Wait()
	v.Answers = reachable(servers, answers)
	return v, nil
}

// errInside is said in place of an address: the name of a server may be one of our network, and a stranger's zone names it.
var errInside = errors.New("its address is outside of the public Internet, so it is not asked; if it is meant, add it to " +
	"allow_private in [check], or the zone to stub in [dns]")

// guarded puts errInside in place of the addresses that are not to be asked, once a server.
func (o *Observer) guarded(ctx context.Context, v View, servers []server) []server {
	inside := func(s server) bool { return s.host != "" && s.err == nil && o.Guard.Lets(ctx, s.addr) != nil }
	if o.Guard == nil || !slices.ContainsFunc(servers, inside) || o.Own != nil && o.Own(ctx, v.Zone, v.Name) {
		return servers
	}
	var out []server
	told := make(map[string]bool)
	for _, s := range servers {
		switch {
		case !inside(s):
			out = append(out, s)
		case !told[s.host]:
			told[s.host] = true
			out = append(out, server{host: s.host, err: errInside})
		}
	}
	return out
}

// ask puts the question to one address, without recursion: only what the server itself is authoritative for counts.
func (o *Observer) ask(ctx context.Context, s server, name string, qtype uint16) Answer {
	a := Answer{Server: s.String()}
	if s.err != nil {
		a.Err = s.err
		return a
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m.RecursionDesired = false
	r, err := o.Resolver.Exchange(ctx, s.addr, m)
	switch {
	case err != nil:
		a.Err = err
	case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
		a.Err = fmt.Errorf("name server %s: %s", a.Server, dns.RcodeToString[r.Rcode])
	case !r.Authoritative:
		a.Err = fmt.Errorf("name server %s: not authoritative for %q", a.Server, name)
	default:
		a.fill(r, name, qtype)
	}
	return a
}

// fill takes from a message what it says about the name itself.
func (a *Answer) fill(r *dns.Msg, name string, qtype uint16) {
	ttl := -1
	least := func(n uint32) {
		if ttl < 0 || int(n) < ttl {
			ttl = int(n)
		}
	}
	for _, rr := range r.Answer {
		if unfqdn(rr.Header().Name) != name || rr.Header().Class != dns.ClassINET {
			continue
		}
		cname, isAlias := rr.(*dns.CNAME)
		asked := rr.Header().Rrtype == qtype
		if isAlias {
			a.CNAME = unfqdn(cname.Target)
		}
		if asked {
			a.RRs = append(a.RRs, rr)
		}
		if !asked && !isAlias {
			continue // a signature, for example
		}
		if txt, ok := rr.(*dns.TXT); ok {
			a.TXT = append(a.TXT, text(txt))
		}
		least(rr.Header().Ttl)
	}
	// With a CNAME the code is about its target.
	a.NXDomain = r.Rcode == dns.RcodeNameError && a.CNAME == ""
	for _, rr := range r.Ns {
		if soa, ok := rr.(*dns.SOA); ok && ttl < 0 {
			least(min(soa.Hdr.Ttl, soa.Minttl))
		}
	}
	a.TTL = time.Duration(max(ttl, 0)) * time.Second
}

// reachable leaves out the addresses that this machine has no route to, typically IPv6, where the same server has another
// one. The server is then seen as others see it; asking for more would hold every publication on such a machine.
func reachable(servers []server, answers []Answer) []Answer {
	asked := make(map[string]bool)
	for i, a := range answers {
		if !noRoute(a.Err) {
			asked[servers[i].host] = true
		}
	}
	var out []Answer
	for i, a := range answers {
		if !noRoute(a.Err) || !asked[servers[i].host] {
			out = append(out, a)
		}
	}
	return out
}

func noRoute(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}
