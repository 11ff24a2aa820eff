package publish_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// belonging adds domains of a tenant that have been proven to be his, in his accounts by turns.
func (w *world) belonging(tenant string, names []policygen.Name, accounts ...string) {
	w.t.Helper()
	b := store.Batch{Owner: store.OwnerAPI}
	for i, name := range names {
		b.Changes = append(b.Changes, store.DomainChange{Domain: store.Domain{
			Name: name, Tenant: tenant, MXSet: "eu", Publish: store.PublishZone, Account: accounts[i%len(accounts)],
		}})
	}
	done, err := w.store.ApplyDomains(w.ctx, b, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	for i, d := range done {
		if d.Result != store.ResultAdded {
			w.t.Fatalf("%s: %+v", names[i], d)
		}
	}
}

// tenant adds one with an MX set and accounts.
func (w *world) tenant(name string, accounts ...string) {
	w.t.Helper()
	if err := w.store.AddTenant(w.ctx, store.Tenant{Name: name, Created: time.Now()}); err != nil {
		w.t.Fatal(err)
	}
	w.putMXSet(name, own("eu", "mx1.provider.test"))
	for _, account := range accounts {
		if _, _, err := w.rec.PutAccount(w.ctx, name, config.Account{Name: account, Provider: "test"}, "", ""); err != nil {
			w.t.Fatal(err)
		}
	}
}

func numbered(prefix string, n int) (names []policygen.Name) {
	for i := range n {
		names = append(names, policygen.Name(fmt.Sprintf("%s%04d.example", prefix, i)))
	}
	return names
}

// TestHangingAccountsOfATenant has two accounts of one tenant hang at every request, with a thousand domains, which are due
// before the ten of another one. These are live as soon as they are without them.
func TestHangingAccountsOfATenant(t *testing.T) {
	t.Parallel()
	live := func(hanging int) (took time.Duration, asked int) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.t, w.hangs = t, "evil/"
			w.conf.Check.Every = 24 * time.Hour
			if err := w.start(); err != nil {
				t.Fatal(err)
			}
			defer func() { w.stop() }()
			w.tenant("evil", "one", "two")
			w.tenant("good", "main")
			w.belonging("evil", numbered("evil", hanging), "one", "two")
			good := numbered("good", 10)
			begun := time.Now()
			w.belonging("good", good, "main")
			if err := w.rec.Wake(w.ctx, good[0]); err != nil { // as who adds them by the API does
				t.Fatal(err)
			}
			for w.live(good, "mx1.") < len(good) && time.Since(begun) < time.Hour {
				w.pass(time.Second)
			}
			took = time.Since(begun)
			w.change(func() {
				for _, a := range w.asked {
					if strings.HasPrefix(a, "evil/") {
						asked++
					}
				}
			})
		})
		return took, asked
	}
	alone, _ := live(0)
	beside, asked := live(1000)
	t.Logf("live after %s alone, and %s beside %d writes that hang", alone, beside, asked)
	if beside > alone+2*time.Second || alone >= time.Hour || asked < 500 {
		t.Errorf("live after %s beside 1000 domains of another tenant whose accounts hang, which were asked %d times; alone after %s",
			beside, asked, alone)
	}
}

// slowProofs hangs where the name servers of a tenant's domains would.
type slowProofs struct {
	*proofs
	target string
}

func (p slowProofs) Prove(ctx context.Context, want publish.Proof) publish.Proven {
	if want.Target == p.target {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		<-ctx.Done()
	}
	return p.proofs.Prove(ctx, want)
}

// TestHangingClaimsOfATenant has a tenant claim a thousand domains whose name servers are silent, before another one claims
// his.
func TestHangingClaimsOfATenant(t *testing.T) {
	w, seen := claimsWorld(t)
	seen.ok["good.sts.provider.test"] = true
	w.prover = slowProofs{seen, "evil.sts.provider.test"}
	run(t, w, func(w *world) {
		w.tenant("evil")
		w.tenant("good")
		var claims []publish.Change
		for _, name := range numbered("evil", 1000) {
			claims = append(claims, sharing(string(name), "eu"))
		}
		w.applyAs("evil", publish.ApplyOptions{}, claims...)
		w.equal("claim", w.applyAs("good", publish.ApplyOptions{}, sharing("good.example", "eu")), "claimed")
		w.pass(time.Second)
		w.unclaimed("good", "good.example")
		w.pass(10 * time.Minute) // and each of the others is looked at
		for i, c := range claims {
			if seen := w.claim("evil", policygen.Name(c.Name)); seen.Looked.IsZero() {
				t.Fatalf("claim %d was never looked at", i)
			}
		}
	})
}
