// Command bench measures what stspub costs to run, beside nginx doing the same work.
//
// A sender of mail does one full TLS handshake and one GET, and is gone, so that is the work: TLS 1.3 with X25519, no
// resumption, a certificate (ECDSA P-256) of its own for each of 10,000 policy hosts. stspub is the real binary with a
// store in which all domains are live; nginx has a server block for each, and everything switched off that costs time.
// One server runs on the first CPU, whichever it is, and the clients on the second; runs alternate, so that what else
// happens on the machine meets both. CPU time is what /proc/PID/stat says of the server, the clients' is not in it.
//
// Run it with "make bench", or "go run ./internal/bench -help". It installs Debian's nginx-light if there is none. The
// exit code is 1 if a request failed or was answered wrongly; targets that are missed are only said, since a busy
// machine may miss them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	domains, pairs, requests, clients int
	idle                              time.Duration
	dir                               string
	inline                            bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.domains, "domains", 10_000, "how many domains there are, at least 2")
	f.IntVar(&o.pairs, "pairs", 5, "how many pairs of alternating runs")
	f.IntVar(&o.requests, "requests", 10_000, "requests of one run")
	f.IntVar(&o.clients, "clients", 8, "connections at the same time")
	f.DurationVar(&o.idle, "idle", time.Minute, "how long the idle servers are watched")
	f.BoolVar(&o.inline, "inline", false, "have nginx answer from its configuration, its fastest way, in place of a file for each policy")
	f.StringVar(&o.dir, "dir", "", "where the files go, and stay; default: a temporary directory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.domains < 2 || o.pairs < 1 || o.requests < 1 || o.clients < 1 || o.idle < time.Second || f.NArg() > 0 {
		return o, errors.New("flags: domains from 2, pairs, requests and clients from 1, idle from 1s, and no arguments")
	}
	return o, nil
}

// bench is one run of everything.
type bench struct {
	options
	progress                func(format string, args ...any)
	world                   *world
	serverCPU, generatorCPU int // -1: not pinned
	requests, failed        int // made so far
}

// subject is one of the two that are compared, with what was found.
type subject struct {
	prepare func(w *world, dir, addr string) (program, error)
	process *process

	alone    int64 // bytes with a single domain
	first    time.Duration
	idle     int64
	touched  int64
	idleTime time.Duration
	cpu      []time.Duration // a request, one a run
	p50, p99 []time.Duration
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	b := &bench{options: o, serverCPU: -1, generatorCPU: -1}
	b.progress = func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "stspub-bench-"); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		defer os.RemoveAll(b.dir)
	}
	stspub, nginx, err := b.prepare(ctx)
	if err != nil {
		return err
	}
	for _, s := range []*subject{stspub, nginx} {
		if err := b.begin(ctx, s); err != nil {
			return err
		}
		defer s.process.stop()
	}
	if err := b.compare(ctx, stspub, nginx); err != nil {
		return err
	}
	b.report(stdout, stspub, nginx)
	return nil
}

// prepare builds and installs what is run.
func (b *bench) prepare(ctx context.Context) (stspub, nginx *subject, err error) {
	b.progress("building stspub")
	binary, err := buildStspub(ctx, b.dir)
	if err != nil {
		return nil, nil, err
	}
	nginxBinary, err := findNginx(ctx)
	if err != nil {
		return nil, nil, err
	}
	b.progress("making %d certificates", b.domains)
	if b.world, err = newWorld(b.domains); err != nil {
		return nil, nil, err
	}
	dns, err := startDNS(ctx, b.world)
	if err != nil {
		return nil, nil, err
	}
	b.pin(ctx)
	stspub = &subject{prepare: func(w *world, dir, addr string) (program, error) {
		return prepareStspub(ctx, w, binary, dir, addr, dns.Addr)
	}}
	nginx = &subject{prepare: func(w *world, dir, addr string) (program, error) {
		return prepareNginx(w, nginxBinary, dir, addr, b.inline)
	}}
	return stspub, nginx, nil
}

// pin gives this process the second CPU, and the servers the first. Where that is not possible, all share what there is.
func (b *bench) pin(ctx context.Context) {
	debug.SetGCPercent(400) // clients that do not wait for themselves
	if runtime.NumCPU() < 2 {
		return
	}
	cmd := exec.CommandContext(ctx, "taskset", "-a", "-c", "-p", "1", strconv.Itoa(os.Getpid()))
	if out, err := cmd.CombinedOutput(); err != nil {
		b.progress("not pinned to CPUs: %v: %s", err, out)
		return
	}
	runtime.GOMAXPROCS(1)
	b.serverCPU, b.generatorCPU = 0, 1
}

// launch prepares and starts one server for a world, and returns the time from its start to its first good answer.
func (b *bench) launch(ctx context.Context, s *subject, w *world) (time.Duration, error) {
	dir, err := os.MkdirTemp(b.dir, "server-")
	if err != nil {
		return 0, fmt.Errorf("make directory: %w", err)
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return 0, err
	}
	p, err := s.prepare(w, dir, addr)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if s.process, err = p.start(b.serverCPU); err != nil {
		return 0, err
	}
	target := w.targets()[len(w.domains)-1]
	retry := time.NewTicker(2 * time.Millisecond)
	defer retry.Stop()
	for {
		err := target.ask(ctx, addr)
		if err == nil {
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
		case <-s.process.ended:
		case <-retry.C:
			if time.Since(began) < 5*time.Minute {
				continue
			}
		}
		s.process.stop()
		return 0, fmt.Errorf("no answer from %s: %w\n%s", p.name, err, s.process.said())
	}
}

// freeAddr is one that nobody listens at, at this moment.
func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// begin measures a server with a single domain, then starts it with all, and asks for each once.
func (b *bench) begin(ctx context.Context, s *subject) error {
	one := b.world.first(1)
	if _, err := b.launch(ctx, s, one); err != nil {
		return err
	}
	err := s.process.quiet(ctx)
	if err == nil {
		err = b.fire(ctx, s, one, 1, &s.alone)
	}
	s.process.stop()
	if err != nil {
		return err
	}
	b.progress("starting %s with %d domains", s.process.name, b.domains)
	if s.first, err = b.launch(ctx, s, b.world); err != nil {
		return err
	}
	if err = s.process.quiet(ctx); err == nil {
		s.idle, err = s.process.memory()
	}
	if err == nil {
		b.progress("asking %s for every domain once", s.process.name)
		err = b.fire(ctx, s, b.world, b.domains, &s.touched)
	}
	if err != nil {
		s.process.stop()
	}
	return err
}

// fire makes requests, and notes the memory that the server has then.
func (b *bench) fire(ctx context.Context, s *subject, w *world, n int, memory *int64) error {
	if err := b.note(fire(ctx, s.process.addr, w.targets(), n, b.clients), s); err != nil {
		return err
	}
	var err error
	*memory, err = s.process.memory()
	return err
}

// note counts requests; an error is that of one that failed.
func (b *bench) note(o outcome, s *subject) error {
	b.requests += o.requests
	b.failed += o.failed
	if o.first != nil {
		return fmt.Errorf("%d of %d requests to %s failed: %w\n%s", o.failed, o.requests, s.process.name, o.first, s.process.said())
	}
	return nil
}

// compare has the servers take turns, and then watches them idle.
func (b *bench) compare(ctx context.Context, subjects ...*subject) error {
	targets := b.world.targets()
	for pair := range b.pairs {
		b.progress("pair %d of %d", pair+1, b.pairs)
		for _, s := range subjects {
			before, err := s.process.cpu()
			if err != nil {
				return err
			}
			o := fire(ctx, s.process.addr, targets, b.options.requests, b.clients)
			if err := b.note(o, s); err != nil {
				return err
			}
			after, err := s.process.cpu()
			if err != nil {
				return err
			}
			s.cpu = append(s.cpu, (after-before)/time.Duration(b.options.requests))
			s.p50 = append(s.p50, percentile(o.times, 0.50))
			s.p99 = append(s.p99, percentile(o.times, 0.99))
		}
	}
	return b.watch(ctx, subjects)
}

// watch measures what the servers do while nobody asks.
func (b *bench) watch(ctx context.Context, subjects []*subject) error {
	b.progress("watching both idle for %v", b.idle)
	before := make([]time.Duration, len(subjects))
	var err error
	for i, s := range subjects {
		if before[i], err = s.process.cpu(); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.idle):
	}
	for i, s := range subjects {
		after, err := s.process.cpu()
		if err != nil {
			return err
		}
		s.idleTime = after - before[i]
	}
	return nil
}
