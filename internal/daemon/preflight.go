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
	"github.com/stspub/stspub/internal/publish"
)

const (
	// preflightEvery is how often stspub looks at what it stands on.
	preflightEvery = time.Hour
	// removeTime bounds the removal of a probe record, also while the daemon stops.
	removeTime = 5 * time.Second
	// probeLabel and probeText begin name and value of probe records. The name is the same every time, so that what a
	// crash leaves behind is found and replaced; the value is not, so that what is seen is what was written.
	probeLabel = "_stspub-probe."
	probeText  = "stspub probes whether this zone can be written: "
)

// preflight checks what stspub stands on: at start, after every reload, and every hour. Each failure is a fault with a
// name of its own, and serving goes on.
func (d *daemon) preflight(ctx context.Context) {
	tick := time.NewTicker(preflightEvery)
	defer tick.Stop()
	var good aliasZone // found so since the last tick
	for {
		d.check(ctx, "hostname", d.checkHostname)
		d.check(ctx, "targets", d.checkTargets)
		d.check(ctx, "caa", d.checkCAA)
		d.checkSkew(ctx)
		d.check(ctx, "alias zone", func(ctx context.Context) error { return d.checkAliasZone(ctx, &good) })
		select {
		case <-ctx.Done():
			return
		case <-d.reloaded:
		case <-tick.C:
			good = aliasZone{}
		}
	}
}

// check has one check made, and its failure shown. One that was cut off says nothing.
func (d *daemon) check(ctx context.Context, subject string, check func(context.Context) error) {
	reason := ""
	if err := check(ctx); err != nil {
		reason = err.Error()
	}
	if ctx.Err() == nil {
		d.reconciler.SetFault(subject, reason)
	}
}

// checkHostname: customers' CNAMEs lead to it, so it has to lead here. Its own certificate is for the start page.
func (d *daemon) checkHostname(ctx context.Context) error {
	host := d.conf.Server.Hostname
	a, err := d.client.Resolver.Addrs(ctx, host)
	switch {
	case len(a.Addrs) > 0:
		d.keeper.Want(host, false)
		return nil
	case err != nil:
		return fmt.Errorf("server.hostname: look up %s: %w", host, err)
	}
	return fmt.Errorf("server.hostname: %s has no A or AAAA record; customers' CNAMEs lead nowhere until it has", host)
}

// checkTargets: the customers of a tenant point to a name of the tenant's below hostname, which has to lead here, too.
func (d *daemon) checkTargets(ctx context.Context) error {
	host := d.conf.Server.Hostname
	for _, tenant := range d.reconciler.Tenants() {
		target := publish.Target(host, tenant)
		if target == host {
			continue // see checkHostname
		}
		switch a, err := d.client.Resolver.Addrs(ctx, target); {
		case len(a.Addrs) > 0:
		case err != nil:
			return fmt.Errorf("server.hostname: look up %s, the target of tenant %q: %w", target, tenant, err)
		default:
			return fmt.Errorf("server.hostname: %s, the target of tenant %q, has no A or AAAA record; add *.%s with the addresses of %s",
				target, tenant, host, host)
		}
	}
	return nil
}

// checkCAA: CAA records at the target of a CNAME bind every customer that points there (RFC 8659, Section 3).
func (d *daemon) checkCAA(ctx context.Context) error {
	host := d.conf.Server.Hostname
	var excluded []error
	for _, authority := range d.issuers {
		if err := d.gate.Target(ctx, host, authority); err != nil {
			excluded = append(excluded, fmt.Errorf("customers' CNAMEs lead to %s, so what holds there holds for all of them: %w", host, err))
		}
	}
	return errors.Join(excluded...)
}

// checkSkew: a new certificate may show that the clock is wrong. It is looked at when one came, too.
func (d *daemon) checkSkew(ctx context.Context) {
	d.check(ctx, "clock", func(context.Context) error { return d.keeper.Clock() })
}

// aliasZone is where records of alias domains are written, and how.
type aliasZone struct {
	name    string
	ttl     time.Duration
	account dnsupdate.Account
}

// checkAliasZone probes the alias zone of the configuration in force, unless it is the one that was found good. It is
// not written to at every reload of a control panel.
func (d *daemon) checkAliasZone(ctx context.Context, good *aliasZone) error {
	var zone aliasZone
	zone.name, zone.ttl, zone.account = d.reconciler.Alias()
	if zone.name == "" || d.o.DryRun || zone == *good {
		return nil
	}
	err := d.probe(ctx, zone)
	if err == nil {
		*good = zone
	}
	return err
}

// probe writes a record into the alias zone, sees it at every authoritative server, and removes it.
func (d *daemon) probe(ctx context.Context, zone aliasZone) error {
	name := probeLabel + zone.name
	view, err := d.observer.Observe(ctx, name, dns.TypeTXT)
	if err != nil {
		return fmt.Errorf("alias.zone: %s is not to be found in DNS: %w", zone.name, err)
	}
	value := probeText + rand.Text()
	change := dnsupdate.Change{Zone: view.Zone, Name: name, TTL: zone.ttl, Remove: probes(view), Add: value}
	if err := zone.account.Apply(ctx, change); err != nil {
		return fmt.Errorf("alias.zone: write a probe record: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
		defer cancel()
		change.Remove, change.Add = []string{value}, ""
		if err := zone.account.Apply(ctx, change); err != nil {
			d.o.Log.Warn("probe record not removed; the next probe does it", "record", name, "err", err)
		}
	}()
	return d.seen(ctx, name, value)
}

// probes are the values of probe records that earlier probes left.
func probes(view dnsupdate.View) []string {
	var left []string
	for _, a := range view.Answers {
		for _, text := range a.TXT {
			if strings.HasPrefix(text, probeText) && !slices.Contains(left, text) {
				left = append(left, text)
			}
		}
	}
	return left
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
