package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/publish"
)

// workerSince waits until some node has logged a line with all parts, after what it had said before, and returns it.
func (c *cluster) workerSince(from map[*member]int, parts ...string) *member {
	c.t.Helper()
	var found *member
	c.until("a node says "+strings.Join(parts, " … "), patience, func() (bool, string) {
		for _, m := range c.members {
			for line := range strings.Lines(m.run.said()[from[m]:]) {
				if containsAll(line, parts) {
					found = m
				}
			}
		}
		return found != nil, "none does"
	})
	return found
}

// certified waits until every node has both certificates; one that failed is ordered again after 5 minutes.
func (c *cluster) certified() {
	c.t.Helper()
	for _, m := range c.members {
		c.until("certificates of "+m.name, 5*time.Minute+patience, func() (bool, string) {
			o, err := m.admin.Certificates(context.Background())
			return err == nil && o.Valid == 2, fmt.Sprint(o, err)
		})
	}
}

// TestNodeKilledAtEachStep kills the node that works on a publication, in each step of it. The others take over.
func TestNodeKilledAtEachStep(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "Knot", zoned)
	c.lookOut(zoned)
	c.start(c.members...)
	id := c.members[0].live(zoned, "").ID
	c.certified()
	rests := func(step string) []string {
		return []string{`"msg":"domain rests"`, `"domain":"` + zoned + `"`, `"step":"` + step + `"`}
	}
	for i, s := range []struct {
		what   string
		said   []string
		before func()
		after  func()
	}{
		{"serve", []string{`"msg":"serving a new policy"`}, func() {}, func() {}},
		{"settle", rests(publish.StepSettle), func() {}, func() {}},
		{"txt", rests(publish.StepTXT), func() { c.api.set(shut) }, func() { c.api.set(open) }},
		{"write", []string{`"msg":"wrote record"`}, func() {}, func() {}},
		{"verify", rests(publish.StepVerify), func() { c.second.lag(t, "_mta-sts."+zoned) }, func() { c.second.transfer() }},
	} {
		s.before()
		from := make(map[*member]int)
		for _, m := range c.members {
			from[m] = len(m.run.said())
		}
		c.change(fmt.Sprintf("mx%d.provider.test", i+2))
		for _, m := range c.members {
			m.reload()
		}
		victim := c.workerSince(from, s.said...)
		victim.run.kill()
		s.after()
		begun := time.Now()
		other := c.members[0]
		if other == victim {
			other = c.members[1]
		}
		// What it was at in that moment nobody touches before its lease is over, 4 minutes.
		id = other.liveWithin(4*time.Minute+patience, zoned, id).ID
		t.Logf("%s, which was killed in step %s, was stood in for after %s", victim.name, s.what, time.Since(begun).Round(time.Second))
		c.start(victim)
		victim.sees(zoned, "live and not tainted", func(s publish.Status) bool {
			id = s.ID
			return s.Step == publish.StepLive && len(s.Findings) == 0 && s.Policy == c.last()
		})
	}
	if got := c.orders.Load(); got != 2 {
		t.Errorf("%d orders, want one for each of two names", got)
	}
}

// TestRollingRestart restarts one node after the other behind the load balancer. No sender is turned away.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "BIND", zoned)
	c.start(c.members...)
	id := c.members[0].live(zoned, "").ID
	c.until("all ready", patience, func() (bool, string) {
		for _, m := range c.members {
			if m.ready() != http.StatusOK {
				return false, m.name + " is not"
			}
		}
		return true, ""
	})
	tick := time.NewTicker(300 * time.Millisecond) // until the load balancer has seen it
	<-tick.C
	<-tick.C
	tick.Stop()
	stop := make(chan struct{})
	var senders sync.WaitGroup
	var mu sync.Mutex
	asked, failed := 0, []error(nil)
	for range 4 {
		client := c.world.sender(zoned)
		client.Transport.(*http.Transport).DisableKeepAlives = true
		senders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				body, err := fetch(client, zoned)
				mu.Lock()
				if asked++; err != nil || body != c.last() {
					failed = append(failed, fmt.Errorf("%q, %w", body, err))
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range c.members {
		m.stop()
		c.start(m)
		c.until(m.name+" ready", patience, func() (bool, string) { return m.ready() == http.StatusOK, "not ready" })
		wait := time.NewTimer(500 * time.Millisecond) // the load balancer is to take senders there before the next one stops
		<-wait.C
	}
	close(stop)
	senders.Wait()
	t.Logf("%d senders asked meanwhile", asked)
	if len(failed) > 0 || asked < 100 {
		t.Errorf("%d of %d senders were turned away: %v", len(failed), asked, failed[:min(3, len(failed))])
	}
	if s := c.members[0].live(zoned, ""); s.ID != id {
		t.Errorf("id %s after the restarts, want %s as before", s.ID, id)
	}
}
