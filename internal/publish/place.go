package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// place is where our own name leads, and led in the last day.
type place struct {
	TTL  time.Duration          `json:"ttl"` // the largest of the answers
	Seen map[netip.Addr]sighted `json:"seen"`
}

// sighted is an address of ours.
type sighted struct {
	Last time.Time `json:"last"` // seen in an answer
	// Rotates says that it was missing and came back: the name answers changing parts of a larger set.
	Rotates bool `json:"rotates"`
}

// old is until when caches may lead to an address that was ours.
func (p place) old(now time.Time) time.Time {
	var old time.Time
	for _, s := range p.Seen {
		if !s.Rotates && s.Last.Before(now) {
			old = later(old, s.Last.Add(min(p.TTL, maxHandover)))
		}
	}
	return old
}

// believeLost is for how long nobody else waits for name servers that did not say where we are.
const believeLost = time.Second

// keyPlace is where the last place is kept, as JSON.
const keyPlace = "publish/place"

// Home is where policy hosts have to lead: our name, and the addresses that are or were ours in the last day. It is found
// out once a minute.
func (o *Outside) Home(ctx context.Context) (sender.Home, error) {
	p, _, err := o.ourPlace(ctx)
	if err != nil {
		return sender.Home{}, fmt.Errorf("look up our own name %s: %w", o.Hostname, err)
	}
	return o.home(p), nil
}

func (o *Outside) home(p place) sender.Home {
	return sender.Home{Name: o.Hostname, Addrs: slices.Collect(maps.Keys(p.Seen))}
}

// ourPlace is believed for a minute.
func (o *Outside) ourPlace(ctx context.Context) (place, time.Time, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now().UTC()
	if now.Before(o.believe) {
		if o.lost != nil {
			return place{}, time.Time{}, o.lost
		}
		return o.own, o.own.old(o.looked), nil
	}
	a, err := o.Client.Resolver.Addrs(ctx, o.Hostname)
	if err != nil || len(a.Addrs)+len(o.Addresses) == 0 {
		if err == nil {
			err = errors.New("no A or AAAA record; give it one")
		}
		if ctx.Err() == nil { // else it need not be the name servers' fault
			o.lost, o.believe = err, time.Now().Add(believeLost)
		}
		return place{}, time.Time{}, err
	}
	if o.own.Seen == nil {
		value, err := o.Values.Value(ctx, keyPlace)
		if err == nil {
			err = json.Unmarshal(value, &o.own)
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return place{}, time.Time{}, fmt.Errorf("read our last addresses: %w", err)
		}
	}
	next := o.own.next(append(a.Addrs, o.Addresses...), a.TTL, o.looked, now)
	value, err := json.Marshal(next)
	if err == nil {
		err = o.Values.SetValue(ctx, keyPlace, value)
	}
	if err != nil {
		return place{}, time.Time{}, fmt.Errorf("keep our addresses: %w", err)
	}
	o.own, o.lost, o.looked, o.believe = next, nil, now, now.Add(time.Minute)
	return next, next.old(now), nil
}

// next is the place after an answer at now; looked is when the answer before it was, zero if none in this process.
func (p place) next(answer []netip.Addr, ttl time.Duration, looked, now time.Time) place {
	n := place{TTL: max(ttl, p.TTL), Seen: make(map[netip.Addr]sighted)}
	for a, s := range p.Seen {
		if now.Sub(s.Last) < maxHandover {
			n.Seen[a] = s
		}
	}
	for _, a := range answer {
		s, known := n.Seen[a]
		n.Seen[a] = sighted{Last: now, Rotates: s.Rotates || known && s.Last.Before(looked)}
	}
	return n
}
