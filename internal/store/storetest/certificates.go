package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/store"
)

func certificateTests() map[string]func(*env) {
	return map[string]func(*env){
		"Certificates/ComeBackAsSaved":             certificatesSaved,
		"Certificates/SavedAgainIsReplaced":        certificatesReplaced,
		"Certificates/EndWithTheErrorOfF":          certificatesError,
		"Certificates/DeletedWithOrder":            certificatesDeleted,
		"Certificates/SavingForgetsTheOrder":       certificatesOrder,
		"Certificates/WhatFGetsIsItsOwn":           certificatesOwn,
		"Certificates/AreNotTiedToADomain":         certificatesFree,
		"Orders/OnlyThoseThatFailed":               ordersFailed,
		"Orders/PlannedWithoutAFailure":            ordersPlanned,
		"Orders/PlannedTooLateAreNot":              ordersLate,
		"Orders/SavedAgainIsReplaced":              ordersReplaced,
		"Certificates/EveryShapeOfChain":           certificatesChains,
		"Certificates/TimesAreMicrosecondsOrZeros": certificatesTimes,
	}
}

// certificate is one with bytes of its own; a store does not look into them.
func certificate(name string) store.Certificate {
	return store.Certificate{
		Name:      name,
		Key:       []byte("\x00key of " + name),
		Chain:     [][]byte{[]byte("\x30leaf of " + name), bytes.Repeat([]byte{0, 0xff}, 700)},
		NotBefore: at(0),
		NotAfter:  at(90 * 24 * 60),
		Authority: "authority of " + name,
		Renew:     at(50 * 24 * 60),
	}
}

func (e *env) saveCertificates(certs ...store.Certificate) map[string]store.Certificate {
	e.Helper()
	all := make(map[string]store.Certificate)
	for _, c := range certs {
		e.must(e.SaveCertificate(e.ctx(), c))
		all[c.Name] = c
	}
	return all
}

func (e *env) orders() []store.Order {
	e.Helper()
	got, err := e.Orders(e.ctx())
	e.must(err)
	return got
}

func certificatesSaved(e *env) {
	e.equal("empty store", len(e.certificates()), 0)
	want := e.saveCertificates(certificate("mta-sts.b.example"), certificate("mta-sts.a.example"), certificate("sts.example.net"))
	e.equal("certificates", e.certificates(), want)
}

func certificatesReplaced(e *env) {
	want := e.saveCertificates(certificate("a"), certificate("b"))
	c := want["a"]
	c.Key, c.Chain, c.NotBefore, c.NotAfter, c.Authority, c.Renew = []byte("new key"), c.Chain[:1], at(5), at(6), "", time.Time{}
	e.must(e.SaveCertificate(e.ctx(), c))
	want["a"] = c
	e.equal("certificates", e.certificates(), want)
}

func certificatesChains(e *env) {
	long := bytes.Repeat([]byte{7}, 20_000)
	for i, chain := range [][][]byte{nil, {[]byte("leaf")}, {long, []byte("x"), long}} {
		c := certificate(fmt.Sprintf("mta-sts.%d.example", i))
		c.Chain = chain
		e.must(e.SaveCertificate(e.ctx(), c))
		e.equal("certificate", e.certificates()[c.Name], c)
	}
}

func certificatesTimes(e *env) {
	c := certificate("a")
	c.NotBefore = c.NotBefore.Add(7)
	c.NotAfter = c.NotAfter.AddDate(-5000, 0, 0) // long before 1970
	e.must(e.SaveCertificate(e.ctx(), c))
	c.NotBefore = at(0)
	e.equal("certificate", e.certificates()["a"], c)
}

func certificatesError(e *env) {
	e.saveCertificates(certificate("a"), certificate("b"))
	stop, calls := errors.New("stop"), 0
	err := e.EachCertificate(e.ctx(), func(store.Certificate) error {
		calls++
		return stop
	})
	if err != stop { //nolint:errorlint // it is to be that error itself
		e.Errorf("error is %v, want the one of f", err)
	}
	e.equal("calls", calls, 1)
}

func certificatesDeleted(e *env) {
	want := e.saveCertificates(certificate("a"), certificate("b"))
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: "a", Failures: 1}))
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: "b", Failures: 1}))
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: "c", Failures: 1}))
	for range 2 { // the second time there is nothing
		e.must(e.DeleteCertificate(e.ctx(), "a"))
		e.must(e.DeleteCertificate(e.ctx(), "c")) // an order without certificate
	}
	delete(want, "a")
	e.equal("certificates", e.certificates(), want)
	e.equal("orders", e.orders(), []store.Order{{Name: "b", Failures: 1}})
}

func certificatesOrder(e *env) {
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: "a", Failures: 1}))
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: "b", Failures: 1}))
	e.saveCertificates(certificate("a"))
	e.equal("orders", e.orders(), []store.Order{{Name: "b", Failures: 1}})
}

// certificatesOwn keeps and overwrites what f was given.
func certificatesOwn(e *env) {
	want := e.saveCertificates(certificate("a"), certificate("b"), certificate("c"))
	kept := e.certificates()
	e.must(e.EachCertificate(e.ctx(), func(c store.Certificate) error {
		clear(c.Key)
		_ = append(c.Chain[0], "beyond its end"...)
		clear(c.Chain[0])
		e.equal("issuer", c.Chain[1], want[c.Name].Chain[1])
		return nil
	}))
	e.equal("kept", kept, want)
	e.equal("stored", e.certificates(), want)
}

func certificatesFree(e *env) {
	e.start("a.example")
	want := e.saveCertificates(certificate("mta-sts.a.example"), certificate("mta-sts.elsewhere.example"))
	e.must(e.Delete(e.ctx(), e.domain("a.example")))
	e.equal("certificates", e.certificates(), want)
}

func ordersFailed(e *env) {
	e.equal("empty store", e.orders(), []store.Order(nil))
	failed := store.Order{Name: "b", Failures: 3, Tried: at(1), Next: at(2), Problem: "no A record: \"b\" — ünknown"}
	e.must(e.SaveOrder(e.ctx(), failed))
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: "a", Tried: at(1)}))
	e.equal("orders", e.orders(), []store.Order{failed})
}

// ordersPlanned has a renewal that is not to wait for its plan: it lasts until the certificate comes, or goes.
func ordersPlanned(e *env) {
	e.saveCertificates(certificate("a"), certificate("b"), certificate("c"))
	var want []store.Order
	for _, name := range []string{"a", "b", "c"} {
		e.must(e.plan(certificate(name), 9))
		e.must(e.plan(certificate(name), 7))
		want = append(want, store.Order{Name: name, Next: at(7)})
	}
	e.reopen()
	e.equal("orders", e.orders(), want)
	e.saveCertificates(certificate("a"))
	e.must(e.DeleteCertificate(e.ctx(), "c"))
	e.equal("orders", e.orders(), want[1:2])
}

// plan has a certificate renewed at a time.
func (e *env) plan(c store.Certificate, next int) error {
	return e.PlanOrder(e.ctx(), c.Name, c.NotBefore, c.NotAfter, at(next))
}

// ordersLate: the certificate that the plan was made for is replaced, or gone, or an order for it failed meanwhile.
func ordersLate(e *env) {
	e.saveCertificates(certificate("a"), certificate("b"), certificate("d"))
	old := certificate("a")
	old.NotBefore = old.NotBefore.Add(-time.Hour)
	e.must(e.plan(old, 7))
	old = certificate("d")
	old.NotAfter = old.NotAfter.Add(-time.Hour)
	e.must(e.plan(old, 7))
	failed := store.Order{Name: "b", Failures: 3, Tried: at(1), Next: at(9), Problem: "no"}
	e.must(e.SaveOrder(e.ctx(), failed))
	e.must(e.plan(certificate("b"), 7))
	e.must(e.plan(certificate("c"), 7))
	e.equal("orders", e.orders(), []store.Order{failed})
}

func ordersReplaced(e *env) {
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: "a", Failures: 1, Tried: at(1), Next: at(2), Problem: "one"}))
	want := store.Order{Name: "a", Failures: 2, Tried: at(3), Next: at(9), Problem: "two"}
	e.must(e.SaveOrder(e.ctx(), want))
	e.equal("orders", e.orders(), []store.Order{want})
	e.must(e.SaveOrder(e.ctx(), store.Order{Name: "a"}))
	e.equal("orders after it went well", e.orders(), []store.Order(nil))
}
