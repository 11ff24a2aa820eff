package certs

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

// block is what writeBlock writes of a content.
func block(content []byte, count uint32) []byte {
	var head [12]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(content)))
	binary.LittleEndian.PutUint32(head[4:], count)
	binary.LittleEndian.PutUint32(head[8:], crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)))
	return append(head[:], content...)
}

// contents takes a copy apart: its header, and the first block of heads and of bodies.
func contents(tb testing.TB, text []byte) (header, meta, bodies []byte, count uint32) {
	tb.Helper()
	rest := text[len(copyMagic):]
	next := func() []byte {
		size := binary.LittleEndian.Uint32(rest)
		count = max(count, binary.LittleEndian.Uint32(rest[4:]))
		content := rest[12 : 12+size]
		rest = rest[12+size:]
		return content
	}
	return next(), next(), next(), count
}

// FuzzReadCopy reads copies whose checksums are right, whatever is in them: either one is refused, or every certificate in it
// can be looked up, walked over, copied again, and used up to the signature.
func FuzzReadCopy(f *testing.F) {
	for _, n := range []int{1, 3} {
		k := New(Config{Copy: filepath.Join(f.TempDir(), "copy")})
		load := k.loader(k.memory)
		for _, c := range authentic(f, n) {
			if err := load(c); err != nil {
				f.Fatal(err)
			}
		}
		var text bytes.Buffer
		if err := k.writeCopyTo(f.Context(), &text, "mark"); err != nil {
			f.Fatal(err)
		}
		header, meta, bodies, count := contents(f, text.Bytes())
		f.Add(header, meta, bodies, count, uint32(0), byte(0))
		f.Add(header, meta, bodies, count+1, uint32(0), byte(0))
		f.Add(header, bytes.Repeat(meta, 2), bytes.Repeat(bodies, 2), 2*count, uint32(0), byte(0))
		f.Add(header, meta, bodies, count, uint32(len(copyMagic)), byte(0x80))
	}
	f.Add([]byte(`{"mark":"m","count":67108864,"chains":[[]],"patterns":["`+string(bytes.Repeat([]byte("A"), 20_000))+`"],"authorities":[""]}`),
		[]byte{}, []byte{}, uint32(1), uint32(0), byte(0))
	path := filepath.Join(f.TempDir(), "copy")
	f.Fuzz(func(t *testing.T, header, meta, bodies []byte, count, at uint32, flip byte) {
		text := append([]byte(copyMagic), block(header, 1)...)
		text = append(append(text, block(meta, count)...), block(bodies, count)...)
		text = append(text, block(nil, 0)...)
		text[int(at%uint32(len(text)))] ^= flip
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		k := New(Config{Copy: path})
		m := newMemory()
		if _, err := k.readCopy(m, path); err != nil {
			return
		}
		var names []string
		m.each(func(name []byte, _ info) bool {
			names = append(names, string(name))
			return true
		})
		if len(names) != m.len() {
			t.Errorf("%d names are walked over, of %d", len(names), m.len())
		}
		if err := m.blocks(1<<16, 1<<8, func([]byte, []byte, int) error { return nil }); err != nil {
			t.Errorf("copy it again: %v", err)
		}
		for _, name := range names {
			checkCopied(t, m, name)
		}
	})
}

// checkCopied has a certificate of a copy served, and replaced.
func checkCopied(t *testing.T, m *memory, name string) {
	t.Helper()
	v, found := m.lookup(name)
	if !found {
		if lower := bytes.ToLower([]byte(name)); string(lower) == name && name[len(name)-1] != '.' {
			t.Errorf("%q is there, and not found", name)
		}
		return
	}
	served, err := m.certificate(&v)
	if err != nil {
		return
	}
	if len(served.Certificate[0]) != int(v.leaf) {
		t.Errorf("the certificate of %q has %d bytes, want %d", name, len(served.Certificate[0]), v.leaf)
	}
	_, _ = served.PrivateKey.(*signer).Sign(nil, make([]byte, 32), crypto.SHA256) // what is no key is an error
	m.remove(name)
	if _, found := m.lookup(name); found {
		t.Errorf("%q was removed, and is found", name)
	}
}
