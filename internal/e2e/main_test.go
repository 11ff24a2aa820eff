package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/stspub/stspub/internal/lab"
)

// binaryDir is where TestMain puts the program; the tests get it by the environment, as the programs that they start do.
const binaryDir = "STSPUB_E2E_BIN"

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run builds the program once, and runs the tests. What Pebble reads from the environment is set before it starts.
func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "stspub-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	// A test starts it as another user.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	env := lab.CAEnviron()
	env[binaryDir] = dir
	for name, value := range env {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	if err := build(filepath.Join(dir, "stspub")); err != nil {
		return 0, err
	}
	// The stories mostly wait. Two at a time, as on a machine with two cores, they would take a quarter of an hour. A flag
	// -parallel is parsed later, and wins.
	if err := flag.Set("test.parallel", "16"); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// build builds the program as the tests are built, so that what they share is built once.
func build(path string, args ...string) error {
	args = append([]string{"build", "-o", path}, args...)
	if raceDetector() {
		// SQLite is C translated to Go: looking for races in it takes time, and finds none of ours.
		const translated = "-race=false -d=checkptr=0"
		args = append(args, "-race", "-gcflags=modernc.org/sqlite/lib="+translated, "-gcflags=modernc.org/libc/...="+translated)
	}
	if out, err := exec.Command("go", append(args, "../../cmd/stspub")...).CombinedOutput(); err != nil {
		return fmt.Errorf("build stspub: %w\n%s", err, out)
	}
	return nil
}

// raceDetector says whether the tests were built with it; then so is the program.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

func binary() string { return filepath.Join(os.Getenv(binaryDir), "stspub") }
