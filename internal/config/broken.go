package config

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
)

// GlanceStore returns the store that the configuration file at path names, with the keys that can be read, as far as can
// be told: the file may be broken or gone. What was accepted of it before is in that store. It is an error where the file
// names a store and cannot be understood in that: another one is not to be taken for it.
func GlanceStore(path string, env func(string) string) (Store, error) {
	l := glance(path)
	l.env = env
	if err := l.wrongIn("store"); err != nil {
		return Store{}, err
	}
	l.store()
	for _, p := range l.problems { // a secret that is not there shows when the store is opened
		if p.Key == "store.url" {
			return Store{}, p.Problem
		}
	}
	return l.cfg.Store, nil
}

// GlanceServer returns what the table [server] of the configuration file at path says, whatever is wrong in the others. The
// error is what is wrong in it. A certificate that cannot be read is no error.
func GlanceServer(path string) (Server, error) {
	l := glance(path)
	l.lenient = true
	l.server()
	return l.cfg.Server, l.wrongIn("server")
}

// AdminAddr returns where the admin listener is that the configuration file at path names, as far as can be told, as in
// [Server.Admin].
func AdminAddr(path string) string {
	l := glance(path)
	l.problems = nil
	addr := l.admin(l.doc.Server.Admin)
	if len(l.problems) > 0 {
		return defaultAdmin
	}
	return addr
}

// glance reads what of a file can be read. It notes what is wrong in the tables [server] and [store] and may have been
// meant, and of the rest maybe more.
func glance(path string) *loader {
	l := &loader{doc: new(document)}
	l.file = path
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return l
	}
	raw, err := readRegular(path)
	if err != nil {
		return l
	}
	l.dir = dir
	if doc := parse(string(raw), &l.findings); doc != nil {
		l.doc = doc
		return l
	}
	l.problems = nil
	if doc := parse(string(tableLines(raw, "server")), &l.findings); doc != nil {
		l.doc.Server = doc.Server
	} else {
		l.problem(1, "server", "is not understood; mend it")
	}
	if !l.doc.Server.Admin.given() {
		l.doc.Server.Admin = find(raw, "admin")
	}
	// There is one key each of these names, in [store] at least.
	l.doc.Store.URL = find(raw, "url")
	if !l.doc.Store.URL.given() && assigns(raw, "url") {
		l.problem(1, "store.url", "is not understood; mend it")
	}
	table := tableLines(raw, "store")
	l.doc.Store.PasswordFile, l.doc.Store.PasswordEnv = find(table, "password_file"), find(table, "password_env")
	l.doc.Store.KeyFile, l.doc.Store.KeyEnv = find(table, "key_file"), find(table, "key_env")
	for old := range bytes.SplitSeq(findList(table, "old_key_files"), []byte(",")) {
		if t := find(append([]byte("x="), old...), "x"); t.given() {
			l.doc.Store.OldKeyFiles.items = append(l.doc.Store.OldKeyFiles.items, t)
		}
	}
	return l
}

// wrongIn returns the first thing that is wrong in a table.
func (l *loader) wrongIn(table string) error {
	for _, p := range l.problems {
		if p.Key == table || strings.HasPrefix(p.Key, table+".") {
			return p.Problem
		}
	}
	return nil
}

// assigns says whether a line of a text that is no TOML assigns anything to a key.
func assigns(raw []byte, key string) bool {
	return regexp.MustCompile(`(?m)^[^#\n]*\b` + key + `\s*=`).Match(raw)
}

// find returns the first string that is assigned to a key in a line of a text that is no TOML.
func find(raw []byte, key string) text {
	pair := regexp.MustCompile(`(?m)^[^#\n]*\b` + key + `\s*=\s*["']([^"'\n]*)["']`)
	if m := pair.FindSubmatch(raw); m != nil {
		return text{v: string(m[1]), line: 1}
	}
	return text{}
}

// tableLines returns the lines of a table in a text that is no TOML, and those that set its keys from outside.
func tableLines(raw []byte, table string) []byte {
	var lines []byte
	top, inside := true, false
	for line := range bytes.Lines(raw) {
		text := bytes.TrimSpace(line)
		if bytes.HasPrefix(text, []byte("[")) {
			top, inside = false, bytes.HasPrefix(text, []byte("["+table+"]"))
		}
		if inside || top && (bytes.HasPrefix(text, []byte(table+".")) || bytes.HasPrefix(text, []byte(table+" "))) {
			lines = append(lines, line...)
		}
	}
	return lines
}

// findList returns what stands between the brackets of the first list that is assigned to a key.
func findList(raw []byte, key string) []byte {
	pair := regexp.MustCompile(`(?ms)^[^#\n]*\b` + key + `\s*=\s*\[([^\]]*)\]`)
	if m := pair.FindSubmatch(raw); m != nil {
		return m[1]
	}
	return nil
}
