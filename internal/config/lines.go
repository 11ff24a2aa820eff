package config

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// node is where a TOML value stands: the line of its key, its table header or, in an array, of the item itself. The TOML
// library knows positions only while it parses, and of tables in an array only the last, so they are found once more.
type node struct {
	line  int
	keys  map[string]*node // of a table
	items []*node          // of an array
}

// key returns the node of a key in a table.
func (n *node) key(name string) *node {
	if c := n.keys[name]; c != nil {
		return c
	}
	return &node{line: n.line}
}

// item returns the node of an array's item.
func (n *node) item(i int) *node {
	if i < len(n.items) {
		return n.items[i]
	}
	return &node{line: n.line}
}

// child returns the node of a key and makes it if it is not there.
func (n *node) child(name string, line int) *node {
	if n.keys == nil {
		n.keys = make(map[string]*node)
	}
	c := n.keys[name]
	if c == nil {
		c = &node{line: line}
		n.keys[name] = c
	}
	return c
}

// open returns the table at the end of path; within an array of tables it is that of the last item.
func (n *node) open(path []string, line int) *node {
	for _, name := range path {
		n = n.child(name, line)
		if len(n.items) > 0 {
			n = n.items[len(n.items)-1]
		}
	}
	return n
}

// locate returns the places of all values of a TOML document that the library has found to be valid. On any other it
// ends as well, with places of no meaning.
func locate(text string) *node {
	s := &scanner{text: text, line: 1}
	root := &node{line: 1}
	table := root
	for s.skip(); !s.end(); s.skip() {
		start := s.pos
		if s.at("[") {
			table = s.header(root)
		} else {
			s.pair(table)
		}
		if s.pos == start {
			break
		}
	}
	return root
}

// scanner walks over valid TOML. It knows where things begin and end, not what they mean.
type scanner struct {
	text    string
	pos     int
	line    int // of counted
	counted int
}

func (s *scanner) end() bool { return s.pos >= len(s.text) }

func (s *scanner) at(prefix string) bool { return strings.HasPrefix(s.text[s.pos:], prefix) }

// take moves over prefix if it is next.
func (s *scanner) take(prefix string) bool {
	if !s.at(prefix) {
		return false
	}
	s.pos += len(prefix)
	return true
}

// here returns the line of the next byte.
func (s *scanner) here() int {
	s.line += strings.Count(s.text[s.counted:s.pos], "\n")
	s.counted = s.pos
	return s.line
}

// until moves to the next byte that is one of set, or to the end.
func (s *scanner) until(set string) {
	if i := strings.IndexAny(s.text[s.pos:], set); i >= 0 {
		s.pos += i
	} else {
		s.pos = len(s.text)
	}
}

func (s *scanner) blanks() {
	for !s.end() && (s.text[s.pos] == ' ' || s.text[s.pos] == '\t') {
		s.pos++
	}
}

// skip moves over blanks, line ends and comments.
func (s *scanner) skip() {
	for !s.end() {
		switch s.text[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		case '#':
			s.until("\n")
		default:
			return
		}
	}
}

// header reads [path] or [[path]] and returns the table that begins.
func (s *scanner) header(root *node) *node {
	line := s.here()
	array := s.take("[[")
	if !array {
		s.take("[")
	}
	path := s.path()
	s.until("\n#")
	last := len(path) - 1
	parent := root.open(path[:last], line)
	table := parent.child(path[last], line)
	if array {
		table.items = append(table.items, &node{line: line})
		return table.items[len(table.items)-1]
	}
	table.line = line
	return table
}

// pair reads path = value into a table.
func (s *scanner) pair(table *node) {
	line := s.here()
	path := s.path()
	s.take("=")
	s.blanks()
	s.value(table.open(path, line))
}

// path reads a dotted key of at least one part.
func (s *scanner) path() []string {
	var path []string
	for {
		s.blanks()
		path = append(path, s.name())
		s.blanks()
		if !s.take(".") {
			return path
		}
	}
}

// name reads one part of a key.
func (s *scanner) name() string {
	start := s.pos
	if s.at(`"`) || s.at("'") {
		s.quoted()
		return unquote(s.text[start:s.pos])
	}
	s.until(" \t\r\n.=]#,{}[\"'")
	return s.text[start:s.pos]
}

// unquote returns what a quoted key says.
func unquote(quoted string) string {
	var v struct{ K string }
	if _, err := toml.Decode("K = "+quoted, &v); err != nil {
		return quoted
	}
	return v.K
}

// value reads a value that stands at n.
func (s *scanner) value(n *node) {
	switch {
	case s.take("["):
		s.array(n)
	case s.take("{"):
		s.inline(n)
	case s.at(`"`), s.at("'"):
		s.quoted()
	default:
		s.until(",]}#\n")
	}
}

func (s *scanner) array(n *node) {
	for s.skip(); !s.end() && !s.take("]"); s.skip() {
		item := &node{line: s.here()}
		n.items = append(n.items, item)
		start := s.pos
		s.value(item)
		s.skip()
		s.take(",")
		if s.pos == start {
			return
		}
	}
}

func (s *scanner) inline(n *node) {
	for s.skip(); !s.end() && !s.take("}"); s.skip() {
		start := s.pos
		s.pair(n)
		s.skip()
		s.take(",")
		if s.pos == start {
			return
		}
	}
}

// quoted moves over a string of any of the four kinds.
func (s *scanner) quoted() {
	quote := s.text[s.pos : s.pos+1]
	escapes := quote == `"`
	if s.take(quote + quote + quote) {
		s.close(quote+quote+quote, escapes)
		// Up to two quotes before the closing three belong to the string.
		for i := 0; i < 2 && s.take(quote); i++ {
			continue
		}
		return
	}
	s.take(quote)
	s.close(quote, escapes)
}

// close moves behind the next delimiter.
func (s *scanner) close(delimiter string, escapes bool) {
	for !s.end() && !s.take(delimiter) {
		if escapes && s.text[s.pos] == '\\' {
			s.pos++
		}
		s.pos++
	}
	s.pos = min(s.pos, len(s.text))
}
