package publish

import (
	"fmt"
	"strings"
	"time"
)

// drain is the way out. RFC 8461, Section 8.3: mode none under a new id, until every policy served before has expired
// at every sender; then the record goes, then host and certificate.
func (p *pass) drain() Decision {
	if p.w.Wildcard {
		return p.drainShared()
	}
	if p.s.Expelled && p.w.Announced && p.s.Deleted.IsZero() {
		return p.retire()
	}
	if p.shares() && p.s.Detached.IsZero() && p.s.Served != "" {
		if d := p.part(); d != nil {
			return *d
		}
	}
	if !p.w.Announced {
		return p.forget() // no sender ever heard of us
	}
	if !p.s.Deleted.IsZero() {
		if left := p.s.Deleted.Add(max(p.w.TTL, p.s.OldTTL)).Sub(p.now); left > 0 {
			return *p.wait(StepDrain, "the record is deleted; caches hold it until "+p.now.Add(left).UTC().Format(time.TimeOnly+" MST"), false, left)
		}
		return p.forget()
	}
	if p.s.Dirty || p.s.Tainted {
		p.s.Horizon = time.Time{} // while the rotation is not verified it has not begun
	}
	if !p.s.Horizon.IsZero() && !p.now.Before(p.s.Horizon) {
		if t := p.o.TXT; t != nil && p.w.Restored && len(t.foreign())+len(t.Shared) > 0 {
			// The horizon is that of an old copy of the store: the domain came back since, and what was served then is not known.
			p.s.Dirty, p.s.Horizon = true, time.Time{}
			return *p.commit()
		}
		return p.retire()
	}
	if p.s.Served != p.w.Policy {
		if p.w.HoldStart != "" {
			return *p.wait(StepDrain, p.w.HoldStart, true, 0)
		}
		p.s.Staged, p.s.Promoted = time.Time{}, time.Time{} // should it come back, its roll-out begins anew
		return *p.serve()
	}
	if p.o.TXT == nil {
		return look(LookTXT)
	}
	waits := p.s.ID == "" && !p.s.Dirty // its record was seen to be gone
	// A shared record that is missing comes back, and who holds its id then goes on with what it stood for.
	if gone := p.o.TXT.absent() && !p.shares() && (waits || p.o.TXT.complete()); gone && (p.s.ID == "" || p.s.Dirty) {
		return p.outlast()
	}
	if waits { // it is back
		p.s.Dirty = true
		return *p.commit()
	}
	if d := p.announce(); d != nil {
		if d.Wait && p.o.Host != nil && p.o.Host.Proven && p.away() && p.s.Horizon.IsZero() {
			return p.retire() // released: the customer's DNS has named another place for a week
		}
		return *d
	}
	if p.s.Tainted {
		return *p.wait(StepDrain, "mode none is published; node "+strings.Join(p.o.Body.Passed, ", ")+" may serve the last policy still", false, 0)
	}
	if p.s.Horizon.IsZero() {
		p.s.Horizon = p.now.Add(max(p.w.TTL, p.s.OldTTL) + p.w.MaxAge)
		return *p.commit()
	}
	return *p.wait(StepDrain, "mode none is published; senders may hold the last policy until "+
		p.s.Horizon.UTC().Format(time.DateTime+" MST"), false, p.s.Horizon.Sub(p.now))
}

// part gives a domain that leaves a record of its own, if its customer's _mta-sts leads to the shared one.
func (p *pass) part() *Decision {
	var d Decision
	switch {
	case p.s.Zone == "" && p.o.Delegation == nil:
		d = look(LookDelegation)
	case p.s.Zone == "" && p.o.Delegation.Failed && !p.s.Expelled:
		return p.wait(StepDrain, p.o.Delegation.Reason, false, 0) // he may have set it too early
	case p.s.Zone == "" && !p.o.Delegation.Ours:
		return nil
	case p.w.HoldStart != "": // it goes on with the others: a record of its own would be for another policy
		return p.wait(StepDrain, p.w.HoldStart, true, 0)
	case p.o.TXT == nil:
		d = look(LookTXT)
	default:
		p.s.Zone = p.o.TXT.Zone
		return p.detach("it leaves")
	}
	return &d
}

// outlast drains a domain whose record is gone already: no sender learns anything new, and what they hold expires.
func (p *pass) outlast() Decision {
	p.s.ID, p.s.Intended, p.s.Dirty, p.s.Wrote = "", "", false, time.Time{}
	if p.s.Horizon.IsZero() {
		p.s.Horizon = p.now.Add(max(p.w.TTL, p.s.OldTTL) + p.w.MaxAge)
	}
	return *p.wait(StepDrain, "the record is gone; senders may hold the last policy until "+
		p.s.Horizon.UTC().Format(time.DateTime+" MST"), false, p.s.Horizon.Sub(p.now))
}

// retire deletes the record: of what stands there, only what was written from here.
func (p *pass) retire() Decision {
	t := p.o.TXT
	switch {
	case t == nil:
		return look(LookTXT) // before the hold: the comparison of DNS with the store waits for this look
	case p.w.HoldEnd != "":
		return *p.wait(StepDrain, p.w.HoldEnd, p.w.HoldStart != "", 0)
	case p.w.Manual && len(t.Ours) > 0:
		return *p.wait(StepDrain, fmt.Sprintf("waiting for you to delete: %s. TXT %q", p.w.Record, t.Ours[0]), p.overdue(), 0)
	case p.shares() && !t.entombed() && len(t.foreign()) == 0:
		return *p.entomb() // also where the shared record is not answered now: it may be later
	case len(t.Ours) > 0:
		if !p.s.Wrote.IsZero() && p.now.Sub(p.s.Wrote) < rewriteAfter && !p.now.Before(p.s.Wrote) {
			return *p.wait(StepDrain, "the record is deleted; not every name server says so yet", p.overdue(), 0)
		}
		p.s.Wrote, p.s.OldTTL = p.now, max(p.s.OldTTL, t.ttl())
		return Decision{State: p.s, Do: DoDelete, Remove: t.Ours}
	case !t.complete():
		return *p.wait(StepDrain, t.lag(""), p.overdue(), 0)
	}
	p.s.ID, p.s.Intended, p.s.Dirty, p.s.Wrote, p.s.Deleted = "", "", true, time.Time{}, p.now
	return *p.commit()
}

// overdue says that a drain that could have ended a day ago has not.
func (p *pass) overdue() bool {
	return !p.s.Horizon.IsZero() && p.now.Sub(p.s.Horizon) > 24*time.Hour
}

func (p *pass) forget() Decision {
	if p.w.HoldEnd != "" {
		return *p.wait(StepDrain, p.w.HoldEnd, p.w.HoldStart != "", 0)
	}
	return Decision{State: p.s, Do: DoForget}
}

// drainShared ends a shared record when it answers for nobody any more: who leaves has a record of its own by then.
func (p *pass) drainShared() Decision {
	switch {
	case p.w.Attached > 0:
		return *p.wait(StepDrain, fmt.Sprintf("%d domains still use the shared record", p.w.Attached), false, 0)
	case !p.w.Announced:
		return p.forget()
	case !p.s.Deleted.IsZero():
		if left := p.s.Deleted.Add(max(p.w.TTL, p.s.OldTTL)).Sub(p.now); left > 0 {
			return *p.wait(StepDrain, "the record is deleted; caches hold it until "+p.now.Add(left).UTC().Format(time.TimeOnly+" MST"), false, left)
		}
		return p.forget()
	}
	d := p.retire()
	if d.Do == DoDelete {
		d.State.Dirty = true // if it comes back now: nobody may be sent to it, or attached, before a fresh id is everywhere
	}
	return d
}
