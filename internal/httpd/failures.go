package httpd

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many wrong tokens an origin may send, and how many origins are remembered.
const (
	failuresAtOnce = 10
	failuresEvery  = 6 * time.Second
	failuresKept   = 4096
)

// failures counts wrong tokens by where they come from.
type failures struct {
	mu   sync.Mutex // guards from
	from map[netip.Prefix]*rate.Limiter
}

// wait returns for how long no token of an origin is looked at; zero: it is.
func (f *failures) wait(origin netip.Prefix) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.from[origin]
	if l == nil {
		return 0
	}
	if lack := 1 - l.Tokens(); lack > 0 {
		return time.Duration(lack * float64(failuresEvery))
	}
	return 0
}

// note counts a wrong token.
func (f *failures) note(origin netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.from[origin]
	if l == nil {
		f.makeRoom()
		l = rate.NewLimiter(rate.Every(failuresEvery), failuresAtOnce)
		f.from[origin] = l
	}
	l.Allow()
}

// makeRoom forgets origins whose failures are over, and one of the others where all are of today. f.mu is held.
func (f *failures) makeRoom() {
	if len(f.from) < failuresKept {
		return
	}
	for origin, l := range f.from {
		if l.Tokens() >= failuresAtOnce {
			delete(f.from, origin)
		}
	}
	for origin := range f.from {
		if len(f.from) < failuresKept {
			return
		}
		delete(f.from, origin)
	}
}
