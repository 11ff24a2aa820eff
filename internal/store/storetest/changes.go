package storetest

import (
	"fmt"

	"github.com/stspub/stspub/internal/store"
)

func changeTests() map[string]func(*env) {
	return map[string]func(*env){
		"Changes/EveryWriteRaisesTheNumber": changesRaise,
		"Changes/SinceAMark":                changesSince,
		"Changes/AnUnknownMarkIsNotFound":   changesUnknown,
		"Changes/LastOverReopening":         changesReopened,
		"Changes/SixteenMarksAreKept":       changesMarks,
	}
}

func (e *env) lastChange() int64 {
	e.Helper()
	n, err := e.LastChange(e.ctx())
	e.must(err)
	return n
}

// mark marks a copy as of now.
func (e *env) mark(mark string) {
	e.Helper()
	e.must(e.MarkCertificates(e.ctx(), mark, e.lastChange()))
}

// since returns what changed since a mark: names to certificates, without key those that are gone.
func (e *env) since(mark string) map[string]store.Certificate {
	e.Helper()
	all := make(map[string]store.Certificate)
	e.must(e.CertificatesSince(e.ctx(), mark, func(c store.Certificate) error {
		if _, again := all[c.Name]; again {
			e.Errorf("certificate %q came twice", c.Name)
		}
		if len(c.Key) == 0 && len(c.Chain) == 0 {
			c = store.Certificate{Name: c.Name}
		}
		all[c.Name] = c
		return nil
	}))
	return all
}

func changesRaise(e *env) {
	last := e.lastChange()
	for what, write := range map[string]func() error{
		"save":       func() error { return e.SaveCertificate(e.ctx(), certificate("a")) },
		"save again": func() error { return e.SaveCertificate(e.ctx(), certificate("a")) },
		"delete":     func() error { return e.DeleteCertificate(e.ctx(), "a") },
	} {
		e.must(write())
		if now := e.lastChange(); now <= last {
			e.Errorf("%s: number is %d after %d", what, now, last)
		} else {
			last = now
		}
	}
}

func changesSince(e *env) {
	want := e.saveCertificates(certificate("a"), certificate("b"), certificate("c"), certificate("d"))
	e.mark("one")
	e.equal("nothing", e.since("one"), map[string]store.Certificate{})
	b := want["b"]
	b.Authority, b.NotAfter = "other", at(5)
	e.saveCertificates(b, certificate("e"))
	e.must(e.DeleteCertificate(e.ctx(), "c"))
	e.must(e.DeleteCertificate(e.ctx(), "nobody"))
	e.must(e.DeleteCertificate(e.ctx(), "d"))
	e.must(e.SaveCertificate(e.ctx(), want["d"]))
	first := map[string]store.Certificate{"b": b, "c": {Name: "c"}, "d": want["d"], "e": certificate("e")}
	e.equal("since the first", e.since("one"), first)
	e.mark("two")
	e.must(e.DeleteCertificate(e.ctx(), "a"))
	e.equal("since the second", e.since("two"), map[string]store.Certificate{"a": {Name: "a"}})
	first["a"] = store.Certificate{Name: "a"}
	e.equal("still since the first", e.since("one"), first)
}

func changesUnknown(e *env) {
	e.mark("one")
	e.is(e.CertificatesSince(e.ctx(), "two", func(store.Certificate) error { return nil }), store.ErrNotFound)
	if err := e.MarkCertificates(e.ctx(), "one", 5); err == nil {
		e.Error("a mark is used twice")
	}
}

func changesReopened(e *env) {
	e.saveCertificates(certificate("a"), certificate("b"))
	e.mark("one")
	e.reopen()
	e.must(e.DeleteCertificate(e.ctx(), "a"))
	e.reopen()
	e.equal("since", e.since("one"), map[string]store.Certificate{"a": {Name: "a"}})
}

func changesMarks(e *env) {
	e.saveCertificates(certificate("a"))
	for i := range 17 {
		e.mark(fmt.Sprint("mark", i))
		e.must(e.DeleteCertificate(e.ctx(), "a"))
		e.saveCertificates(certificate("a"))
	}
	e.is(e.CertificatesSince(e.ctx(), "mark0", func(store.Certificate) error { return nil }), store.ErrNotFound)
	e.equal("since the oldest", e.since("mark1"), map[string]store.Certificate{"a": certificate("a")})
}
