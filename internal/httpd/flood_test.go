package httpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// asked is a store that counts how often it is asked.
type asked struct {
	*store.SQLite
	n atomic.Int64
}

func (a *asked) Value(ctx context.Context, key string) ([]byte, error) {
	a.n.Add(1)
	return a.SQLite.Value(ctx, key)
}

func (a *asked) SetValue(ctx context.Context, key string, value []byte) error {
	a.n.Add(1)
	return a.SQLite.SetValue(ctx, key, value)
}

func (a *asked) Certificate(ctx context.Context, name string) (store.Certificate, error) {
	a.n.Add(1)
	return a.SQLite.Certificate(ctx, name)
}

func (a *asked) EachCertificate(ctx context.Context, f func(store.Certificate) error) error {
	a.n.Add(1)
	return a.SQLite.EachCertificate(ctx, f)
}

func (a *asked) Orders(ctx context.Context) ([]store.Order, error) {
	a.n.Add(1)
	return a.SQLite.Orders(ctx)
}

func (a *asked) Journal(ctx context.Context, after int64) ([]store.JournalEntry, error) {
	a.n.Add(1)
	return a.SQLite.Journal(ctx, after)
}

// besieged is a public server with the certificates of a Keeper, on a real store.
type besieged struct {
	*world
	store *asked
	names []string
	said  atomic.Int64 // lines of log that an operator sees
}

// Write is for a log.
func (w *besieged) Write(p []byte) (int, error) {
	w.said.Add(1)
	return len(p), nil
}

// newBesieged starts one with n names.
func newBesieged(tb testing.TB, n int) *besieged {
	tb.Helper()
	s, err := store.OpenSQLite(tb.Context(), filepath.Join(tb.TempDir(), "stspub.db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	w := &besieged{store: &asked{SQLite: s}}
	for i := range n {
		w.names = append(w.names, fmt.Sprintf("mta-sts.customer-%03d.example", i))
	}
	ca := newTestCA(tb, w.names...)
	for _, name := range w.names {
		leaf := ca.leafs[name]
		key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
		if err != nil {
			tb.Fatal(err)
		}
		c := store.Certificate{
			Name: name, Key: key, Chain: leaf.Certificate, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
		if err := s.SaveCertificate(tb.Context(), c); err != nil {
			tb.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(w, nil))
	keeper := certs.New(certs.Config{Store: w.store, Log: log, Challenge: certs.NewResponder(w.store, log).GetCertificate})
	if err := keeper.Load(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	w.world = newPublic(tb, func(cfg *PublicConfig) {
		cfg.GetCertificate, cfg.Values, cfg.Log = keeper.GetCertificate, w.store, log
		cfg.Serves = func(string) bool { return true }
	})
	w.ca = ca
	for _, name := range w.names {
		w.snapshot.Set(policygen.Name(strings.TrimPrefix(name, "mta-sts.")), textA)
	}
	w.run(tb)
	return w
}

// send does what a sender does for one of the names, and returns how long that took.
func (w *besieged) send(tb testing.TB) time.Duration {
	tb.Helper()
	name := w.names[rand.IntN(len(w.names))]
	begun := time.Now()
	conn, err := w.tryDial(&tls.Config{ServerName: name, CurvePreferences: []tls.CurveID{tls.X25519}})
	if err != nil {
		tb.Fatalf("a good name, %s: %v", name, err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET "+policyPath+" HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n"); err != nil {
		tb.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		err = goodPolicy(resp)
	}
	if err != nil {
		tb.Fatalf("a good name, %s: %v", name, err)
	}
	return time.Since(begun)
}

// flood has clients come for names at random, so many a second (0: as fast as they can), until stop is called.
func (w *besieged) flood(tb testing.TB, clients, perSecond int) (count *atomic.Int64, stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	turns := make(chan struct{}, clients)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(turns)
		pace := time.NewTicker(time.Second / time.Duration(max(perSecond, 1)))
		defer pace.Stop()
		for ctx.Err() == nil {
			if perSecond > 0 {
				<-pace.C
			}
			turns <- struct{}{}
		}
	})
	count = new(atomic.Int64)
	for range clients {
		wg.Go(func() {
			for range turns {
				if err := w.knock(); err != nil {
					tb.Error(err)
				}
				count.Add(1)
			}
		})
	}
	return count, sync.OnceFunc(func() { cancel(); wg.Wait() })
}

// knock comes for a name at random, and has to be refused by the alert for that.
func (w *besieged) knock() error {
	conn, err := net.Dial("tcp", w.secure)
	if err != nil {
		return err
	}
	defer conn.Close()
	name := fmt.Sprintf("mta-sts.%x.example", rand.Uint64())
	err = tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		return fmt.Errorf("a handshake for %s: %v, want the alert unrecognized_name", name, err)
	}
	return nil
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestFloodOfUnknownNames: clients that come for names at random, as fast as they can, leave nothing behind, ask no store,
// fill no log, and keep nobody from a policy. How long that takes is for BenchmarkFlood.
func TestFloodOfUnknownNames(t *testing.T) {
	const clients, least = 8, 2000
	w := newBesieged(t, 100)
	round := func(n int64) (during int64) {
		t.Helper()
		count, stop := w.flood(t, clients, 0)
		defer stop()
		for range 50 {
			w.send(t)
		}
		during = heap()
		for count.Load() < n {
			w.send(t)
		}
		return during
	}
	round(300) // what comes with the first of everything
	before, goroutines, questions := heap(), runtime.NumGoroutine(), w.store.n.Load()
	unknown := w.counted(t, "stspub_tls_handshake_errors_total", "unknown_name")
	during := round(least)
	waitFor(t, "connections ended", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	after := heap()
	t.Logf("heap %d KB before, %d KB in the flood, %d KB after", before>>10, during>>10, after>>10)
	if grown := during - before; grown > clients*200<<10 { // both ends of what is open
		t.Errorf("in the flood the heap is %d KB larger", grown>>10)
	}
	if grown := after - before; grown > 200<<10 {
		t.Errorf("after the flood the heap is %d KB larger", grown>>10)
	}
	if n := w.store.n.Load() - questions; n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
	if n := w.said.Load(); n != 0 {
		t.Errorf("%d lines of log", n)
	}
	if n := w.counted(t, "stspub_tls_handshake_errors_total", "unknown_name") - unknown; n < least {
		t.Errorf("%v of %d strangers were counted", n, least)
	}
}

// waitFor waits for a condition.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: it does not come to that", what)
		}
	}
}

// BenchmarkFlood compares handshake and GET for good names with and without strangers beside them, in turns: 200 requests
// each time, one every 5 ms. Clients and server share the machine: go test -bench Flood -benchtime 20x.
func BenchmarkFlood(b *testing.B) {
	for _, perSecond := range []int{100, 1000, 0} {
		name := fmt.Sprintf("%d a second", perSecond)
		if perSecond == 0 {
			name = "two clients without a pause"
		}
		b.Run(name, func(b *testing.B) {
			w := newBesieged(b, 100)
			var quiet, flooded []time.Duration
			turn := func() (took []time.Duration) {
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for range 200 {
					<-tick.C
					took = append(took, w.send(b))
				}
				return took
			}
			turn()
			var strangers int64
			var flooding time.Duration
			for b.Loop() {
				quiet = append(quiet, turn()...)
				begun := time.Now()
				count, stop := w.flood(b, 2, perSecond)
				flooded = append(flooded, turn()...)
				stop()
				flooding += time.Since(begun)
				strangers += count.Load()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(strangers)/flooding.Seconds(), "strangers/s")
			for p, unit := range map[int]string{50: "p50", 99: "p99"} {
				without, with := percentile(quiet, p), percentile(flooded, p)
				b.ReportMetric(float64(without.Microseconds()), "µs-"+unit)
				b.ReportMetric(float64(with.Microseconds()), "µs-"+unit+"-flooded")
				b.ReportMetric(float64(with)/float64(without), unit+"-ratio")
			}
		})
	}
}

func percentile(took []time.Duration, p int) time.Duration {
	slices.Sort(took)
	return took[(len(took)-1)*p/100]
}
