package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// counted is a store that counts who reads everything.
type counted struct {
	*store.SQLite
	walks int
}

func (c *counted) EachCertificate(ctx context.Context, f func(store.Certificate) error) error {
	c.walks++
	return c.SQLite.EachCertificate(ctx, f)
}

// shelf is a store with certificates, and where its copy is.
type shelf struct {
	store *counted
	path  string
	keys  *store.Keyring
}

func newShelf(t *testing.T, keys *store.Keyring, certs []store.Certificate) *shelf {
	t.Helper()
	dir := t.TempDir()
	s, err := store.OpenSealedSQLite(t.Context(), filepath.Join(dir, "stspub.db"), keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h := &shelf{&counted{SQLite: s}, filepath.Join(dir, "copy"), keys}
	for _, c := range certs {
		h.save(t, c)
	}
	return h
}

func (h *shelf) save(t *testing.T, c store.Certificate) {
	t.Helper()
	if err := h.store.SaveCertificate(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// keeper is one that has loaded.
func (h *shelf) keeper(t *testing.T) *Keeper {
	t.Helper()
	k := New(Config{Store: h.store, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Copy: h.path, Keys: h.keys})
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *shelf) copy(t *testing.T, k *Keeper) {
	t.Helper()
	change, err := h.store.LastChange(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := k.copyUpTo(t.Context(), change); err != nil {
		t.Fatal(err)
	}
}

// check compares what a keeper serves with what the store holds.
func (h *shelf) check(t *testing.T, k *Keeper) {
	t.Helper()
	n := 0
	err := h.store.SQLite.EachCertificate(t.Context(), func(c store.Certificate) error {
		n++
		v, found := k.memory.lookup(c.Name)
		if !found || !bytes.Equal(k.memory.leaf(c.Name), c.Chain[0]) || !bytes.Contains(c.Key, v.scalar) || int64(v.notAfter) != c.NotAfter.Unix() ||
			int64(v.notBefore) != c.NotBefore.Unix() || k.memory.authorityName(v.authority) != c.Authority ||
			len(v.family.issuers) != len(c.Chain)-1 || len(v.family.issuers) > 0 && !bytes.Equal(v.family.issuers[0], c.Chain[1]) {
			return fmt.Errorf("memory holds another certificate of %s, or none (%v)", c.Name, found)
		}
		served, err := k.memory.certificate(&v)
		if err != nil || len(served.Certificate) != len(c.Chain) {
			return fmt.Errorf("the certificate of %s cannot be served: %w", c.Name, err)
		}
		return nil
	})
	if err != nil || n != k.memory.len() {
		t.Fatalf("store has %d certificates, memory %d: %v", n, k.memory.len(), err)
	}
}

func ring(t *testing.T, bytesOf ...byte) *store.Keyring {
	t.Helper()
	var keys [][]byte
	for _, b := range bytesOf {
		keys = append(keys, bytes.Repeat([]byte{b}, store.KeySize))
	}
	r, err := store.NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCopy: a start reads the copy and what changed since, and nothing else.
func TestCopy(t *testing.T) {
	t.Parallel()
	all := authentic(t, 300)
	for i := range all {
		all[i].Authority = []string{"", "letsencrypt", "other"}[i%3]
	}
	for name, keys := range map[string]*store.Keyring{"open": nil, "sealed": ring(t, 1)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newShelf(t, keys, all[:290])
			k := h.keeper(t)
			h.check(t, k)
			h.copy(t, k)
			if info, err := os.Stat(h.path); err != nil || info.Mode() != 0o600 {
				t.Errorf("copy: %v, %v, want mode 0600", info.Mode(), err)
			}
			content, err := os.ReadFile(h.path)
			if err != nil {
				t.Fatal(err)
			}
			if v, _ := k.memory.lookup(all[5].Name); bytes.Contains(content, v.scalar) != (keys == nil) {
				t.Errorf("key in the copy: %v", keys != nil)
			}
			h.save(t, all[290])
			if err := h.store.DeleteCertificate(t.Context(), all[7].Name); err != nil {
				t.Fatal(err)
			}
			renewed := authentic(t, 1)[0] // customer 0 again
			h.save(t, renewed)
			if err := h.store.DeleteCertificate(t.Context(), all[8].Name); err != nil {
				t.Fatal(err)
			}
			h.save(t, all[8]) // gone and back
			h.store.walks = 0
			again := h.keeper(t)
			if h.store.walks != 0 {
				t.Error("the start read all certificates of the store")
			}
			h.check(t, again)
			if !bytes.Equal(again.memory.leaf(renewed.Name), renewed.Chain[0]) {
				t.Error("what was renewed after the copy is not served")
			}
		})
	}
}

// TestCopyIsNeverTrustedMoreThanTheStore: whatever becomes of the file, the start serves what the store holds.
func TestCopyIsNeverTrustedMoreThanTheStore(t *testing.T) {
	t.Parallel()
	h := newShelf(t, nil, authentic(t, 40))
	h.copy(t, h.keeper(t))
	good, err := os.ReadFile(h.path)
	if err != nil {
		t.Fatal(err)
	}
	fallback := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(h.path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		h.store.walks = 0
		k := h.keeper(t)
		if h.store.walks != 1 {
			t.Errorf("%s: the store was not read", what)
		}
		if _, err := os.Stat(h.path); err == nil {
			t.Errorf("%s: the copy is still there", what)
		}
		h.check(t, k)
	}
	fallback("empty", nil)
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for range 60 {
		at := random.IntN(len(good))
		fallback(fmt.Sprintf("cut off at %d", at), good[:at])
		bad := bytes.Clone(good)
		bad[at] ^= 1 << random.IntN(8)
		fallback(fmt.Sprintf("byte %d of %d changed", at, len(good)), bad)
	}
	other := newShelf(t, nil, authentic(t, 5))
	other.path = h.path
	other.copy(t, other.keeper(t))
	foreign, err := os.ReadFile(h.path)
	if err != nil {
		t.Fatal(err)
	}
	fallback("of another store", foreign)

	h.keys = ring(t, 1)
	fallback("not sealed, and there is a key", good)
	h.copy(t, h.keeper(t))
	sealed, err := os.ReadFile(h.path)
	if err != nil {
		t.Fatal(err)
	}
	h.keys = ring(t, 2, 1)
	fallback("sealed with an old key", sealed)
	h.keys = nil
	fallback("sealed, and there is no key", sealed)
}

// TestCopyWhileThingsChange: with the changes that the copy promises, and those that the store tells since, nothing is
// missing, however they fall together with the writing.
func TestCopyWhileThingsChange(t *testing.T) {
	t.Parallel()
	all := authentic(t, 400)
	h := newShelf(t, nil, all[:200])
	k := h.keeper(t)
	for round := range 8 {
		before, err := h.store.LastChange(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var changes sync.WaitGroup
		changes.Go(func() {
			random := mathrand.New(mathrand.NewPCG(1, uint64(round)))
			load := k.loader(k.memory)
			for range 100 {
				c := all[random.IntN(len(all))]
				if c.Authority = fmt.Sprint("ca", random.IntN(4*round+1)); random.IntN(3) == 0 {
					c.Key, c.Chain = nil, nil
				}
				var err error
				if c.Key != nil {
					c.Chain = [][]byte{c.Chain[0], fmt.Append(nil, "issuer", random.IntN(4*round+1))}
					err = h.store.SaveCertificate(t.Context(), c)
				} else {
					err = h.store.DeleteCertificate(t.Context(), c.Name)
				}
				if err == nil {
					err = load(c)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
		if err := k.copyUpTo(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		changes.Wait()
		h.store.walks = 0
		again := h.keeper(t)
		if h.store.walks != 0 {
			t.Fatal("the start read all certificates of the store")
		}
		h.check(t, again)
	}
}

// TestCopyTimes: a copy is written when enough has changed, promises what was there a look before, and loses the key of
// a removed name within the hour.
func TestCopyTimes(t *testing.T) {
	certs := authentic(t, copyFew+2)
	synctest.Test(t, func(t *testing.T) {
		b := &marked{}
		k := New(Config{Store: b, Log: slog.New(slog.DiscardHandler), Copy: filepath.Join(t.TempDir(), "copy")})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = k.RunCopies(ctx)
		}()
		load := k.loader(k.memory)
		pass := func(d time.Duration, want int64) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if b.marks.Load() != want {
				t.Fatalf("%d copies, want %d", b.marks.Load(), want)
			}
		}
		for _, c := range certs[:copyFew] {
			_ = load(c)
		}
		pass(24*time.Hour, 0) // too few to be worth it
		_ = load(certs[copyFew])
		b.change.Store(7)
		pass(copyEvery, 1)
		if b.promised.Load() != 0 {
			t.Errorf("the copy promises change %d, which came a moment ago", b.promised.Load())
		}
		pass(24*time.Hour, 1)
		_ = load(store.Certificate{Name: certs[3].Name})
		pass(copyKeys-2*copyEvery, 1)
		pass(3*copyEvery, 2)
		if b.promised.Load() != 7 {
			t.Errorf("the copy promises change %d, want 7", b.promised.Load())
		}
		content, err := os.ReadFile(k.copyPath)
		if p, ok := k.memory.glance(certs[3]); err != nil || !ok || bytes.Contains(content, p.scalar[:]) {
			t.Errorf("the key of a removed name is in the copy: %v", err)
		}
		pass(24*time.Hour, 2)
		stop()
		<-ended
		if err := k.LastCopy(t.Context()); err != nil || b.marks.Load() != 2 {
			t.Errorf("a copy at the end although nothing changed: %v", err)
		}
		_ = load(store.Certificate{Name: certs[4].Name})
		if err := k.LastCopy(t.Context()); err != nil || b.marks.Load() != 3 {
			t.Errorf("no copy at the end without a removed name: %v", err)
		}
	})
}

// marked is a store that only counts copies: databases have goroutines that a bubble would wait for.
type marked struct {
	Store
	marks, change, promised atomic.Int64
}

func (m *marked) LastChange(context.Context) (int64, error) { return m.change.Load(), nil }

func (m *marked) MarkCertificates(_ context.Context, _ string, change int64) error {
	m.marks.Add(1)
	m.promised.Store(change)
	return nil
}

// TestGlance: what is not parsed is the same as what is.
func TestGlance(t *testing.T) {
	t.Parallel()
	m := newMemory()
	all := authentic(t, 50)
	for _, c := range all {
		want, err := m.pack(c)
		got, ok := m.glance(c)
		if err != nil || !ok || fmt.Sprint(*got) != fmt.Sprint(*want) {
			t.Fatalf("glance(%s) = %v, %v, want %v, %v", c.Name, got, ok, want, err)
		}
	}
	for what, change := range map[string]func(*store.Certificate){
		"key of another": func(c *store.Certificate) { c.Key = all[1].Key },
		"other name":     func(c *store.Certificate) { c.Name = all[1].Name },
		"shorter name":   func(c *store.Certificate) { c.Name = c.Name[1:] },
		"no chain":       func(c *store.Certificate) { c.Chain = nil },
		"no key":         func(c *store.Certificate) { c.Key = nil },
		"cut off":        func(c *store.Certificate) { c.Chain = [][]byte{c.Chain[0][:100]} },
		"other time": func(c *store.Certificate) {
			c.Chain = [][]byte{bytes.Replace(c.Chain[0], []byte(validity), []byte("xxxx"), 1)}
		},
	} {
		c := all[0]
		change(&c)
		if p, ok := m.glance(c); ok {
			t.Errorf("%s: glance = %+v", what, p)
		}
	}
}

// TestCrashLeavesNoKeysBeside: what a copy that was not finished left is gone after the next start.
func TestCrashLeavesNoKeysBeside(t *testing.T) {
	t.Parallel()
	h := newShelf(t, ring(t, 1), nil)
	if err := os.WriteFile(h.path+".new", []byte("keys"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.keeper(t)
	if _, err := os.Stat(h.path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
