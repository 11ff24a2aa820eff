package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// fill makes the files of a server.
func (b *bench) fill(ctx context.Context, s *subject) error {
	dir, err := os.MkdirTemp(b.dir, "server-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	s.targets = s.world.targets()
	s.program, err = s.prepare(s.world, dir, addr)
	return err
}

// launch starts a server, on one CPU alone unless cpu is negative, and returns the time from its start to its first good
// answer.
func (b *bench) launch(ctx context.Context, s *subject, cpu int) (time.Duration, error) {
	target := s.targets[len(s.targets)-1]
	var err error
	began := time.Now()
	if s.process, err = s.program.start(cpu); err != nil {
		return 0, err
	}
	retry := time.NewTicker(2 * time.Millisecond)
	defer retry.Stop()
	for {
		err := target.ask(ctx, s.program.addr)
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
		s.stop()
		return 0, fmt.Errorf("no answer from %s: %w\n%s", s.program.name, err, s.program.said())
	}
}

// stop ends a server that runs.
func (s *subject) stop() {
	if s.process != nil {
		s.process.stop()
		s.process = nil
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

// begin measures the start of a server, the first and the median of the next three, and the memory that it has idle and when each domain was
// asked for once. All CPUs are for it.
func (b *bench) begin(ctx context.Context, s *subject) error {
	defer s.stop()
	b.progress("starting %s with %d domains", s.program.name, len(s.world.domains))
	var err error
	if s.unread, err = b.launch(ctx, s, -1); err != nil {
		return err
	}
	if err = s.process.quiet(ctx); err != nil {
		return err
	}
	starts := make([]time.Duration, 3)
	for i := range starts {
		s.stop()
		if starts[i], err = b.launch(ctx, s, -1); err != nil {
			return err
		}
	}
	s.first = slices.Sorted(slices.Values(starts))[1]
	settled := time.After(b.settle)
	if err = s.process.quiet(ctx); err != nil {
		return err
	}
	<-settled
	if s.idle, err = s.process.memory(); err != nil {
		return err
	}
	b.progress("asking %s for every domain once", s.program.name)
	o := fire(ctx, s.program.addr, s.targets, len(s.world.domains), b.clients)
	if err := b.note(o, s); err != nil {
		return err
	}
	s.touched, err = s.process.memory()
	return err
}

// note counts requests; an error is that of one that failed.
func (b *bench) note(o outcome, s *subject) error {
	b.requests += o.requests
	b.failed += o.failed
	if o.first != nil {
		return fmt.Errorf("%d of %d requests to %s failed: %w\n%s", o.failed, o.requests, s.program.name, o.first, s.program.said())
	}
	return nil
}

const (
	otherRate = 500 // requests a second that go on while others come for the first time
	coldRate  = 50
)

// surprise has names asked for that nobody asked for since the start, while many others are.
func (b *bench) surprise(ctx context.Context, s *subject) error {
	targets := slices.Clone(s.targets)
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	warm := targets[:max(1, len(targets)/100)]
	cold := targets[len(warm):]
	cold = cold[:min(len(cold), b.cold)]
	b.progress("asking %s for %d domains for the first time", s.program.name, len(cold))
	span := time.Duration(len(cold)) * time.Second / coldRate
	var others outcome
	var both sync.WaitGroup
	both.Go(func() { others = pace(ctx, s.program.addr, warm, max(1, int(span.Seconds()*otherRate)), otherRate) })
	s.cold = pace(ctx, s.program.addr, cold, len(cold), coldRate)
	both.Wait()
	if err := b.note(others, s); err != nil {
		return err
	}
	return b.note(s.cold, s)
}

// pace has n requests made at a steady rate a second, whether or not those before have their answers.
func pace(ctx context.Context, addr string, targets []target, n, rate int) outcome {
	o := outcome{requests: n, times: make([]time.Duration, n)}
	var mu sync.Mutex // guards o.failed and o.first
	var all sync.WaitGroup
	began := time.Now()
	for i := range n {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(due)):
		}
		all.Go(func() {
			t := &targets[i%len(targets)]
			err := t.ask(ctx, addr)
			o.times[i] = time.Since(due)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				if o.failed++; o.first == nil {
					o.first = fmt.Errorf("ask %s: %w", t.host, err)
				}
			}
		})
	}
	all.Wait()
	slices.Sort(o.times)
	return o
}

// compare has the servers take turns, and then watches them idle.
func (b *bench) compare(ctx context.Context, subjects ...*subject) error {
	for round := range b.pairs {
		b.progress("round %d of %d", round+1, b.pairs)
		for _, s := range subjects {
			before, err := s.process.cpu()
			if err != nil {
				return err
			}
			o := fire(ctx, s.program.addr, s.targets, b.options.requests, b.clients)
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
	b.progress("watching all idle for %v", b.idle)
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
