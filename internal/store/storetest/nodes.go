package storetest

import (
	"errors"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func nodeTests() map[string]func(*env) {
	return map[string]func(*env){
		"Nodes/BeatsAreKept":              nodesBeat,
		"Nodes/DeregisteredUntilItBeats":  nodesDeregister,
		"Nodes/CommittedAfterTheEnd":      nodesLate,
		"Nodes/ARestartFreesWhatItHad":    nodesRestart,
		"Nodes/TwoWithOneIDAreFound":      nodesTwo,
		"Nodes/AStoppedOneGivesItsIDBack": nodesGivenBack,
		"Nodes/AnotherOnesClaimsAreKept":  nodesApart,
		"Nodes/UnknownOnesAreNotFound":    nodesUnknown,
		"Nodes/OrdersOfOneThatIsGoneOver": nodesOrders,
	}
}

func (e *env) nodes() []store.Node {
	e.Helper()
	all, err := e.Nodes(e.ctx())
	e.must(err)
	return all
}

func nodesBeat(e *env) {
	e.equal("nobody", len(e.nodes()), 0)
	for i, n := range []store.Node{
		{ID: "one", Address: "192.0.2.1:443"},
		{ID: "one", Address: "192.0.2.2:443", Acknowledged: 7},
	} {
		begun := time.Now()
		e.must(e.Beat(e.ctx(), n))
		all := e.nodes()
		if diff := cmp.Diff([]store.Node{n}, all, cmpopts.IgnoreFields(store.Node{}, "Started", "Heartbeat", "Silent")); diff != "" {
			e.Fatalf("beat %d (-want +got):\n%s", i, diff)
		}
		// The clocks are of one machine.
		if late := all[0].Heartbeat.Sub(begun); late < -time.Second || late > time.Minute {
			e.Errorf("beat %d is %s after it began", i, late)
		}
		if s := all[0].Silent; s < 0 || s > time.Minute {
			e.Errorf("silent for %s", s)
		}
		if all[0].Started.After(all[0].Heartbeat) {
			e.Errorf("started %s after its heartbeat %s", all[0].Started, all[0].Heartbeat)
		}
	}
	first := e.nodes()[0].Started
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	e.equal("start", e.nodes()[0].Started, first)
}

func nodesDeregister(e *env) {
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	e.must(e.Deregister(e.ctx(), "one"))
	gone := e.nodes()[0].Deregistered
	if gone.IsZero() {
		e.Fatal("it is not deregistered")
	}
	e.must(e.Deregister(e.ctx(), "one"))
	e.equal("deregistered again", e.nodes()[0].Deregistered, gone)
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	e.equal("back", e.nodes()[0].Deregistered, time.Time{})
}

func nodesUnknown(e *env) {
	e.is(e.Deregister(e.ctx(), "nobody"), store.ErrNotFound, `"nobody"`)
	e.names(e.Beat(e.ctx(), store.Node{}), "id")
}

// nodesRestart leaves a store open as a process does that is killed, where the engine allows it.
func nodesRestart(e *env) {
	e.start("a.example", "b.example")
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	claimed := e.claim(1, time.Hour, 1)
	killed := e.second()
	started := e.nodes()[0].Started
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	e.equal("claimed again", names(e.claim(1, time.Hour, 9)), []policygen.Name{"b.example", "a.example"})
	e.is(e.Save(e.ctx(), &claimed[0], at(2)), store.ErrStale)
	if now := e.nodes()[0].Started; !now.After(started) {
		e.Errorf("it started %s, before %s", now, started)
	}
	if killed != nil {
		e.must(killed.Close())
	}
}

// second opens the store anew for what follows and returns the one before; nil: it had to be closed.
func (e *env) second() store.Store {
	e.Helper()
	first := e.Store
	s, err := e.with(e.T, e.handle, e.keys)
	if errors.Is(err, store.ErrLocked) {
		e.reopen()
		return nil
	}
	e.must(err)
	e.Store = s
	return first
}

// replaced returns a process whose node another one beats for, which e has from then on; nil where two cannot have the store
// open.
func (e *env) replaced(domains ...policygen.Name) store.Store {
	e.Helper()
	e.start(domains...)
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	first := e.second()
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	return first
}

func nodesTwo(e *env) {
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	first := e.second()
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	if first == nil {
		return
	}
	e.is(first.Beat(e.ctx(), store.Node{ID: "one"}), store.ErrLocked, `"one"`)
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	e.must(first.Close())
}

// nodesLate has what a killed process began to write be committed when the next one beats already.
func nodesLate(e *env) {
	first := e.replaced("a.example")
	if first == nil {
		return
	}
	late, err := first.Claim(e.ctx(), at(1), time.Hour, 1)
	e.must(err)
	e.equal("claimed late", names(late), []policygen.Name{"a.example"})
	e.equal("claimed", len(e.claim(1, time.Hour, 1)), 0)
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	e.equal("free with the next beat", names(e.claim(1, time.Hour, 1)), []policygen.Name{"a.example"})
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	e.equal("not its own", len(e.claim(1, time.Hour, 1)), 0)
	e.must(first.Close())
}

// nodesGivenBack has a process with another one's id stop.
func nodesGivenBack(e *env) {
	first := e.replaced("a.example")
	if first == nil {
		return
	}
	e.is(first.Beat(e.ctx(), store.Node{ID: "one"}), store.ErrLocked, `"one"`)
	e.equal("claimed", len(e.claim(1, time.Hour, 1)), 1)
	e.is(first.Deregister(e.ctx(), "one"), store.ErrLocked, `"one"`)
	e.equal("deregistered by the one that lost its id", e.nodes()[0].Deregistered, time.Time{})
	e.is(first.Beat(e.ctx(), store.Node{ID: "one"}), store.ErrLocked, `"one"`)
	e.must(e.Deregister(e.ctx(), "one"))
	e.must(first.Beat(e.ctx(), store.Node{ID: "one"}))
	e.is(e.Beat(e.ctx(), store.Node{ID: "one"}), store.ErrLocked, `"one"`)
	free, err := first.Claim(e.ctx(), at(1), time.Hour, 9)
	e.must(err)
	e.equal("free", names(free), []policygen.Name{"a.example"})
	e.must(first.Close())
}

func nodesApart(e *env) {
	e.start("a.example", "b.example", "c.example")
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	first := e.second()
	if first == nil {
		return
	}
	e.must(e.Beat(e.ctx(), store.Node{ID: "two"}))
	e.claim(1, time.Hour, 1)
	theirs, err := first.Claim(e.ctx(), at(1), time.Hour, 1)
	e.must(err)
	e.must(first.Deregister(e.ctx(), "one"))
	e.equal("free", names(e.claim(1, time.Hour, 9)), []policygen.Name{"c.example", theirs[0].Name})
	e.equal("nodes", []string{e.nodes()[0].ID, e.nodes()[1].ID}, []string{"one", "two"})
	e.must(first.Close())
	e.equal("still claimed", len(e.claim(1, time.Hour, 9)), 0)
}

func nodesOrders(e *env) {
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	ran := e.append(0, entry("a.example", 1))
	seen := ran.Changed
	first := e.second()
	e.must(e.Beat(e.ctx(), store.Node{ID: "one"}))
	got := e.journal(seen)
	if len(got) != 1 || got[0].Seq != ran.Seq || !got[0].Failed || !got[0].Ended.Equal(ran.Begun) {
		e.Errorf("journal since is %v, want the order as over", got)
	}
	if first != nil {
		e.must(first.Close())
	}
}
