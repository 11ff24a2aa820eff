package certs

import (
	"container/heap"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// slowAfter is when an order stops counting against the parallel ones.
	slowAfter = 10 * time.Second
	// slowFactor bounds all running orders, slow ones included, as a multiple of the parallel ones.
	slowFactor = 8
	// longestPause lies between two orders of a name that fails, longestOutage between two while the authority is out
	// of reach, which is not the name's fault.
	longestPause  = 24 * time.Hour
	longestOutage = time.Hour
	// longestRetryAfter bounds what we believe of a Retry-After.
	longestRetryAfter = 7 * 24 * time.Hour
	// lookAgain is how often the scheduler looks at the clock when nothing happens, since clocks jump.
	lookAgain = time.Minute
)

// schedule decides which name is ordered next. Names that failed wait in a queue of their own and may take at most
// half of the places, so that a crowd of broken names delays no good one.
type schedule struct {
	parallel int
	wake     chan struct{} // capacity 1: look again

	mu            sync.Mutex // guards what follows, and every item
	items         map[string]*item
	good, failing queue
	running       int // orders
	quick         int // those that run for less than slowAfter
	quickFailing  int // those of them that came from the failing queue
}

func (s *schedule) init(parallel int) {
	s.parallel = parallel
	s.wake = make(chan struct{}, 1)
	s.items = make(map[string]*item)
}

// notify wakes the scheduler.
func (s *schedule) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// item returns the item of a name, a new one if there is none. The caller holds mu.
func (s *schedule) item(name string) *item {
	i := s.items[name]
	if i == nil {
		i = &item{name: name}
		s.items[name] = i
	}
	return i
}

// put places an item where it belongs: in the queue of its kind, or in none. The caller holds mu.
func (s *schedule) put(i *item) {
	if i.queue != nil {
		heap.Remove(i.queue, i.index)
	}
	if !i.wanted || i.dropped || i.cancel != nil {
		return
	}
	i.due = i.dueAt()
	q := &s.good
	if i.failures > 0 {
		q = &s.failing
	}
	i.queue = q
	heap.Push(q, i)
}

// take returns the next name to order, off its queue, or nil. The caller holds mu.
func (s *schedule) take(now time.Time) *item {
	if s.quick >= s.parallel || s.running >= s.parallel*slowFactor {
		return nil
	}
	if i := s.good.first(); i != nil && !i.due.After(now) {
		return heap.Pop(&s.good).(*item)
	}
	if i := s.failing.first(); i != nil && !i.due.After(now) && s.quickFailing < max(1, s.parallel/2) {
		return heap.Pop(&s.failing).(*item)
	}
	return nil
}

// wait returns how long nothing is due, if nobody wakes the scheduler: a name that is due and was not taken waits for
// a running order, whose end wakes it. The caller holds mu.
func (s *schedule) wait(now time.Time) time.Duration {
	d := lookAgain
	for _, q := range []*queue{&s.good, &s.failing} {
		if i := q.first(); i != nil && i.due.After(now) {
			d = min(d, i.due.Sub(now))
		}
	}
	return d
}

// dueAt is when a wanted name is to be ordered.
func (i *item) dueAt() time.Time {
	due := i.since
	if !i.notAfter.IsZero() {
		due = renewAt(i.name, i.notBefore, i.notAfter)
		// An authority with a clock of its own must not make us order in a circle.
		if again := i.tried.Add(min(time.Minute, i.notAfter.Sub(i.tried)/2)); due.Before(again) {
			due = again
		}
	}
	if due.Before(i.next) {
		due = i.next
	}
	return due
}

// renewAt is when a certificate is renewed: a third of its life before the end, or half of it if it lives for less
// than 10 days, but at most 30 days, and up to a tenth of that earlier, spread by name so that what was obtained
// together is not renewed together.
func renewAt(name string, notBefore, notAfter time.Time) time.Time {
	life := notAfter.Sub(notBefore)
	before := life / 3
	if life < 10*24*time.Hour {
		before = life / 2
	}
	before = min(before, 30*24*time.Hour)
	h := fnv.New32a()
	h.Write([]byte(name)) // never fails
	spread := float64(before/10) * float64(h.Sum32()) / math.MaxUint32
	return notAfter.Add(-before - time.Duration(spread))
}

// pause is how long a name waits after its n-th failure in a row.
func pause(first time.Duration, n int, outage bool) time.Duration {
	longest := longestPause
	if outage {
		longest = longestOutage
	}
	d := min(first, longest)
	for range n - 1 {
		if d = min(3*d, longest); d == longest {
			break
		}
	}
	return d - rand.N(d/10+1) // so that names that failed together do not return together
}

// queue is a heap of items by due.
type queue []*item

func (q queue) first() *item {
	if len(q) == 0 {
		return nil
	}
	return q[0]
}

// Len, Less, Swap, Push and Pop are for container/heap.
func (q queue) Len() int           { return len(q) }
func (q queue) Less(a, b int) bool { return q[a].due.Before(q[b].due) }
func (q queue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].index, q[b].index = a, b
}

// Push adds an item at the end.
func (q *queue) Push(x any) {
	i := x.(*item)
	i.index = len(*q)
	*q = append(*q, i)
}

// Pop takes the last item off.
func (q *queue) Pop() any {
	old := *q
	i := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	i.queue = nil
	return i
}
