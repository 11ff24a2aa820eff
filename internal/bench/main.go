// Command bench measures what stspub costs to run, beside nginx doing the same work, and beside itself with fewer domains.
//
// A sender of mail does one full TLS handshake and one GET, and is gone, so that is the work: TLS 1.3 with X25519, no
// resumption, a certificate (ECDSA P-256) of its own for each of 100,000 policy hosts. stspub is the real binary with a
// store in which all domains are live; nginx, which takes minutes and gigabytes for as many, has a server block for each of
// the first 10,000, and everything switched off that costs time. One server at a time runs on the first CPU, whichever it
// is, and the clients on the second; runs alternate, so that what else happens on the machine meets all. CPU time is what
// /proc/PID/stat says of the server, the clients' is not in it. Start and memory are measured with all CPUs.
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
	domains, fewer, pairs, requests, clients, cold int
	idle, settle                                   time.Duration
	dir                                            string
	inline                                         bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.domains, "domains", 100_000, "how many domains there are, at least 2")
	f.IntVar(&o.fewer, "fewer", 10_000, "how many of them nginx has, and the stspub to compare with")
	f.IntVar(&o.pairs, "pairs", 40, "how many rounds of alternating runs")
	f.IntVar(&o.cold, "cold", 1000, "names that are asked for the first time while 500 requests a second go on")
	f.IntVar(&o.requests, "requests", 2000, "requests of one run")
	f.IntVar(&o.clients, "clients", 8, "connections at the same time")
	f.DurationVar(&o.idle, "idle", time.Minute, "how long the idle servers are watched")
	f.DurationVar(&o.settle, "settle", 15*time.Second, "how long a server has after its start to give back memory")
	f.BoolVar(&o.inline, "inline", false, "have nginx answer from its configuration, its fastest way, in place of a file for each policy")
	f.StringVar(&o.dir, "dir", "", "where the files go, and stay; default: a temporary directory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.domains < 2 || o.fewer < 1 || o.pairs < 1 || o.requests < 1 || o.clients < 1 || o.cold < 1 || o.idle < time.Second || f.NArg() > 0 {
		return o, errors.New("flags: domains from 2, fewer, pairs, requests, clients and cold from 1, idle from 1s, and no arguments")
	}
	o.fewer = min(o.fewer, o.domains)
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

// subject is one of those that are compared, with what was found.
type subject struct {
	world   *world
	targets []target // of the world
	prepare func(w *world, dir, addr string) (program, error)
	program program
	process *process

	unread   time.Duration // start to first good answer, before there is a copy of the certificates
	first    time.Duration // start to first good answer, median of three
	idle     int64         // bytes
	touched  int64
	idleTime time.Duration
	cpu      []time.Duration // a request, one a run
	p50, p99 []time.Duration
	cold     outcome
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
	stspub, fewer, nginx, err := b.prepare(ctx)
	if err != nil {
		return err
	}
	for _, s := range []*subject{stspub, fewer, nginx} {
		defer func() { s.stop() }()
	}
	if err := b.measure(ctx, stspub, fewer, nginx); err != nil {
		return err
	}
	b.report(stdout, stspub, fewer, nginx)
	return nil
}

// measure does everything, in the order of the report.
func (b *bench) measure(ctx context.Context, stspub, fewer, nginx *subject) error {
	if err := b.begin(ctx, stspub); err != nil {
		return err
	}
	if err := b.begin(ctx, nginx); err != nil {
		return err
	}
	for _, s := range []*subject{stspub, fewer, nginx} {
		if _, err := b.launch(ctx, s, b.serverCPU); err != nil {
			return err
		}
		if err := s.process.quiet(ctx); err != nil {
			return err
		}
	}
	if err := b.surprise(ctx, stspub); err != nil {
		return err
	}
	return b.compare(ctx, stspub, fewer, nginx)
}

// prepare builds and installs what is run.
func (b *bench) prepare(ctx context.Context) (stspub, fewer, nginx *subject, err error) {
	b.progress("building stspub")
	binary, err := buildStspub(ctx, b.dir)
	if err != nil {
		return nil, nil, nil, err
	}
	nginxBinary, err := findNginx(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	b.progress("making %d certificates", b.domains)
	if b.world, err = newWorld(b.domains); err != nil {
		return nil, nil, nil, err
	}
	dns, err := startDNS(ctx, b.world)
	if err != nil {
		return nil, nil, nil, err
	}
	ourselves := func(w *world, dir, addr string) (program, error) {
		return prepareStspub(ctx, w, binary, dir, addr, dns.Addr)
	}
	stspub = &subject{world: b.world, prepare: ourselves}
	fewer = &subject{world: b.world.first(b.fewer), prepare: ourselves}
	nginx = &subject{world: b.world.first(b.fewer), prepare: func(w *world, dir, addr string) (program, error) {
		return prepareNginx(w, nginxBinary, dir, addr, b.inline)
	}}
	for _, s := range []*subject{stspub, fewer, nginx} {
		if err := b.fill(ctx, s); err != nil {
			return nil, nil, nil, err
		}
	}
	b.pin(ctx)
	return stspub, fewer, nginx, nil
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
