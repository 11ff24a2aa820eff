package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

const instead = "the last accepted configuration is served, because of this one: "

// Serving needs no DNS secret.
func TestStartWithoutSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.path("stspub.toml")
	r := w.start(path)
	r.live(time.Time{})
	r.fault("alias zone", "")
	r.stop()
	for _, c := range []struct {
		name   string
		damage func()
		want   string
	}{
		{"gone", func() { w.remove("tsig.key") }, "there is no such file; write the path of the file that holds the secret"},
		{"empty", func() { w.file("tsig.key", "\n") }, `file "tsig.key" is empty; write the secret into it`},
		{"gone, and the CA's file too", func() { w.remove("tsig.key"); w.remove("ca.pem") }, "there is no such file; write the path of the file that holds the secret"},
	} {
		c.damage()
		written := w.dns.Updates()
		r = w.start(path)
		w.serves()
		want := path + ":18: account.main.key_file: " + c.want
		r.fault("configuration", want)
		if got := r.faults()["configuration"]; !strings.HasPrefix(got, instead) {
			t.Errorf("%s: fault %q, want %q before it", c.name, got, instead)
		}
		r.fault("alias zone", `alias.zone: write a probe record: read TXT "_stspub-probe.alias.test" in zone "alias.test" by account "main" (rfc2136): `+
			want+", and run: stspub reload")
		if w.dns.Updates() != written {
			t.Errorf("%s: the DNS server took %d updates", c.name, w.dns.Updates()-written)
		}
		w.file("ca.pem", string(w.ca.RootPEM)+string(w.ca.DirectoryCAPEM))
		w.file("tsig.key", goodKey)
		r.reload()
		r.fault("configuration", "")
		r.fault("alias zone", "")
		r.stop()
	}
}

// A configuration is the same by whatever path.
func TestStartWithAnotherPath(t *testing.T) {
	w := newWorld(t)
	t.Chdir(w.dir)
	r := w.start("stspub.toml")
	r.live(time.Time{})
	r.stop()
	w.file("stspub.toml", w.config()+"[broken")
	w.remove("customers.txt")
	for _, path := range []string{w.path("stspub.toml"), "./stspub.toml", filepath.Join("..", filepath.Base(w.dir), "stspub.toml")} {
		r = w.start(path)
		w.serves()
		r.fault("configuration", instead+w.path("stspub.toml")+":37: TOML syntax: ")
		r.stop()
	}
}

// A refused configuration is refused as a whole: nothing of it is in use.
func TestStartWithRefusedConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	list := zoned + "\n"
	for i := range 12 {
		list += fmt.Sprintf("c%02d.zoned.test\n", i)
	}
	w.file("customers.txt", list)
	path := w.path("stspub.toml")
	r := w.start(path)
	r.live(time.Time{})
	r.stop()

	elsewhere := loopback(t)
	w.file("customers.txt", zoned+"\n")
	w.file("other.pem", string(w.ca.DirectoryCAPEM)) // not that of what is fetched
	w.file("stspub.toml", w.config(hostname, "elsewhere.provider.test", w.ip, elsewhere, "admin.sock", "other.sock",
		"resolvers = [", `resolvers = ["127.0.0.1:1"] #`, "stub = ", "# stub = ", "ca.pem", "other.pem", "alias.test", "other.test"))
	const why = "refused: 12 of 13 domains would be removed (c00.zoned.test, c01.zoned.test, c02.zoned.test, " +
		"c03.zoned.test, c04.zoned.test, c05.zoned.test, c06.zoned.test, c07.zoned.test, c08.zoned.test, c09.zoned.test and 2 more)"
	asked := w.dns.Queries(hostname, "A")
	begun := time.Now()
	r = w.start(path)
	r.fault("configuration", instead+why)
	w.serves()
	r.live(begun)
	until(t, "hostname looked up", func() error {
		if w.dns.Queries(hostname, "A") == asked {
			return fmt.Errorf("%s is not asked for", hostname)
		}
		return nil
	})
	until(t, "alias zone probed", func() error {
		if w.dns.Queries("_stspub-probe.alias.test", "TXT") == 0 {
			return fmt.Errorf("the zone is not asked for")
		}
		return nil
	})
	if err := silent(elsewhere + ":8443"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(w.path("other.sock")); err == nil {
		t.Error("the admin socket is that of the refused configuration")
	}
	r.stop()

	// Where it cannot be served either, both reasons are told.
	ln, err := net.Listen("tcp", w.ip+":8443")
	if err != nil {
		t.Fatal(err)
	}
	got := w.refused()
	ln.Close()
	if want := fmt.Sprintf("\nserver.https: listen on %q: ", w.ip+":8443"); !strings.HasPrefix(got, why) || !strings.Contains(got, want) {
		t.Errorf("with its port taken: %q, want %q and %q", got, why, want)
	}
	w.forget(t)
	got = w.refused()
	if want := "\nno configuration was accepted before, so there is none to serve in its place"; !strings.HasPrefix(got, why) || !strings.HasSuffix(got, want) {
		t.Errorf("with none accepted: %q, want %q and %q", got, why, want)
	}
	if err := silent(elsewhere + ":8443"); err != nil {
		t.Error(err)
	}
}

// forget takes the accepted configuration out of the store.
func (w *world) forget(t *testing.T) {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), w.path("stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.DeleteValue(t.Context(), keyAccepted); err != nil {
		t.Fatal(err)
	}
}

// What is accepted twice is kept as it was, and nothing is kept in place of something.
func TestAccept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	st, err := store.OpenSQLite(t.Context(), w.path("stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	d := &daemon{o: Options{ConfigPath: w.path("stspub.toml"), Env: func(string) string { return "" }}, store: st}
	want, _, err := config.Load(d.o.ConfigPath, d.o.Env)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.accept(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	const refused = "keep the accepted configuration: it has no files"
	if err := d.accept(t.Context(), &config.Config{Server: want.Server}); err == nil || err.Error() != refused {
		t.Errorf("accept of a configuration without files: %v, want %q", err, refused)
	}
	w.remove("stspub.toml")
	w.remove("customers.txt")
	got, _, err := d.accepted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("accepted, -want +got:\n%s", diff)
	}
}
