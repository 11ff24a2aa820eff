package publish

import (
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// simQuota is a tenant that may write so often in a day, and when it did.
type simQuota struct {
	limit int // 0: any number
	made  []time.Time
	tried map[string]bool // ids
}

func (s *sim) spentAll() bool {
	n := 0
	for _, at := range s.tenant.made {
		if s.now.Sub(at) < 24*time.Hour {
			n++
		}
	}
	return s.tenant.limit > 0 && n >= s.tenant.limit
}

func (s *sim) quota() *Quota {
	q := &Quota{Announced: s.stands[s.state.ID]}
	if s.tenant.limit == 0 {
		return &Quota{}
	}
	if s.spentAll() {
		q.Spent, q.Reason, q.After = true, "spent", time.Hour
	}
	return q
}

// mayAfford: what is beyond the limit is needed, and what is needed is not held.
func (s *sim) mayAfford(dec Decision) {
	id, _ := policygen.ParseRecord(dec.Add)
	again := s.tenant.tried[id] || id == s.state.ID
	switch spent := s.spentAll(); {
	case spent && dec.Limited:
		s.bad("write %s, which is held", id)
	case spent && !again && !s.removed && s.stands[s.state.ID] != s.served:
		s.bad("write %s beyond the limit, for a policy that no sender was told of", id)
	}
	s.tenant.made = append(s.tenant.made, s.now)
	if s.tenant.tried == nil {
		s.tenant.tried = make(map[string]bool)
	}
	s.tenant.tried[id] = true
}

// outrun has others of the tenant take what was left, between the look and the write, and says whether they did.
func (s *sim) outrun(dec Decision) bool {
	if dec.Do != DoWrite || !dec.Limited || s.tenant.limit == 0 || s.rnd.IntN(8) > 0 {
		return false
	}
	s.say("others of the tenant were quicker")
	s.state.Intended, s.state.Wrote = "", time.Time{}
	return true
}
