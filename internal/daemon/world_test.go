package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/publish"
)

const (
	hostname = "sts.provider.test"
	zoned    = "zoned.test"
	policy   = "version: STSv1\r\nmode: enforce\r\nmax_age: 86400\r\nmx: mx1.provider.test\r\n"

	goodKey  = "Z2VoZWltLWdlaGVpbS1nZWhlaW0tZ2VoZWlt"
	wrongKey = "d3JvbmctZ2VoZWltLXdyb25nLWdlaGVpbQ=="

	// patience is how long anything may take, on a crowded machine with the race detector.
	patience = 60 * time.Second
)

// What Pebble reads from the environment is set before it starts.
func TestMain(m *testing.M) {
	for name, value := range lab.CAEnviron() {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// world is a small internet for one daemon, which listens on a loopback address of its own.
type world struct {
	t   *testing.T
	dir string
	ip  string
	dns *lab.DNS
	ca  *lab.CA

	hangup chan os.Signal
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "daemon-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, ip: loopback(t), hangup: make(chan os.Signal)}
	w.dns, err = lab.StartDNS(context.Background(), lab.DNSOptions{
		Keys: map[string]string{"stspub.": goodKey},
		Zones: []lab.Zone{
			{Name: "provider.test", Text: "sts A " + w.ip + "\nmx1 A " + w.ip + "\n"},
			{Name: zoned, Text: "@ MX 10 mx1.provider.test.\nmta-sts A " + w.ip + "\n"},
			{Name: "alias.test"},
			{Name: "other.test"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.dns.Close() })
	w.ca, err = lab.StartCA(context.Background(), lab.CAOptions{DNS: w.dns.Addr, HTTPPort: 8080, TLSPort: 8443})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.ca.Close() })
	w.file("ca.pem", string(w.ca.RootPEM)+string(w.ca.DirectoryCAPEM))
	w.file("tsig.key", goodKey+"\n")
	w.file("customers.txt", zoned+"\n")
	w.file("stspub.toml", w.config())
	return w
}

// loopback returns an address on which nobody else listens.
func loopback(t *testing.T) string {
	t.Helper()
	for range 20 {
		ip := net.IPv4(127, byte(1+rand.N(254)), byte(rand.N(256)), byte(1+rand.N(254))).String()
		ln, err := net.Listen("tcp", ip+":8443")
		if err == nil {
			ln.Close()
			return ip
		}
	}
	t.Fatal("port 8443 is taken on 20 loopback addresses")
	return ""
}

// config is a good configuration with pairs of old and new text replaced in it.
func (w *world) config(replace ...string) string {
	w.t.Helper()
	text := fmt.Sprintf(`[server]
hostname = "sts.provider.test"
https = "%[1]s:8443"
http = "%[1]s:8080"
admin = "unix:admin.sock"
[store]
url = "sqlite:stspub.db"
[acme.lab]
directory = %[2]q
ca_file = "ca.pem"
[dns]
resolvers = [%[3]q]
stub = { "." = [%[3]q] }
[account.main]
provider = "rfc2136"
server = %[3]q
key_name = "stspub"
key_file = "tsig.key"
[alias]
zone = "alias.test"
account = "main"
[publish]
settle = "1s"
ttl = "60s"
[check]
every = "1s"
http_port = 8080
https_port = 8443
ca_file = "ca.pem"
[mxset.main]
mode = "enforce"
max_age = "1d"
mx = ["mx1.provider.test"]
publish = "zone"
account = "main"
domains_file = "customers.txt"
`, w.ip, w.ca.DirectoryURL, w.dns.Addr)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			w.t.Fatalf("%q is not in the configuration", replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return text
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) file(name, content string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(w.path(name)); err != nil {
		w.t.Fatal(err)
	}
}

// run is one run of the daemon.
type run struct {
	w     *world
	end   context.CancelFunc
	done  chan error
	ready chan struct{}
	admin *httpd.Client
}

// launch begins a run with the configuration at path.
func (w *world) launch(path string) *run {
	ctx, end := context.WithCancel(context.Background())
	r := &run{w: w, end: end, done: make(chan error, 1), ready: make(chan struct{}), admin: httpd.NewClient("unix:" + w.path("admin.sock"))}
	o := Options{
		ConfigPath: path, Env: func(string) string { return "" }, Version: "test", Reload: w.hangup,
		Log:     slog.New(slog.NewTextHandler(w.t.Output(), nil)),
		OnReady: func() { close(r.ready) },
	}
	go func() { // ends by end
		r.done <- Run(ctx, o)
		close(r.done)
	}()
	w.t.Cleanup(func() {
		end()
		<-r.done
	})
	return r
}

// start begins a run and waits until it serves.
func (w *world) start(path string) *run {
	w.t.Helper()
	r := w.launch(path)
	select {
	case <-r.ready:
	case err := <-r.done:
		w.t.Fatalf("the daemon did not start: %v", err)
	case <-time.After(patience):
		w.t.Fatal("the daemon did not start in time")
	}
	return r
}

// refused begins a run that does not come to serve, and returns its error.
func (w *world) refused() string {
	w.t.Helper()
	r := w.launch(w.path("stspub.toml"))
	select {
	case err := <-r.done:
		if err == nil {
			w.t.Fatal("the daemon ended without an error")
		}
		return err.Error()
	case <-r.ready:
		w.t.Fatal("the daemon started")
	case <-time.After(patience):
		w.t.Fatal("the daemon neither started nor ended")
	}
	return ""
}

// stop ends a run and waits for it.
func (r *run) stop() {
	r.w.t.Helper()
	r.end()
	select {
	case err := <-r.done:
		if err != nil {
			r.w.t.Fatalf("the daemon ended with %v", err)
		}
	case <-time.After(patience):
		r.w.t.Fatal("the daemon did not end in time")
	}
}

// reload has the configuration taken.
func (r *run) reload() {
	r.w.t.Helper()
	if _, err := r.admin.Reload(context.Background(), ""); err != nil {
		r.w.t.Fatal(err)
	}
}

func (r *run) faults() map[string]string {
	r.w.t.Helper()
	faults, err := r.admin.Faults(context.Background())
	if err != nil {
		r.w.t.Fatal(err)
	}
	return faults
}

// fault waits until there is a fault of a subject, or with want "" none, and compares its text.
func (r *run) fault(subject, want string) {
	r.w.t.Helper()
	until(r.w.t, "fault of "+subject, func() error {
		if got := r.faults()[subject]; (want == "") != (got == "") || !strings.Contains(got, want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
}

// live waits until a domain was found live after a moment.
func (r *run) live(after time.Time) {
	r.w.t.Helper()
	until(r.w.t, zoned+" live", func() error {
		s, err := r.admin.Domain(context.Background(), zoned)
		if err == nil && (s.Step != publish.StepLive || !s.Checked.After(after)) {
			err = fmt.Errorf("step %s, checked %s: %s", s.Step, s.Checked, s.Reason)
		}
		return err
	})
}

// serves compares what a sender gets with the policy.
func (w *world) serves() {
	w.t.Helper()
	if got := w.served(); got != policy {
		w.t.Errorf("served is %q, want %q", got, policy)
	}
}

// served is what a sender gets.
func (w *world) served() string {
	w.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.ca.RootPEM)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.ip+":8443")
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	resp, err := client.Get("https://mta-sts." + zoned + "/.well-known/mta-sts.txt")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Errorf("served is %d %q, %v", resp.StatusCode, body, err)
	}
	return string(body)
}

// until waits until ok returns nil.
func until(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

// silent says whether nobody listens at an address.
func silent(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("somebody listens at %s", addr), conn.Close())
	}
	return nil
}
