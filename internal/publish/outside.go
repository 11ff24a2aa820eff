package publish

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/sender"
)

// Outside is the [Sight] of a running service. Its fields must not change after the first call.
type Outside struct {
	Client    *sender.Client
	Observer  *dnsupdate.Observer
	Hostname  string       // the target of customers' CNAMEs
	Addresses []netip.Addr // ours beside those that Hostname resolves to
	Node      string       // "ADDR:PORT" of this node's own listener
	Values    Values       // remembers our addresses over restarts
	// Peers returns "ADDR:PORT" of the listeners of other nodes. Nil: there are none.
	Peers func(context.Context) ([]string, error)

	probes probes

	mu      sync.Mutex // guards the fields below
	own     place
	looked  time.Time // when own was
	believe time.Time // and until when it, or lost, is believed
	lost    error     // why own is not known
}

// Values is the part of the store that Outside needs; [store.Store] has it.
type Values interface {
	Value(ctx context.Context, key string) ([]byte, error)
	SetValue(ctx context.Context, key string, value []byte) error
}

// lookTime bounds one look: senders in use give up after 2 to 60 seconds.
const lookTime = 20 * time.Second

var _ Sight = (*Outside)(nil)

// Prior looks for a policy host and for STSv1 records, where they are when nobody else has a hand in it.
func (o *Outside) Prior(ctx context.Context, name policygen.Name) Prior {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	v, err := o.Observer.Observe(ctx, name.RecordName(), dns.TypeTXT)
	p := Prior{Existed: err != nil || !v.Absent(), Record: err == nil && v.Complete() && !v.Absent()}
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if p.Existed {
			break
		}
		v, err := o.Observer.Observe(ctx, name.PolicyHost(), qtype)
		p.Existed = err != nil || !nothing(v)
	}
	return p
}

// nothing says that every server answered that there is nothing.
func nothing(v dnsupdate.View) bool {
	return v.Complete() && !slices.ContainsFunc(v.Answers, func(a dnsupdate.Answer) bool { return a.CNAME != "" || len(a.RRs) > 0 })
}

// Host asks every authoritative server of the domain, so that no cache delays the news.
func (o *Outside) Host(ctx context.Context, name policygen.Name, target string) Host {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	host := name.PolicyHost()
	waiting := fmt.Sprintf("waiting for: CNAME %s → %s", host, target)
	us, old, err := o.ourPlace(ctx)
	if err != nil {
		return Host{Reason: fmt.Sprintf("%s; our own name %s has no address: %s", waiting, o.Hostname, withoutStore(err))}
	}
	home := o.home(us)
	home.Target = target
	h := o.pointsTo(ctx, host, home, waiting)
	if h.Ours {
		h.TTL = max(time.Until(old), 0)
	}
	return h
}

// pointsTo says whether a policy host leads to our addresses only, or by CNAME to our name.
func (o *Outside) pointsTo(ctx context.Context, host string, us sender.Home, waiting string) Host {
	v4, err := o.Observer.Observe(ctx, host, dns.TypeA)
	if err != nil {
		return Host{Reason: fmt.Sprintf("%s; its zone's name servers were not found: %v", waiting, err)}
	}
	if v4.CNAME() != "" {
		return o.hostByCNAME(ctx, v4, us, waiting)
	}
	v6, err := o.Observer.Observe(ctx, host, dns.TypeAAAA)
	if err != nil {
		return Host{Reason: fmt.Sprintf("%s; its zone's name servers were not found: %v", waiting, err)}
	}
	found := append(addresses(v4), addresses(v6)...)
	complete := v4.Complete() && v6.Complete()
	switch {
	case us.Holds(found):
		return Host{Ours: true}
	case len(found) > 0:
		return Host{
			Proven: complete, TTL: max(v4.MaxTTL(), v6.MaxTTL(), time.Second),
			Reason: fmt.Sprintf("%s, last seen addresses %s", waiting, join(found)),
		}
	case !complete:
		return Host{Reason: waiting + ", last seen " + failures(v4)}
	}
	return Host{Proven: true, Reason: waiting + ", last seen " + emptiness(v4)}
}

// hostByCNAME judges a policy host that is a CNAME at one server at least.
func (o *Outside) hostByCNAME(ctx context.Context, v dnsupdate.View, us sender.Home, waiting string) Host {
	ours, others := 0, ""
	var ttl time.Duration
	for _, a := range v.Answers {
		switch {
		case a.Err != nil:
		case us.Is(a.CNAME):
			ours++
		case a.CNAME != "":
			end, err := o.Client.Resolver.Addrs(ctx, a.CNAME)
			if err == nil && us.Leads(end) {
				ours++
				continue
			}
			others, ttl = "CNAME "+a.CNAME, max(ttl, a.TTL, end.TTL, time.Second)
		default:
			others = "no CNAME at " + a.Server
		}
	}
	if others == "" && ours > 0 {
		return Host{Ours: true}
	}
	return Host{Proven: v.Complete() && ours == 0, TTL: ttl, Reason: waiting + ", last seen " + others}
}

// Body fetches from this node, from the others, and by the public name, all as a sender would.
func (o *Outside) Body(ctx context.Context, name policygen.Name, text string) Body {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	f, err := o.Client.FetchPolicyAt(ctx, name, o.Node)
	if why := differs(f, err, text); why != "" {
		return Body{Reason: "this node does not serve the policy yet: " + why}
	}
	if why := o.atPeers(ctx, name, text); why != "" {
		return Body{Reason: why}
	}
	f, err = o.Client.FetchPolicy(ctx, name)
	if why := differs(f, err, text); why != "" {
		return Body{Reason: "the policy is not seen from outside at https://" + name.PolicyHost() + "/: " + why}
	}
	return Body{Live: true}
}

// atPeers says why some other node is not seen to serve a policy.
func (o *Outside) atPeers(ctx context.Context, name policygen.Name, text string) string {
	if o.Peers == nil {
		return ""
	}
	peers, err := o.Peers(ctx)
	if err != nil {
		return "the other nodes are not known: " + withoutStore(err)
	}
	found := make([]string, len(peers))
	var looks sync.WaitGroup
	for i, at := range peers {
		looks.Go(func() {
			f, err := o.Client.FetchPolicyAt(ctx, name, at)
			if why := differs(f, err, text); why != "" {
				found[i] = fmt.Sprintf("the node at %s does not serve the policy yet: %s", at, why)
			}
		})
	}
	looks.Wait()
	return cmp.Or(found...)
}

func differs(f sender.Fetched, err error, text string) string {
	switch {
	case err != nil:
		return err.Error()
	case string(f.Body) != text:
		return fmt.Sprintf("%s answers another policy (%d octets)", f.Addr, len(f.Body))
	}
	return ""
}

// TXT asks every address of every authoritative server.
func (o *Outside) TXT(ctx context.Context, record string) TXT {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	v, err := o.Observer.Observe(ctx, record, dns.TypeTXT)
	if err != nil {
		return TXT{Servers: []Server{{Name: record, Err: err.Error()}}}
	}
	t := TXT{Zone: v.Zone}
	for _, a := range v.Answers {
		s := Server{Name: a.Server, CNAME: a.CNAME, TTL: a.TTL}
		if a.Err != nil {
			s.Err = a.Err.Error()
		} else {
			s.STS, s.Others = a.STS(), len(a.Strangers())
		}
		t.Servers = append(t.Servers, s)
	}
	return t
}

// MX compares the domain's MX with a policy; a domain without MX is its own (RFC 5321, Section 5.1).
func (o *Outside) MX(ctx context.Context, name policygen.Name, text string) MX {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	p, err := policygen.ParsePolicy([]byte(text))
	if err != nil {
		return MX{Reason: err.Error()}
	}
	hosts, err := o.mxHosts(ctx, name)
	if err != nil {
		return MX{Reason: err.Error()}
	}
	return MX{Known: true, Uncovered: slices.DeleteFunc(hosts, p.Covers)}
}

// mxHosts are the hosts that take the domain's mail, sorted, each once.
func (o *Outside) mxHosts(ctx context.Context, name policygen.Name) ([]string, error) {
	a, err := o.Client.Resolver.Lookup(ctx, string(name), dns.TypeMX)
	if err != nil {
		return nil, err
	}
	hosts := []string{}
	for _, rr := range a.RRs {
		if mx, ok := rr.(*dns.MX); ok && mx.Mx != "." { // a null MX takes no mail (RFC 7505)
			hosts = append(hosts, strings.ToLower(strings.TrimSuffix(mx.Mx, ".")))
		}
	}
	if len(a.RRs) == 0 && !a.NXDomain {
		hosts = o.implicitMX(ctx, name)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), nil
}

// implicitMX is the domain itself, if it has an address; one without takes no mail.
func (o *Outside) implicitMX(ctx context.Context, name policygen.Name) []string {
	if a, err := o.Client.Resolver.Addrs(ctx, string(name)); err == nil && len(a.Addrs) == 0 {
		return nil
	}
	return []string{string(name)}
}

// Foreign fetches a policy as senders do.
func (o *Outside) Foreign(ctx context.Context, name policygen.Name) string {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	f, err := o.Client.FetchPolicy(ctx, name)
	if err != nil {
		return ""
	}
	p, err := policygen.ParsePolicy(f.Body)
	if err != nil {
		return ""
	}
	return p.Text()
}

// Delegation asks the authoritative servers of the customer's zone for the CNAME, and follows a longer chain.
func (o *Outside) Delegation(ctx context.Context, name policygen.Name, record string) Delegation {
	return o.delegation(ctx, name.RecordName(), record, policygen.IsSTSv1)
}

// delegation is about a name of the customer's at which a TXT of a kind is to be found by a CNAME.
func (o *Outside) delegation(ctx context.Context, owner, record string, kind func(string) bool) Delegation {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	waiting := fmt.Sprintf("waiting for: CNAME %s → %s", owner, record)
	v, err := o.Observer.Observe(ctx, owner, dns.TypeTXT)
	if err != nil {
		return Delegation{Failed: true, Reason: fmt.Sprintf("%s; its zone's name servers were not found: %v", waiting, err)}
	}
	answered := 0
	for _, a := range v.Answers {
		switch {
		case a.Err != nil:
			continue
		case a.CNAME == record:
		case a.CNAME != "" && o.leadsTo(ctx, a.CNAME, record):
		case a.CNAME != "":
			return Delegation{Reason: waiting + ", last seen CNAME " + a.CNAME}
		case slices.ContainsFunc(a.TXT, kind):
			there := a.TXT[slices.IndexFunc(a.TXT, kind)]
			return Delegation{Reason: fmt.Sprintf("%s, last seen a TXT record %q there: replace it by the CNAME", waiting, there)}
		default:
			return Delegation{Reason: waiting + ", last seen " + emptiness(v)}
		}
		answered++
	}
	if answered == 0 {
		return Delegation{Failed: true, Reason: waiting + ", last seen " + failures(v)}
	}
	return Delegation{Ours: true}
}

func (o *Outside) leadsTo(ctx context.Context, from, record string) bool {
	a, err := o.Client.Resolver.Lookup(ctx, from, dns.TypeTXT)
	return err == nil && slices.Contains(a.Chain, record)
}

// addresses are those of every answer.
func addresses(v dnsupdate.View) []netip.Addr {
	var all []netip.Addr
	for _, a := range v.Answers {
		for _, rr := range a.RRs {
			var ip netip.Addr
			switch rr := rr.(type) {
			case *dns.A:
				ip, _ = netip.AddrFromSlice(rr.A.To4())
			case *dns.AAAA:
				ip, _ = netip.AddrFromSlice(rr.AAAA)
			}
			if ip.IsValid() && !slices.Contains(all, ip) {
				all = append(all, ip)
			}
		}
	}
	return all
}

func join(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ", ")
}

// failures says why the servers that did not answer did not.
func failures(v dnsupdate.View) string {
	var parts []string
	for _, a := range v.Failed() {
		parts = append(parts, fmt.Sprintf("%s: %v", a.Server, a.Err))
	}
	return "no answer (" + strings.Join(parts, "; ") + ")"
}

// emptiness says how there is nothing.
func emptiness(v dnsupdate.View) string {
	for _, a := range v.Answers {
		if a.NXDomain {
			return "NXDOMAIN"
		}
	}
	return "no such record"
}
