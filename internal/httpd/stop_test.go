package httpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func stateFor(sni string) *tls.ConnectionState { return &tls.ConnectionState{ServerName: sni} }

// try does what a sender does: a new connection, one request, and away.
func (w *world) try(ctx context.Context, host string, protos ...string) error {
	d := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: w.ca.roots, NextProtos: protos}}
	conn, err := d.DialContext(ctx, "tcp", w.secure)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", policyPath, host); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	defer resp.Body.Close()
	return goodPolicy(resp)
}

// try2 is try over HTTP/2.
func (w *world) try2(ctx context.Context, t testing.TB, host string) error {
	tr := w.http2(t, host)
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+policyPath, nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return goodPolicy(resp)
}

func goodPolicy(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if resp.StatusCode != http.StatusOK || string(body) != textA {
		return fmt.Errorf("got %s with %q", resp.Status, body)
	}
	return nil
}

// TestRestartsLoseNoRequest lets one server after the other serve the same socket, as under systemd's socket activation,
// while clients come with new connections. What waits at the socket is the next server's, what was accepted must be
// answered by the one that accepted it.
func TestRestartsLoseNoRequest(t *testing.T) {
	t.Parallel()
	const restarts, between, clients = 15, 25, 8
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := socket.(*net.TCPListener).File() // stays open through all restarts
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_ = socket.Close()

	w := newPublic(t, nil)
	w.secure = socket.Addr().String()
	var asked atomic.Int64
	answered := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var hammering sync.WaitGroup
	for i := range clients {
		hammering.Go(func() {
			for ctx.Err() == nil {
				// The request has a context of its own: those under way at the end count too.
				one, done := context.WithTimeout(context.Background(), 20*time.Second)
				err := w.tryEither(one, t, i%2 == 0)
				done()
				if err != nil {
					t.Errorf("request %d: %v", asked.Load(), err)
					return
				}
				asked.Add(1)
				select {
				case answered <- struct{}{}:
				default:
				}
			}
		})
	}
	for range restarts {
		before := asked.Load()
		stop := w.serveFile(t, file)
		for asked.Load() < before+between && !t.Failed() {
			<-answered
		}
		stop()
	}
	stop := w.serveFile(t, file)
	cancel()
	hammering.Wait()
	stop()
	if n := asked.Load(); n < restarts*between {
		t.Errorf("only %d requests over %d restarts", n, restarts)
	}
}

func (w *world) tryEither(ctx context.Context, t testing.TB, http2 bool) error {
	if http2 {
		return w.try2(ctx, t, "mta-sts.a.example")
	}
	return w.try(ctx, "mta-sts.a.example")
}

// serveFile starts another server with the same policies and certificates on the socket.
func (w *world) serveFile(t *testing.T, file *os.File) (stop func()) {
	t.Helper()
	ln, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPublic(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return background(t, func(ctx context.Context) error { return p.Run(ctx, ln, nil) })
}

// TestStopAnswersWhatWasAccepted holds connections in each early state while the server stops. This is golang/go#75591:
// http.Server.Shutdown alone would drop all of these requests.
func TestStopAnswersWhatWasAccepted(t *testing.T) {
	t.Parallel()
	accepted := make(chan struct{}, 10)
	w := newPublic(t, nil)
	const host = "mta-sts.a.example"
	secure := listen(t)
	w.secure = secure.Addr().String()
	stop := background(t, func(ctx context.Context) error {
		return w.Public.Run(ctx, &noticing{secure, accepted}, nil)
	})

	silent, err := net.Dial("tcp", w.secure) // no hello yet
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	shaken := w.dial(t, host) // no request yet
	half := w.dial(t, host)   // part of a request
	if _, err := io.WriteString(half, "GET "+policyPath+" HTTP/1.1\r\nHost: "); err != nil {
		t.Fatal(err)
	}
	idle := w.dial(t, host) // answered once, and nothing since
	if got := raw(t, idle, "GET", "GET "+policyPath+" HTTP/1.1\nHost: "+host+"\n\n"); got.status != 200 {
		t.Fatalf("before the stop = %d", got.status)
	}
	for range 4 {
		<-accepted
	}

	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	// The idle connection is closed as the first thing after the listener: the stop is under way.
	if _, err := io.Copy(io.Discard, idle); err != nil {
		t.Errorf("idle connection: %v, want its end", err)
	}
	if _, err := net.Dial("tcp", w.secure); err == nil {
		t.Error("the stopping server takes a new connection")
	}
	if got := raw(t, half, "GET", host+"\n\n"); got.status != 200 || got.body != textA {
		t.Errorf("half a request = %d %q, want the policy", got.status, got.body)
	}
	got := raw(t, shaken, "GET", "GET "+policyPath+" HTTP/1.1\nHost: "+host+"\n\n")
	if got.status != 200 || !got.closes {
		t.Errorf("request after the handshake = %d, closing: %v, want 200 and true", got.status, got.closes)
	}
	late := tls.Client(silent, &tls.Config{ServerName: host, RootCAs: w.ca.roots})
	if got := raw(t, late, "GET", "GET "+policyPath+" HTTP/1.1\nHost: "+host+"\n\n"); got.status != 200 {
		t.Errorf("handshake during the stop = %d, want 200", got.status)
	}
	<-stopped
}

// TestStopDoesNotWaitForever has a request that does not end by itself.
func TestStopDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan struct{}), make(chan struct{})
	var log logBuffer
	s := newServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	}), 10, slog.New(slog.NewTextHandler(&log, nil)))
	s.drainTime = 100 * time.Millisecond
	ln := listen(t)
	stop := background(t, func(ctx context.Context) error { return s.Run(ctx, ln) })
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	stop()
	<-ended
	if !strings.Contains(log.String(), "closed connections that were still busy") {
		t.Errorf("the log has %q, want word of the connection that was cut", log.String())
	}
}

// noticing tells of every connection that was accepted.
type noticing struct {
	net.Listener
	accepted chan<- struct{}
}

func (n *noticing) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if err == nil {
		n.accepted <- struct{}{}
	}
	return conn, err
}

func TestRunReportsALostListener(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil)
	secure, plain := listen(t), listen(t)
	done := make(chan error, 1)
	go func() { done <- w.Public.Run(t.Context(), secure, plain) }()
	_ = secure.Close()
	if err := <-done; err == nil {
		t.Error("Run after its listener was lost = nil, want an error")
	}
	if _, err := net.Dial("tcp", plain.Addr().String()); err == nil {
		t.Error("the other listener is still open")
	}
}
