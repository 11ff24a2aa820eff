package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

// Secret is a value that does not print, by whatever verb. Convert it to a string to use it.
type Secret string

// hidden is what is shown of a secret.
const hidden = "[secret]"

// String hides the secret.
func (Secret) String() string { return hidden }

// Format hides the secret from verbs that do not ask for a string.
func (Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, hidden) }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// maxSecret is far above any token, and below what a wrong path may lead to.
const maxSecret = 16 << 10

// secret reads the secret of a table, as in "account.main" and "api_token", from a file or the environment. It returns
// "" if there is none, after a problem or not: see given.
//
// What stands in the two keys is shown only when it is surely no secret itself, by mistake.
func (l *loader) secret(table, name string, file, env text) Secret {
	fileKey, envKey := table+"."+name+"_file", table+"."+name+"_env"
	switch {
	case file.given() && env.given():
		l.problem(max(file.line, env.line), envKey, "%s_file and %s_env are both given; leave one out", name, name)
	case file.given():
		return l.secretFile(fileKey, file)
	case env.given():
		return l.secretEnv(envKey, env)
	}
	return ""
}

func (l *loader) secretFile(key string, t text) Secret {
	path := l.path(t.v)
	info, err := os.Stat(path) // before it is opened: opening a pipe waits
	switch {
	case t.v == "" || errors.Is(err, fs.ErrNotExist):
		l.problem(t.line, key, "there is no such file; write the path of the file that holds the secret")
		return ""
	case err != nil:
		l.problem(t.line, key, "find this file: %s", cause(err))
		return ""
	case !info.Mode().IsRegular():
		l.problem(t.line, key, "%q is no regular file; write the path of the file that holds the secret", t.v)
		return ""
	case info.Size() > maxSecret:
		l.problem(t.line, key, "file %q is too large for a secret; at most %d bytes", t.v, maxSecret)
		return ""
	}
	content, err := os.ReadFile(path)
	if err != nil {
		l.problem(t.line, key, "read %q: %s", t.v, cause(err))
		return ""
	}
	if info.Mode().Perm()&0o004 != 0 { // a group of the service's own is the normal case
		l.warn(t.line, key, "everybody on this machine can read %q; chmod 600 it", t.v)
	}
	return l.trimmed(key, t.line, string(content), fmt.Sprintf("file %q", t.v))
}

func (l *loader) secretEnv(key string, t text) Secret {
	content := l.env(t.v)
	shown := "this environment variable"
	if regexp.MustCompile(`^[A-Z][A-Z_]*$`).MatchString(t.v) {
		shown = "environment variable " + t.v
	}
	if content == "" {
		l.problem(t.line, key, "%s is not set or empty; set it to the secret", shown)
		return ""
	}
	return l.trimmed(key, t.line, content, shown)
}

// trimmed returns a secret without what editors put around it, and refuses what is none.
func (l *loader) trimmed(key string, line int, content, origin string) Secret {
	secret := strings.TrimSpace(content)
	switch {
	case secret == "":
		l.problem(line, key, "%s is empty; write the secret into it", origin)
		return ""
	case strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }):
		l.problem(line, key, "%s holds more than a secret; write nothing but one line of ASCII without spaces", origin)
		return ""
	}
	return Secret(secret)
}

// checkCAFile says why a file cannot serve as trust.
func checkCAFile(path string) error {
	pem, err := readRegular(path)
	if err != nil {
		return fmt.Errorf("read %q: %s", path, cause(err))
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return fmt.Errorf("%q holds no certificate; write CA certificates into it, as PEM", path)
	}
	return nil
}

// cause returns the system's words for what went wrong with a file, without the path.
func cause(err error) string {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err.Error()
	}
	return err.Error()
}
