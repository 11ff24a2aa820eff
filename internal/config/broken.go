package config

import (
	"bytes"
	"path/filepath"
	"regexp"
)

// GlanceStore returns the store that the configuration file at path names, with the keys that can be read, as far as can
// be told: the file may be broken or gone. What was accepted of it before is in that store.
func GlanceStore(path string, env func(string) string) Store {
	l := glance(path)
	l.env = env
	l.store()
	return l.cfg.Store
}

// AdminAddr returns where the admin listener is that the configuration file at path names, as far as can be told, as in
// [Server.Admin].
func AdminAddr(path string) string {
	l := glance(path)
	addr := l.admin(l.doc.Server.Admin)
	if len(l.problems) > 0 {
		return defaultAdmin
	}
	return addr
}

// glance reads what of a file can be read, and finds nothing wrong.
func glance(path string) *loader {
	l := &loader{doc: new(document)}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return l
	}
	raw, err := readRegular(path)
	if err != nil {
		return l
	}
	l.dir = dir
	if doc := parse(string(raw), new(findings)); doc != nil {
		l.doc = doc
		return l
	}
	// No TOML. But there is one key each of these names, in [store] at least.
	l.doc.Store.URL = find(raw, "url")
	table := storeLines(raw)
	l.doc.Store.PasswordFile, l.doc.Store.PasswordEnv = find(table, "password_file"), find(table, "password_env")
	l.doc.Store.KeyFile, l.doc.Store.KeyEnv = find(table, "key_file"), find(table, "key_env")
	for old := range bytes.SplitSeq(findList(table, "old_key_files"), []byte(",")) {
		if t := find(append([]byte("x="), old...), "x"); t.given() {
			l.doc.Store.OldKeyFiles.items = append(l.doc.Store.OldKeyFiles.items, t)
		}
	}
	l.doc.Server.Admin = find(raw, "admin")
	return l
}

// find returns the first string that is assigned to a key in a line of a text that is no TOML.
func find(raw []byte, key string) text {
	pair := regexp.MustCompile(`(?m)^[^#\n]*\b` + key + `\s*=\s*["']([^"'\n]*)["']`)
	if m := pair.FindSubmatch(raw); m != nil {
		return text{v: string(m[1]), line: 1}
	}
	return text{}
}

// storeLines returns the lines of [store] in a text that is no TOML, and those that set its keys from outside.
func storeLines(raw []byte) []byte {
	var lines []byte
	inside := false
	for line := range bytes.Lines(raw) {
		text := bytes.TrimSpace(line)
		if bytes.HasPrefix(text, []byte("[")) {
			inside = bytes.HasPrefix(text, []byte("[store]"))
		}
		if inside || bytes.HasPrefix(text, []byte("store.")) || bytes.HasPrefix(text, []byte("store ")) {
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
