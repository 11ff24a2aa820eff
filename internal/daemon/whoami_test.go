package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
)

// TestStartAsItself: the last accepted configuration is that of whichever node took one last, or of before a move of the
// store. A node that starts with it stays who it is.
func TestStartAsItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url := labtest.StartPostgreSQL(t).Database(t)
	st, err := store.OpenPostgres(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	file := func(node string) string {
		return w.config(`url = "sqlite:stspub.db"`, `url = "`+url+`"`, "[store]", "node = \""+node+"\"\nnode_address = \""+w.ip+":8443\"\n[store]")
	}
	// runs starts with a file, and returns who beats meanwhile.
	runs := func(text string) []string {
		t.Helper()
		w.file("stspub.toml", text)
		r := w.start(w.path("stspub.toml"))
		defer r.stop()
		all, err := st.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var living []string
		for _, n := range all {
			if n.Deregistered.IsZero() {
				living = append(living, n.ID)
			}
		}
		return living
	}
	is := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: the nodes that live are %q, want %q", what, got, want)
		}
	}
	is("the first", runs(file("node-a")), "node-a")
	is("another, whose file is the accepted one then", runs(file("node-b")), "node-b")
	is("the first with an error of syntax", runs(file("node-a")+"[mxset\n"), "node-a")
	is("the first with an unknown table", runs(file("node-a")+"[nowhere]\n"), "node-a")
	is("the first with an error that hides its name", runs(strings.Replace(file("node-a"), "[server]", "[server", 1)), "node-a")

	if err := st.DeleteValue(t.Context(), keyServer(w.path("stspub.toml"))); err != nil {
		t.Fatal(err)
	}
	w.file("stspub.toml", strings.Replace(file("node-a"), "[server]", "[server", 1))
	if got := w.refused(); !strings.Contains(got, `the last accepted configuration is of node "node-b", so mend [server]`) {
		t.Errorf("a start that does not know who it is: %s", got)
	}

	// The last accepted one is of before the store was moved from SQLite, where a node is alone.
	w.file("stspub.toml", w.config())
	r := w.start(w.path("stspub.toml"))
	r.stop()
	old, err := store.OpenSQLite(t.Context(), w.path("stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	value, err := old.Value(t.Context(), keyAccepted)
	if err == nil {
		err = old.Close()
	}
	if err == nil {
		err = st.SetValue(t.Context(), keyAccepted, value)
	}
	if err == nil {
		err = st.Beat(t.Context(), store.Node{ID: "other"})
	}
	if err != nil {
		t.Fatal(err)
	}
	is("after a move of the store", runs(file("node-a")+"[mxset\n"), "node-a", "other")
}
