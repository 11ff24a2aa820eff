package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

const (
	// silentAfter is when a node that was not heard of counts as silent: several heartbeats.
	silentAfter = 15 * time.Second
	// rollFor is how long a list of nodes is believed.
	rollFor = time.Second
)

// roll is the list of nodes as it was read last.
type roll struct {
	mu     sync.Mutex // guards what follows; held while it is read
	nodes  []store.Node
	change int64 // of the store, before the list was read
	read   time.Time
}

// peers returns the other nodes, as they were after a change was committed: a node registers before it reads what it serves,
// so who is not among them serves the change.
func (r *Reconciler) peers(ctx context.Context, change int64) ([]store.Node, error) {
	if r.cfg.Node == "" {
		return nil, nil
	}
	l := &r.roll
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read.IsZero() || time.Since(l.read) >= rollFor || l.change < change {
		last, err := r.cfg.Store.LastChange(ctx)
		if err != nil {
			return nil, fmt.Errorf("look at the other nodes: %w", err)
		}
		all, err := r.cfg.Store.Nodes(ctx)
		if err != nil {
			return nil, fmt.Errorf("look at the other nodes: %w", err)
		}
		l.nodes = slices.DeleteFunc(all, func(n store.Node) bool { return n.ID == r.cfg.Node || !n.Deregistered.IsZero() })
		l.change, l.read = last, time.Now()
	}
	return l.nodes, nil
}

// Peers returns where the policies of the other nodes are to be seen that serve and were heard of lately.
func (r *Reconciler) Peers(ctx context.Context) ([]string, error) {
	nodes, err := r.peers(ctx, 0)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, n := range nodes {
		if n.Silent < silentAfter && n.Address != "" {
			all = append(all, n.Address)
		}
	}
	return all, nil
}

// standing says whether a change is served by all nodes: behind is why it is to be waited for, and passed are those that
// nobody waits for any more.
func standing(nodes []store.Node, change int64, grace time.Duration) (behind string, passed []string) {
	for _, n := range nodes {
		switch {
		case n.Acknowledged >= change:
		case n.Silent >= max(grace, silentAfter):
			passed = append(passed, n.ID)
		case n.Silent >= silentAfter:
			behind = fmt.Sprintf("node %q is silent and may serve the old policy; it is waited for until %s", n.ID,
				n.Heartbeat.Add(grace).UTC().Format("15:04:05 MST"))
		case behind == "":
			behind = fmt.Sprintf("node %q does not serve the policy yet", n.ID)
		}
	}
	return behind, passed
}

// bodyOf looks at a domain's policy at all nodes and by its public name, or by another look that does.
func (r *Reconciler) bodyOf(ctx context.Context, d *store.Domain, look func() (Body, error)) (Body, error) {
	nodes, err := r.peers(ctx, d.Change)
	if err != nil {
		return Body{}, err
	}
	behind, passed := standing(nodesFor(d.Tenant, nodes), d.Change, r.settings.Load().conf.Publish.NodeGrace)
	v := Body{Reason: behind}
	if behind == "" || !d.State.Dirty {
		if v, err = look(); err != nil {
			return Body{}, err
		}
	}
	v.Behind, v.Passed = behind != "", passed
	v.LiveFor = r.liveFor(d, v.Live && !v.Behind)
	return v, nil
}

// Refresh has this node serve what was committed after a change, and returns up to which one it serves all then.
func (r *Reconciler) Refresh(ctx context.Context, after int64) (int64, error) {
	r.serving.Lock()
	defer r.serving.Unlock()
	last, err := r.cfg.Store.ServedSince(ctx, after, func(name policygen.Name, text string) error {
		if r.cfg.Snapshot.Set(name, text) {
			r.interrupt(name)
		}
		return nil
	})
	if !errors.Is(err, store.ErrNotFound) {
		return last, err
	}
	r.cfg.Log.Warn("the store cannot say what changed; reading all of it", "err", err)
	if last, err = r.cfg.Store.LastChange(ctx); err != nil {
		return 0, err
	}
	err = r.cfg.Snapshot.Refill(func(f func(name, text []byte) error) error { return r.cfg.Store.EachServed(ctx, f) })
	if err != nil {
		return 0, fmt.Errorf("read the domains: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tracks {
		t.live = time.Time{}
	}
	return last, nil
}

// LookAtNodes makes a fault of every other node that is silent.
func (r *Reconciler) LookAtNodes(ctx context.Context) error {
	nodes, err := r.peers(ctx, 0)
	if err != nil {
		return err
	}
	const subject = "node "
	silent := make(map[string]bool)
	for _, n := range nodes {
		if n.Silent < silentAfter {
			continue
		}
		silent[subject+n.ID] = true
		r.fault(subject+n.ID, fmt.Sprintf("node %q (%s) was heard of last at %s, and may serve old policies: publications wait for it for %s; "+
			"start it again, or if it is gone for good, run: stspub node remove %s", n.ID, n.Address,
			n.Heartbeat.UTC().Format(time.DateTime+" MST"), r.settings.Load().conf.Publish.NodeGrace, n.ID))
	}
	for was := range r.Faults() {
		if strings.HasPrefix(was, subject) && !silent[was] {
			r.fault(was, "")
		}
	}
	return nil
}

// NodeStatus is what an operator is told of a node. It is the answer of the admin API.
type NodeStatus struct {
	ID        string    `json:"id"`
	Address   string    `json:"address,omitempty"` // of its listener; empty: it starts or stops
	Started   time.Time `json:"started"`
	Heartbeat time.Time `json:"heartbeat"` // when it was heard of last
	Silent    int       `json:"silent"`    // seconds since then
	Lost      bool      `json:"lost"`      // that is too long
}

// Nodes returns all nodes that are not gone.
func (r *Reconciler) Nodes(ctx context.Context) ([]NodeStatus, error) {
	all, err := r.cfg.Store.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	nodes := []NodeStatus{}
	for _, n := range all {
		if !n.Deregistered.IsZero() {
			continue
		}
		s := NodeStatus{ID: n.ID, Address: n.Address, Started: n.Started, Heartbeat: n.Heartbeat, Silent: int(n.Silent.Seconds())}
		s.Lost = r.cfg.Node != "" && n.Silent >= silentAfter
		nodes = append(nodes, s)
	}
	return nodes, nil
}

// RemoveNode declares a node gone: nobody waits for it any more. One that was heard of lately is refused with [ErrRefused].
func (r *Reconciler) RemoveNode(ctx context.Context, id string) error {
	nodes, err := r.Nodes(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(nodes, func(n NodeStatus) bool { return n.ID == id })
	switch {
	case i < 0:
		return fmt.Errorf("remove node %q: %w", id, store.ErrNotFound)
	case !nodes[i].Lost:
		return fmt.Errorf("%w: node %q was heard of %d s ago, so it lives; stop it, then it is gone", ErrRefused, id, nodes[i].Silent)
	}
	if err := r.cfg.Store.Deregister(ctx, id); err != nil {
		return err
	}
	r.cfg.Log.Info("removed node", "node", id)
	return r.WakeTainted(ctx)
}

// WakeTainted has those domains looked at that were announced although some node may have served them otherwise.
func (r *Reconciler) WakeTainted(ctx context.Context) error {
	if err := r.cfg.Store.WakeTainted(ctx, r.now()); err != nil {
		return fmt.Errorf("have tainted domains looked at: %w", err)
	}
	r.poke()
	return nil
}

// Bar has no more domains claimed for a reason, which is a fault of the service, until it is called for that subject
// without one.
func (r *Reconciler) Bar(subject, reason string) {
	r.fault(subject, reason)
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason == "" {
		delete(r.barred, subject)
	} else {
		r.barred[subject] = true
	}
}

// isBarred says whether no domain may be claimed.
func (r *Reconciler) isBarred() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.barred) > 0
}
