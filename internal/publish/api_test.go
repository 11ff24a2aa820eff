package publish_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// apply makes changes of tenant "default", and returns what became of each in words.
func (w *world) apply(changes ...publish.Change) []string {
	w.t.Helper()
	return w.applyAs(publish.Tenant, publish.ApplyOptions{}, changes...)
}

func (w *world) applyAs(tenant string, o publish.ApplyOptions, changes ...publish.Change) []string {
	w.t.Helper()
	outcomes, err := w.rec.Apply(w.ctx, tenant, changes, o)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []string
	for _, o := range outcomes {
		if o.Err != nil {
			all = append(all, o.Err.Error())
		} else {
			all = append(all, string(o.Result))
		}
	}
	return all
}

func (w *world) equal(what string, got []string, want ...string) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (w *world) putMXSet(tenant string, m publish.MXSet) {
	w.t.Helper()
	if _, err := w.rec.PutMXSet(w.ctx, tenant, m, ""); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	if err := w.start(); err != nil {
		w.t.Fatal(err)
	}
}

// own is an MX set of the API.
func own(name string, mx ...string) publish.MXSet {
	return publish.MXSet{Name: name, Mode: policygen.Enforce, MaxAge: 604800, MX: mx}
}

func zoned(name, mxset string) publish.Change {
	return publish.Change{Name: name, MXSet: mxset, Publish: store.PublishZone, Account: "main"}
}

func sharing(name, mxset string) publish.Change {
	return publish.Change{Name: name, MXSet: mxset, Publish: store.PublishShared}
}

func TestAPIDomain(t *testing.T) {
	inBubble(t, []policygen.Name{"file.example"}, func(w *world) {
		w.putMXSet(publish.Tenant, own("own", "mx9.provider.test"))
		add := zoned("API.example.", "own")
		add.TLSRPT = []string{"mailto:reports@provider.test"}
		w.equal("outcomes", w.apply(add, zoned("b.example", "eu")), "added", "added")
		s := w.reach("api.example", publish.StepLive, time.Hour)
		if !strings.Contains(s.Policy, "mx: mx9.provider.test") || s.Owner != store.OwnerAPI || s.TLSRPT == nil || s.ETag == "" {
			t.Errorf("status is %+v", s)
		}
		w.reach("b.example", publish.StepLive, time.Hour)
		w.equal("again", w.apply(add, zoned("b.example", "eu")), "unchanged", "unchanged")

		changed := own("own", "mx9.provider.test", "mx8.provider.test")
		w.putMXSet(publish.Tenant, changed)
		w.pass(time.Hour)
		if now := w.status("api.example"); now.ID == s.ID || !strings.Contains(now.Policy, "mx: mx8.provider.test") || now.Step != publish.StepLive {
			t.Errorf("after another MX set: %+v", now)
		}
		w.restart()
		sets := w.rec.MXSets(publish.Tenant)
		if len(sets) != 2 || !slices.Equal(sets[1].MX, changed.MX) || sets[1].Owner != store.OwnerAPI || sets[0].Owner != store.OwnerFile {
			t.Fatalf("MX sets after a restart are %+v", sets)
		}
		// The file and the API do not touch each other's.
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		stale := publish.Change{Name: "api.example", Remove: true, IfMatch: s.ETag + "x"}
		w.equal("removal", w.apply(stale, publish.Change{Name: "file.example", Remove: true}, publish.Change{Name: "api.example", Remove: true, IfMatch: s.ETag}),
			store.ErrMismatch.Error(), `domain "file.example" belongs to the configuration file: change it there`, "removed")
		w.reach("api.example", publish.StepDrain, time.Hour)
		w.pass(9 * 24 * time.Hour)
		if _, err := w.rec.Status(w.ctx, "api.example"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("after the drain: %v", err)
		}
		if err := w.rec.DeleteMXSet(w.ctx, publish.Tenant, "own", "other"); !errors.Is(err, store.ErrMismatch) {
			t.Errorf("DeleteMXSet with another etag: %v", err)
		}
		if err := w.rec.DeleteMXSet(w.ctx, publish.Tenant, "own", sets[1].ETag); err != nil {
			t.Error(err)
		}
		w.equal("outcomes", w.apply(add), `mx set "own": no such mx set`)
	})
}

func TestAPIRefuses(t *testing.T) {
	inBubble(t, []policygen.Name{"file.example"}, func(w *world) {
		long := strings.Repeat("a", 60)
		longest := strings.Join([]string{long, long, long, long[:52], "example"}, ".") // room for _mta-sts., not for _smtp._tls.
		with := func(c publish.Change, f func(*publish.Change)) publish.Change { f(&c); return c }
		for _, c := range []struct {
			change publish.Change
			want   string
		}{
			{zoned("*.example", "eu"), `name: "*.example": a policy domain is no wildcard; each domain needs its own policy (RFC 8461, Section 3.4)`},
			{zoned("a.example", ""), "mxset: missing; write the name of an MX set"},
			{zoned("a.example", "nowhere"), `mx set "nowhere": no such mx set`},
			{with(zoned("a.example", "eu"), func(c *publish.Change) { c.Account = "nobodys" }), `account: "nobodys" is no account of the tenant; publish = "zone" needs the one that holds the zone`},
			{with(zoned("a.example", "eu"), func(c *publish.Change) { c.Publish = store.PublishAlias }), `account: only publish = "zone" has one; leave it out`},
			{with(sharing("a.example", "eu"), func(c *publish.Change) { c.Publish = store.PublishWildcard }), `publish: "wildcard" is no way to publish; write "zone", "alias", "shared" or "manual"`},
			{with(zoned(longest, "eu"), func(c *publish.Change) { c.TLSRPT = []string{"mailto:a@example.org"} }), "is too long"},
			{with(zoned("a.example", "eu"), func(c *publish.Change) { c.TLSRPT = []string{"ftp://example.org"} }), "tlsrpt: "},
			{zoned("file.example", "eu"), `domain "file.example" belongs to the configuration file: change it there`},
		} {
			if got := w.apply(c.change)[0]; !strings.Contains(got, c.want) {
				t.Errorf("%+v: %s, want %s", c.change, got, c.want)
			}
		}
		for _, c := range []struct {
			set  publish.MXSet
			want string
		}{
			{own("Own", "mx.example.net"), `name: "Own" is no name`},
			{own("own"), "mx: is empty; write at least one MX"},
			{own("own", "mx.example.net", "MX.example.net"), `mx: "mx.example.net" is there twice; leave one out`},
			{own("own", "192.0.2.1"), "mx: "},
			{publish.MXSet{Name: "own", Mode: "none", MaxAge: -1, MX: []string{"mx.example.net"}}, "max_age: "},
			{publish.MXSet{Name: "own", Mode: "full", MaxAge: 1, MX: []string{"mx.example.net"}}, "mode: "},
			{publish.MXSet{Name: "own", Mode: "enforce", MaxAge: 86400, MX: []string{"mx.example.net"}, Rollout: -1}, "rollout: -1 is out of range; 0 to 31536000 seconds"},
		} {
			var bad *publish.InvalidError
			if _, err := w.rec.PutMXSet(w.ctx, publish.Tenant, c.set, ""); !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("PutMXSet(%+v): %v, want %s", c.set, err, c.want)
			}
		}
		var owned *store.OwnedError
		if _, err := w.rec.PutMXSet(w.ctx, publish.Tenant, own("eu", "mx.example.net"), ""); !errors.As(err, &owned) {
			t.Errorf("PutMXSet of the file's: %v", err)
		}
		if n := len(w.rec.MXSets(publish.Tenant)); n != 1 {
			t.Errorf("%d MX sets, want the file's", n)
		}
	})
	t.Run("long names", func(t *testing.T) {
		w := newWorld(t)
		w.conf.Alias = config.Alias{}
		run(t, w, func(w *world) {
			w.putMXSet(publish.Tenant, own("mmmmmmmmmmmm", "mx.example.net"))
			next := configuration()
			next.Alias.Zone = strings.Repeat(strings.Repeat("a", 49)+".", 4) + "test" // 204 octets
			w.change(func() { w.conf = next })
			if _, err := w.reload(""); err != nil {
				t.Fatal(err)
			}
			if _, err := w.rec.PutMXSet(w.ctx, publish.Tenant, own("mmmmmmmmmmmm", "mx.example.net"), ""); err == nil ||
				!strings.Contains(err.Error(), "names of 254 octets, and 253 is the most") {
				t.Errorf("PutMXSet: %v", err)
			}
			w.putMXSet(publish.Tenant, own("mmmmmmmmmmm", "mx.example.net"))
			w.equal("outcomes", w.apply(sharing("a.example", "mmmmmmmmmmm"), sharing("b.example", "mmmmmmmmmmmm")),
				"added", "mxset: the names of the records would have 254 octets, and 253 is the most")
		})
	})
}

func TestAPIPlaceStays(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.equal("outcomes", w.apply(zoned("a.example", "eu")), "added")
		manual := zoned("a.example", "eu")
		manual.Publish, manual.Account = store.PublishManual, ""
		w.equal("before there is a record", w.applyAs(publish.Tenant, publish.ApplyOptions{DryRun: true}, manual), "changed")
		w.reach("a.example", publish.StepLive, time.Hour)
		w.equal("with a record", w.apply(manual), `publish: domain a.example: publish cannot change from "zone" to "manual" while its `+
			"record is at _mta-sts.a.example; remove the domain, and add it again when it has drained")
	})
}

func TestAPIMassRemoval(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		var add, remove []publish.Change
		for i := range 30 {
			name := fmt.Sprintf("d%02d.example", i)
			add, remove = append(add, zoned(name, "eu")), append(remove, publish.Change{Name: name, Remove: true})
		}
		w.apply(add...)
		try := func(n, removed int, confirmed, dry bool) error {
			_, err := w.rec.Apply(w.ctx, publish.Tenant, remove[:n], publish.ApplyOptions{Confirmed: confirmed, Removed: removed, DryRun: dry})
			return err
		}
		left := func() (n int) {
			n, err := w.store.CountDomains(w.ctx, publish.Tenant, store.OwnerAPI)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		for _, err := range []error{try(11, 0, false, false), try(2, 9, false, false), try(11, 0, false, true)} {
			if !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), "11 of ") || left() != 30 {
				t.Errorf("%v, and %d are left", err, left())
			}
		}
		if err := errors.Join(try(10, 0, false, false), try(10, 0, false, false)); err != nil || left() != 20 {
			t.Errorf("a few: %v, and %d are left", err, left()) // those that drain already do not count
		}
		for _, dry := range []bool{true, false} { // one more, by itself, of those that came before in the hour
			if err := try(11, 0, false, dry); !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), "11 of 30 domains would be removed within an hour") || left() != 20 {
				t.Errorf("one more: %v, and %d are left", err, left())
			}
		}
		if err := try(12, 0, true, false); err != nil || left() != 18 {
			t.Errorf("two confirmed: %v, and %d are left", err, left())
		}
		w.pass(time.Hour + time.Minute)
		if err := errors.Join(try(13, 0, false, false), try(14, 0, false, false)); err != nil || left() != 16 {
			t.Errorf("an hour later: %v, and %d are left", err, left())
		}
		if err := try(30, 0, true, false); err != nil || left() != 0 {
			t.Errorf("confirmed: %v, and %d are left", err, left())
		}
	})
}

func TestAPIShared(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		for _, tenant := range []string{publish.Tenant, "b"} {
			w.putMXSet(tenant, own("own", "mx."+tenant+".test"))
		}
		w.equal("outcomes", w.apply(sharing("a.example", "own"), sharing("c.example", "own")), "added", "added")
		w.settled("a.example", "c.example")
		const record = "*.own.s.default.a.provider.test"
		if got := w.at(record); len(got) != 1 || len(w.records()) != 1 {
			t.Fatalf("records are %q", w.records())
		}
		w.equal("account", w.asked, "main "+record)
		w.equal("removed", w.apply(publish.Change{Name: "a.example", Remove: true}), "removed")
		w.pass(10 * 24 * time.Hour)
		if s := w.status(policygen.Name(record)); s.Draining || s.Step != publish.StepLive {
			t.Errorf("shared record with one domain is %+v", s)
		}
		w.equal("removed", w.apply(publish.Change{Name: "c.example", Remove: true}), "removed")
		w.pass(20 * 24 * time.Hour)
		if got := w.records(); len(got) != 1 || !slices.Equal(w.at(got[0]), []string{publish.Tombstone}) {
			t.Errorf("records are left: %q", got) // but that of who left while the shared record was there
		}
		if n, err := w.store.NextDue(w.ctx); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("something is left, due %s, %v", n, err)
		}
	})
}

// TestAPITenants gives two tenants the same names for their MX sets and accounts.
func TestAPITenants(t *testing.T) {
	w := newWorld(t)
	seen := &proofs{ok: map[string]bool{"b.sts.provider.test": true, "c.sts.provider.test": true}}
	w.prover = seen
	run(t, w, func(w *world) {
		for _, tenant := range []string{"b", "c"} {
			w.putMXSet(tenant, own("eu", "mx."+tenant+".test"))
			if _, _, err := w.rec.PutAccount(w.ctx, tenant, config.Account{Name: "main", Provider: "test"}, "", ""); err != nil {
				t.Fatal(err)
			}
			w.equal("outcomes", w.applyAs(tenant, publish.ApplyOptions{}, zoned("zone."+tenant+".example", "eu"), sharing("shared."+tenant+".example", "eu")),
				"claimed", "claimed")
		}
		w.pass(time.Minute)
		for _, tenant := range []string{"b", "c"} {
			zone, shared := policygen.Name("zone."+tenant+".example"), policygen.Name("shared."+tenant+".example")
			s := w.reach(zone, publish.StepLive, time.Hour)
			if s.Tenant != tenant || !strings.Contains(s.Policy, "mx: mx."+tenant+".test") {
				t.Errorf("%s is %+v", zone, s)
			}
			if want := "mta-sts." + string(zone) + ". 300 IN CNAME " + tenant + ".sts.provider.test."; s.Records[0] != want {
				t.Errorf("records of %s are %q, want %q first", zone, s.Records, want)
			}
			w.settled(shared)
			if got := w.at("*.eu.s." + tenant + ".a.provider.test"); len(got) != 1 {
				t.Errorf("records are %q", w.records())
			}
			if a := w.rec.Accounts(tenant); len(a) != 1 || a[0] != (publish.Account{Name: "main", Owner: store.OwnerAPI, Provider: "test", ETag: a[0].ETag}) {
				t.Errorf("accounts are %+v", a)
			}
			// Nothing of the others is to be had.
			other := map[string]string{"b": "c", "c": "b"}[tenant]
			_, theirs := w.rec.StatusOf(w.ctx, other, zone)
			_, nobodys := w.rec.StatusOf(w.ctx, other, "zone.x.example")
			if !errors.Is(theirs, store.ErrNotFound) || strings.ReplaceAll(theirs.Error(), string(zone), "zone.x.example") != nobodys.Error() {
				t.Errorf("errors differ: %v, and of a name of nobody: %v", theirs, nobodys)
			}
			page, err := w.rec.StatusesOf(w.ctx, tenant, store.DomainFilter{}, "", 10)
			if err != nil || len(page) != 2 || page[0].Name != shared || page[1].Name != zone {
				t.Errorf("page of %s is %+v, %v", tenant, page, err)
			}
		}
		w.mu.Lock()
		asked := slices.Clone(w.asked)
		w.mu.Unlock()
		slices.Sort(asked)
		w.equal("writes", slices.Compact(asked), "b/main _mta-sts.zone.b.example", "c/main _mta-sts.zone.c.example",
			"main *.eu.s.b.a.provider.test", "main *.eu.s.c.a.provider.test")
		w.equal("account of the file", w.applyAs("d", publish.ApplyOptions{}, zoned("d.example", "eu")),
			`account: "main" is no account of the tenant; publish = "zone" needs the one that holds the zone`)
		w.equal("MX set of the file", w.applyAs("d", publish.ApplyOptions{}, sharing("d.example", "eu")), `mx set "eu": no such mx set`)
	})
}

// TestAPIAndFile has the file change what the API stands on.
func TestAPIAndFile(t *testing.T) {
	inBubble(t, []policygen.Name{"file.example"}, func(w *world) {
		w.putMXSet(publish.Tenant, own("own", "mx1.provider.test"))
		if _, _, err := w.rec.PutAccount(w.ctx, publish.Tenant, config.Account{Name: "extra", Provider: "test"}, "", ""); err != nil {
			t.Fatal(err)
		}
		w.equal("outcomes", w.apply(zoned("api.example", "eu"), sharing("shared.example", "own")), "added", "added")
		w.reach("api.example", publish.StepLive, time.Hour)
		was := *w.conf
		for _, c := range []struct {
			change func(*config.Config)
			want   string
		}{
			{func(c *config.Config) { c.Domains = configuration("api.example", "file.example").Domains }, `domain api.example belongs to the API (tenant "default")`},
			{func(c *config.Config) {
				c.MXSets = map[string]config.MXSet{"us": c.MXSets["eu"]}
				c.Domains[0].MXSet = "us"
			}, "mxset.eu: domain api.example of the API is on this MX set; put it back"},
			{func(c *config.Config) {
				c.Accounts = map[string]config.Account{"other": {Name: "other"}}
				c.Domains[0].Account, c.Alias.Account = "other", "other"
			}, "account.main: domain api.example of the API needs this account; put it back"},
			{func(c *config.Config) { c.Accounts["extra"] = config.Account{Name: "extra"} }, "account.extra: the API has an account of this name"},
			{func(c *config.Config) {
				c.MXSets = map[string]config.MXSet{"eu": c.MXSets["eu"], "own": c.MXSets["eu"]}
			}, "mxset.own: the API has an MX set of this name"},
			{func(c *config.Config) { c.Alias.Zone = "b.provider.test" }, `alias.zone: "b.provider.test" is not the zone of *.own.s.default.a.provider.test`},
			{func(c *config.Config) { c.Alias = config.Alias{} }, "alias: domain shared.example of the API has its record in the alias zone"},
		} {
			next := configuration("file.example")
			c.change(next)
			w.change(func() { w.conf = next })
			if _, err := w.reload(""); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("reload: %v, want %s", err, c.want)
			}
		}
		w.change(func() { w.conf = &was })
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		// The file may change the MX set that a domain of the API is on.
		next := configuration("file.example")
		next.MXSets["eu"] = mxset(policygen.Enforce, "mx1.provider.test", "mx2.provider.test")
		w.change(func() { w.conf = next })
		if p := w.plan(); p.Changed.Count != 2 {
			t.Errorf("plan is %q", p.Lines())
		}
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if s := w.status("api.example"); !strings.Contains(s.Policy, "mx2.provider.test") || s.Step != publish.StepLive {
			t.Errorf("%+v", s)
		}
		if s := w.status("shared.example"); s.Draining || s.Owner != store.OwnerAPI {
			t.Errorf("%+v", s)
		}
		// What one of them has removed is the other's to take up, with its record.
		id := w.status("api.example").ID
		w.equal("removed", w.apply(publish.Change{Name: "api.example", Remove: true}), "removed")
		next = configuration("api.example")
		next.MXSets["eu"] = mxset(policygen.Enforce, "mx1.provider.test", "mx2.provider.test")
		w.change(func() { w.conf = next })
		if p := w.plan(); p.Restored.Count != 1 || p.Removed.Count != 1 || p.Added.Count != 0 {
			t.Errorf("plan is %q", p.Lines())
		}
		if _, err := w.reload(""); err != nil {
			t.Fatal(err)
		}
		w.equal("removed by the file", w.apply(zoned("file.example", "eu"), zoned("api.example", "eu")),
			"restored", `domain "api.example" belongs to the configuration file: change it there`)
		w.pass(time.Hour)
		for _, name := range []policygen.Name{"api.example", "file.example"} {
			if s := w.status(name); s.Draining || s.Step != publish.StepLive {
				t.Errorf("%+v", s)
			}
		}
		if s := w.status("api.example"); s.Owner != store.OwnerFile || s.ID == "" || len(w.record("api.example")) != 1 {
			t.Errorf("after %s: %+v", id, s)
		}
		w.restart()
	})
}

func TestAPIMXSetHolds(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.putMXSet(publish.Tenant, own("own", "mx1.provider.test"))
		w.apply(zoned("a.example", "own"), zoned("b.example", "own"))
		w.reach("a.example", publish.StepLive, time.Hour)
		w.reach("b.example", publish.StepLive, time.Hour)
		w.change(func() { w.stranded["b.example"] = true })
		next := own("own", "mx2.provider.test")
		p, err := w.rec.PlanMXSet(w.ctx, publish.Tenant, next)
		if err != nil || p.Rotations != 2 || len(p.Leaving) != 1 || len(p.Stranded) != 1 || p.Stranded[0].Name != "b.example" {
			t.Errorf("plan is %q, %v", p.Lines(), err)
		}
		w.putMXSet(publish.Tenant, next)
		w.pass(time.Hour)
		if s := w.status("a.example"); !strings.Contains(s.Policy, "mx2") {
			t.Errorf("%+v", s)
		}
		if s := w.status("b.example"); s.Step != publish.StepMX || !strings.Contains(s.Policy, "mx1") {
			t.Errorf("%+v", s)
		}
	})
}

func TestAPIAccounts(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.putMXSet("b", own("eu", "mx.b.test"))
		put := func(provider, token, zone string) (string, error) {
			_, said, err := w.rec.PutAccount(w.ctx, "b", config.Account{Name: "main", Provider: provider, APIToken: config.Secret(token)}, zone, "")
			return said, err
		}
		var bad *publish.InvalidError
		if _, err := put("broken", "s3cret", ""); !errors.As(err, &bad) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("an account that does not open: %v", err)
		}
		w.change(func() { w.checkErr = broken() })
		if _, err := put("test", "s3cret", "Zone.example"); !errors.As(err, &bad) || !strings.Contains(err.Error(), "no such token") {
			t.Errorf("an account that does not read: %v", err)
		}
		if got := w.rec.Accounts("b"); len(got) > 0 {
			t.Errorf("accounts are %v", got)
		}
		w.change(func() { w.checkErr = &dnsupdate.Error{Kind: dnsupdate.KindAuth, Err: broken()} })
		if _, err := put("test", "s3cret", ""); !errors.As(err, &bad) || !strings.Contains(err.Error(), "no such token") {
			t.Errorf("credentials that the provider refuses: %v", err)
		}
		if got := w.rec.Accounts("b"); len(got) > 0 {
			t.Errorf("accounts are %v", got)
		}
		w.change(func() { w.checkErr = dnsupdate.ErrNeedsZone })
		if said, err := put("test", "s3cret", ""); err != nil || !strings.HasPrefix(said, "not tried: ") || !strings.Contains(said, "name a zone") {
			t.Errorf("an account that cannot be tried: %q, %v", said, err)
		}
		w.change(func() { w.checkErr = nil })
		if said, err := put("test", "s3cret", ""); err != nil || !strings.HasPrefix(said, "the provider takes the credentials") {
			t.Errorf("good credentials: %q, %v", said, err)
		}
		if said, err := put("test", "s3cret", "zone.example"); err != nil || said != "the account reads the zone zone.example" {
			t.Errorf("%q, %v", said, err)
		}
		w.equal("checked", w.checked, "b/main zone.example s3cret", "b/main  s3cret", "b/main  s3cret", "b/main  s3cret", "b/main zone.example s3cret")
		got := w.rec.Accounts("b")
		if len(got) != 1 || got[0].ETag == "" || got[0] != (publish.Account{Name: "main", Owner: "api", Provider: "test", ETag: got[0].ETag}) {
			t.Errorf("accounts are %+v", got)
		}
		var owned *store.OwnedError
		if _, _, err := w.rec.PutAccount(w.ctx, publish.Tenant, config.Account{Name: "main", Provider: "test"}, "", ""); !errors.As(err, &owned) {
			t.Errorf("the file's account: %v", err)
		}
		if err := w.rec.DeleteAccount(w.ctx, publish.Tenant, "main", ""); !errors.As(err, &owned) {
			t.Errorf("the file's account: %v", err)
		}
		w.restart()
		if again := w.rec.Accounts("b"); !slices.Equal(again, got) {
			t.Errorf("accounts after a restart are %+v, want %+v", again, got)
		}
		if err := w.rec.DeleteAccount(w.ctx, "b", "main", ""); err != nil {
			t.Error(err)
		}
		if err := w.rec.DeleteAccount(w.ctx, "b", "main", ""); !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	})
}

// TestAPIAccountNeeded replaces an account that its provider refuses: who waited for that does not wait on.
func TestAPIAccountNeeded(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		put := func() {
			t.Helper()
			if _, _, err := w.rec.PutAccount(w.ctx, publish.Tenant, config.Account{Name: "own", Provider: "test"}, "", ""); err != nil {
				t.Fatal(err)
			}
		}
		put()
		w.change(func() { w.applyErr = broken() })
		c := zoned("a.example", "eu")
		c.Account = "own"
		w.apply(c)
		w.pass(time.Hour)
		if s := w.status("a.example"); !s.Fault || s.Step != publish.StepTXT {
			t.Fatalf("%+v", s)
		}
		var used *store.InUseError
		if err := w.rec.DeleteAccount(w.ctx, publish.Tenant, "own", ""); !errors.As(err, &used) || used.By != "a.example" {
			t.Errorf("DeleteAccount: %v", err)
		}
		w.change(func() { w.applyErr = nil })
		put()
		w.pass(2 * time.Second)
		w.reach("a.example", publish.StepLive, time.Minute)
		w.apply(publish.Change{Name: "a.example", Remove: true})
		w.pass(time.Hour)
		if err := w.rec.DeleteAccount(w.ctx, publish.Tenant, "own", ""); !errors.As(err, &used) || used.Draining != 1 || used.Until.IsZero() {
			t.Errorf("DeleteAccount during the drain: %v", err)
		}
		w.pass(9 * 24 * time.Hour)
		if err := w.rec.DeleteAccount(w.ctx, publish.Tenant, "own", ""); err != nil {
			t.Errorf("DeleteAccount after the drain: %v", err)
		}
	})
}

// TestAPIStatusOf: what is a tenant's is found, shared records among it, and nothing else.
func TestAPIStatusOf(t *testing.T) {
	inBubble(t, []policygen.Name{"a.example", "a.example.net"}, func(w *world) {
		w.apply(sharing("b.example", "eu"))
		for name, want := range map[policygen.Name]bool{"a.example": true, "a.example.net": true, "b.example": true, wildcard: true, "a.exampl": false, "*.us.s.default.a.provider.test": false} {
			for tenant, want := range map[string]bool{publish.Tenant: want, "b": false} {
				s, err := w.rec.StatusOf(w.ctx, tenant, name)
				if (err == nil && s.Name == name) != want || err != nil && err.Error() != "read "+string(name)+": not found" {
					t.Errorf("StatusOf(%s, %s) = %v, %v", tenant, name, s.Name, err)
				}
			}
		}
	})
}

// TestAPIAccountUnopened starts with accounts that do not open: that is a fault, and everything else goes on.
func TestAPIAccountUnopened(t *testing.T) {
	inBubble(t, []policygen.Name{"file.example"}, func(w *world) {
		put := func(name string) {
			t.Helper()
			if _, _, err := w.rec.PutAccount(w.ctx, publish.Tenant, config.Account{Name: name, Provider: "test"}, "", ""); err != nil {
				t.Fatal(err)
			}
		}
		put("one")
		put("two")
		c := zoned("api.example", "eu")
		c.Account = "one"
		w.apply(c)
		w.reach("api.example", publish.StepLive, time.Hour)
		for _, a := range []store.Account{
			{Tenant: publish.Tenant, Name: "one", Provider: "broken", Settings: []byte("{}")},
			{Tenant: publish.Tenant, Name: "two", Provider: "test", Settings: []byte("s3cret")},
		} {
			if err := w.store.PutAccount(w.ctx, a, ""); err != nil {
				t.Fatal(err)
			}
		}
		w.restart()
		w.equal("faults", w.faults(), "account default/one: unknown provider", `account default/two: read the settings of account "two": they are no JSON`)
		if _, err := w.reload(""); err != nil {
			t.Errorf("reload: %v", err)
		}
		w.putMXSet(publish.Tenant, own("own", "mx1.provider.test"))
		c.MXSet = "own"
		c.TLSRPT = []string{"mailto:a@provider.test"}
		w.apply(c)
		w.pass(time.Hour)
		if s := w.status("api.example"); s.TLSRPT == nil || !strings.Contains(s.TLSRPT.Problem, "unknown provider; put the account again") {
			t.Errorf("%+v, %+v", s, s.TLSRPT)
		}
		put("one")
		put("two")
		w.equal("faults", w.faults())
		w.pass(7 * time.Hour)
		if s := w.status("api.example"); s.TLSRPT.Problem != "" || s.Step != publish.StepLive {
			t.Errorf("%+v, %+v", s, s.TLSRPT)
		}
	})
}
