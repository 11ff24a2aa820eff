package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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

// certified waits until every node has so many certificates; one that failed is ordered again after 5 minutes.
func (c *cluster) certified(n int) {
	c.t.Helper()
	for _, m := range c.members {
		c.until("certificates of "+m.name, 5*time.Minute+patience, func() (bool, string) {
			o, err := m.admin.Certificates(context.Background())
			return err == nil && o.Valid == n, fmt.Sprint(o, err)
		})
	}
}

// logged is how much every node has said.
func (c *cluster) logged() map[*member]int {
	from := make(map[*member]int)
	for _, m := range c.members {
		from[m] = len(m.run.said())
	}
	return from
}

// other is a node that is not this one.
func (c *cluster) other(than *member) *member {
	if c.members[0] == than {
		return c.members[1]
	}
	return c.members[0]
}

// TestNodeKilledAtEachStep kills the node that works on a publication, in each step of it. The others take over.
func TestNodeKilledAtEachStep(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "Knot", zoned)
	c.lookOut(zoned)
	c.start(c.members...)
	id := c.members[0].live(zoned, "").ID
	c.certified(2)
	rests := func(step string) []string {
		return []string{`"msg":"domain rests"`, `"domain":"` + zoned + `"`, `"step":"` + step + `"`}
	}
	for i, s := range []struct {
		what   string
		said   []string
		before func()
		after  func(victim *member)
	}{
		// What it was at in that moment nobody touches before its lease is over, or an operator says that it is gone.
		{"serve", []string{`"msg":"serving a new policy"`}, func() {}, c.remove},
		{"settle", rests(publish.StepSettle), func() {}, func(*member) {}},
		{"txt", rests(publish.StepTXT), func() { c.api.set(shut) }, func(*member) { c.api.set(open) }},
		{"verify", rests(publish.StepVerify), func() { c.second.lag(t, "_mta-sts."+zoned) }, func(*member) { c.second.transfer() }},
	} {
		s.before()
		from := c.logged()
		c.change(fmt.Sprintf("mx%d.provider.test", i+2))
		for _, m := range c.members {
			m.reload()
		}
		victim := c.workerSince(from, s.said...)
		victim.run.kill()
		begun := time.Now()
		s.after(victim)
		id = c.other(victim).live(zoned, id).ID
		t.Logf("%s, which was killed in step %s, was stood in for after %s", victim.name, s.what, time.Since(begun).Round(time.Second))
		c.start(victim)
		victim.sees(zoned, "live and not tainted", func(s publish.Status) bool {
			id = s.ID
			return s.Step == publish.StepLive && len(s.Findings) == 0 && s.Policy == c.last()
		})
	}
	if got := c.orders.total(); got != 2 {
		t.Errorf("%d orders, want one for each of two names", got)
	}
}

// remove says that a node is gone, as soon as it is silent for long enough.
func (c *cluster) remove(m *member) {
	c.t.Helper()
	c.until(m.name+" removed", patience, func() (bool, string) {
		_, stderr, code := c.stspub("node", "remove", m.name, "--admin", "unix:"+c.path(c.other(m).name+".sock"))
		return code == 0, stderr
	})
}

// TestLease kills a node while it writes a record, and nobody says that it is gone. The others leave the record alone for
// as long as it could be at it still, and then take over.
func TestLease(t *testing.T) {
	t.Parallel()
	const lease = 4 * time.Minute
	c := newCluster(t, "BIND", zoned)
	c.lookOut(zoned)
	c.start(c.members...)
	id := c.members[0].live(zoned, "").ID
	c.api.set(stuck)
	c.change("mx2.provider.test")
	for _, m := range c.members {
		m.reload()
	}
	var victim *member
	c.until("a node writes", patience, func() (bool, string) {
		s, err := c.members[0].admin.Domain(context.Background(), zoned)
		victim = c.writer(zoned)
		return err == nil && s.Intended != "" && victim != nil, errText(err)
	})
	victim.run.kill()
	begun := time.Now()
	c.api.set(open)
	c.leave()
	s := c.other(victim).seesWithin(lease+patience, zoned, "live with a new id", func(s publish.Status) bool {
		return s.Step == publish.StepLive && s.ID != id && s.Policy == c.last()
	})
	// The claim began a settle time before it wrote, at most.
	if waited := time.Since(begun); waited < lease-settle-10*time.Second {
		t.Errorf("live with %s after %s, want the lease of the killed node left alone for %s", s.ID, waited, lease)
	}
	ids, err := c.books().IDs(t.Context(), "_mta-sts."+zoned)
	if err != nil || len(ids) < 2 || len(ids) > 3 {
		t.Errorf("ids %+v, %v; want one for each policy, and one more at most", ids, err)
	}
}

// writer is the node that has claimed a domain, or nil.
func (c *cluster) writer(domain string) *member {
	c.t.Helper()
	ctx := c.t.Context()
	conn, err := pgx.Connect(ctx, c.url)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close(ctx)
	var id string
	err = conn.QueryRow(ctx, `SELECT n.id FROM domains d JOIN nodes n ON n.holder = d.holder WHERE d.name = $1 AND d.claimed <> 0`, domain).Scan(&id)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		c.t.Fatal(err)
	}
	i := slices.IndexFunc(c.members, func(m *member) bool { return m.name == id })
	if i < 0 {
		return nil
	}
	return c.members[i]
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
