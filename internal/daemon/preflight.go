package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/dnsupdate"
)

// preflightEvery is how often stspub looks at what it stands on.
const preflightEvery = time.Hour

// preflight checks what stspub stands on, at start and every hour. Each failure is a fault with a name of its own, and
// serving goes on.
func (d *daemon) preflight(ctx context.Context) {
	tick := time.NewTicker(preflightEvery)
	defer tick.Stop()
	for {
		for _, c := range []struct {
			subject string
			check   func(context.Context) error
		}{
			{"hostname", d.checkHostname},
			{"caa", d.checkCAA},
			{"alias zone", d.checkAliasZone},
		} {
			reason := ""
			if err := c.check(ctx); err != nil {
				reason = err.Error()
			}
			if ctx.Err() != nil {
				return
			}
			d.reconciler.SetFault(c.subject, reason)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// checkHostname: customers' CNAMEs lead to it, so it has to lead here. Its own certificate is for the start page.
func (d *daemon) checkHostname(ctx context.Context) error {
	host := d.conf.Server.Hostname
	a, err := d.client.Resolver.Addrs(ctx, host)
	switch {
	case len(a.Addrs) > 0:
		d.keeper.Want(host)
		return nil
	case err != nil:
		return fmt.Errorf("server.hostname: look up %s: %w", host, err)
	}
	return fmt.Errorf("server.hostname: %s has no A or AAAA record; customers' CNAMEs lead nowhere until it has", host)
}

// checkCAA: a CAA record at the target of a CNAME binds every customer that points there (RFC 8659, Section 3).
func (d *daemon) checkCAA(ctx context.Context) error {
	host := d.conf.Server.Hostname
	a, err := d.client.Resolver.Lookup(ctx, host, dns.TypeCAA)
	if err != nil {
		return fmt.Errorf("look up CAA at %s: %w", host, err)
	}
	var issuers []string
	for _, rr := range a.RRs {
		if caa, ok := rr.(*dns.CAA); ok && strings.EqualFold(caa.Tag, "issue") {
			issuer, _, _ := strings.Cut(caa.Value, ";")
			issuers = append(issuers, strings.ToLower(strings.TrimSpace(issuer)))
		}
	}
	if len(issuers) == 0 {
		return nil
	}
	identities, err := d.issuer.Identities(ctx)
	if err != nil || len(identities) == 0 {
		return err // a CA that does not say who it is cannot be compared
	}
	if slices.ContainsFunc(issuers, func(i string) bool { return slices.Contains(identities, i) }) {
		return nil
	}
	return fmt.Errorf("the CAA records of %s allow only %s, and so exclude %s for every customer; add: %s. CAA 0 issue %q",
		host, strings.Join(issuers, ", "), identities[0], host, identities[0])
}

// checkAliasZone writes a record into the alias zone, sees it at every authoritative server, and removes it.
func (d *daemon) checkAliasZone(ctx context.Context) error {
	zone := d.conf.Alias.Zone
	if zone == "" || d.o.DryRun {
		return nil
	}
	account, err := d.openAccount(d.conf.Accounts[d.conf.Alias.Account])
	if err != nil {
		return err
	}
	name := "stspub-probe-" + strings.ToLower(rand.Text()[:8]) + "." + zone
	view, err := d.observer.Observe(ctx, name, dns.TypeTXT)
	if err != nil {
		return fmt.Errorf("alias.zone: %s is not to be found in DNS: %w", zone, err)
	}
	const value = "stspub probes whether this zone can be written"
	probe := dnsupdate.Change{Zone: view.Zone, Name: name, TTL: d.conf.Publish.TTL, Add: value}
	if err := account.Apply(ctx, probe); err != nil {
		return fmt.Errorf("alias.zone: write a probe record: %w", err)
	}
	defer func() {
		probe.Add, probe.Remove = "", []string{value}
		if err := account.Apply(context.WithoutCancel(ctx), probe); err != nil {
			d.o.Log.Warn("probe record not removed", "record", name, "err", err)
		}
	}()
	return d.seen(ctx, name, value)
}

// seen waits until every authoritative server answers a value.
func (d *daemon) seen(ctx context.Context, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		view, err := d.observer.Observe(ctx, name, dns.TypeTXT)
		if err == nil && !slices.ContainsFunc(view.Answers, func(a dnsupdate.Answer) bool { return !slices.Contains(a.TXT, value) }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("alias.zone: a probe record at %s was accepted, and is not seen at every name server after a minute: %w",
				name, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}
