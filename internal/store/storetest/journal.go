package storetest

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stspub/stspub/internal/store"
)

func journalTests() map[string]func(*env) {
	return map[string]func(*env){
		"Journal/ShowsWhatChanged":             journalChanges,
		"Journal/AppendsOnlyToWhatWasSeen":     journalStale,
		"Journal/OneOfManyAppends":             journalRace,
		"Journal/PrunesWhatCountsForNothing":   journalPruned,
		"Journal/RunningOrdersEndWithProcess":  journalAbandoned,
		"Journal/BeginsAnewWhenAllIsPruned":    journalAnew,
		"Certificates/OneByName":               certificateOne,
		"Orders/WhoRefusedAndSinceWhenIsThere": orderSince,
	}
}

func entry(name string, begun int) store.JournalEntry {
	return store.JournalEntry{Authority: "lab", Name: "mta-sts." + name, Domain: name, Begun: at(begun)}
}

// append enters an order.
func (e *env) append(last int64, j store.JournalEntry) store.JournalEntry {
	e.Helper()
	e.must(e.AppendJournal(e.ctx(), last, &j))
	return j
}

func (e *env) journal(after int64) []store.JournalEntry {
	e.Helper()
	all, err := e.Journal(e.ctx(), after)
	e.must(err)
	return all
}

func journalChanges(e *env) {
	e.equal("empty store", len(e.journal(0)), 0)
	a := e.append(0, entry("a.example", 1))
	exempt := entry("b.example", 2)
	exempt.Exempt = true
	b := e.append(a.Seq, exempt)
	e.equal("both", e.journal(0), []store.JournalEntry{a, b})
	e.equal("the second", e.journal(a.Changed), []store.JournalEntry{b})
	a.Exempt, a.Ended, a.Failed, a.Stopped, a.Reason = true, at(3), true, at(90), "slow down — ünd how"
	e.must(e.EndJournal(e.ctx(), a))
	got := e.journal(b.Changed)
	if diff := cmp.Diff([]store.JournalEntry{a}, got, cmpopts.IgnoreFields(a, "Changed")); diff != "" {
		e.Fatalf("ended (-want +got):\n%s", diff)
	}
	if got[0].Changed <= b.Changed {
		e.Errorf("Changed = %d, want more than %d", got[0].Changed, b.Changed)
	}
	e.equal("nothing new", len(e.journal(got[0].Changed)), 0)
}

func journalStale(e *env) {
	a := e.append(0, entry("a.example", 1))
	late := entry("b.example", 2)
	e.is(e.AppendJournal(e.ctx(), 0, &late), store.ErrStale, `"mta-sts.b.example"`)
	e.equal("what was refused", late, entry("b.example", 2))
	e.must(e.EndJournal(e.ctx(), a)) // is no entry of somebody else
	b := e.append(a.Seq, late)
	e.must(e.PruneJournal(e.ctx(), at(100), at(100), at(100)))
	e.append(b.Seq, entry("c.example", 101)) // nor is what was deleted
}

// journalRace has several append at the same time to the same end: one does.
func journalRace(e *env) {
	errs := make(chan error)
	for i := range 8 {
		go func() {
			j := entry(fmt.Sprintf("%d.example", i), i)
			errs <- e.AppendJournal(e.ctx(), 0, &j)
		}()
	}
	won := 0
	for range 8 {
		if err := <-errs; err == nil {
			won++
		} else {
			e.is(err, store.ErrStale)
		}
	}
	e.equal("appended", won, 1)
	e.equal("entries", len(e.journal(0)), 1)
}

func journalPruned(e *env) {
	old, exempt, stop, young := entry("old.example", 1), entry("exempt.example", 6), entry("stop.example", 1), entry("young.example", 6)
	exempt.Exempt = true
	old = e.append(0, old)
	exempt = e.append(old.Seq, exempt)
	stop = e.append(exempt.Seq, stop)
	e.append(stop.Seq, young)
	stop.Ended, stop.Stopped = at(2), at(50)
	e.must(e.EndJournal(e.ctx(), stop))
	left := func(counted, exempt, now int, want ...string) {
		e.Helper()
		e.must(e.PruneJournal(e.ctx(), at(counted), at(exempt), at(now)))
		var names []string
		for _, j := range e.journal(0) {
			names = append(names, j.Domain)
		}
		e.equal("left", names, want)
	}
	left(1, 6, 40, "old.example", "exempt.example", "young.example", "stop.example")
	left(5, 7, 40, "young.example", "stop.example")
	left(5, 7, 51, "young.example")
	ahead := entry("ahead.example", 0)
	ahead.Begun = at(51).Add(23 * time.Hour)
	ahead = e.append(stop.Seq+1, ahead) // after young
	left(5, 7, 51, "young.example", "ahead.example")
	ahead.Begun = at(51).Add(25 * time.Hour)
	e.append(ahead.Seq, ahead)
	left(5, 7, 51, "young.example", "ahead.example")
	e.must(e.EndJournal(e.ctx(), old)) // is gone
	left(7, 7, 51, "ahead.example")
}

func journalAbandoned(e *env) {
	ran := e.append(0, entry("a.example", 1))
	over := e.append(ran.Seq, entry("b.example", 2))
	over.Ended = at(3)
	e.must(e.EndJournal(e.ctx(), over))
	e.reopen()
	for _, j := range e.journal(0) {
		want := over
		if j.Seq == ran.Seq {
			want = ran
			want.Ended, want.Failed = ran.Begun, true // nobody knows
		}
		want.Changed = j.Changed
		e.equal("entry", j, want)
	}
}

// journalAnew has a process begin with a journal of which everything was pruned: what it has read is nothing, and that is
// all there is. Numbers go on growing, for others may have read the old ones.
func journalAnew(e *env) {
	a := e.append(0, entry("a.example", 1))
	b := e.append(a.Seq, entry("b.example", 2))
	b.Ended = at(3)
	e.must(e.EndJournal(e.ctx(), b))
	b = e.journal(a.Changed)[0]
	e.must(e.PruneJournal(e.ctx(), at(100), at(100), at(100)))
	e.reopen()
	e.equal("left", len(e.journal(0)), 0)
	c := e.append(0, entry("c.example", 101))
	if c.Seq <= b.Seq || c.Changed <= b.Changed {
		e.Errorf("Seq and Changed = %d, %d, want more than %d, %d", c.Seq, c.Changed, b.Seq, b.Changed)
	}
	late := entry("d.example", 102)
	e.is(e.AppendJournal(e.ctx(), 0, &late), store.ErrStale)
	e.append(c.Seq, late)
}

func certificateOne(e *env) {
	want := e.saveCertificates(certificate("a"), certificate("b"))
	got, err := e.Certificate(e.ctx(), "a")
	e.must(err)
	e.equal("certificate", got, want["a"])
	_, err = e.Certificate(e.ctx(), "c")
	e.is(err, store.ErrNotFound, `"c"`)
}

func orderSince(e *env) {
	want := store.Order{Name: "a", Failures: 1, Tried: at(4), Next: at(9), Problem: "no", Advice: "do", Authority: "lab", Since: at(2)}
	for _, outage := range []bool{false, true, false} {
		want.Outage = outage
		e.must(e.SaveOrder(e.ctx(), want))
		e.reopen()
		e.equal("orders", e.orders(), []store.Order{want})
	}
}
