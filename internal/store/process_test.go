package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// The test binary is also the second process: what it does then is in this variable, to the file in childPath.
const (
	childMode = "STSPUB_STORE_TEST_CHILD"
	childPath = "STSPUB_STORE_TEST_PATH"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "hold":
		hold(os.Getenv(childPath))
	case "write":
		fmt.Println("end:", write(context.Background(), os.Getenv(childPath)))
	default:
		os.Exit(m.Run())
	}
}

// hold opens the store until standard input ends.
func hold(path string) {
	s, err := store.OpenSQLite(context.Background(), path)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Println(s.Close())
}

// child is this program as a second process.
type child struct {
	*exec.Cmd
	in  io.Closer
	out *bufio.Scanner
}

// start starts a second process, as user id 65534 if it is to be nobody and we are root.
func start(t *testing.T, mode, path string, nobody bool) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe") // reached where its directory is closed to others
	cmd.Env = append(os.Environ(), childMode+"="+mode, childPath+"="+path)
	cmd.Stderr = t.Output()
	if nobody && os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return &child{Cmd: cmd, in: in, out: bufio.NewScanner(out)}
}

// line returns the next line that the child prints.
func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.out.Scan() {
		t.Fatalf("the child said nothing more: %v", c.out.Err())
	}
	return c.out.Text()
}

// kill ends the child with SIGKILL, and returns what it still said.
func (c *child) kill(t *testing.T) []string {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var rest []string
	for c.out.Scan() {
		rest = append(rest, c.out.Text())
	}
	if err := c.Wait(); err == nil {
		t.Fatal("the child ended before it was killed")
	}
	return rest
}

func lockedError(path string, pid int) string {
	return fmt.Sprintf("open store %q: in use by another process (pid %d): end that one, or set another [store] url", path, pid)
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	s := open(t, path)
	declare(t, s, 1)
	if got, want := start(t, "hold", path, false).line(t), lockedError(path, os.Getpid()); got != want {
		t.Errorf("second process:\n got %s\nwant %s", got, want)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("first process afterwards: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	c := start(t, "hold", path, false)
	if got := c.line(t); got != "open" {
		t.Fatalf("second process after Close: %s", got)
	}
	_, err := store.OpenSQLite(t.Context(), path)
	if want := lockedError(path, c.Process.Pid); !errors.Is(err, store.ErrLocked) || err.Error() != want {
		t.Errorf("while the second process has it:\n got %v\nwant %s", err, want)
	}
	if err := c.in.Close(); err != nil {
		t.Fatal(err)
	}
	if got := c.line(t); got != "<nil>" {
		t.Errorf("second process closes: %s", got)
	}
	if _, err := open(t, path).Domain(t.Context(), "d000000.example"); err != nil {
		t.Error(err)
	}
}

func TestLockEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	c := start(t, "hold", path, false)
	if got := c.line(t); got != "open" {
		t.Fatal(got)
	}
	c.kill(t)
	open(t, path)
}

func TestNotWritable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	uid := os.Geteuid()
	if uid == 0 {
		uid = 65534
	}
	mode := func(path string, m os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
	}
	mode(filepath.Dir(dir), 0o755) // for the other user to come here at all
	closed, opened := filepath.Join(dir, "closed"), filepath.Join(dir, "opened")
	for _, d := range []string{closed, opened} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := open(t, filepath.Join(d, "there.db")).Close(); err != nil {
			t.Fatal(err)
		}
	}
	mode(filepath.Join(opened, "there.db"), 0o400)
	mode(filepath.Join(opened, "there.db.lock"), 0o666)
	mode(filepath.Join(closed, "there.db.lock"), 0o400)
	mode(closed, 0o555)
	mode(opened, 0o777)
	defer mode(closed, 0o755)

	for _, c := range []struct{ path, open string }{
		{filepath.Join(closed, "new.db"), filepath.Join(closed, "new.db")},
		{filepath.Join(closed, "there.db"), filepath.Join(closed, "there.db.lock")},
		{filepath.Join(opened, "there.db"), filepath.Join(opened, "there.db")},
	} {
		want := fmt.Sprintf("open store %q: open %s: permission denied: let user id %d write to directory %q and the files in it",
			c.path, c.open, uid, filepath.Dir(c.path))
		if got := start(t, "hold", c.path, true).line(t); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.path, got, want)
		}
	}
}

// writeText is the policy text that goes with an id. It is longer than a page.
func writeText(id string) string { return strings.Repeat("policy of "+id+"\n", 300) }

// write changes domains, books and certificates until it is killed, and says what is committed.
func write(ctx context.Context, path string) error {
	s, err := store.OpenSQLite(ctx, path)
	if err != nil {
		return err
	}
	run := time.Now().UnixNano()
	for n := 0; ; n++ {
		due, err := s.Claim(ctx, time.Now(), 0, 3)
		if err != nil {
			return err
		}
		for _, d := range due {
			id := fmt.Sprintf("%d.%s.%06d", run, d.Name[:7], n)
			d.State.Served, d.State.Record, d.State.Intended = writeText(id), d.Name.RecordName(), id
			if err := s.Save(ctx, &d, time.Now()); err != nil {
				return err
			}
			fmt.Println(d.Name, id)
		}
		key := []byte(strings.Repeat(fmt.Sprint(n), 1000))
		if err := s.SaveCertificate(ctx, store.Certificate{Name: "c", Key: key, Chain: [][]byte{key}}); err != nil {
			return err
		}
	}
}

func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stspub.db")
	s := open(t, path)
	declare(t, s, 5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	told := make(map[policygen.Name][]string) // ids, oldest first
	for round := range 6 {
		c := start(t, "write", path, false)
		var lines []string
		for range 1 + 17*round {
			lines = append(lines, c.line(t))
		}
		for _, l := range append(lines, c.kill(t)...) {
			name, id, ok := strings.Cut(l, " ")
			if !ok || !strings.HasSuffix(name, ".example") {
				t.Fatalf("the child said %q", l)
			}
			told[policygen.Name(name)] = append(told[policygen.Name(name)], id)
		}
		checkBooks(t, path, told)
	}
}

// checkBooks checks that all that was told is there, at most one id more, and nothing by half.
func checkBooks(t *testing.T, path string, told map[policygen.Name][]string) {
	t.Helper()
	s := open(t, path)
	untold := 0
	err := s.EachDomain(t.Context(), func(d store.Domain) error {
		ids, err := s.IDs(t.Context(), d.Name.RecordName())
		if err != nil {
			return err
		}
		history, err := s.History(t.Context(), d.Name)
		if err != nil {
			return err
		}
		if len(history) != len(ids) {
			return fmt.Errorf("%s has %d policies and %d ids", d.Name, len(history), len(ids))
		}
		for i, h := range history {
			id := ids[len(ids)-1-i]
			last := i == len(history)-1
			if h.Text != writeText(id.ID) || id.Text != h.Text || !h.From.Equal(id.Intended) || last != h.To.IsZero() {
				return fmt.Errorf("%s: policy %d and its id do not belong together", d.Name, i)
			}
			if i >= len(told[d.Name]) { // committed, and killed before it was told
				told[d.Name] = append(told[d.Name], id.ID)
				untold++
			}
			if told[d.Name][i] != id.ID {
				return fmt.Errorf("%s: id %d is %s, told was %s", d.Name, i, id.ID, told[d.Name][i])
			}
		}
		if n := len(told[d.Name]); n != len(ids) {
			return fmt.Errorf("%s has %d ids, told were %d", d.Name, len(ids), n)
		}
		if len(ids) > 0 && (d.State.Intended != ids[0].ID || d.State.Served != writeText(ids[0].ID)) {
			return fmt.Errorf("%s: the state is not that of the last id", d.Name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if untold > 1 {
		t.Fatalf("%d saves were committed and not told, want at most the last one", untold)
	}
	err = s.EachCertificate(t.Context(), func(c store.Certificate) error {
		if string(c.Key) != string(c.Chain[0]) {
			return errors.New("certificate and key do not belong together")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var verdict string
	err = raw(t, path).QueryRowContext(t.Context(), `PRAGMA integrity_check`).Scan(&verdict)
	if err != nil || verdict != "ok" {
		t.Fatalf("integrity check: %s, %v", verdict, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
