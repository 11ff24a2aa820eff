package publish_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// staleSight sees records on a real server, and everything else as a world without faults.
type staleSight struct {
	*world
	outside *publish.Outside
}

func (s staleSight) TXT(ctx context.Context, record string) publish.TXT {
	return s.outside.TXT(ctx, record)
}

func (s staleSight) Body(_ context.Context, name policygen.Name, text string) publish.Body {
	page, ok := s.snapshot.Policy(name.PolicyHost())
	return publish.Body{Live: ok && page.Text == text}
}

// countingAccount counts what is asked of an account, and remembers when it last was.
type countingAccount struct {
	dnsupdate.Account
	calls *atomic.Int64
	last  *atomic.Int64 // Unix milliseconds
}

func (a countingAccount) Apply(ctx context.Context, c dnsupdate.Change) error {
	a.calls.Add(1)
	defer func() { a.last.Store(time.Now().UnixMilli()) }()
	return a.Account.Apply(ctx, c)
}

// TestStaleAnswers changes a policy where a PowerDNS with its default caches goes on answering the old id for up to 21
// seconds: that is waited out, and nothing is written again.
func TestStaleAnswers(t *testing.T) {
	t.Parallel()
	primary := labtest.StartPowerDNS(t, lab.Zone{Name: "one.test"})
	cached := primary.StartCached(t)
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	w := newWorld(t)
	w.snapshot = publish.NewSnapshot()
	var calls, last atomic.Int64
	resolver := &sender.Resolver{Stub: map[string][]string{".": {cached.Addr}}}
	conf := configuration("one.test")
	conf.Publish.Settle, conf.Check.Every = time.Second, time.Second
	conf.Accounts["main"] = primary.Account("main")
	rec := publish.New(publish.Config{
		Store: st, Snapshot: w.snapshot, Certs: w, Log: slog.New(slog.DiscardHandler),
		Sight:    staleSight{w, &publish.Outside{Observer: &dnsupdate.Observer{Resolver: resolver}}},
		Load:     func() (*config.Config, []string, error) { return conf, nil, nil },
		Accepted: func(context.Context, *config.Config) error { return nil },
		OpenAccount: func(_ string, a config.Account) (dnsupdate.Account, error) {
			open, err := dnsupdate.Open(a, dnsupdate.Options{})
			return countingAccount{open, &calls, &last}, err
		},
	})
	if _, err := rec.Start(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	running(t, rec)
	live := func(mx, but string) publish.Status {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(2 * time.Minute); ; <-tick.C {
			s, err := rec.Status(t.Context(), "one.test")
			if err == nil && s.Step == publish.StepLive && strings.Contains(s.Policy, mx) && s.ID != but {
				return s
			}
			if time.Now().After(deadline) {
				t.Fatalf("not live with %s: %+v, %v", mx, s, err)
			}
		}
	}
	first := live("mx1.provider.test", "")
	wrote := calls.Load()
	changed := *conf
	set := changed.MXSets["eu"]
	set.Policy = mxset(policygen.Enforce, "mx1.provider.test", "mx2.provider.test").Policy
	changed.MXSets = map[string]config.MXSet{"eu": set}
	conf = &changed
	if _, err := rec.Reload(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	s := live("mx2.provider.test", first.ID)
	stale := time.Since(time.UnixMilli(last.Load()))
	if n := calls.Load() - wrote; n != 1 || s.Fault {
		t.Errorf("%d writes for one change, fault %v (%s), want one and none", n, s.Fault, s.Reason)
	}
	if stale < 3*time.Second {
		t.Errorf("verified %s after the write: the caches did not answer the old record, so nothing was tested", stale)
	}
	t.Logf("verified %s after the write", stale)
}
