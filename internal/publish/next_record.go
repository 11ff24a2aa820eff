package publish

import (
	"fmt"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// record compares the record with what it should be. The policy was seen live in this pass. That a CNAME stands in the way
// is for the account to find out: name servers also make CNAMEs up, from wildcards.
func (p *pass) record() *Decision {
	if p.s.Step == StepAttach {
		if p.attachable() {
			return p.attach()
		}
		p.s.Dirty = true
	}
	if !p.s.Dirty && p.s.Intended == "" {
		return p.keep()
	}
	return p.rotate()
}

// keep watches the record of a clean domain.
func (p *pass) keep() *Decision {
	t, current := p.o.TXT, policygen.RecordText(p.s.ID)
	switch {
	case t.all(current):
		p.s.Wrote = time.Time{}
		p.byCustomer()
		return nil
	case t.doubled(current):
		return p.write(current, "a second STSv1 record stands at "+p.w.Record+"; it goes")
	case t.complete() && t.absent():
		return p.write(current, "the record at "+p.w.Record+" is gone; it is put back")
	case t.answered() > 0 && !t.some(current) && !t.absent():
		// Senders may hold any text under an id that was not put there by us, or not now.
		p.s.Dirty = true
		return &Decision{State: p.s, Why: fmt.Sprintf("somebody changed the record at %s to %q; a fresh id follows", p.w.Record, t.sts())}
	case t.answered() > 0 && p.lagging():
		return p.write(current, t.lag(current)) // the account finds it there, or puts it back
	}
	return p.wait(StepVerify, t.lag(current), p.lagging(), 0)
}

// rotate brings a fresh id to the record.
func (p *pass) rotate() *Decision {
	// An id that an earlier process intended may have stood for another text since, if the store is an old copy; and ids
	// belong to one record.
	if p.s.Intended != "" && (p.w.Stale && !p.w.Manual || p.s.Record != p.w.Record) {
		p.s.Intended, p.s.Wrote = "", time.Time{}
		return p.commit()
	}
	t, intended := p.o.TXT, policygen.RecordText(p.s.Intended)
	if p.s.Intended != "" && t.all(intended) {
		p.s.ID, p.s.Intended, p.s.Dirty = p.s.Intended, "", false
		p.s.Wrote, p.s.Fresh, p.s.Settle = time.Time{}, false, time.Time{}
		if p.shares() { // until now the shared id was answered, and may have been filed with another policy
			p.s.Detached = p.apart()
		}
		if p.w.Wildcard { // others wait for it
			return p.commit()
		}
		return nil
	}
	if left := p.settle(); left > 0 {
		return p.settling(left)
	}
	if p.w.Parting > 0 { // until then the new id would be answered for them, with another policy
		return p.wait(StepTXT, fmt.Sprintf("%d domains get a record of their own first", p.w.Parting), false, 2*time.Second)
	}
	if p.s.Intended == "" {
		return p.intend()
	}
	if p.s.Wrote.IsZero() || t.doubled(intended) || !t.some(intended) || p.lagging() {
		return p.write(intended, t.lag(intended))
	}
	return p.wait(StepVerify, t.lag(intended), p.lagging(), 0)
}

// byCustomer remembers the TTL that a customer chose for the record that he writes, so that it counts when it is gone.
func (p *pass) byCustomer() {
	if p.w.Manual && len(p.o.TXT.sts()) > 0 {
		p.s.OldTTL = max(p.s.OldTTL, p.o.TXT.ttl())
	}
}

// byHand is where a record that the customer has to write waits for him. That what he wrote is gone, or another, is a
// fault at once; that it is to be replaced is one after a day.
func (p *pass) byHand(value string) *Decision {
	p.byCustomer()
	p.s.Zone = p.o.TXT.Zone
	why := fmt.Sprintf("waiting for you to write: %s. %d IN TXT %q", p.w.Record, int(p.w.TTL.Seconds()), value)
	if remove := slices.DeleteFunc(p.o.TXT.sts(), func(v string) bool { return v == value }); len(remove) > 0 {
		why += fmt.Sprintf(" in the place of %q", remove)
	}
	wrong := !p.o.TXT.all(policygen.RecordText(p.s.ID)) && p.o.TXT.answered() > 0 && !p.w.Drain
	return p.wait(StepTXT, why, p.s.ID != "" && (wrong || p.s.Step == StepTXT && p.now.Sub(p.s.Since) > byHandFault), 0)
}

// settles says that the settle time is to be waited for whatever stands at the name, so that nobody need look there.
func (p *pass) settles() bool {
	return p.s.Dirty && p.s.Intended == "" && !p.s.Fresh && !p.w.Unseen && p.s.Step != StepAttach &&
		(!p.shares() || !p.s.Detached.IsZero()) && p.settle() > 0
}

func (p *pass) settling(left time.Duration) *Decision {
	until := p.now.Add(left).UTC().Format("15:04:05 MST")
	return p.wait(StepSettle, "the policy is live; senders may hold the old answer until "+until, false, left)
}

// settle is how much of the settle time is left. It may be skipped only where nobody can hold an older answer: no policy
// host and no record existed when the domain came, and none was written since.
func (p *pass) settle() time.Duration {
	if p.s.Fresh && p.o.TXT.absent() && !p.w.Restored && p.s.Settle.IsZero() {
		return 0
	}
	return max(p.w.Settle-p.o.Body.LiveFor, p.s.Settle.Sub(p.now), 0)
}

// intend commits a fresh id and then has it written, unless the name is somebody else's.
func (p *pass) intend() *Decision {
	t := p.o.TXT
	first := p.s.ID == ""
	switch foreign := t.foreign(); {
	case t.answered() == 0, first && !t.complete():
		return p.wait(StepTXT, t.lag(""), p.s.Step == StepTXT && p.now.Sub(p.s.Since) > verifyFault, 0)
	case first && len(foreign) > 0 && !p.w.Adopt && !p.w.Alias && !p.w.Manual && p.w.Shared == nil:
		return p.wait(StepAdopt, fmt.Sprintf("somebody else's record stands at %s: %q%s; if this server is to take over, run: "+
			"stspub domain adopt %s (or set adopt = true)", p.w.Record, foreign[0], t.only(foreign[0]), p.w.Name), true, 0)
	}
	limited := false
	if !p.w.Manual {
		var d *Decision
		if d, limited = p.afford(); d != nil {
			return d
		}
	}
	p.s.Record, p.s.Intended, p.s.Wrote = p.w.Record, p.w.FreshID, time.Time{}
	if p.w.Manual {
		return p.commit()
	}
	value := policygen.RecordText(p.s.Intended)
	d := p.write(value, t.lag(value))
	d.Limited = limited
	return d
}

// write asks for the record to be written, at most once in rewriteAfter.
func (p *pass) write(value, why string) *Decision {
	if p.w.Manual {
		return p.byHand(value)
	}
	if left := rewriteAfter - p.now.Sub(p.s.Wrote); !p.s.Wrote.IsZero() && left > 0 && left <= rewriteAfter {
		if p.s.Step == StepTXT { // the account refused it, and said why
			return p.wait(StepTXT, p.s.Reason, p.s.Fault, left)
		}
		return p.wait(StepVerify, why, p.lagging(), 0)
	}
	p.s.Wrote, p.s.Fresh = p.now, false
	p.s.Zone = p.o.TXT.Zone // from now on a record of ours may stand there
	remove := slices.DeleteFunc(p.o.TXT.sts(), func(v string) bool { return v == value })
	if len(remove)+len(p.o.TXT.Shared) > 0 {
		p.s.OldTTL = max(p.s.OldTTL, p.o.TXT.ttl())
	}
	if p.shares() {
		remove = append(remove, Tombstone)
	}
	return &Decision{State: p.s, Do: DoWrite, Add: value, Remove: remove, Why: why}
}

func (p *pass) lagging() bool {
	return p.s.Step == StepVerify && p.now.Sub(p.s.Since) > verifyFault
}
