package certs_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

const (
	// bulkDir is the environment variable with the directory in which this program is not the tests, but the process that
	// they kill.
	bulkDir      = "STSPUB_CERTS_TEST_BULK"
	bulkNames    = 1500
	bulkInFlight = 32
)

func bulkName(n int) string { return fmt.Sprintf("mta-sts.c%06d.test", n) }

// unsettled is a store that knows which certificates are saved, and not yet known to be in memory.
type unsettled struct {
	*store.SQLite
	mu    sync.Mutex
	some  sync.Cond // with mu: names became fewer
	names map[string]bool
}

func (u *unsettled) SaveCertificate(ctx context.Context, c store.Certificate) error {
	u.mu.Lock()
	u.names[c.Name] = true
	u.mu.Unlock()
	return u.SQLite.SaveCertificate(ctx, c)
}

func (u *unsettled) settled(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.names, name)
	u.some.Broadcast()
}

// wait waits until all that is being saved now is in memory.
func (u *unsettled) wait() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for name := range maps.Clone(u.names) {
		for u.names[name] {
			u.some.Wait()
		}
	}
}

// noted is an authority that writes its orders into a file.
type noted struct {
	model
	file *os.File
}

func (n *noted) Obtain(_ context.Context, r certs.Request) (store.Certificate, error) {
	if _, err := n.file.WriteString(r.Name + "\n"); err != nil {
		return store.Certificate{}, err
	}
	c, err := issue(90*day, r.Name)
	c.Authority = n.Name()
	return c, err
}

// bulk has certificates of many names ordered and saved as fast as that goes, and writes copies all the while, until all
// are there and it is told to end.
func bulk(ctx context.Context, dir string) error {
	s, err := store.OpenSQLite(ctx, filepath.Join(dir, "stspub.db"))
	if err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(dir, "orders"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	u := &unsettled{SQLite: s, names: make(map[string]bool)}
	u.some.L = &u.mu
	k := certs.New(certs.Config{
		Store: u, Authorities: one(&noted{file: file}), Log: slog.New(slog.DiscardHandler), OnChange: func(_ context.Context, name string) { u.settled(name) }, Copy: filepath.Join(dir, "copy"),
		Budgets: []config.Budget{{
			Orders: 10 * bulkNames, OrdersPeriod: time.Hour, DomainOrders: 100, DomainPeriod: time.Hour, Failures: 100, InFlight: bulkInFlight, PerSecond: bulkNames,
		}},
	})
	if err := k.Load(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	for n := range bulkNames {
		k.Want(bulkName(n), false)
	}
	for enough := false; !enough; {
		_, err := os.Stat(filepath.Join(dir, "enough"))
		enough = err == nil && k.Overview().Valid == bulkNames
		change, err := s.LastChange(ctx)
		if err != nil {
			return err
		}
		u.wait()
		if err := k.CopyUpTo(ctx, change); err != nil {
			return err
		}
	}
	cancel()
	return errors.Join(<-ended, s.Close())
}

// victim is what is seen of a directory in which processes are killed.
type victim struct {
	dir      string
	read     int             // of the file with the orders
	ordered  map[string]int  // how often
	saved    map[string]bool // names whose certificates are in the store
	kills    int
	parts    int // copies of which a part was left
	refused  int // of those: that were no copy
	accepted int // starts with a copy
}

// start starts a process.
func (v *victim) start(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), bulkDir+"="+v.dir)
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout = new(bytes.Buffer)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

// killWhen kills a process as soon as it is so.
func (v *victim) killWhen(t *testing.T, cmd *exec.Cmd, so func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not come to that")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatalf("the process ended before it was killed: %s", cmd.Stdout)
	}
	v.kills++
}

// size is that of a file in bytes; -1: there is none.
func (v *victim) size(name string) int64 {
	info, err := os.Stat(filepath.Join(v.dir, name))
	if err != nil {
		return -1
	}
	return info.Size()
}

// walked is a store that counts who reads everything.
type walked struct {
	*store.SQLite
	n int
}

func (w *walked) EachCertificate(ctx context.Context, f func(store.Certificate) error) error {
	w.n++
	return w.SQLite.EachCertificate(ctx, f)
}

// check is the next start after a kill.
func (v *victim) check(t *testing.T) {
	t.Helper()
	v.readOrders(t)
	part, err := os.ReadFile(filepath.Join(v.dir, "copy.new"))
	left := err == nil
	s, err := store.OpenSQLite(t.Context(), filepath.Join(v.dir, "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if v.load(t, s) == 0 {
		v.accepted++
	}
	if !left {
		return
	}
	v.parts++
	if v.size("copy.new") >= 0 {
		t.Error("the part of a copy is still there after a start")
	}
	// Even in the place of the copy it does no harm.
	if err := os.WriteFile(filepath.Join(v.dir, "copy"), part, 0o600); err != nil {
		t.Fatal(err)
	}
	if walks := v.load(t, s); walks > 0 {
		v.refused++
		if v.size("copy") >= 0 {
			t.Error("a copy that was refused is still there")
		}
	}
}

// load starts a Keeper, and compares what it serves with what the store has. It returns how often all of the store was
// read for that.
func (v *victim) load(t *testing.T, s *store.SQLite) (walks int) {
	t.Helper()
	w := &walked{SQLite: s}
	k := certs.New(certs.Config{Store: w, Log: slog.New(slog.DiscardHandler), Copy: filepath.Join(v.dir, "copy")})
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	clear(v.saved)
	err := s.EachCertificate(t.Context(), func(c store.Certificate) error {
		v.saved[c.Name] = true
		served, err := k.GetCertificate(&tls.ClientHelloInfo{ServerName: c.Name})
		if err != nil || served == nil || !bytes.Equal(served.Certificate[0], c.Chain[0]) {
			return fmt.Errorf("%s is not served with what the store has: %w", c.Name, err)
		}
		leaf, err := x509.ParseCertificate(served.Certificate[0])
		if err != nil {
			return err
		}
		if key := served.PrivateKey.(crypto.Signer).Public().(*ecdsa.PublicKey); !key.Equal(leaf.PublicKey) || leaf.VerifyHostname(c.Name) != nil {
			return fmt.Errorf("%s is served with a certificate for %q, or another key", c.Name, leaf.DNSNames)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := k.Each(func(certs.Named) error { n++; return nil }); err != nil || n != len(v.saved) {
		t.Errorf("%d names are served, the store has %d, %v", n, len(v.saved), err)
	}
	return w.n
}

// readOrders takes in what was ordered since it was called last. It is none of what was in the store then.
func (v *victim) readOrders(t *testing.T) {
	t.Helper()
	all, err := os.ReadFile(filepath.Join(v.dir, "orders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(all[v.read:])) {
		name = strings.TrimSuffix(name, "\n")
		if v.ordered[name]++; v.saved[name] {
			t.Errorf("%s is ordered again, though its certificate is in the store", name)
		}
	}
	v.read = len(all)
}

// TestKilledWhileSavingMany kills a process that saves many certificates at once, and writes copies of them all the while,
// in turns in the middle of the one and of the other.
func TestKilledWhileSavingMany(t *testing.T) {
	t.Parallel()
	const most = 40
	lineSize := int64(len(bulkName(0)) + 1)
	v := &victim{dir: t.TempDir(), ordered: make(map[string]int), saved: make(map[string]bool)}
	for v.parts < 5 || v.refused < 2 || v.accepted < 5 {
		if v.kills == most {
			t.Fatalf("%d kills: %d left a part of a copy, %d of them none; %d starts with a copy", v.kills, v.parts, v.refused, v.accepted)
		}
		cmd := v.start(t)
		next := min(v.size("orders")/lineSize+50, bulkNames) * lineSize
		v.killWhen(t, cmd, func() bool {
			if v.kills%3 == 0 {
				return v.size("orders") >= next
			}
			return v.size("copy.new") >= int64(v.kills%2) // created, or written to
		})
		v.check(t)
	}
	if err := os.WriteFile(filepath.Join(v.dir, "enough"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := v.start(t)
	if err := cmd.Wait(); err != nil || cmd.Stdout.(*bytes.Buffer).String() != "end: <nil>\n" {
		t.Fatalf("the last process: %v, %s", err, cmd.Stdout)
	}
	v.check(t)
	v.checkJournal(t)
}

// checkJournal compares the orders with what was entered of them.
func (v *victim) checkJournal(t *testing.T) {
	t.Helper()
	entries, err := openStore(t, filepath.Join(v.dir, "stspub.db")).Journal(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	cut := make(map[string]int)
	for _, e := range entries {
		if e.Failed && e.Ended.Equal(e.Begun) {
			cut[e.Name]++
		}
	}
	again := 0
	for name, n := range v.ordered {
		if again += n - 1; n > 1+cut[name] {
			t.Errorf("%s was ordered %d times, and cut off %d times", name, n, cut[name])
		}
	}
	if len(v.saved) != bulkNames || len(v.ordered) != bulkNames || again > v.kills*bulkInFlight {
		t.Errorf("%d names have a certificate, %d were ordered, %d of them again after %d kills", len(v.saved), len(v.ordered), again, v.kills)
	}
	t.Logf("%d kills: %d orders of %d names, of which the kills cut off %d; %d left a part of a copy, of which %d were refused; %d starts with a copy",
		v.kills, bulkNames+again, bulkNames, again, v.parts, v.refused, v.accepted)
}
