package httpd

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/store"
)

func TestNodes(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	want, _ := w.manager.Nodes(t.Context())
	got, err := w.Nodes(t.Context())
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Nodes: %v, -want +got\n%s", err, diff)
	}
	if err := w.RemoveNode(t.Context(), "node/2"); err != nil {
		t.Errorf("RemoveNode: %v", err)
	}
	w.manager.with(func(m *fakeManager) {
		if !slices.Equal(m.acts, []string{"remove node/2"}) {
			t.Errorf("acts = %q", m.acts)
		}
	})
	if err := w.RemoveNode(t.Context(), "node 1"); err == nil || err.Error() != "remove node: refused: it lives" {
		t.Errorf("RemoveNode of one that lives = %v", err)
	}
	if err := w.RemoveNode(t.Context(), "nobody"); !errors.Is(err, store.ErrNotFound) || err.Error() != `remove node: there is no node "nobody"` {
		t.Errorf("RemoveNode of nobody = %v", err)
	}
}
