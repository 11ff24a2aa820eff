package webhook

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stspub/stspub/internal/store"
)

// The test binary is also the process that is killed: it delivers from the store in childPath, and trusts childRoots.
const (
	childPath  = "STSPUB_WEBHOOK_TEST_PATH"
	childRoots = "STSPUB_WEBHOOK_TEST_ROOTS"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		fmt.Println("end:", deliverForever(path, os.Getenv(childRoots)))
		return
	}
	os.Exit(m.Run())
}

func deliverForever(path, roots string) error {
	text, err := os.ReadFile(roots)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	st, err := store.OpenSQLite(context.Background(), path)
	if err != nil {
		return err
	}
	h := New(Config{Store: st, Dial: loopback, Roots: pool, Log: slog.New(slog.DiscardHandler), Fault: func(string, string) {}})
	h.schedule = hasty()
	fmt.Println("runs")
	return h.Run(context.Background())
}

// A node that is killed in the middle loses nothing, and what comes twice has one id.
func TestKilledNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, trusted := filepath.Join(dir, "stspub.db"), filepath.Join(dir, "roots.pem")
	r := newReceiver(t, everyOther(503))
	server, pool := serveCertificate(t, r)
	if err := os.WriteFile(trusted, pool, 0o600); err != nil {
		t.Fatal(err)
	}
	names := domains(20)
	const each, kills = 20, 3
	st, err := store.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, st, hasty(), nil)
	w.put("", "x", server, r)
	for n := 1; n <= each; n++ {
		for _, name := range names {
			w.step("", name, n)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= kills+1; i++ {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), childPath+"="+path, childRoots+"="+trusted)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := func() { _ = cmd.Process.Kill() }
		t.Cleanup(kill)
		if line := bufio.NewScanner(out); !line.Scan() || line.Text() != "runs" {
			t.Fatalf("the child says %q", line.Text())
		}
		r.await(len(names) * each * i / (kills + 1))
		kill()
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended before it was killed")
		}
	}
	repeated := inOrder(t, r, each, names...)
	t.Logf("%d events, %d kills, %d came twice", len(names)*each, kills+1, repeated)
	if most := (kills + 1) * (2*pageSize + MaxInFlight); repeated > most {
		t.Errorf("%d events came twice, want no more than was under way, %d", repeated, most)
	}
}

// serveCertificate is serve for another process.
func serveCertificate(t *testing.T, h http.Handler) (url string, roots []byte) {
	t.Helper()
	server := newServer(t, h)
	return server.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}
