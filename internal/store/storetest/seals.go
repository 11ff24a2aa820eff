package storetest

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/stspub/stspub/internal/store"
)

func sealTests() map[string]func(*env) {
	return map[string]func(*env){
		"Seals/NoKeyOrAnotherIsRefused":      sealRefused,
		"Seals/ResealingAfterTheFirst":       sealFirst,
		"Seals/ResealingAfterANewKey":        sealNew,
		"Seals/ResealingWithoutAKey":         sealNone,
		"Seals/BothKeysUntilThatIsDone":      sealBoth,
		"Seals/ErrorsShowNeitherKeyNorPlain": sealErrors,
	}
}

// ring is one of keys that consist of a byte each.
func ring(t *testing.T, of ...byte) *store.Keyring {
	t.Helper()
	var keys [][]byte
	for _, b := range of {
		keys = append(keys, bytes.Repeat([]byte{b}, store.KeySize))
	}
	r, err := store.NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// reopenWith opens the store anew with other keys.
func (e *env) reopenWith(of ...byte) {
	e.Helper()
	e.keys = ring(e.T, of...)
	e.reopen()
}

// refusesKeys checks that the store does not open with keys, and is not changed by that.
func (e *env) refusesKeys(words []string, of ...byte) {
	e.Helper()
	e.must(e.Store.Close())
	if s, err := e.with(e.T, e.handle, ring(e.T, of...)); err == nil {
		e.must(s.Close())
		e.Errorf("it opens with the keys %d", of)
	} else {
		e.names(err, words...)
	}
	e.Store = e.open(e.T, e.handle)
}

// secrets are a few certificates and values, more than are sealed at once.
func (e *env) secrets() (check func(what string)) {
	e.Helper()
	want := make(map[string]store.Certificate)
	var saves sync.WaitGroup // together they share commits
	for i := range 300 {
		c := certificate(fmt.Sprintf("mta-sts.d%03d.example", i))
		want[c.Name] = c
		saves.Go(func() {
			if err := e.SaveCertificate(e.ctx(), c); err != nil {
				e.Error(err)
			}
		})
	}
	saves.Wait()
	e.must(e.SetValue(e.ctx(), "acme/account", []byte("account key")))
	return func(what string) {
		e.Helper()
		e.equal(what+": certificates", e.certificates(), want)
		e.equal(what+": value", e.value("acme/account"), []byte("account key"))
	}
}

func (e *env) reseals(want int) {
	e.Helper()
	done, err := e.Reseal(e.ctx())
	e.must(err)
	if done.Rows != want || done.Damaged != 0 || len(done.Used) > 0 {
		e.Errorf("sealed anew: %+v, want %d rows", done, want)
	}
}

func sealRefused(e *env) {
	e.reopenWith(1)
	check := e.secrets()
	id := e.keys.ID()
	e.refusesKeys([]string{id, "set [store] key_file"})
	e.refusesKeys([]string{id, ring(e.T, 2).ID(), "old_key_files"}, 2)
	e.refusesKeys([]string{id}, 3, 2)
	check("afterwards")
}

func sealFirst(e *env) {
	check := e.secrets()
	e.reopenWith(1)
	check("before")
	e.reseals(301)
	e.reseals(0)
	check("after")
	e.reopen()
	e.reseals(0)
	check("reopened")
	e.refusesKeys([]string{"key_file"})
}

func sealNew(e *env) {
	e.reopenWith(1)
	check := e.secrets()
	e.reseals(0) // all was sealed when it was written
	e.reopenWith(2, 1)
	check("before")
	e.reseals(301)
	check("after")
	e.reopenWith(2) // the old key may go
	check("without the old key")
	e.refusesKeys([]string{"old_key_files"}, 1)
}

func sealNone(e *env) {
	check := e.secrets()
	e.reseals(0)
	check("after")
}

func sealBoth(e *env) {
	e.reopenWith(1)
	check := e.secrets()
	e.reopenWith(2, 1)
	e.must(e.SetValue(e.ctx(), "acme/new", []byte("new")))
	e.refusesKeys([]string{"sealed"}, 2)
	e.refusesKeys([]string{"sealed"}, 1)
	check("with both")
	e.equal("new value", e.value("acme/new"), []byte("new"))
}

func sealErrors(e *env) {
	e.reopenWith('k')
	e.must(e.SetValue(e.ctx(), "acme/account", []byte("hidden-words")))
	e.must(e.Store.Close())
	_, err := e.with(e.T, e.handle, ring(e.T, 'q'))
	e.names(err, "sealed")
	for _, secret := range []string{"hidden", "kkkk", "qqqq", "6b6b6b6b"} {
		if bytes.Contains([]byte(err.Error()), []byte(secret)) {
			e.Errorf("error shows a secret: %v", err)
		}
	}
	e.Store = e.open(e.T, e.handle)
}
