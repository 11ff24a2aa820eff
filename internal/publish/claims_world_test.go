package publish_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// proofs says where policy hosts lead: all to the targets in ok, or as hosts has it.
type proofs struct {
	mu    sync.Mutex
	ok    map[string]bool   // targets
	hosts map[string]string // by policy host
	texts map[string]string // by challenge
	looks []time.Time
	world *world // answers challenges too
}

func (p *proofs) Prove(_ context.Context, want publish.Proof) publish.Proven {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks = append(p.looks, time.Now())
	seen := publish.Proven{Zone: "example"}
	target := p.hosts[want.PolicyHost]
	if p.ok[want.Target] {
		target = want.Target
	}
	if target != "" {
		seen.Hosts = []publish.Led{{Chain: []string{target}}}
	}
	texts := []string{p.texts[want.Challenge]}
	if p.world != nil {
		texts = append(texts, p.world.at(want.Challenge)...)
	}
	seen.Texts = [][]string{texts}
	return seen
}

func (p *proofs) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func claimsWorld(t *testing.T) (*world, *proofs) {
	w := newWorld(t)
	seen := &proofs{ok: make(map[string]bool), hosts: make(map[string]string), texts: make(map[string]string)}
	w.prover = seen
	return w, seen
}

func (w *world) claim(tenant string, name policygen.Name) publish.Claim {
	w.t.Helper()
	c, err := w.rec.Claim(w.ctx, tenant, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// unclaimed says that there is no claim any more.
func (w *world) unclaimed(tenant string, name policygen.Name) {
	w.t.Helper()
	if c, err := w.rec.Claim(w.ctx, tenant, name); !errors.Is(err, store.ErrNotFound) {
		w.t.Fatalf("claim is %+v, %v", c, err)
	}
}

func TestClaimByCNAME(t *testing.T) {
	w, seen := claimsWorld(t)
	run(t, w, func(w *world) {
		w.putMXSet("b", own("eu", "mx.b.test"))
		w.equal("outcomes", w.applyAs("b", publish.ApplyOptions{}, sharing("a.example", "eu")), "claimed")
		w.pass(time.Hour)
		c := w.claim("b", "a.example")
		if want := "waiting for: CNAME mta-sts.a.example → b.sts.provider.test, or _stspub-challenge.a.example TXT \"stspub-claim="; !strings.HasPrefix(c.Reason, want) ||
			!strings.HasSuffix(c.Reason, "last seen no such record") {
			t.Errorf("reason is %s", c.Reason)
		}
		if _, err := w.rec.Status(w.ctx, "a.example"); !errors.Is(err, store.ErrNotFound) || w.isWanted("mta-sts.a.example") || w.snapshot.Len() > 0 {
			t.Errorf("a claim is published: %v", err)
		}
		if n := len(seen.looks); n < 5 || n > 9 {
			t.Errorf("looked %d times in an hour", n)
		}
		for _, elsewhere := range []string{"c.sts.provider.test", "sts.provider.test", "b.sts.provider.test.evil.test", "default.sts.provider.test"} {
			seen.set(func() { seen.hosts["mta-sts.a.example"] = elsewhere })
			if err := w.rec.LookAtClaim(w.ctx, "b", "a.example"); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Second)
			if c := w.claim("b", "a.example"); !strings.HasSuffix(c.Reason, "last seen CNAME "+elsewhere) {
				t.Errorf("reason is %s", c.Reason)
			}
		}
		seen.set(func() { seen.hosts["mta-sts.a.example"] = "b.sts.provider.test" })
		if err := w.rec.LookAtClaim(w.ctx, "b", "a.example"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		w.unclaimed("b", "a.example")
		if s := w.status("a.example"); s.Tenant != "b" || s.Owner != store.OwnerAPI {
			t.Errorf("%+v", s)
		}
		w.settled("a.example")
		w.equal("the owner changes it", w.applyAs("b", publish.ApplyOptions{}, sharing("a.example", "eu")), "unchanged")
		w.equal("the others have no part in it", w.apply(publish.Change{Name: "a.example", Remove: true}, sharing("a.example", "eu")), "not found", "taken")
	})
}

func TestClaimByText(t *testing.T) {
	w, seen := claimsWorld(t)
	run(t, w, func(w *world) {
		w.putMXSet("b", own("eu", "mx.b.test"))
		w.applyAs("b", publish.ApplyOptions{}, sharing("a.example", "eu"))
		w.pass(time.Minute)
		c := w.claim("b", "a.example")
		_, value, _ := strings.Cut(c.Records[1], "TXT ")
		if want := []string{"mta-sts.a.example. 300 IN CNAME b.sts.provider.test.", "; or: _stspub-challenge.a.example. 300 IN TXT " + value}; !slices.Equal(c.Records, want) {
			t.Errorf("records are %q", c.Records)
		}
		seen.set(func() { seen.texts["_stspub-challenge.a.example"] = strings.Trim(value, `"`) })
		w.pass(time.Hour)
		w.unclaimed("b", "a.example")
	})
}

// TestClaimByAccount has stspub itself write the challenge.
func TestClaimByAccount(t *testing.T) {
	w, seen := claimsWorld(t)
	seen.world = w
	run(t, w, func(w *world) {
		w.putMXSet("b", own("eu", "mx.b.test"))
		if _, _, err := w.rec.PutAccount(w.ctx, "b", config.Account{Name: "main", Provider: "test"}, "", ""); err != nil {
			t.Fatal(err)
		}
		w.change(func() { w.applyErr = broken() })
		w.applyAs("b", publish.ApplyOptions{}, zoned("a.example", "eu"))
		w.pass(time.Minute)
		if c := w.claim("b", "a.example"); !strings.Contains(c.Reason, "it is not written by account main: ") {
			t.Errorf("reason is %s", c.Reason)
		}
		w.change(func() { w.applyErr = nil; w.asked = nil })
		w.pass(time.Hour)
		w.unclaimed("b", "a.example")
		w.reach("a.example", publish.StepLive, time.Hour)
		w.equal("writes", w.asked, "b/main _stspub-challenge.a.example", "b/main _stspub-challenge.a.example", "b/main _mta-sts.a.example")
		w.equal("records", w.records(), "_mta-sts.a.example")
	})
}

func TestClaimTaken(t *testing.T) {
	w, seen := claimsWorld(t)
	seen.ok["b.sts.provider.test"], seen.ok["c.sts.provider.test"] = true, true
	run(t, w, func(w *world) {
		for _, tenant := range []string{"b", "c"} {
			w.putMXSet(tenant, own("eu", "mx."+tenant+".test"))
			w.equal("outcomes", w.applyAs(tenant, publish.ApplyOptions{}, sharing("a.example", "eu")), "claimed")
			w.pass(time.Minute)
		}
		w.unclaimed("b", "a.example")
		w.settled("a.example")
		if c := w.claim("c", "a.example"); c.Reason != taken {
			t.Errorf("reason is %s", c.Reason)
		}
		id, there := w.status("a.example").ID, w.status("a.example").Record
		w.change(func() { w.cname["a.example"] = there })
		if err := w.rec.Release(w.ctx, "c", "a.example", true); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a stranger releases it: %v", err)
		}
		alias := sharing("a.example", "eu")
		alias.Publish = store.PublishAlias // which the record that is there is not
		w.equal("another wish", w.applyAs("c", publish.ApplyOptions{}, alias), "claimed")
		if err := w.rec.Release(w.ctx, "b", "a.example", true); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		if c := w.claim("c", "a.example"); c.Reason != taken {
			t.Errorf("reason is %s", c.Reason)
		}
		w.equal("back", w.applyAs("c", publish.ApplyOptions{}, sharing("a.example", "eu")), "claimed")
		if err := w.rec.Release(w.ctx, "b", "a.example", true); err != nil {
			t.Fatal(err)
		}
		if err := w.rec.LookAtClaim(w.ctx, "c", "a.example"); err != nil && !errors.Is(err, store.ErrNotFound) { // it may be proven already
			t.Fatal(err)
		}
		w.pass(time.Second)
		w.unclaimed("c", "a.example")
		s := w.status("a.example")
		if s.Tenant != "c" || s.Policy == "" {
			t.Errorf("moved: %+v", s)
		}
		// What senders hold goes on being served until the new policy is announced at the name that the customer's CNAME leads to.
		w.pass(2 * time.Hour)
		s = w.status("a.example")
		if s.Step != publish.StepLive || s.ID == id || !strings.Contains(s.Policy, "mx: mx.c.test") || !strings.HasSuffix(s.Record, ".eu.s.c.a.provider.test") {
			t.Errorf("moved: %+v", s)
		}
		if got := w.at(there); len(got) != 1 || got[0] != policygen.RecordText(s.ID) {
			t.Errorf("%s holds %q", there, got)
		}
	})
}

func TestClaimExpires(t *testing.T) {
	w, seen := claimsWorld(t)
	run(t, w, func(w *world) {
		w.putMXSet("b", own("eu", "mx.b.test"))
		w.applyAs("b", publish.ApplyOptions{}, sharing("a.example", "eu"), sharing("b.example", "eu"))
		w.equal("withdrawn", w.applyAs("b", publish.ApplyOptions{}, publish.Change{Name: "b.example", Remove: true}), "withdrawn")
		w.pass(7*24*time.Hour - time.Minute)
		w.claim("b", "a.example")
		if n := len(seen.looks); n < 20 || n > 60 {
			t.Errorf("looked %d times in a week", n)
		}
		w.pass(2 * time.Minute)
		w.unclaimed("b", "a.example")
		seen.set(func() { seen.ok["b.sts.provider.test"] = true })
		w.pass(time.Hour)
		if _, err := w.rec.Status(w.ctx, "a.example"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a claim that expired was proven: %v", err)
		}
	})
}
