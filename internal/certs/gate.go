package certs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/sender"
)

// gateTimeout bounds all checks of one name.
const gateTimeout = 30 * time.Second

// Check is one of those that a name passes before an order for it is sent.
type Check string

// The checks.
const (
	CheckSpecialUse Check = "special-use" // no public authority issues for names like example.test (RFC 6761)
	CheckDNS        Check = "dns"         // every name server that is asked has the name lead to us
	CheckCAA        Check = "caa"         // CAA records allow the authority (RFC 8659)
	CheckReach      Check = "reach"       // port 80 or 443 of the name is ours
)

// Refusal is a check that a name did not pass.
type Refusal struct {
	Check  Check
	Host   string
	Reason string // what was seen
	Advice string // what to do
	// Proven says that what is in the way was seen. It is false where something did not answer: that need not be the
	// name's fault, and may be over soon.
	Proven bool
	// Answered says that the authority was asked something meanwhile, and answered.
	Answered bool
}

// Error says the reason, and what to do.
func (r *Refusal) Error() string { return string(r.Check) + ": " + r.Reason + "; " + r.Advice }

// Unanswered is the error of a question to the authority that the gate could not do without.
type Unanswered struct{ Err error }

// Error is that of the question.
func (u *Unanswered) Error() string { return u.Err.Error() }

// Unwrap returns it.
func (u *Unanswered) Unwrap() error { return u.Err }

// held are all reasons not to send an order.
type held []error

// Error joins them on one line.
func (h held) Error() string {
	words := make([]string, len(h))
	for i, err := range h {
		words[i] = err.Error()
	}
	return strings.Join(words, "; ")
}

// Unwrap gives the single ones.
func (h held) Unwrap() []error { return h }

// hold joins the reasons to hold an order for a name; nil: there are none.
func hold(name string, reasons ...error) error {
	h := held(slices.DeleteFunc(reasons, func(err error) bool { return err == nil }))
	if len(h) == 0 {
		return nil
	}
	return fmt.Errorf("hold the order for %q: %w", name, h)
}

// Certifier is an authority as the [Gate] knows it; [ACME] is one.
type Certifier interface {
	// Name is that of its [acme.NAME] table.
	Name() string
	// Identities returns the names by which CAA records allow it (RFC 8659); none: it does not say. It is called before
	// every order.
	Identities(ctx context.Context) ([]string, error)
	// Account returns the URI of our account (RFC 8657); empty: not known. It is called where CAA records demand one.
	Account(ctx context.Context) (string, error)
	// Ways are the challenges by which it may validate a name, as CAA records have them: "http-01", "tls-alpn-01". The first
	// one is taken first.
	Ways(name string) []string
	// Prefer has the next order for a name use one of them: others are known not to work.
	Prefer(name, way string)
	// Public says that it issues for names of the public DNS only.
	Public() bool
}

// Gate looks at a name before an order for it is sent, so that none is that cannot end well: failed orders cost, and
// authorities count them. What it cannot find out holds an order too, since the authority would not find it out either.
//
// Its fields must not change after the first call. It is safe for concurrent use, but for the same name: nobody else may
// look at it or order for it meanwhile, on any node.
type Gate struct {
	// Client looks and connects. All its name servers are asked, and have to agree.
	Client *sender.Client
	// Home returns where names have to lead.
	Home func(context.Context) (sender.Home, error)
	// Values holds the answers to challenges; that of the issuers.
	Values Values
	// HTTPPort is where authorities validate by HTTP-01, and HTTPSPort where by TLS-ALPN-01: 80 and 443, but in laboratories.
	HTTPPort, HTTPSPort int
}

// Check returns nil if an order to an authority for a name may be sent. The error holds a [*Refusal] for every check
// that the name did not pass, and an [*Unanswered] if the authority was asked in vain. Without a Refusal the name is not
// to blame: our own name was not found, the store or the authority did not answer. It takes at most half a minute, mostly a second.
func (g *Gate) Check(ctx context.Context, name string, by Certifier) error {
	ctx, cancel := context.WithTimeout(ctx, gateTimeout)
	defer cancel()
	name = canonical(name)
	if zone := specialUse(name); zone != "" && by.Public() {
		return hold(name, &Refusal{ // and DNS need not be bothered with it
			Check: CheckSpecialUse, Host: name, Proven: true,
			Reason: fmt.Sprintf("names in %s are reserved, and %s does not issue for them", zone, by.Name()),
			Advice: "take the domain out, or have a CA of your own issue, whose certificates are in the ca_file of its [acme.NAME]",
		})
	}
	var addrs []netip.Addr
	var ways []string
	var misled, forbidden error
	var wg sync.WaitGroup
	asked := &asked{Certifier: by}
	wg.Go(func() { addrs, misled = g.resolve(ctx, name) })
	wg.Go(func() { ways, forbidden = g.authorized(ctx, name, asked) })
	wg.Wait()
	var unreached error
	if misled == nil { // else it would be somebody else's port that is knocked at
		if forbidden != nil {
			ways = by.Ways(name)
		}
		var way string
		if way, unreached = g.reach(ctx, name, addrs, ways); way != "" {
			by.Prefer(name, way)
		}
	}
	for _, err := range []error{misled, forbidden, unreached} {
		if r, ok := errors.AsType[*Refusal](err); ok {
			r.Answered = asked.answered
		}
	}
	return hold(name, misled, forbidden, unreached)
}

// asked is an authority of which it is noted whether it answers.
type asked struct {
	Certifier
	answered bool // the last question
}

// Identities is for Certifier.
func (a *asked) Identities(ctx context.Context) ([]string, error) {
	names, err := a.Certifier.Identities(ctx)
	a.answered = err == nil
	return names, err
}

// Account is for Certifier.
func (a *asked) Account(ctx context.Context) (string, error) {
	uri, err := a.Certifier.Account(ctx)
	a.answered = err == nil
	return uri, err
}

// Target looks at the CAA records of the name that customers' CNAMEs lead to: they bind every customer (RFC 8659,
// Section 3). The error is a [*Refusal] if they do not allow an authority.
func (g *Gate) Target(ctx context.Context, host string, by Certifier) error {
	ctx, cancel := context.WithTimeout(ctx, gateTimeout)
	defer cancel()
	set, err := caaAt(ctx, g.Client.Resolver, canonical(host))
	_, err = g.judgeCAA(ctx, host, set, err, by)
	return err
}

// authorized returns the ways to validate a name that CAA records allow to an authority. The authority is asked for its
// names whether or not there are any: an order needs its directory too.
func (g *Gate) authorized(ctx context.Context, name string, by Certifier) ([]string, error) {
	if _, err := by.Identities(ctx); err != nil {
		return nil, &Unanswered{err}
	}
	set, err := findCAA(ctx, g.Client.Resolver, name)
	return g.judgeCAA(ctx, name, set, err, by)
}

func (g *Gate) judgeCAA(ctx context.Context, name string, set caaSet, err error, by Certifier) ([]string, error) {
	if err != nil {
		return nil, &Refusal{
			Check: CheckCAA, Host: name, Reason: err.Error(),
			Advice: "no authority issues without an answer: have the name servers of the zone answer questions for CAA",
		}
	}
	if len(set.records) == 0 {
		return by.Ways(name), nil
	}
	identities, err := by.Identities(ctx)
	if err != nil {
		return nil, &Unanswered{err}
	}
	account := ""
	if set.bindsAccount() {
		if account, err = by.Account(ctx); err != nil {
			return nil, &Unanswered{err}
		}
	}
	ways, err := set.allow(issuer{identities, account}, by.Ways(name))
	if err != nil {
		add := "take that away"
		if len(identities) > 0 && !errors.Is(err, errCritical) {
			add = fmt.Sprintf("add there: CAA 0 issue %q", identities[0])
		}
		return nil, &Refusal{
			Check: CheckCAA, Host: name, Proven: true, Advice: add,
			Reason: fmt.Sprintf("the CAA records of %s exclude %s: %v", set.at, by.Name(), err),
		}
	}
	return ways, nil
}

// sight is what one name server says of a name.
type sight struct {
	server string
	sender.Addresses
	err error
}

// resolve asks all name servers where a name leads, and returns its addresses if that is to us, as far as they answer.
func (g *Gate) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	home, err := g.Home(ctx)
	if err != nil {
		return nil, err
	}
	var all []*sight
	var wg sync.WaitGroup
	for server, r := range g.Client.Resolver.Each(name) {
		s := &sight{server: server}
		all = append(all, s)
		wg.Go(func() { s.Addresses, s.err = r.Addrs(ctx, name) })
	}
	wg.Wait()
	if len(all) == 0 {
		return nil, errors.New("no name server to ask; name resolvers in [dns]")
	}
	return judgeSights(name, home, all)
}

// judgeSights: a server that is silent has no voice while another one has, for it says nothing about the name.
func judgeSights(name string, home sender.Home, all []*sight) ([]netip.Addr, error) {
	voices := slices.DeleteFunc(slices.Clone(all), func(s *sight) bool { return sender.Silent(s.err) })
	if len(voices) == 0 {
		voices = all
	}
	var addrs []netip.Addr
	var seen []string // what, in the order of the servers
	by := make(map[string][]string)
	ours, proven := 0, false
	for _, s := range voices {
		what := s.text()
		if s.err == nil && len(s.Addrs) > 0 && home.Leads(s.Addresses) {
			ours++
			addrs = append(addrs, s.Addrs...)
			what = "ours"
		} else if s.err == nil {
			proven = true
		}
		if by[what] = append(by[what], s.server); len(by[what]) == 1 {
			seen = append(seen, what)
		}
	}
	if ours == len(voices) {
		slices.SortFunc(addrs, netip.Addr.Compare)
		return slices.Compact(addrs), nil
	}
	for i, what := range seen {
		seen[i] = what + " (" + strings.Join(by[what], ", ") + ")"
	}
	return nil, &Refusal{
		Check: CheckDNS, Host: name, Proven: proven,
		Reason: "it does not lead here, seen: " + strings.Join(seen, ", "),
		Advice: fmt.Sprintf("set CNAME %s → %s, or give it no addresses but ours", name, home.Name),
	}
}

// text is what was seen in a few words.
func (s *sight) text() string {
	var addrs []string
	for _, a := range s.Addrs {
		addrs = append(addrs, a.String())
	}
	end := strings.Join(addrs, " ")
	switch {
	case s.err != nil:
		return s.err.Error()
	case s.NXDomain:
		end = "NXDOMAIN"
	case end == "":
		end = "no address"
	}
	if len(s.Chain) > 0 {
		return "CNAME " + strings.Join(s.Chain, " → ") + ", " + end
	}
	return end
}
