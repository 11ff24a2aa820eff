package packaging_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// deploy is the document whose commands are run, and backingUp its last section.
const (
	deploy    = root + "/docs/deploy.md"
	backingUp = "## Back up the store, and put a copy back"
)

// section returns the blocks of a language below a header of docs/deploy.md, until the next header.
func section(t *testing.T, header, language string) []string {
	t.Helper()
	_, rest, found := strings.Cut(read(t, deploy), "\n"+header+"\n")
	if !found {
		t.Fatalf("%s has no %q", deploy, header)
	}
	if next := regexp.MustCompile(`(?m)^##+ `).FindStringIndex(rest); next != nil {
		rest = rest[:next[0]]
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(rest, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// docker runs what docs/deploy.md says in a checkout, on podman (see testdata/docker).
type docker struct {
	e        *engine
	checkout string
	path     string // with the program docker in it
	services string
}

func newDocker(t *testing.T, e *engine, checkout string) *docker {
	t.Helper()
	d := &docker{e: e, checkout: checkout, path: t.TempDir(), services: t.TempDir()}
	write(t, filepath.Join(d.path, "docker"), read(t, "testdata/docker"), 0o755)
	return d
}

// provide says how a service is run, after those that were provided before.
func (d *docker) provide(t *testing.T, s types.ServiceConfig, image string, args []string) {
	t.Helper()
	lines := func(l []string) string { return strings.Join(append(slices.Clone(l), ""), "\n") }
	write(t, filepath.Join(d.services, s.Name+".args"), lines(append(args, image)), 0o644)
	write(t, filepath.Join(d.services, s.Name+".command"), lines(s.Command), 0o644)
	write(t, filepath.Join(d.services, s.Name+".needs"), lines(slices.Sorted(maps.Keys(s.DependsOn))), 0o644)
	order, err := os.OpenFile(filepath.Join(d.services, "order"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = order.WriteString(s.Name + "\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := order.Close(); err != nil {
		t.Fatal(err)
	}
}

// sh runs a block of commands, which must all succeed, and returns what they print.
func (d *docker) sh(t *testing.T, block, input string) string {
	t.Helper()
	cmd := exec.Command("bash", "-eu", "-c", block)
	cmd.Dir, cmd.Stdin = d.checkout, strings.NewReader(input)
	cmd.Env = append(slices.Clone(d.e.env), "PATH="+d.path+":"+os.Getenv("PATH"), "SERVICES="+d.services, "ENGINE="+d.e.dir)
	return run(t, cmd)
}
