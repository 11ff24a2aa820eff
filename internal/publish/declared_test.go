package publish_test

import (
	"context"
	"errors"
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

// declaring is a store that counts declarations, and fails where it is told to.
type declaring struct {
	*store.SQLite
	declared int
	broken   string // "before", "after": Declare fails, without or with having declared; "note": it cannot be noted
}

var errPulled = errors.New("the plug is pulled")

func (d *declaring) Declare(ctx context.Context, decl store.Declaration, now time.Time) (store.Change, error) {
	d.declared++
	if d.broken == "before" {
		return store.Change{}, errPulled
	}
	c, err := d.SQLite.Declare(ctx, decl, now)
	if d.broken == "after" {
		err = errPulled
	}
	return c, err
}

func (d *declaring) SetValue(ctx context.Context, key string, value []byte) error {
	if d.broken == "note" && key == "publish/declared" {
		return errPulled
	}
	return d.SQLite.SetValue(ctx, key, value)
}

// TestDeclaredOnce: a start with the configuration that the store's domains are of declares nothing, and after whatever
// went wrong in between the next start does.
func TestDeclaredOnce(t *testing.T) {
	t.Parallel()
	sqlite, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sqlite.Close() })
	st := &declaring{SQLite: sqlite}
	w := newWorld(t)
	of := func(digest string, names ...policygen.Name) *config.Config {
		conf := configuration(names...)
		conf.Digest = digest
		return conf
	}
	a, b := of("a", "one.test", "two.test"), of("b", "one.test", "three.test")
	next := b // what a reload finds
	begin := func() *publish.Reconciler {
		return publish.New(publish.Config{
			Store: st, Snapshot: publish.NewSnapshot(), Certs: w, Log: slog.New(slog.DiscardHandler), Sight: w,
			Load:        func() (*config.Config, []string, error) { return next, nil, nil },
			Accepted:    func(context.Context, *config.Config) error { return nil },
			OpenAccount: func(string, config.Account) (dnsupdate.Account, error) { return nil, nil },
		})
	}
	holds := func(what string, conf *config.Config, declared int) {
		t.Helper()
		got := ""
		if err := st.EachDomain(t.Context(), func(d store.Domain) error {
			if d.Removed.IsZero() {
				got += " " + string(d.Name)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		want := ""
		for _, d := range conf.Domains {
			want += " " + string(d.Name)
		}
		if got != want || st.declared != declared {
			t.Errorf("%s: %d declarations, and the store has%s, want %d and%s", what, st.declared, got, declared, want)
		}
		st.declared = 0
	}
	start := func(what string, conf *config.Config, declared int) *publish.Reconciler {
		t.Helper()
		rec := begin()
		if _, err := rec.Start(t.Context(), conf); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		holds(what, conf, declared)
		return rec
	}
	start("first start", a, 1)
	rec := start("the same again", a, 0)
	if _, err := rec.Reload(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	holds("reload", b, 1)
	start("what was reloaded", b, 0)
	rec = start("back", a, 1)
	for _, broken := range []string{"before", "after", "note"} {
		st.broken = broken
		_, err := rec.Reload(t.Context(), "")
		if (err != nil) != (broken != "note") {
			t.Fatalf("reload that fails %s: %v", broken, err)
		}
		st.broken, st.declared = "", 0
		rec = start(fmt.Sprintf("after a reload that failed (%s) and was taken back", broken), a, 1)
	}
	unread := func(conf *config.Config) *config.Config {
		c := *conf
		c.Domains, c.Unread = nil, true
		return &c
	}
	if !publish.IsDeclared(t.Context(), st, unread(a)) || publish.IsDeclared(t.Context(), st, unread(b)) {
		t.Error("it is not known which one is declared")
	}
	if _, err := begin().Start(t.Context(), unread(a)); err != nil {
		t.Errorf("start without the domains: %v", err)
	}
	holds("start without the domains", a, 0)
	if _, err := begin().Start(t.Context(), unread(b)); err == nil {
		t.Error("a start without domains that are not known is taken")
	}
	holds("start without domains that are not known", a, 0)
	unnamed := of("", "one.test", "two.test")
	start("without a digest", unnamed, 1)
	start("without a digest again", unnamed, 1)
}
