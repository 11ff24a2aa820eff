package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// buildOff builds the program with a clock that is ahead of the machine's, by as much as its environment says.
func buildOff(t *testing.T) string {
	t.Helper()
	replace := make(map[string]string)
	for _, file := range []string{"clock.go", "clock_" + runtime.GOARCH + ".s"} {
		from, err := filepath.Abs(filepath.Join("testdata/clock", file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(from); err != nil {
			t.Fatalf("%v: write what clock_amd64.s is for this machine", err)
		}
		to, err := filepath.Abs(filepath.Join("../../cmd/stspub", file))
		if err != nil {
			t.Fatal(err)
		}
		replace[to] = from
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	list, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "stspub")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	// The linker keeps others from the inside of the runtime. A clock behind may be before the commit, which would end the start.
	if err := build(program, "-overlay", list, "-ldflags=-checklinkname=0", "-buildvcs=false"); err != nil {
		t.Fatal(err)
	}
	return program
}

// TestNodesWithClocksApart runs three nodes, one of them with a clock that is ahead, and one with a clock that is a little
// behind: 5 minutes lie between them, more than a lease is long. The database has the time for all. A DNS server refuses what
// was signed more than 5 minutes before or after (RFC 8945, Section 10), and a certificate that has just come is not valid yet
// for who is behind.
func TestNodesWithClocksApart(t *testing.T) {
	t.Parallel()
	const apart, behind = 5 * time.Minute, 15 * time.Second
	f := newFleet(t, "Knot", 3)
	off := map[*member]time.Duration{f.members[1]: apart - behind, f.members[2]: -behind}
	program := buildOff(t)
	for m, by := range off {
		m.program, m.env = program, []string{"STSPUB_E2E_AHEAD=" + by.String()}
	}
	f.grace = 2 * apart // a busy machine may miss heartbeats, and no record is to be tainted by that
	f.cluster.change("mx1.provider.test")
	f.start(f.members...)
	for m, by := range off {
		f.isAhead(m, by)
	}
	f.enter()
	f.begin(func() {})
	for range 3 {
		f.change()
		f.live(patience, 0)
	}
	// Records are being written, and nobody answers. Whoever went by a clock of his own would take them for abandoned.
	f.api.set(stuck)
	from := f.logged()
	f.change()
	f.workerSince(from, `"msg":"domain rests"`, `"step":"settle"`)
	begun := time.Now()
	f.until("20 s", patience, func() (bool, string) { return time.Since(begun) > 20*time.Second, "" })
	f.api.set(open)
	f.live(2*patience, 0)

	for _, m := range f.members {
		f.until("no fault at "+m.name, patience, func() (bool, string) {
			faults, err := m.admin.Faults(t.Context())
			if off[m] < 0 {
				delete(faults, "clock") // certificates of this authority begin when they are made, those of public ones before
			}
			return err == nil && len(faults) == 0, fmt.Sprint(faults, err)
		})
		o, err := m.admin.Certificates(t.Context())
		if err != nil || o.Valid != f.domains()+1 {
			t.Errorf("certificates at %s: %+v, %v", m.name, o, err)
		}
	}
	if got, want := f.audit(), f.domains()*(f.rounds+1); got != want {
		t.Errorf("%d publications, want %d", got, want)
	}
	f.auditIDs()
}

// isAhead sees that the clock of a node is what it is to be, by its log.
func (f *fleet) isAhead(m *member, by time.Duration) {
	f.t.Helper()
	line, _, _ := strings.Cut(m.run.said(), "\n")
	var entry struct{ Time time.Time }
	err := json.Unmarshal([]byte(line), &entry)
	if off := time.Until(entry.Time) - by; err != nil || off > time.Second || off < -patience {
		f.t.Fatalf("the clock of %s is ahead by %s, want %s: %v\n%s", m.name, time.Until(entry.Time), by, err, line)
	}
}

// auditIDs sees that ids were made once for each policy, in their order, and by the time of the database.
func (f *fleet) auditIDs() {
	f.t.Helper()
	for domain, record := range f.aliased {
		ids, err := f.books().IDs(f.t.Context(), record)
		if err != nil || len(ids) != f.rounds+1 {
			f.t.Errorf("%s: %d ids, %v, want one for each of %d policies", domain, len(ids), err, f.rounds+1)
		}
		for i, id := range ids { // newest first
			at := policygen.IDTime(id.ID)
			if time.Until(at) > time.Minute || i > 0 && policygen.IDTime(ids[i-1].ID).Before(at) {
				f.t.Errorf("%s: id %s came before %s", domain, id.ID, ids[max(i-1, 0)].ID)
			}
		}
	}
}
