package certs

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// family is what the certificates of one issuer have in common: the chain above them, and much of themselves. Of each leaf
// only what is not in the family's pattern is kept, which is little more than half: names, numbers, keys, signatures.
type family struct {
	issuers [][]byte // DER
	pattern []byte   // the first leaf of the family, DER
	// windows finds 8 bytes of the pattern by their hash: 1 + where they last begin, or 0.
	windows [1 << windowBits]uint16
}

const (
	windowBits = 11
	windowSize = 8
	leastMatch = 12 // bytes; to point to fewer would take as many
)

// errFolded says that what is kept of a leaf does not make one.
var errFolded = errors.New("what is kept of the certificate is damaged")

// newFamily copies what it is given.
func newFamily(issuers [][]byte, pattern []byte) *family {
	f := &family{issuers: make([][]byte, len(issuers)), pattern: bytes.Clone(pattern[:min(len(pattern), maxLeaf)])}
	for i, der := range issuers {
		f.issuers[i] = bytes.Clone(der)
	}
	for i := 0; i+windowSize <= len(f.pattern); i++ {
		f.windows[windowOf(f.pattern[i:])] = uint16(i + 1)
	}
	return f
}

func windowOf(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b) * 0x9e3779b97f4a7c15 >> (64 - windowBits)
}

// fold returns what is to be kept of a leaf: by turns bytes of its own, with their number before them, and the length and
// the begin of a part of the pattern.
func (f *family) fold(leaf []byte) []byte {
	folded := make([]byte, 0, len(leaf)+8)
	own := 0
	for i := 0; i+windowSize <= len(leaf); {
		n, from := 0, int(f.windows[windowOf(leaf[i:])])-1
		if from >= 0 {
			for i+n < len(leaf) && from+n < len(f.pattern) && leaf[i+n] == f.pattern[from+n] {
				n++
			}
		}
		if n < leastMatch {
			i++
			continue
		}
		folded = appendOwn(folded, leaf[own:i])
		folded = binary.AppendUvarint(binary.AppendUvarint(folded, uint64(n)), uint64(from))
		i += n
		own = i
	}
	return appendOwn(folded, leaf[own:])
}

func appendOwn(folded, own []byte) []byte {
	return append(binary.AppendUvarint(folded, uint64(len(own))), own...)
}

// unfold makes the leaf of what fold returned; length is that of the leaf.
func (f *family) unfold(folded []byte, length int) ([]byte, error) {
	leaf := make([]byte, 0, length)
	for {
		own, rest, ok := cutUvarint(folded)
		if !ok || own > len(rest) || own > length-len(leaf) {
			return nil, errFolded
		}
		leaf, folded = append(leaf, rest[:own]...), rest[own:]
		if len(leaf) == length {
			return leaf, nil
		}
		n, rest, ok1 := cutUvarint(folded)
		from, rest, ok2 := cutUvarint(rest)
		if !ok1 || !ok2 || n > length-len(leaf) || from > len(f.pattern) || n > len(f.pattern)-from || n == 0 {
			return nil, errFolded
		}
		leaf, folded = append(leaf, f.pattern[from:from+n]...), rest
	}
}

// cutUvarint reads a small number and returns what follows it.
func cutUvarint(b []byte) (n int, rest []byte, ok bool) {
	v, used := binary.Uvarint(b)
	if used <= 0 || v > maxLeaf {
		return 0, nil, false
	}
	return int(v), b[used:], true
}
