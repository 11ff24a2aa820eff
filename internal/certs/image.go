package certs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
)

// Blocks are how the certificates of a memory are written down: about a megabyte of bodies, exactly as they lie in a
// chunk, so that one that is read becomes a chunk, and what the heads know of them apart.

const (
	blockSize = maxChunk - 1<<17 // bodies; what comes with the last names still fits into a chunk
	metaSize  = 4*4 + 4*2 + 2    // of a head without its name
	blockStep = 16               // heads that are looked at under one lock
)

// errBlock says that a block cannot be what was written.
var errBlock = errors.New("a block is damaged")

// blocks calls f for blocks that together hold all certificates but those whose chain or authority has a number that is
// not below a limit. What changes meanwhile may be in them or not. meta and bodies are only valid in f.
func (m *memory) blocks(chains, authorities int, f func(meta, bodies []byte, count int) error) error {
	var meta, bodies []byte
	count := 0
	flush := func() error {
		defer func() { meta, bodies, count = meta[:0], bodies[:0], 0 }()
		return f(meta, bodies, count)
	}
	for i := range m.shards {
		s := &m.shards[i]
		for at, more := 0, true; more; at += blockStep {
			var n int
			meta, bodies, n, more = m.image(s, at, limits{chains, authorities}, meta, bodies)
			if count += n; len(bodies) >= blockSize {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if count == 0 {
		return nil
	}
	return flush()
}

type limits struct{ chains, authorities int }

// image appends what the next heads of a shard stand for.
func (m *memory) image(s *shard, at int, l limits, meta, bodies []byte) (newMeta, newBodies []byte, count int, more bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for n := at; n < min(at+blockStep, len(s.heads)); n++ {
		h := &s.heads[n]
		if h.nameLen == 0 || int(h.chain) >= l.chains || int(h.authority) >= l.authorities {
			continue
		}
		count++
		meta = append(append(meta, h.nameLen), s.name(h)...)
		for _, v := range []uint32{h.notBefore, h.notAfter, h.poll, h.renew} {
			meta = binary.LittleEndian.AppendUint32(meta, v)
		}
		for _, v := range []uint16{h.leaf, h.folded, h.point, h.chain} {
			meta = binary.LittleEndian.AppendUint16(meta, v)
		}
		meta = append(meta, h.authority)
		size := bodySize(h.folded)
		body := (*m.chunks.Load())[h.place.chunk()][h.place.at():]
		bodies = append(bodies, body[:size]...)
	}
	return meta, bodies, count, at+blockStep < len(s.heads)
}

// take adds the certificates of a block to a memory that has none of their names, and keeps bodies. The numbers of chains
// and authorities in the block are translated. After an error the memory is of no use.
func (m *memory) take(meta, bodies []byte, count int, chains []uint16, authorities []uint8) error {
	if len(bodies) > maxChunk || len(bodies)%unit != 0 {
		return errBlock
	}
	m.bodies.mu.Lock()
	defer m.bodies.mu.Unlock()
	chunk := m.add(bodies, len(bodies))
	at := 0
	for range count {
		var h head
		var name []byte
		var err error
		if h, name, meta, err = readMeta(meta, chains, authorities); err != nil {
			return err
		}
		size := bodySize(h.folded)
		if size > len(bodies)-at {
			return errBlock
		}
		hash := maphash.Bytes(m.seed, name)
		h.hash, h.place = uint32(hash), place(chunk<<chunkShift|at/unit)
		s := m.shard(hash)
		s.mu.Lock()
		_, twice := find(s, h.hash, name)
		n := s.next()
		if !twice {
			s.insert(n, h, string(name))
		}
		s.mu.Unlock()
		if twice {
			return fmt.Errorf("%w: %q is in it twice", errBlock, name)
		}
		owner{uint16(hash >> shardShift), n}.write(bodies[at:], size)
		at += size
	}
	if at != len(bodies) || len(meta) > 0 {
		return errBlock
	}
	return nil
}

// readMeta reads what image wrote of one head, and returns the rest of meta.
func readMeta(meta []byte, chains []uint16, authorities []uint8) (h head, name, rest []byte, err error) {
	if len(meta) == 0 || meta[0] == 0 || int(meta[0]) > maxName || len(meta) < int(meta[0])+metaSize {
		return h, nil, nil, errBlock
	}
	h.nameLen = meta[0]
	name, rest = meta[1:1+h.nameLen], meta[1+h.nameLen:]
	for i, v := range []*uint32{&h.notBefore, &h.notAfter, &h.poll, &h.renew} {
		*v = binary.LittleEndian.Uint32(rest[4*i:])
	}
	h.leaf = binary.LittleEndian.Uint16(rest[16:])
	h.folded = binary.LittleEndian.Uint16(rest[18:])
	h.point = binary.LittleEndian.Uint16(rest[20:])
	chain, authority := binary.LittleEndian.Uint16(rest[22:]), rest[24]
	if int(h.leaf) > maxLeaf || int(h.folded) > 2*maxLeaf || int(h.point)+pointSize > int(h.leaf) || int(chain) >= len(chains) || int(authority) >= len(authorities) {
		return h, nil, nil, errBlock
	}
	h.chain, h.authority = chains[chain], authorities[authority]
	return h, name, rest[metaSize-1:], nil
}

// reserve makes room for count more names.
func (m *memory) reserve(count int) {
	m.bodies.mu.Lock()
	defer m.bodies.mu.Unlock()
	each := count/shardCount + count/shardCount/16 // they are not spread quite evenly
	for i := range m.shards {
		m.shards[i].reserve(each)
	}
}
