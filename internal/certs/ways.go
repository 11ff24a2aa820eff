package certs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/store"
)

const (
	http01    = "http-01"
	tlsALPN01 = "tls-alpn-01"

	// wayPrefix is where the store has the challenge that works here, by authority.
	wayPrefix = "acme/way/"
	// turnAfter is how many names in a row only the other challenge has to validate before it is the first.
	turnAfter = 3
	// maxTurned bounds the names that are remembered for having failed.
	maxTurned = 10_000
)

// ways decides by which challenge a name is validated. An order tries one, since each that fails counts against a limit.
//
// First comes TLS-ALPN-01: port 443 of a policy host has to lead to us anyway, or no sender gets the policy, whereas port 80
// may be shut or somebody else's. Where names turn out to be validated by HTTP-01 only, as behind a relay that does not pass
// on the protocol acme-tls/1, that becomes the first. A name that failed one way goes the other way the next time.
type ways struct {
	http bool // HTTP-01 can be answered

	mu     sync.Mutex // guards what follows
	first  string
	proven bool              // first has worked
	others int               // names in a row that only the other way worked for
	turned map[string]string // name → the challenge that it failed by last
}

func newWays(http bool) *ways {
	return &ways{http: http, first: tlsALPN01, turned: make(map[string]string)}
}

// load takes what worked last from the store.
func (w *ways) load(ctx context.Context, values Values, authority string) error {
	v, err := values.Value(ctx, wayPrefix+authority)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read which challenge works: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if way := string(v); way == http01 || way == tlsALPN01 {
		w.first, w.proven = way, true
	}
	return nil
}

// pick returns the challenge to take of those that are offered, or nil.
func (w *ways) pick(name string, offered []*acme.Challenge) *acme.Challenge {
	w.mu.Lock()
	defer w.mu.Unlock()
	wanted := w.first
	if w.turned[name] == w.first {
		wanted = other(w.first)
	}
	var found *acme.Challenge
	for _, c := range offered {
		if c.Type == tlsALPN01 || c.Type == http01 && w.http {
			if found = c; c.Type == wanted {
				break
			}
		}
	}
	return found
}

// order returns the challenges that a name may be validated by, in the order in which they would be picked.
func (w *ways) order(name string) []string {
	if !w.http {
		return []string{tlsALPN01}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	first := w.first
	if w.turned[name] == first {
		first = other(first)
	}
	return []string{first, other(first)}
}

// prefer has a name validated by a challenge the next time.
func (w *ways) prefer(name, way string) {
	if slices.Index(w.order(name), way) > 0 {
		w.failed(name, other(way))
	}
}

// failed notes that a name was not validated.
func (w *ways) failed(name, way string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.turned) >= maxTurned {
		clear(w.turned)
	}
	w.turned[name] = way
}

// worked notes that a name was validated, and says whether that changed what comes first.
func (w *ways) worked(name, way string) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.turned, name)
	if way == w.first {
		changed = !w.proven
		w.proven, w.others = true, 0
		return changed
	}
	w.others++
	if w.proven && w.others < turnAfter {
		return false
	}
	w.first, w.proven, w.others = way, true, 0
	return true
}

func other(way string) string {
	if way == http01 {
		return tlsALPN01
	}
	return http01
}
