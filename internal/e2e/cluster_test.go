package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// grace is the node_grace of these tests: not much longer than it takes a node to count as silent.
const grace = 20 * time.Second

// cluster is a world with three nodes on one PostgreSQL. A load balancer stands before them.
type cluster struct {
	*world
	server   *labtest.PostgreSQL
	url      string
	members  []*member
	policies []string // that were configured, the last one last
}

// member is one node.
type member struct {
	c     *cluster
	name  string
	ip    string
	line  *gate // to the database
	admin *httpd.Client
	run   *process
}

func newCluster(t *testing.T, kind string, domains ...string) *cluster {
	t.Helper()
	c := &cluster{world: newWorld(t, kind), server: labtest.StartPostgreSQL(t)}
	c.url = c.server.Database(t)
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
	rest = strings.Replace(rest, "[publish]\n", fmt.Sprintf("[publish]\nnode_grace = %q\n", grace), 1)
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
		m.run = launch(c.t, c.path(m.name+".log"), nil, "serve", "--config", c.path(m.name+".toml"))
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

// sender sees a domain's policy host at this node.
func (m *member) sender(domain string) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.c.ca.RootPEM)
	tr := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "mta-sts." + domain},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", m.ip+":8443")
		},
	}
	return &http.Client{Timeout: 2 * time.Second, Transport: tr}
}

// store opens the database directly.
func (c *cluster) store() store.Store {
	c.t.Helper()
	st, err := store.OpenPostgres(context.Background(), c.url, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = st.Close() })
	return st
}

// lookout is all senders of a cluster: they read the record, and ask every node for the policy. A node that serves an older
// policy than the id stands for that was read before is what must not be, but where it was given up.
type lookout struct {
	c      *cluster
	domain string

	mu      sync.Mutex // guards what follows
	ids     []string   // as they came
	seen    map[seen]time.Time
	first   map[at]time.Time
	excused map[*member]bool
	bad     []string
}

// seen is what a sender would file.
type seen struct {
	node, id, body string
	excused        bool
}

// at is where a policy is served.
type at struct{ node, body string }

// lookOut watches a domain until the test is over.
func (c *cluster) lookOut(domain string) *lookout {
	c.t.Helper()
	l := &lookout{c: c, domain: domain, seen: make(map[seen]time.Time), first: make(map[at]time.Time), excused: make(map[*member]bool)}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends by stop
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				l.round()
			}
		}
	}()
	c.t.Cleanup(func() {
		close(stop)
		<-done
		l.judge()
	})
	return l
}

// round does what a sender does that has nothing cached.
func (l *lookout) round() {
	values, err := lookupTXT(l.c.holder.dns(), "_mta-sts."+l.domain)
	if err != nil {
		return
	}
	id := l.record(sts(values))
	var looks sync.WaitGroup
	for _, m := range l.c.members {
		looks.Go(func() {
			if body, err := fetch(m.sender(l.domain), l.domain); err == nil { // else a sender asks another one
				l.note(m, id, body)
			}
		})
	}
	looks.Wait()
}

// record notes an answer of DNS.
func (l *lookout) record(records []string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(records) != 1 {
		if len(records) > 1 || len(l.ids) > 0 {
			l.bad = append(l.bad, fmt.Sprintf("%d records: %q", len(records), records))
		}
		return ""
	}
	id, _ := policygen.ParseRecord(strings.Trim(records[0], `"`))
	switch i := slices.Index(l.ids, id); {
	case i < 0:
		l.ids = append(l.ids, id)
	case i < len(l.ids)-1:
		l.bad = append(l.bad, "id "+id+" came back")
	}
	return id
}

func (l *lookout) note(m *member, id, body string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.first[at{m.name, body}].IsZero() {
		l.first[at{m.name, body}] = now
	}
	if s := (seen{m.name, id, body, l.excused[m]}); id != "" && l.seen[s].IsZero() {
		l.seen[s] = now
	}
}

// excuse has a node serve what it may, or no more.
func (l *lookout) excuse(m *member, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.excused[m] = yes
}

// spread is how long it took from the first node that served a policy to the last.
func (l *lookout) spread(body string) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var from, to time.Time
	for _, m := range l.c.members {
		t := l.first[at{m.name, body}]
		if t.IsZero() {
			return 0, false
		}
		if from.IsZero() || t.Before(from) {
			from = t
		}
		if t.After(to) {
			to = t
		}
	}
	return to.Sub(from), true
}

// judge compares what was seen with what the ids stand for.
func (l *lookout) judge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.c.store()
	written, err := st.IDs(context.Background(), policygen.Name(l.domain).RecordName())
	if err != nil {
		l.c.t.Error(err)
	}
	stands := make(map[string]string)
	for _, w := range written {
		stands[w.ID] = w.Text
	}
	for s, when := range l.seen {
		text, known := stands[s.id]
		if !known {
			l.bad = append(l.bad, "id "+s.id+" is in no book")
		}
		if old := slices.Index(l.c.policies, s.body); old < 0 || old < slices.Index(l.c.policies, text) && !s.excused {
			l.bad = append(l.bad, fmt.Sprintf("%s: %s served %q under id %s, which stands for %q", when.Format(time.StampMilli), s.node, s.body, s.id, text))
		}
	}
	for _, b := range l.bad[:min(len(l.bad), 5)] {
		l.c.t.Errorf("%s: %s", l.domain, b)
	}
	if len(l.ids) == 0 || len(l.seen) == 0 {
		l.c.t.Errorf("%s: nothing was ever seen", l.domain)
	}
}
