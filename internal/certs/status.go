package certs

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is how it stands with the certificate of a name.
type State string

// The states.
const (
	StateNone     State = "none"     // no certificate, and nobody wants one
	StateOrdering State = "ordering" // wanted, and its first order is queued or running
	StateValid    State = "valid"    // there is one, and it is valid now
	StateFailing  State = "failing"  // wanted, there is none, and the last order failed
	StateExpired  State = "expired"  // there is one, and it is not valid now
)

// Status is what an operator is told of one name. Zero times are not known, or do not apply.
type Status struct {
	State     State     `json:"state"`
	NotAfter  time.Time `json:"not_after,omitzero"`     // end of the certificate
	Authority string    `json:"authority,omitempty"`    // that it came from
	Staging   bool      `json:"staging,omitempty"`      // no sender trusts that one
	Problem   string    `json:"problem,omitempty"`      // why the last order failed, as it was worded; empty: it did not. Also of a valid one.
	Advice    string    `json:"advice,omitempty"`       // what to do about it; empty: we do not know
	Since     time.Time `json:"failing_since,omitzero"` // first failure in a row
	Late      bool      `json:"late,omitempty"`         // it is valid, and should have been renewed long ago
	NextTry   time.Time `json:"next_try,omitzero"`      // when it is ordered or renewed next, maybe in the past while it is queued; zero: not at all
	Place     int       `json:"place,omitempty"`        // in the queue of its authority, from 1 on; 0: it waits for no turn
	Expected  time.Time `json:"expected,omitzero"`      // when its turn comes, if all goes well and nothing more urgent comes
	Waiting   string    `json:"waiting,omitempty"`      // what its order waits for beside its turn
}

// Status says how it stands with a name.
func (k *Keeper) Status(name string) Status {
	name = canonical(name)
	now := time.Now()
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	known, found := k.memory.find(name)
	st := Status{State: StateNone}
	if found {
		st.NotAfter = time.Unix(known.notAfter, 0)
		st.Authority, st.Staging = strings.CutSuffix(k.memory.authorityName(known.authority), stagingMark)
		st.State = StateExpired
		if known.notBefore <= now.Unix() && now.Unix() <= known.notAfter {
			st.State = StateValid
		}
		if known.wanted && known.renew != 0 {
			st.NextTry = time.Unix(known.renew, 0)
		}
		st.Late = known.wanted && st.State == StateValid && now.After(lateAt(time.Unix(known.notBefore, 0), st.NotAfter))
	}
	if i := s.items[name]; i != nil {
		s.tell(i, &st, now)
	}
	return st
}

// tell adds what is known of an item. The caller holds mu.
func (s *schedule) tell(i *item, st *Status, now time.Time) {
	st.Problem, st.Advice, st.Since = i.problem, i.advice, i.failing
	if st.State == StateNone && i.wanted {
		if st.State = StateOrdering; i.failures > 0 {
			st.State = StateFailing
		}
	}
	if !i.wanted || len(s.lines) == 0 {
		return
	}
	if now.After(s.ranked) || (i.line != nil || i.held) && i.expected.IsZero() && now.After(s.rankNot) {
		s.rank(now)
	}
	st.NextTry, st.Place, st.Expected = latest(latest(i.due, i.next), i.since), i.place, i.expected
	switch {
	case i.cancel != nil:
		st.Waiting = "its order is running"
	case i.line != nil:
		if _, why := i.line.budget.closed(now); why != "" {
			st.Waiting = i.line.authority.Name() + ": " + why
		} else if i.tenant != "" && i.notAfter.IsZero() {
			st.Waiting = s.tenants[i.tenant].full(i.tenant, now)
		}
	case s.isElsewhere(i):
		st.Waiting = waitsElsewhere
	default:
		if i.spent {
			st.Waiting = s.tenants[i.tenant].full(i.tenant, now)
			break
		}
		l := s.choose(i, now)
		if at, why := l.budget.own(now, l.claim(i)); at.After(now) {
			st.Waiting = l.authority.Name() + ": " + why
		}
	}
}

// Overview is how it stands with all certificates.
type Overview struct {
	Names    int `json:"names"`    // that are wanted
	Valid    int `json:"valid"`    // of them
	Staging  int `json:"staging"`  // valid too, but for no sender: of a staging CA
	Early    int `json:"early"`    // not valid yet, by the clock of this machine
	Renewing int `json:"renewing"` // of the valid ones: to be renewed now
	Waiting  int `json:"waiting"`  // for their first certificate
	Failing  int `json:"failing"`  // those of Waiting and Renewing whose last order failed
	Expired  int `json:"expired"`
	// Done is when the last of those that wait now will have had its turn, if all goes well; zero: none waits.
	Done     time.Time `json:"done,omitzero"`
	Accounts []Account `json:"accounts"` // by preference
}

// Clock returns an error if a certificate that came shows that the clock of this machine is wrong, until it is right. No
// more are ordered from that authority meanwhile.
func (k *Keeper) Clock() error {
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, l := range s.lines {
		if skew := l.budget.skew; skew != nil && skew.lasts(now) {
			return fmt.Errorf("order certificates from %s: %w", l.authority.Name(), skew)
		}
	}
	return nil
}

// Account is how it stands with one authority.
type Account struct {
	Name    string    `json:"name"`
	Staging bool      `json:"staging,omitempty"`
	Orders  int       `json:"orders"` // that count, in the last Period
	Limit   int       `json:"limit"`
	Period  string    `json:"period"`
	Running int       `json:"running"`
	Queued  int       `json:"queued"`
	Next    time.Time `json:"next,omitzero"`    // when the next order that counts may be sent; zero: now
	Closed  string    `json:"closed,omitempty"` // why no order is sent at all
	Since   time.Time `json:"since,omitzero"`   // out of reach since
	Stopped time.Time `json:"stopped,omitzero"` // it wants no orders until then
}

// Overview counts. It takes a few dozen milliseconds with a million names.
func (k *Keeper) Overview() Overview {
	var o Overview
	now := time.Now()
	k.memory.each(func(_ []byte, i info) bool {
		if !i.wanted {
			return true
		}
		o.Names++
		switch {
		case now.Unix() > i.notAfter:
			o.Expired++
		case now.Unix() < i.notBefore:
			o.Early++
		case strings.HasSuffix(k.memory.authorityName(i.authority), stagingMark):
			o.Staging++
		default:
			o.Valid++
		}
		return true
	})
	s := &k.schedule
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rank(now)
	for _, i := range s.items {
		if !i.wanted {
			continue
		}
		if i.notAfter.IsZero() {
			o.Names++
			o.Waiting++
		} else if i.due.Before(now) && now.Before(i.notAfter) {
			o.Renewing++
		}
		if i.failures > 0 {
			o.Failing++
		}
		if i.line != nil || i.held {
			o.Done = latest(o.Done, i.expected)
		}
	}
	for _, l := range s.lines {
		o.Accounts = append(o.Accounts, l.account(now))
	}
	return o
}

func (l *line) account(now time.Time) Account {
	b := l.budget
	b.orders.fresh(now)
	a := Account{
		Name: l.authority.Name(), Staging: l.authority.Staging(), Orders: len(b.orders.times), Limit: b.limits.Orders,
		Period: span(b.limits.OrdersPeriod), Running: l.running, Queued: l.waits() + l.saving.len(),
		Since: b.outage.since,
	}
	if b.Stopped.After(now) {
		a.Stopped = b.Stopped
	}
	if at := b.orders.next(now); at.After(now) {
		a.Next = at
	}
	_, a.Closed = b.closed(now)
	return a
}

// String says what an authority still allows.
func (a Account) String() string {
	s := fmt.Sprintf("%d of %d orders in %s, %d running, %d waiting", a.Orders, a.Limit, a.Period, a.Running, a.Queued)
	switch {
	case a.Closed != "":
		s += "; " + a.Closed
	case !a.Next.IsZero():
		s += "; at its budget until " + clock(a.Next)
	}
	return s
}

// String is the one line that says how far it is.
func (o Overview) String() string {
	s := fmt.Sprintf("%d of %d names have a valid certificate", o.Valid, o.Names)
	if o.Staging > 0 {
		s += fmt.Sprintf(", %d have one of a staging CA", o.Staging)
	}
	if o.Early > 0 {
		s += fmt.Sprintf(", %d have one that is not valid yet", o.Early)
	}
	if o.Waiting > 0 {
		s += fmt.Sprintf(", %d wait for their first", o.Waiting)
	}
	if o.Renewing > 0 {
		s += fmt.Sprintf(", %d are being renewed", o.Renewing)
	}
	if o.Failing > 0 {
		s += fmt.Sprintf(", %d fail", o.Failing)
	}
	if o.Expired > 0 {
		s += fmt.Sprintf(", %d have expired", o.Expired)
	}
	if !o.Done.IsZero() {
		s += "; all will have had their turn by " + clock(o.Done)
	}
	return s
}

// Named is how it stands with the certificate of one name.
type Named struct {
	Name string `json:"name"`
	Status
}

// Waits says that there is more to say of a name than that its certificate is good.
func (n Named) Waits() bool {
	return n.State != StateValid || n.Staging || n.Late || n.Place > 0 || n.Problem != "" || n.Waiting != ""
}

// Each calls f for every name that is wanted or has a certificate, by name, until f returns an error, which it returns.
// f may call the Keeper.
func (k *Keeper) Each(f func(Named) error) error {
	var names []string
	k.memory.each(func(name []byte, _ info) bool {
		names = append(names, string(name))
		return true
	})
	s := &k.schedule
	s.mu.Lock()
	for name, i := range s.items {
		if i.wanted && i.notAfter.IsZero() {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if err := f(Named{name, k.Status(name)}); err != nil {
			return err
		}
	}
	return nil
}
