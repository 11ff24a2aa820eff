package storetest

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func bookTests() map[string]func(*env) {
	return map[string]func(*env){
		"History/ChangedServedTurnsThePage":    historyServed,
		"History/ForeignBesideOurs":            historyForeign,
		"History/ForeignAgainMovesTo":          historyForeignAgain,
		"History/OfEachDomainAlone":            historyAlone,
		"History/GoesOnWhenADomainComesBack":   historyComesBack,
		"IDs/EnteredWhenIntended":              idsEntered,
		"IDs/NeverTwice":                       idsReused,
		"IDs/VerifiedWhenItBecomesID":          idsVerified,
		"IDs/NewestFirstWhateverTheClockSays":  idsOrder,
		"IDs/ForeignIDIsNotEntered":            idsForeign,
		"IDs/AtTheSameTimeOnlyOneGetsIt":       idsConcurrent,
		"IDs/IntendedAndVerifiedByOneSave":     idsAtOnce,
		"IDs/LateLandingIsVerified":            idsLate,
		"IDs/ClearedIntentionMayNotComeBack":   idsCleared,
		"IDs/UnknownRecordHasNone":             idsNone,
		"History/UnknownDomainHasNone":         historyNone,
		"History/DeclarationsAreNotInTheBooks": historyDeclared,
	}
}

func historyServed(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	for i, text := range []string{"A", "A", "B", "A", "", "", "A"} {
		e.save(&d, i+1, func(s *store.State) { s.Served = text })
	}
	e.save(&d, 20, func(s *store.State) { s.Reason = "something else" })
	e.equal("history", e.history("a.example"), []store.Served{
		{Text: "A", From: at(1), To: at(3)},
		{Text: "B", From: at(3), To: at(4)},
		{Text: "A", From: at(4), To: at(5)},
		{Text: "A", From: at(7)},
	})
}

func historyForeign(e *env) {
	e.start("a.example")
	e.must(e.AddForeign(e.ctx(), "a.example", "theirs", at(1)))
	d := e.domain("a.example")
	e.save(&d, 2, func(s *store.State) { s.Served = "ours" })
	e.must(e.AddForeign(e.ctx(), "a.example", "ours", at(3))) // the same text, served by somebody else
	e.must(e.AddForeign(e.ctx(), "a.example", "", at(4)))     // not known
	e.equal("history", e.history("a.example"), []store.Served{
		{Text: "theirs", Foreign: true, From: at(1), To: at(1)},
		{Text: "ours", From: at(2)},
		{Text: "ours", Foreign: true, From: at(3), To: at(3)},
		{Text: "", Foreign: true, From: at(4), To: at(4)},
	})
	e.save(&d, 5, func(s *store.State) { s.Served = "" })
	e.equal("ours", e.history("a.example")[1], store.Served{Text: "ours", From: at(2), To: at(5)})
	e.equal("domain", e.domain("a.example"), d)
}

func historyForeignAgain(e *env) {
	for _, add := range []struct {
		text string
		i    int
	}{{"one", 1}, {"two", 2}, {"one", 5}, {"one", 3}} {
		e.must(e.AddForeign(e.ctx(), "not-here.example", add.text, at(add.i)))
	}
	e.equal("history", e.history("not-here.example"), []store.Served{
		{Text: "one", Foreign: true, From: at(1), To: at(5)},
		{Text: "two", Foreign: true, From: at(2), To: at(2)},
	})
}

func historyAlone(e *env) {
	e.start("a.example", "b.example")
	for i, name := range []policygen.Name{"a.example", "b.example"} {
		d := e.domain(name)
		e.save(&d, i+1, func(s *store.State) { s.Served = "policy" })
		e.must(e.AddForeign(e.ctx(), name, "theirs", at(i+5)))
	}
	d := e.domain("a.example")
	e.save(&d, 9, func(s *store.State) { s.Served = "" })
	e.equal("other's history", e.history("b.example"), []store.Served{
		{Text: "policy", From: at(2)},
		{Text: "theirs", Foreign: true, From: at(6), To: at(6)},
	})
}

func historyComesBack(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served = "old" })
	e.must(e.Delete(e.ctx(), d)) // while it was served
	e.start("a.example")
	d = e.domain("a.example")
	e.save(&d, 5, func(s *store.State) { s.Served = "new" })
	e.equal("history", e.history("a.example"), []store.Served{
		{Text: "old", From: at(1), To: at(5)},
		{Text: "new", From: at(5)},
	})
}

func historyNone(e *env) {
	e.equal("history", e.history("a.example"), []store.Served(nil))
}

func historyDeclared(e *env) {
	e.start("a.example")
	e.declare(file(), at(1))
	e.claim(2, time.Hour, 1)
	e.equal("history", e.history("a.example"), []store.Served(nil))
}

func idsEntered(e *env) {
	e.start("a.example", "b.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served, s.Record, s.Intended = "A", "r1", "id1" })
	e.save(&d, 2, func(s *store.State) { s.Wrote = at(2) }) // Intended stays
	e.save(&d, 3, func(s *store.State) { s.Served, s.Intended = "B", "id2" })
	e.save(&d, 4, func(s *store.State) { s.Intended = "" })
	other := e.domain("b.example")
	e.save(&other, 5, func(s *store.State) { s.Served, s.Record, s.Intended = "A", "r2", "id3" })

	e.equal("ids", e.ids("r1"), []store.WrittenID{
		{ID: "id2", Text: "B", Intended: at(3)}, {ID: "id1", Text: "A", Intended: at(1)},
	})
	e.equal("ids", e.ids("r2"), []store.WrittenID{{ID: "id3", Text: "A", Intended: at(5)}})
}

// idsReused intends a used id: for the same record and text, for another record, and after its domain was deleted.
func idsReused(e *env) {
	e.start("a.example", "b.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served, s.Record, s.Intended = "A", "r1", "id1" })
	e.save(&d, 2, func(s *store.State) { s.Served, s.Intended = "B", "id2" })
	refused := func(d store.Domain, record string) {
		e.Helper()
		before, history, ids := e.everything(), e.history(d.Name), e.ids("r1")
		d.State.Served, d.State.Record, d.State.Intended = "A", record, "id1"
		mine := d
		e.is(e.Save(e.ctx(), &d, at(3)), store.ErrIDReused, string(d.Name), `"id1"`, record)
		e.equal("d", d, mine)
		e.equal("store", e.everything(), before)
		e.equal("history", e.history(d.Name), history)
		e.equal("ids", e.ids("r1"), ids)
	}
	refused(d, "r1")
	refused(e.domain("b.example"), "r2")
	e.must(e.Delete(e.ctx(), d))
	refused(e.domain("b.example"), "r1")
	e.start("a.example", "b.example")
	refused(e.domain("a.example"), "r1")
}

func idsVerified(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served, s.Record, s.Intended = "A", "r", "id1" })
	e.save(&d, 2, func(s *store.State) { s.ID, s.Intended = "id1", "" })
	e.save(&d, 3, func(s *store.State) { s.Served, s.Intended = "B", "id2" })
	e.save(&d, 4, func(s *store.State) { s.ID, s.Intended = "id2", "" })
	e.save(&d, 5, func(s *store.State) { s.ID = "id1" }) // seen again: the first time counts
	e.equal("ids", e.ids("r"), []store.WrittenID{
		{ID: "id2", Text: "B", Intended: at(3), Verified: at(4)},
		{ID: "id1", Text: "A", Intended: at(1), Verified: at(2)},
	})
}

func idsOrder(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	for i, minute := range []int{5, 5, 1, 9, 2} {
		e.save(&d, minute, func(s *store.State) { s.Record, s.Intended = "r", fmt.Sprintf("id%d", i) })
	}
	var got []string
	for _, id := range e.ids("r") {
		got = append(got, id.ID)
	}
	e.equal("ids", got, []string{"id4", "id3", "id2", "id1", "id0"})
}

func idsForeign(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Record, s.ID = "r", "theirs" })
	e.equal("ids", e.ids("r"), []store.WrittenID(nil))
}

func idsConcurrent(e *env) {
	const domains = 12
	var all []policygen.Name
	for i := range domains {
		all = append(all, policygen.Name(fmt.Sprintf("d%d.example", i)))
	}
	e.start(all...)
	errs := make([]error, domains)
	var g errgroup.Group
	for i, name := range all {
		g.Go(func() error {
			d, err := e.Domain(e.ctx(), name)
			if err != nil {
				return err
			}
			d.State.Record, d.State.Intended = "r", "id1"
			errs[i] = e.Save(e.ctx(), &d, at(1))
			return nil
		})
	}
	e.must(g.Wait())
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, store.ErrIDReused) {
			e.Errorf("error is %v, want ErrIDReused", err)
		}
	}
	e.equal("domains that got the id", won, 1)
	e.equal("ids", len(e.ids("r")), 1)
}

func idsAtOnce(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served, s.Record, s.Intended, s.ID = "A", "r", "id1", "id1" })
	e.equal("ids", e.ids("r"), []store.WrittenID{{ID: "id1", Text: "A", Intended: at(1), Verified: at(1)}})
}

// idsLate has a write that was given up land after all.
func idsLate(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served, s.Record, s.Intended = "A", "r", "id1" })
	e.save(&d, 2, func(s *store.State) { s.Served, s.Intended = "B", "id2" })
	e.save(&d, 3, func(s *store.State) { s.ID = "id1" })
	e.equal("ids", e.ids("r"), []store.WrittenID{
		{ID: "id2", Text: "B", Intended: at(2)},
		{ID: "id1", Text: "A", Intended: at(1), Verified: at(3)},
	})
}

func idsCleared(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served, s.Record, s.Intended = "A", "r", "id1" })
	e.save(&d, 2, func(s *store.State) { s.Intended = "" })
	d.State.Intended = "id1"
	e.is(e.Save(e.ctx(), &d, at(3)), store.ErrIDReused)
}

func idsNone(e *env) {
	e.equal("ids", e.ids("r"), []store.WrittenID(nil))
}
