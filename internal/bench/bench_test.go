package main

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestRun has the whole of it work for a few domains, so that it is not found broken when somebody wants to measure.
func TestRun(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), []string{"-domains", "20", "-pairs", "2", "-requests", "50", "-idle", "1s", "-cold", "18"}, &out, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	// Each of 20 once, of two servers; 18 for the first time, beside 180; and 2 runs of 50 of three.
	for _, want := range []string{
		`(?m)^CPU a request +\d\S* +\d\S* +\d`, `(?m)^  a domain, idle +\d`, `(?m)^  p99 +\d`, `(?m)^538 requests, 0 errors$`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("the table lacks %q", want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-domains", "1"}, {"-fewer", "0"}, {"-cold", "0"}, {"-pairs", "0"}, {"-requests", "0"}, {"-clients", "0"}, {"-idle", "0s"}, {"now"}} {
		if _, err := parse(args, t.Output()); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// TestAsk: only the right certificate with the right policy counts as an answer.
func TestAsk(t *testing.T) {
	w, err := newWorld(2)
	if err != nil {
		t.Fatal(err)
	}
	good := w.targets()[0]
	good.text = "hello\r\n"
	answer := "HTTP/1.1 200 OK\r\n\r\nhello\r\n"
	for name, tt := range map[string]struct {
		serve  int
		answer string
		good   bool
	}{
		"right":               {0, answer, true},
		"another certificate": {1, answer, false},
		"another policy":      {0, "HTTP/1.1 200 OK\r\n\r\nother\r\n", false},
		"another status":      {0, "HTTP/1.1 404 Not Found\r\n\r\nhello\r\n", false},
		"cut off":             {0, answer[:len(answer)-1], false},
	} {
		t.Run(name, func(t *testing.T) {
			err := good.ask(t.Context(), answerOnce(t, w.domains[tt.serve], tt.answer))
			if (err == nil) != tt.good {
				t.Errorf("ask = %v", err)
			}
		})
	}
}

// answerOnce is a TLS server with the certificate of d that answers one request, whatever it is.
func answerOnce(t *testing.T, d domain, answer string) (addr string) {
	t.Helper()
	key, err := tls.X509KeyPair(pemOf(d))
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with its one connection, or the listener
		tcp, err := l.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(tcp, &tls.Config{Certificates: []tls.Certificate{key}})
		defer conn.Close()
		var request [1024]byte
		if _, err := conn.Read(request[:]); err == nil {
			_, _ = conn.Write([]byte(answer)) // the client says what it saw
		}
	}()
	return l.Addr().String()
}

func TestFireCountsFailures(t *testing.T) {
	w, err := newWorld(1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if o := fire(ctx, "127.0.0.1:1", w.targets(), 5, 2); o.requests != 5 || o.failed != 5 || o.first == nil {
		t.Errorf("fire counts %d requests, %d failures, %v", o.requests, o.failed, o.first)
	}
}

func TestParseStat(t *testing.T) {
	const stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0"
	if d, err := parseStat([]byte(stat)); d != 2*time.Second || err != nil {
		t.Errorf("parseStat = %v, %v, want 2s", d, err)
	}
	for _, bad := range []string{"", "42 (a) S 1", strings.Replace(stat, "150", "x", 1)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) succeeds", bad)
		}
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := parseStat(own); err != nil || d < 0 || d > time.Hour {
		t.Errorf("parseStat of this process = %v, %v", d, err)
	}
}

func TestParsePss(t *testing.T) {
	own, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := parsePss(own); err != nil || n < 1<<20 || n > 1<<32 {
		t.Errorf("parsePss of this process = %d, %v", n, err)
	}
	for _, bad := range []string{"", "Rss: 1 kB\n", "Pss: many kB\n"} {
		if _, err := parsePss([]byte(bad)); err == nil {
			t.Errorf("parsePss(%q) succeeds", bad)
		}
	}
}

func TestStatistics(t *testing.T) {
	sorted := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	if got := percentile(sorted, 0.99); got != 10 {
		t.Errorf("p99 = %d, want 10", got)
	}
	if got := percentile(sorted, 0.5); got != 6 {
		t.Errorf("p50 = %d, want 6", got)
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("p50 of nothing = %d", got)
	}
	if got := median([]float64{9, 1, 2, 4}); got != 3 {
		t.Errorf("median = %v, want 3", got)
	}
	if got := round(1234567 * time.Nanosecond); got != 1230*time.Microsecond {
		t.Errorf("round = %v, want 1.23ms", got)
	}
}
