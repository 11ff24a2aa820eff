// Package httpd holds the HTTP servers of stspub, and the client of one of them.
//
// The public one, [Public], is what the sending mail servers of the world see. A sender that finds an _mta-sts TXT
// record for example.org fetches https://mta-sts.example.org/.well-known/mta-sts.txt. RFC 8461 asks little of the
// answer, but means it (Sections 3.3, 7.1, 7.2): TLS 1.2 or newer, a certificate for exactly that host or no handshake,
// status 200 and nothing else, no redirect ever. What goes wrong here is silent: a sender without a cached policy just
// delivers without protection. So an answer depends on nothing but memory, and one domain's policy is never given under
// another's name: the Host decides what is answered, and must be the name that the TLS handshake was for.
//
// Beside it there are the admin listener ([NewAdmin]), which the commands talk to through [Client], and a plain health
// listener for load balancers ([NewHealth]).
//
// Listeners are opened by the caller, with [Listen], so that a taken port is reported before anything has begun.
package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// drainTime is how long a stopping server waits for its connections. It is below the 10 seconds that container runtimes
// give before they kill, and above idleTimeout, after which a silent connection closes by itself.
const drainTime = 8 * time.Second

// idleTimeout ends connections that ask nothing more. A sender asks once, and an idle connection holds some 37 KB.
const idleTimeout = 5 * time.Second

// A Server serves one listener until it is told to stop, and then finishes what was begun.
type Server struct {
	http      http.Server
	maxConns  int
	drainTime time.Duration
	log       *slog.Logger
	// open counts accepted connections that are not closed yet.
	open sync.WaitGroup
	// closeIdle ends idle connections that http does not know to be idle; nil: there are none.
	closeIdle func()
	// stopping is closed when the server is told to stop, for answers that would not end by themselves.
	stopping chan struct{}
}

// newServer returns a server with all limits set for small requests without bodies.
func newServer(h http.Handler, maxConns int, log *slog.Logger) *Server {
	s := &Server{maxConns: maxConns, drainTime: drainTime, log: log, stopping: make(chan struct{})}
	s.http = http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second, // also bounds the TLS handshake
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          newErrorLog(log, nil),
		ConnState:         s.count,
		// OPTIONS * is for the handler to refuse like everything else.
		DisableGeneralOptionsHandler: true,
	}
	return s
}

// count is called by http.Server for every connection when it was accepted and when it was closed.
func (s *Server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.open.Done()
	}
}

// Run serves ln, by TLS where the server has certificates, until ctx ends, then answers all that was accepted and returns nil. It closes ln. A server runs once.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	if s.http.TLSConfig != nil {
		return s.run(ctx, ln, func(ln net.Listener) error { return s.http.ServeTLS(ln, "", "") })
	}
	return s.run(ctx, ln, s.http.Serve)
}

func (s *Server) run(ctx context.Context, ln net.Listener, serve func(net.Listener) error) error {
	ln = netutil.LimitListener(ln, s.maxConns)
	served := make(chan error, 1)
	go func() { served <- serve(ln) }() // ends when ln is closed

	select {
	case err := <-served:
		s.close()
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	close(s.stopping)
	s.closing(ln.Close())
	<-served
	s.drain()
	return nil
}

// drain lets the connections that were accepted get their answers. Shutdown alone does not: it drops requests that it
// reads after it was called (golang/go#75591). So it comes last, when nothing is open.
func (s *Server) drain() {
	s.http.SetKeepAlivesEnabled(false)
	if s.closeIdle != nil {
		s.closeIdle()
	}
	empty := make(chan struct{})
	go func() { // ends with the last connection
		s.open.Wait()
		close(empty)
	}()
	select {
	case <-empty:
	case <-time.After(s.drainTime):
		s.log.Warn("closed connections that were still busy")
	}
	s.close() // which also ends the contexts of requests still under way
}

func (s *Server) close() { s.closing(s.http.Close()) }

// closing logs what closing said, because nobody can do anything about it.
func (s *Server) closing(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		s.log.Debug("closed listener", "err", err)
	}
}
