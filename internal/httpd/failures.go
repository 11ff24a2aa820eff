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

// makeRoom forgets an origin when there are too many: of a few at random one whose failures are over, or else the last of
// them. f.mu is held.
func (f *failures) makeRoom() {
	if len(f.from) < failuresKept {
		return
	}
	looked := 0
	for origin, l := range f.from {
		if looked++; looked == 16 || l.Tokens() >= failuresAtOnce {
			delete(f.from, origin)
			return
		}
	}
}
