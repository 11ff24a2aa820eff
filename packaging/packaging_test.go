// Package packaging tries what stspub is shipped with, on the real tools, in the words of docs/deploy.md: the Dockerfile is built
// and run as the compose files say, with HAProxy and PostgreSQL beside it, and the systemd unit goes through systemd's own
// checks. What takes a Docker daemon, a running systemd or a cluster is compared with what it speaks of.
//
// Nothing is fetched but Go modules: stand-ins, made from this machine, take the place of the base images. The tests need
// root and the Debian packages that ./test names; where one is missing they fail.
package packaging_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// root is the repository.
const root = ".."

// run returns what a command prints on its standard output; it must succeed.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	stdout, stderr, err := try(cmd)
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, stdout, stderr)
	}
	return stdout
}

func try(cmd *exec.Cmd) (stdout, stderr string, err error) {
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}
