package publish

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// sim is a world in which everything goes wrong: crashes between any two steps, writes that fail, are lost or land late,
// name servers that lag, customers that move, records changed by hand, a store restored from an old copy. Senders look at
// it all the time. After every action the promises of Next are checked.
type sim struct {
	t    *testing.T
	rnd  *rand.Rand
	now  time.Time
	log  []string
	fail bool

	policies []string
	want     string
	removed  bool

	// The store, and copies of it as a backup would hold.
	state   store.State
	ids     []string
	history []string
	backups []backup
	hold    bool // the comparison at start found unknown ids; not yet confirmed
	unknown bool // the history holds a policy that is not known

	// The node's memory.
	served string
	live   time.Time
	here   string    // the id that this process intended
	away   time.Time // since when every look proved that the host is elsewhere

	// The world.
	stands   map[string]string // every id ever intended → its text
	foreign  int
	servers  [2][]string // STSv1 values
	late     []func()
	hostOurs bool
	hostTTL  time.Duration
	old      time.Time // until then caches may lead to the place where the policy host was
	certOK   bool
	bodyOK   bool
	dnsOK    [2]bool
	writes   int // 0: work, 1: fail, 2: work but the answer is lost, 3: land late

	change int64    // of the text
	peer   *simPeer // nil: there is one node
	tenant simQuota

	senders  []simSender
	restored bool // since the last backup was put back, nothing verified yet
	gone     bool
	fresh    bool // nothing existed before the domain came
	serial   int
}

type backup struct {
	state   store.State
	ids     []string
	history []string
}

// simSender holds a policy as senders do. Some extend it while the id stays the same.
type simSender struct {
	id, text string
	until    time.Time
	extends  bool
}

// elsewhere is what another policy host serves.
const elsewhere = "version: STSv1\r\nmode: testing\r\nmax_age: 2592000\r\nmx: mx.elsewhere.example\r\n"

const (
	simSettle = 5 * time.Minute
	simTTL    = 5 * time.Minute
)

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), //nolint:gosec // a simulation
		stands: make(map[string]string), hostOurs: true, certOK: true, bodyOK: true, dnsOK: [2]bool{true, true},
	}
	for i, mx := range []string{"mx1.example.net", "mx2.example.net", "*.mx.example.net"} {
		s.policies = append(s.policies, policygen.Policy{Mode: policygen.Testing, MaxAge: 86400 * (i + 1), MX: []string{mx}}.Text())
	}
	s.want, s.fresh = s.policies[0], seed%2 == 0
	s.senders = []simSender{{}, {}, {extends: true}}
	if seed%3 == 0 {
		s.tenant.limit = 1 + int(seed%4)
	}
	if seed&withPeer != 0 {
		s.peer = newPeer(seed, s.now)
	}
	return s
}

func (s *sim) say(format string, args ...any) {
	s.log = append(s.log, s.now.Format("02 15:04:05 ")+fmt.Sprintf(format, args...))
}

func (s *sim) bad(format string, args ...any) {
	if s.fail {
		return
	}
	s.fail = true
	for _, l := range s.log[max(0, len(s.log)-60):] {
		s.t.Log(l)
	}
	s.t.Errorf(format, args...)
}

func (s *sim) advance(d time.Duration) { s.now = s.now.Add(d) }

// wanted is what the driver would hand to Next.
func (s *sim) wanted() Want {
	s.serial++
	w := Want{
		Name: "example.org", Record: "_mta-sts.example.org", Policy: s.want, Drain: s.removed, Adopt: true,
		Announced: s.state.Zone != "" || s.state.ID != "" || s.unknown, Restored: s.unknown,
		Stale:  s.state.Intended != s.here,
		Settle: simSettle, TTL: simTTL, FreshID: fmt.Sprintf("id%d", s.serial),
	}
	if s.removed {
		d := store.Domain{Name: w.Name, State: s.state}
		w.Policy = drainPolicy(d)
		var h []store.Served
		for _, text := range s.history {
			h = append(h, store.Served{Text: text})
		}
		if s.unknown {
			h = append(h, store.Served{})
		}
		w.MaxAge = largestMaxAge(h)
	}
	if s.hold {
		w.HoldStart, w.HoldEnd = "held", "held"
	}
	return w
}

func (s *sim) look(l Look, w Want, seen *Seen) {
	switch l {
	case LookPrior:
		seen.Prior = &Prior{Existed: len(s.servers[0])+len(s.servers[1]) > 0 || !s.fresh || !s.hostOurs}
	case LookHost:
		h := Host{Ours: s.hostOurs}
		if !h.Ours {
			h = Host{Proven: s.dnsOK[0] && s.dnsOK[1], TTL: max(s.hostTTL, time.Second), Reason: "elsewhere"}
			s.live = time.Time{}
		}
		switch {
		case !h.Proven:
			s.away = time.Time{}
		case s.away.IsZero():
			s.away = s.now
		}
		seen.Host = &h
	case LookCert:
		seen.Cert = &Cert{Valid: s.certOK}
	case LookBody:
		b := s.body()
		seen.Body = &b
	case LookTXT:
		t := TXT{Zone: "example.org"}
		for i, ok := range s.dnsOK {
			v := Server{Name: fmt.Sprint("ns", i)}
			if ok {
				v.STS = slices.Clone(s.servers[i])
			} else {
				v.Err = "time-out"
			}
			t.Servers = append(t.Servers, v)
		}
		for _, v := range t.sts() {
			if slices.ContainsFunc(s.ids, func(id string) bool { return v == policygen.RecordText(id) }) {
				t.Ours = append(t.Ours, v)
			}
		}
		seen.TXT = &t
	case LookMX:
		seen.MX = &MX{Known: true}
	case LookDelegation:
		seen.Delegation = &Delegation{Ours: true}
	case LookQuota:
		seen.Quota = s.quota()
	}
}

// pass is the driver's pass, with a crash at any boundary.
func (s *sim) pass(crash float64) {
	var seen Seen
	for range maxDecisions {
		if s.gone {
			return
		}
		w := s.wanted()
		dec := Next(w, s.state, seen, s.now)
		if dec.Look != 0 {
			s.look(dec.Look, w, &seen)
			continue
		}
		s.commit(w, dec)
		if s.rnd.Float64() < crash {
			s.crash()
			return
		}
		if dec.Wait || s.outrun(dec) {
			return
		}
		s.do(w, dec, &seen)
		if s.rnd.Float64() < crash {
			s.crash()
			return
		}
	}
	s.bad("no rest after %d decisions", maxDecisions)
}

func (s *sim) commit(w Want, dec Decision) {
	if dec.Do == DoForget {
		return
	}
	n := dec.State
	if n.Intended != "" && n.Intended != s.state.Intended {
		s.here = n.Intended
		if _, used := s.stands[n.Intended]; used {
			s.bad("id %s is intended twice", n.Intended)
		}
		s.ids = append(s.ids, n.Intended)
		s.stands[n.Intended] = n.Served
		s.say("intend %s for %q", n.Intended, short(n.Served))
	}
	if n.Served != s.state.Served {
		if !n.Dirty {
			s.bad("the text changes and the record is not dirty")
		}
		s.history = append(s.history, n.Served)
		s.change++
	}
	if n.Intended != "" && s.stands[n.Intended] != n.Served {
		s.bad("id %s is kept for another text", n.Intended)
	}
	if n.ID != s.state.ID && n.ID != "" {
		s.restored = false
		s.say("verified %s", n.ID)
	}
	s.state = n
}

func short(text string) string {
	p, _ := policygen.ParsePolicy([]byte(text))
	return fmt.Sprint(p.Mode, p.MaxAge)
}

func (s *sim) do(w Want, dec Decision, seen *Seen) {
	switch dec.Do {
	case DoServe:
		s.served, s.live = s.state.Served, time.Time{}
		seen.Body = nil
		s.say("serve %q", short(s.served))
	case DoWrite:
		s.mayWrite(w, dec, seen)
		s.apply(dec)
		seen.TXT = nil
	case DoDelete:
		s.mayDelete("delete")
		s.apply(dec)
		seen.TXT = nil
	case DoForget:
		s.mayDelete("forget")
		s.say("forgotten")
		s.gone, s.served = true, ""
	}
}

// mayWrite: the body stands for the id, is live now, and was for the settle time.
func (s *sim) mayWrite(w Want, dec Decision, seen *Seen) {
	s.say("write %s, remove %q", dec.Add, dec.Remove)
	id, err := policygen.ParseRecord(dec.Add)
	if err != nil {
		s.bad("write %q: %v", dec.Add, err)
	}
	switch {
	case s.stands[id] != s.served:
		s.bad("write %s, which stands for another text than is served", id)
	case s.served != s.state.Served || seen.Body == nil || !seen.Body.Live:
		s.bad("write %s before the body is live", id)
	case id != s.state.ID && s.now.Sub(s.live) < simSettle && !(s.fresh && s.first(id) && !s.now.Before(s.old)):
		s.bad("write %s after %s of settle time", id, s.now.Sub(s.live))
	}
	s.mayAfford(dec)
	s.peerMayWrite(id)
}

// first says that an id is the first that is written, where nothing was before.
func (s *sim) first(id string) bool {
	for _, v := range slices.Concat(s.servers[0], s.servers[1]) {
		if v != policygen.RecordText(id) {
			return false
		}
	}
	return true
}

// mayDelete: no sender holds a policy that asks for anything, unless the customer left a week ago.
func (s *sim) mayDelete(what string) {
	s.say("%s", what)
	if s.hold {
		s.bad("%s while deletions are held", what)
	}
	if !s.away.IsZero() && s.now.Sub(s.away) >= awayAfter {
		return
	}
	for i, c := range s.senders {
		if _, ours := s.stands[c.id]; !ours && s.state.Zone == "" || c.text == elsewhere {
			continue // it believed a record or a policy that somebody else wrote
		}
		p, _ := policygen.ParsePolicy([]byte(c.text))
		if c.text != "" && p.Mode != policygen.None && s.now.Before(c.until) {
			s.bad("%s while sender %d holds %q until %s", what, i, short(c.text), c.until)
		}
	}
}

// apply changes the name servers: the second follows the first later.
func (s *sim) apply(dec Decision) {
	land := func(i int) {
		keep := slices.DeleteFunc(s.servers[i], func(v string) bool { return slices.Contains(dec.Remove, v) || v == dec.Add })
		if dec.Add != "" {
			keep = append(keep, dec.Add)
		}
		s.servers[i] = keep
	}
	clobber := func() { // a provider that patches in place whatever it finds
		if dec.Add != "" {
			s.say("a late write lands: %s", dec.Add)
			s.servers = [2][]string{{dec.Add}, {dec.Add}}
		}
	}
	switch s.writes {
	case 0, 2:
		land(0)
		if s.rnd.IntN(2) == 0 {
			land(1)
		} else {
			s.late = append(s.late, func() { land(1) })
		}
	case 3:
		s.late = append(s.late, clobber)
	}
}

func (s *sim) crash() {
	s.say("crash")
	s.live, s.here = time.Time{}, ""
	s.served = s.state.Served // the snapshot is filled from the store
}

// senderLooks is one sender with a mail to deliver.
func (s *sim) senderLooks(i int) {
	c := &s.senders[i]
	sts := s.servers[s.rnd.IntN(2)]
	id := ""
	if len(sts) == 1 {
		id, _ = policygen.ParseRecord(sts[0])
	}
	switch {
	case id == "": // no policy is published: what is cached counts until it expires
		return
	case id == c.id && s.now.Before(c.until):
		if c.extends {
			c.until = s.now.Add(maxAge(c.text))
		}
		return
	case s.state.Handover > 0, s.now.Before(s.old) && s.rnd.IntN(2) == 0: // it fetches at the other place
		*c = simSender{id: id, text: elsewhere, until: s.now.Add(maxAge(elsewhere)), extends: c.extends}
		return
	}
	body := s.answer()
	if !s.hostOurs || !s.certOK || body == "" {
		return
	}
	if stood, known := s.stands[id]; known && stood != body && !s.state.Dirty && !s.state.Tainted && !s.restored && s.state.ID == id {
		s.bad("id %s is announced as right with another body than it stands for", id)
	}
	// What a peer that lags answers under an id that is not ours any more, the next pass finds there.
	if s.removed && !s.state.Horizon.IsZero() && enforcedOrTesting(body) && (body == s.served || id == s.state.ID) {
		s.bad("a policy that asks for something is served while draining")
	}
	*c = simSender{id: id, text: body, until: s.now.Add(maxAge(body)), extends: c.extends}
}

func enforcedOrTesting(text string) bool {
	p, err := policygen.ParsePolicy([]byte(text))
	return err == nil && p.Mode != policygen.None
}

func maxAge(text string) time.Duration {
	p, _ := policygen.ParsePolicy([]byte(text))
	return time.Duration(p.MaxAge) * time.Second
}

// event lets something happen.
func (s *sim) event(n int) {
	if s.gone {
		return
	}
	switch n % 24 {
	case 0, 1, 2:
		s.want, s.removed = s.policies[s.rnd.IntN(len(s.policies))], false
		s.say("want %q", short(s.want))
	case 3:
		s.removed = true
		s.say("removed")
	case 4:
		s.writes = s.rnd.IntN(4)
	case 5:
		s.writes = 0
	case 6:
		if len(s.late) > 0 {
			f := s.late[0]
			s.late = s.late[1:]
			f()
		}
	case 7:
		s.hostOurs, s.hostTTL = false, time.Duration(s.rnd.IntN(3))*time.Hour
		s.backups = nil // neither an older copy of the store nor anything in DNS would tell that the host was elsewhere
		s.say("host elsewhere")
	case 8, 9:
		if !s.hostOurs {
			s.old = s.now.Add(s.state.Handover)
			if s.state.Handover > 0 {
				s.senders[s.rnd.IntN(len(s.senders))].until = s.now // this one asks there, for the old id
				for i := range s.senders {
					s.senderLooks(i)
				}
			}
			s.say("host ours; old answers live until %s", s.old.Format(time.TimeOnly))
		}
		s.hostOurs = true
	case 10:
		s.certOK = !s.certOK
	case 11:
		s.bodyOK = !s.bodyOK
	case 12:
		i := s.rnd.IntN(2)
		s.dnsOK[i] = !s.dnsOK[i]
	case 13:
		s.foreign++
		v := policygen.RecordText(fmt.Sprint("hand", s.foreign))
		s.servers = [2][]string{{v}, {v}}
		s.say("by hand: %s", v)
	case 14:
		s.servers = [2][]string{}
		s.say("by hand: record deleted")
	case 15:
		for i := range s.servers {
			s.servers[i] = append(s.servers[i], policygen.RecordText("twice"))
		}
		s.say("by hand: duplicate")
	case 16:
		s.backups = append(s.backups, backup{s.state, slices.Clone(s.ids), slices.Clone(s.history)})
	case 17:
		s.restore()
	case 18:
		s.hold = false
	case 19:
		s.advance(time.Duration(s.rnd.IntN(72)) * time.Hour)
	default:
		s.advance(time.Duration(s.rnd.IntN(400)) * time.Second)
	}
}

// restore puts an old copy of the store back. The comparison at start finds the unknown ids, holds deletions, and seeds
// the history with "not known".
func (s *sim) restore() {
	if len(s.backups) == 0 {
		return
	}
	b := s.backups[s.rnd.IntN(len(s.backups))]
	if b.state.ID == s.state.ID && b.state.Intended == s.state.Intended && b.state.Served == s.state.Served {
		return
	}
	s.say("restore a backup")
	s.state, s.ids, s.history = b.state, slices.Clone(b.ids), slices.Clone(b.history)
	s.restored, s.hold, s.unknown = true, true, true
	s.change++
	s.crash()
	if s.peer != nil && s.peer.up { // all nodes start with the copy
		s.peer.linked = true
		s.take()
	}
}

// settleDown ends all faults and lets the world come to rest; then whoever holds the announced id must hold its body.
func (s *sim) settleDown() {
	for _, f := range s.late {
		f()
	}
	s.late, s.writes, s.hold = nil, 0, false
	if !s.hostOurs {
		s.old = s.now.Add(s.state.Handover)
	}
	s.hostOurs, s.certOK, s.bodyOK, s.dnsOK = true, true, true, [2]bool{true, true}
	if s.removed && s.gone {
		return
	}
	s.removed = false
	s.settlePeer()
	for range 400 {
		s.pass(0)
		if s.peer != nil && s.peer.linked {
			s.take()
		}
		for _, f := range s.late {
			f()
		}
		s.late = nil
		s.advance(5 * time.Minute)
	}
	if s.gone {
		return
	}
	record := []string{policygen.RecordText(s.state.ID)}
	if s.state.Step != StepLive || s.served != s.want || !slices.Equal(s.servers[0], record) || !slices.Equal(s.servers[1], record) {
		s.bad("does not come to rest: step %s (%s), record %q, id %s, want %q, served %q", s.state.Step, s.state.Reason, s.servers,
			s.state.ID, short(s.want), short(s.served))
	}
	for i := range s.senders {
		s.senderLooks(i)
		if c := s.senders[i]; c.text != s.want {
			s.bad("sender %d holds %q under id %s, want %q", i, short(c.text), c.id, short(s.want))
		}
	}
}

func (s *sim) run(events []byte) {
	for _, e := range events {
		s.event(int(e))
		s.peerEvent()
		s.pass(0.05)
		s.senderLooks(s.rnd.IntN(len(s.senders)))
		if s.fail {
			return
		}
	}
	s.settleDown()
}

func TestNextUnderFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(simWorlds) {
		if seed%2 == 1 {
			seed |= withPeer
		}
		s := newSim(t, seed)
		events := make([]byte, 150)
		for i := range events {
			events[i] = byte(s.rnd.UintN(256))
		}
		s.run(events)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzNext(f *testing.F) {
	f.Add(uint64(1), []byte{20, 0, 20, 1, 20, 2, 21, 22, 23})
	f.Add(uint64(7), []byte{20, 16, 0, 20, 20, 17, 20, 18, 3, 19, 19, 19})
	f.Add(uint64(10), []byte("0X00A"))
	f.Add(uint64(30), []byte("7"))
	f.Add(uint64(164), []byte("00c8$C"))
	f.Add(uint64(withPeer|3), []byte{20, 0, 20, 1, 20, 2, 21, 22, 23, 3, 19, 19, 19})
	f.Fuzz(func(t *testing.T, seed uint64, events []byte) {
		newSim(t, seed).run(events[:min(len(events), 400)])
	})
}
