package certs

import (
	"slices"
	"sync"
	"sync/atomic"
)

const (
	scalarSize = 32               // of a P-256 private key
	pointSize  = 1 + 2*scalarSize // of a P-256 public key, uncompressed (RFC 5480, Section 2.2)
	ownerSize  = 8
	unit       = 8 // bodies begin at multiples of it
	minChunk   = 16 << 10
	maxChunk   = 1 << 20
	chunkShift = 17                     // bits of a place that tell where in a chunk, in units
	maxChunks  = 1 << (32 - chunkShift) // 32 GB, when they are full
	maxLeaf    = 8000                   // bytes; that of one name has about 1000
)

// place is where a body is: the number of its chunk, and the unit in it.
type place uint32

func (p place) chunk() int { return int(p >> chunkShift) }
func (p place) at() int    { return int(p&(1<<chunkShift-1)) * unit }

// bodySize is what a body takes with a leaf of which that many bytes are kept, its owner included.
func bodySize(folded uint16) int {
	return (ownerSize + scalarSize + int(folded) + unit - 1) / unit * unit
}

// bodies are the keys and leaves of a memory.
type bodies struct {
	chunks atomic.Pointer[[][]byte] // nil: the number is free; replaced as a whole, since bodies are read without a lock

	mu    sync.Mutex // held by who changes the memory; guards what follows, and is taken before the lock of a shard
	usage []usage    // of the chunks
	tail  int        // the chunk that is written to; -1: none
	total int        // bytes of chunks that are used
}

// usage says how much of a chunk holds a body, and how much of that is still somebody's.
type usage struct{ used, live int }

func (b *bodies) init() {
	b.chunks.Store(new([][]byte))
	b.tail = -1
}

// body returns the key and what is kept of the leaf of a body.
func (b *bodies) body(p place, size uint16) (scalar, folded []byte) {
	at := p.at() + ownerSize
	body := (*b.chunks.Load())[p.chunk()][at : at+scalarSize+int(size)]
	return body[:scalarSize:scalarSize], body[scalarSize:len(body):len(body)]
}

// append writes a body at the end. mu is held.
func (b *bodies) append(o owner, scalar, folded []byte) place {
	size := bodySize(uint16(len(folded)))
	p, space := b.room(size)
	o.write(space, size)
	copy(space[ownerSize:], scalar)
	copy(space[ownerSize+scalarSize:], folded)
	return p
}

// room returns space for a body. mu is held.
func (b *bodies) room(size int) (place, []byte) {
	chunks := *b.chunks.Load()
	if b.tail < 0 || b.usage[b.tail].used+size > len(chunks[b.tail]) {
		// What the last chunk has left over is a small part of all.
		length := min(max(b.total/16, minChunk), maxChunk)
		b.tail = b.add(make([]byte, max(size, length&^(unit-1))), 0)
		chunks = *b.chunks.Load()
	}
	u := &b.usage[b.tail]
	p := place(b.tail<<chunkShift | u.used/unit)
	space := chunks[b.tail][u.used : u.used+size]
	u.used += size
	u.live += size
	b.total += size
	return p, space
}

// add adds a chunk of which a part is used, and returns its number. mu is held.
func (b *bodies) add(chunk []byte, used int) int {
	chunks := slices.Clone(*b.chunks.Load())
	n := slices.IndexFunc(chunks, func(c []byte) bool { return c == nil })
	if n < 0 {
		n = len(chunks)
		chunks = append(chunks, nil)
		b.usage = append(b.usage, usage{})
	}
	chunks[n] = chunk
	b.chunks.Store(&chunks)
	b.usage[n] = usage{used, used}
	b.total += used
	return n
}

// release says that a body is nobody's any more. When that is a quarter of its chunk, what is left there moves to the
// end, so that garbage is never more than a third of what is in use, and costs three times its size to be rid of.
func (m *memory) release(p place, size int) {
	n := p.chunk()
	u := &m.usage[n]
	u.live -= size
	if n == m.tail || 4*u.live > 3*u.used {
		return
	}
	chunk := (*m.chunks.Load())[n]
	for at := 0; at < u.used; {
		here := place(n<<chunkShift | at/unit)
		o, size := readOwner(chunk[at:])
		m.move(o, here, chunk[at:at+size])
		at += size
	}
	m.total -= m.usage[n].used
	m.usage[n] = usage{}
	chunks := slices.Clone(*m.chunks.Load())
	chunks[n] = nil
	m.chunks.Store(&chunks)
}

// move copies a body that is still its owner's to the end.
func (m *memory) move(o owner, from place, body []byte) {
	s := &m.shards[o.shard]
	s.mu.RLock()
	owned := o.head < uint32(len(s.heads)) && s.heads[o.head].nameLen > 0 && s.heads[o.head].place == from
	s.mu.RUnlock()
	if !owned {
		return
	}
	to, space := m.room(len(body))
	copy(space, body)
	s.mu.Lock()
	s.heads[o.head].place = to
	s.mu.Unlock()
}
