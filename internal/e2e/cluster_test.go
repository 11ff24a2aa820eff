package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// grace is the node_grace of these tests: not much longer than it takes a node to count as silent.
const grace = 20 * time.Second

// places are for clusters at work: with more of them at the same time, nodes on two cores would miss their heartbeats.
var places = make(chan struct{}, 3)

// cluster is a world with three nodes on one PostgreSQL. A load balancer stands before them.
type cluster struct {
	*world
	server   *labtest.PostgreSQL
	url      string
	members  []*member
	policies []string          // that were configured, the last one last
	aliased  map[string]string // the records of domains that have them in the alias zone
	open     store.Store       // nil: not yet
	grace    time.Duration     // node_grace
	leave    func()            // gives its place to another cluster; it has nothing to do for long
}

// member is one node.
type member struct {
	c     *cluster
	name  string
	ip    string
	line  *gate // to the database
	admin *httpd.Client
	run   *process

	program string   // that it runs; empty: the one that all tests run
	env     []string // of it, beside that of the test
}

func newCluster(t *testing.T, kind string, domains ...string) *cluster {
	t.Helper()
	places <- struct{}{}
	leave := sync.OnceFunc(func() { <-places })
	t.Cleanup(leave)
	c := &cluster{world: newWorld(t, kind), server: labtest.StartPostgreSQL(t), grace: grace, leave: leave}
	c.url = c.server.Database(t)
	t.Cleanup(func() {
		if c.open != nil {
			_ = c.open.Close()
		}
	})
	for i := range 3 {
		m := &member{c: c, name: fmt.Sprintf("node%d", i+1), ip: loopback(t)}
		m.line = newGate(t, "127.0.0.1:0", fmt.Sprintf("127.0.0.1:%d", c.server.Port))
		m.admin = httpd.NewClient("unix:" + c.path(m.name+".sock"))
		c.members = append(c.members, m)
	}
	c.balance(t)
	c.settings.domains = domains
	c.change("mx1.provider.test")
	return c
}

// change writes another MX into the files of all nodes.
func (c *cluster) change(mx string) {
	c.t.Helper()
	if !slices.Contains(c.settings.mx, mx) {
		c.settings.mx = append(c.settings.mx, mx)
	}
	c.policies = append(c.policies, c.policy("enforce", strings.TrimSuffix(c.settings.maxAge, "s")))
	c.configure()
	_, rest, _ := strings.Cut(string(c.read("stspub.toml")), "[acme.lab]")
	_, port, _ := net.SplitHostPort(c.outside.addr)
	rest = strings.Replace(rest, "https_port = "+port, "https_port = 8443", 1)
	rest = strings.Replace(rest, "[publish]\n", fmt.Sprintf("[publish]\nnode_grace = %q\n", c.grace), 1)
	for _, m := range c.members {
		server := fmt.Sprintf("[server]\nhostname = %q\nhttps = \"%[2]s:8443\"\nhttp = \"%[2]s:8080\"\nhealth = \"%[2]s:8081\"\n", hostname, m.ip)
		server += fmt.Sprintf("admin = \"unix:%s\"\nnode = %q\nlinger = \"1s\"\n", c.path(m.name+".sock"), m.name)
		server += fmt.Sprintf("[store]\nurl = %q\n", strings.Replace(c.url, fmt.Sprintf("127.0.0.1:%d", c.server.Port), m.line.addr, 1))
		c.file(m.name+".toml", server+"[acme.lab]"+rest)
	}
}

func (c *cluster) read(name string) []byte {
	c.t.Helper()
	b, err := os.ReadFile(c.path(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// last is the policy that was configured last.
func (c *cluster) last() string { return c.policies[len(c.policies)-1] }

// start starts nodes, and returns when they serve.
func (c *cluster) start(members ...*member) {
	c.t.Helper()
	for _, m := range members {
		m.run = launchProgram(c.t, cmp.Or(m.program, binary()), m.env, c.path(m.name+".log"), nil, "serve", "--config", c.path(m.name+".toml"))
	}
	for _, m := range members {
		m.said(`"msg":"serving"`)
	}
}

// said waits until the running node has logged a line with all parts.
func (m *member) said(parts ...string) {
	m.c.t.Helper()
	m.c.until(m.name+" says "+strings.Join(parts, " … "), patience, func() (bool, string) {
		select {
		case <-m.run.done:
			m.c.t.Fatalf("%s ended: %v\n%s", m.name, m.run.err, m.run.said())
		default:
		}
		for line := range strings.Lines(m.run.said()) {
			if containsAll(line, parts) {
				return true, ""
			}
		}
		said := m.run.said()
		return false, said[max(0, len(said)-3000):]
	})
}

// stop ends a node as systemd does.
func (m *member) stop() {
	m.c.t.Helper()
	if err := m.run.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.c.t.Fatal(err)
	}
	if code := m.run.end(m.c.t); code != 0 {
		m.c.t.Fatalf("%s: exit code %d after SIGTERM, want 0\n%s", m.name, code, m.run.said())
	}
}

// reload has a node take its file.
func (m *member) reload() {
	m.c.t.Helper()
	if _, err := m.admin.Reload(context.Background(), ""); err != nil {
		m.c.t.Fatalf("%s: %v\n%s", m.name, err, m.run.said())
	}
}

// sees waits until a node's answer about a domain is as wanted.
func (m *member) sees(domain, what string, good func(publish.Status) bool) publish.Status {
	m.c.t.Helper()
	return m.seesWithin(patience, domain, what, good)
}

func (m *member) seesWithin(limit time.Duration, domain, what string, good func(publish.Status) bool) publish.Status {
	m.c.t.Helper()
	var s publish.Status
	m.c.until(fmt.Sprintf("%s at %s %s", domain, m.name, what), limit, func() (bool, string) {
		var err error
		s, err = m.admin.Domain(context.Background(), domain)
		said := m.run.said()
		return err == nil && good(s), fmt.Sprintf("step %s, id %q, intended %q, %v: %s, %v\n%s", s.Step, s.ID, s.Intended, s.Findings, s.Reason, err,
			said[max(0, len(said)-2000):])
	})
	return s
}

// live waits until a domain is live with another id under the last policy.
func (m *member) live(domain, before string) publish.Status {
	m.c.t.Helper()
	return m.liveWithin(patience, domain, before)
}

func (m *member) liveWithin(limit time.Duration, domain, before string) publish.Status {
	m.c.t.Helper()
	return m.seesWithin(limit, domain, "live with a new id", func(s publish.Status) bool {
		return s.Step == publish.StepLive && s.ID != "" && s.ID != before && s.Intended == "" && s.Policy == m.c.last()
	})
}

// ready is the status of /readyz.
func (m *member) ready() int {
	resp, err := (&http.Client{Timeout: 8 * time.Second}).Get("http://" + m.ip + ":8081/readyz")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// books opens the database directly, once.
func (c *cluster) books() store.Store {
	c.t.Helper()
	if c.open == nil {
		st, err := store.OpenPostgres(context.Background(), c.url, nil)
		if err != nil {
			c.t.Fatal(err)
		}
		c.open = st
	}
	return c.open
}
