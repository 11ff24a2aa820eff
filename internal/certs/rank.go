package certs

import (
	"container/heap"
	"slices"
	"time"
)

const (
	// rankAgain is for how long the places in the queues are believed. They are not counted again within rankShare times
	// the time that it took.
	rankAgain = 10 * time.Second
	rankShare = 100
)

// rank counts places in the queues. The caller holds mu.
func (s *schedule) rank(now time.Time) {
	held := make([][]*item, len(s.lines))
	for _, i := range s.later.items {
		if i.held {
			l := s.choose(i, now)
			held[l.number] = append(held[l.number], i)
		}
	}
	ahead := make(map[string]int) // by tenant
	for _, l := range s.lines {
		l.rank(now, held[l.number], func(c claim) time.Time {
			ahead[c.tenant]++
			return s.tenants[c.tenant].next(now, ahead[c.tenant]-1)
		})
	}
	s.rankNot = now.Add(rankShare * time.Since(now))
	s.ranked = latest(s.rankNot, now.Add(rankAgain))
}

// rank counts the places of those that wait for their turn, and when it will come if all that is ordered before goes well.
// Those that a limit of their own holds have no place, since others go before them meanwhile, but a turn too.
func (l *line) rank(now time.Time, held []*item, ofTenant func(claim) time.Time) {
	open, _ := l.budget.closed(now)
	all := append(l.waiting(), held...)
	inTurns(all)
	b := l.budget
	each := b.pace.period / time.Duration(b.pace.limit)
	place, failing, domains := 0, 0, make(map[string]int)
	counted := all[:0]
	for _, i := range all {
		i.expected = open.Add(time.Duration(place) * each)
		if !i.held {
			place++
			i.place = place
		}
		c := l.claim(i)
		if w := b.failures[c.name]; w != nil {
			i.expected = latest(i.expected, w.next(now))
		}
		if c.exempt {
			continue
		}
		if c.failing {
			i.expected = latest(i.expected, b.failing.nth(now, failing))
			failing++
		}
		if c.tenant != "" {
			i.expected = latest(i.expected, ofTenant(c))
		}
		w := b.domains[i.domain]
		if w == nil {
			w = &window{limit: b.limits.DomainOrders, period: b.limits.DomainPeriod}
		}
		i.expected = latest(i.expected, w.nth(now, domains[i.domain]))
		domains[i.domain]++
		counted = append(counted, i)
	}
	b.forecast(open, counted)
}

// forecast gives items, the most urgent first, their turns at an account from a time on. Each is expected not before all
// other limits allow it, and of those that these allow the most urgent goes first.
func (b *budget) forecast(turn time.Time, items []*item) {
	orders := window{limit: b.orders.limit, period: b.orders.period, times: slices.Clone(b.orders.times)}
	coming := make([]int, len(items))
	for n := range items {
		coming[n] = n
	}
	slices.SortStableFunc(coming, func(a, b int) int { return items[a].expected.Compare(items[b].expected) })
	var waiting numbers
	for len(coming) > 0 || len(waiting) > 0 {
		if len(waiting) == 0 {
			turn = latest(turn, items[coming[0]].expected)
		}
		for len(coming) > 0 && !items[coming[0]].expected.After(turn) {
			heap.Push(&waiting, coming[0])
			coming = coming[1:]
		}
		i := items[waiting[0]]
		at := orders.next(turn)
		if i.urgent == urgencyNew {
			at = orders.paced(turn)
		}
		if len(coming) > 0 && items[coming[0]].expected.Before(at) { // it may be more urgent
			turn = items[coming[0]].expected
			continue
		}
		heap.Pop(&waiting)
		orders.add(at)
		i.expected, turn = at, at
	}
}

// numbers are a heap.
type numbers []int

// Len, Less, Swap, Push and Pop are for container/heap.
func (n numbers) Len() int           { return len(n) }
func (n numbers) Less(a, b int) bool { return n[a] < n[b] }
func (n numbers) Swap(a, b int)      { n[a], n[b] = n[b], n[a] }

// Push adds a number at the end.
func (n *numbers) Push(x any) { *n = append(*n, x.(int)) }

// Pop takes the last number off.
func (n *numbers) Pop() any {
	last := len(*n) - 1
	x := (*n)[last]
	*n = (*n)[:last]
	return x
}
