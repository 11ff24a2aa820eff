package httpd

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/store"
)

// TestRemovalsSplitOverRequests removes domains one by one, and in bulk requests under ids of their own: together they need a
// confirmation as they would at once, and with it they are done.
func TestRemovalsSplitOverRequests(t *testing.T) {
	t.Parallel()
	w, m := bulkWorld(t, unixAddr(t))
	if _, err := w.bulked(t, BulkOptions{}, 30, added); err != nil {
		t.Fatal(err)
	}
	left := func(want int) {
		t.Helper()
		if n, err := m.store.CountDomains(t.Context(), "default", store.OwnerAPI); err != nil || n != want {
			t.Errorf("%d domains are left, %v, want %d", n, err, want)
		}
	}
	from := func(first int) func(int) ChangeLine { return func(i int) ChangeLine { return removed(first + i) } }
	for i := range 5 {
		if r, err := w.RemoveDomain(t.Context(), removed(i).Name, RemoveOptions{}); err != nil || r.Result != string(store.ResultRemoved) {
			t.Fatalf("removal %d: %+v, %v", i, r, err)
		}
	}
	if got, err := w.bulked(t, BulkOptions{RequestID: "one"}, 5, from(5)); err != nil || got["removed"] != 5 {
		t.Errorf("five more: %v, %v", got, err)
	}
	left(20)
	const why = "11 of 30 domains would be removed within an hour, which looks like a mistake"
	for _, dry := range []bool{true, false} {
		_, err := w.RemoveDomain(t.Context(), removed(10).Name, RemoveOptions{DryRun: dry})
		if problem, ok := errors.AsType[*Problem](err); !ok || problem.Status != http.StatusConflict || !strings.Contains(problem.Detail, why) {
			t.Errorf("one more: %v", err)
		}
	}
	got, err := w.bulked(t, BulkOptions{RequestID: "two"}, 1, from(10))
	if err != nil || len(got) != 1 || got["removed"] != 0 {
		t.Errorf("one more, under another id: %v, %v", got, err)
	}
	left(20)
	if r, err := w.RemoveDomain(t.Context(), removed(10).Name, RemoveOptions{Confirm: true}); err != nil || r.Result != string(store.ResultRemoved) {
		t.Errorf("confirmed: %+v, %v", r, err)
	}
	if got, err := w.bulked(t, BulkOptions{RequestID: "three", Confirm: true}, 5, from(11)); err != nil || got["removed"] != 5 {
		t.Errorf("five more, confirmed: %v, %v", got, err)
	}
	left(14)
}
