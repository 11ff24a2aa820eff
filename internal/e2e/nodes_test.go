package e2e_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/publish"
)

// soon is how long it may take until all nodes serve what one does: a tenth of that where nothing else runs.
const soon = 10 * time.Second

// TestNodesServeTheSame has three nodes publish, and a change taken by one node after the other. Each name is ordered once.
func TestNodesServeTheSame(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "Knot", zoned)
	look := c.lookOut(zoned)
	c.start(c.members...)
	one := c.members[0]
	id := one.live(zoned, "").ID
	for i, mx := range []string{"mx2.provider.test", "mx3.provider.test"} {
		c.change(mx)
		c.members[i].reload()
		id = c.members[2-i].live(zoned, id).ID
		took, all := look.spread(c.last())
		if !all || took > soon {
			t.Errorf("change %d: all nodes serve it: %t, after %s", i, all, took)
		}
		t.Logf("change %d was served by all after %s", i, took)
		for _, m := range c.members {
			m.reload()
		}
	}
	c.certified(2)
	if got := c.orders.total(); got != 2 {
		t.Errorf("%d orders, want one for each of two names", got)
	}
	out := c.must("node", "list", "--admin", "unix:"+c.path("node2.sock"))
	for _, m := range c.members {
		if !strings.Contains(out, m.name+"  "+m.ip+":8443") {
			t.Errorf("node list says\n%s, and nothing of %s", out, m.name)
		}
	}
	for _, m := range c.members {
		m.stop()
	}
	nodes, err := c.books().Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Deregistered.IsZero() {
			t.Errorf("%s has stopped, and is not deregistered", n.ID)
		}
	}
}

// TestNodeWithAnOldFile undoes nothing.
func TestNodeWithAnOldFile(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "BIND", zoned)
	c.lookOut(zoned)
	c.start(c.members...)
	one, two := c.members[0], c.members[1]
	id := one.live(zoned, "").ID
	c.change("mx2.provider.test")
	one.reload()
	id = one.live(zoned, id).ID
	two.run.kill()
	old := strings.Replace(string(c.read("node2.toml")), `, "mx2.provider.test"`, "", 1)
	c.file("node2.toml", old)
	c.start(two)
	for _, m := range c.members[1:] {
		c.until("fault of "+m.name, patience, func() (bool, string) {
			faults, err := m.admin.Faults(context.Background())
			return strings.HasPrefix(faults["configuration of nodes"], `node "node1" took a configuration`), strings.Join([]string{faults["configuration of nodes"]}, "") + errText(err)
		})
	}
	if s := one.live(zoned, ""); s.ID != id {
		t.Errorf("id %s, want %s as before the old file came", s.ID, id)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestNodeCutOff pulls the cable of one node to the database while the others publish.
func TestNodeCutOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "Knot", zoned)
	look := c.lookOut(zoned)
	c.start(c.members...)
	one, three := c.members[0], c.members[2]
	id := one.live(zoned, "").ID
	c.until("ready", patience, func() (bool, string) { return three.ready() == http.StatusOK, "not ready" })

	three.line.drops.Store(true)
	begun := time.Now()
	c.change("mx2.provider.test")
	one.reload()
	c.members[1].reload()
	one.sees(zoned, "waits for the node", func(s publish.Status) bool {
		return s.Step == publish.StepBody && strings.Contains(s.Reason, `node "node3"`)
	})
	c.until("node3 not ready", patience, func() (bool, string) { return three.ready() == http.StatusServiceUnavailable, "ready" })
	if body, err := fetch(three.sender(zoned, false), zoned); err != nil || body != c.policies[0] {
		t.Errorf("the node that is cut off serves %q, %v; want what it had", body, err)
	}
	look.excuse(three, true) // it will be given up
	tainted := one.sees(zoned, "live without the node", func(s publish.Status) bool {
		return s.Step == publish.StepLive && s.ID != id && s.Policy == c.last() && len(s.Findings) > 0
	})
	if waited := time.Since(begun); waited < grace-3*time.Second || tainted.Findings[0].Code != "tainted" {
		t.Errorf("published after %s, with %+v", waited, tainted.Findings)
	}
	faults, err := one.admin.Faults(t.Context())
	if err != nil || !strings.Contains(faults["node node3"], "run: stspub node remove node3") {
		t.Errorf("faults = %q, %v", faults, err)
	}

	three.line.drops.Store(false)
	three.line.set(open) // what was on the way is lost
	c.until("node3 ready", patience, func() (bool, string) { return three.ready() == http.StatusOK, "not ready" })
	if body, err := fetch(three.sender(zoned, false), zoned); err != nil || body != c.last() {
		t.Errorf("the node that is back and ready serves %q, %v", body, err)
	}
	look.excuse(three, false)
	healed := one.live(zoned, tainted.ID)
	if len(healed.Findings) > 0 {
		t.Errorf("findings of the healed record: %+v", healed.Findings)
	}
}

// TestNodeRemoved declares a node gone that was killed.
func TestNodeRemoved(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "BIND", zoned)
	c.lookOut(zoned)
	c.start(c.members...)
	one, two := c.members[0], c.members[1]
	id := one.live(zoned, "").ID
	if _, stderr, code := c.stspub("node", "remove", "node3", "--admin", "unix:"+c.path("node1.sock")); code != 1 || !strings.Contains(stderr, "so it lives") {
		t.Errorf("removed a node that lives: %d, %s", code, stderr)
	}
	c.members[2].run.kill()
	c.change("mx2.provider.test")
	one.reload()
	two.reload()
	c.until("node3 lost", patience, func() (bool, string) {
		faults, err := one.admin.Faults(context.Background())
		return faults["node node3"] != "", errText(err)
	})
	c.must("node", "remove", "node3", "--admin", "unix:"+c.path("node1.sock"))
	s := two.live(zoned, id)
	if len(s.Findings) > 0 {
		t.Errorf("findings: %+v", s.Findings)
	}
	c.start(c.members[2])
	if body, err := fetch(c.members[2].sender(zoned, false), zoned); err != nil || body != c.last() {
		t.Errorf("the node that is back serves %q, %v", body, err)
	}
}

// TestDatabaseStops has the database away for a minute in the middle of publications. Serving goes on all the time, and the
// publications when it is back.
func TestDatabaseStops(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "Knot", 4)
	f.start(f.members...)
	f.enter()
	f.begin(func() {})
	f.certified(f.domains() + 1) // or an order is cut off, and made again
	from := f.logged()
	f.change()
	f.workerSince(from, `"msg":"serving a new policy"`)
	f.server.Stop()
	begun := time.Now()
	for _, m := range f.members {
		f.until(m.name+" not ready", patience, func() (bool, string) { return m.ready() == http.StatusServiceUnavailable, "ready" })
	}
	clients := make(map[*member]map[string]*http.Client)
	for _, m := range f.members {
		clients[m] = make(map[string]*http.Client)
		for d := range f.aliased {
			clients[m][d] = m.sender(d, false)
		}
	}
	served := 0
	f.until("a minute is over", 2*time.Minute, func() (bool, string) {
		for _, tn := range f.tenants {
			for _, m := range f.members {
				d := tn.domains[served%len(tn.domains)]
				if body, err := fetch(clients[m][d], d); err != nil || !slices.Contains(tn.policies, body) {
					t.Errorf("%s without the database serves for %s %q, %v", m.name, d, body, err)
				}
				served++
			}
		}
		return t.Failed() || time.Since(begun) > time.Minute, ""
	})
	f.server.Restart(t)
	back := time.Now()
	for _, m := range f.members {
		f.until(m.name+" ready", patience, func() (bool, string) { return m.ready() == http.StatusOK, "not ready" })
	}
	f.live(patience, 0)
	t.Logf("%d policies were served meanwhile; all domains were live %s after the database was back", served, time.Since(back).Round(time.Second))
	f.change()
	f.live(patience, 0)
	f.audit()
}
