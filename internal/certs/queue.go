package certs

import "container/heap"

// queue is a heap of items.
type queue struct {
	less  func(a, b *item) bool
	items []*item
	// served grows with the turn that was taken of it last; 0: none.
	served uint64
}

func (q *queue) len() int { return len(q.items) }

func (q *queue) first() *item {
	if len(q.items) == 0 {
		return nil
	}
	return q.items[0]
}

func (q *queue) push(i *item) { heap.Push(q, i) }

// Len, Less, Swap, Push and Pop are for container/heap.
func (q *queue) Len() int           { return len(q.items) }
func (q *queue) Less(a, b int) bool { return q.less(q.items[a], q.items[b]) }
func (q *queue) Swap(a, b int) {
	q.items[a], q.items[b] = q.items[b], q.items[a]
	q.items[a].index, q.items[b].index = a, b
}

// Push adds an item at the end.
func (q *queue) Push(x any) {
	i := x.(*item)
	i.index, i.heap = len(q.items), q
	q.items = append(q.items, i)
}

// Pop takes the last item off.
func (q *queue) Pop() any {
	n := len(q.items) - 1
	i := q.items[n]
	q.items[n] = nil
	q.items = q.items[:n]
	i.heap = nil
	return i
}
