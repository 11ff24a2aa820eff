package storetest

import (
	"bytes"
	"context"
	"time"

	"github.com/stspub/stspub/internal/store"
)

func valueTests() map[string]func(*env) {
	return map[string]func(*env){
		"Value/ComesBackAsSet":     valueSet,
		"Value/NotFoundIsNamed":    valueNotFound,
		"Value/EnsuredIsOneForAll": valueEnsured,
		"Value/DeletedIsGone":      valueDeleted,
		"Value/KeysAreExact":       valueKeys,
		"Value/ErrorsHideValues":   valueSecret,
		"Ping/Writes":              pingWrites,
		"Close/EndsAllMethods":     closeEnds,
	}
}

func (e *env) value(key string) []byte {
	e.Helper()
	v, err := e.Value(e.ctx(), key)
	e.must(err)
	return v
}

func valueSet(e *env) {
	for _, v := range [][]byte{[]byte("text"), {0, 1, 0xff, 0}, {}, nil, bytes.Repeat([]byte("long "), 50_000)} {
		e.must(e.SetValue(e.ctx(), "acme/account_key", v))
		if got := e.value("acme/account_key"); !bytes.Equal(got, v) {
			e.Errorf("value is %d bytes, want the %d that were set", len(got), len(v))
		}
	}
}

func valueNotFound(e *env) {
	_, err := e.Value(e.ctx(), "acme/nobody+token")
	e.is(err, store.ErrNotFound, `"acme/nobody+token"`)
}

func valueEnsured(e *env) {
	got := make(chan string, 8)
	for i := range cap(got) {
		go func() {
			v, err := e.EnsureValue(e.ctx(), "acme/account", []byte{byte('a' + i)})
			if err != nil {
				e.Error(err)
			}
			got <- string(v)
		}()
	}
	first := <-got
	for range cap(got) - 1 {
		e.equal("value of another caller", <-got, first)
	}
	e.equal("value", string(e.value("acme/account")), first)
	v, err := e.EnsureValue(e.ctx(), "acme/account", []byte("other"))
	e.must(err)
	e.equal("value that is there", string(v), first)
}

func valueDeleted(e *env) {
	e.must(e.SetValue(e.ctx(), "acme/a", []byte("a")))
	e.must(e.SetValue(e.ctx(), "acme/b", []byte("b")))
	for range 2 { // the second time it is not there
		e.must(e.DeleteValue(e.ctx(), "acme/a"))
	}
	_, err := e.Value(e.ctx(), "acme/a")
	e.is(err, store.ErrNotFound)
	e.equal("other value", e.value("acme/b"), []byte("b"))
}

func valueKeys(e *env) {
	keys := []string{"acme/token", "acme/Token", "acme/token ", "acme/toke%", "acme/", "publish/token", "acme/tökén"}
	for _, k := range keys {
		e.must(e.SetValue(e.ctx(), k, []byte(k)))
	}
	for _, k := range keys {
		e.equal(k, e.value(k), []byte(k))
	}
}

func valueSecret(e *env) {
	ctx, cancel := context.WithCancel(e.ctx())
	cancel()
	err := e.SetValue(ctx, "acme/account_key", []byte("hidden-words"))
	e.names(err, `"acme/account_key"`)
	if bytes.Contains([]byte(err.Error()), []byte("hidden")) {
		e.Errorf("error shows the value: %v", err)
	}
}

func pingWrites(e *env) {
	e.start("a.example")
	before := e.everything()
	for range 3 {
		e.must(e.Ping(e.ctx()))
	}
	e.equal("store", e.everything(), before)
}

func closeEnds(e *env) {
	e.start("a.example")
	s := e.Store
	e.must(s.Close())
	e.must(s.Close())
	defer func() { e.Store = e.open(e.T, e.handle) }()
	if _, err := s.Domain(e.ctx(), "a.example"); err == nil {
		e.Error("a closed store is read")
	}
	if err := s.Ping(e.ctx()); err == nil {
		e.Error("a closed store is written")
	}
	if _, err := s.Claim(e.ctx(), at(1), time.Hour, 1); err == nil {
		e.Error("a closed store is claimed from")
	}
}

func durableTests() map[string]func(*env) {
	return map[string]func(*env){
		"Durable/AllOfItIsThereAgain":       durableAll,
		"Durable/VersionsAreNotUsedAgain":   durableVersions,
		"Durable/UsedIDsStayUsed":           durableIDs,
		"Durable/WorksOnAfterReopening":     durableWorks,
		"Durable/AnotherHandleIsAnotherOne": durableOther,
	}
}

func durableAll(e *env) {
	e.start("a.example", "b.example", "c.example")
	e.declare(file(domain("a.example"), domain("b.example")), at(1))
	d := e.domain("a.example")
	d.State, d.Adopt, d.Due = filled(e, 1), true, at(50)
	e.must(e.Save(e.ctx(), &d, at(2)))
	e.must(e.AddForeign(e.ctx(), "a.example", "theirs", at(3)))
	e.saveCertificates(certificate("a"), certificate("b"))
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: "c", Failures: 2, Tried: at(1), Next: at(9), Problem: "no"}))
	e.must(e.SetValue(e.ctx(), "acme/account_key", []byte("key")))
	all, history, ids := e.everything(), e.history("a.example"), e.ids(d.State.Record)
	e.equal("sizes", []int{len(all.Domains), len(all.MXSets), len(all.Certs), len(all.Orders), len(history), len(ids)},
		[]int{3, 2, 2, 1, 2, 1})

	for range 2 {
		e.reopen()
		e.equal("store", e.everything(), all)
		e.equal("history", e.history("a.example"), history)
		e.equal("ids", e.ids(d.State.Record), ids)
		e.equal("value", e.value("acme/account_key"), []byte("key"))
	}
}

func durableVersions(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.must(e.Save(e.ctx(), &d, at(1)))
	stale := d
	e.must(e.Delete(e.ctx(), d))
	e.reopen()
	e.start("a.example")
	e.is(e.Save(e.ctx(), &stale, at(2)), store.ErrStale)
}

func durableIDs(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served, s.Record, s.Intended = "A", "r", "id1" })
	e.save(&d, 2, func(s *store.State) { s.Intended = "" })
	e.reopen()
	d.State.Intended = "id1"
	e.is(e.Save(e.ctx(), &d, at(3)), store.ErrIDReused)
}

func durableWorks(e *env) {
	e.start("a.example")
	d := e.domain("a.example")
	e.save(&d, 1, func(s *store.State) { s.Served = "A" })
	e.reopen()
	e.save(&d, 2, func(s *store.State) { s.Served = "B" })
	e.equal("history", e.history("a.example"), []store.Served{
		{Text: "A", From: at(1), To: at(2)}, {Text: "B", From: at(2)},
	})
	e.equal("change", e.declare(file(domain("a.example")), at(3)), store.Change{})
}

func durableOther(e *env) {
	e.start("a.example")
	other := e.open(e.T, e.TempDir())
	defer func() { e.must(other.Close()) }()
	_, err := other.Domain(e.ctx(), "a.example")
	e.is(err, store.ErrNotFound)
}
