package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/store"
)

// TestMain sets what CAs read from the environment, and has more tests run at the same time than there are processors: they
// mostly wait, for answers that are asked for once a second. A flag -parallel is parsed later, and wins.
func TestMain(m *testing.M) {
	if dir := os.Getenv(bulkDir); dir != "" {
		fmt.Println("end:", bulk(context.Background(), dir))
		return
	}
	for name, value := range lab.CAEnviron() {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// environment is held by who starts a CA, which reads it, and by who changes it for one.
var environment sync.RWMutex

// patience is how long a test waits for what must come.
const patience = time.Minute

// world is a CA, a DNS server and a store, all real, and the two listeners of a policy server.
type world struct {
	ca    *lab.CA
	dns   *lab.DNS
	store *spy
	acme  *certs.ACME
	live  atomic.Pointer[certs.Responder] // what answers challenges
	log   *slog.Logger

	http, tls net.Listener
}

// spy is the SQLite store, and remembers what happened to challenges.
type spy struct {
	*store.SQLite
	mu      sync.Mutex
	answers map[string]int // how often each answer was put, minus how often it was deleted
	put     []string
}

func (s *spy) SetValue(ctx context.Context, key string, value []byte) error {
	s.note(key, 1)
	return s.SQLite.SetValue(ctx, key, value)
}

func (s *spy) DeleteValue(ctx context.Context, key string) error {
	s.note(key, -1)
	return s.SQLite.DeleteValue(ctx, key)
}

func (s *spy) note(key string, n int) {
	if !strings.HasPrefix(key, "acme/challenge/") {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[key] += n
	if n > 0 {
		s.put = append(s.put, key)
	}
}

// left returns the answers that were put and never deleted, and how many were put at all.
func (s *spy) left() (keys []string, put int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, n := range s.answers {
		if n > 0 {
			keys = append(keys, key)
		}
	}
	return keys, len(s.put)
}

const zoneText = `
*.good   A 127.0.0.1
*.refuse A 127.0.0.99
silent   A 127.0.0.1
`

// newWorld starts everything but a Keeper. The listeners accept once they are served.
func newWorld(t *testing.T, lifetime time.Duration) *world {
	t.Helper()
	w := &world{log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	w.http, w.tls = listen(t), listen(t)
	var err error
	w.dns, err = lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "test", Text: zoneText}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.dns.Close() })
	w.ca = w.startCA(t, lifetime)
	w.store = openStore(t, filepath.Join(t.TempDir(), "stspub.db"))
	w.acme = w.newACME(t, w.ca.DirectoryURL, w.ca.DirectoryCAPEM)
	return w
}

func (w *world) startCA(t *testing.T, lifetime time.Duration) *lab.CA {
	t.Helper()
	return w.startOtherCA(t, lab.CAOptions{Lifetime: lifetime})
}

func (w *world) startOtherCA(t *testing.T, o lab.CAOptions) *lab.CA {
	t.Helper()
	environment.RLock()
	defer environment.RUnlock()
	return w.startCALocked(t, o)
}

// startFaultyCA starts one with faults that it reads from the environment, in a test that runs beside others.
func (w *world) startFaultyCA(t *testing.T, o lab.CAOptions, faults map[string]string) *lab.CA {
	t.Helper()
	environment.Lock()
	defer environment.Unlock()
	for name, value := range faults {
		before, found := os.LookupEnv(name)
		if err := os.Setenv(name, value); err != nil {
			t.Fatal(err)
		}
		if !found {
			defer os.Unsetenv(name)
		} else {
			defer os.Setenv(name, before)
		}
	}
	return w.startCALocked(t, o)
}

// startCALocked starts a CA; the environment is held.
func (w *world) startCALocked(t *testing.T, o lab.CAOptions) *lab.CA {
	t.Helper()
	o.DNS, o.HTTPPort, o.TLSPort = w.dns.Addr, port(w.http), port(w.tls)
	ca, err := lab.StartCA(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	return ca
}

func (w *world) newACME(t *testing.T, directory string, trust ...[]byte) *certs.ACME {
	t.Helper()
	return w.newACMEOn(t, w.store, directory, trust...)
}

func (w *world) newACMEOn(t *testing.T, v certs.Values, directory string, trust ...[]byte) *certs.ACME {
	t.Helper()
	return w.configured(t, v, config.ACME{Name: "lab", Email: "postmaster@good.test", Directory: directory}, trust...)
}

// configured makes an ACME of a table and what is trusted for its directory.
func (w *world) configured(t *testing.T, v certs.Values, cfg config.ACME, trust ...[]byte) *certs.ACME {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	var pem []byte
	for _, p := range trust {
		pem = append(pem, p...)
	}
	if err := os.WriteFile(file, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.CAFile = file
	a, err := certs.NewACME(cfg, v, w.log)
	if err != nil {
		t.Fatal(err)
	}
	w.live.Store(certs.NewResponder(v, w.log))
	return a
}

// prefer has names validated by a challenge first, as if it had worked before.
func (w *world) prefer(t *testing.T, way string) {
	t.Helper()
	if err := w.store.SetValue(t.Context(), "acme/way/lab", []byte(way)); err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB, path string) *spy {
	t.Helper()
	s, err := store.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &spy{SQLite: s, answers: make(map[string]int)}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// counting is an Authority that counts its orders.
type counting struct {
	certs.Authority
	orders, failed atomic.Int32

	running atomic.Int32
	mu      sync.Mutex
	alone   []time.Time // when orders were begun beside which none ran
}

// since returns when orders were begun after a time, beside which none ran.
func (c *counting) since(t time.Time) []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, _ := slices.BinarySearchFunc(c.alone, t, time.Time.Compare)
	return slices.Clone(c.alone[n:])
}

func (c *counting) Obtain(ctx context.Context, r certs.Request) (store.Certificate, error) {
	c.orders.Add(1)
	if c.running.Add(1) == 1 {
		c.mu.Lock()
		c.alone = append(c.alone, time.Now())
		c.mu.Unlock()
	}
	defer c.running.Add(-1)
	got, err := c.Authority.Obtain(ctx, r)
	if err != nil {
		c.failed.Add(1)
	}
	return got, err
}

// node is a running Keeper with its listeners.
type node struct {
	*certs.Keeper
	issuer  *counting
	changes chan string
	stop    func() // ends Run and waits for it
}

// startNode loads a Keeper from the world's store and runs it.
func (w *world) startNode(t *testing.T, edit ...func(*certs.Config)) *node {
	t.Helper()
	n := &node{issuer: &counting{Authority: w.acme}, changes: make(chan string, 1000)}
	c := certs.Config{
		Store:       w.store,
		Authorities: one(n.issuer),
		Log:         w.log,
		Challenge:   func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return w.live.Load().GetCertificate(h) },
		OnChange:    func(_ context.Context, name string) { n.changes <- name },
		FirstPause:  100 * time.Millisecond,
	}
	for _, f := range edit {
		f(&c)
	}
	n.Keeper = certs.New(c)
	if err := n.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not end")
		}
	})
	t.Cleanup(n.stop)
	return n
}

// serveHTTP answers HTTP-01 challenges.
func (w *world) serveHTTP(t *testing.T) {
	s := &http.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.live.Load().HTTPHandler(nil).ServeHTTP(rw, r)
		}),
		ReadHeaderTimeout: patience,
	}
	go s.Serve(w.http)
	t.Cleanup(func() { s.Close() })
}

// serveTLS serves HTTPS with the certificates of a Keeper, and answers TLS-ALPN-01 challenges.
func (w *world) serveTLS(t *testing.T, k *certs.Keeper) {
	s := &http.Server{
		Handler:           http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, r.Host) }),
		ReadHeaderTimeout: patience,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		TLSConfig: &tls.Config{
			GetCertificate: k.GetCertificate,
			NextProtos:     []string{"h2", "http/1.1", acme.ALPNProto},
		},
	}
	go s.ServeTLS(w.tls, "", "")
	t.Cleanup(func() { s.Close() })
}

// dead accepts connections and closes them.
func dead(l net.Listener) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// wait waits until the state of a name is one of those given.
func (n *node) wait(t *testing.T, name string, states ...certs.State) certs.Status {
	t.Helper()
	deadline := time.After(patience)
	for {
		s := n.Status(name)
		if slices.Contains(states, s.State) {
			return s
		}
		select {
		case <-n.changes:
		case <-deadline:
			t.Fatalf("%s is %+v, want %v", name, s, states)
		}
	}
}

// handshake connects as a sender does and returns the certificate it was shown.
func (w *world) handshake(t *testing.T, name string) (*x509.Certificate, error) {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(w.ca.RootPEM) {
		t.Fatal("no root")
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: roots, InsecureSkipVerify: name == ""}}
	c, err := d.DialContext(t.Context(), "tcp", w.tls.Addr().String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// isUnrecognized says whether the server aborted with the alert unrecognized_name (112).
func isUnrecognized(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == "tls: unrecognized name"
}

// gate is a TCP relay that can be shut: what connects then is closed at once.
type gate struct {
	net.Listener
	to      atomic.Pointer[string] // nil: shut
	refused atomic.Int64           // connections while it was shut

	mu   sync.Mutex // guards open
	open []net.Conn
}

// cut leads somewhere else, and ends what led to where it was.
func (g *gate) cut(to *string) {
	g.to.Store(to)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.open {
		c.Close()
	}
	g.open = nil
}

func newGate(t *testing.T) *gate {
	g := &gate{Listener: listen(t)}
	go func() {
		for {
			c, err := g.Accept()
			if err != nil {
				return
			}
			go g.relay(c)
		}
	}()
	return g
}

func (g *gate) relay(c net.Conn) {
	defer c.Close()
	to := g.to.Load()
	if to == nil {
		g.refused.Add(1)
		return
	}
	up, err := net.Dial("tcp", *to)
	if err != nil {
		return
	}
	defer up.Close()
	g.mu.Lock()
	g.open = append(g.open, up)
	g.mu.Unlock()
	go func() {
		io.Copy(up, c)
		up.Close()
	}()
	io.Copy(c, up)
}

// storedNames returns the names that the store has certificates of.
func storedNames(t *testing.T, s certs.Store) []string {
	t.Helper()
	var names []string
	err := s.EachCertificate(t.Context(), func(c store.Certificate) error {
		names = append(names, c.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
