package config

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// Load reads the configuration file at path, the domains files and secrets that it names, and returns what they say.
// Relative paths in it start at the folder it is in. The environment is asked through env, which is [os.Getenv] but in
// tests.
//
// The error is that of reading the file, or all mistakes joined in the order of the file, each a [Problem]. Warnings, in
// the same order, come with either. Neither holds a secret.
func Load(path string, env func(string) string) (*Config, []Warning, error) {
	l := &loader{env: env, readFile: readRegular}
	return l.load(path)
}

// LoadUnlessKnown is [Load] for a start, which a million names to check would hold up. When all but they is read, and right,
// known is asked, by Digest and Store, whether they are those that were taken last. If so they are Unread.
func LoadUnlessKnown(path string, env func(string) string, known func(*Config) bool) (*Config, []Warning, error) {
	l := &loader{env: env, readFile: readRegular, known: known}
	return l.load(path)
}

// LoadFiles is [Load] with another source of the configuration file and the domains files: those of an earlier
// [Config.Files], while the files themselves are broken or gone. What was served then is to be served again, so it is
// lenient about what serving does without: secrets and CA certificates are read from disk all the same, and one that is
// gone or no good is a warning. The account is then without its secret and says why in [Account.Fault], and the
// system's CA certificates are the trust.
func LoadFiles(path string, env func(string) string, read func(path string) ([]byte, error)) (*Config, []Warning, error) {
	l := &loader{env: env, readFile: read, lenient: true}
	return l.load(path)
}

// loader makes a Config of a document. What it finds wrong it notes, and goes on.
type loader struct {
	findings
	dir      string // of the configuration file, absolute
	env      func(string) string
	readFile func(path string) ([]byte, error)
	lenient  bool               // see LoadFiles
	known    func(*Config) bool // see LoadUnlessKnown; may be nil
	doc      *document
	digest   hash.Hash
	lists    map[string][]byte // content of the domains files that could be read, by MX set
	cfg      Config
}

func (l *loader) load(path string) (*Config, []Warning, error) {
	raw, err := l.readFile(path)
	if err != nil {
		if at, ok := errors.AsType[*fs.PathError](err); ok {
			err = at.Err // the path once is enough
		}
		return nil, nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	l.file, l.dir, l.digest = path, dir, sha256.New()
	l.keep(path, raw)
	l.doc = parse(string(raw), &l.findings)
	if l.doc != nil {
		l.check()
	}
	l.cfg.Digest = l.digested()
	if err := l.err(); err != nil {
		return nil, l.sortedWarnings(), err
	}
	return &l.cfg, l.sortedWarnings(), nil
}

// check fills cfg. Later tables refer to earlier ones.
func (l *loader) check() {
	l.server()
	l.store()
	l.dns()
	l.acme()
	l.accounts()
	l.alias()
	l.timing()
	l.mxsets()
	l.readLists()
	if l.known != nil && len(l.problems) == 0 {
		l.cfg.Digest = l.digested()
		if l.cfg.Unread = l.known(&l.cfg); l.cfg.Unread {
			return
		}
	}
	l.domains()
}

// digested is the digest of what was kept.
func (l *loader) digested() string { return hex.EncodeToString(l.digest.Sum(nil)) }

// keep keeps a file's content, and adds it to the digest. Its length before it keeps two files from passing for two
// others.
func (l *loader) keep(path string, content []byte) {
	if l.cfg.Files == nil {
		l.cfg.Files = make(map[string][]byte)
	}
	l.cfg.Files[path] = content
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(len(content)))
	l.digest.Write(size[:])
	l.digest.Write(content)
}

// path returns a path of the file as an absolute one.
func (l *loader) path(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(l.dir, p)
}

// parse returns the document that a TOML text holds, or nil if it is no TOML. Unknown keys and wrong types are problems,
// and left out of the document.
func parse(raw string, found *findings) *document {
	raw = strings.TrimPrefix(raw, "\ufeff")
	if strings.HasPrefix(raw, "\xff\xfe") || strings.HasPrefix(raw, "\xfe\xff") {
		found.problem(1, "TOML syntax", "the file is UTF-16, save it as UTF-8")
		return nil
	}
	tree, err := decodeTOML(raw)
	if err != nil {
		line, why := syntaxError(err)
		found.problem(line, "TOML syntax", "%s", why)
		return nil
	}
	var doc document
	decoder{found}.table(nil, tree, locate(raw), reflect.ValueOf(&doc).Elem())
	return &doc
}

// decodeTOML returns the values of a TOML text. The library panics where it finds itself to be wrong; that must not
// end a server that reloads.
func decodeTOML(raw string) (tree map[string]any, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the TOML library fails on this file")
		}
	}()
	_, err = toml.Decode(raw, &tree)
	if tree == nil {
		tree = map[string]any{}
	}
	return tree, err
}

// syntaxError returns the place and the words of the library's error without what they quote of the file beyond a single
// sign: it may be a part of a secret.
func syntaxError(err error) (line int, why string) {
	var perr toml.ParseError
	if !errors.As(err, &perr) {
		return 1, err.Error()
	}
	why = strings.TrimSuffix(perr.Message, ".")
	if strings.HasPrefix(why, "Key '") {
		return perr.Position.Line, "k" + why[1:] + "; a key or table stands once"
	}
	if strings.Contains(why, "out of range") {
		return perr.Position.Line, "a number is out of range"
	}
	quoted := regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)
	why = quoted.ReplaceAllStringFunc(why, func(q string) string {
		if strings.ContainsFunc(q, isWordRune) && len(q) > len(`'\n'`) || len(q) > len(`'""""""'`) {
			return "something else"
		}
		return q
	})
	if strings.HasPrefix(why, "expected value but found") {
		why += `; a string stands in quotes: key = "value"`
	}
	return perr.Position.Line, strings.ToLower(why[:1]) + why[1:]
}

func isWordRune(r rune) bool {
	return r > '~' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}
