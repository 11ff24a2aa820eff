package publish_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// engines are those that benchmarks run on, each with an empty store.
func engines(b *testing.B) map[string]func(*testing.B) store.Store {
	b.Helper()
	server := labtest.StartPostgreSQL(b)
	opened := func(b *testing.B, st store.Store, err error) store.Store {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = st.Close() })
		return st
	}
	return map[string]func(*testing.B) store.Store{
		"sqlite": func(b *testing.B) store.Store {
			b.Helper()
			st, err := store.OpenSQLite(b.Context(), filepath.Join(b.TempDir(), "stspub.db"))
			return opened(b, st, err)
		},
		"postgres": func(b *testing.B) store.Store {
			b.Helper()
			st, err := store.OpenPostgres(b.Context(), server.Database(b), nil)
			return opened(b, st, err)
		},
	}
}

// applier is a reconciler that does not run, with n domains of the API in MX set eu. It tells how long adding them took.
func applier(b *testing.B, st store.Store, n int) (*publish.Reconciler, time.Duration) {
	b.Helper()
	rec := publish.New(publish.Config{
		Store: st, Snapshot: publish.NewSnapshot(), Log: slog.New(slog.DiscardHandler),
		Accepted:    func(context.Context, *config.Config) error { return nil },
		OpenAccount: func(string, config.Account) (dnsupdate.Account, error) { return nil, nil },
	})
	conf := configuration()
	conf.MXSets["us"] = mxset(policygen.Enforce, "mx.us.provider.test")
	if _, err := rec.Start(b.Context(), conf); err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	const batch = 1000
	for i := 0; i < n; i += batch {
		changes := make([]publish.Change, min(batch, n-i))
		for j := range changes {
			changes[j] = sharing(benchName(i+j), "eu")
		}
		outcomes, err := rec.Apply(b.Context(), publish.Tenant, changes, publish.ApplyOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for _, o := range outcomes {
			if o.Result != store.ResultAdded {
				b.Fatalf("%+v", o)
			}
		}
	}
	return rec, time.Since(begin)
}

// benchName spreads the names, so that neighbours in a batch are none in the table.
func benchName(i int) string { return fmt.Sprintf("d%07d.example", i*7919%10_000_019) }

// BenchmarkApplyOne changes, looks at and lists one domain among many: that costs the same among a million.
func BenchmarkApplyOne(b *testing.B) {
	sizes := []int{1000, 100_000, 1_000_000}
	if testing.Short() {
		sizes = sizes[:2]
	}
	for name, open := range engines(b) {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { applyOne(b, open(b), n) })
		}
	}
}

// applyOne is BenchmarkApplyOne among n.
func applyOne(b *testing.B, st store.Store, n int) {
	rec, _ := applier(b, st, n)
	b.Run("change", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			c := sharing(benchName(i%n), []string{"us", "eu"}[i/n%2])
			if o, err := rec.Apply(b.Context(), publish.Tenant, []publish.Change{c}, publish.ApplyOptions{}); err != nil || o[0].Result != store.ResultChanged {
				b.Fatal(o, err)
			}
		}
	})
	b.Run("same", func(b *testing.B) {
		c := sharing(benchName(n-1), "eu")
		if _, err := rec.Apply(b.Context(), publish.Tenant, []publish.Change{c}, publish.ApplyOptions{}); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if o, err := rec.Apply(b.Context(), publish.Tenant, []publish.Change{c}, publish.ApplyOptions{}); err != nil || o[0].Result != store.ResultUnchanged {
				b.Fatal(o, err)
			}
		}
	})
	b.Run("page", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			after := policygen.Name(benchName(i % n))
			page, err := st.DomainsOf(b.Context(), publish.Tenant, store.DomainFilter{MXSet: "eu"}, after, 100)
			if err != nil || len(page) > 100 {
				b.Fatal(len(page), err)
			}
		}
	})
}

// BenchmarkApply100k adds 100,000 domains in batches of 1,000.
func BenchmarkApply100k(b *testing.B) {
	for name, open := range engines(b) {
		b.Run(name, func(b *testing.B) {
			var took time.Duration
			for b.Loop() {
				_, t := applier(b, open(b), 100_000)
				took += t
			}
			b.ReportMetric(took.Seconds()/float64(b.N), "s/100k")
		})
	}
}
