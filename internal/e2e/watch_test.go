package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// watcher is all senders of the world: it asks for the record, then for the policy, again and again. What would lose
// mail or protection fails the test:
//   - two MTA-STS records, or none after there was one (RFC 8461, Section 3.1);
//   - an id that comes back after another one;
//   - a policy that comes back after another one, under whatever id;
//   - another TXT at the name that changes.
type watcher struct {
	world  *world
	domain string
	client *http.Client

	mu        sync.Mutex // guards the fields below
	eras      []era
	policies  []sight
	strangers []string
	slow      bool // there is little to see for a while
	gone      bool // the record may be missing
	ended     bool // it is missing, for good
	problems  []string
	rounds    int
}

// era is the time of one id.
type era struct {
	id     string
	policy string    // the first one seen under it
	seen   time.Time // when the id was first seen
	before time.Time // when the policy before this one was last seen
}

// sight is a policy and when it was last asked for.
type sight struct {
	text string
	last time.Time
}

// watch begins to watch a domain; strangers are the other TXT at its record.
func (w *world) watch(domain string, strangers ...string) *watcher {
	w.t.Helper()
	s := &watcher{world: w, domain: domain, client: w.sender(domain), strangers: strangers}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends by stop
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				s.round()
				if s.idles() {
					tick.Reset(200 * time.Millisecond)
				} else {
					tick.Reset(20 * time.Millisecond)
				}
			}
		}
	}()
	w.t.Cleanup(func() {
		close(stop)
		<-done
		s.judge(w.t)
	})
	return s
}

// round does what a sender does that has nothing cached.
func (s *watcher) round() {
	before := time.Now()
	values, err := lookupTXT(s.world.holder.dns(), "_mta-sts."+s.domain)
	if err != nil {
		return // a sender asks again later
	}
	answered := time.Now()
	body, err := fetch(s.client, s.domain)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rounds++
	s.record(values, before)
	if err == nil {
		s.policy(body, answered)
	}
}

func (s *watcher) problem(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

// record notes an answer of DNS. s.mu is held.
func (s *watcher) record(values []string, asked time.Time) {
	records := sts(values)
	others := slices.DeleteFunc(slices.Clone(values), func(v string) bool { return slices.Contains(records, v) })
	if !slices.Equal(others, s.strangers) {
		s.problem("other TXT at the name: %q, want %q", others, s.strangers)
	}
	switch {
	case len(records) > 1:
		s.problem("%d records: %q", len(records), records)
	case len(records) == 0:
		if len(s.eras) > 0 {
			if !s.gone {
				s.problem("no record after id %s", s.eras[len(s.eras)-1].id)
			}
			s.ended = true
		}
	case s.ended:
		s.problem("%q came back after it was gone", records[0])
	case len(s.eras) > 0 && value(s.eras[len(s.eras)-1].id) == records[0]:
	default:
		id := strings.TrimSuffix(strings.TrimPrefix(records[0], `"v=STSv1; id=`), `;"`)
		if slices.ContainsFunc(s.eras, func(e era) bool { return e.id == id }) {
			s.problem("id %s came back", id)
		}
		s.eras = append(s.eras, era{id: id, seen: time.Now()})
	}
}

// policy notes an answer of the policy host. s.mu is held.
func (s *watcher) policy(text string, asked time.Time) {
	last := len(s.policies) - 1
	switch {
	case last >= 0 && s.policies[last].text == text:
		s.policies[last].last = asked
	case slices.ContainsFunc(s.policies, func(p sight) bool { return p.text == text }):
		s.problem("an old policy came back: %q", text)
	default:
		s.policies = append(s.policies, sight{text, asked})
	}
	if e := len(s.eras) - 1; e >= 0 && s.eras[e].policy == "" {
		s.eras[e].policy = text
		if n := len(s.policies); n > 1 {
			s.eras[e].before = s.policies[n-2].last
		}
	}
}

// judge fails the test with what was noted.
func (s *watcher) judge(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range s.problems {
		if i == 5 {
			t.Errorf("%s: and %d more", s.domain, len(s.problems)-i)
			break
		}
		t.Errorf("%s: %s", s.domain, p)
	}
	if s.rounds == 0 {
		t.Errorf("%s: never watched", s.domain)
	}
}

func (s *watcher) idles() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slow
}

// pace has the watcher look five times a second where nothing is expected, or fifty times.
func (s *watcher) pace(slow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = slow
}

// mayGo allows the record to end.
func (s *watcher) mayGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone, s.slow = true, false
}

// want compares the policies that a sender would have filed, each under an id of its own, in order. No id may follow its
// policy before the settle time is over.
func (s *watcher) want(policies ...string) {
	s.world.t.Helper()
	s.world.until(s.domain+" watched", patience, func() (bool, string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := len(s.eras)
		return n > len(policies) || n == len(policies) && s.eras[n-1].policy != "", fmt.Sprintf("%+v", s.eras)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	var filed []string
	for _, e := range s.eras {
		filed = append(filed, e.policy)
		if d := e.seen.Sub(e.before); d < settle {
			s.world.t.Errorf("%s: id %s came %v after its policy, want at least %v", s.domain, e.id, d, settle)
		}
	}
	if !slices.Equal(filed, policies) {
		s.world.t.Fatalf("%s: senders file, id by id, %q, want %q", s.domain, filed, policies)
	}
}
