package packaging_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestImage builds the image, and runs it as docs/deploy.md and the compose files say, in networks of its own as Docker would.
func TestImage(t *testing.T) {
	if dir := os.Getenv(enclosed); dir != "" {
		runNodes(t, openEngine(dir), os.Getenv(checkedOut))
		return
	}
	e := newEngine(t)
	dir, commit := checkout(t, "v1.2.3")
	image := e.image(t, dir)
	d := newDocker(t, e, dir)
	prepare := section(t, "## Docker", "sh")
	if len(prepare) != 3 {
		t.Fatalf("%s: %d blocks of commands for docker", deploy, len(prepare))
	}
	d.sh(t, prepare[0], "token\n")
	p := project(t, dir, "compose.single.yaml")
	service := p.Services["stspub"]
	args := append([]string{"--network", "none"}, podmanArgs(t, p, service)...)
	once := append([]string{"run", "--rm"}, args...)

	t.Run("Version", func(t *testing.T) {
		got := run(t, e.podman(append(once, image, "version")...))
		if want := "stspub v1.2.3 " + commit + "\n"; got != want {
			t.Errorf("version: %q, want %q: nothing may be missing from the context, and nothing strange be in it", got, want)
		}
	})
	t.Run("Settings", func(t *testing.T) { checkSettings(t, e, image, service) })
	t.Run("UnitCommands", func(t *testing.T) {
		for _, command := range unitCommands(t) {
			run(t, e.podman(append(append(once, image), append(command, "--help")...)...))
		}
	})
	t.Run("NotHealthyWithoutServer", func(t *testing.T) {
		_, stderr, err := try(e.podman(append(append(once, image), service.HealthCheck.Test[2:]...)...))
		if exitCode(err) != 1 || !strings.Contains(stderr, "stspub serve") {
			t.Errorf("health check without a server: %v, want exit code 1\n%s", err, stderr)
		}
	})
	t.Run("PortsNeedTheSysctl", func(t *testing.T) {
		_, stderr, err := try(e.podman(append(once, "--sysctl", "net.ipv4.ip_unprivileged_port_start=1024", image)...))
		if exitCode(err) != 1 || !strings.Contains(stderr, "ip_unprivileged_port_start") {
			t.Errorf("serve where ports below 1024 are root's: %v, want exit code 1 and the name of the sysctl\n%s", err, stderr)
		}
	})
	t.Run("Docker", func(t *testing.T) {
		d.sh(t, prepare[1], "")
		e.awaitHealthy(t, "stspub")
		d.sh(t, prepare[2], "")
		backup := section(t, backingUp, "sh")
		d.sh(t, backup[2], "")
		if want := "docker run --rm --volumes-from stspub stspub restore "; !strings.Contains(backup[2], want) {
			t.Errorf("%s: %q is not in\n%s", deploy, want, backup[2])
		}
		e.serve(t, service, 1)
		run(t, e.podman("rm", "--force", "stspub"))
	})
	t.Run("OneNode", func(t *testing.T) {
		d.provide(t, service, image, args)
		blocks := section(t, "### One node", "sh")
		for _, block := range blocks {
			d.sh(t, block, "")
		}
		if len(blocks) != 2 {
			t.Errorf("%s: %d blocks of commands for one node", deploy, len(blocks))
		}
		e.serve(t, service, 2)
		run(t, e.podman("rm", "--force", "stspub"))
	})
	t.Run("Nodes", func(t *testing.T) { enclose(t, e, dir) })
}

// serve looks at the container stspub from inside and outside, so many times, with a restart between them.
func (e *engine) serve(t *testing.T, service types.ServiceConfig, times int) {
	t.Helper()
	stop := strconv.Itoa(int(time.Duration(*service.StopGracePeriod).Seconds()))
	for i := range times {
		if i > 0 {
			run(t, e.podman("start", "stspub"))
		}
		e.awaitHealthy(t, "stspub")
		run(t, e.podman("exec", "stspub", "stspub", "reload"))
		pid := e.inspect(t, "stspub", "{{.State.Pid}}")
		checkRights(t, pid, nobody)
		checkMounts(t, pid)
		checkPorts(t, pid, service)
		run(t, e.podman("stop", "--time", stop, "stspub"))
		if code := e.inspect(t, "stspub", "{{.State.ExitCode}}"); code != "0" {
			t.Errorf("exit code %s after stop, want 0\n%s", code, e.logs("stspub"))
		}
	}
}

// checkSettings compares what the image says of itself with what compose.single.yaml says of it.
func checkSettings(t *testing.T, e *engine, image string, service types.ServiceConfig) {
	type settings struct {
		Config struct {
			User         string
			ExposedPorts map[string]struct{}
			Volumes      map[string]struct{}
		}
		HealthCheck struct{ Test []string }
	}
	var images []settings
	if err := json.Unmarshal([]byte(run(t, e.podman("image", "inspect", image))), &images); err != nil || len(images) != 1 {
		t.Fatalf("%d images: %v", len(images), err)
	}
	got, want := images[0], settings{}
	want.Config.User = service.User
	want.Config.ExposedPorts = make(map[string]struct{})
	for _, port := range service.Ports {
		want.Config.ExposedPorts[fmt.Sprintf("%d/%s", port.Target, port.Protocol)] = struct{}{}
	}
	want.Config.Volumes = map[string]struct{}{"/run/stspub": {}, "/var/lib/stspub": {}}
	want.HealthCheck.Test = service.HealthCheck.Test
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("image (+) and compose.single.yaml (-) differ:\n%s", diff)
	}
	if service.User != fmt.Sprintf("%d:%d", nobody, nobody) {
		t.Errorf("user %q, want %d", service.User, nobody)
	}
}

func (e *engine) awaitHealthy(t *testing.T, container string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		_, stderr, err := try(e.podman("healthcheck", "run", container))
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not healthy after a minute: %v\n%s\n%s", err, stderr, e.logs(container))
		}
		if state := e.inspect(t, container, "{{.State.Status}}"); state != "running" {
			t.Fatalf("the container is %s\n%s", state, e.logs(container))
		}
	}
}

func (e *engine) inspect(t *testing.T, container, format string) string {
	t.Helper()
	return strings.TrimSpace(run(t, e.podman("inspect", "--format", format, container)))
}

func (e *engine) logs(container string) string {
	stdout, stderr, _ := try(e.podman("logs", container))
	return stdout + stderr
}

// checkRights looks at what the kernel says of the process: no root, no capability, none to be had.
func checkRights(t *testing.T, pid string, user int) {
	t.Helper()
	status := read(t, "/proc/"+pid+"/status")
	ids := strings.Repeat(fmt.Sprintf(`\s%d`, user), 4)
	for _, line := range []string{`Uid:` + ids, `Gid:` + ids, `CapEff:\s0+`, `CapPrm:\s0+`, `CapBnd:\s0+`, `NoNewPrivs:\s1`} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(status) {
			t.Errorf("the process has more rights than %s\n%s", line, status)
		}
	}
}

// checkMounts: there is nothing to write to but the volumes.
func checkMounts(t *testing.T, pid string) {
	t.Helper()
	writable := make(map[string]bool)
	for line := range strings.Lines(read(t, "/proc/"+pid+"/mountinfo")) {
		f := strings.Fields(line)
		if at, options := f[4], strings.Split(f[5], ","); options[0] == "rw" {
			writable[at] = true
		}
	}
	if writable["/"] || writable["/etc/stspub"] || writable["/run/secrets/cloudflare"] || !writable["/var/lib/stspub"] {
		t.Errorf("writable are %v, want the volumes and not the root, the configuration or the secret", writable)
	}
}

// checkPorts connects in the network of the container.
func checkPorts(t *testing.T, pid string, service types.ServiceConfig) {
	t.Helper()
	for _, port := range service.Ports {
		if port.Published != strconv.Itoa(int(port.Target)) {
			t.Errorf("port %d is published as %s; senders and CAs know no other port", port.Target, port.Published)
		}
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return dialIn(pid, 80) },
	}}
	resp, err := client.Get("http://mta-sts.example.org/.well-known/acme-challenge/unknown")
	if err != nil {
		t.Fatalf("port 80: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("port 80: a challenge nobody knows: %s, want 404", resp.Status)
	}
	conn, err := dialIn(pid, 443)
	if err != nil {
		t.Fatalf("port 443: %v", err)
	}
	defer conn.Close()
	err = tls.Client(conn, &tls.Config{ServerName: "mta-sts.example.org"}).HandshakeContext(t.Context())
	// RFC 6066, Section 3: there is no certificate yet.
	const want = "remote error: tls: unrecognized name"
	if err == nil || err.Error() != want {
		t.Errorf("port 443: TLS for a domain without a certificate: %v, want %s", err, want)
	}
}

// dialIn connects to a port of 127.0.0.1 in the network namespace of a process.
func dialIn(pid string, port int) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() { // ends with the connection made
		defer close(done)
		// The thread that enters the namespace is not given back: it ends with the goroutine.
		runtime.LockOSThread()
		var ns *os.File
		if ns, err = os.Open("/proc/" + pid + "/ns/net"); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), 10*time.Second)
		}
	}()
	<-done
	return conn, err
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
