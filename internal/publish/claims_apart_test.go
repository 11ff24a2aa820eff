package publish_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// taken is all that a claim is told of another tenant.
const taken = "taken: it is proven, and belongs to another tenant until that one removes or releases it; or its record is needed where it is, " +
	"and it has to be published in the same way until that is gone"

// meanwhile has something happen during the next look for a proof.
type meanwhile struct {
	*proofs
	do func()
}

func (m *meanwhile) Prove(ctx context.Context, want publish.Proof) publish.Proven {
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return m.proofs.Prove(ctx, want)
}

// TestClaimWhoseAccountGoes: a tenant takes his account away while his claim is looked at. No domain comes of that without
// its account, and least of all one for which the operator's file is refused.
func TestClaimWhoseAccountGoes(t *testing.T) {
	w, seen := claimsWorld(t)
	seen.ok["b.sts.provider.test"] = true
	m := &meanwhile{proofs: seen}
	w.prover = m
	run(t, w, func(w *world) {
		w.putMXSet("b", own("eu", "mx.b.test"))
		main := config.Account{Name: "main", Provider: "test"}
		if _, _, err := w.rec.PutAccount(w.ctx, "b", main, "", ""); err != nil {
			t.Fatal(err)
		}
		m.do = func() {
			if err := w.rec.DeleteAccount(w.ctx, "b", "main", ""); err != nil {
				t.Error(err)
			}
		}
		w.equal("outcome", w.applyAs("b", publish.ApplyOptions{}, zoned("a.example", "eu")), "claimed")
		w.pass(time.Second)
		if m.do != nil {
			t.Fatal("nobody looked for the proof")
		}
		if got := w.claim("b", "a.example").Reason; !strings.HasPrefix(got, `it is proven, and cannot be published as it is wanted: account: "main" is no account`) {
			t.Errorf("reason is %s", got)
		}
		if _, err := w.rec.Status(w.ctx, "a.example"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("there is a domain without its account: %v", err)
		}
		if _, _, err := w.rec.PutAccount(w.ctx, "b", main, "", ""); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		w.unclaimed("b", "a.example")

		// However it came to be: what a tenant lacks is no reason to refuse the operator's file.
		w.change(func() {
			if _, err := w.store.ApplyDomains(w.ctx, store.Batch{Owner: store.OwnerAPI, Changes: []store.DomainChange{{
				Domain: store.Domain{Name: "lost.example", Tenant: "b", MXSet: "eu", Publish: store.PublishZone, Account: "gone"},
			}}}, time.Now()); err != nil {
				t.Fatal(err)
			}
			next := *w.conf
			next.Domains = append(next.Domains[:len(next.Domains):len(next.Domains)],
				config.Domain{Name: "new.example", MXSet: "eu", Publish: store.PublishZone, Account: "main"})
			w.conf = &next
		})
		if _, err := w.reload(""); err != nil {
			t.Errorf("reload: %v", err)
		}
		w.restart()
		w.pass(10 * time.Minute)
		if s := w.status("lost.example"); !strings.Contains(s.Reason, `account "gone" is not configured`) {
			t.Errorf("the domain without its account: %+v", s)
		}
	})
}

// TestClaimOfWhatIsNeeded: what another tenant's domain is published as, where and on which MX set, is nobody's business,
// also when the claim to it is proven.
func TestClaimOfWhatIsNeeded(t *testing.T) {
	w, seen := claimsWorld(t)
	seen.ok["acme.sts.provider.test"], seen.ok["c.sts.provider.test"] = true, true
	run(t, w, func(w *world) {
		w.putMXSet("acme", own("secretset", "mx.acme.test"))
		w.putMXSet("c", own("eu", "mx.c.test"))
		w.applyAs("acme", publish.ApplyOptions{}, sharing("a.example", "secretset"))
		w.pass(time.Hour)
		if s := w.status("a.example"); s.Tenant != "acme" || s.Record == "" {
			t.Fatalf("a.example is %+v", s)
		}
		alias := sharing("a.example", "eu")
		alias.Publish = store.PublishAlias
		w.applyAs("c", publish.ApplyOptions{}, alias)
		w.pass(time.Minute)
		if got := w.claim("c", "a.example").Reason; got != taken {
			t.Errorf("reason is %s", got)
		}
		if err := w.rec.Release(w.ctx, "acme", "a.example", true); err != nil {
			t.Fatal(err)
		}
		looks := len(seen.looks)
		w.pass(time.Hour)
		if got := w.claim("c", "a.example").Reason; got != taken || len(seen.looks) == looks {
			t.Errorf("reason after the release is %s", got)
		}
	})
}
