package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// room is the disk of a store as a test sees it.
type room struct {
	fill, free func(t *testing.T)
	says       string // what an operator is told while there is none
}

// rooms are the ways to have no room. A limit for the size of files can be set by everybody; who may mount has a small disk.
func rooms(t *testing.T) map[string]func(*testing.T, *world) room {
	t.Helper()
	all := map[string]func(*testing.T, *world) room{"limit for files": limited}
	probe := t.TempDir()
	if err := syscall.Mount("tmpfs", probe, "tmpfs", 0, "size=1m"); err != nil {
		t.Logf("no disk can be mounted here: %v", err)
		return all
	}
	if err := syscall.Unmount(probe, 0); err != nil {
		t.Fatal(err)
	}
	all["small disk"] = mounted
	return all
}

// limited has the running daemon make no file longer than its log of the store is: writes to that fail with EFBIG.
func limited(_ *testing.T, w *world) room {
	limit := func(t *testing.T, size string) {
		t.Helper()
		pid := fmt.Sprint(w.daemon.cmd.Process.Pid)
		if out, err := exec.Command("prlimit", "--pid", pid, "--fsize="+size+":").CombinedOutput(); err != nil {
			t.Fatalf("prlimit: %v %s", err, out)
		}
	}
	return room{
		fill: func(t *testing.T) {
			t.Helper()
			info, err := os.Stat(w.path("store/stspub.db-wal"))
			if err != nil {
				t.Fatal(err)
			}
			limit(t, fmt.Sprint(info.Size()))
		},
		free: func(t *testing.T) { t.Helper(); limit(t, "unlimited") },
		says: "does not take writes: look at its disk and permissions",
	}
}

// mounted has the store on a disk that a ballast fills: writes fail with ENOSPC.
func mounted(t *testing.T, w *world) room {
	t.Helper()
	if err := syscall.Mount("tmpfs", w.path("store"), "tmpfs", 0, "size=16m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(w.path("store"), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := w.path("store/ballast")
	return room{
		fill: func(t *testing.T) {
			t.Helper()
			f, err := os.Create(ballast)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := io.Copy(f, neverEnding{}); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("fill %s: %v, want that it is full", ballast, err)
			}
		},
		free: func(t *testing.T) {
			t.Helper()
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		},
		says: "no space left for",
	}
}

// neverEnding is a file without an end.
type neverEnding struct{}

// Read implements [io.Reader].
func (neverEnding) Read(b []byte) (int, error) { return len(b), nil }

// TestDiskFull takes the room away from the store while two domains are published, and gives it back.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for name, open := range rooms(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "BIND")
			if err := os.Mkdir(w.path("store"), 0o700); err != nil {
				t.Fatal(err)
			}
			w.settings.storeDir, w.settings.health = "store/", true
			w.configure()
			w.diskFull(t, open(t, w))
		})
	}
}

func (w *world) diskFull(t *testing.T, disk room) {
	t.Helper()
	watchZoned, watchShop := w.watch(zoned), w.watch(shop)
	zonedID, shopID := w.publishAll()
	first := w.policy("enforce", "5")
	w.stop()
	w.start() // the store's log begins anew, so there is nothing in it that could be used again
	w.outside.set(shut)
	w.settings.mx = append(w.settings.mx, "mx2.provider.test")
	second := w.policy("enforce", "5")
	w.configure()
	w.must("reload")
	for _, domain := range []string{zoned, shop} {
		w.await(domain, "serves the new policy", func(s publish.Status) bool { return s.Step == publish.StepBody && s.Policy == second })
	}
	disk.fill(t)
	w.outside.set(open)
	w.until("not ready", patience, func() (bool, string) {
		status, said := w.readyz()
		return status == http.StatusServiceUnavailable && strings.Contains(said, disk.says), fmt.Sprint(status, said)
	})
	w.until("fault", patience, func() (bool, string) {
		list := w.must("domain", "list")
		return strings.Contains(list, "FAULT store: ") && strings.Contains(list, disk.says), list
	})
	w.settings.mx = append(w.settings.mx, "mx3.provider.test")
	w.configure()
	from := len(w.daemon.said())
	if _, said, code := w.stspub("reload"); code != 1 {
		t.Errorf("stspub reload on a full disk: exit code %d, %s", code, said)
	}
	w.heardSince(from, `"msg":"answered internal error"`, disk.says)
	full := time.Now()
	w.until("a settle time, and more", patience, func() (bool, string) {
		for domain, id := range map[string]string{zoned: zonedID, shop: shopID} {
			if got := w.txt("_mta-sts." + domain); len(got) != 1 || got[0] != value(id) {
				t.Errorf("%s TXT = %q on a full disk, want id %s still", domain, got, id)
			}
			if body, err := fetch(w.sender(domain), domain); err != nil || body != second {
				t.Errorf("%s serves %q, %v on a full disk", domain, body, err)
			}
		}
		return t.Failed() || time.Since(full) > 4*settle, "not over"
	})
	disk.free(t)
	w.live(zoned, zonedID, second)
	w.live(shop, shopID, second)
	w.until("ready", patience, func() (bool, string) {
		status, said := w.readyz()
		return status == http.StatusOK, said
	})
	w.until("no fault", patience, func() (bool, string) {
		list := w.must("domain", "list")
		return !strings.Contains(list, "FAULT store"), list
	})
	zonedID, shopID = w.status(zoned).ID, w.status(shop).ID
	w.must("reload")
	third := w.policy("enforce", "5")
	w.live(zoned, zonedID, third)
	w.live(shop, shopID, third)
	watchZoned.want(first, second, third)
	watchShop.want(first, second, third)
	w.stop()
	w.checkWhole(t, watchZoned, watchShop)
}

// readyz asks the listener for load balancers.
func (w *world) readyz() (int, string) {
	resp, err := (&http.Client{Timeout: 8 * time.Second}).Get("http://" + w.ip + ":8081/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(said) + errText(err)
}

// checkWhole looks into the store when the daemon is gone: it is sound, and what senders saw is in the books.
func (w *world) checkWhole(t *testing.T, watched ...*watcher) {
	t.Helper()
	path := filepath.Join(w.dir, w.settings.storeDir, "stspub.db")
	out, err := exec.Command("sqlite3", path, "PRAGMA integrity_check").CombinedOutput()
	if err != nil || !bytes.Equal(bytes.TrimSpace(out), []byte("ok")) {
		t.Errorf("integrity check: %v %s", err, out)
	}
	st, err := store.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, s := range watched {
		record := policygen.Name(s.domain).RecordName()
		if d, err := st.Domain(t.Context(), policygen.Name(s.domain)); err == nil {
			record = d.State.Record
		}
		ids, err := st.IDs(t.Context(), record)
		if err != nil {
			t.Fatal(err)
		}
		text := make(map[string]string)
		for _, id := range ids {
			text[id.ID] = id.Text
		}
		for _, e := range s.eras {
			if text[e.id] == "" || text[e.id] != e.policy {
				t.Errorf("%s: id %s was seen with %q, and stands for %q", s.domain, e.id, e.policy, text[e.id])
			}
		}
	}
}
