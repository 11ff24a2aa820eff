package config

import (
	"path/filepath"
	"regexp"
)

// StorePath returns where the store is that the configuration file at path names, as far as can be told: the file may be
// broken or gone. What was accepted of it before is in that store.
func StorePath(path string) string {
	l := glance(path)
	l.store()
	return l.cfg.Store.Path
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
	// No TOML. But there is one key each of these names.
	l.doc.Store.URL = find(raw, "url")
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
