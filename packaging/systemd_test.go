package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	unit    = "stspub.service"
	program = "/usr/local/bin/stspub" // of the unit
)

// TestUnit has systemd itself look for mistakes in the unit. A setting that systemd does not know is one.
func TestUnit(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Verifying wants the program to be there.
	text := strings.ReplaceAll(read(t, unit), program, self)
	if !strings.Contains(text, self) {
		t.Fatalf("%s does not start %s", unit, program)
	}
	copied := filepath.Join(t.TempDir(), unit)
	write(t, copied, text, 0o644)
	verify := exec.Command("systemd-analyze", "verify", copied)
	if stdout, stderr, err := try(verify); err != nil || stdout+stderr != "" {
		t.Errorf("systemd-analyze verify: %v\n%s%s", err, stdout, stderr)
	}
}

// TestUnitExposure holds the unit to what systemd calls its exposure, from 0 to 10: what is left is that the service is
// on the network, and may open ports 80 and 443.
func TestUnitExposure(t *testing.T) {
	const tenths = "15"
	run(t, exec.Command("systemd-analyze", "security", "--offline=true", "--threshold="+tenths, unit))
}

// unitCommands are the arguments of the commands that the unit runs.
func unitCommands(t *testing.T) [][]string {
	t.Helper()
	var commands [][]string
	for line := range strings.Lines(read(t, unit)) {
		key, command, found := strings.Cut(strings.TrimSpace(line), "="+program+" ")
		if found && strings.HasPrefix(key, "Exec") {
			commands = append(commands, strings.Fields(command))
		}
	}
	if len(commands) != 2 {
		t.Fatalf("%s: commands %q, want those to start and to reload", unit, commands)
	}
	return commands
}
