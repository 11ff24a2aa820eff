package publish

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// simGrace is the node_grace of a simulation.
const simGrace = 10 * time.Minute

// withPeer marks seeds of worlds with a second node.
const withPeer = 1 << 32

// simPeer is a second node, which makes no passes. It lags, is cut off from the store and serves on, dies, is removed and
// comes back.
type simPeer struct {
	rnd        *rand.Rand
	up         bool // senders reach it
	linked     bool // it reaches the store
	registered bool
	served     string
	since      time.Time // when it began to serve that
	acked      int64
	heard      time.Time
	died       time.Time // when it did last
}

func newPeer(seed uint64, now time.Time) *simPeer {
	return &simPeer{rnd: rand.New(rand.NewPCG(seed, 2)), up: true, linked: true, registered: true, heard: now} //nolint:gosec // a simulation
}

// take has the peer serve what the store holds, and say so.
func (s *sim) take() {
	p := s.peer
	if p.served != s.state.Served {
		p.served, p.since = s.state.Served, s.now
	}
	if s.gone {
		p.served = ""
	}
	p.acked, p.heard, p.registered = s.change, s.now, true
}

// peerEvent lets something happen to the peer.
func (s *sim) peerEvent() {
	p := s.peer
	if p == nil {
		return
	}
	switch p.rnd.IntN(24) {
	case 0, 1:
		if p.linked {
			s.say("peer: cut off")
			p.linked = false
		}
	case 2:
		if p.up && !p.linked {
			s.say("peer: no more cut off")
			p.linked = true
		}
	case 5:
		if p.up {
			s.say("peer: dies")
			p.up, p.linked, p.died = false, false, s.now
		}
	case 6, 7:
		if !p.up {
			s.say("peer: starts") // senders reach it when it serves what the store holds
			s.startPeer()
		}
	case 8:
		if !p.up && p.registered && s.now.Sub(p.heard) >= silentAfter {
			s.say("peer: removed")
			p.registered = false
		}
	case 9, 10, 11:
		s.advance(simGrace)
	}
	if p.linked && p.rnd.IntN(3) > 0 {
		s.take()
	}
}

// startPeer has the peer serve after it was dead. Nobody got another answer since then.
func (s *sim) startPeer() {
	p := s.peer
	same := p.served == s.state.Served
	p.up, p.linked = true, true
	if s.take(); !same {
		p.since = p.died
	}
}

func (s *sim) nodes() []store.Node {
	if s.peer == nil || !s.peer.registered {
		return nil
	}
	return []store.Node{{ID: "peer", Acknowledged: s.peer.acked, Heartbeat: s.peer.heard, Silent: s.now.Sub(s.peer.heard)}}
}

// body is the look at all nodes and by the public name, as the driver makes it.
func (s *sim) body() Body {
	nodes := s.nodes()
	behind, passed := standing(nodes, s.change, simGrace)
	b := Body{Reason: behind, Behind: behind != "", Passed: passed}
	if behind == "" || !s.state.Dirty {
		b.Live = s.bodyOK && s.hostOurs && s.certOK && s.served == s.state.Served
		for _, n := range nodes {
			if n.Silent < silentAfter {
				b.Live = b.Live && s.peer.up && s.peer.served == s.state.Served
			}
		}
	}
	switch {
	case !b.Live || b.Behind:
		s.live = time.Time{}
	case s.live.IsZero():
		s.live = s.now
	default:
		b.LiveFor = s.now.Sub(s.live)
	}
	return b
}

// peerMayWrite: every node that was not given up has served the body for the settle time. What is written past one that was
// is known for it.
func (s *sim) peerMayWrite(id string) {
	p := s.peer
	if p == nil || !p.up || !p.registered {
		return
	}
	current := p.served == s.state.Served
	switch {
	case current && s.now.Sub(p.since) >= simSettle, id == s.state.ID:
	case s.now.Sub(p.heard) >= simGrace && s.state.Tainted:
	case current && s.fresh && s.first(id) && !s.now.Before(s.old):
	default:
		s.bad("write %s: the peer serves %q since %s, tainted %t", id, short(p.served), s.now.Sub(p.since), s.state.Tainted)
	}
}

// answer is what a sender gets that asks any node.
func (s *sim) answer() string {
	if p := s.peer; p != nil && p.up && p.rnd.IntN(2) == 0 {
		return p.served
	}
	return s.served
}

// settlePeer ends what is wrong with the peer, in one way or another.
func (s *sim) settlePeer() {
	p := s.peer
	if p == nil {
		return
	}
	if !p.up && p.rnd.IntN(2) == 0 {
		p.registered = false
		return
	}
	if !p.up {
		s.startPeer()
	}
	p.linked = true
	s.take()
}

// TestHeal takes the state machine past a silent node and back by hand.
func TestHeal(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	text := policygen.Policy{Mode: policygen.Testing, MaxAge: 86400, MX: []string{"mx.example"}}.Text()
	w := Want{Name: "example.org", Record: "_mta-sts.example.org", Policy: text, Announced: true, Settle: simSettle, TTL: simTTL, FreshID: "id2"}
	s := store.State{Served: text, ID: "id1", Zone: "example.org", Record: w.Record, Step: StepLive, Since: now}
	seen := Seen{
		Host: &Host{Ours: true}, Cert: &Cert{Valid: true}, Body: &Body{Live: true, LiveFor: time.Hour, Passed: []string{"node2"}},
		TXT: &TXT{Zone: "example.org", Servers: []Server{{Name: "ns", STS: []string{policygen.RecordText("id1")}}}},
		MX:  &MX{Known: true}, Quota: &Quota{Spent: true, Announced: text}, // which does not hold it
	}
	d := Next(w, s, seen, now)
	if d.Wait || !d.State.Tainted {
		t.Fatalf("a node is passed over: %+v, want it kept in the store before anything else", d)
	}
	d = Next(w, d.State, seen, now)
	if !d.Wait || d.State.Step != StepLive || len(d.State.Findings) != 1 || d.State.Findings[0].Code != "tainted" || d.State.Findings[0].Fault {
		t.Fatalf("tainted: %+v, want live with a notice", d)
	}
	behind := seen
	behind.Body = &Body{Live: true, LiveFor: time.Hour, Behind: true}
	if d := Next(w, d.State, behind, now); !d.State.Tainted {
		t.Fatalf("the node is heard of, and has not taken the policy: %+v", d)
	}
	seen.Body = &Body{Live: true, LiveFor: time.Hour}
	d = Next(w, d.State, seen, now)
	if d.State.Tainted || !d.State.Dirty || !d.State.Settle.Equal(now.Add(simSettle)) || d.Why == "" {
		t.Fatalf("all nodes serve it: %+v, want a fresh id after a settle time", d)
	}
	if d := Next(w, d.State, seen, now.Add(simSettle-time.Second)); !d.Wait || d.State.Step != StepSettle {
		t.Fatalf("before the settle time is over: %+v", d)
	}
	if d := Next(w, d.State, seen, now.Add(simSettle)); d.Do != DoWrite || d.Add != policygen.RecordText("id2") {
		t.Fatalf("after it: %+v, want id2 written", d)
	}
}
