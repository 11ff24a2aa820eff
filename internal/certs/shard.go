package certs

import "slices"

// name returns the name of a head, where it lies.
func (s *shard) name(h *head) []byte { return s.names[h.name : h.name+uint32(h.nameLen)] }

// find returns the number of a name's head. The caller holds mu.
func (s *shard) find(hash uint32, name string) (uint32, bool) { return find(s, hash, name) }

func find[T string | []byte](s *shard, hash uint32, name T) (uint32, bool) {
	if s.count == 0 {
		return 0, false
	}
	mask := uint32(len(s.index) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		at := s.index[i]
		if at == 0 {
			return 0, false
		}
		if uint32(at>>32) != hash {
			continue
		}
		if n := uint32(at) - 1; string(s.name(&s.heads[n])) == string(name) {
			return n, true
		}
	}
}

// next is the number that the next new head gets.
func (s *shard) next() uint32 {
	if s.free > 0 {
		return s.free - 1
	}
	return uint32(len(s.heads))
}

// insert adds a head with the number that next said. The caller holds mu.
func (s *shard) insert(n uint32, h head, name string) {
	if 4*(s.count+1) > 3*len(s.index) {
		s.reindex(max(8, 2*len(s.index)))
	}
	h.name = uint32(len(s.names))
	s.names = append(s.names, name...)
	if n < uint32(len(s.heads)) {
		s.free = uint32(s.heads[n].place)
		s.heads[n] = h
	} else {
		s.heads = append(s.heads, h)
	}
	s.count++
	s.enter(h.hash, n)
}

// enter writes a head into the index.
func (s *shard) enter(hash, n uint32) {
	mask := uint32(len(s.index) - 1)
	i := hash & mask
	for s.index[i] != 0 {
		i = (i + 1) & mask
	}
	s.index[i] = slot(hash)<<32 | slot(n+1)
}

// reindex makes the index anew with room for size slots, a power of two.
func (s *shard) reindex(size int) {
	s.index = make([]slot, size)
	for n := range s.heads {
		if h := &s.heads[n]; h.nameLen > 0 {
			s.enter(h.hash, uint32(n))
		}
	}
}

// delete frees a head. The caller holds mu.
func (s *shard) delete(n uint32) {
	h := &s.heads[n]
	mask := uint32(len(s.index) - 1)
	i := h.hash & mask
	for uint32(s.index[i]) != n+1 {
		i = (i + 1) & mask
	}
	// Whatever lies behind the gap and is not at home there moves into it, so that searches need not go on over gaps.
	for next := (i + 1) & mask; s.index[next] != 0; next = (next + 1) & mask {
		if home := uint32(s.index[next]>>32) & mask; (next-home)&mask >= (next-i)&mask {
			s.index[i] = s.index[next]
			i = next
		}
	}
	s.index[i] = 0
	s.gone += int(h.nameLen)
	*h = head{place: place(s.free)}
	s.free = n + 1
	s.count--
	if s.gone > 4096 && s.gone > len(s.names)/4 {
		s.tidy()
	}
}

// tidy leaves out the names that are gone.
func (s *shard) tidy() {
	names := make([]byte, 0, len(s.names)-s.gone)
	for n := range s.heads {
		if h := &s.heads[n]; h.nameLen > 0 {
			at := uint32(len(names))
			names = append(names, s.name(h)...)
			h.name = at
		}
	}
	s.names, s.gone = names, 0
}

// reserve makes room for more names.
func (s *shard) reserve(count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := max(8, len(s.index))
	for 4*(s.count+count) > 3*size {
		size *= 2
	}
	if size > len(s.index) {
		s.reindex(size)
	}
	s.heads = slices.Grow(s.heads, count)
}
