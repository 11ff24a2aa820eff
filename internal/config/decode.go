package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// The kinds of values that a table holds, each with its line; line 0 means that the key is not there.
type (
	text struct {
		v    string
		line int
	}
	list struct {
		items []text
		line  int
	}
	number struct {
		v    int64
		line int
	}
	flag struct {
		v    bool
		line int
	}
	// span is a duration as it is written; as an integer, if it is one.
	span struct {
		text    string
		integer int64
		isInt   bool
		line    int
	}
)

func (t text) given() bool   { return t.line > 0 }
func (l list) given() bool   { return l.line > 0 }
func (m number) given() bool { return m.line > 0 }
func (f flag) given() bool   { return f.line > 0 }
func (s span) given() bool   { return s.line > 0 }

// value is one of the kinds: it reads itself from what the library decoded, and returns false if the type is wrong.
type value interface {
	read(v any, n *node) bool
	wanted() string
}

func (t *text) read(v any, n *node) (ok bool) {
	t.line = n.line
	t.v, ok = v.(string)
	return ok
}

func (*text) wanted() string { return `a string: key = "value"` }

func (l *list) read(v any, n *node) bool {
	l.line = n.line
	items, ok := v.([]any)
	for i, item := range items {
		var t text
		ok = ok && t.read(item, n.item(i))
		l.items = append(l.items, t)
	}
	return ok
}

func (*list) wanted() string { return `an array of strings: key = ["value"]` }

func (m *number) read(v any, n *node) (ok bool) {
	m.line = n.line
	m.v, ok = v.(int64)
	return ok
}

func (*number) wanted() string { return "an integer: key = 443" }

func (f *flag) read(v any, n *node) (ok bool) {
	f.line = n.line
	f.v, ok = v.(bool)
	return ok
}

func (*flag) wanted() string { return "true or false" }

func (s *span) read(v any, n *node) (ok bool) {
	s.line = n.line
	if s.integer, s.isInt = v.(int64); s.isInt {
		return true
	}
	s.text, ok = v.(string)
	return ok
}

func (*span) wanted() string { return `a duration: key = "36h"` }

// decoder fills tables, which are structs of the kinds above and of further tables, by their toml tags. Every value of a
// wrong type and every key that no tag names becomes a problem.
type decoder struct{ found *findings }

// table fills a struct. Its first field, Line, becomes the line of the header.
func (d decoder) table(path toml.Key, v any, n *node, into reflect.Value) {
	table, ok := v.(map[string]any)
	if !ok {
		d.wrongType(path, v, n, "a table: ["+path.String()+"]")
		return
	}
	into.Field(0).SetInt(int64(n.line))
	fields := fieldsOf(into.Type())
	for _, key := range slices.Sorted(maps.Keys(table)) {
		at := append(slices.Clip(path), key)
		before := len(d.found.problems)
		instead := ""
		if i, known := fields[key]; known {
			d.value(at, table[key], n.key(key), into.Field(i))
		} else {
			instead = d.unknown(at, n.key(key), fields)
		}
		if len(d.found.problems) > before {
			d.found.hide(n.line, at.String())
			d.found.hide(n.line, append(slices.Clip(path), instead).String())
		}
	}
}

func (d decoder) value(path toml.Key, v any, n *node, into reflect.Value) {
	if leaf, ok := into.Addr().Interface().(value); ok {
		if !leaf.read(v, n) {
			d.wrongType(path, v, n, strings.Replace(leaf.wanted(), "key", path[len(path)-1:].String(), 1))
			into.SetZero()
		}
		return
	}
	switch into.Kind() {
	case reflect.Map:
		d.named(path, v, n, into)
	case reflect.Slice:
		d.tables(path, v, n, into)
	default:
		d.table(path, v, n, into)
	}
}

// named fills a map of tables or lists by their names.
func (d decoder) named(path toml.Key, v any, n *node, into reflect.Value) {
	tables, ok := v.(map[string]any)
	ofTables := into.Type().Elem() != reflect.TypeFor[list]()
	want := "a table: [" + path.String() + ".NAME]"
	if !ofTables {
		want = "a table of arrays: " + path[len(path)-1] + ` = { "name" = ["value"] }`
	}
	if !ok {
		d.wrongType(path, v, n, want)
		return
	}
	into.Set(reflect.MakeMap(into.Type()))
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		elem := reflect.New(into.Type().Elem()).Elem()
		if _, ok := tables[name].(map[string]any); !ok && ofTables {
			d.wrongType(append(slices.Clip(path), name), tables[name], n.key(name), want)
			continue
		}
		d.value(append(slices.Clip(path), name), tables[name], n.key(name), elem)
		into.SetMapIndex(reflect.ValueOf(name), elem)
	}
}

// tables fills a slice from an array of tables.
func (d decoder) tables(path toml.Key, v any, n *node, into reflect.Value) {
	items, ok := v.([]map[string]any)
	if !ok {
		d.wrongType(path, v, n, "an array of tables: [["+path.String()+"]]")
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(items), len(items)))
	for i, item := range items {
		d.table(path, item, n.item(i), into.Index(i))
	}
}

func (d decoder) wrongType(path toml.Key, v any, n *node, want string) {
	// The item of a list is what is wrong, not the list.
	if items, ok := v.([]any); ok {
		for i, item := range items {
			if _, ok := item.(string); !ok && strings.HasPrefix(want, "an array of strings") {
				d.found.problem(n.item(i).line, path.String(), "holds %s, want %s", typeName(item), want)
				return
			}
		}
	}
	d.found.problem(n.line, path.String(), "is %s, want %s", typeName(v), want)
}

// unknown refuses a key and returns the one that was meant, if that is clear. The value may be a secret and is not shown.
func (d decoder) unknown(path toml.Key, n *node, fields map[string]int) (meant string) {
	key := path[len(path)-1]
	_, file := fields[key+"_file"]
	_, env := fields[key+"_env"]
	if file && env {
		d.found.problem(n.line, path.String(), "a secret does not belong into this file; "+
			"write it to a file of its own and name that with %s_file, or an environment variable with %s_env", key, key)
		return key + "_file"
	}
	known := slices.Sorted(maps.Keys(fields))
	if near := nearest(key, known); near != "" {
		d.found.problem(n.line, path.String(), "unknown key; did you mean %q?", near)
		return near
	}
	d.found.problem(n.line, path.String(), "unknown key; known here: %s", strings.Join(known, ", "))
	return ""
}

// fieldsOf returns the fields of a table by their keys.
func fieldsOf(t reflect.Type) map[string]int {
	fields := make(map[string]int)
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("toml"); key != "" {
			fields[key] = i
		}
	}
	return fields
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date"
	case []any:
		return "an array"
	case []map[string]any:
		return "an array of tables"
	default:
		return "a table"
	}
}

// nearest returns the known word that a mistyped one most likely means, or "".
func nearest(word string, known []string) string {
	best, least := "", max(1, len(word)/3)+1
	for _, k := range known {
		if d := distance(word, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance counts the bytes to insert, delete or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
