package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// blow is a kill -9 of the node that is at something.
type blow struct {
	step   string
	said   []string // what the node logs that is at it, for each domain
	before func()   // the change
	after  func()   // the kill
}

// storm is a fleet in which nodes are killed. What is left to chance follows from one seed.
type storm struct {
	*fleet
	chance *rand.Rand
	kills  int
}

const stormSeed = 8461

// TestKillStorm kills the working node in each step of two hundred publications, again and again, and starts it anew; once
// it stays away until the others have given it up, and once all nodes are killed at the same time.
func TestKillStorm(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	s := &storm{fleet: newFleet(t, "Knot", 11), chance: rand.New(rand.NewPCG(stormSeed, 0))}
	t.Logf("seed %d, %d domains of %d tenants", stormSeed, s.domains(), len(s.tenants))
	s.killedAtOrders()
	t.Logf("all domains were live after %s and %d kills", time.Since(begun).Round(time.Second), s.kills)
	blows := append(s.blows(), s.blows()...)
	s.chance.Shuffle(len(blows), func(i, j int) { blows[i], blows[j] = blows[j], blows[i] })
	for _, b := range blows {
		round := time.Now()
		s.strike(b)
		// A few may wait: what was killed while it wrote a record is given a minute to appear.
		s.live(2*patience, s.domains()/4)
		t.Logf("round %d, killed in step %s, took %s", s.rounds, b.step, time.Since(round).Round(100*time.Millisecond))
	}
	s.staysAway()
	s.killsAll()
	published := s.audit()
	if published < 200 {
		t.Errorf("%d publications, want 200", published)
	}
	t.Logf("%d publications and %d kills in %s", published, s.kills, time.Since(begun).Round(time.Second))
}

// killedAtOrders goes from nothing to live. Up to three times a node is killed that has obtained
// a certificate, when it is at more.
func (s *storm) killedAtOrders() {
	s.t.Helper()
	s.start(s.members...)
	left := 3
	next := s.mark(2)
	s.enter()
	s.begin(func() {
		if left == 0 {
			return
		}
		if victim := next.reached(`"msg":"obtained a certificate"`); victim != nil {
			next, left = s.mark(2), left-1
			s.kill(victim)
			s.start(victim)
		}
	})
	if left == 3 {
		s.t.Error("no node was killed while it ordered")
	}
}

// blows are one for each step of a publication.
func (s *storm) blows() []blow {
	rests := func(step string) []string { return []string{`"msg":"domain rests"`, `"step":"` + step + `"`} }
	nothing := func() {}
	return []blow{
		{publish.StepBody, []string{`"msg":"serving a new policy"`}, nothing, nothing},
		{publish.StepSettle, rests(publish.StepSettle), nothing, nothing},
		{publish.StepTXT, rests(publish.StepTXT), func() { s.api.set(shut) }, func() { s.api.set(open) }},
		{"write", []string{`"msg":"wrote record"`}, nothing, nothing},
		{publish.StepVerify, rests(publish.StepVerify), func() {
			for _, record := range s.aliased {
				s.second.lag(s.t, record)
			}
		}, s.second.transfer},
	}
}

// strike has all domains published, and kills the node that is at the step of a blow for some domain.
func (s *storm) strike(b blow) {
	s.t.Helper()
	b.before()
	from := s.mark(s.domains() / 2)
	s.change()
	var victim *member
	s.until(fmt.Sprintf("%d domains at step %s", from.n, b.step), patience, func() (bool, string) {
		victim = from.reached(b.said...)
		return victim != nil, "fewer are"
	})
	s.kill(victim)
	b.after()
	s.start(victim)
}

func (s *storm) kill(m *member) {
	m.run.kill()
	s.kills++
}

// mark is a point from which on lines in the logs of the nodes are counted.
type mark struct {
	members []*member
	said    map[*process]int // how much each had; one that is started later, nothing
	n       int              // how many lines are waited for
}

// mark waits for a number of lines up to most.
func (s *storm) mark(most int) mark {
	k := mark{said: make(map[*process]int), n: 1 + s.chance.IntN(most)}
	for _, i := range s.chance.Perm(len(s.members)) {
		k.members = append(k.members, s.members[i])
		k.said[s.members[i].run] = len(s.members[i].run.said())
	}
	return k
}

// reached returns a node that has logged a line with all parts when all together have often enough, and nil before.
func (k mark) reached(parts ...string) *member {
	n := 0
	var at *member
	for _, m := range k.members {
		said := m.run.said()
		for line := range strings.Lines(said[k.said[m.run]:]) {
			if containsAll(line, parts) {
				at = m
				n++
			}
		}
	}
	if n < k.n {
		return nil
	}
	return at
}

// tainted returns the domains whose record was written past a node, with their ids.
func (s *storm) tainted() map[policygen.Name]string {
	s.t.Helper()
	ids := make(map[policygen.Name]string)
	err := s.books().EachDomain(s.t.Context(), func(d store.Domain) error {
		if d.State.Tainted {
			ids[d.Name] = d.State.ID
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return ids
}

// staysAway kills a node in the middle of a change, and starts it only when the others have gone on without it. Each record
// that they wrote meanwhile gets one more id.
func (s *storm) staysAway() {
	s.t.Helper()
	victim := s.members[s.chance.IntN(len(s.members))]
	from := s.mark(1)
	s.change()
	s.until("a new policy", patience, func() (bool, string) { return from.reached(`"msg":"serving a new policy"`) != nil, "none" })
	s.kill(victim)
	s.live(2*patience, 0)
	before := s.tainted()
	if len(before) == 0 {
		s.t.Errorf("no record is tainted although %s was away", victim.name)
	}
	s.start(victim)
	s.settled(2*patience, 0, func(d publish.Status) bool { return before[d.Name] != d.ID && len(d.Findings) == 0 })
	for name, old := range before {
		ids, err := s.books().IDs(s.t.Context(), s.aliased[string(name)])
		if err != nil || len(ids) < 2 || ids[1].ID != old || ids[0].Text != ids[1].Text {
			s.t.Errorf("%s: ids %+v, %v; want one more than %s, for the same policy", name, ids[:min(2, len(ids))], err, old)
		}
	}
	s.t.Logf("%d records were tainted and healed", len(before))
}

// killsAll kills all nodes when records are written and no answer said so.
func (s *storm) killsAll() {
	s.t.Helper()
	before := make(map[string]string)
	for d := range s.aliased {
		before[d] = strings.Join(s.txt("_mta-sts."+d), " ")
	}
	s.api.set(mute)
	s.change()
	s.until("some record written", patience, func() (bool, string) {
		for d := range s.aliased {
			if strings.Join(s.txt("_mta-sts."+d), " ") != before[d] {
				return true, ""
			}
		}
		return false, "none"
	})
	for _, m := range s.members {
		s.kill(m)
	}
	s.api.set(open)
	s.start(s.members...)
	s.live(2*patience, 0)
}
