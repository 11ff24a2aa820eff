package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// noise is bytes that have nothing in common with others.
func noise(seed uint64, length int) []byte {
	b := make([]byte, length)
	_, _ = mathrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}).Read(b)
	return b
}

// fake is a certificate that memory cannot tell from a real one; number is what it is known by.
func fake(m *memory, number uint64, leaf int) *packed {
	c := &packed{leaf: noise(number, leaf), notBefore: 1, notAfter: int64(number) + 10, point: 7}
	c.chain, _ = m.familyOf([][]byte{{byte(number % 3)}}, []byte("the first leaf"))
	c.authority = m.authorityOf(fmt.Sprint("ca", number%2))
	binary.BigEndian.PutUint64(c.scalar[:], number)
	binary.BigEndian.PutUint64(c.leaf[leaf-8:], number)
	return c
}

// checkFake fails unless a name has the certificate of a number.
func checkFake(t *testing.T, m *memory, name string, number uint64, leaf int) {
	t.Helper()
	v, found := m.lookup(strings.ToUpper(name) + ".")
	der := m.leaf(name)
	if !found || len(der) != leaf || binary.BigEndian.Uint64(der[leaf-8:]) != number ||
		binary.BigEndian.Uint64(v.scalar) != number || int64(v.notAfter) != int64(number)+10 || v.point != 7 ||
		len(v.family.issuers) != 1 || v.family.issuers[0][0] != byte(number%3) || m.authorityName(v.authority) != fmt.Sprint("ca", number%2) {
		t.Fatalf("%s has %+v, %v, want number %d", name, v.head, found, number)
	}
}

// TestMemoryAgainstMap has memory and a map do the same 100,000 random things, and compares them.
func TestMemoryAgainstMap(t *testing.T) {
	t.Parallel()
	type certificate struct {
		number uint64
		leaf   int
		wanted bool
		poll   int64
	}
	m := newMemory()
	want := make(map[string]certificate)
	random := mathrand.New(mathrand.NewPCG(1, 2))
	check := func() {
		t.Helper()
		seen := 0
		m.each(func(name []byte, i info) bool {
			c, found := want[string(name)]
			if !found || i.notAfter != int64(c.number)+10 || i.wanted != c.wanted || i.poll != c.poll {
				t.Fatalf("walk: %q is %+v, want %+v", name, i, c)
			}
			seen++
			return true
		})
		if seen != len(want) || m.len() != len(want) {
			t.Fatalf("walk saw %d names, len is %d, want %d", seen, m.len(), len(want))
		}
		for name, c := range want {
			checkFake(t, m, name, c.number, c.leaf)
		}
	}
	for i := range uint64(100_000) {
		name := fmt.Sprintf("mta-sts.d%d.example", random.IntN(5000))
		c, found := want[name]
		switch random.IntN(8) {
		case 0, 1:
			m.remove(name)
			delete(want, name)
		case 2, 3:
			poll := random.Int64N(1 << 31)
			if m.mark(name, func(i *info) { i.wanted, i.poll, i.notAfter = !i.wanted, poll, 5 }) != found {
				t.Fatalf("mark(%s) = %v", name, !found)
			}
			if found {
				c.wanted, c.poll = !c.wanted, poll
				want[name] = c
			}
		default:
			c.number, c.leaf, c.poll = i, 8+random.IntN(250), 0
			if i%8 == 0 { // large ones take the race detector long
				c.leaf += random.IntN(2000)
			}
			m.set(name, fake(m, c.number, c.leaf))
			want[name] = c
		}
		if _, found := m.find(name); found != (want[name].leaf > 0) {
			t.Fatalf("find(%s) = %v", name, found)
		}
		if i%10_000 == 9_999 {
			check()
		}
	}
	for name := range want {
		m.remove(name)
		delete(want, name)
	}
	check()
	if live := m.live(); live != 0 {
		t.Errorf("%d bytes are somebody's after everything was removed", live)
	}
}

func (m *memory) live() int {
	sum := 0
	for _, u := range m.usage {
		sum += u.live
	}
	return sum
}

// size is what the bodies take.
func (m *memory) size() int {
	sum := 0
	for _, c := range *m.chunks.Load() {
		sum += len(c)
	}
	return sum
}

// TestMemoryReclaims: however often certificates are renewed, in order or not, garbage stays a third of what is in use.
func TestMemoryReclaims(t *testing.T) {
	t.Parallel()
	m := newMemory()
	const n, leaf = 4_000, 900 // chunks are a part of the whole, so that more show the same
	name := func(i int) string { return fmt.Sprintf("mta-sts.d%d.example", i) }
	for i := range n {
		m.set(name(i), fake(m, uint64(i), leaf))
	}
	first := m.size()
	if most := n * (bodySize(leaf+8) + 40); first > most {
		t.Errorf("%d certificates take %d bytes, more than %d", n, first, most)
	}
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for cycle := range 5 {
		for i := range n {
			at := i
			if cycle%2 == 1 {
				at = random.IntN(n)
			}
			m.set(name(at), fake(m, uint64(at), leaf))
			if size := m.size(); 10*size > 15*first {
				t.Fatalf("cycle %d: %d bytes for what took %d at first", cycle, size, first)
			}
		}
	}
	for i := range n {
		checkFake(t, m, name(i), uint64(i), leaf)
		if i >= n/10 {
			m.remove(name(i))
		}
	}
	if size := m.size(); size > first/5 {
		t.Errorf("%d bytes for a tenth of what took %d", size, first)
	}
}

// TestMemoryAtTheSameTime is for the race detector, and for what a reader sees while bodies move: never another name's
// certificate, and never none for a name that is always there.
func TestMemoryAtTheSameTime(t *testing.T) {
	t.Parallel()
	m := newMemory()
	const n = 2000
	for i := range n {
		m.set(fmt.Sprint("d", i), fake(m, uint64(i), 500))
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for g := range 3 {
		all.Go(func() {
			random := mathrand.New(mathrand.NewPCG(1, uint64(g)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := random.IntN(n)
				v, found := m.lookup(fmt.Sprint("d", i))
				if !found {
					t.Errorf("d%d is not there", i)
					return
				}
				der, err := v.der()
				if !found || err != nil || binary.BigEndian.Uint64(v.scalar)%n != uint64(i) || !bytes.Equal(der[len(der)-8:], v.scalar[:8]) {
					t.Errorf("d%d has the certificate %x, %v", i, v.scalar, found)
					return
				}
			}
		})
	}
	all.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			seen := 0
			m.each(func(name []byte, _ info) bool {
				if name[0] == 'd' {
					seen++
					m.mark(string(name), func(i *info) { i.poll++ }) // it may be used in a walk
				}
				return true
			})
			if seen != n {
				t.Errorf("a walk saw %d of %d names", seen, n)
				return
			}
		}
	})
	random := mathrand.New(mathrand.NewPCG(3, 4))
	for round := range 2_500 {
		i := random.IntN(n)
		m.set(fmt.Sprint("d", i), fake(m, uint64(n*round+i), 8+random.IntN(1500)))
		m.set(fmt.Sprint("x", i), fake(m, 0, 8))
		m.remove(fmt.Sprint("x", random.IntN(n)))
	}
	close(stop)
	all.Wait()
}

func TestMemoryNames(t *testing.T) {
	m := newMemory()
	long := strings.Repeat("a23456789.", 26)[:maxName]
	for i, name := range []string{"a", "a.b", long} {
		m.set(name, fake(m, uint64(i), 100))
		checkFake(t, m, name, uint64(i), 100)
	}
	m.set("", fake(m, 9, 100))
	m.set(long+"x", fake(m, 9, 100))
	for _, name := range []string{"", ".", "b", "a.", "a..", long + "x", long + "xx", strings.Repeat("a", 70_000)} {
		if _, found := m.lookup(name); found != (name == "a.") {
			t.Errorf("lookup(%.20q) = %v", name, found)
		}
	}
	if m.len() != 3 {
		t.Errorf("%d names, want 3", m.len())
	}
	if m.mark("b", func(*info) { t.Error("marked a name that is not there") }) {
		t.Error("mark of a name that is not there is true")
	}
	m.mark("a", func(i *info) { i.wanted, i.poll, i.renew = true, 1<<40, 7 })
	if i, _ := m.find("a"); !i.wanted || i.poll != 1<<32-1 || i.renew != 7 {
		t.Errorf("marked: %+v", i)
	}
	m.set("a", fake(m, 8, 100))
	if i, _ := m.find("a"); !i.wanted || i.poll != 0 || i.renew != 0 || i.notAfter != 18 {
		t.Errorf("after it was replaced: %+v", i)
	}
}

// TestUnknownNamesCostNothing: a flood of random names takes no memory, and asks nobody: the memory has no store to ask.
func TestUnknownNamesCostNothing(t *testing.T) {
	k := New(Config{Log: slog.New(slog.DiscardHandler)}) // a store that is nil would be a panic
	for i := range 1000 {
		k.memory.set(fmt.Sprintf("mta-sts.d%d.example", i), fake(k.memory, 1<<31, 900))
	}
	names := make([]string, 4096)
	for i := range names {
		names[i] = fmt.Sprintf("%x.%x.example", mathrand.Uint64(), mathrand.Uint64())
	}
	hello := new(tls.ClientHelloInfo)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 200_000 {
		hello.ServerName = names[i%len(names)]
		if c, err := k.GetCertificate(hello); c != nil || err != nil {
			t.Fatalf("GetCertificate(%s) = %v, %v", hello.ServerName, c, err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 1000 { // other tests' goroutines may be at it
		t.Errorf("200,000 unknown names made %d allocations", n)
	}
}

// authentic returns n real certificates of names, signed by one key.
func authentic(tb testing.TB, n int) []store.Certificate {
	tb.Helper()
	issuer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	all := make([]store.Certificate, n)
	for i := range all {
		name := fmt.Sprintf("mta-sts.customer-%06d.example.com", i)
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		t := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i)), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		}
		der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), issuer)
		if err != nil {
			tb.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			tb.Fatal(err)
		}
		all[i] = store.Certificate{Name: name, Key: pkcs8, Chain: [][]byte{der, []byte("issuer")}, NotBefore: t.NotBefore, NotAfter: t.NotAfter}
	}
	return all
}

// crowd is a memory of n names with bodies of about the size of real ones.
func crowd(n int) *memory {
	m := newMemory()
	c := fake(m, 1<<31, 870)
	for i := range n {
		m.set(fmt.Sprintf("mta-sts.customer-%07d.example.com", i), c)
	}
	return m
}

// BenchmarkMemory is what a million names take: a full garbage collection, a walk, a look-up.
func BenchmarkMemory(b *testing.B) {
	const n = 1_000_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := crowd(n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Run("collection", func(b *testing.B) {
		for b.Loop() {
			runtime.GC()
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/name")
	})
	b.Run("walk", func(b *testing.B) {
		for b.Loop() {
			sum := 0
			m.each(func(name []byte, i info) bool {
				sum += len(name)
				return i.notAfter > 0
			})
			if sum < n {
				b.Fatal("walk ended early")
			}
		}
	})
	names := make([]string, 1<<16)
	for i := range names {
		names[i] = fmt.Sprintf("mta-sts.customer-%07d.example.com", mathrand.IntN(n))
	}
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, found := m.lookup(names[i%len(names)]); !found {
				b.Fatal("not found")
			}
		}
	})
	b.Run("set", func(b *testing.B) {
		c := fake(m, 1<<31, 870)
		for i := 0; b.Loop(); i++ {
			m.set(names[i%len(names)], c)
		}
	})
	runtime.KeepAlive(m)
}

// TestFamilyFoldsLeaves: what is folded unfolds to the same, and takes two thirds of the room; what is damaged is an error.
func TestFamilyFoldsLeaves(t *testing.T) {
	t.Parallel()
	all := authentic(t, 40)
	f := newFamily(nil, all[0].Chain[0])
	random := mathrand.New(mathrand.NewPCG(1, 2))
	check := func(leaf []byte) []byte {
		t.Helper()
		folded := f.fold(leaf)
		if got, err := f.unfold(folded, len(leaf)); err != nil || !bytes.Equal(got, leaf) {
			t.Fatalf("unfold(fold(%x)) = %x, %v", leaf, got, err)
		}
		if len(folded) > len(leaf)+2 {
			t.Fatalf("%d bytes become %d", len(leaf), len(folded))
		}
		return folded
	}
	before, after := 0, 0
	for _, c := range all[1:] {
		leaf := c.Chain[0]
		folded := check(leaf)
		before, after = before+len(leaf), after+len(folded)
		check(leaf[:random.IntN(len(leaf))])
		check(leaf[random.IntN(len(leaf)):])
		for range 200 {
			bad := bytes.Clone(folded)
			bad[random.IntN(len(bad))] ^= 1 << random.IntN(8)
			for _, b := range [][]byte{bad, bad[:random.IntN(len(bad))]} {
				if got, err := f.unfold(b, len(leaf)); err == nil && len(got) != len(leaf) {
					t.Fatalf("unfold of what is damaged has %d bytes, want %d", len(got), len(leaf))
				}
			}
		}
	}
	if 3*after > 2*before {
		t.Errorf("%d bytes become %d", before, after)
	}
	for n := range 40 {
		check(noise(uint64(n), n))
		check(bytes.Repeat([]byte{0}, n*50))
	}
	check(all[0].Chain[0])
	newFamily(nil, nil).fold(all[0].Chain[0])
}
