package packaging_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
)

// The environment of the tests that run enclosed: where the engine is, and the checkout.
const (
	enclosed   = "STSPUB_TEST_ENGINE"
	checkedOut = "STSPUB_TEST_CHECKOUT"
)

// patience is how long anything may take, on a crowded machine.
const patience = 90 * time.Second

// enclose runs the test that calls it once more, in a network of its own: the addresses of compose.yaml may be somebody's.
func enclose(t *testing.T, e *engine, checkout string) {
	t.Helper()
	p := project(t, checkout, "compose.yaml")
	e.others(t, p.Services["balancer"].Image, p.Services["database"].Image)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), enclosed+"="+e.dir, checkedOut+"="+checkout)
	for name, value := range lab.CAEnviron() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Run(); err != nil {
		t.Fatalf("in a network of its own: %v", err)
	}
}

// cluster is compose.yaml, running, and the world around it: a CA, Cloudflare, and a resolver that knows its zones.
type cluster struct {
	*docker
	*types.Project
	ca         *lab.CA
	cloudflare *labtest.Cloudflare
	balancer   string // its address
}

// runNodes does what docs/deploy.md says of two nodes, on the network of compose.yaml, with its configuration. A sender
// fetches the policy all the time.
func runNodes(t *testing.T, e *engine, checkout string) {
	c := &cluster{docker: newDocker(t, e, checkout), Project: project(t, checkout, "compose.yaml")}
	c.balancer = c.Services["balancer"].Networks["default"].Ipv4Address
	host := strings.Replace(c.Networks["default"].Ipam.Config[0].Subnet, ".0/", ".1/", 1)
	bridge(t, host)
	host, _, _ = strings.Cut(host, "/")
	c.world(t, host)
	two := section(t, "### Two nodes", "sh")
	if len(two) != 4 {
		t.Fatalf("%s: %d blocks of commands for two nodes", deploy, len(two))
	}
	c.sh(t, two[0], c.cloudflare.Token+"\n")
	c.configure(t, host)
	c.attach(t)
	t.Cleanup(func() { run(t, e.podman("rm", "--force", "--time", "0", "--all")) }) // before their networks

	c.sh(t, two[1], "")
	for name, user := range map[string]int{"balancer": 99, "database": 999, "node1": nobody, "node2": nobody} {
		checkRights(t, e.inspect(t, name, "{{.State.Pid}}"), user)
	}
	checkMounts(t, e.inspect(t, "node1", "{{.State.Pid}}"))
	c.until(t, "published", func() error {
		if len(c.record()) == 0 {
			return fmt.Errorf("no record; node1 says\n%s", e.logs("node1"))
		}
		return c.fetch()
	})
	before := c.record()
	sender := c.send(t)
	said := c.sh(t, two[2], "")
	for _, name := range nodes {
		if want := name + "  " + c.Services[name].Networks["default"].Ipv4Address + ":443"; !strings.Contains(said, want) {
			t.Errorf("node list does not say %q:\n%s", want, said)
		}
	}
	var old []string
	for _, name := range nodes {
		old = append(old, e.inspect(t, name, "{{.Id}}"))
	}
	c.sh(t, two[3], "")
	for i, name := range nodes {
		if e.inspect(t, name, "{{.Id}}") == old[i] {
			t.Errorf("%s was not replaced", name)
		}
	}
	sender.all(t, "while the nodes were replaced one after the other")

	c.sh(t, "docker compose stop database", "")
	for _, name := range nodes {
		c.ready(t, name, http.StatusServiceUnavailable)
	}
	sender.all(t, "without the database")
	c.sh(t, "docker compose start database", "")
	for _, name := range nodes {
		c.ready(t, name, http.StatusOK)
	}
	sender.all(t, "until the database was back")
	sender.stop()

	backup := section(t, backingUp, "sh")
	for _, block := range backup[len(backup)-2:] {
		if !strings.Contains(block, "docker compose ") {
			t.Errorf("%s: not of compose: %s", deploy, block)
		}
		c.sh(t, block, "")
	}
	c.until(t, "served again", c.fetch)
	if after := c.record(); len(after) != 1 || after[0] != before[0] {
		t.Errorf("after the copy was put back the record is %q, want %q as before", after, before)
	}
}

// world starts what is around the nodes, and sets the records of docs/deploy.md.
func (c *cluster) world(t *testing.T, host string) {
	t.Helper()
	c.cloudflare = labtest.StartCloudflare(t, "example.org", "example.com", "example.net")
	for _, name := range []string{"mta-sts.example.com", "mta-sts.example.org", "mx1.example.net"} {
		c.cloudflare.Put(name, "A", c.balancer)
	}
	c.cloudflare.Put("example.org", "MX", "10 mx1.example.net.")
	resolve := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if r, err := dns.Exchange(q, c.cloudflare.DNS.Addr); err == nil {
			_ = w.WriteMsg(r) // who asked asks again
		}
	})
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		s := &dns.Server{Addr: host + ":53", Net: network, Handler: resolve, NotifyStartedFunc: func() { close(started) }}
		go func() { // ends by Shutdown
			if err := s.ListenAndServe(); err != nil {
				t.Error(err)
			}
		}()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	var err error
	if c.ca, err = lab.StartCA(t.Context(), lab.CAOptions{DNS: c.cloudflare.DNS.Addr}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.ca.Close() })
}

// configure edits config/stspub.toml as to where the CA, Cloudflare and DNS are, and has an id not wait for long.
func (c *cluster) configure(t *testing.T, host string) {
	t.Helper()
	path := filepath.Join(c.checkout, "config/stspub.toml")
	text := read(t, path)
	for old, mine := range map[string]string{
		`"https://acme-v02.api.letsencrypt.org/directory"`: fmt.Sprintf("%q\nca_file = \"ca.pem\"", c.ca.DirectoryURL),
		`provider = "cloudflare"`:                          fmt.Sprintf("provider = \"cloudflare\"\napi_url = %q", c.cloudflare.URL),
	} {
		if strings.Count(text, old) != 1 {
			t.Fatalf("nodes.toml has not one %s", old)
		}
		text = strings.Replace(text, old, mine, 1)
	}
	text += fmt.Sprintf("[dns]\nresolvers = [%[1]q]\nstub = { \".\" = [%[1]q] }\n[publish]\nsettle = \"1s\"\n[check]\nca_file = \"ca.pem\"\n", host)
	write(t, path, text, 0o644)
	write(t, filepath.Join(c.checkout, "config/ca.pem"), string(c.ca.RootPEM)+string(c.ca.DirectoryCAPEM), 0o644)
}

// attach gives every service its network, and podman what it needs.
func (c *cluster) attach(t *testing.T) {
	t.Helper()
	_, bits, _ := strings.Cut(c.Networks["default"].Ipam.Config[0].Subnet, "/")
	for _, name := range []string{"balancer", "database", "node1", "node2"} {
		s := c.Services[name]
		args, image := podmanArgs(t, c.Project, s), "docker.io/library/"+s.Image
		if s.Build != nil {
			image = "localhost/" + s.Image
		} else {
			args = append(ofThisMachine(), args...)
		}
		network := s.NetworkMode
		if network == "" {
			in := newSpace(t)
			in.join(t, name, s.Networks["default"].Ipv4Address+"/"+bits)
			network = "ns:" + in.path
			for _, at := range []string{c.ca.DirectoryURL, c.cloudflare.URL} {
				u, err := url.Parse(at)
				if err != nil {
					t.Fatal(err)
				}
				in.reach(t, u.Host)
			}
		}
		if s.Hostname != "" { // as Docker has it in /etc/hosts
			args = append(args, "--add-host", s.Hostname+":"+s.Networks["default"].Ipv4Address)
		}
		c.provide(t, s, image, append([]string{"--network", network}, args...))
	}
}

// record is what DNS has.
func (c *cluster) record() []string { return c.cloudflare.Contents("_mta-sts.example.org", "TXT") }

// fetch gets the policy through the balancer as a sender does.
func (c *cluster) fetch() error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.ca.RootPEM)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, c.balancer+":443")
		},
	}}
	resp, err := client.Get("https://mta-sts.example.org/.well-known/mta-sts.txt")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	const want = "version: STSv1\r\nmode: testing\r\nmax_age: 86400\r\nmx: mx1.example.net\r\nmx: mx2.example.net\r\n"
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != want) {
		err = fmt.Errorf("%s: %q", resp.Status, body)
	}
	return err
}

// until waits for something to be good.
func (c *cluster) until(t *testing.T, what string, good func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		err := good()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not %s within %v: %v\n%s", what, patience, err, c.e.logs("balancer"))
		}
	}
}

// ready waits until a node says at /readyz what is wanted.
func (c *cluster) ready(t *testing.T, node string, want int) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	c.until(t, fmt.Sprintf("at /readyz of %s: %d", node, want), func() error {
		resp, err := client.Get("http://" + c.Services[node].Networks["default"].Ipv4Address + ":8081/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != want {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
}

// sender fetches the policy again and again.
type sender struct {
	stop func()

	mu     sync.Mutex // guards what follows
	good   int
	failed []error
}

func (c *cluster) send(t *testing.T) *sender {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	s := &sender{stop: func() { cancel(); <-done }}
	go func() { // ends by stop, or with the test
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := c.fetch()
			s.mu.Lock()
			if err == nil {
				s.good++
			} else {
				s.failed = append(s.failed, fmt.Errorf("%s: %w", time.Now().Format(time.StampMilli), err))
			}
			s.mu.Unlock()
		}
	}()
	t.Cleanup(s.stop)
	return s
}

// all says that nothing has failed since it was asked last.
func (s *sender) all(t *testing.T, when string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("%s: %d fetches", when, s.good)
	if s.good == 0 || len(s.failed) > 0 {
		t.Errorf("%s: %d good fetches, %d failed: %v", when, s.good, len(s.failed), s.failed[:min(len(s.failed), 3)])
	}
	s.good, s.failed = 0, nil
}
