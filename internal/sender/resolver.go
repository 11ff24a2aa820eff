package sender

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxChain is how many CNAMEs are followed; resolvers in use stop between 8 and 16.
	maxChain = 10
	// ednsSize is what passes the paths of the Internet unfragmented; more is asked for over TCP.
	ednsSize = 1232
	// defaultTimeout of one question to one server.
	defaultTimeout = 5 * time.Second
)

// Resolver asks DNS servers. It keeps no cache: what it returns was answered just now, though recursive servers answer
// from caches of their own. Its fields must not change after the first call. It is safe for concurrent use.
type Resolver struct {
	// Servers are recursive servers as "ADDR:PORT". The next one is asked when one fails. See [SystemServers].
	Servers []string
	// Stub holds, for a zone ("." for all), the servers that are asked in place of Servers for names in it. The longest
	// zone wins. They may be authoritative only.
	Stub map[string][]string
	// Timeout is how long one server has for one question; zero means 5 s.
	Timeout time.Duration

	lines lines
}

// Answer is what DNS says about one name and type. That there is nothing is an answer as well: NXDomain, or no RRs.
type Answer struct {
	Chain    []string      // targets of the CNAMEs that were followed, in order, lower case, without trailing dot
	RRs      []dns.RR      // records of the type asked for, at the end of the chain
	NXDomain bool          // the name at the end of the chain does not exist
	TTL      time.Duration // the smallest along the chain; of the SOA (RFC 2308, Section 5) where there is nothing
	MaxTTL   time.Duration // the largest along the chain: a change anywhere in it is seen everywhere after that
}

// SystemServers returns the name servers of /etc/resolv.conf as "ADDR:PORT", for [Resolver].Servers.
func SystemServers() ([]string, error) { return serversOf("/etc/resolv.conf") }

func serversOf(path string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("read name servers: %w", err)
	}
	var servers []string
	for _, s := range conf.Servers {
		servers = append(servers, net.JoinHostPort(s, conf.Port))
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("read name servers: %s has no nameserver line; name resolvers in [dns]", path)
	}
	return servers, nil
}

// StubFor returns the longest zone of Stub that name is in (without trailing dot, "." for the root), with its servers.
func (r *Resolver) StubFor(name string) (zone string, servers []string, ok bool) {
	name = dns.CanonicalName(name)
	longest := 0
	for key, s := range r.Stub {
		z := dns.CanonicalName(key)
		if dns.IsSubDomain(z, name) && len(z) > longest {
			longest, servers = len(z), s
			zone = unfqdn(z)
		}
	}
	return zone, servers, longest > 0
}

// Each yields the servers that may be asked about a name, "ADDR:PORT", each with a Resolver that asks no other one, so that
// what they say can be compared. What the name's CNAMEs lead to, where another zone of Stub covers it, is asked of all.
func (r *Resolver) Each(name string) iter.Seq2[string, *Resolver] {
	return func(yield func(string, *Resolver) bool) {
		zone, servers, stub := r.StubFor(name)
		if !stub {
			servers = r.Servers
		}
		for _, server := range servers {
			one := &Resolver{Servers: []string{server}, Stub: r.Stub, Timeout: r.Timeout}
			if stub {
				one.Servers, one.Stub = r.Servers, maps.Clone(r.Stub)
				maps.DeleteFunc(one.Stub, func(key string, _ []string) bool { return dns.CanonicalName(key) == dns.CanonicalName(zone) })
				one.Stub[zone] = []string{server}
			}
			if !yield(server, one) {
				return
			}
		}
	}
}

// silence is the error of a server that did not answer.
type silence struct{ error }

func (s silence) Unwrap() error { return s.error }

// Silent says of an error that a name server did not answer at all. What it would have answered is not known then; where
// it answered SERVFAIL or REFUSED it is known that others get no better answer from it.
func Silent(err error) bool { return errors.As(err, new(silence)) }

// Exchange sends one message to one server, "ADDR:PORT", and returns its answer whatever its code. It asks over UDP with
// EDNS0, a second time after half of Timeout, and over TCP where the answer is truncated, or where many questions are under way
// to the server and this one is not recursive. An answer to another question is an error; of all other errors [Silent] is
// true. The message must not be signed.
func (r *Resolver) Exchange(ctx context.Context, server string, m *dns.Msg) (*dns.Msg, error) {
	if m.IsEdns0() == nil {
		m = m.Copy()
		m.SetEdns0(ednsSize, false)
	}
	tries := 2
	if m.Opcode != dns.OpcodeQuery {
		tries = 1 // only questions may be repeated without harm
	}
	var answer *dns.Msg
	var err error
	busy, leave := r.lines.enter(server)
	defer leave()
	if busy != nil && m.Opcode == dns.OpcodeQuery && !m.RecursionDesired {
		begun, limit := time.Now(), r.timeout()/time.Duration(tries)
		if answer = busy.ask(ctx, m, limit); answer != nil {
			tries = 0
		} else if time.Since(begun) >= limit {
			tries--
		}
	}
	for range tries {
		answer, err = roundTrip(ctx, "udp", server, m, r.timeout()/time.Duration(tries))
		if !isTimeout(err) || ctx.Err() != nil {
			break
		}
	}
	if answer != nil && answer.Truncated {
		answer, err = roundTrip(ctx, "tcp", server, m, r.timeout())
	}
	if err == nil {
		err = checkAnswer(m, answer)
	}
	var malformed *dns.Error
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &malformed):
		err = fmt.Errorf("malformed answer: %w", err)
	case answer != nil: // it was not to this question
	case ctx.Err() != nil:
		err = silence{context.Cause(ctx)}
	case isTimeout(err):
		err = silence{fmt.Errorf("no answer within %v", r.timeout())}
	default:
		err = silence{err}
	}
	return nil, fmt.Errorf("ask name server %s: %w", server, err)
}

func (r *Resolver) timeout() time.Duration {
	if r.Timeout > 0 {
		return r.Timeout
	}
	return defaultTimeout
}

// roundTrip may return a message together with an error: a truncated one need not be whole.
func roundTrip(ctx context.Context, network, server string, m *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c := &dns.Client{Net: network, Timeout: timeout}
	conn, err := c.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// The library looks at the context's deadline only.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return answer, err
}

// isTimeout is true for the deadlines of contexts and of connections.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// checkAnswer compares the questions; the library has compared the ids.
func checkAnswer(m, answer *dns.Msg) error {
	if !answer.Response || answer.Opcode != m.Opcode {
		return errors.New("malformed answer: not an answer to this kind of message")
	}
	if m.Opcode != dns.OpcodeQuery || len(answer.Question) == 0 && answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
		return nil // servers that refuse may leave the question out
	}
	if len(answer.Question) != 1 || len(m.Question) != 1 {
		return errors.New("malformed answer: not one question")
	}
	asked, got := m.Question[0], answer.Question[0]
	if asked.Qtype != got.Qtype || asked.Qclass != got.Qclass || dns.CanonicalName(asked.Name) != dns.CanonicalName(got.Name) {
		return fmt.Errorf("malformed answer: it is for %q", got.Name)
	}
	return nil
}

// Lookup asks for the records of a type at a name and follows CNAMEs, by itself where the servers' answers stop short.
// An error means that nothing is proven: no answer, SERVFAIL, REFUSED, a malformed answer, or a loop of CNAMEs.
func (r *Resolver) Lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	a := Answer{TTL: -1} // until the first one is seen
	fail := func(err error) (Answer, error) {
		return Answer{}, fmt.Errorf("look up %s %q: %w", dns.TypeToString[qtype], name, err)
	}
	current := dns.CanonicalName(name)
	if _, ok := dns.IsDomainName(current); !ok {
		return fail(errors.New("not a domain name"))
	}
	for {
		m, err := r.ask(ctx, current, qtype)
		if err != nil {
			return fail(err)
		}
		next, err := r.follow(&a, m, current, qtype)
		if err != nil {
			return fail(err)
		}
		if len(a.RRs) > 0 {
			return a, nil
		}
		if next == current {
			a.NXDomain = m.Rcode == dns.RcodeNameError
			a.addTTL(negativeTTL(m))
			return a, nil
		}
		current = next
	}
}

// ask puts one question to the servers for the name until one has an answer.
func (r *Resolver) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	_, servers, stub := r.StubFor(name)
	if !stub {
		servers = r.Servers
	}
	if len(servers) == 0 {
		return nil, errors.New("no name server to ask; name resolvers in [dns]")
	}
	var all error
	for _, server := range servers {
		q := new(dns.Msg).SetQuestion(name, qtype)
		m, err := r.Exchange(ctx, server, q)
		if err == nil {
			if err = proves(m); err == nil {
				return m, nil
			}
			err = fmt.Errorf("name server %s: %w", server, err)
		}
		if all != nil {
			err = fmt.Errorf("%w; %w", all, err) // on one line, for it ends in sentences
		}
		all = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, all
}

// proves tells answers from refusals. A referral is none: the server asked is neither recursive nor authoritative.
func proves(m *dns.Msg) error {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return errors.New(dns.RcodeToString[m.Rcode])
	}
	if m.Rcode == dns.RcodeNameError || len(m.Answer) > 0 || m.Authoritative {
		return nil
	}
	referral := false
	for _, rr := range m.Ns {
		switch rr.Header().Rrtype {
		case dns.TypeSOA:
			return nil
		case dns.TypeNS:
			referral = true
		}
	}
	if referral {
		return errors.New("it refers to other servers instead of answering")
	}
	return nil
}

// follow takes what m says about name into a and returns the name to ask for next: name itself if m says all there is.
// What a stub server says about names that other servers stand for is left alone.
func (r *Resolver) follow(a *Answer, m *dns.Msg, name string, qtype uint16) (string, error) {
	zone, _, _ := r.StubFor(name)
	for {
		if z, _, _ := r.StubFor(name); z != zone {
			return name, nil
		}
		var cname *dns.CNAME
		for _, rr := range m.Answer {
			if dns.CanonicalName(rr.Header().Name) != name || rr.Header().Class != dns.ClassINET {
				continue
			}
			if rr.Header().Rrtype == qtype {
				a.RRs = append(a.RRs, rr)
				a.addTTL(ttl(rr))
			} else if c, ok := rr.(*dns.CNAME); ok && cname == nil {
				cname = c
			}
		}
		if len(a.RRs) > 0 || cname == nil {
			return name, nil
		}
		name = dns.CanonicalName(cname.Target)
		a.Chain = append(a.Chain, unfqdn(name))
		a.addTTL(ttl(cname))
		if len(a.Chain) > maxChain {
			return "", fmt.Errorf("more than %d CNAMEs in a row, or a loop of them", maxChain)
		}
	}
}

// addTTL takes the TTL of one link of the chain into account.
func (a *Answer) addTTL(d time.Duration) {
	if a.TTL < 0 || d < a.TTL {
		a.TTL = d
	}
	a.MaxTTL = max(a.MaxTTL, d)
}

func ttl(rr dns.RR) time.Duration {
	return time.Duration(rr.Header().Ttl) * time.Second
}

// negativeTTL is how long caches may hold that there is nothing. RFC 2308, Section 5.
func negativeTTL(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(ttl(soa), time.Duration(soa.Minttl)*time.Second)
		}
	}
	return 0
}

// unfqdn takes the trailing dot off, but the root stays ".".
func unfqdn(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}
