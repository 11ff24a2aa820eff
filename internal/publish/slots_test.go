package publish

import (
	"fmt"
	"slices"
	"testing"
)

// TestSlots has tenants take places, each as many as it may: the one that comes last finds some.
func TestSlots(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ tenants, each, free int }{
		{1, 512, 128}, // as many as there were before tenants had shares
		{2, 284, 70},
		{3, 196, 48},
		{10, 62, 14},
		{100, 6, 1},
	} {
		s, most := newSlots(workers), 0
		for {
			began := false
			for i := range c.tenants {
				tenant := fmt.Sprint(i)
				if slices.Contains(s.full(), tenant) {
					continue
				}
				s.begin(tenant)
				began, most = true, max(most, s.of[tenant])
			}
			if !began {
				break
			}
		}
		if free := s.free(); most > c.each+1 || most < c.each-1 || free < c.free {
			t.Errorf("%d tenants: %d places each, %d free, want about %d, and at least %d", c.tenants, most, free, c.each, c.free)
		}
		if !s.end("0") {
			t.Errorf("%d tenants: one that had as many as may be did not", c.tenants)
		}
		for range most - 2 {
			s.end("0")
		}
		if s.end("0") {
			t.Errorf("%d tenants: one that had a single place was full", c.tenants)
		}
	}
	if left := newSlots(1).full(); len(left) > 0 {
		t.Errorf("full are %q where nobody has a place", left)
	}
}
