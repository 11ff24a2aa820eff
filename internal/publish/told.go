package publish

import (
	"errors"
	"fmt"
	"slices"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/inside"
	"github.com/stspub/stspub/internal/store"
)

// What a tenant is told of his domains is drawn from answers that the service got inside its own network: its resolvers may
// know names that the world does not, its nodes and servers have addresses there. The operator, whose domains are those of
// tenant "default", reads all of it; others read that there is an address, and the log has the rest.

// toTenant is a text as a tenant reads it.
func toTenant(tenant, text string) string {
	if tenant == Tenant {
		return text
	}
	return inside.Hide(text)
}

// hide has the state of a domain tell its tenant no more than toTenant does. What is new and is left out is said in the log.
func (r *Reconciler) hide(d *store.Domain) {
	if d.Tenant == Tenant {
		return
	}
	whole := d.State.Reason
	if d.State.Reason = inside.Hide(whole); d.State.Reason != whole {
		r.cfg.Log.Debug("domain rests", "domain", d.Name, "step", d.State.Step, "reason", whole)
	}
	d.State.Report.Problem = inside.Hide(d.State.Report.Problem)
	d.State.Findings = slices.Clone(d.State.Findings)
	for i := range d.State.Findings {
		d.State.Findings[i].Text = inside.Hide(d.State.Findings[i].Text)
	}
}

// nodesFor are the nodes as the tenant of a domain hears of them: without their names.
func nodesFor(tenant string, nodes []store.Node) []store.Node {
	if tenant == Tenant {
		return nodes
	}
	nodes = slices.Clone(nodes)
	for i := range nodes {
		nodes[i].ID = "unnamed"
	}
	return nodes
}

// withoutStore is what is said of an error where a tenant may read it: the store's own errors name its server or its file.
func withoutStore(err error) string {
	if _, ok := errors.AsType[*store.Trouble](err); ok {
		return "the store does not answer"
	}
	return err.Error()
}

// refusal is what is said of a write that an account refused. That of the alias zone is the operator's: what it says of itself,
// its server and its credentials, is not for the tenants whose records it holds.
func (r *Reconciler) refusal(set *settings, d *store.Domain, err error) string {
	failed, ok := errors.AsType[*dnsupdate.Error](err)
	if !ok || set.accountKey(*d).tenant == d.Tenant {
		return err.Error()
	}
	said := fmt.Sprintf("%s TXT %q in zone %q by the service's account: %s", failed.Op, failed.Name, failed.Zone, failed.Kind)
	if said != d.State.Reason && said != d.State.Report.Problem { // else it was said
		r.cfg.Log.Warn("the service's account refused a tenant's record", "domain", d.Name, "err", err)
	}
	return said
}
