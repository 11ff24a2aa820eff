package publish

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/sender"
)

// Ready is whether a domain may be promoted to mode enforce.
type Ready struct {
	Clean  bool
	Reason string // which check of which host does not pass, since when
}

const (
	readyTime   = time.Minute      // one look at all MX of a domain; what is left is for the next
	readyAtOnce = 4                // probes of one domain
	readyShown  = 3                // MX that a reason names
	probesTotal = 16               // probes of all domains at once
	goodFor     = time.Hour        // how long a probe is believed
	badFor      = 10 * time.Minute // and one that failed
	maxProbes   = 4096             // MX hosts that are remembered, some kilobytes each
)

// Ready says whether senders that honour the policy text would deliver to every MX that the domain has in DNS now: the
// policy covers it, and it answers STARTTLS with a certificate that is good for it; see [sender.Delivers]. A domain without
// MX and address, or with a null MX (RFC 7505), takes no mail and is clean. What could not be looked at is not.
//
// An MX host is probed once in a while for all domains together.
func (o *Outside) Ready(ctx context.Context, name policygen.Name, text string) Ready {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	p, err := policygen.ParsePolicy([]byte(text))
	if err != nil {
		return Ready{Reason: err.Error()}
	}
	hosts, err := o.mxHosts(ctx, name)
	if err != nil {
		return Ready{Reason: "the MX of " + string(name) + " cannot be looked up: " + err.Error()}
	}
	bad := make([]string, len(hosts))
	var g errgroup.Group
	g.SetLimit(readyAtOnce)
	for i, host := range hosts {
		g.Go(func() error {
			bad[i] = o.unfit(ctx, p, host)
			return nil
		})
	}
	_ = g.Wait()
	if outer.Err() != nil {
		return Ready{Reason: "the look at the MX of " + string(name) + " was cut off"}
	}
	var reasons []string
	for _, why := range bad {
		if why != "" {
			reasons = append(reasons, why)
		}
	}
	if more := len(reasons) - readyShown; more > 0 {
		reasons = append(reasons[:readyShown:readyShown], fmt.Sprintf("and %d MX more", more))
	}
	return Ready{Clean: len(reasons) == 0, Reason: strings.Join(reasons, "; ")}
}

// unfit says why a sender would not deliver to an MX; empty: it would.
func (o *Outside) unfit(ctx context.Context, p policygen.Policy, host string) string {
	var seen probed
	if p.Covers(host) { // else its TLS does not matter
		var err error
		seen, err = o.probes.get(ctx, host, func(ctx context.Context) (sender.Probed, error) { return o.Client.ProbeMX(ctx, host, p) })
		if err != nil {
			return "MX " + host + " (mx-unreachable): not probed within " + readyTime.String() + "; it is with the next look"
		}
	}
	finding, delivers := sender.Delivers(p, host, seen.mx, seen.err)
	if delivers {
		return ""
	}
	why := fmt.Sprintf("MX %s (%s): %s", host, finding.Code, finding.Message)
	if !seen.since.IsZero() {
		why += ", since " + seen.since.UTC().Format(time.DateTime+" MST")
	}
	if a := finding.Advice; a != "" { // a sentence, and here a part of one
		why += "; " + strings.ToLower(a[:1]) + strings.TrimSuffix(a[1:], ".")
	}
	return why
}

// probed is what an MX host showed.
type probed struct {
	mx    sender.Probed
	err   error
	until time.Time // believed until then
	since time.Time // when a host that fails was first seen to, with no good probe since; zero: it is good
}

// probes remember what MX hosts showed, and have each probed by one at a time. The zero value is ready. It starts no
// goroutine: who asks first probes, and the others wait.
type probes struct {
	mu    sync.Mutex // guards the fields below, and those of hosts
	hosts map[string]*probedHost
	slots chan struct{} // capacity probesTotal
}

type probedHost struct {
	probed

	sem  chan struct{} // capacity 1, held by who probes
	uses int           // who holds it or waits for it
}

// get returns what a host shows, or the error of ctx.
func (c *probes) get(ctx context.Context, host string, probe func(context.Context) (sender.Probed, error)) (probed, error) {
	h := c.enter(host)
	defer c.leave(h)
	select {
	case h.sem <- struct{}{}:
		defer func() { <-h.sem }()
	case <-ctx.Done():
		return probed{}, ctx.Err()
	}
	if seen := c.seen(h); time.Now().Before(seen.until) {
		return seen, nil
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return probed{}, ctx.Err()
	}
	mx, err := probe(ctx)
	if ctx.Err() != nil {
		return probed{}, ctx.Err() // it says nothing about the host
	}
	return c.keep(h, mx, err), nil
}

// enter returns the entry of a host, which stays until leave.
func (c *probes) enter(host string) *probedHost {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hosts == nil {
		c.hosts, c.slots = make(map[string]*probedHost), make(chan struct{}, probesTotal)
	}
	h := c.hosts[host]
	if h == nil {
		for len(c.hosts) >= maxProbes && c.evict() {
		}
		h = &probedHost{sem: make(chan struct{}, 1)}
		c.hosts[host] = h
	}
	h.uses++
	return h
}

// evict forgets the host that would be probed anew first, if there is one that nobody asks for now.
func (c *probes) evict() bool {
	oldest := ""
	for host, h := range c.hosts {
		if h.uses == 0 && (oldest == "" || h.until.Before(c.hosts[oldest].until)) {
			oldest = host
		}
	}
	delete(c.hosts, oldest)
	return oldest != ""
}

func (c *probes) leave(h *probedHost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.uses--
}

func (c *probes) seen(h *probedHost) probed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return h.probed
}

func (c *probes) keep(h *probedHost, mx sender.Probed, err error) probed {
	now := time.Now()
	next := probed{mx: mx, err: err, until: now.Add(badFor)}
	if cert := mx.Certificate; cert != nil { // the keys and the chain are not needed any more
		next.mx.Certificate = &x509.Certificate{DNSNames: cert.DNSNames, Issuer: cert.Issuer, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil && h.since.IsZero():
		next.since = now
	case err != nil:
		next.since = h.since
	default:
		next.until = now.Add(min(goodFor, max(mx.Certificate.NotAfter.Sub(now), 0)))
	}
	h.probed = next
	return next
}
