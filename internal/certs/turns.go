package certs

import (
	"cmp"
	"maps"
	"slices"
)

// queueOf is the queue that a name waits in.
func (l *line) queueOf(i *item) *queue {
	switch {
	case i.unsaved != nil:
		return &l.saving
	case i.troubled():
		return &l.failing
	case l.exempts(i):
		return &l.free
	case i.urgent != urgencyNew:
		return &l.counted
	}
	q := l.fresh[i.tenant]
	if q == nil {
		q = &queue{less: (*item).before}
		l.fresh[i.tenant] = q
	}
	return q
}

// turns are the queues that have somebody, in the order in which they are asked. Those that failed come first, and get a
// small share. Names that nobody looks for yet come last, and tenants take turns with them: who was served longest ago is
// first, so that a hundred thousand of one do not keep the others waiting for weeks.
func (l *line) turns() []*queue {
	qs := make([]*queue, 0, 3+len(l.fresh))
	if l.quickFailing < max(1, l.budget.limits.InFlight/2) {
		qs = append(qs, &l.failing)
	}
	free, counted := l.free.first(), l.counted.first()
	if free != nil && (counted == nil || free.before(counted)) {
		qs = append(qs, &l.free, &l.counted)
	} else {
		qs = append(qs, &l.counted, &l.free)
	}
	empty := func(q *queue) bool { return q.len() == 0 }
	fresh := slices.DeleteFunc(slices.Collect(maps.Values(l.fresh)), empty)
	slices.SortFunc(fresh, func(a, b *queue) int { return cmp.Or(cmp.Compare(a.served, b.served), a.first().order(b.first())) })
	return append(slices.DeleteFunc(qs, empty), fresh...)
}

// serve has the tenants of others come before that of a name which begins.
func (l *line) serve(i *item) {
	if q := l.fresh[i.tenant]; q != nil && i.heap == q {
		l.served++
		q.served = l.served
	}
}

// waiting are all that wait for their turn, in no order.
func (l *line) waiting() []*item {
	all := slices.Concat(l.free.items, l.counted.items, l.failing.items)
	for _, q := range l.fresh {
		all = append(all, q.items...)
	}
	return all
}

// waits is how many those are.
func (l *line) waits() int {
	n := l.free.len() + l.counted.len() + l.failing.len()
	for _, q := range l.fresh {
		n += q.len()
	}
	return n
}

// order is negative where i is ordered before o, and positive where it is not.
func (i *item) order(o *item) int {
	if i.before(o) {
		return -1
	}
	return 1
}

// inTurns sorts items as they are ordered if nothing holds them: the most urgent first, and of those that nobody looks for
// yet one of each tenant, then a second one of each, and so on.
func inTurns(items []*item) {
	slices.SortFunc(items, (*item).order)
	of := make(map[string]int)
	rounds := make(map[*item]int)
	for _, i := range items {
		if i.urgent == urgencyNew {
			rounds[i] = of[i.tenant]
			of[i.tenant]++
		}
	}
	if len(of) < 2 { // then it is their order already
		return
	}
	slices.SortStableFunc(items, func(a, b *item) int {
		return cmp.Or(cmp.Compare(a.urgent, b.urgent), cmp.Compare(rounds[a], rounds[b]))
	})
}
