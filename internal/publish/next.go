package publish

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// The steps of a domain, in order. What is beside the way (a hold, the way out) has its own names.
const (
	StepMX         = "mx"         // held: the new policy leaves out an MX that the domain's DNS names
	StepDNS        = "dns"        // the policy host does not point here
	StepCert       = "cert"       // no certificate yet
	StepBody       = "body"       // the policy is not seen from outside as it should be
	StepSettle     = "settle"     // it is, and senders' memories run out
	StepAdopt      = "adopt"      // held: somebody else's record stands at the name
	StepTXT        = "txt"        // the record is to be written
	StepVerify     = "verify"     // it is written, and not at every authoritative server yet
	StepDelegation = "delegation" // the customer's _mta-sts CNAME is missing
	StepAttach     = "attach"     // its own record goes, and the shared one answers
	StepLive       = "live"       // all is right
	StepAway       = "away"       // the customer's DNS has pointed elsewhere for a week
	StepDrain      = "drain"      // leaving: senders' cached policies run out
)

const (
	// rewriteAfter is how long a written record is given to appear: PowerDNS with its default caches answers the old
	// one for 21 s.
	rewriteAfter = 60 * time.Second
	// awayAfter is how long every authoritative server must name another place before a domain counts as moved.
	awayAfter = 7 * 24 * time.Hour
	// verifyFault is when a server that lags behind becomes a fault.
	verifyFault = 10 * time.Minute
	// byHandFault is when a record that its customer does not write becomes a fault.
	byHandFault = 24 * time.Hour
	// maxHandover caps how long caches are believed to hold a policy host's old place.
	maxHandover = 24 * time.Hour
)

// Next decides what is next for a domain. It is pure and level-triggered: only what is wanted, remembered and seen
// counts, so a repeat after a crash at any point is harmless. What it never does, whatever it is given:
//   - ask for a write of a new id unless the policy served was seen live, in this pass and for the settle time before;
//   - intend an id other than Want.FreshID, or keep an intended id when the policy served changes;
//   - delete before the horizon, or what was never written from here.
func Next(w Want, s store.State, o Seen, now time.Time) Decision {
	p := pass{w: w, s: s, o: o, now: now, found: s.Findings}
	p.s.Findings = nil // what is still wrong is found again
	if s.Step == "" && s.Served == "" {
		if o.Prior == nil {
			return look(LookPrior)
		}
		p.s.Fresh = !o.Prior.Existed && !w.Announced
	}
	if w.Drain {
		return p.drain()
	}
	return p.publish()
}

// pass is one call of Next. s is the state as it is to be committed.
type pass struct {
	w   Want
	s   store.State
	o   Seen
	now time.Time

	found []store.Finding // at the last look
}

func look(l Look) Decision { return Decision{Look: l} }

// commit has the state committed and the decision made again.
func (p *pass) commit() *Decision { return &Decision{State: p.s} }

// wait ends the pass at a step. Since is kept while the step stays the same.
func (p *pass) wait(step, reason string, fault bool, after time.Duration) *Decision {
	if p.s.Step != step {
		p.s.Step, p.s.Since, p.s.Failures = step, p.now, 0
	}
	reason = brief(reason)
	p.s.Reason, p.s.Fault = reason, fault
	if fault && len(p.s.Findings) == 0 {
		p.find(step, reason)
	}
	return &Decision{State: p.s, Wait: true, After: after}
}

// serve has another text served. Dirty is committed with it, so before any node serves it.
func (p *pass) serve() *Decision {
	p.s.Served, p.s.Dirty = p.w.Policy, true
	p.s.Intended, p.s.Wrote = "", time.Time{} // the id stood for another text
	p.s.Live = time.Time{}
	return &Decision{State: p.s, Do: DoServe}
}

func (p *pass) publish() Decision {
	p.s.Horizon, p.s.Deleted, p.s.Expelled = time.Time{}, time.Time{}, false // it may have drained before
	if p.shares() && p.s.Detached.IsZero() {
		return p.attached()
	}
	if p.s.Served != "" && p.s.ID == "" && p.s.Step != StepAttach {
		p.s.Dirty = true // its record was seen to be gone while it drained, or went and the shared one did not take over
	}
	held := ""
	if p.s.Forced != p.w.Policy {
		p.s.Forced = ""
	}
	if p.s.Served != p.w.Policy {
		stranded, d := p.strands()
		switch {
		case d != nil:
			return *d
		case stranded == "":
			return *p.serve()
		case p.s.Served == "":
			return *p.wait(StepMX, stranded, true, 0)
		}
		held = stranded // what is served goes on meanwhile
	}
	if d := p.comeHome(); d != nil {
		return *d
	}
	if d := p.announce(); d != nil {
		return *p.early(d)
	}
	if d := p.delegated(); d != nil {
		return *d
	}
	p.s.Checked = p.now
	if held != "" {
		return *p.wait(StepMX, held, true, 0)
	}
	return *p.watch()
}

// delegated sees to it that the customer's _mta-sts leads to the record, where that is another's name.
func (p *pass) delegated() *Decision {
	switch {
	case !p.w.Alias && !p.shares():
		return nil
	case p.o.Delegation == nil:
		d := look(LookDelegation)
		return &d
	case !p.o.Delegation.Ours:
		// A CNAME that was there and went is a fault; one that is still to come is not.
		return p.wait(StepDelegation, p.o.Delegation.Reason, !p.s.Checked.IsZero(), 0)
	}
	return nil
}

// early notes a customer's _mta-sts that leads to us before there is anything for senders to fetch.
func (p *pass) early(d *Decision) *Decision {
	switch {
	case !d.Wait, p.w.Announced, p.s.Zone != "", !p.w.Alias && !p.shares():
	case p.o.Delegation == nil:
		return &Decision{Look: LookDelegation}
	case p.o.Delegation.Ours:
		d.State.Fault = true
		d.State.Findings = append(d.State.Findings, store.Finding{
			Code: "txt-before-body", Fault: true, Since: p.now, Text: fmt.Sprintf("the CNAME at %s was set before the policy can be fetched; "+
				"some senders take that for an error: remove it until this domain is at step %s", p.w.Name.RecordName(), StepDelegation),
		})
	}
	return d
}

// strands says why Want.Policy would make senders refuse the domain's mail; empty: it does not, or none that they do not
// refuse already. RFC 8461, Section 5: senders refuse an MX that an enforced policy does not match.
func (p *pass) strands() (string, *Decision) {
	if !enforced(p.w.Policy) || p.s.Forced == p.w.Policy && !p.w.Wildcard || widens(p.s.Served, p.w.Policy) {
		return "", nil
	}
	if p.o.MX == nil {
		d := look(LookMX)
		return "", &d
	}
	if !p.o.MX.Known && p.w.Wildcard {
		return p.o.MX.Reason, nil
	}
	if !p.o.MX.Known {
		return "held: the MX of " + string(p.w.Name) + " cannot be looked up (" + p.o.MX.Reason +
			"), so whether the new policy covers them is not known", nil
	}
	if len(p.o.MX.Uncovered) > 0 {
		return fmt.Sprintf("held: senders would refuse mail for %s: its MX %s in DNS is not covered by the new policy; "+
			"add it to the MX set, remove it from DNS, or have who runs the service force the change, by the command that stspub plan prints",
			p.w.Name, strings.Join(p.o.MX.Uncovered, ", ")), nil
	}
	return "", nil
}

// watch is the end of the way: all is right but what only a human can mend.
func (p *pass) watch() *Decision {
	if p.s.Step == StepLive && p.now.Sub(p.s.Since) > p.s.OldTTL && !p.w.Manual {
		p.s.OldTTL = 0 // no cache holds what was replaced
	}
	if d := p.progress(); d != nil {
		return d
	}
	if p.w.Wildcard {
		return p.alive()
	}
	if d := p.covered(); d != nil {
		return d
	}
	if c := p.o.Cert; c.Late {
		why := c.Problem
		if why == "" {
			why = c.Queue
		}
		p.find("certificate", fmt.Sprintf("the certificate of %s ends in %d days and is not renewed: %s", p.w.Name.PolicyHost(),
			int(c.NotAfter.Sub(p.now).Hours()/24), why))
	}
	if slices.ContainsFunc(p.o.TXT.Servers, func(s Server) bool { return s.Others > 0 }) {
		p.find("stranger", fmt.Sprintf("another TXT stands beside the record at %s: some senders then ignore the policy; "+
			"remove it", p.w.Record))
	}
	return p.alive()
}

// alive ends the pass of a domain that is live, with what was found.
func (p *pass) alive() *Decision {
	if p.s.Tainted {
		p.notice("tainted", fmt.Sprintf("node %s may serve another policy still; when it serves this one, or is removed, one more id follows",
			strings.Join(p.o.Body.Passed, ", ")))
	}
	for _, f := range p.s.Findings {
		if f.Fault {
			return p.wait(StepLive, f.Text, true, 0)
		}
	}
	return p.wait(StepLive, "", false, 0)
}

// find notes something that a human has to mend.
func (p *pass) find(code, text string) {
	p.s.Findings = append(p.s.Findings, store.Finding{Code: code, Fault: true, Since: p.now, Text: brief(text)})
}

// notice notes something that passes, or can be lived with.
func (p *pass) notice(code, text string) {
	p.s.Findings = append(p.s.Findings, store.Finding{Code: code, Since: p.now, Text: brief(text)})
}

// maxWords bounds what is said of a domain at a time, in bytes: its DNS, which is quoted, may hold 64 KB at a name.
const maxWords = 4000

func brief(s string) string {
	if len(s) <= maxWords {
		return s
	}
	return strings.ToValidUTF8(s[:maxWords], "") + "…"
}

// announce brings State.Served before the senders: dns, cert, body, settle, txt, verify. It returns nil when a
// verified id stands for what is served.
func (p *pass) announce() *Decision {
	if d := p.hosted(); d != nil {
		return d
	}
	return p.record()
}

// hosted looks at everything up to the name where the record is. It returns nil when all of that is right.
func (p *pass) hosted() *Decision {
	var d Decision
	if p.o.Host != nil && p.o.Host.Ours {
		p.arrive()
	}
	switch {
	case p.o.Host == nil && !p.w.Wildcard:
		d = look(LookHost)
	case !p.w.Wildcard && !p.o.Host.Ours:
		return p.elsewhere()
	case p.o.Cert == nil && !p.w.Wildcard:
		d = look(LookCert)
	case !p.w.Wildcard && !p.o.Cert.Valid:
		return p.wait(StepCert, p.o.Cert.Reason, p.o.Cert.Fault, 0)
	case p.o.Body == nil:
		d = look(LookBody)
	case !p.o.Body.Live:
		return p.wait(StepBody, p.o.Body.Reason, p.s.Step == StepBody && p.now.Sub(p.s.Since) > verifyFault, 0)
	case p.taints():
		p.s.Tainted = true
		return p.commit()
	case p.s.Tainted && !p.o.Body.Behind && len(p.o.Body.Passed) == 0:
		return p.heal()
	case p.o.TXT == nil && p.settles():
		return p.settling(p.settle())
	case p.o.TXT == nil:
		d = look(LookTXT)
	default:
		return nil
	}
	return &d
}

// taints says that a node is passed over. Who asks it may file its old text under the id that comes next. A domain of a
// shared record goes with that.
func (p *pass) taints() bool {
	return len(p.o.Body.Passed) > 0 && !p.s.Tainted && !(p.shares() && p.s.Detached.IsZero())
}

// heal has one more id made, now that no node serves another text: what senders have of the one that was passed over they
// remember for a settle time, and what they have filed goes with the id.
func (p *pass) heal() *Decision {
	p.s.Tainted, p.s.Dirty, p.s.Intended, p.s.Wrote = false, true, "", time.Time{}
	p.s.Settle = later(p.s.Settle, p.now.Add(p.w.Settle))
	return &Decision{State: p.s, Why: "all nodes serve the policy now, and one did not when its id was written; a fresh id follows"}
}

// arrive takes note that the policy host points here.
func (p *pass) arrive() {
	if p.s.Handover > 0 {
		// Senders may have filed the other place's policy under our id, written or verified, and caches may still lead there.
		p.s.Settle, p.s.Handover = later(p.s.Settle, p.now.Add(p.s.Handover)), 0
		p.s.Dirty, p.s.Intended, p.s.Wrote = true, "", time.Time{}
		if p.shares() && p.s.Detached.IsZero() && p.s.Zone == "" {
			p.s.Dirty = false // nobody was sent to a record yet
		}
	}
	if left := p.o.Host.TTL; left > 0 { // our own addresses changed
		p.s.Settle = later(p.s.Settle, p.now.Add(left))
	}
	p.s.Away = time.Time{}
}

// elsewhere is where a policy host that does not point here ends. Time-outs and SERVFAIL prove nothing: a look that
// proves nothing begins the week anew after which a domain counts as moved.
func (p *pass) elsewhere() *Decision {
	h := p.o.Host
	p.s.Handover = min(max(p.s.Handover, h.TTL), maxHandover)
	switch {
	case !h.Proven:
		p.s.Away = time.Time{}
		return p.wait(StepDNS, h.Reason, p.w.Announced, 0)
	case !p.w.Announced:
		return p.wait(StepDNS, h.Reason, false, 0)
	case p.s.Away.IsZero():
		p.s.Away = p.now
	}
	if p.away() {
		return p.wait(StepAway, h.Reason, true, 0)
	}
	return p.wait(StepDNS, h.Reason, true, 0)
}

func (p *pass) away() bool { return !p.s.Away.IsZero() && p.now.Sub(p.s.Away) >= awayAfter }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// widens says whether both texts are enforced, and the second covers every MX that the first did.
func widens(from, to string) bool {
	before, err := policygen.ParsePolicy([]byte(from))
	if err != nil || before.Mode != policygen.Enforce {
		return false
	}
	after, err := policygen.ParsePolicy([]byte(to))
	return err == nil && after.Mode == policygen.Enforce && len(uncovered(before.MX, after)) == 0
}

// enforced says whether a policy text has mode enforce.
func enforced(text string) bool {
	p, err := policygen.ParsePolicy([]byte(text))
	return err == nil && p.Mode == policygen.Enforce
}
