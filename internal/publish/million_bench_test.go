package publish_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

const millionID = "20261101000000aabbccdd"

// calm is a world in which all domains are live and right.
type calm struct{ publish.Sight }

func (calm) Host(context.Context, policygen.Name, string) publish.Host {
	return publish.Host{Ours: true}
}

func (calm) Body(context.Context, policygen.Name, string) publish.Body {
	return publish.Body{Live: true}
}

func (calm) MX(context.Context, policygen.Name, string) publish.MX { return publish.MX{Known: true} }

func (calm) TXT(context.Context, string) publish.TXT {
	return publish.TXT{Zone: "a.provider.test", Servers: []publish.Server{{Name: "ns1", STS: []string{policygen.RecordText(millionID)}}}}
}

func (calm) Delegation(context.Context, policygen.Name, string) publish.Delegation {
	return publish.Delegation{Ours: true}
}

func (calm) Want(string, string, bool)          {}
func (calm) Unwant(string)                      {}
func (calm) Retry(string)                       {}
func (calm) Drop(context.Context, string) error { return nil }
func (calm) Cert(string) publish.Cert {
	return publish.Cert{Valid: true, NotAfter: time.Now().Add(60 * 24 * time.Hour)}
}

// fillLive has a store of n live domains of the API, which are due, evenly, in the next day.
func fillLive(b *testing.B, path string, n int, conf *config.Config) {
	b.Helper()
	st, err := store.OpenSQLite(b.Context(), path)
	if err == nil {
		_, err = st.Declare(b.Context(), store.Declaration{Owner: store.OwnerFile, MXSets: []store.MXSet{
			{Tenant: publish.Tenant, Name: "eu", Policy: conf.MXSets["eu"].Policy},
		}}, time.Now())
	}
	if err == nil {
		err = st.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	text, now := conf.MXSets["eu"].Policy.Text(), time.Now()
	if _, err := db.ExecContext(b.Context(), `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $1 - 1)
		INSERT INTO domains (name, tenant, mxset, publish, account, owner, adopt, declared_adopt, added, due, version, served, record,
			zone, id, step, since, checked)
		SELECT printf('customer%07d.example', i), 'default', 'eu', 'alias', '', 'api', 0, 0, $2, $3 + (i * 7919 % $1) * 86400000000 / $1, i,
			$4, printf('customer%07d.d.default.a.provider.test', i), 'a.provider.test', $5, 'live', $2, $2 FROM n`,
		n, now.Add(-48*time.Hour).UnixMicro(), now.Add(time.Hour).UnixMicro(), text, millionID); err != nil {
		b.Fatal(err)
	}
	if _, err := db.ExecContext(b.Context(), `UPDATE versions SET last = $1`, n); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMillion starts a reconciler on a store of 1,000,000 live domains: until the last of them is answered for, until the
// configuration is taken, and what all of it holds in memory then. Certificates are apart; see package certs.
func BenchmarkMillion(b *testing.B) {
	n := 1_000_000
	if testing.Short() {
		n = 50_000
	}
	conf := configuration()
	path := filepath.Join(b.TempDir(), "stspub.db")
	fillLive(b, path, n, conf)
	last := policygen.Name(fmt.Sprintf("customer%07d.example", n-1))
	for b.Loop() {
		before, began, used := heap(), time.Now(), cpu(b)
		st, err := store.OpenSQLite(b.Context(), path)
		if err != nil {
			b.Fatal(err)
		}
		snapshot := publish.NewSnapshot()
		rec := publish.New(publish.Config{
			Store: st, Snapshot: snapshot, Sight: calm{}, Certs: calm{}, Log: slog.New(slog.DiscardHandler),
			Accepted:    func(context.Context, *config.Config) error { return nil },
			OpenAccount: func(string, config.Account) (dnsupdate.Account, error) { return nil, nil },
		})
		if err := rec.Serve(b.Context()); err != nil {
			b.Fatal(err)
		}
		if page, ok := snapshot.Policy(last.PolicyHost()); !ok || page.Text != conf.MXSets["eu"].Policy.Text() || snapshot.Len() != n {
			b.Fatalf("%d are served, the last with %v", snapshot.Len(), page)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s-to-first-answer")
		b.ReportMetric((cpu(b) - used).Seconds(), "cpu-s-to-first-answer")
		if _, err := rec.Start(b.Context(), conf); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s-to-start")
		b.ReportMetric((cpu(b) - used).Seconds(), "cpu-s-to-start")
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error)
		go func() { done <- rec.Run(ctx) }() // ends below
		for {                                // the sample that is compared with DNS
			next, err := st.NextDue(ctx)
			if err != nil {
				b.Fatal(err)
			}
			if time.Until(next) > time.Minute {
				break
			}
			<-time.After(100 * time.Millisecond)
		}
		b.ReportMetric((heap()-before)/float64(n), "B/domain")
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		if err := st.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
