package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// places lists every key and item of a document with its line.
func places(path string, n *node) []string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(n.keys)) {
		at := strings.TrimPrefix(path+"."+key, ".")
		all = append(all, fmt.Sprintf("%s:%d", at, n.keys[key].line))
		all = append(all, places(at, n.keys[key])...)
	}
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		all = append(all, fmt.Sprintf("%s:%d", at, item.line))
		all = append(all, places(at, item)...)
	}
	return all
}

func TestLocate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"pairs", "a = 1\n\nb = 2 # c = 3\n", "a:1 b:3"},
		{"dotted keys", "a.b = 1\na . c = 2\n", "a:1 a.b:1 a.c:2"},
		{"quoted keys", "\"a.b\" = 1\n'c\\' = 2\n\"\\u0064\" = 3\n", `a.b:1 c\:2 d:3`},
		{"tables", "[a]\nx = 1\n[a.b]\ny = 1\n", "a:1 a.b:3 a.b.y:4 a.x:2"},
		{"table after its child", "[a.b]\n[ a ] # [c]\n", "a:2 a.b:1"},
		{
			"array of tables", "[[a]]\nx = 1\n\n[[a]]\nx = 2\n[a.b]\ny = 3\n",
			"a:1 a[0]:1 a[0].x:2 a[1]:4 a[1].b:6 a[1].b.y:7 a[1].x:5",
		},
		{"array over lines", "a = [ # ]\n  'x', \"]\",\n\n  'z' # ,\n  ,\n]\nb = 1\n", "a:1 a[0]:2 a[1]:2 a[2]:4 b:7"},
		{"arrays in an array", "a = [[1,\n2],[\n3]]", "a:1 a[0]:1 a[0][0]:1 a[0][1]:2 a[1]:2 a[1][0]:3"},
		{
			"inline tables", "a = { b = 1, c.d = [\n2] }\ne = [{x=1},\n{x=2}]",
			"a:1 a.b:1 a.c:1 a.c.d:1 a.c.d[0]:2 e:3 e[0]:3 e[0].x:3 e[1]:4 e[1].x:4",
		},
		{"strings with signs", "a = \"# \\\" ]\"\nb = '\\'\nc = 1\n", "a:1 b:2 c:3"},
		{"strings over lines", "a = \"\"\"x\n\\\"\"\" # \n\"\"\"\"\"\nb = '''\n''''\nc = 1\n", "a:1 b:4 c:6"},
		{"empty strings", "a = ''\nb = \"\"\nc = ''''''\nd = \"\"\"\"\"\"\ne = 1\n", "a:1 b:2 c:3 d:4 e:5"},
		{"CRLF", "a = 1\r\n[b]\r\nc = [\r\n1\r\n]\r\n", "a:1 b:2 b.c:3 b.c[0]:4"},
		{"dates and numbers", "a = 1979-05-27 07:32:00 # x\nb = -0.1e+5\nc = 1\n", "a:1 b:2 c:3"},
	} {
		if _, err := decodeTOML(c.text); err != nil {
			t.Errorf("%s: the library says %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, strings.Join(places("", locate(c.text)), " ")); diff != "" {
			t.Errorf("%s, -want +got:\n%s", c.name, diff)
		}
	}
}

// shape describes what holds what in the values of the library; nodeShape does so in ours.
func shape(v any) string {
	var parts []string
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, fmt.Sprintf("%q", key)+shape(v[key]))
		}
	case []any:
		for i, item := range v {
			parts = append(parts, fmt.Sprint(i)+shape(item))
		}
	case []map[string]any:
		for i, item := range v {
			parts = append(parts, fmt.Sprint(i)+shape(item))
		}
	}
	return "(" + strings.Join(parts, " ") + ")"
}

func nodeShape(n *node) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(n.keys)) {
		parts = append(parts, fmt.Sprintf("%q", key)+nodeShape(n.keys[key]))
	}
	for i, item := range n.items {
		parts = append(parts, fmt.Sprint(i)+nodeShape(item))
	}
	return "(" + strings.Join(parts, " ") + ")"
}

// The scanner finds exactly the keys and items that the library finds in what the library takes, and no text makes
// either or the decoder panic, hang, or name a line that is not there.
func FuzzParse(f *testing.F) {
	for _, e := range slices.Concat(problemEdits(), warningEdits()) {
		f.Add(e.apply(f))
	}
	f.Add("a = { b = 1,\n c.d = [\n2] }\ne = [{x=1},\n{x=2}, ]\n\"\\\"\" = '''\n''''\n[[f.\"g\"]]\n[f.h]\n")
	f.Add("a=\"\"\"\\\"\"\"\\\\\"\"\"\"\"\n[x.y]\n[x]\nz=1979-05-27 07:32:00\n")
	f.Fuzz(func(t *testing.T, raw string) {
		found := &findings{file: "f"}
		doc := parse(raw, found)
		lines := strings.Count(raw, "\n") + 1
		for _, p := range found.problems {
			if p.Line < 1 || p.Line > lines {
				t.Errorf("parse(%q): %v, but there are %d lines", raw, p, lines)
			}
		}
		if (doc == nil) != (len(found.problems) == 1 && found.problems[0].Key == "TOML syntax") {
			t.Errorf("parse(%q) = %v with %v", raw, doc, found.problems)
		}
		raw = strings.TrimPrefix(raw, "\ufeff")
		n := locate(raw)
		if doc == nil {
			return
		}
		tree, err := decodeTOML(raw)
		if err != nil {
			t.Fatal(err)
		}
		if want, got := shape(tree), nodeShape(n); got != want {
			t.Errorf("locate(%q) = %s, the library has %s", raw, got, want)
		}
	})
}
