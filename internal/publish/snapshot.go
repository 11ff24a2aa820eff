package publish

import (
	"bytes"
	"errors"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/stspub/stspub/internal/policygen"
)

// Page is a policy as it goes out, prepared when it changed. Domains with the same text share one Page. It is never
// changed, and nobody who gets one may change it.
type Page struct {
	Text string
	// Length is the Content-Length of Text as the value of an http.Header, so that an answer need not make one.
	Length []string
}

// A Snapshot is what this node serves: the policy text of every domain that has one. It is the only thing that an
// answer to a sender depends on beside its certificate.
//
// Reading takes no lock and allocates nothing. A change copies one of many small shards and puts the copy in the place
// of the old one, so it costs the same with ten domains and with a million, and a reader sees a domain's old policy or
// its new one, nothing between. All methods may be called at the same time.
type Snapshot struct {
	seed   maphash.Seed
	shards [shardCount]atomic.Pointer[shard]
	count  atomic.Int64

	mu    sync.Mutex             // held by Set: guards pages and the replacing of shards
	pages map[string]*sharedPage // by text
}

// shardCount makes a shard of a million names about 60 entries, 1.5 KB to copy.
const shardCount = 1 << 14

// A shard is never changed once readers can see it. As slices it needs 25 bytes a name where a map needs three times
// that, and the tags, one byte of each name's hash, let a search touch one name's memory, seldom two.
type shard struct {
	tags    []byte
	entries []entry
}

type entry struct {
	name policygen.Name
	page *Page
}

// sharedPage is a Page and the number of names that are served it.
type sharedPage struct {
	page Page
	uses int
}

// NewSnapshot returns an empty snapshot, which answers for nobody.
func NewSnapshot() *Snapshot {
	return &Snapshot{seed: maphash.MakeSeed(), pages: make(map[string]*sharedPage)}
}

// Set makes text the policy of a domain; the empty text removes the domain. The next call of [Snapshot.Policy], by
// whomever, sees it. It returns whether that was news.
func (s *Snapshot) Set(name policygen.Name, text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	slot, tag := s.slot(string(name))
	sh := slot.Load()
	i := sh.find(tag, string(name))
	switch {
	case i < 0 && text == "", i >= 0 && sh.entries[i].page.Text == text:
		return false
	case i < 0:
		sh = sh.with(tag, entry{name, s.use(text)})
		s.count.Add(1)
	case text == "":
		s.release(sh.entries[i].page)
		sh = sh.without(i)
		s.count.Add(-1)
	default:
		s.release(sh.entries[i].page)
		sh = &shard{sh.tags, slices.Clone(sh.entries)}
		sh.entries[i].page = s.use(text)
	}
	slot.Store(sh)
	return true
}

// fillBatch is how many names share the memory of one string, so that a million of them are a few objects for the
// garbage collector.
const fillBatch = 4096

// Fill makes an empty snapshot that of all domains that each calls its argument with, each once, much faster than Set
// does. What each gives is copied. An error is that of each, or says that the snapshot is not empty.
func (s *Snapshot) Fill(each func(f func(name, text []byte) error) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Len() > 0 {
		return errors.New("fill the snapshot: there are policies in it")
	}
	return s.fill(each)
}

// Refill is Fill for a snapshot with policies in it, which go. A reader sees a domain's old policy until it sees its new
// one. After an error of each they stay.
func (s *Snapshot) Refill(each func(f func(name, text []byte) error) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.pages
	s.pages = make(map[string]*sharedPage)
	if err := s.fill(each); err != nil {
		s.pages = before
		return err
	}
	return nil
}

// fill makes the snapshot that of each. mu is held, and pages is empty.
func (s *Snapshot) fill(each func(f func(name, text []byte) error) error) error {
	var all []entry
	var pages []*Page // of the names in batch, which is the end of all
	var ends []int
	var batch []byte
	flush := func() {
		names, begin := policygen.Name(batch), 0
		for i, end := range ends {
			all = append(all, entry{names[begin:end], pages[i]})
			begin = end
		}
		pages, ends, batch = pages[:0], ends[:0], batch[:0]
	}
	err := each(func(name, text []byte) error {
		batch = append(batch, name...)
		ends, pages = append(ends, len(batch)), append(pages, s.use(string(text)))
		if len(ends) == fillBatch {
			flush()
		}
		return nil
	})
	if err != nil {
		clear(s.pages)
		return err
	}
	flush()
	s.place(all)
	return nil
}

// place makes the shards. mu is held.
func (s *Snapshot) place(all []entry) {
	counts := make([]int, shardCount)
	for _, e := range all {
		counts[maphash.String(s.seed, string(e.name))%shardCount]++
	}
	shards := make([]*shard, shardCount)
	for _, e := range all {
		hash := maphash.String(s.seed, string(e.name))
		sh := &shards[hash%shardCount]
		if n := counts[hash%shardCount]; *sh == nil {
			*sh = &shard{make([]byte, 0, n), make([]entry, 0, n)}
		}
		(*sh).tags, (*sh).entries = append((*sh).tags, byte(hash>>56)), append((*sh).entries, e)
	}
	for i, sh := range shards {
		s.shards[i].Store(sh)
	}
	s.count.Store(int64(len(all)))
}

// Policy returns what is served at a policy host, "mta-sts.<domain>" in any case and with or without a trailing dot,
// but without a port. It is false for every other host, and for domains that have no policy.
func (s *Snapshot) Policy(host string) (*Page, bool) {
	// ToLower returns a lower-case name as it is, without allocating.
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	domain, ok := strings.CutPrefix(host, "mta-sts.")
	if !ok {
		return nil, false
	}
	slot, tag := s.slot(domain)
	sh := slot.Load()
	i := sh.find(tag, domain)
	if i < 0 {
		return nil, false
	}
	return sh.entries[i].page, true
}

// Len returns the number of domains that have a policy.
func (s *Snapshot) Len() int {
	return int(s.count.Load())
}

// slot returns the place of a name's shard, and the name's tag there.
func (s *Snapshot) slot(domain string) (*atomic.Pointer[shard], byte) {
	hash := maphash.String(s.seed, domain)
	return &s.shards[hash%shardCount], byte(hash >> 56)
}

// find returns the index of a name, or -1. The shard may be nil, as it is before its first name.
func (s *shard) find(tag byte, domain string) int {
	if s == nil {
		return -1
	}
	for i := 0; ; i++ {
		next := bytes.IndexByte(s.tags[i:], tag)
		if next < 0 {
			return -1
		}
		i += next
		if string(s.entries[i].name) == domain {
			return i
		}
	}
}

// with returns a copy that has one more entry.
func (s *shard) with(tag byte, e entry) *shard {
	if s == nil {
		s = &shard{}
	}
	return &shard{slices.Concat(s.tags, []byte{tag}), slices.Concat(s.entries, []entry{e})}
}

// without returns a copy that lacks the i-th entry.
func (s *shard) without(i int) *shard {
	return &shard{slices.Concat(s.tags[:i], s.tags[i+1:]), slices.Concat(s.entries[:i], s.entries[i+1:])}
}

// use returns the page of a text for one more name.
func (s *Snapshot) use(text string) *Page {
	p := s.pages[text]
	if p == nil {
		p = &sharedPage{page: Page{Text: text, Length: []string{strconv.Itoa(len(text))}}}
		s.pages[text] = p
	}
	p.uses++
	return &p.page
}

// release takes one name from a page, and forgets the page with its last. Readers that hold it may go on using it.
func (s *Snapshot) release(page *Page) {
	p := s.pages[page.Text]
	p.uses--
	if p.uses == 0 {
		delete(s.pages, page.Text)
	}
}
