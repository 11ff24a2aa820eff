package daemon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	beatEvery  = 3 * time.Second        // a node says that it lives
	roundEvery = 100 * time.Millisecond // the shortest time between two looks for changes
	beatTime   = 5 * time.Second        // one word to the store
	roundTime  = time.Minute            // one look, and what follows from it; a million changes fit in it
	lostAfter  = 10 * time.Second       // without the store, a node is not ready
	pruneEvery = time.Hour              // how often what nobody needs any more is forgotten
	clockTime  = time.Second            // a look at the store's clock that takes longer says too little
)

// node is this process among those on one store. It says that it lives and what it serves, and serves what the others
// changed. On a store that is one process's alone there is nothing to say or to see.
type node struct {
	d       *daemon
	id      string
	address string // where the others reach our listener
	alone   bool

	served  atomic.Int64 // up to this change everything is served here
	leaving atomic.Bool
	clocked bool      // the store's clock was read
	doubt   bool      // what is served may be what the store has forgotten
	pruned  time.Time // when what was deleted was forgotten last
	known   sync.Map  // netip.AddrPort of the others' listeners → true; they only become more
	pings   chan chan<- error

	mu     sync.Mutex // guards what follows
	seen   time.Time  // when the store was heard of last
	pinged error      // of the last ping that came to an end
}

// newNode finds out who this is.
func (d *daemon) newNode(ctx context.Context) (*node, error) {
	n := &node{d: d, id: d.conf.Server.Node, address: d.conf.Server.NodeAddress, alone: d.conf.Store.Postgres == "", pings: make(chan chan<- error)}
	if n.id == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("server.node: the host has no name: %w; give the node one", err)
		}
		n.id = host
	}
	if n.address == "" {
		n.address = dialable(d.secure.Addr())
		host, _, err := net.SplitHostPort(d.conf.Server.HTTPS)
		if n.alone || err != nil || host != "" && !isEverywhere(host) {
			return n, nil
		}
		own, ok := hostAddress(ctx)
		if !ok {
			return nil, errors.New(`server.node_address: missing, and the host's own name leads to no address that others reach; ` +
				`on PostgreSQL write the one at which other nodes reach this one, like "192.0.2.1:443"`)
		}
		_, port, err := net.SplitHostPort(n.address)
		if err != nil {
			return nil, fmt.Errorf("server.https: %w", err)
		}
		n.address = net.JoinHostPort(own, port)
	}
	return n, nil
}

// hostAddress is what the host's own name leads to, as in a pod or a container, but not on itself alone.
func hostAddress(ctx context.Context) (string, bool) {
	name, err := os.Hostname()
	if err != nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return "", false
	}
	i := slices.IndexFunc(found, func(a netip.Addr) bool { return a.Unmap().IsGlobalUnicast() })
	if i < 0 {
		return "", false
	}
	return found[i].Unmap().String(), true
}

func isEverywhere(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsUnspecified()
}

// shared is the node's name where the store is one of several.
func (n *node) shared() string {
	if n.alone {
		return ""
	}
	return n.id
}

// join makes the node known before it reads what it is to serve: from then on the others wait for it. On a store of its own
// it is the only one there is.
func (n *node) join(ctx context.Context) error {
	if err := n.d.store.Beat(ctx, store.Node{ID: n.id}); err != nil {
		return err
	}
	if !n.alone {
		return n.readClock(ctx)
	}
	all, err := n.d.store.Nodes(ctx)
	for _, other := range all {
		if other.ID != n.id && other.Deregistered.IsZero() {
			err = errors.Join(err, n.d.store.Deregister(ctx, other.ID))
		}
	}
	return err
}

// run keeps this node among the others until ctx ends.
func (n *node) run(ctx context.Context) {
	if n.alone {
		n.runAlone(ctx)
		return
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	lost := true // at the start others may have passed us over
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		began := time.Now()
		err := n.round(ctx, &lost)
		if ctx.Err() != nil {
			return
		}
		n.tell(began, err)
		if err != nil {
			lost = true
			pause.Reset(time.Second)
			continue
		}
		wait, cancel := context.WithTimeout(ctx, beatEvery)
		_ = n.d.store.Wait(wait, n.served.Load()) // what is wrong with it, the next round is told
		cancel()
		pause.Reset(roundEvery)
	}
}

// enter says that the only node of a store has all of it, and has forgotten what was deleted.
func (n *node) enter(ctx context.Context) error {
	last, err := n.d.store.LastChange(ctx)
	if err != nil {
		return err
	}
	n.served.Store(last)
	if err := n.beat(ctx, n.address); err != nil {
		return err
	}
	return n.d.store.PruneDropped(ctx)
}

// round serves what changed, and says so. After the store was lost, what was announced without this node is looked at.
func (n *node) round(ctx context.Context, lost *bool) error {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	if err := n.readClock(ctx); err != nil {
		return err
	}
	after := n.served.Load()
	if n.doubt {
		after = math.MaxInt64 // which no store has had, so all is read
	}
	n.doubt = true // what is read from here on may be lost by the store before it is acknowledged
	certificates, err := n.d.keeper.Refresh(ctx, after)
	if err != nil {
		return err
	}
	policies, err := n.d.reconciler.Refresh(ctx, after)
	if err != nil {
		return err
	}
	n.served.Store(min(certificates, policies))
	if err := n.d.reconciler.RefreshOwned(ctx); err != nil {
		return err
	}
	if err := n.beat(ctx, n.address); err != nil {
		return err
	}
	n.doubt = false
	if *lost {
		if err := n.d.reconciler.WakeTainted(ctx); err != nil {
			return err
		}
		*lost = false
	}
	if now := time.Now(); now.Sub(n.pruned) >= pruneEvery {
		n.pruned = now
		if err := n.d.store.PruneDropped(ctx); err != nil {
			return err
		}
	}
	return n.d.reconciler.LookAtNodes(ctx)
}

func (n *node) beat(ctx context.Context, address string) error {
	if n.leaving.Load() {
		address = "" // nobody is to look there any more
	}
	return n.d.store.Beat(ctx, store.Node{ID: n.id, Address: address, Acknowledged: n.served.Load()})
}

// readClock has the store's time count.
func (n *node) readClock(ctx context.Context) error {
	before := time.Now()
	at, err := n.d.store.Now(ctx)
	if err != nil {
		return err
	}
	if took := time.Since(before); took < clockTime || !n.clocked {
		n.clocked = true
		n.d.reconciler.SetClock(at, before.Add(took/2))
	}
	return nil
}

// tell keeps whether the store answers, and whether this is still this node.
func (n *node) tell(began time.Time, err error) {
	switch {
	case err == nil:
		n.mu.Lock()
		n.seen = began // what was read may be as old, where a round was held up
		n.mu.Unlock()
		n.d.reconciler.Bar("node", "")
	case errors.Is(err, store.ErrLocked):
		n.d.reconciler.Bar("node", err.Error()+"; this one serves what it had, and publishes nothing")
	default:
		n.d.o.Log.Warn("this node is not abreast of the store; what is served stays", "node", n.id, "err", err)
	}
}

// pingPatience is how long a probe waits for the store to take a write: balancers wait for a second.
const pingPatience = 500 * time.Millisecond

// runAlone is run for the only node of a store: it says so now and then, and tries whether the store can be written when
// asked.
func (n *node) runAlone(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
			if err := n.enter(ctx); err != nil && ctx.Err() == nil {
				n.d.o.Log.Warn("node not entered in the store", "err", err)
			}
			pause.Reset(pruneEvery)
		case reply := <-n.pings:
			err := n.d.store.Ping(ctx)
			if ctx.Err() != nil {
				return
			}
			n.mu.Lock()
			n.pinged = err
			n.mu.Unlock()
			reply <- err
		}
	}
}

// writable says why the store cannot be written. One that is busy with a long change, like a large configuration that is
// taken, is as it was before: senders are served all the same.
func (n *node) writable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingPatience)
	defer cancel()
	reply := make(chan error, 1)
	select {
	case n.pings <- reply:
		select {
		case err := <-reply:
			return err
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pinged
}

// ready says why a load balancer should take nobody here. It asks no database that others may keep busy: a node among
// several says itself every few seconds whether it can write.
func (n *node) ready(ctx context.Context) error {
	if n.leaving.Load() {
		return errLeaving
	}
	if n.alone {
		return n.writable(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.seen) > lostAfter {
		return errors.New("this node is cut off from the store, and may serve old policies")
	}
	return nil
}

// serves says why nobody should be taken here even where no node is ready: one that is cut off from the store serves what it
// had, as all do while the database is away.
func (n *node) serves(context.Context) error {
	if n.leaving.Load() {
		return errLeaving
	}
	return nil
}

var errLeaving = errors.New("this node is about to stop")

// linger returns when ctx has ended, and a while after: until then load balancers learn that they should take nobody here.
func (n *node) linger(ctx, serving context.Context) {
	select {
	case <-ctx.Done():
	case <-serving.Done():
		return
	}
	n.leaving.Store(true)
	if !n.alone {
		farewell, cancel := context.WithTimeout(serving, beatTime)
		defer cancel()
		_ = n.beat(farewell, "") // without it the others look here in vain, and again
	}
	timer := time.NewTimer(n.d.conf.Server.Linger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-serving.Done():
	}
}

// gone says that this node serves nobody any more.
func (n *node) gone(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	if err := n.d.store.Deregister(ctx, n.id); err != nil && !errors.Is(err, store.ErrLocked) {
		n.d.o.Log.Warn("node not deregistered; the others wait for it for a while", "node", n.id, "err", err)
	}
}

// peers are where the others are to be seen.
func (n *node) peers(ctx context.Context) ([]string, error) {
	all, err := n.d.reconciler.Peers(ctx)
	for _, at := range all {
		if to, err := netip.ParseAddrPort(at); err == nil {
			n.known.Store(to, true)
		}
	}
	return all, err
}

// addrs are the addresses of this node and, as far as they were seen, of the others.
func (n *node) addrs() []netip.Addr {
	var all []netip.Addr
	if at, err := netip.ParseAddrPort(n.address); err == nil {
		all = append(all, at.Addr().Unmap())
	}
	n.known.Range(func(key, _ any) bool {
		all = append(all, key.(netip.AddrPort).Addr().Unmap()) // peers puts nothing else there
		return true
	})
	return all
}

func (n *node) isPeer(at netip.AddrPort) bool {
	_, found := n.known.Load(at)
	return found
}
