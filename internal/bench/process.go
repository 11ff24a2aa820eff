package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// program is a server that can be started.
type program struct {
	name string
	addr string // it will listen there
	dir  string // of its files
	args []string
}

// process is a running program.
type process struct {
	program
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has
}

// start starts a program, on one CPU alone or, if cpu is negative, on all, whichever this process has.
func (p program) start(cpu int) (*process, error) {
	cpus := strconv.Itoa(cpu)
	if cpu < 0 {
		cpus = "0-" + strconv.Itoa(runtime.NumCPU()-1)
	}
	args := append([]string{"taskset", "-c", cpus}, p.args...) // which becomes the program, with its pid
	log, err := os.Create(filepath.Join(p.dir, p.name+".log"))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	defer log.Close() // the program has its own
	r := &process{program: p, cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() { // ends with the program
		_ = r.cmd.Wait()
		close(r.ended)
	}()
	return r, nil
}

// stop ends the program and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// said is the end of what the program logged.
func (p program) said() string {
	var said []byte
	for _, name := range []string{p.name + ".log", "error.log"} {
		b, err := os.ReadFile(filepath.Join(p.dir, name))
		if err == nil {
			said = append(said, b[max(0, len(b)-2000):]...)
		}
	}
	return string(said)
}

// pids are those of the program and its children.
func (p *process) pids() []string {
	pids := []string{strconv.Itoa(p.cmd.Process.Pid)}
	files, _ := filepath.Glob("/proc/" + pids[0] + "/task/*/children")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err == nil {
			pids = append(pids, strings.Fields(string(b))...)
		}
	}
	return pids
}

// tick is the unit of times in /proc, USER_HZ, which is 100 on all architectures that we run on.
const tick = 10 * time.Millisecond

// cpu is the time that the program and its children spent on a CPU so far, in user and kernel mode.
func (p *process) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range p.pids() {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return 0, fmt.Errorf("read CPU time of %s: %w", p.name, err)
		}
		d, err := parseStat(b)
		if err != nil {
			return 0, fmt.Errorf("read CPU time of %s: %w", p.name, err)
		}
		sum += d
	}
	return sum, nil
}

// parseStat returns utime and stime together. They are the 12th and 13th field after the command's name, which stands in
// parentheses and may hold anything: proc_pid_stat(5).
func parseStat(stat []byte) (time.Duration, error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("too few fields in /proc/PID/stat")
	}
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse /proc/PID/stat: %w", err)
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// memory is the proportional set size in bytes: what processes share is counted once.
func (p *process) memory() (int64, error) {
	var sum int64
	for _, pid := range p.pids() {
		b, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		if err != nil {
			return 0, fmt.Errorf("read memory of %s: %w", p.name, err)
		}
		n, err := parsePss(b)
		if err != nil {
			return 0, fmt.Errorf("read memory of %s: %w", p.name, err)
		}
		sum += n
	}
	return sum, nil
}

func parsePss(rollup []byte) (int64, error) {
	for line := range strings.Lines(string(rollup)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse Pss: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, errors.New("no Pss in smaps_rollup")
}

// quiet waits until the program has done what it does after its start: two seconds with next to no work.
func (p *process) quiet(ctx context.Context) error {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	calm := 0
	last, err := p.cpu()
	for end := time.Now().Add(2 * time.Minute); err == nil && calm < 2; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ended:
			return fmt.Errorf("%s ended:\n%s", p.name, p.said())
		case <-every.C:
		}
		var now time.Duration
		now, err = p.cpu()
		if calm++; now-last > 2*tick {
			calm = 0
		}
		last = now
		if time.Now().After(end) {
			return fmt.Errorf("%s is not quiet 2 minutes after its start:\n%s", p.name, p.said())
		}
	}
	return err
}
