package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// target is one policy host as a client sees it.
type target struct {
	host    string
	leaf    []byte // the certificate that has to come
	request string
	text    string // the policy that has to come
}

func (w *world) targets() []target {
	targets := make([]target, len(w.domains))
	for i, d := range w.domains {
		host := d.name.PolicyHost()
		targets[i] = target{
			host: host, leaf: d.certificate.Chain[0], text: w.policy.Text(),
			request: "GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench\r\n\r\n",
		}
	}
	return targets
}

// askTimeout ends a request that does not. It is long enough for a server that reads ten thousand certificates at start.
const askTimeout = 90 * time.Second

// ask does what a sender does: a full handshake, one GET, and away. It returns an error unless exactly the right
// certificate and the right policy came. As most senders do, it does not announce that it will close the connection.
func (t *target) ask(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var dialer net.Dialer
	tcp, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer tcp.Close()
	deadline, _ := ctx.Deadline()
	if err := tcp.SetDeadline(deadline); err != nil {
		return err
	}
	conn := tls.Client(tcp, &tls.Config{
		ServerName: t.host, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		CurvePreferences:   []tls.CurveID{tls.X25519},
		InsecureSkipVerify: true, // VerifyConnection is stricter, and costs the generator less
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.DidResume || !bytes.Equal(s.PeerCertificates[0].Raw, t.leaf) {
				return errors.New("another certificate came, or the session was resumed")
			}
			return nil
		},
	})
	if _, err := io.WriteString(conn, t.request); err != nil {
		return err
	}
	if err := t.check(conn); err != nil {
		return err
	}
	return conn.Close()
}

// check reads one answer. It is small enough to come in one or two TLS records, so there is no need to parse it as HTTP.
func (t *target) check(conn io.Reader) error {
	var buf [2048]byte
	for n := 0; n < len(buf); {
		read, err := conn.Read(buf[n:])
		n += read
		answer := string(buf[:n])
		switch {
		case strings.HasPrefix(answer, "HTTP/1.1 200 ") && strings.HasSuffix(answer, "\r\n\r\n"+t.text):
			return nil
		case err != nil:
			return fmt.Errorf("wrong answer %q: %w", answer, err)
		}
	}
	return fmt.Errorf("wrong answer: %q", buf)
}

// outcome is what a number of requests came to.
type outcome struct {
	requests int
	failed   int
	first    error           // of those that failed
	times    []time.Duration // of the requests, sorted
}

// fire has n requests made, by as many workers at once. Every target is asked, in random order, before one is again.
func fire(ctx context.Context, addr string, targets []target, n, workers int) outcome {
	order := rand.Perm(len(targets))
	o := outcome{requests: n, times: make([]time.Duration, n)}
	var next atomic.Int64
	var mu sync.Mutex // guards o.failed and o.first
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				t := &targets[order[i%len(order)]]
				began := time.Now()
				err := t.ask(ctx, addr)
				o.times[i] = time.Since(began)
				if err != nil {
					mu.Lock()
					if o.failed++; o.first == nil {
						o.first = fmt.Errorf("ask %s: %w", t.host, err)
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(o.times)
	return o
}

// percentile of sorted durations; p is 0 to 1.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}
