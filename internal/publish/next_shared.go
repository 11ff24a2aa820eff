package publish

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// Tombstone is the TXT that stands where a domain's own record ended and the shared one would answer in its place. It is
// no STSv1 record, so there is no policy.
const Tombstone = "stspub: no policy is published here"

// codePromotion is the code of what keeps a domain in its roll-out.
const codePromotion = store.CodePromotion

// few is how many of all domains of a shared record may be left behind without asking.
func few(all int) int { return max(10, all/10) }

// gatherFor is how long a shared record keeps its id while domains wait to be attached to a newer one.
const gatherFor = 24 * time.Hour

// attached is the way of a domain that the shared record of its MX set answers for. What makes it different from the
// others detaches it: from then on it has a record of its own, as if it were an alias one.
func (p *pass) attached() Decision {
	sh := p.w.Shared
	if p.s.Zone == "" && p.s.Served != sh.Text {
		p.s.Served = "" // it moved here from another MX set before anybody was sent to that one's record
	}
	if p.s.Served == "" {
		stranded, d := p.strands()
		switch {
		case d != nil:
			return *d
		case stranded != "":
			return *p.wait(StepMX, stranded, true, 0)
		case p.w.Policy != sh.Next && p.w.Policy != sh.Text:
			return *p.detach("its stage is another than that of the MX set")
		case sh.Text == "":
			return *p.wait(StepBody, "the shared record has no policy yet", false, 0)
		}
		p.s.Served, p.s.Record, p.s.Live = sh.Text, p.w.Record, time.Time{}
		return Decision{State: p.s, Do: DoServe}
	}
	switch {
	case !sh.Home:
		return *p.detach("its CNAME leads to that of another MX set")
	case p.w.Policy != sh.Next && p.w.Policy != sh.Text, p.s.Served != sh.Text: // it may have been of another MX set while this one's changed
		return *p.detach("its policy is another than that of the MX set")
	}
	if d := p.hosted(); d != nil {
		return *p.early(d)
	}
	if p.s.Dirty {
		return *p.detach("its policy host was elsewhere")
	}
	t := p.o.TXT
	switch own := t.sts(); {
	case len(own) > 0:
		return *p.detach(fmt.Sprintf("a record of its own stands at %s: %q", p.w.Record, own))
	case t.bare():
		return *p.detach("another TXT stands at " + p.w.Record + ", where the shared record does not answer then")
	case sh.Clean && t.answered() > 0 && len(t.Shared) == 0:
		return *p.wait(StepVerify, "no name server answers the shared record at "+p.w.Record, p.lagging(), 0)
	}
	if p.s.Zone == "" {
		if d := p.welcome(); d != nil {
			return *d
		}
	}
	if d := p.delegated(); d != nil {
		return *d
	}
	p.s.Checked = p.now
	return *p.watch()
}

// welcome holds back the word to the customer until his policy has settled and the shared record is right. Whose CNAME
// came before, senders may have filed anything under the shared id: only a fresh one of its own helps.
func (p *pass) welcome() *Decision {
	switch {
	case p.o.TXT.answered() == 0:
		return p.wait(StepTXT, p.o.TXT.lag(""), false, 0)
	case p.o.Delegation == nil:
		d := look(LookDelegation)
		return &d
	case p.o.Delegation.Ours:
		return p.detach("its _mta-sts was set before the policy was live")
	}
	if left := p.settle(); left > 0 {
		return p.settling(left)
	}
	if !p.w.Shared.Clean {
		return p.wait(StepTXT, "the shared record is being published", false, 0)
	}
	p.s.Zone, p.s.Settle, p.s.Fresh = p.o.TXT.Zone, time.Time{}, false
	return p.commit()
}

// detach gives a domain a record of its own, with an id that nobody saw. What it serves stays as it is for now.
func (p *pass) detach(why string) *Decision {
	p.s.Detached, p.s.Dirty, p.s.Fresh = p.apart(), true, false
	p.s.ID, p.s.Intended, p.s.Wrote = "", "", time.Time{}
	p.s.Record = p.w.Record
	return &Decision{State: p.s, Why: "detached from the shared record: " + why}
}

// apart is now, or where the clock was set back the end of what is past: no id of the shared record was made after it.
func (p *pass) apart() time.Time { return later(p.now, p.w.Shared.Made) }

// attachable says that the shared record may answer for a detached domain: it has the same policy, under an id that is
// newer than anything that a sender may have filed for the domain before.
func (p *pass) attachable() bool {
	sh := p.w.Shared
	return p.shares() && sh.Home && sh.Clean && !p.s.Detached.IsZero() && !p.s.Dirty && !p.s.Tainted && p.s.Intended == "" &&
		sh.Text == p.s.Served && sh.Next == sh.Text && p.w.Policy == sh.Text && sh.Made.After(p.s.Detached)
}

// attach takes a domain's own record away, so that the shared one answers. Its id ends with it: should the shared one not
// take over, a fresh one follows.
func (p *pass) attach() *Decision {
	t := p.o.TXT
	switch {
	case t.complete() && t.absent() && !t.bare() && len(t.Shared) > 0:
		p.s.Detached, p.s.Wrote = time.Time{}, time.Time{}
		p.s.Step, p.s.Since = StepLive, p.now
		return p.commit()
	case len(t.foreign()) > 0 || t.bare():
		p.s.Dirty = true
		return &Decision{State: p.s, Why: fmt.Sprintf("somebody changed the record at %s to %q; a fresh id follows", p.w.Record, t.sts())}
	case p.s.Step != StepAttach:
		p.s.Step, p.s.Reason, p.s.Since, p.s.Fault = StepAttach, "", p.now, false
		p.s.ID, p.s.Wrote = "", time.Time{}
	}
	if !p.s.Wrote.IsZero() && p.now.Sub(p.s.Wrote) < rewriteAfter && !p.now.Before(p.s.Wrote) || len(t.Ours) == 0 {
		return p.wait(StepAttach, "its own record is deleted; not every name server says so yet", p.now.Sub(p.s.Since) > verifyFault, 0)
	}
	p.s.Wrote, p.s.OldTTL = p.now, max(p.s.OldTTL, t.ttl())
	return &Decision{State: p.s, Do: DoDelete, Remove: t.Ours}
}

// progress is what is left to come for what is live: a roll-out ends, a domain is attached, a shared record takes those
// in that wait.
func (p *pass) progress() *Decision {
	if p.w.Rollout == 0 {
		p.s.Staged = time.Time{} // the next roll-out begins anew
	}
	switch {
	case p.w.Rollout > 0:
		if d := p.stage(); d != nil {
			return d
		}
	case p.w.Wildcard && p.w.Waiting > 0 && p.now.Sub(policygen.IDTime(p.s.ID)) >= gatherFor:
		p.s.Dirty = true
		return &Decision{State: p.s, Why: fmt.Sprintf("%d domains wait for a newer id to be attached", p.w.Waiting)}
	}
	if p.attachable() {
		return p.attach()
	}
	return nil
}

// stage ends a roll-out, or says what holds it. What does not pass is said from the first day on, and must have passed at
// two looks in a row. A domain that is attached is looked at, and goes with its shared record; that waits while many of
// those that came later would have to be left behind.
func (p *pass) stage() *Decision {
	switch {
	case p.s.Staged.IsZero():
		p.s.Staged = p.now
		return p.commit()
	case p.s.Pinned:
		return nil
	case p.w.Wildcard: // its domains are looked at, and again when the new policy is to be served
		if p.w.Staging > few(p.w.Attached) {
			p.notice(codePromotion, fmt.Sprintf("the promotion to mode enforce waits: the roll-out of %d of %d domains is not over; not to wait, "+
				"run: stspub domain promote '%s'", p.w.Staging, p.w.Attached, p.w.Name))
			return nil
		}
	case p.o.Ready == nil:
		d := look(LookReady)
		return &d
	case !p.o.Ready.Clean:
		p.find(codePromotion, "the promotion to mode enforce is held: "+p.o.Ready.Reason)
		return nil
	case p.shares() && p.s.Detached.IsZero():
		return nil
	case slices.ContainsFunc(p.found, func(f store.Finding) bool { return f.Code == codePromotion }):
		return nil
	}
	if p.now.Sub(p.s.Staged) < p.w.Rollout {
		return nil
	}
	p.s.Promoted = p.now
	return &Decision{State: p.s, Wait: true, After: time.Second}
}

// entomb ends a domain's own record where the shared one would answer.
func (p *pass) entomb() *Decision {
	t := p.o.TXT
	if !p.s.Wrote.IsZero() && p.now.Sub(p.s.Wrote) < rewriteAfter && !p.now.Before(p.s.Wrote) {
		return p.wait(StepDrain, "the record is replaced by a tombstone; not every name server says so yet", p.overdue(), 0)
	}
	p.s.Wrote, p.s.OldTTL = p.now, max(p.s.OldTTL, t.ttl())
	return &Decision{State: p.s, Do: DoDelete, Remove: slices.Clone(t.Ours), Add: Tombstone}
}

// sharedName is the owner name of the shared record of an MX set.
func sharedName(tenant, mxset, aliasZone string) string {
	return "*." + mxset + ".s." + tenant + "." + aliasZone
}

// above is the owner name of the shared record that answers where a record does not stand.
func above(record string) string {
	_, rest, _ := strings.Cut(record, ".")
	return "*." + rest
}

// below says whether a record lies below a shared one.
func below(record, shared string) bool { return above(record) == shared }

// shares says that there is a shared record that answers for the domain, or would without its own.
func (p *pass) shares() bool { return p.w.Shared != nil && !p.w.Wildcard }
