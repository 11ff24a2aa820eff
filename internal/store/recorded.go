package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/inside"
)

// What events show of things, as JSON. Nothing secret is among it.
type (
	shownDomain struct {
		MXSet   string `json:"mxset"`
		Publish string `json:"publish"`
		Account string `json:"account,omitempty"`
		Owner   string `json:"owner,omitempty"`
		Adopt   bool   `json:"adopt,omitempty"`
		TLSRPT  string `json:"tlsrpt,omitempty"`
	}
	shownMXSet struct {
		Owner   string          `json:"owner"`
		Mode    string          `json:"mode"`
		MaxAge  int             `json:"max_age"` // seconds
		MX      json.RawMessage `json:"mx"`
		Rollout int64           `json:"rollout,omitempty"` // seconds
	}
	shownAccount struct {
		Provider string `json:"provider"`
	}
	shownToken struct {
		Role    string    `json:"role"`
		Label   string    `json:"label,omitempty"`
		Expires time.Time `json:"expires,omitzero"`
	}
	shownStep struct {
		Step   string `json:"step"`
		Reason string `json:"reason,omitempty"`
		ID     string `json:"id,omitempty"`
	}
	shownDigest struct {
		Digest string `json:"digest"`
	}
	shownCommand struct {
		Command string `json:"command"`
	}
	shownRelease struct {
		Released bool `json:"released"`
	}
	shownOrder struct {
		Problem   string `json:"problem"`
		Advice    string `json:"advice,omitempty"`
		Authority string `json:"authority,omitempty"`
	}
	shownCertificate struct {
		Authority string `json:"authority,omitempty"`
		NotAfter  string `json:"not_after"` // RFC 3339; a time of after the year 9999 is no JSON
	}
)

func (d Domain) shown() shownDomain {
	return shownDomain{d.MXSet, d.Publish, d.Account, d.Owner, d.Adopt, d.TLSRPT}
}

func (s storedSet) shown() shownMXSet {
	return shownMXSet{s.owner, s.mode, s.maxAge, json.RawMessage(s.mx), s.rollout / time.Second.Microseconds()}
}

// mxset notes a change of an MX set; nil: there was none, or is none any more. One that nobody declares is none.
func (d *diary) mxset(key setKey, before, after *storedSet) {
	was, is := before != nil && before.owner != "", after != nil && after.owner != ""
	switch {
	case was && is:
		d.note(key.tenant, KindMXSetChanged, key.name, "changed what its domains are published with", before.shown(), after.shown())
	case was:
		d.note(key.tenant, KindMXSetRemoved, key.name, "removed", before.shown(), nil)
	case is:
		d.note(key.tenant, KindMXSetAdded, key.name, "added", nil, after.shown())
	}
}

// changed notes what a batch made of a domain. Of another tenant's, both are told, and neither of the other.
func (d *diary) changed(c DomainChange, at situation, made decision) {
	name := string(c.Domain.Name)
	tenant := c.Domain.Tenant
	because := ""
	if c.Proven {
		because = ": its claim is proven"
	}
	switch made.outcome.Result {
	case ResultAdded:
		d.note(tenant, KindDomainAdded, name, "added"+because, nil, made.next.shown())
	case ResultChanged:
		d.note(tenant, KindDomainChanged, name, "changed what is wanted of it", at.have.shown(), made.next.shown())
	case ResultRestored:
		d.note(tenant, KindDomainRestored, name, "wanted again, while it drained", at.have.shown(), made.next.shown())
	case ResultRemoved:
		d.note(tenant, KindDomainRemoved, name, "removed: it drains until senders have forgotten its policies", at.have.shown(), nil)
	case ResultMoved:
		d.events = append(d.events, Event{
			At: d.at, Tenant: at.have.Tenant, Kind: KindDomainMoved, Name: name, Actor: ActorSelf,
			Text: "another tenant has proven that it is his, and has it now", Before: d.json(at.have.shown()),
		})
		d.note(tenant, KindDomainMoved, name, "it was another tenant's"+because, nil, made.next.shown())
	case ResultClaimed:
		d.note(tenant, KindClaimMade, name, "claimed, until DNS proves whose it is", nil, c.Domain.shown())
	case ResultWithdrawn:
		d.note(tenant, KindClaimWithdrawn, name, "took back the claim", at.claim.Domain.shown(), nil)
	}
}

// saved notes what a Save changed that is an event.
func (d *diary) saved(old stored, now Domain) error {
	name, tenant, st := string(now.Name), now.Tenant, now.State
	for _, c := range []struct {
		given         bool
		command, text string
	}{
		{now.Adopt && !old.adopt, "adopt", "it may replace the record that somebody else published"},
		{st.Pinned && !old.state.Pinned, "demote", "back to mode testing, until it is promoted by hand"},
		{st.Expelled && !old.state.Expelled, "expel", "its drain is to end now, whatever senders hold"},
		{st.Forced != "" && st.Forced != old.state.Forced, "force", "its policy is let through although it strands mail"},
	} {
		if c.given {
			d.note(tenant, KindDomainCommand, name, c.text, nil, shownCommand{c.command})
		}
	}
	if old.state.Step != st.Step {
		text := st.Step
		if st.Reason != "" {
			text += ": " + st.Reason
		}
		var before any
		if old.state.Step != "" {
			before = shownStep{Step: old.state.Step}
		}
		d.note(tenant, KindDomainStep, name, text, before, shownStep{st.Step, st.Reason, st.ID})
	}
	if old.state.Promoted.IsZero() && !st.Promoted.IsZero() {
		d.note(tenant, KindPromoted, name, "its roll-out is over: mode enforce", nil, nil)
	}
	if text, err := findingsText(st.Findings); err != nil || text == old.findings {
		return err
	}
	var before []Finding
	if old.findings != "" {
		if err := json.Unmarshal([]byte(old.findings), &before); err != nil {
			return err
		}
	}
	d.found(tenant, name, before, st.Findings)
	return nil
}

// found notes which faults are new, and which are gone. The same one again is neither.
func (d *diary) found(tenant, name string, before, now []Finding) {
	has := func(all []Finding, code string) bool {
		return slices.ContainsFunc(all, func(f Finding) bool { return f.Code == code && f.Fault })
	}
	for _, f := range before {
		if f.Fault && !has(now, f.Code) {
			d.note(tenant, KindDomainMended, name, "mended: "+f.Text, f, nil)
		}
	}
	for _, f := range now {
		if !f.Fault || has(before, f.Code) {
			continue
		}
		kind := KindDomainFault
		if f.Code == CodePromotion {
			kind = KindDomainHeld
		}
		d.note(tenant, kind, name, f.Text, nil, f)
	}
}

// findingsText is how a domain's findings are stored.
func findingsText(all []Finding) (string, error) {
	if len(all) == 0 {
		return "", nil
	}
	text, err := json.Marshal(all)
	return string(text), err
}

// ofHost returns whose the certificate of a host is: that of a domain, by its policy host, or the service's.
func ofHost(ctx context.Context, tx transaction, host string) (tenant, name string, err error) {
	name, policyHost := strings.CutPrefix(host, "mta-sts.")
	if policyHost {
		switch err = tx.get(ctx, `SELECT tenant FROM domains WHERE name = $1`, []any{name}, &tenant); {
		case err == nil:
			return tenant, name, nil
		case !errors.Is(err, ErrNotFound):
			return "", "", err
		}
	}
	return "", host, nil
}

// issued notes a certificate that is not in the store yet.
func (d *diary) issued(ctx context.Context, tx transaction, c Certificate) error {
	var failures int
	var since int64
	err := tx.get(ctx, `SELECT failures, since FROM orders WHERE name = $1`, []any{c.Name}, &failures, &since)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	tenant, name, err := ofHost(ctx, tx, c.Name)
	if err != nil {
		return err
	}
	text := "valid until " + c.NotAfter.UTC().Format(time.DateTime+" MST")
	if failures > 0 && since > 0 {
		text += ", after orders that failed since " + fromMicros(since).Format(time.DateTime+" MST")
	}
	d.note(tenant, KindIssued, name, text, nil, shownCertificate{c.Authority, c.NotAfter.UTC().Format(time.RFC3339)})
	return nil
}

// failing notes the first failed order in a row, which a name is to blame for.
func (d *diary) failing(ctx context.Context, tx transaction, o Order) error {
	if o.Failures == 0 || o.Outage {
		return nil
	}
	var known bool
	if err := tx.get(ctx, `SELECT EXISTS (SELECT 1 FROM orders WHERE name = $1 AND failures > 0 AND NOT outage)`, []any{o.Name}, &known); err != nil || known {
		return err
	}
	tenant, name, err := ofHost(ctx, tx, o.Name)
	if err != nil {
		return err
	}
	if tenant != DefaultTenant && tenant != "" {
		o.Problem, o.Advice = inside.Hide(o.Problem), inside.Hide(o.Advice)
	}
	text := o.Problem
	if o.Advice != "" {
		text = fmt.Sprintf("%s (%s)", text, o.Advice)
	}
	d.note(tenant, KindFailing, name, text, nil, shownOrder{o.Problem, o.Advice, o.Authority})
	return nil
}

func (k Token) shown() shownToken {
	return shownToken{k.Role, k.Label, k.Expires.UTC()}
}
