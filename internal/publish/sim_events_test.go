package publish

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// The world as [Sight]. The looks at a shared record's domains are made by several goroutines, so they do not pause.

func (s *sharedSim) Prior(ctx context.Context, name policygen.Name) Prior {
	_ = s.pause(ctx) // whoever is gone learns it at the store
	d := s.customer(name)
	return Prior{Existed: d.cname != "" || !d.fresh || !d.hostOurs}
}

func (s *sharedSim) Host(ctx context.Context, name policygen.Name, _ string) Host {
	d := s.customer(name)
	if passOf(ctx).record {
		return Host{Ours: d.hostOurs}
	}
	_ = s.pause(ctx)
	h := Host{Ours: d.hostOurs}
	if !h.Ours {
		h = Host{Proven: d.proven, TTL: max(d.hostTTL, time.Second), Reason: "elsewhere"}
	}
	switch {
	case !h.Proven:
		d.away = time.Time{}
	case d.away.IsZero():
		d.away = time.Now()
	}
	return h
}

func (s *sharedSim) Body(ctx context.Context, name policygen.Name, text string) Body {
	if p := passOf(ctx); !p.record {
		_ = s.pause(ctx)
	}
	page, ok := s.rec.cfg.Snapshot.Policy(name.PolicyHost())
	d := s.customer(name)
	return Body{Live: d.reachable() && ok && page.Text == text, Reason: "not seen"}
}

func (d *customer) reachable() bool { return d.hostOurs && d.certOK && d.bodyOK }

func (s *sharedSim) TXT(ctx context.Context, record string) TXT {
	_ = s.pause(ctx)
	t := TXT{Zone: simZone}
	for i, ok := range s.nsOK {
		v := Server{Name: fmt.Sprint("ns", i), TTL: simTTL}
		if ok {
			all := s.answer(i, record)
			v.STS = stsOf(all)
			v.Others = len(all) - len(v.STS)
		} else {
			v.Err = "time-out"
		}
		t.Servers = append(t.Servers, v)
	}
	return t
}

func (s *sharedSim) MX(ctx context.Context, name policygen.Name, _ string) MX {
	p := passOf(ctx)
	if p == nil {
		return MX{Reason: "only passes look"} // so that no reload is refused, and what they find counts
	}
	if !p.record {
		_ = s.pause(ctx)
	}
	if s.customer(name).stranded {
		return MX{Known: true, Uncovered: []string{"old.test"}}
	}
	return MX{Known: true}
}

func (s *sharedSim) Ready(ctx context.Context, name policygen.Name, _ string) Ready {
	if p := passOf(ctx); !p.record {
		_ = s.pause(ctx)
	}
	return Ready{Clean: !s.customer(name).unready, Reason: "no STARTTLS"}
}

// Report and ReportDelegation are not asked: no domain here has a TLSRPT record.
func (s *sharedSim) Report(context.Context, string) TXT { return TXT{} }

func (s *sharedSim) ReportDelegation(context.Context, policygen.Name, string) Delegation {
	return Delegation{}
}

func (s *sharedSim) Foreign(_ context.Context, name policygen.Name) string {
	if s.customer(name).hostOurs {
		return ""
	}
	return elsewhere
}

func (s *sharedSim) Delegation(ctx context.Context, name policygen.Name, record string) Delegation {
	_ = s.pause(ctx)
	return Delegation{Ours: s.customer(name).cname == record, Reason: "no CNAME"}
}

// The world as [Certs].

func (s *sharedSim) Want(string, string, bool) {}
func (s *sharedSim) Unwant(string)             {}

func (s *sharedSim) Retry(string) {}

func (s *sharedSim) Drop(context.Context, string) error { return nil }

func (s *sharedSim) Cert(host string) Cert {
	for _, d := range s.customers {
		if d.name.PolicyHost() == host {
			return Cert{Valid: d.certOK, NotAfter: time.Now().Add(60 * 24 * time.Hour)}
		}
	}
	return Cert{}
}

// mail is delivered by some sender to some customer.
func (s *sharedSim) mail() {
	d := s.customers[s.rnd.IntN(len(s.customers))]
	s.send(d, &d.senders[s.rnd.IntN(len(d.senders))])
}

// send is one sender with a mail to deliver.
func (s *sharedSim) send(d *customer, c *watcher) {
	now := time.Now()
	row, there := s.rows[d.name]
	if d.cname == "" || !there {
		return // what it learns before the domain comes, or after it went, nobody here can know
	}
	if !now.Before(c.seenUntil) {
		c.seen = ""
		if sts := stsOf(s.answer(s.rnd.IntN(2), d.cname)); len(sts) == 1 {
			c.seen, _ = policygen.ParseRecord(sts[0])
		}
		c.seenUntil = now.Add(time.Duration(s.rnd.Int64N(int64(simTTL))))
	}
	id := c.seen
	switch {
	case id == "": // no policy is published: what is cached counts until it expires
		return
	case id == c.id && now.Before(c.until):
		if c.extends {
			c.until = now.Add(maxAge(c.text))
		}
		return
	case c.slow == "" && s.rnd.IntN(4) == 0:
		c.slow, c.slowSince = id, now
		return
	case c.slow != "" && now.Sub(c.slowSince) < memoFor:
		id = c.slow
	}
	c.slow = ""
	text := d.served
	switch {
	case row.State.Handover > 0, now.Before(d.old) && s.rnd.IntN(2) == 0: // it fetches at the other place
		text = elsewhere
	case c.memo != "" && now.Sub(c.memoSince) < memoFor:
		text = c.memo
	case !d.reachable() || text == "":
		return
	default:
		if c.memoizes { // the settle time is the longer of this memory and that of the old place, not their sum
			c.memo, c.memoSince = text, now
		}
	}
	if text != elsewhere && enforcedOrTesting(text) && !row.Removed.IsZero() && !row.State.Horizon.IsZero() && text == d.served {
		s.bad("%s: a policy that asks for something is served while draining", d.name)
	}
	s.say("%s: a sender files %q under %s", d.name, short(text), id)
	c.id, c.text, c.until = id, text, now.Add(maxAge(text))
	s.check()
}

// tell is what customers do when they are told to.
func (s *sharedSim) tell() {
	for _, d := range s.customers {
		r, there := s.rows[d.name]
		if name := RecordName(simZone, r.Domain); there && r.Removed.IsZero() && r.State.Step == StepDelegation && d.cname != name {
			d.cname = name
			s.say("%s: CNAME to %s, as told", d.name, name)
		}
	}
}

// event lets something happen.
func (s *sharedSim) event(n int) {
	d := s.customers[s.rnd.IntN(len(s.customers))]
	set := s.rnd.IntN(len(s.sets))
	switch n % 48 {
	case 0, 1, 2:
		s.sets[set].want = s.rnd.IntN(len(s.sets[set].texts))
		s.say("%s: want %q", s.sets[set].name, s.sets[set].texts[s.sets[set].want].Text()[25:50])
		s.declare(false)
	case 3:
		d.wanted = !d.wanted
		s.say("%s: wanted %t", d.name, d.wanted)
		s.declare(false)
	case 4:
		d.wanted = true
		s.say("%s: wanted", d.name)
		s.declare(false)
	case 5:
		d.set = set
		s.say("%s: of set %s", d.name, s.sets[set].name)
		s.declare(false)
	case 6:
		for _, d := range s.customers {
			d.wanted = d.wanted && d.set != set
		}
		s.say("%s: nobody wants it", s.sets[set].name)
		s.declare(false)
	case 7:
		s.writes = s.rnd.IntN(4)
	case 8:
		s.writes = 0
	case 9, 10, 11:
		if len(s.late) > 0 {
			f := s.late[0]
			s.late = s.late[1:]
			f()
		}
	case 12:
		i := s.rnd.IntN(2)
		s.nsOK[i] = !s.nsOK[i]
	case 13:
		s.nsOK = [2]bool{true, true}
	case 14, 15, 16, 17, 18, 19:
		s.byTheHoster(n, d, set)
	case 20, 21, 22, 23, 24, 25, 26, 27, 28:
		s.byTheCustomer(n, d)
	case 29:
		s.backups = append(s.backups, s.clone())
	case 30:
		s.restore()
	case 31:
		s.declare(true)
	case 32:
		s.crash()
	case 33:
		s.advance(time.Duration(s.rnd.IntN(72)) * time.Hour)
	case 34, 35, 36:
		s.advance(time.Duration(s.rnd.IntN(150)) * time.Minute)
	case 37:
		for _, d := range s.customers {
			d.set = set
		}
		s.say("all of set %s", s.sets[set].name)
		s.declare(false)
	case 38:
		for _, d := range s.customers {
			d.wanted = true
		}
		s.say("all wanted")
		s.declare(false)
	case 39, 40: // a change of mind
		for range 2 {
			s.sets[set].want = s.rnd.IntN(len(s.sets[set].texts))
			s.say("%s: want %q", s.sets[set].name, s.sets[set].texts[s.sets[set].want].Text()[25:50])
			s.declare(false)
			s.work(s.rnd.IntN(60), 0.004)
		}
	default:
		s.advance(time.Duration(s.rnd.IntN(400)) * time.Second)
	}
}

// byTheHoster is what somebody does by hand in our zone.
func (s *sharedSim) byTheHoster(n int, d *customer, set int) {
	record := d.name.Label() + s.sharedName(d.set)[1:]
	if n%2 == 0 {
		record = s.sharedName(set)
	}
	s.foreign++
	value := policygen.RecordText(fmt.Sprint("hand", s.foreign))
	s.say("by hand at %s: %d", record, n%48)
	switch n % 48 {
	case 14, 15:
		s.hand(record, value)
	case 16, 17:
		s.hand(record)
	default:
		s.hand(record, append(s.zones[0][record], value)...)
	}
}

// byTheCustomer is what a customer does in his zone and with his hosts.
func (s *sharedSim) byTheCustomer(n int, d *customer) {
	row := s.rows[d.name]
	switch n % 48 {
	case 20:
		d.hostOurs, d.hostTTL = false, time.Duration(s.rnd.IntN(3))*time.Hour
		s.backups = nil // neither an older copy of the store nor anything in DNS would tell that the host was elsewhere
		s.say("%s: host elsewhere", d.name)
	case 21, 22:
		s.home(d)
	case 23:
		d.certOK = !d.certOK
	case 24:
		d.bodyOK = !d.bodyOK
	case 25:
		d.proven = !d.proven
	case 26:
		d.cname = RecordName(simZone, store.Domain{Name: d.name, Tenant: Tenant, MXSet: s.sets[d.set].name, Publish: store.PublishShared, State: row.State})
		s.say("%s: CNAME to %s", d.name, d.cname)
	case 27:
		if row.State.Zone != "" { // else: that it was there too early and went again, nobody can know
			d.cname = ""
			s.say("%s: CNAME gone", d.name)
		}
	case 28:
		d.stranded, d.unready = s.rnd.IntN(3) == 0, s.rnd.IntN(3) == 0
		s.say("%s: stranded %t, unready %t", d.name, d.stranded, d.unready)
	}
}

// home has a policy host point here again.
func (s *sharedSim) home(d *customer) {
	if d.hostOurs {
		return
	}
	handover := s.rows[d.name].State.Handover
	d.old = time.Now().Add(handover)
	if handover > 0 {
		d.senders[s.rnd.IntN(len(d.senders))].until = time.Now() // this one asks there, for the old id
		for i := range d.senders {
			s.send(d, &d.senders[i])
		}
	}
	d.hostOurs = true
	s.backups = nil
	s.say("%s: host ours", d.name)
}

func (s *sharedSim) advance(d time.Duration) {
	time.Sleep(d)
	s.say("%s later", d)
}

// restore puts an old copy of the store back. The comparison at start would find the unknown ids, hold deletions, and seed
// the history with "not known"; a world of five domains may have too few.
func (s *sharedSim) restore() {
	if len(s.backups) == 0 {
		return
	}
	s.life++
	s.finish()
	s.say("restore a backup")
	s.memStore = s.backups[s.rnd.IntN(len(s.backups))].clone()
	s.values[keyHold] = []byte("held")
	for name := range s.rows {
		_ = s.AddForeign(context.Background(), name, "", time.Now())
	}
	s.advance(10 * time.Minute)
	known := make(map[string]string)
	for _, id := range s.ids {
		known[id.ID] = id.Text
	}
	for _, d := range s.customers {
		for i := range d.senders {
			// That one of its ids was out with another text, no copy of the store can tell.
			if c := &d.senders[i]; known[c.id] != "" && known[c.id] != c.text {
				c.until = time.Now()
			}
		}
	}
	s.boot()
}

// run lets events happen, and then all faults end.
func (s *sharedSim) run(events []byte) {
	if s.rnd.IntN(4) > 0 {
		s.calm(12 * time.Hour)
	}
	for _, e := range events {
		s.event(int(e))
		steps := 1000
		if s.rnd.IntN(4) == 0 {
			steps = s.rnd.IntN(40)
		}
		s.work(steps, 0.004)
		if s.rnd.IntN(2) == 0 {
			s.tell()
		}
		s.mail()
		if s.fail {
			return
		}
	}
	s.settleDown()
}

// calm lets time pass without faults; customers do what they are told.
func (s *sharedSim) calm(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && !s.fail; {
		s.work(1_000_000, 0)
		for len(s.late) > 0 {
			f := s.late[0]
			s.late = s.late[1:]
			f()
		}
		s.tell()
		s.mail()
		next, err := s.NextDue(context.Background())
		if err != nil {
			next = end
		}
		time.Sleep(min(max(time.Until(next), time.Second), time.Until(end)+time.Second))
	}
}

// settleDown ends all faults; then everything comes to rest, and all senders learn what is served.
func (s *sharedSim) settleDown() {
	s.say("all faults end")
	s.writes, s.nsOK = 0, [2]bool{true, true}
	for _, d := range s.customers {
		s.home(d)
		d.proven, d.certOK, d.bodyOK, d.stranded, d.unready = true, true, true, false, false
	}
	s.declare(true)
	s.calm(5 * 24 * time.Hour)
	attached := s.rest()
	for i := range s.sets {
		if s.fail {
			return
		}
		record := s.sharedName(i)
		verified, written := s.verified[record], s.written[record]
		s.sets[i].want = (s.sets[i].want + 2) % 3
		s.declare(false)
		s.calm(3 * time.Hour)
		if one := s.verified[record] - verified; attached[i] > 0 && (one != 1 || s.written[record]-written != 1) {
			s.bad("a change of set %s costs %d ids and %d writes, want one", s.sets[i].name, one, s.written[record]-written)
		}
	}
	s.calm(3 * 24 * time.Hour)
	s.rest()
}

// rest checks that everything is at rest. It returns how many domains are attached to each shared record, if all are.
func (s *sharedSim) rest() []int {
	attached := make([]int, len(s.sets))
	apart := make([]bool, len(s.sets))
	for _, d := range s.customers {
		if s.fail || !d.wanted {
			continue
		}
		r, want := s.rows[d.name], s.sets[d.set].texts[s.sets[d.set].want].Text()
		home := below(r.State.Record, s.sharedName(d.set))
		if st := r.State; st.Step != StepLive || st.Fault || st.Served != want || d.served != want || home && !st.Detached.IsZero() {
			s.bad("%s does not come to rest: step %s (%s), detached %t, id %s, dirty %t, served %q, want %q, at its name %q", d.name, st.Step,
				st.Reason, !st.Detached.IsZero(), st.ID, st.Dirty, short(st.Served), short(want), s.answer(0, d.cname))
			return attached
		}
		if home {
			attached[d.set]++
		} else {
			apart[d.set] = true
		}
		for i := range d.senders {
			c := &d.senders[i]
			for range 3 { // one may be slow
				s.send(d, c)
			}
			if c.text != want {
				s.bad("%s: sender %d holds %q under id %s, want %q", d.name, i, short(c.text), c.id, short(want))
			}
		}
	}
	for i := range attached {
		if apart[i] {
			attached[i] = 0
		}
	}
	return attached
}

func runShared(t *testing.T, seed uint64, events []byte) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharedSim(t, seed)
		s.run(events)
		s.life++
		s.finish()
	})
}

// sharedEvents are a world's events by lot.
func sharedEvents(seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // a simulation
	events := make([]byte, 100)
	for i := range events {
		events[i] = byte(rnd.UintN(256))
	}
	return events
}

// TestSharedUnderFaults runs worlds, each with its own faults.
func TestSharedUnderFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(simSharedWorlds) {
		runShared(t, seed, sharedEvents(seed))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzShared(f *testing.F) {
	for _, seed := range []uint64{
		12,  // the shared record went while a domain that had moved had none of its own
		48,  // a text was committed and never served
		66,  // a domain that moved before its customer was told could not be saved
		84,  // a second roll-out ended at once
		155, // one new shared id after the other
		156, // a domain was forgotten where the shared record answers
	} {
		f.Add(seed, sharedEvents(seed))
	}
	f.Add(uint64(79), []byte("Yx8 80\x10\x0607\f799Y9cYYY%0")) // a shared record was back while one drained as if it was gone
	f.Add(uint64(155), []byte("8A8X\x96&YX00"))                // a shared record came back while its deletion was under way
	f.Add(uint64(216), []byte("7Y0Y8B80X"))                    // a shared text came and went while one waited to be told of it
	f.Fuzz(func(t *testing.T, seed uint64, events []byte) {
		runShared(t, seed, events[:min(len(events), 250)])
	})
}
