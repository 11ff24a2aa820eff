package config

import (
	"crypto/tls"
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

// secret reads the secret of a table, as in "account.main" and "api_token", from a file or the environment, and has check,
// if there is one, look at it. It returns "" if there is none, after a problem or not: see given. A lenient loader returns
// why in place of noting a problem.
//
// What stands in the two keys is shown only when it is surely no secret itself, by mistake.
func (l *loader) secret(table, name string, file, env text, check func(Secret) error) (secret Secret, fault string) {
	key, line := table+"."+name+"_file", file.line
	var err error
	switch {
	case file.given() && env.given():
		l.problem(max(file.line, env.line), table+"."+name+"_env", "%s_file and %s_env are both given; leave one out", name, name)
		return "", ""
	case file.given():
		secret, err = l.secretFile(key, file)
	case env.given():
		key, line = table+"."+name+"_env", env.line
		secret, err = l.secretEnv(env)
	default:
		return "", ""
	}
	if err == nil && check != nil {
		err = check(secret)
	}
	if err != nil {
		return "", l.lacking(line, key, err)
	}
	return secret, ""
}

// lacking notes that something beside the configuration's own files is not as it should be. To a lenient loader that is
// a warning, which it returns.
func (l *loader) lacking(line int, key string, err error) (fault string) {
	if !l.lenient {
		l.problem(line, key, "%v", err)
		return ""
	}
	l.warn(line, key, "%v", err)
	return l.here(line, key, "%v", err).Error()
}

func (l *loader) secretFile(key string, t text) (Secret, error) {
	path := l.path(t.v)
	info, err := os.Stat(path) // before it is opened: opening a pipe waits
	switch {
	case t.v == "" || errors.Is(err, fs.ErrNotExist):
		return "", errors.New("there is no such file; write the path of the file that holds the secret")
	case err != nil:
		return "", fmt.Errorf("find this file: %s", cause(err))
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%q is no regular file; write the path of the file that holds the secret", t.v)
	case info.Size() > maxSecret:
		return "", fmt.Errorf("file %q is too large for a secret; at most %d bytes", t.v, maxSecret)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read %q: %s", t.v, cause(err))
	}
	if info.Mode().Perm()&0o004 != 0 { // a group of the service's own is the normal case
		l.warn(t.line, key, "everybody on this machine can read %q; chmod 600 it", t.v)
	}
	return trimmed(string(content), fmt.Sprintf("file %q", t.v))
}

func (l *loader) secretEnv(t text) (Secret, error) {
	content := l.env(t.v)
	shown := "this environment variable"
	if regexp.MustCompile(`^[A-Z][A-Z_]*$`).MatchString(t.v) {
		shown = "environment variable " + t.v
	}
	if content == "" {
		return "", fmt.Errorf("%s is not set or empty; set it to the secret", shown)
	}
	return trimmed(content, shown)
}

// trimmed returns a secret without what editors put around it, and refuses what is none.
func trimmed(content, origin string) (Secret, error) {
	secret := strings.TrimSpace(content)
	switch {
	case secret == "":
		return "", fmt.Errorf("%s is empty; write the secret into it", origin)
	case strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("%s holds more than a secret; write nothing but one line of ASCII without spaces", origin)
	}
	return Secret(secret), nil
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

// checkKeyPair says why two PEM files are no certificate and its key. What crypto/tls says of them quotes neither.
func checkKeyPair(certPath, keyPath string) error {
	certPEM, err := readRegular(certPath)
	if err != nil {
		return fmt.Errorf("read %q: %s", certPath, cause(err))
	}
	keyPEM, err := readRegular(keyPath)
	if err != nil {
		return fmt.Errorf("read %q: %s", keyPath, cause(err))
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return fmt.Errorf("%q and %q are no certificate with its key, in PEM: %s", certPath, keyPath, strings.TrimPrefix(err.Error(), "tls: "))
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
