package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// lookout is all senders of a domain of a cluster: they read the record, and ask every node for the policy. What must not
// be:
//   - two MTA-STS records, or none after there was one, or an id that comes back (RFC 8461, Section 3.1);
//   - a node that serves an older policy than the id stands for that was read before, or none, but where it was given up;
//   - an id that comes before its policy was served everywhere for the settle time;
//   - a policy that is not the domain's, or an id that is in no book.
type lookout struct {
	c        *cluster
	domain   string
	policies func() []string // that were configured, the last one last
	clients  map[*member]*http.Client

	mu      sync.Mutex           // guards what follows
	ids     []string             // as they came
	came    map[string]time.Time // when they did
	seen    map[seen]time.Time
	first   map[at]time.Time // when an answer came first
	asked   map[at]time.Time // when it was asked for last, by nodes that are not given up
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

// lookOut watches a domain of the configuration file until the test is over, by a new handshake each time.
func (c *cluster) lookOut(domain string) *lookout {
	c.t.Helper()
	return c.lookOutFor(domain, 20*time.Millisecond, func() []string { return c.policies })
}

// lookOutFor watches any domain, so often. Who has many of them to watch keeps the connections.
func (c *cluster) lookOutFor(domain string, every time.Duration, policies func() []string) *lookout {
	c.t.Helper()
	l := &lookout{
		c: c, domain: domain, policies: policies, clients: make(map[*member]*http.Client), came: make(map[string]time.Time),
		seen: make(map[seen]time.Time), first: make(map[at]time.Time), asked: make(map[at]time.Time), excused: make(map[*member]bool),
	}
	for _, m := range c.members {
		l.clients[m] = m.sender(domain, every >= 100*time.Millisecond)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends by stop
		defer close(done)
		tick := time.NewTicker(every)
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

// sender sees a domain's policy host at this node.
func (m *member) sender(domain string, keeps bool) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.c.ca.RootPEM)
	tr := &http.Transport{
		DisableKeepAlives: !keeps,
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "mta-sts." + domain},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", m.ip+":8443")
		},
	}
	m.c.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Timeout: 2 * time.Second, Transport: tr}
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
			asked := time.Now()
			body, err := fetch(l.clients[m], l.domain)
			l.note(m, id, body, asked, err)
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
		l.came[id] = time.Now()
	case i < len(l.ids)-1:
		l.bad = append(l.bad, "id "+id+" came back")
	}
	return id
}

// note notes what a node answered. From one that does not answer, a sender goes to another.
func (l *lookout) note(m *member, id, body string, asked time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, where, excused := time.Now(), at{m.name, body}, l.excused[m]
	if err != nil {
		if id != "" && !excused && answered(err) {
			l.bad = append(l.bad, fmt.Sprintf("%s: %s under id %s: %v", now.Format(time.StampMilli), m.name, id, err))
		}
		return
	}
	if l.first[where].IsZero() {
		l.first[where] = now
	}
	if !excused {
		l.asked[where] = asked
	}
	if s := (seen{m.name, id, body, excused}); id != "" && l.seen[s].IsZero() {
		l.seen[s] = now
	}
}

// answered says that a node answered and had no policy, which is what senders remember.
func answered(err error) bool {
	for _, what := range []string{"HTTP ", "unrecognized name", "x509: "} {
		if strings.Contains(err.Error(), what) {
			return true
		}
	}
	return false
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
	written, err := l.c.books().IDs(context.Background(), l.owner())
	if err != nil {
		l.c.t.Error(err)
	}
	stands := make(map[string]string)
	for _, w := range written {
		stands[w.ID] = w.Text
	}
	policies := l.policies()
	for s, when := range l.seen {
		text, known := stands[s.id]
		if !known {
			l.bad = append(l.bad, "id "+s.id+" is in no book")
		}
		if old := slices.Index(policies, s.body); old < 0 || old < slices.Index(policies, text) && !s.excused {
			l.bad = append(l.bad, fmt.Sprintf("%s: %s served %q under id %s, which stands for %q", when.Format(time.StampMilli), s.node, s.body, s.id, text))
		}
	}
	for id, came := range l.came {
		for where, asked := range l.asked {
			if slices.Index(policies, where.body) < slices.Index(policies, stands[id]) && came.Sub(asked) < settle {
				l.bad = append(l.bad, fmt.Sprintf("id %s came %s after %s had served an older policy than %q, want at least %s", id,
					came.Sub(asked), where.node, stands[id], settle))
			}
		}
	}
	for _, b := range l.bad[:min(len(l.bad), 5)] {
		l.c.t.Errorf("%s: %s", l.domain, b)
	}
	if len(l.ids) == 0 || len(l.seen) == 0 {
		l.c.t.Errorf("%s: nothing was ever seen", l.domain)
	}
}

// owner is the name where the record is.
func (l *lookout) owner() string {
	if record, ok := l.c.aliased[l.domain]; ok {
		return record
	}
	return policygen.Name(l.domain).RecordName()
}
