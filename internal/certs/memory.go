package certs

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxName is the longest host name in octets (RFC 1035, Section 2.3.4, without the root's).
const maxName = 253

// memory holds the certificates of this node by name, about 1 KB each, without a pointer for the garbage collector to
// follow: bodies (key and leaf) lie one after the other in chunks of bytes, and what is small and asked for often lies
// apart from them in shards, which a walk over all names reads in the order of memory.
//
// A look-up takes one read lock, allocates nothing, and gets the body where it lies: it is never changed, and a chunk
// that the memory has let go of lives on for as long as a handshake needs it. Writers take turns. They hold the lock of a
// shard while they change one head, or, seldom, move the heads or names of that shard: a 64th of all.
type memory struct {
	seed   maphash.Seed
	shards [shardCount]shard
	tables
	bodies
	keys sync.Pool // see signer

	changed atomic.Int64 // names that were set or removed, since somebody put it back
	removed atomic.Int64 // Unix seconds of the first removal, likewise; 0: none
}

const (
	shardCount = 64
	shardShift = 64 - 6
)

// shard holds the heads of a part of the names.
type shard struct {
	mu    sync.RWMutex // guards what follows; structure is changed only with memory.bodies.mu held too
	index []slot       // open addressing, linear probing; a power of two long
	heads []head
	names []byte // those of the heads, in about their order
	free  uint32 // 1 + the first head that is free; 0: none
	count int    // heads in use
	gone  int    // bytes of names that no head uses
}

// slot is, from the lowest bit, 32 bits of 1 + the number of a head, and 32 of its name's hash; 0 is empty.
type slot uint64

// head is what is known of a name. Times are Unix seconds, 0 for none, up to the year 2106.
type head struct {
	name, hash          uint32 // where in names it begins; of it
	place               place  // of the body; of a free head: what shard.free is
	notBefore, notAfter uint32
	poll                uint32
	renew               uint32
	leaf, folded        uint16 // bytes of the leaf, and of what is kept of it
	point               uint16 // where in the leaf the public key is
	chain               uint16 // of the family, in tables
	nameLen             uint8  // 0: the head is free
	authority           uint8  // in tables
	wanted              bool
}

// info is what the scheduler knows of a certificate. Times are Unix seconds; 0 is none.
type info struct {
	notBefore, notAfter int64
	authority           uint8 // see tables.authorityName
	wanted              bool  // it is to be renewed
	poll                int64 // when the authority is asked for its renewal window (RFC 9773) next
	renew               int64 // when it is planned to be renewed
}

func (h *head) info() info {
	return info{
		notBefore: int64(h.notBefore), notAfter: int64(h.notAfter), authority: h.authority, wanted: h.wanted,
		poll: int64(h.poll), renew: int64(h.renew),
	}
}

// seconds is a time as a head has it.
func seconds(unix int64) uint32 { return uint32(min(max(unix, 0), 1<<32-1)) }

// view is a certificate as it lies in memory. Nobody may change its bytes.
type view struct {
	head

	scalar, folded []byte
	family         *family
}

// der makes the leaf.
func (v *view) der() ([]byte, error) { return v.family.unfold(v.folded, int(v.leaf)) }

func newMemory() *memory {
	m := &memory{seed: maphash.MakeSeed(), keys: sync.Pool{New: newKey}}
	m.bodies.init()
	m.tables.init()
	return m
}

func (m *memory) shard(hash uint64) *shard { return &m.shards[hash>>shardShift] }

// set adds the certificate of a name, or puts it in the place of the old one. What [memory.mark] noted of the old one is
// forgotten but for wanted; who counts plans has taken that of the old one out.
func (m *memory) set(name string, c *packed) {
	if name == "" || len(name) > maxName {
		return // no certificate names it
	}
	hash := maphash.String(m.seed, name)
	folded := m.family(c.chain).fold(c.leaf)
	h := head{
		hash: uint32(hash), notBefore: seconds(c.notBefore), notAfter: seconds(c.notAfter), leaf: uint16(len(c.leaf)), folded: uint16(len(folded)),
		point: uint16(c.point), chain: c.chain, authority: c.authority, nameLen: uint8(len(name)),
		renew: seconds(c.renew),
	}
	m.bodies.mu.Lock()
	defer m.bodies.mu.Unlock()
	s := m.shard(hash)
	s.mu.RLock()
	n, found := s.find(h.hash, name)
	s.mu.RUnlock()
	if !found {
		n = s.next()
	}
	h.place = m.append(owner{uint16(hash >> shardShift), n}, c.scalar[:], folded)
	if old, size := s.put(n, h, name); found {
		m.release(old, size)
	}
	m.changed.Add(1)
}

// put writes a head, and returns the body that it had before.
func (s *shard) put(n uint32, h head, name string) (old place, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < uint32(len(s.heads)) && s.heads[n].nameLen > 0 {
		was := &s.heads[n]
		h.name, h.wanted = was.name, was.wanted
		old, size = was.place, bodySize(was.folded)
		*was = h
		return old, size
	}
	s.insert(n, h, name)
	return 0, 0
}

// remove forgets a name. One that is not there is no error.
func (m *memory) remove(name string) {
	hash := maphash.String(m.seed, name)
	m.bodies.mu.Lock()
	defer m.bodies.mu.Unlock()
	s := m.shard(hash)
	s.mu.Lock()
	n, found := s.find(uint32(hash), name)
	var h head
	if found {
		h = s.heads[n]
		s.delete(n)
	}
	s.mu.Unlock()
	if found {
		m.release(h.place, bodySize(h.folded))
		m.changed.Add(1)
		m.removed.CompareAndSwap(0, time.Now().Unix())
	}
}

// find returns what is known of a name.
func (m *memory) find(name string) (info, bool) {
	hash := maphash.String(m.seed, name)
	s := m.shard(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, found := s.find(uint32(hash), name)
	if !found {
		return info{}, false
	}
	return s.heads[n].info(), true
}

// mark has f change wanted, poll and renew of a name; other changes are ignored. It returns false for a name
// that is not there. f must not use the memory.
func (m *memory) mark(name string, f func(*info)) bool {
	hash := maphash.String(m.seed, name)
	s := m.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	n, found := s.find(uint32(hash), name)
	if !found {
		return false
	}
	h := &s.heads[n]
	i := h.info()
	f(&i)
	h.wanted, h.poll, h.renew = i.wanted, seconds(i.poll), seconds(i.renew)
	return true
}

// each calls f for every name until f returns false. No lock is held while f runs, so it may use the memory; a name that
// comes or goes meanwhile may be met or not. name is only valid in f.
func (m *memory) each(f func(name []byte, i info) bool) {
	var heads [256]head
	names := make([]byte, 0, len(heads)*64)
	for i := range m.shards {
		s := &m.shards[i]
		for at, n := 0, len(heads); n == len(heads); at += n {
			n, names = s.copy(heads[:], names[:0], at)
			begin := 0
			for j := range heads[:n] {
				h := &heads[j]
				end := begin + int(h.nameLen)
				if h.nameLen > 0 && !f(names[begin:end:end], h.info()) {
					return
				}
				begin = end
			}
		}
	}
}

// copy copies heads from number at on, and their names.
func (s *shard) copy(heads []head, names []byte, at int) (int, []byte) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := copy(heads, s.heads[min(at, len(s.heads)):])
	for i := range heads[:n] {
		names = append(names, s.name(&heads[i])...)
	}
	return n, names
}

// len is the number of names.
func (m *memory) len() int {
	sum := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		sum += s.count
		s.mu.RUnlock()
	}
	return sum
}

// leaf returns the certificate of a name, DER, or nil.
func (m *memory) leaf(name string) []byte {
	v, found := m.lookup(name)
	if !found {
		return nil
	}
	der, _ := v.der() // nil after an error, which [Keeper.GetCertificate] tells
	return der
}

// lookup returns the certificate of a name in any case, with or without trailing dot.
func (m *memory) lookup(name string) (v view, found bool) {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName {
		return v, false
	}
	var buf [maxName]byte
	lower := buf[:len(name)]
	for i := range lower {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	hash := maphash.Bytes(m.seed, lower)
	s := m.shard(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, found := find(s, uint32(hash), lower)
	if !found {
		return v, false
	}
	v.head = s.heads[n]
	v.scalar, v.folded = m.body(v.place, v.head.folded)
	v.family = m.family(v.chain)
	return v, true
}

// tables are what many certificates share. They only grow, by what an authority changes in years.
type tables struct {
	mu          sync.Mutex // held by who adds
	families    atomic.Pointer[[]*family]
	authorities atomic.Pointer[[]string]
}

func (t *tables) init() {
	t.families.Store(new([]*family))
	t.authorities.Store(&[]string{""})
}

// family returns the family of a number.
func (t *tables) family(n uint16) *family { return (*t.families.Load())[n] }

// familyOf returns the number of the family with a chain of issuers' certificates; if there is none, it is founded with a
// leaf. False: there is no room.
func (t *tables) familyOf(issuers [][]byte, leaf []byte) (uint16, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := *t.families.Load()
	for i, have := range all {
		if slices.EqualFunc(have.issuers, issuers, bytes.Equal) {
			return uint16(i), true
		}
	}
	if len(all) > 1<<16-1 {
		return 0, false
	}
	all = append(all[:len(all):len(all)], newFamily(issuers, leaf))
	t.families.Store(&all)
	return uint16(len(all) - 1), true
}

// authorityName returns the name of an authority, as in [acme.NAME]; empty: not known.
func (t *tables) authorityName(n uint8) string { return (*t.authorities.Load())[n] }

// authorityOf returns the number of an authority. It is 0, that of the one without a name, once there are 255.
func (t *tables) authorityOf(name string) uint8 {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := *t.authorities.Load()
	if i := slices.Index(all, name); i >= 0 {
		return uint8(i)
	}
	if len(all) > 1<<8-1 {
		return 0
	}
	all = append(all[:len(all):len(all)], name)
	t.authorities.Store(&all)
	return uint8(len(all) - 1)
}

// owner is the head that a body belongs to. It stands before the body, so that the body can be moved.
type owner struct {
	shard uint16
	head  uint32
}

func (o owner) write(b []byte, size int) {
	binary.LittleEndian.PutUint16(b, uint16(size/unit))
	binary.LittleEndian.PutUint16(b[2:], o.shard)
	binary.LittleEndian.PutUint32(b[4:], o.head)
}

func readOwner(b []byte) (o owner, size int) {
	return owner{binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}, int(binary.LittleEndian.Uint16(b)) * unit
}
