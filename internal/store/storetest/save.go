package storetest

import (
	"errors"
	"reflect"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/store"
)

func saveTests() map[string]func(*env) {
	return map[string]func(*env){
		"Save/KeepsEveryFieldOfState":     saveFields,
		"Save/WritesNothingElse":          saveNothingElse,
		"Save/SetsTheVersion":             saveVersion,
		"Save/StaleChangesNothing":        saveStale,
		"Save/GoneIsStaleAndNotFound":     saveGone,
		"Save/TimesAreMicroseconds":       saveTimes,
		"Save/LongAndStrangeTexts":        saveTexts,
		"Save/AtTheSameTimeLosesNothing":  saveConcurrent,
		"Save/TwoOfOneVersionOnlyOneWins": saveRace,
	}
}

// filled sets every field of State to a value of its own, so that a field that an engine forgets is found.
func filled(e *env, n int) store.State {
	e.Helper()
	var s store.State
	fill(e, reflect.ValueOf(&s).Elem(), "", n)
	return s
}

func fill(e *env, v reflect.Value, path string, n int) {
	e.Helper()
	for i := range v.NumField() {
		f := v.Field(i)
		name := path + v.Type().Field(i).Name
		switch f.Interface().(type) {
		case store.Report:
			fill(e, f, name, n)
		case string:
			f.SetString(name + strings.Repeat("x", n))
		case bool:
			f.SetBool(n%2 == 1)
		case int:
			f.SetInt(int64(100*n + i + len(path)))
		case time.Time:
			f.Set(reflect.ValueOf(at(100*n + i + len(path))))
		case []store.Finding:
			f.Set(reflect.ValueOf([]store.Finding{{Code: "code", Fault: n%2 == 1, Since: at(100*n + i), Text: name}}))
		case time.Duration:
			f.SetInt(int64(time.Duration(100*n+i) * time.Millisecond))
		default:
			e.Fatalf("State.%s is a %s: teach it to this test", name, f.Type())
		}
	}
}

func saveFields(e *env) {
	e.start("a.example", "b.example")
	d, other := e.domain("a.example"), e.domain("b.example")
	for n := 1; n <= 4; n++ {
		d.State, d.Adopt, d.Due = filled(e, n), n%2 == 0, at(n)
		want, last := d, e.lastChange()
		e.must(e.Save(e.ctx(), &d, at(n)))
		if d.Change <= last || d.Change > e.lastChange() { // Served is another each time
			e.Errorf("Change is %d, after %d and up to %d", d.Change, last, e.lastChange())
		}
		want.Version, want.Change = d.Version, d.Change
		e.equal("d", d, want)
		e.equal("stored", e.domain("a.example"), want)
	}
	d.State, d.Due = store.State{}, time.Time{}
	e.must(e.Save(e.ctx(), &d, at(9)))
	e.equal("emptied", e.domain("a.example").State, store.State{})
	e.equal("other domain", e.domain("b.example"), other)
}

func saveNothingElse(e *env) {
	e.start("a.example")
	before := e.domain("a.example")
	d := before
	d.TLSRPT = "v=TLSRPTv1; rua=mailto:x@x.test"
	d.Tenant, d.MXSet, d.Publish, d.Account, d.Owner = "x", "us", store.PublishAlias, "x", store.OwnerAPI
	d.Added, d.Removed = at(-9), at(9)
	e.must(e.Save(e.ctx(), &d, at(1)))
	before.Version = d.Version
	e.equal("stored", e.domain("a.example"), before)
}

func saveVersion(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	seen := map[int64]bool{d.Version: true}
	for range 5 {
		e.must(e.Save(e.ctx(), &d, at(1)))
		if seen[d.Version] {
			e.Fatalf("version %d was there before", d.Version)
		}
		seen[d.Version] = true
		e.equal("stored", e.domain("a.example").Version, d.Version)
	}
}

func saveStale(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	stale := d
	e.save(&d, 1, func(s *store.State) { s.Served, s.Record, s.Intended = "one", "r", "id1" })
	history, ids := e.history(d.Name), e.ids("r")

	stale.State = store.State{Served: "two", Record: "r", Intended: "id2", ID: "id1"}
	stale.Due, stale.Adopt = at(50), true
	before := stale
	e.is(e.Save(e.ctx(), &stale, at(2)), store.ErrStale, `"a.example"`)
	e.equal("d", stale, before)
	e.equal("stored", e.domain("a.example"), d)
	e.equal("history", e.history(d.Name), history)
	e.equal("ids", e.ids("r"), ids)
}

func saveGone(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.must(e.Delete(e.ctx(), d))
	err := e.Save(e.ctx(), &d, at(1))
	e.is(err, store.ErrStale, `"a.example"`)
	e.is(err, store.ErrNotFound)
	e.equal("domains", len(e.domains()), 0)
}

func saveTimes(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	east := time.FixedZone("east", 5*3600)
	d.State.Wrote = at(1).Add(999).In(east)
	d.State.Settle = time.Date(1969, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	d.State.Horizon = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	d.State.Handover = 90*time.Minute + 999
	d.Due = at(2).Add(1).In(east)
	e.must(e.Save(e.ctx(), &d, at(1)))

	got := e.domain("a.example")
	e.equal("times", []time.Time{got.State.Wrote, got.State.Settle, got.State.Horizon, got.State.Since, got.Due},
		[]time.Time{at(1), d.State.Settle, d.State.Horizon, {}, at(2)})
	e.equal("handover", got.State.Handover, 90*time.Minute)
	if got.State.Wrote.Location() != time.UTC || !got.State.Since.IsZero() {
		e.Errorf("times are %v and %v, want UTC and zero", got.State.Wrote, got.State.Since)
	}
}

func saveTexts(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	for i, text := range []string{
		"version: STSv1\r\nmode: none\r\n", "'; DROP TABLE domains; --", "grün ✓ %s ?1 $1", "a\\b\t\"c\"",
		strings.Repeat("mx: mx.example.net\r\n", 3000),
	} {
		e.save(&d, i, func(s *store.State) { s.Served, s.Reason, s.Forced = text, text, text })
		e.equal("stored", e.domain("a.example"), d)
		h := e.history("a.example")
		e.equal("history", h[len(h)-1].Text, text)
	}
}

func saveConcurrent(e *env) {
	e.start("a.example")
	const workers, saves = 6, 15
	var g errgroup.Group
	for range workers {
		g.Go(func() error {
			for done := 0; done < saves; {
				d, err := e.Domain(e.ctx(), "a.example")
				if err != nil {
					return err
				}
				d.State.Failures++
				switch err := e.Save(e.ctx(), &d, at(1)); {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrStale):
					return err
				}
			}
			return nil
		})
	}
	e.must(g.Wait())
	e.equal("count", e.domain("a.example").State.Failures, workers*saves)
}

func saveRace(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	const workers = 10
	errs := make([]error, workers)
	var g errgroup.Group
	for i := range workers {
		g.Go(func() error {
			mine := d
			mine.State.Failures = i + 1
			errs[i] = e.Save(e.ctx(), &mine, at(1))
			return nil
		})
	}
	e.must(g.Wait())
	wins, winner := 0, 0
	for i, err := range errs {
		if err == nil {
			wins, winner = wins+1, i+1
			continue
		}
		e.is(err, store.ErrStale)
	}
	e.equal("saves that won", wins, 1)
	e.equal("stored", e.domain("a.example").State.Failures, winner)
}
