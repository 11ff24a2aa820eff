package webhook

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// call is one that a receiver got.
type call struct {
	id     string
	at     time.Time
	header http.Header
	body   []byte
	Message
	taken bool
}

// receiver is a program that gets calls, and verifies them with the library of the specification.
type receiver struct {
	t      testing.TB
	answer func(c call) (status int, header http.Header) // nil: takes all

	mu     sync.Mutex // guards what follows
	secret []string   // one of them has to have signed
	calls  []call
	taken  chan struct{} // closed and replaced with each that is taken
}

func newReceiver(t testing.TB, answer func(call) (int, http.Header)) *receiver {
	return &receiver{t: t, answer: answer, taken: make(chan struct{})}
}

// receive notes a call, and returns what to answer.
func (r *receiver) receive(header http.Header, body []byte) (int, http.Header) {
	c := call{id: header.Get("Webhook-Id"), at: time.Now(), header: header, body: body}
	r.verify(c)
	if err := json.Unmarshal(body, &c.Message); err != nil {
		r.t.Errorf("the body %q is no message: %v", body, err)
	}
	status, answer := 204, http.Header(nil)
	if r.answer != nil {
		status, answer = r.answer(c)
	}
	c.taken = status/100 == 2
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	if c.taken {
		close(r.taken)
		r.taken = make(chan struct{})
	}
	return status, answer
}

// verify has the library of the specification look at a call.
func (r *receiver) verify(c call) {
	r.mu.Lock()
	secrets := r.secret
	r.mu.Unlock()
	if len(secrets) == 0 {
		r.t.Error("a call came before there was a secret")
	}
	for _, secret := range secrets {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err == nil {
			err = verifier.Verify(c.body, c.header)
		}
		if err != nil {
			r.t.Errorf("a receiver refuses the call %s: %v", c.id, err)
		}
	}
}

func (r *receiver) expect(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secret = secrets
}

// got returns all calls so far, and those that were taken.
func (r *receiver) got() (all, taken []call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all = slices.Clone(r.calls)
	return all, slices.DeleteFunc(slices.Clone(all), func(c call) bool { return !c.taken })
}

// await waits until n different calls were taken.
func (r *receiver) await(n int) {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for {
		r.mu.Lock()
		ids := make(map[string]bool)
		for _, c := range r.calls {
			if c.taken {
				ids[c.id] = true
			}
		}
		taken := r.taken
		r.mu.Unlock()
		if len(ids) >= n {
			return
		}
		select {
		case <-taken:
		case <-deadline:
			r.t.Fatalf("%d calls were taken in a minute, want %d", len(ids), n)
		}
	}
}

// ServeHTTP receives over a network.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	status, header := r.receive(req.Header, body)
	maps.Copy(w.Header(), header)
	w.WriteHeader(status)
}

// RoundTrip receives without a network, where the clock is not the real one.
func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	status, header := r.receive(req.Header, body)
	return &http.Response{StatusCode: status, Header: header, Body: http.NoBody, Request: req}, nil
}

// serve has a receiver answer over HTTPS, and returns its URL and who to trust for it.
func serve(t *testing.T, h http.Handler) (string, *x509.CertPool) {
	t.Helper()
	server := newServer(t, h)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return server.URL, roots
}

func newServer(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(t.Output(), nil), slog.LevelDebug)
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server
}

// loopback lets connections lead to this machine.
func loopback(ctx context.Context, network, address string) (net.Conn, error) {
	return (&sender.Guard{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}).Dial(ctx, network, address)
}

func openSQLite(t testing.TB) store.Store {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// hasty tries again soon.
func hasty() schedule {
	return schedule{
		look: 20 * time.Millisecond, answer: 15 * time.Second, first: 10 * time.Millisecond, most: 50 * time.Millisecond,
		giveUp: time.Hour, failing: time.Hour,
	}
}

// world is webhooks on a store.
type world struct {
	*Webhooks
	t     testing.TB
	store store.Store
	stop  func() // waits until Run has ended
}

func newWorld(t testing.TB, st store.Store, s schedule, change func(*Config)) *world {
	t.Helper()
	cfg := Config{
		Store: st, Dial: loopback, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Fault: func(string, string) {},
	}
	if change != nil {
		change(&cfg)
	}
	w := &world{Webhooks: New(cfg), t: t, store: st}
	w.schedule = s
	return w
}

// start runs it until stop, or the end of the test.
func (w *world) start() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	w.stop = func() { cancel(); <-done }
	w.t.Cleanup(w.stop)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// put adds a webhook of a tenant, whose calls a receiver gets.
func (w *world) put(tenant, name, url string, r *receiver, kinds ...string) Info {
	w.t.Helper()
	i, _, err := w.Put(w.t.Context(), tenant, name, Spec{URL: url, Kinds: kinds}, "", false)
	w.must(err)
	if r != nil {
		r.expect(i.Secret)
	}
	return i
}

// step keeps that a domain of a tenant reached a step.
func (w *world) step(tenant, name string, n int) {
	w.t.Helper()
	w.happens(store.Event{Tenant: tenant, Kind: store.KindDomainStep, Name: name, Text: fmt.Sprint(n), After: json.RawMessage(`{"step":"live"}`)})
}

func (w *world) happens(events ...store.Event) {
	w.t.Helper()
	w.must(w.store.AppendEvents(w.t.Context(), events))
}

func (w *world) info(tenant, name string) Info {
	w.t.Helper()
	i, err := w.One(w.t.Context(), tenant, name)
	w.must(err)
	return i
}

// until waits for a webhook to be as it should.
func (w *world) until(tenant, name string, good func(Info) bool) Info {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		i := w.info(tenant, name)
		if good(i) {
			return i
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("webhook %s is still %+v", name, i)
		}
	}
}

// addTenants adds tenants.
func (w *world) addTenants(names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.must(w.store.AddTenant(w.t.Context(), store.Tenant{Name: name, Created: time.Now()}))
	}
}

// inOrder checks that what was taken of each domain came in its order, and all of it, repeated at most; and that each event
// had one id and one body at all tries.
func inOrder(t testing.TB, r *receiver, each int, names ...string) (repeated int) {
	t.Helper()
	all, taken := r.got()
	byID, bySeq := make(map[string]call), make(map[int64]string)
	for _, c := range all {
		if first, ok := byID[c.id]; ok && string(first.body) != string(c.body) {
			t.Errorf("call %s has two bodies:\n%s\n%s", c.id, first.body, c.body)
		}
		if id, ok := bySeq[c.Data.Seq]; ok && id != c.id {
			t.Errorf("event %d has the ids %s and %s", c.Data.Seq, id, c.id)
		}
		byID[c.id], bySeq[c.Data.Seq] = c, c.id
	}
	last, seen := make(map[string]int), make(map[string]bool)
	for _, c := range taken {
		var n int
		if _, err := fmt.Sscan(c.Data.Text, &n); err != nil {
			t.Fatalf("call %s", c.body)
		}
		if seen[c.id] {
			repeated++
			continue
		}
		seen[c.id] = true
		if n != last[c.Data.Name]+1 {
			t.Errorf("%s: %d came after %d", c.Data.Name, n, last[c.Data.Name])
		}
		last[c.Data.Name] = n
	}
	for _, name := range names {
		if last[name] != each {
			t.Errorf("%s: the last one taken is %d, want %d", name, last[name], each)
		}
	}
	if len(last) != len(names) {
		t.Errorf("calls about %v, want those about %v", last, names)
	}
	return repeated
}
