package publish_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// senders ask for the records of a crowd, and fetch the policy after each answer.
type senders struct {
	crowd   *crowd
	stop    func()
	rounds  []atomic.Int64 // of each group: how often all its names were asked for
	answers atomic.Int64
	ended   atomic.Int64 // of these a tombstone

	mu    sync.Mutex // guards the fields below
	wrong []string
	seen  map[policygen.Name][]sighting
}

// sighting is a record and the policy that was fetched after it; without id it is the end of the record.
type sighting struct{ id, body string }

// askRate is how many questions one sender puts in a second.
const askRate = 200

// ask has senders ask for each group of names, until stop.
func (c *crowd) ask(groups ...[]policygen.Name) *senders {
	ctx, cancel := context.WithCancel(c.ctx)
	s := &senders{crowd: c, seen: make(map[policygen.Name][]sighting), rounds: make([]atomic.Int64, len(groups))}
	var wg sync.WaitGroup
	for i, names := range groups {
		wg.Go(func() { s.run(ctx, names, &s.rounds[i]) })
	}
	s.stop = func() {
		cancel()
		wg.Wait()
	}
	c.t.Cleanup(s.stop)
	return s
}

// run is the one sender that asks for these names, so that what it sees is in order.
func (s *senders) run(ctx context.Context, names []policygen.Name, rounds *atomic.Int64) {
	client := &dns.Client{Timeout: 2 * time.Second}
	pace := rate.NewLimiter(askRate, 1)
	for ; pace.Wait(ctx) == nil; rounds.Add(1) {
		for _, name := range names {
			record, delegated, mayEnd := s.crowd.record(name)
			if !delegated {
				continue
			}
			if pace.Wait(ctx) != nil {
				return
			}
			m := new(dns.Msg).SetQuestion(record+".", dns.TypeTXT)
			m.RecursionDesired = false
			r, _, err := client.ExchangeContext(ctx, m, s.crowd.ns.Addr)
			if err != nil {
				continue // lost on the way, which is no answer; see catchUp
			}
			body := ""
			if page, ok := s.crowd.snapshot.Policy(name.PolicyHost()); ok {
				body = page.Text
			}
			_, _, still := s.crowd.record(name)
			s.see(name, r, body, mayEnd || still)
		}
	}
}

// catchUp waits until everything was asked for once more. Who gets no answers is found to have been too slow.
func (s *senders) catchUp() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := range s.rounds {
		for n := s.rounds[i].Load(); s.rounds[i].Load() < n+2 && !s.crowd.t.Failed(); {
			<-tick.C
		}
	}
}

// see notes an answer and the policy that was fetched after it.
func (s *senders) see(name policygen.Name, r *dns.Msg, body string, mayEnd bool) {
	var ids, others []string
	for _, rr := range r.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			if text := strings.Join(txt.Txt, ""); policygen.IsSTSv1(text) {
				ids = append(ids, text)
			} else {
				others = append(others, text)
			}
		}
	}
	s.answers.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case mayEnd && len(ids) == 0 && slices.Equal(others, []string{publish.Tombstone}):
		s.ended.Add(1)
		if n := len(s.seen[name]); n > 0 && s.seen[name][n-1].id != "" {
			s.seen[name] = append(s.seen[name], sighting{})
		}
	case r.Rcode != dns.RcodeSuccess || !r.Authoritative || len(ids) != 1 || len(others) > 0:
		s.wrong = append(s.wrong, time.Now().Format("15:04:05.000 ")+string(name)+": "+dns.RcodeToString[r.Rcode]+" "+strings.Join(slices.Concat(ids, others), ", "))
	case body != "": // without, there is nothing to file
		seen := s.seen[name]
		if n := len(seen); n == 0 || seen[n-1].id != ids[0] || seen[n-1].body != body {
			s.seen[name] = append(seen, sighting{ids[0], body})
		}
	}
}

// wantDetached counts who has a record of its own at this moment.
func (s *senders) wantDetached(atLeast int) {
	s.crowd.t.Helper()
	n := 0
	for _, d := range s.crowd.domains() {
		if !d.State.Detached.IsZero() {
			n++
		}
	}
	if n < atLeast {
		s.crowd.t.Errorf("%d are detached, want at least %d", n, atLeast)
	}
}

// judge fails the test with what would cost mail or protection.
//
// An id stands for the policy that it was made for. While a change settles, senders see a newer policy under it: they
// fetch again when the next id comes, so it has to come, and the one before must never come back. What no sender may ever
// get is a new id with the policy before.
func (s *senders) judge(names []policygen.Name) {
	t := s.crowd.t
	t.Helper()
	ids, pairs, early := 0, 0, 0
	var bad []string
	fail := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	shared := append(s.written(wildcard), s.written("*.us.s.default."+crowdZone)...)
	for _, name := range names {
		record, _, _ := s.crowd.record(name)
		written := append(s.written(record), shared...)
		history, err := s.crowd.store.History(s.crowd.ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		seen := s.seen[name]
		if len(seen) == 0 {
			fail("%s was never asked for", name)
		}
		for i, sight := range seen {
			if sight.id == "" {
				continue
			}
			pairs++
			if i == 0 || sight.id != seen[i-1].id {
				ids++
				if slices.ContainsFunc(seen[:i], func(o sighting) bool { return o.id == sight.id }) {
					fail("%s: %s came back", name, sight.id)
				}
			}
			made := slices.IndexFunc(written, func(w store.WrittenID) bool { return policygen.RecordText(w.ID) == sight.id })
			switch {
			case made < 0:
				fail("%s: %s was never intended for it", name, sight.id)
			case written[made].Text == sight.body:
			case sight.id == seen[len(seen)-1].id:
				fail("%s: %s stays with a policy that it does not stand for: %q", name, sight.id, sight.body)
			case !from(history, sight.body).After(written[made].Intended):
				fail("%s: %s came before its policy: with it was fetched %q", name, sight.id, sight.body)
			default:
				early++
			}
		}
	}
	t.Logf("%d answers (%d tombstones): %d ids by name, %d with a policy, %d of these newer than the id",
		s.answers.Load(), s.ended.Load(), ids, pairs, early)
	for what, all := range map[string][]string{"answer": s.wrong, "sight": bad} {
		if len(all) > 0 {
			t.Errorf("%d times a wrong %s, for example:\n%s", len(all), what, strings.Join(all[:min(len(all), 5)], "\n"))
		}
	}
	if s.ended.Load() == 0 || early == 0 || ids < 2*crowdSize {
		t.Errorf("the senders were too slow to prove anything")
	}
}

// from is when a policy was served first.
func from(history []store.Served, text string) time.Time {
	for _, h := range history {
		if h.Text == text {
			return h.From
		}
	}
	return time.Time{}
}

func (s *senders) written(record string) []store.WrittenID {
	s.crowd.t.Helper()
	ids, err := s.crowd.store.IDs(s.crowd.ctx, record)
	if err != nil {
		s.crowd.t.Fatal(err)
	}
	return ids
}

// wantRecords compares the name server with the store at the end: each name has its own record, the shared one, or a
// tombstone; and one that nobody knows has the shared one, whatever names are beside it.
func (c *crowd) wantRecords(published, ended []policygen.Name) {
	c.t.Helper()
	all := c.domains()
	shared := policygen.RecordText(all[wildcard].State.ID)
	want := map[string]string{below("stranger.example"): shared, below("uk"): shared, below("example"): shared}
	for _, name := range published {
		record, _, _ := c.record(name)
		want[record] = shared
		if st := all[name].State; !st.Detached.IsZero() {
			want[record] = policygen.RecordText(st.ID)
		}
	}
	for _, name := range ended {
		record, _, _ := c.record(name)
		want[record] = publish.Tombstone
	}
	for record, value := range want {
		r, err := c.ns.Query(record, dns.TypeTXT)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(r.Answer) != 1 || strings.Join(r.Answer[0].(*dns.TXT).Txt, "") != value {
			c.t.Errorf("%s: %s answers %v, want %q alone", record, c.ns.Program, r.Answer, value)
		}
	}
}
